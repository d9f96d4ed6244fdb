"""Groups that go over the same rows share one loop over them: each row passes all of its stages while it is in the cache.

The stages of a softmax or a normalisation wait for reductions over a row, so no loop nest holds them all. But no row waits for
another: `for row: maximum; for row: exponentials and their sum; for row: quotients` may be one loop over three nests. What only
such a loop reads needs the memory of one row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..base import poly
from ..base.poly import Atom, Poly
from ..graph.node import Node, is_leaf
from ..graph.walk import order
from ..loops import ir
from .columns import columns
from .groups import PIECE, Group, Grouping
from .lower import LARGE, Accumulate, Effect, Finish, Nest, coalesce, coefficient, lower_group, replace_indices, replace_loads, subexpressions
from .plan import Scratch
from .split import split
from .tile import tile

CACHED = 512 * 1024     # bytes of a row that stay near the core from one stage to the next
LONG = 256              # elements of a row: for shorter ones, starting and ending each stage costs more than memory does


@dataclass(frozen=True)
class Rows:
    """A loop whose every turn runs all stages, one after the other."""

    loop: tuple[Atom, Any]
    stages: tuple[Nest, ...]


@dataclass(frozen=True)
class Unit:
    """What becomes one kernel: a template's group, which has no nests, or loops for one or more groups. `stored` stays in memory."""

    groups: tuple[Group, ...]
    nests: tuple[Nest | Rows, ...]
    stored: tuple[Node, ...]


def units(grouping: Grouping, outputs: Collection[Node]) -> Iterator[Unit]:
    """The groups in running order, as kernels. A group that can join the last one it depends on runs there."""
    if grouping.nodes > LARGE:
        yield from (_unit(group, grouping) for group in grouping.groups)
        return
    made: list[Unit] = []
    place: dict[Node, int] = {}
    for group in grouping.groups:
        unit = _unit(group, grouping)
        host = max((place[x] for x in _read(unit) if x in place), default=None)
        joined = _joined(made[host], unit) if host is not None else None
        if host is None or joined is None:
            host, joined = len(made), unit
            made.append(unit)
        made[host] = joined
        place.update((node, host) for node in group.stored)
    last = _last_readers(made, grouping)
    last.update((node, len(made)) for node in (*outputs, *(test for unit in made for test, _ in unit.groups[0].guard)))
    for k, unit in enumerate(made):
        yield _narrowed(unit, {node for node in unit.stored if last.get(node, k) == k}) if len(unit.groups) > 1 else unit


def _unit(group: Group, grouping: Grouping) -> Unit:
    return Unit((group,), _nests(group, grouping), tuple(group.stored))


def _last_readers(made: list[Unit], grouping: Grouping) -> dict[Node, int]:
    return {x: k for k, unit in enumerate(made) for group in unit.groups for node in computed_here(group, grouping) for x in node.deps}


def computed_here(group: Group, grouping: Grouping) -> list[Node]:
    """The nodes whose values a group computes, inputs first."""
    elsewhere = lambda n: is_leaf(n) or grouping.home.get(n, group) is not group
    return [n for n in order(group.stored, stop=elsewhere) if not elsewhere(n)]


def _nests(group: Group, grouping: Grouping) -> tuple[Nest, ...]:
    if group.template is not None:
        return ()
    return tuple(piece for part in split(lower_group(group, grouping)) for tiled in tile(coalesce(part)) for piece in columns(tiled))


def _effects(unit: Unit) -> list[Effect]:
    nests = [nest for n in unit.nests for nest in (n.stages if isinstance(n, Rows) else (n,))]
    return [e for nest in nests for e in nest.effects]


def _loads(effects: list[Effect]) -> list[tuple[Node, Any]]:
    return [x.args for x in subexpressions(*(e.value for e in effects)) if x.kind == "load"]


def _read(unit: Unit) -> set[Node]:
    return {buffer for buffer, _ in _loads(_effects(unit))}


# ------------------------------------------------------------------------------------------------ joining
def _joined(host: Unit, unit: Unit) -> Unit | None:
    """Both as one, if they go over the same rows and no row of the second needs another row of the first."""
    if len(host.nests) != 1 or len(unit.nests) != 1 or host.groups[0].guard != unit.groups[0].guard:
        return None
    if sum(g.size for g in (*host.groups, *unit.groups)) > PIECE:
        return None
    first, last = host.nests[0], unit.nests[0]
    assert isinstance(last, Nest)
    row, loop = first.loop if isinstance(first, Rows) else _row_loop(first), _row_loop(last)
    if row is None or loop is None or row[1] != loop[1] or not _apart(host, last, row[0], loop[0]):
        return None
    if any(a is row[0] for a, _ in last.loops[1:]):
        return None                     # the name is taken
    stages = (*(first.stages if isinstance(first, Rows) else (_below(first, row[0], row[0]),)), _below(last, loop[0], row[0]))
    return Unit((*host.groups, *unit.groups), (Rows(row, stages),), (*host.stored, *unit.stored)) if _fits(stages, row) else None


