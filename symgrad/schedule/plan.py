"""A plan: kernels in order, the buffers they read and write, and which of those are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base import poly
from ..base.dtypes import itemsize
from ..graph.node import CONSTANT, INPUT, SHARED, Node
from ..graph.types import shape_text
from .memory import Lifetime, place


@dataclass(frozen=True)
class Scratch:
    """A private buffer of one kernel."""

    name: str
    dtype: str
    elements: int


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


@dataclass
class Plan:
    """Kernels in running order, each with the conditions under which it runs."""

    inputs: list[Node]
    outputs: list[Node]
    kernels: list[Kernel] = field(default_factory=list)

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
            nbytes = itemsize(b[1].dtype) * b[1].elements if isinstance(b, tuple) else poly.evaluate(b._type.nbytes, size_of)
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
