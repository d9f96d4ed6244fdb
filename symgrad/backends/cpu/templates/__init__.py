"""Generators of CPU kernel text with an epilogue hole.

A template is a plain function of a frozen problem description. It returns the header (micro-kernels), the
body and the scratch of one kernel; the caller binds pointers and scratch s0, s1, ... before the body. Where
an output element is ready, the caller's epilogue is printed, inside a plain loop over contiguous outputs. A
template knows no op and no graph. Names made of one of the letters i, n, p, s, t or v and a number belong to
the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

__all__ = ["Epilogue", "Target", "TemplateText", "host_target"]

Epilogue = Callable[[tuple[str, ...], str], list[str]]
"""Given the index names of one output element and the text of its value: the statements that consume it."""

ITEM_BYTES = {"float32": 4, "float64": 8}
FEW_PARTS = 8           # fewer are shared out badly

Stage = tuple[tuple[int | str, int], ...]


@dataclass(frozen=True)
class TemplateText:
    """The text of one kernel: module-level lines, indented body lines, buffers s0, s1, ... (dtype, elements).

    Scratch buffers are 64-byte aligned, private to the kernel, and have undefined content.

    Of a `shared` target, `stages` has the number of parts of each stage as a product: sizes, each divided by a step
    and rounded up. The caller binds `stage` and the range from `part0` to `part1`, and runs the stages one after the
    other, the parts of one in any order or at once. `common` are the buffers that all calls see alike; of the others
    each may find its own. `pieces`: 1 if every call prepares something that others prepare too.
    """

    header: tuple[str, ...]
    body: tuple[str, ...]
    scratch: tuple[tuple[str, int], ...]
    stages: tuple[Stage, ...] = ()
    common: frozenset[int] = frozenset()
    pieces: int = 4


@dataclass(frozen=True)
class Target:
    """What a template must know of a machine: bytes per vector, vector registers, cache sizes, whether threads share a kernel."""

    vector_bytes: int
    registers: int
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    shared: bool = False

    def lanes(self, dtype: str) -> int:
        return self.vector_bytes // ITEM_BYTES[dtype]


@cache
def host_target() -> Target:
    """The machine this process runs on, as the code generator sees it."""
    from llvmlite import binding  # heavy; needed anyway to load the kernel
    features = binding.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        return Target(vector_bytes=64, registers=32)
    if features.get("avx2") and features.get("fma"):
        return Target(vector_bytes=32, registers=16)
    return Target(vector_bytes=16, registers=32 if features.get("neon") else 16)


@dataclass
class Writer:
    """Collects the header, the indented body lines, the scratch and the stages of one kernel."""

    shared: bool = False
    header: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    scratch: list[tuple[str, int]] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    common: set[int] = field(default_factory=set)
    pieces: int = 4
    depth: int = 1
    turn: tuple[str, int] | None = None     # inside `rounds`: what numbers the stages of a turn, and the first of them

    def micro(self, call: str) -> str:
        """The name of the micro-kernel made by this factory call; equal calls share one."""
        for line in self.header:
            name, _, made = line.partition(" = ")
            if made == call:
                return name
        self.header.append(f"mk{len(self.header)} = {call}")
        return f"mk{len(self.header) - 1}"

    def buffer(self, dtype: str, elements: int, common: bool = False) -> str:
        """The name of a new scratch buffer, the same for all threads or each thread's own."""
        if common:
            self.common.add(len(self.scratch))
        self.scratch.append((dtype, max(int(elements), 1)))
        return f"s{len(self.scratch) - 1}"

    def add(self, *lines: str) -> None:
        self.body.extend("    " * self.depth + line for line in lines)

    def zero(self, dtype: str, pointer: str, at: str, count: int | str, parts: int = 1, distance: int = 0) -> None:
        """Fills `count` elements of the pointer from `at` on, and of every further part."""
        self.add(f"{self.micro(f'zero_micro({dtype!r})')}(advance({pointer}, {at}), {count}, {parts}, {distance})")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.add(head)
        self.depth += 1
        yield
        self.depth -= 1

    @contextmanager
    def loop(self, name: str, stop: int | str, step: int = 1, start: int | str = 0) -> Iterator[None]:
        """A loop; one from 0 that is known to run once is printed as an assignment, which compiles faster."""
        if isinstance(stop, int) and start == 0 and stop <= step:
            if stop > 0:
                self.add(f"{name} = 0")
                yield
                return
        limits = f"{start}, {stop}, {step}" if step != 1 else f"{start}, {stop}" if start != 0 else f"{stop}"
        with self.block(f"for {name} in range({limits}):"):
            yield

    # ---- sharing: without it, each of these is what it says with all parts in one call

    def span(self, name: str, stop: int | str, step: int = 1) -> tuple[int | str, int | str]:
        """(start, stop) of the parts of this stage; a part is `step` of `stop`."""
        if not self.shared:
            return 0, stop
        self.stages.append(((stop, step),))
        by = f" * {step}" if step != 1 else ""
        self.add(f"{name}_start = part0{by}", f"{name}_stop = min(part1{by}, {stop})")
        return f"{name}_start", f"{name}_stop"

    @contextmanager
    def parts(self, name: str, stop: int | str, step: int = 1) -> Iterator[None]:
        """A loop whose turns are the parts of this stage."""
        start, stop = self.span(name, stop, step)
        with self.loop(name, stop, step, start):
            yield

    @contextmanager
    def pairs(self, outer: str, many: int | str, inner: str, count: int | str, steps: tuple[int, int] = (1, 1)) -> Iterator[None]:
        """Two nested loops whose turns are the parts of this stage."""
        if not self.shared or count == 1:
            with self.parts(outer, many, steps[0]), self.loop(inner, count, steps[1]):
                yield
            return
        self.stages.append(((many, steps[0]), (count, steps[1])))
        turns = -(-count // steps[1]) if isinstance(count, int) else f"(({count} + {steps[1] - 1}) // {steps[1]})"
        # a size that is counted at run time may turn out smaller than the parts were told
        stop = f"min(part1, ({many} + {steps[0] - 1}) // {steps[0]} * {turns})" if isinstance(many, str) else "part1"
        with self.block(f"for pair in range(part0, {stop}):"):
            self.add(f"{outer} = {sum_text((f'pair // {turns}', steps[0]))}", f"{inner} = {sum_text((f'pair % {turns}', steps[1]))}")
            yield

    @contextmanager
    def stage(self) -> Iterator[None]:
        """One of several stages; its parts are declared inside."""
        if not self.shared:
            yield
            return
        name, first = self.turn or ("stage", 0)
        with self.block(f"if {name} == {len(self.stages) - first}:"):
            yield

    @contextmanager
    def rounds(self, name: str, count: int, stages: int) -> Iterator[None]:
        """A loop of `count` turns of that many stages each."""
        if not self.shared:
            with self.loop(name, count):
                yield
            return
        first = len(self.stages)
        with self.block(f"if stage >= {first}:"):
            self.add(f"{name} = (stage - {first}) // {stages}", f"step_of_{name} = (stage - {first}) % {stages}")
            self.turn = f"step_of_{name}", first
            yield
            self.turn = None
        self.stages.extend(self.stages[first:] * (count - 1))

    def text(self) -> TemplateText:
        return TemplateText(tuple(self.header), tuple(self.body), tuple(self.scratch), tuple(self.stages), frozenset(self.common),
                            self.pieces)


def nothing(target: Target) -> TemplateText:
    """The text of a kernel without outputs."""
    return TemplateText((), ("    pass",), (), (((0, 1),),) if target.shared else ())


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def sum_text(*terms: tuple[str | int, str | int] | int | str) -> str:
    """The text of a sum of numbers, names and (factor, factor) products, without the zeros and ones."""
    known, names = 0, []
    for term in terms:
        left, right = term if isinstance(term, tuple) else (term, 1)
        if isinstance(left, int) and isinstance(right, int):
            known += left * right
        elif 0 not in (left, right):
            factors = [str(factor) if isinstance(factor, int) or factor.isidentifier() else f"({factor})"
                       for factor in (left, right) if factor != 1]
            names.append("*".join(factors))
    if known or not names:
        names.append(str(known))
    return " + ".join(names)


def choose_tile(rows: int, positions: int, lanes: int, registers: int, multiple: int = 1) -> tuple[int, int]:
    """(rows, vectors) of the register tile that wastes the least on a rows x positions output.

    `multiple` divides the tile's rows, unless there are fewer. Accumulators, one side of the operands and one
    streamed value share the registers.
    """
    tiles = _column_costs(rows, registers, multiple)
    return min((cost * -(-positions // (v * lanes)), k, (r, v)) for k, (cost, r, v) in enumerate(tiles))[2]


@cache
def _column_costs(rows: int, registers: int, multiple: int) -> list[tuple[float, int, int]]:
    """(cycles per reduced element of one column of tiles, tile rows, vectors) of the tiles that fit the registers."""
    def steps(r: int, v: int) -> float:
        """Cycles per reduced element: two multiply-adds and loads a cycle, ten sums to hide the latency."""
        loads = (
            (r + v) / 2 * (1.8 if min(r, v) == 1 else 1)
        )  # measured: one-sided tiles reach half the load rate
        return max(r * v / 2, loads, 5) if r else 0

    return [(rows // r * steps(r, v) + steps(rows % r, v) + 0.01 * (r + v), r, v)
            for r in range(min(multiple, rows), min(rows, registers) + 1) for v in range(1, registers)
            if r * v + min(r, v) + 1 <= registers and (r % multiple == 0 or rows < multiple)]
