"""Results written over operands: memory that a kernel reads for the last time, element by element, can hold what it makes of them.

An update `w -> w - rate * g` is written over w, and an intermediate value over one that dies there. Both names then lie in one
memory and get one slot of the kernel, because compilers take memory of different slots to be different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.dtypes import itemsize
from ..graph.node import Node
from .plan import Kernel, Plan


def write_in_place(plan: Plan, updates: Mapping[Node, Node]) -> None:
    """Decide what is written over what (`plan.taken`)."""
    _postpone(plan, updates)
    last, temporaries = plan.last_uses(), set(plan.temporaries())
    for k, kernel in enumerate(plan.kernels):
        stored = set(kernel.stored)
        dying = [b for b in kernel.buffers if b in temporaries and last[b] == k and b not in stored]
        for node in kernel.stored:
            if node in updates:
                offered = [updates[node]] if last.get(updates[node], -1) <= k else []
            else:
                offered = dying if node in temporaries else []
            found = next((b for b in offered if _fits(node, b) and _one_by_one(kernel, node, b)), None)
            if found is not None:
                plan.taken[node] = found
                dying = [b for b in dying if b is not found]


def _fits(node: Node, buffer: Node) -> bool:
    return node.dtype == buffer.dtype and bool(node._type.nbytes == buffer._type.nbytes)


def _one_by_one(kernel: Kernel, node: Node, buffer: Node) -> bool:
    """Each element of the node is stored once, where the buffer was read before and is not read again."""
    stores = [(k, a) for k, a in enumerate(kernel.accesses) if a.buffer is node]
    loads = [(k, a) for k, a in enumerate(kernel.accesses) if a.buffer is buffer]
    if len(stores) != 1 or stores[0][1].kind != "store":
        return False
    place, store = stores[0]
    return all(a.kind == "load" and a.at == store.at and k < place for k, a in loads)


def _postpone(plan: Plan, updates: Mapping[Node, Node]) -> None:
    """Move kernels of updates behind the last reader of the old value, where that keeps less alive than it saves."""
    last, temporaries = plan.last_uses(), set(plan.temporaries())
    first_use: dict[Node, int] = {}         # of what a kernel stores, by other kernels
    home = {node: k for k, kernel in enumerate(plan.kernels) for node in kernel.stored}
    for k, kernel in enumerate(plan.kernels):
        for b in kernel.buffers:
            if home.get(b, k) != k:
                first_use.setdefault(b, k)
    place = list(range(len(plan.kernels)))
    for new, shared in updates.items():
        own, reader = home[new], last.get(shared, -1)
        kernel = plan.kernels[own]
        if reader <= own or any(first_use.get(b, reader + 1) <= reader for b in kernel.stored):
            continue
        prolonged: Any = sum(itemsize(b.dtype) * b._type.size for b in kernel.buffers if b in temporaries and last[b] < reader)
        if isinstance(prolonged, int) and prolonged < shared._type.nbytes:
            place[own] = max(place[own], reader)
    order = sorted(range(len(place)), key=lambda k: (place[k], place[k] != k, k))
    plan.kernels = [plan.kernels[k] for k in order]


__all__ = ["write_in_place"]
