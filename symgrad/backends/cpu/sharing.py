"""Which kernels are shared out among threads, and along which loop: where the work is worth the wait for one another.

Work is estimated in picoseconds of one thread, from what a kernel reads, writes and computes. The estimate only decides
who does the work, never what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...base import poly
from ...base.poly import Atom
from ...loops import ir
from ...loops.ir import E
from ...schedule.lower import Accumulate, Finish, Nest, subexpressions
from ...schedule.plan import Sharing
from ...schedule.rows import Rows
from ..generic import SharedLoop

WORTH = 15_000_000          # picoseconds of work from which on sharing pays
FLOP, BYTE = 25, 60         # picoseconds of one operation of a contraction, of a byte that passes
ACCESS, SIMPLE, DIVISION, FUNCTION = 150, 40, 200, 600      # of one load or store, of one operation on an element
MANY = 16                   # turns of a loop that is worth cutting
VECTORS = 256               # elements: a cut between them leaves every element in the vector that it was in

FREE = {"lit", "given", "index"}
SIMPLE_CALLS = {"add", "sub", "mul", "neg", "abs", "maximum", "minimum", "where", "square", *ir.PREDICATES}
DIVISIONS = {"div", "sqrt", "floordiv", "mod", "reciprocal"}


def is_worth_sharing(work: Any) -> bool:
    """Whether threads may help with so much work; where it depends on sizes that are not known, they may."""
    return not isinstance(work, int) or work >= WORTH


def share(nests: Sequence[Nest | Rows]) -> tuple[list[SharedLoop | None], Sharing] | None:
    """The loop of each nest that threads share, and how: a stage for each nest. None if sharing does not pay."""
    amount = sum(map(work, nests), 0)
    loops = [shared_loop(nest) for nest in nests]
    if not any(loops) or not is_worth_sharing(amount):
        return None
    stages = tuple(poly.ceildiv(loop[1], loop[2]) if loop else 1 for loop in loops)
    return loops, Sharing(stages, work=amount)


def shared_loop(nest: Nest | Rows) -> SharedLoop | None:
    """A loop over whose turns results do not depend on each other."""
    if isinstance(nest, Rows):
        return *nest.loop, 1
    loop = independent_loop(nest)
    return None if loop is None else (*loop, VECTORS if loop[0] == nest.loops[-1][0] else 1)


def independent_loop(nest: Nest) -> tuple[Atom, Any] | None:
    """The outermost long loop that no reduction of the nest runs along; else the longest one."""
    reduced = frozenset().union(*(e.reduced for e in nest.effects if isinstance(e, Accumulate | Finish)))
    kept = [(a, extent) for a, extent in nest.loops if a not in reduced]
    for a, extent in kept:
        if not isinstance(extent, int) or extent >= MANY:
            return a, extent
    return max(kept, key=lambda loop: loop[1], default=None)


def work(nest: Nest | Rows) -> Any:
    """Estimated picoseconds of one thread for a nest."""
    if isinstance(nest, Rows):
        return nest.loop[1] * sum(map(work, nest.stages))
    seen: set[int] = set()
    each = sum(ACCESS + _cost(e.value, seen) for e in nest.effects)
    return poly.product(extent for _, extent in nest.loops) * each


def _cost(e: E, seen: set[int]) -> int:
    """Of what `e` computes that is not among the `seen`."""
    total = 0
    for x in subexpressions(e):
        if x.serial in seen:
            continue
        seen.add(x.serial)
        total += _own_cost(x)
    return total


def _own_cost(x: E) -> int:
    if x.kind in FREE:
        return 0
    if x.kind == "load":
        return ACCESS
    if x.kind == "fold":
        turns = poly.product(next(iter(k.terms))[0].extent for k in x.args[1])
        return (turns if isinstance(turns, int) else MANY) * _cost(x.args[2], set())
    if x.kind == "call" and not x.args[0].startswith("cast_"):
        return SIMPLE if x.args[0] in SIMPLE_CALLS else DIVISION if x.args[0] in DIVISIONS else FUNCTION
    return SIMPLE


__all__ = ["is_worth_sharing", "share", "work"]