def _row_loop(nest: Nest) -> tuple[Atom, Any] | None:
    """The outermost loop, if all lengths are known and every turn has results of its own."""
    if not nest.loops or not all(isinstance(extent, int) for _, extent in nest.loops):
        return None
    return None if any(nest.loops[0][0] in e.reduced for e in nest.effects if isinstance(e, Accumulate | Finish)) else nest.loops[0]


def _below(nest: Nest, loop: Atom, row: Atom) -> Nest:
    """What the nest does in one turn of a loop, with the loop's index named as the row's."""
    loops = tuple((a, extent) for a, extent in nest.loops if a is not loop)
    if loop is row:
        return Nest(loops, nest.effects)
    at = {loop: Poly({(row,): 1})}
    return Nest(loops, tuple(replace(e, at=poly.substitute(e.at, at.get), value=replace_indices(e.value, at)) for e in nest.effects))


def _apart(host: Unit, last: Nest, row: Atom, loop: Atom) -> bool:
    """Whether each turn reads, of what the host stores, only what its turn of the same number stored."""
    written = {e.node: e.at for e in _effects(host)}
    return all(_same_turn(written[buffer], row, at, loop) for buffer, at in _loads(list(last.effects)) if buffer in written)


def _same_turn(stored: Any, row: Atom, read: Any, loop: Atom) -> bool:
    if not isinstance(stored, Poly) or not isinstance(read, Poly):
        return False
    step = coefficient(stored, row)
    if not isinstance(step, int) or step < 1 or coefficient(read, loop) != step:
        return False
    if row is loop and stored == read:
        return True                     # every element is stored at one point of the domain
    return _within(stored, row, step) and _within(read, loop, step)


def _within(at: Any, row: Atom, step: int) -> bool:
    """Whether the rows of these addresses lie one behind the other, `step` elements apart."""
    low, high = poly.bounds(poly.substitute(at, {row: 0}.get))
    return low >= 0 and high < step


def _fits(stages: tuple[Nest, ...], row: tuple[Atom, Any]) -> bool:
    """Whether a turn has long rows that stay in the cache."""
    rows: dict[Node, Any] = {}
    for effect in (e for nest in stages for e in nest.effects):
        for buffer, at in [(effect.node, effect.at), *_loads([effect])]:
            if isinstance(at, Poly) and row[0] in poly.atoms(at):
                rows[buffer] = buffer._type.nbytes
    if not all(isinstance(n, int) for n in rows.values()):
        return False
    total = sum(rows.values()) // max(row[1], 1)
    return row[1] > 1 and total <= CACHED and any(poly.product(n for _, n in nest.loops) >= LONG for nest in stages)


# ----------------------------------------------------------------------------------------------- narrowing
def _narrowed(unit: Unit, private: set[Node]) -> Unit:
    """The unit with one row of memory for what nothing else reads."""
    (nest,) = unit.nests
    assert isinstance(nest, Rows)
    row = nest.loop[0]
    small: dict[Node, Scratch] = {}
    for e in _effects(unit):
        step = coefficient(e.at, row) if isinstance(e.at, Poly) else None
        if e.node in private and isinstance(step, int) and _within(e.at, row, step):
            small[e.node] = Scratch(f"r{len(small)}", e.node.dtype, step)
    inside = lambda at: poly.substitute(at, {row: 0}.get)

    def change(e: Effect) -> Effect:
        value = replace_loads(e.value, lambda x: ir.load(small[x.args[0]], inside(x.args[1]), x.dtype, frozenset({row})) if x.args[0] in small else x)
        return replace(e, value=value, **({"node": small[e.node], "at": inside(e.at)} if e.node in small else {}))
    stages = tuple(Nest(stage.loops, tuple(map(change, stage.effects))) for stage in nest.stages)
    return Unit(unit.groups, (Rows(nest.loop, stages),), tuple(node for node in unit.stored if node not in small))


def show(nest: Nest | Rows, depth: int = 0) -> str:
    """The nest as text, for SYMGRAD_DEBUG=5: loops, then what happens at every point."""
    loops = [nest.loop] if isinstance(nest, Rows) else nest.loops
    lines = ["  " * (depth + k) + f"for {a.args[0]} < {extent}" for k, (a, extent) in enumerate(loops)]
    if isinstance(nest, Rows):
        return "\n".join([*lines, *(show(stage, depth + 1) for stage in nest.stages)])
    pad = "  " * (depth + len(loops))
    for e in nest.effects:
        verb = f"{e.operation} over {sorted(a.args[0] for a in e.reduced)}" if isinstance(e, Accumulate) else "after" if isinstance(e, Finish) else "="
        lines.append(f"{pad}{e.node.name or e.node.op.name}[{e.at}] {verb} {e.value!r}")
    return "\n".join(lines)
