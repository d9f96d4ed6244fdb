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
from ...schedule.partial import reduce_in_parts
from ...schedule.plan import Sharing
from ...schedule.rows import Rows
from ..generic import Shared, SharedLoop
from ..text import CHUNK

WORTH = 20_000_000          # picoseconds of work from which on sharing pays
# Measured on Zen 3 with AVX2, float32, arrays of some MB:
FLOP, BYTE = 25, 20         # picoseconds of one operation of a contraction, of a byte that passes
ACCESS, SIMPLE, DIVISION, FUNCTION = 40, 20, 100, 450       # of one load or store, of one operation on an element
MANY = 16                   # parts of a loop that is worth cutting
PART = 2_500_000            # picoseconds of work in a part of a long reduction ...
FEWEST, MOST = 16, 64       # ... of which there are so many
SMALL = 4096                # elements of a result that a part can have a copy of
VECTORS = 64                # elements: a cut between them leaves every element in the vector that it was in

FREE = {"lit", "given", "index"}
SIMPLE_CALLS = {"add", "sub", "mul", "neg", "abs", "maximum", "minimum", "where", "square", *ir.PREDICATES}
DIVISIONS = {"div", "sqrt", "floordiv", "mod", "reciprocal"}


def is_worth_sharing(work: Any) -> bool:
    """Whether threads may help with so much work; where it depends on sizes that are not known, they may."""
    return not isinstance(work, int) or work >= WORTH


def share(nests: Sequence[Nest | Rows]) -> Shared | None:
    """The nests, a stage each, with the loops that threads share. None if sharing does not pay."""
    amount = sum(map(work, nests), 0)
    if not is_worth_sharing(amount):
        return None
    pieces = [piece for nest in nests for piece in _independent(nest)]
    stages = [(nest, shared_loop(nest)) for nest in pieces]
    if not any(loop for _, loop in stages):
        return None
    return Shared(stages, Sharing(tuple(poly.ceildiv(loop[1], loop[2]) if loop else 1 for _, loop in stages), work=amount))


def _independent(nest: Nest | Rows) -> Sequence[Nest | Rows]:
    """The nest, its reductions in two steps if no long loop is free of them."""
    loop = long_reduction(nest) if isinstance(nest, Nest) else None
    if loop is None:
        return [nest]
    parts = min(max(work(nest) // PART, FEWEST), MOST)
    step = -(-loop[1] // parts)
    if loop[0] is nest.loops[-1][0]:
        step = -(-step // CHUNK) * CHUNK
    return reduce_in_parts(nest, loop[0], step) if step * 2 <= loop[1] else [nest]


def long_reduction(nest: Nest) -> tuple[Atom, int] | None:
    """The outermost long loop, if no other one with many parts is free of reductions."""
    free = shared_loop(nest)
    if free is not None and not (isinstance(free[1], int) and free[1] < MANY * free[2]):
        return None
    reductions = [e for e in nest.effects if isinstance(e, Accumulate)]
    if any(e.operation == "first" or not isinstance(e.node._type.size, int) or e.node._type.size > SMALL for e in reductions):
        return None
    return next(((a, n) for a, n in nest.loops if isinstance(n, int) and n >= MANY and any(a in e.reduced for e in reductions)), None)


def shared_loop(nest: Nest | Rows) -> SharedLoop | None:
    """A loop whose turns do not depend on each other: the outermost that has many parts, else the one that has most."""
    if isinstance(nest, Rows):
        return *nest.loop, 1
    reduced = frozenset().union(*(e.reduced for e in nest.effects if isinstance(e, Accumulate | Finish)))
    kept = [(a, extent, VECTORS if a is nest.loops[-1][0] else 1) for a, extent in nest.loops if a not in reduced]
    for a, extent, step in kept:
        if not isinstance(extent, int) or extent >= MANY * step:
            return a, extent, step
    return max(kept, key=lambda loop: loop[1] / loop[2], default=None)


def work(nest: Nest | Rows) -> Any:
    """Estimated picoseconds of one thread for a nest."""
    if isinstance(nest, Rows):
        return nest.loop[1] * sum(map(work, nest.stages))
    each = ACCESS * len(nest.effects) + _cost(*(e.value for e in nest.effects))
    return poly.product(extent for _, extent in nest.loops) * each


def _cost(*es: E) -> int:
    """Of everything that the expressions compute, once each."""
    return sum(map(_own_cost, subexpressions(*es)))


def _own_cost(x: E) -> int:
    if x.kind in FREE:
        return 0
    if x.kind == "load":
        return ACCESS
    if x.kind == "fold":
        turns = poly.product(next(iter(k.terms))[0].extent for k in x.args[1])
        return (turns if isinstance(turns, int) else MANY) * _cost(x.args[2])
    if x.kind == "call" and not x.args[0].startswith("cast_"):
        return SIMPLE if x.args[0] in SIMPLE_CALLS else DIVISION if x.args[0] in DIVISIONS else FUNCTION
    return SIMPLE


__all__ = ["is_worth_sharing", "share", "work"]
