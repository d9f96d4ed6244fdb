"""Kernel text to cubin: the one place that knows NVIDIA's `numba-cuda` and its linker, and what they need to work without a GPU.

    text --(Numba: types, LLVM)--> NVVM --> PTX --(nvJitLink)--> cubin, with a report of registers and spills
"""

from __future__ import annotations

import contextlib
import re
import types as python_types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ...base.errors import BackendError, CompileError, four_parts
from .launch import CudaKernel

PACKAGES = ("numba-cuda", "cuda-core", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink")
INSTALL = "pip install 'symgrad[cuda]'"
ENTRY = re.compile(r"\.entry\s+(\S+?)\(")
FLOAT64 = re.compile(r"^\s+(?:@!?%p\d+ )?[a-z0-9.]+\.f64", re.M)
REPORT = {"registers": r"Used (\d+) registers", "stack": r"(\d+) bytes stack frame", "spilled": r"(\d+) bytes spill stores",
          "shared": r"(\d+) bytes smem"}


@dataclass(frozen=True)
class Cubin:
    """Machine code of one kernel and what its compiler said.

    registers: per thread. stack, spilled, shared: bytes. float64_operations: instructions of the PTX.
    """

    code: bytes
    entry: str
    registers: int
    stack: int
    spilled: int
    shared: int
    float64_operations: int


def compile_kernel(kernel: CudaKernel, capability: tuple[int, int]) -> Cubin:
    """The kernel for a compute capability such as (9, 0).

    Raises BackendError where the compiler's packages are missing, CompileError with the numbered text for what it does not take.
    """
    numba_cuda = find()
    from ..cpu.toolchain import explanation
    try:
        function, signature = _function(kernel)
        _remember_types()
        with _without_device(capability):
            ptx, _ = numba_cuda.compile(function, signature, device=False, abi="numba", cc=capability, output="ptx", launch_bounds=kernel.block)
        return link(ptx, capability)
    except Exception as error:
        raise CompileError(explanation(kernel.text, kernel.name, error)) from error.with_traceback(None)


def link(ptx: str, capability: tuple[int, int]) -> Cubin:
    """PTX as machine code."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}", ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    code = linker.link("cubin").code
    log = str(linker.get_info_log())
    said = {name: int(found[1]) if (found := re.search(pattern, log)) else 0 for name, pattern in REPORT.items()}
    entry = ENTRY.search(ptx)
    assert entry is not None
    return Cubin(bytes(code), entry[1], float64_operations=len(FLOAT64.findall(ptx)), **said)


def _function(kernel: CudaKernel) -> tuple[Any, Any]:
    """The Python function of the text, with everything it names bound, and its signature."""
    from ..cpu.frontend import literals, names
    from . import dialect
    text, space = literals(kernel.text)
    code = compile(text, "<kernel>", "exec")
    space.update(range=range, min=min, max=max)
    for name in names(code) - set(space) - {"kernel"}:
        found = dialect.word(name)
        if found is not None:
            space[name] = found
    exec(code, space)
    return space["kernel"], dialect.types.void(*map(dialect.parameter, kernel.types))


def find() -> Any:
    """The compiler, with what it misses in new versions of NumPy. Raises BackendError where a package is missing."""
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack  # type: ignore[attr-defined]
    try:
        from numba import cuda
        if getattr(cuda, "implementation", "") != "NVIDIA":
            raise ImportError("numba-cuda is not installed; Numba's own CUDA target is not maintained")
        from cuda import core  # noqa: F401
    except ImportError as error:
        raise BackendError(four_parts("a compiler for CUDA kernels", f"{error}", attempt=INSTALL)) from None
    return cuda


@cache
def _remember_types() -> None:
    """Have the compiler's typing remember signatures: kernels have few types, and it would search all of NumPy for each `a + b`."""
    from numba.cuda.descriptor import cuda_target
    context, known = cuda_target.typing_context, {}
    search = context.resolve_function_type

    def resolve(function: Any, args: Any, kws: Any) -> Any:
        key = function, tuple(args), tuple(kws.items() if isinstance(kws, dict) else kws)
        if key not in known:
            known[key] = search(function, args, kws)
        return known[key]
    context.resolve_function_type = resolve


@contextlib.contextmanager
def _without_device(capability: tuple[int, int]) -> Iterator[None]:
    """Compiling asks for the present device's compute capability where it calls functions; this answers in its place."""
    from numba.cuda import dispatcher
    old = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: python_types.SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = old
