"""Transposed reads in tiles: a nest that writes along one axis and reads along another walks both in small squares.

Otherwise every element read brings in a cache line of which the rest is gone before it is wanted.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any

from ..base import poly
from ..base.dtypes import itemsize
from ..base.poly import Atom, Poly
from .lower import Nest, Store, addresses, atom_of, coefficient, replace_indices
from .split import part

TILE = (16, 8)          # steps along the axis that is read in memory order, and along the one that is written so
LINE = 64               # bytes
SETS, WAYS = 64, 8      # of an L1 cache of 32 KiB


def tile(nest: Nest) -> list[Nest]:
    """The nest in tiles, with its ragged edges as nests of their own; as it is where nothing is read across."""
    across = _read_across(nest)
    if across is None:
        return [nest]
    extents, inner = dict(nest.loops), nest.loops[-1][0]
    result = []
    for rows in _ends(extents[across], TILE[0]):
        for columns in _ends(extents[inner], TILE[1]):
            block = nest
            for loop, (start, stop) in ((across, rows), (inner, columns)):
                block = part(block, loop, start, stop) if stop - start < extents[loop] else block
            whole = columns[0] == rows[0] == 0
            result.append(_tiled(block, across.args[0]) if whole else block)
    return result


def _ends(extent: int, step: int) -> list[tuple[int, int]]:
    """The multiple of the step that fits, and what is left."""
    cut = extent - extent % step
    return [(0, cut), (cut, extent)] if cut < extent else [(0, extent)]


def _read_across(nest: Nest) -> Atom | None:
    """The loop along which something is read in memory order that the innermost loop reads by strides too long for the cache."""
    if len(nest.loops) < 2 or not all(isinstance(e, Store) and isinstance(n, int) for e in nest.effects for _, n in nest.loops):
        return None
    inner, columns = nest.loops[-1]
    if columns < TILE[1] or not all(isinstance(e.at, Poly) and coefficient(e.at, inner) == 1 for e in nest.effects):
        return None
    thrashing = [p for item in {itemsize(e.node.dtype) for e in nest.effects}
                 for p in addresses(*(e.value for e in nest.effects if itemsize(e.node.dtype) == item))
                 if _thrashes(coefficient(p, inner), columns, item)]
    return next((loop for loop, rows in nest.loops[:-1] if rows >= TILE[0] and any(coefficient(p, loop) == 1 for p in thrashing)), None)


def _thrashes(stride: Any, count: int, item: int) -> bool:
    """Whether so many reads at that stride push each other out of L1: strides of powers of two share few sets."""
    if not isinstance(stride, int) or abs(stride) * item < LINE:
        return False
    return count > WAYS * SETS // gcd(SETS, abs(stride) * item // LINE) // 2


def _tiled(nest: Nest, across: str) -> Nest:
    """Two loops, both multiples of their tile's sides, as four: over tiles outside, within a tile inside."""
    inner = nest.loops[-1][0]
    outer = next(a for a, _ in nest.loops if a.args[0] == across)
    at, tiles, within = {}, [], []
    for (loop, extent), step in zip(((outer, dict(nest.loops)[outer]), nest.loops[-1]), TILE):
        block, place = poly.index(f"{loop.args[0]} tile", extent // step), poly.index(f"{loop.args[0]} within", step)
        at[loop] = block * step + place
        tiles.append((atom_of(block), extent // step))
        within.append((atom_of(place), step))
    effects = tuple(replace(e, at=poly.substitute(e.at, at.get), value=replace_indices(e.value, at)) for e in nest.effects)
    others = [(a, n) for a, n in nest.loops if a not in (outer, inner)]
    return Nest((*others, *tiles, *within), effects)
