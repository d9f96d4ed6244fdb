"""Times of single kernels, beside what the machine can do and, if wanted, beside PyTorch.

Arithmetic is compared with the multiply-add peak, the rest with a copy of the same number of bytes; both are measured in the
same run. All sides of a case take turns.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import symgrad as sg
import symgrad.tensor as T

from .kernel_cases import Case

TURN = 200e-6           # seconds: short calls are repeated until a turn takes this long


@dataclass(frozen=True)
class Measured:
    """Median seconds per call of one case. `limit`: what the machine needs at least, by its peak or for a copy of `nbytes`."""

    case: Case
    seconds: float
    limit: float
    nbytes: int
    peer: float | None = None

    @property
    def rate(self) -> float:
        """GFLOP/s where arithmetic is the limit, else GB/s."""
        return (self.case.flops or self.nbytes) / self.seconds / 1e9

    @property
    def unit(self) -> str:
        return "GFLOP/s" if self.case.flops else "GB/s"

    @property
    def share(self) -> float:
        """The part of the limit that is reached."""
        return self.limit / self.seconds


def measure(cases: Iterable[Case], seconds: float = 0.2, peer: str | None = None) -> Iterator[Measured]:
    """Each case as it is measured, in about `seconds`. peer: "torch" or None."""
    peaks: dict[str, float] = {}
    for case in cases:
        dtype = case.dtype(0)
        if case.flops and dtype not in peaks:
            peaks[dtype] = multiply_add_peak(dtype)
        arrays = drawn(case)
        run, results = compiled(case, arrays)
        nbytes = sum(a.nbytes for a in [*arrays, *results])
        calls = [run]
        if not case.flops:
            calls.append(copying(nbytes))
        if peer == "torch":
            calls.append(in_torch(case, arrays, results))
        times = median_times(calls, seconds)
        limit = case.flops / peaks[dtype] if case.flops else times[1]
        yield Measured(case, times[0], limit, nbytes, times[-1] if peer else None)


def median_times(calls: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """The median seconds of each call; they take turns, so that a busy machine is busy for all."""
    repeats = [max(1, round(TURN / min(once(call) for _ in range(3)))) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times[0]) < 5:
        for call, count, own in zip(calls, repeats, times):
            start = time.perf_counter()
            for _ in range(count):
                call()
            own.append((time.perf_counter() - start) / count)
    return [statistics.median(own) for own in times]


def once(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return max(time.perf_counter() - start, 1e-9)


# ------------------------------------------------------------------------------------------ the two sides
def drawn(case: Case) -> list[np.ndarray]:
    """Arguments of the case, and behind them the cotangent if a gradient is timed."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, case.top, shape) if case.dtype(k).startswith("int") else rng.normal(size=shape).astype(case.dtype(k))
              for k, shape in enumerate(case.shapes)]
    if case.wrt:
        result = case.call(T, *variables(arrays))
        arrays.append(rng.normal(size=result.dims).astype(result.dtype))
    return arrays


def variables(arrays: Sequence[np.ndarray]) -> list[Any]:
    return [T.tensor(f"x{k}", a.shape, a.dtype) for k, a in enumerate(arrays)]


def compiled(case: Case, arrays: Sequence[np.ndarray]) -> tuple[Callable[[], Any], list[np.ndarray]]:
    """(a call of the compiled case, its results)."""
    xs = variables(arrays)
    inputs = xs[:len(case.shapes)]
    y = case.call(T, *inputs)
    outputs = sg.vjp(y, [xs[k] for k in case.wrt], xs[-1]) if case.wrt else [y]
    f = sg.function(xs, outputs, on_unused_input="ignore")
    return (lambda: f(*arrays)), f(*arrays)


class _Functions:
    """PyTorch's functions under one roof, as `symgrad.tensor` has them."""

    def __getattr__(self, name: str) -> Any:
        import torch
        return getattr(torch.nn.functional, name, None) or getattr(torch, name)


def in_torch(case: Case, arrays: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> Callable[[], Any]:
    """A call of the case in PyTorch. Raises AssertionError if its results are others."""
    import torch
    xs = [torch.from_numpy(a) for a in arrays]
    call, wrt = case.peer or case.call, [xs[k].requires_grad_() for k in case.wrt]
    forward = lambda: call(_Functions(), *xs[:len(case.shapes)])
    y = forward()

    def run() -> Any:
        if wrt:
            return torch.autograd.grad(forward() if case.forward else y, wrt, xs[-1], retain_graph=True)
        with torch.inference_mode():
            return forward()
    found = run()
    for ours, theirs in zip(results, found if wrt else [found]):
        error = np.abs(ours - theirs.numpy()).max(initial=0)
        assert error <= 1e-3 * np.abs(ours).max(initial=1e-30), f"{case.kind} {case.name}: differs from PyTorch by {error:.2g}"
    return run


# -------------------------------------------------------------------------------------------- the machine
def copying(nbytes: int) -> Callable[[], Any]:
    """A copy that reads and writes `nbytes` in all, between arrays in use."""
    source, target = (np.ones(max(nbytes // 2, 1), "uint8") for _ in range(2))
    return lambda: np.copyto(target, source)


def multiply_add_peak(dtype: str) -> float:
    """Floating operations per second of one core: a register tile of a matrix product whose operands stay where they are."""
    from ..backends.cpu.templates import host_target
    from ..backends.cpu.toolchain import compile_text
    target = host_target()
    lanes, rows, vectors, depth = target.lanes(dtype), 6 if target.registers < 32 else 12, 2, 100_000
    text = (f"mk0 = tile_micro({dtype!r}, {lanes}, {rows}, {vectors}, w_row=1, w_red=0, x_red=0, y_row={vectors * lanes})\n"
            f"def kernel(args):\n    x = ptr_{dtype}(args, 0)\n    y = ptr_{dtype}(args, 1)\n    mk0(x, x, y, 0, {depth}, 0)\n")
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compile_text(text, "peak").address)
    x, y = np.zeros(64, dtype), np.zeros(rows * vectors * lanes, dtype)
    table = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    return 2 * rows * vectors * lanes * depth / min(once(lambda: call(table.ctypes.data)) for _ in range(50))
