"""A plan: kernels in order, the buffers they read and write, and which of those are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base import poly
from ..base.dtypes import itemsize
from ..graph.node import CONSTANT, INPUT, SHARED, Node
from ..graph.types import shape_text
from .memory import ALIGNMENT, Lifetime, place


@dataclass(frozen=True)
class Scratch:
    """A private buffer of one kernel."""

    name: str
    dtype: str
    elements: Any

    def nbytes(self, size_of: Any) -> int:
        return itemsize(self.dtype) * poly.evaluate(self.elements, size_of)


@dataclass
class Kernel:
    """One kernel of a plan: its text, its arguments by slot, what it computes."""

    name: str
    text: str
    arguments: list[tuple[str, Any]]        # ("buffer", node) | ("scratch", Scratch) | ("size", atom)
    stored: list[Node]
    what: str
    flops: Any = 0
    guard: tuple[tuple[Node, bool], ...] = ()   # conditions, outermost first, under which it runs

    @property
    def buffers(self) -> list[Node]:
        return [what for kind, what in self.arguments if kind == "buffer"]

    def moved_bytes(self) -> Any:
        return sum_of(b._type.nbytes for b in self.buffers)


@dataclass(frozen=True)
class Row:
    """Where step t of a loop finds a buffer: `offset + t * stride` elements into memory outside, a buffer or a scratch."""

    inner: Node
    memory: Any
    offset: Any
    stride: Any


@dataclass(frozen=True)
class Move:
    """`elements` of `dtype` copied from (memory, offset in elements) to another such place; they may overlap."""

    target: tuple[Any, Any]
    source: tuple[Any, Any]
    elements: Any
    dtype: str


@dataclass(frozen=True)
class Inside(Scratch):
    """The memory of what a loop computes within a step."""

    loop: Any = field(compare=False, repr=False, default=None)

    def nbytes(self, size_of: Any) -> int:
        return self.loop.plan.arena(self.loop.sizes(size_of))[1] + ALIGNMENT


@dataclass
class Loop:
    """A plan run n times, with buffers that move on at every step. It stands among kernels, and is asked what they are asked."""

    name: str
    node: Node
    plan: Plan
    stored: list[Node]
    rows: list[Row]
    before: list[Move]                      # before the first step
    between: list[Move]                     # at the end of every step
    after: list[Move]                       # after the last step
    scratch: list[Scratch]
    stop: Scratch | None = None             # holds whether the last step was the last
    steps: Node | None = None               # receives the number of steps taken
    guard: tuple[tuple[Node, bool], ...] = ()

    @property
    def what(self) -> str:
        return f"scan({', '.join(k.what for k in self.plan.kernels)})"

    @property
    def text(self) -> str:
        return "\n".join(k.text for k in self.plan.kernels)

    @property
    def arguments(self) -> list[tuple[str, Any]]:
        """The memory outside that it uses, and its own."""
        used = [r.memory for r in self.rows] + [place[0] for m in (*self.before, *self.between, *self.after) for place in (m.target, m.source)]
        buffers = dict.fromkeys([*(m for m in used if isinstance(m, Node)), *self.stored])
        return [*(("buffer", b) for b in buffers), *(("scratch", s) for s in self.scratch)]

    @property
    def buffers(self) -> list[Node]:
        return [what for kind, what in self.arguments if kind == "buffer"]

    @property
    def flops(self) -> Any:
        return 0

    def moved_bytes(self) -> Any:
        return sum_of(b._type.nbytes for b in self.buffers)

    def sizes(self, size_of: Any) -> Any:
        """Sizes inside, from sizes outside."""
        given = {a: poly.evaluate(size, size_of) for a, size in self.node.op.given(self.node.attrs["sizes"]).items()}
        return lambda a: given[a] if a in given else size_of(a)


@dataclass
class Plan:
    """Kernels and loops in running order, each with the conditions under which it runs."""

    inputs: list[Node]
    outputs: list[Node]
    kernels: list[Any] = field(default_factory=list)

    def flat(self) -> list[Kernel]:
        """All kernels, those inside loops included."""
        return [k for item in self.kernels for k in (item.plan.flat() if isinstance(item, Loop) else [item])]

    def temporaries(self) -> list[Node]:
        """Stored values that are not outputs, in order of first use."""
        outs = set(self.outputs)
        return [n for k in self.kernels for n in k.stored if n not in outs]

    def leaves(self, op: Any) -> list[Node]:
        found: dict[Node, None] = {}
        for k in self.kernels:
            found.update((b, None) for b in k.buffers if b.op is op)
        return list(found)

    @property
    def constants(self) -> list[Node]:
        return self.leaves(CONSTANT)

    @property
    def shared(self) -> list[Node]:
        return self.leaves(SHARED)

    @property
    def used_inputs(self) -> list[Node]:
        return self.leaves(INPUT)

    def arena(self, size_of: Any) -> tuple[dict[Any, int], int]:
        """Byte offsets of temporaries and scratch, and the bytes in all, for sizes as `size_of(atom)` gives them."""
        first: dict[Any, int] = {}
        last: dict[Any, int] = {}
        mine = set(self.temporaries())
        for k, kernel in enumerate(self.kernels):
            for kind, what in kernel.arguments:
                if kind == "scratch" or (kind == "buffer" and what in mine):
                    first.setdefault((k, what) if kind == "scratch" else what, k)
                    last[(k, what) if kind == "scratch" else what] = k
        lifetimes = []
        for b in first:
            nbytes = b[1].nbytes(size_of) if isinstance(b, tuple) else poly.evaluate(b._type.nbytes, size_of)
            lifetimes.append(Lifetime(b, nbytes, first[b], last[b]))
        return place(lifetimes)


def sum_of(terms: Any) -> Any:
    total: Any = 0
    for t in terms:
        total = total + t
    return total


def table(plan: Plan, arena_bytes: int | None = None) -> str:
    """What was fused and stored, one line per kernel."""
    rows = [("kernel", "computes", "stores", "reads")]
    for k in plan.kernels:
        stores = ", ".join(f"{n.name or n.op.name} {n.dtype} {shape_text(n.dims)}" for n in k.stored)
        reads = ", ".join(label(b) for b in k.buffers if b not in set(k.stored))
        rows.append((k.name, k.what, stores, reads))
    widths = [min(max(len(r[c]) for r in rows), 60) for c in range(3)]
    lines = ["  ".join([*(f"{_cut(r[c], w):<{w}}" for c, w in enumerate(widths)), _cut(r[3], 60)]).rstrip() for r in rows]
    for loop in plan.kernels:
        if isinstance(loop, Loop):
            lines += [f"{loop.name}, each of {loop.node.attrs['n']} steps:", *("  " + line for line in table(loop.plan).split("\n")[1:])]
    temporaries = plan.temporaries()
    lines.append(f"{len(plan.kernels)} kernels, {len(temporaries)} stored intermediates"
                 + (f", arena {arena_bytes / 1024:.1f} KiB" if arena_bytes is not None else ""))
    return "\n".join(lines)


def label(node: Node) -> str:
    return node.name or node.op.name


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[:width - 1] + "…"


def summary(nodes: Sequence[Node]) -> str:
    """`conv2d+add+relu`: the ops of a kernel, in order, repeated ones counted."""
    counts: dict[str, int] = {}
    for n in nodes:
        counts[n.op.name] = counts.get(n.op.name, 0) + 1
    return "+".join(name if c == 1 else f"{name}*{c}" for name, c in counts.items())
