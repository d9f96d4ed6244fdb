"""Loops cut where a condition on their index changes: a concatenation becomes one nest per operand, free of conditions."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

from ..base import poly
from ..base.poly import Atom
from ..loops import ir
from ..loops.ir import E
from .lower import Accumulate, Finish, Nest, atom_of, replace_indices, subexpressions

MOST = 32               # nests that one may become: each is compiled


def split(nest: Nest) -> list[Nest]:
    """The nest as nests over parts of its domain, in order of memory. Loops of unknown length and reduced ones stay whole."""
    cuts = {loop: marks for loop, extent in nest.loops if isinstance(extent, int) and (marks := _cuts(nest, loop, extent))}
    if not cuts or prod(len(marks) + 1 for marks in cuts.values()) > MOST:
        return [nest]
    parts = [nest]
    for loop, marks in cuts.items():
        extent = dict(nest.loops)[loop]
        parts = [part(whole, loop, start, stop) for whole in parts for start, stop in pairwise((0, *marks, extent))]
    return parts


def _cuts(nest: Nest, loop: Atom, extent: int) -> list[int]:
    """Where on this loop the conditions change that compare it with a number."""
    if any(isinstance(e, Accumulate | Finish) and loop in e.reduced for e in nest.effects):
        return []
    tests = [x.args[0] for x in subexpressions(*(e.value for e in nest.effects)) if x.kind == "cond"]
    return sorted({mark for test in tests if (mark := _change(test, loop)) is not None and 0 < mark < extent})


def _change(test: E, loop: Atom) -> int | None:
    """The first index for which `test` has another value than for 0; None if it is about anything but the loop and a number."""
    if test.kind != "call" or test.args[0] not in ("lt", "le", "gt", "ge") or test.args[1].dtype != "int64":
        return None
    difference = ir.as_index(test.args[1]) - ir.as_index(test.args[2])
    rest = poly.substitute(difference, {loop: 0}.get)
    step = poly.substitute(difference, {loop: 1}.get) - rest
    if not isinstance(rest, int) or step not in (1, -1) or poly.atoms(difference) != {loop}:
        return None
    # step*i + rest changes its sign between -step*rest and the next index, on the side that holds 0
    past_zero = test.args[0] in ("le", "gt") if step == 1 else test.args[0] in ("lt", "ge")
    return -step * rest + past_zero


def part(nest: Nest, loop: Atom, start: int, stop: int) -> Nest:
    """The nest with this loop from start to stop only."""
    inside = poly.index(loop.args[0], stop - start) if stop - start > 1 else 0
    at = {loop: inside + start}
    effects = tuple(replace(e, at=poly.substitute(e.at, at.get), value=replace_indices(e.value, at)) for e in nest.effects)
    rename: dict[Atom, tuple[tuple[Atom, Any], ...]] = {loop: ((atom_of(inside), stop - start),) if stop - start > 1 else ()}
    return Nest(tuple(new for a, extent in nest.loops for new in rename.get(a, ((a, extent),))), effects)
