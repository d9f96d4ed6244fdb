"""Long reductions in two steps: results of parts of a loop, next to each other, and then the result of those.

So threads can share a sum over everything. Where the parts begin depends on the sizes alone, so the sum does not depend on
who added up which part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..base import poly
from ..base.poly import Atom
from ..graph.node import Node
from ..loops import ir
from .lower import Accumulate, Effect, Finish, Nest, Store, atom_of, replace_indices
from .plan import Scratch


def reduce_in_parts(nest: Nest, loop: Atom, step: int) -> list[Nest]:
    """The nest with what it reduces along `loop` reduced over every `step` turns, over what is left, and over those results."""
    extent = dict(nest.loops)[loop]
    parts, rest = extent // step, extent % step
    results = [e for e in nest.effects if isinstance(e, Accumulate) and loop in e.reduced]
    memory = {e.node: Scratch(f"q{k}", e.node.dtype, (parts + bool(rest)) * e.node._type.size, common=True) for k, e in enumerate(results)}
    name = loop.args[0]
    part, within = poly.index(f"{name} part", parts), poly.index(f"{name} within", step)
    nests = [_over(nest, loop, part * step + within, ((atom_of(part), parts),), (atom_of(within), step), part, memory)]
    if rest:
        behind = poly.index(f"{name} behind", rest) if rest > 1 else 0
        inner = ((atom_of(behind), rest),) if rest > 1 else ()
        nests.append(_over(nest, loop, parts * step + behind, (), *inner or (None,), parts, memory))
    number = poly.index(f"{name} part", parts + bool(rest))
    for kept in dict.fromkeys(_kept(e, nest) for e in results):
        nests.append(_combined(nest, loop, kept, number, memory))
    return nests


def _over(nest: Nest, loop: Atom, at: Any, outside: tuple[tuple[Atom, Any], ...], inside: tuple[Atom, Any] | None, number: Any,
          memory: dict[Node, Scratch]) -> Nest:
    """The nest where `loop` is `at`, walked by the loops outside and inside; reductions along it become results number `number`."""
    own = frozenset({inside[0]} if inside else ())

    def change(e: Effect) -> Effect:
        value, place = replace_indices(e.value, {loop: at}), poly.substitute(e.at, {loop: at}.get)
        if isinstance(e, Accumulate) and loop in e.reduced:
            place, along = number * e.node._type.size + place, e.reduced - {loop} | own
            # a single turn that is left over has nothing to add up
            return Accumulate(memory[e.node], place, value, e.operation, along) if along else Store(memory[e.node], place, value)
        return replace(e, at=place, value=value)
    inner = (inside,) if inside else ()
    loops = (*outside, *(new for entry in nest.loops for new in (inner if entry[0] is loop else (entry,))))
    return Nest(loops, tuple(change(e) for e in nest.effects if not (isinstance(e, Finish) and loop in e.reduced)))


def _kept(e: Accumulate | Finish, nest: Nest) -> tuple[tuple[Atom, Any], ...]:
    return tuple(entry for entry in nest.loops if entry[0] not in e.reduced)


def _combined(nest: Nest, loop: Atom, kept: tuple[tuple[Atom, Any], ...], number: Any, memory: dict[Node, Scratch]) -> Nest:
    """What remains for the reductions that keep those loops: over their partial results, and what waits for them."""
    along = atom_of(number)
    mine = [e for e in nest.effects if isinstance(e, Accumulate | Finish) and loop in e.reduced and _kept(e, nest) == kept]

    def change(e: Accumulate | Finish) -> Effect:
        if isinstance(e, Finish):
            return replace(e, reduced=frozenset({along}))
        value = ir.load(memory[e.node], number * e.node._type.size + e.at, e.node.dtype)
        return Accumulate(e.node, e.at, value, e.operation, frozenset({along}))
    # results lie next to each other, so their loop is inside
    return Nest(((along, along.extent), *kept), tuple(map(change, mine)))
