"""Short rows reduced as columns: vectors go across rows, and a result needs no sum within a vector.

A row of ten elements fills a vector and a quarter; what is computed once per row, a logarithm for instance, is not vectorised at all.
"""

from __future__ import annotations

from dataclasses import replace

from ..base import poly
from .lower import Accumulate, Finish, Nest, atom_of, replace_indices
from .split import part

SHORT = 16              # elements of a row
BLOCK = 256             # rows at once: they stay in L1
FEW = 64                # rows that are not worth it


def columns(nest: Nest) -> list[Nest]:
    """The nest with its short inner reduction outside a loop over many rows, block by block; as it is if it has none."""
    if len(nest.loops) != 2:
        return [nest]
    (rows, count), (along, length) = nest.loops
    reduced = {e.reduced for e in nest.effects if isinstance(e, Accumulate | Finish)}
    if reduced != {frozenset({along})} or not isinstance(count, int) or not isinstance(length, int) or length > SHORT or count < FEW:
        return [nest]
    whole = count - count % BLOCK
    if not whole:
        return [Nest((nest.loops[1], nest.loops[0]), nest.effects)]
    block, within = poly.index(f"{rows.args[0]} block", whole // BLOCK), poly.index(f"{rows.args[0]} within", BLOCK)
    at = {rows: block * BLOCK + within}
    effects = tuple(replace(e, at=poly.substitute(e.at, at.get), value=replace_indices(e.value, at)) for e in nest.effects)
    result = [Nest(((atom_of(block), whole // BLOCK), (along, length), (atom_of(within), BLOCK)), effects)]
    return result + (columns(part(nest, rows, whole, count)) if whole < count else [])
