"""A plan for people: what was fused and stored, what is written over what, what is computed more than once, and the memory it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ..base.poly import Atom
from ..graph.node import Node
from ..graph.types import shape_text
from .groups import node_cost
from .plan import Kernel, Loop, Plan, summary

SHOWN = 8           # values written in place that are named


def table(plan: Plan, size_of: Callable[[Atom], int] | None = None) -> str:
    """One line per kernel, then totals. Memory is given for sizes as `size_of(atom)` gives them."""
    rows = [("kernel", "computes", "stores", "reads")]
    for k in plan.kernels:
        stores = ", ".join(f"{label(n)} {n.dtype} {shape_text(n.dims)}" for n in k.stored)
        reads = ", ".join(label(b) for b in k.buffers if b not in set(k.stored))
        rows.append((k.name, k.what, stores, reads))
    widths = [min(max(len(r[c]) for r in rows), 60) for c in range(3)]
    lines = ["  ".join([*(f"{_cut(r[c], w):<{w}}" for c, w in enumerate(widths)), _cut(r[3], 60)]).rstrip() for r in rows]
    for loop in plan.kernels:
        if isinstance(loop, Loop):
            lines += [f"{loop.name}, each of {loop.node.attrs['n']} steps:", *("  " + line for line in table(loop.plan).split("\n")[1:])]
    shared = [k.name for k in plan.kernels if isinstance(k, Kernel) and k.sharing]
    if shared:
        lines.append(f"shared by threads: {', '.join(shared)}")
    memory = "" if size_of is None else f", {_memory(plan, size_of)}"
    lines.append(f"{len(plan.kernels)} kernels, {len(plan.temporaries())} stored intermediates{memory}")
    return "\n".join([*lines, *_in_place(plan), *_recomputed(plan)])


def _memory(plan: Plan, size_of: Callable[[Atom], int]) -> str:
    """The arena, and what would be needed if every value and every scratch had memory of its own."""
    values = sum(b.nbytes for b in plan.lifetimes(size_of, shared=False))
    return f"arena {plan.arena(size_of)[1] / 1024:.1f} KiB for {values / 1024:.1f} KiB of values and scratch"


def _in_place(plan: Plan) -> list[str]:
    count = Counter(f"{label(n)} over {label(b)}" for n, b in plan.taken.items())
    pairs = [pair if times == 1 else f"{pair} ({times} times)" for pair, times in count.items()]
    more = [f"and {len(pairs) - SHOWN} more"] if len(pairs) > SHOWN else []
    return [f"written in place: {', '.join([*pairs[:SHOWN], *more])}"] if pairs else []


def _recomputed(plan: Plan) -> list[str]:
    """Values that cost something and are computed in several kernels, rather than stored."""
    count: dict[Node, int] = {}
    for kernel in plan.kernels:
        for n in kernel.nodes:
            count[n] = count.get(n, 0) + 1
    again: Sequence[Any] = [n for n, times in count.items() if times > 1 and node_cost(n)]
    return [f"computed again where they are read: {_cut(summary(again), 120)}"] if again else []


def label(node: Node) -> str:
    return node.name or node.op.name


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[:width - 1] + "…"


__all__ = ["label", "table"]
