"""Loops in a plan: where each step finds what it reads and puts what it makes.

A step reads rows of sequences and of trajectories where they lie, and writes its results where they stay: nothing is copied. A state of
which only the last rows are wanted lives in just these rows, and moves up after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..base import poly
from ..graph.node import Node, is_leaf, make
from ..graph.scan import count, last, parts, stacked, trajectory
from ..graph.types import is_one
from ..ops.row import ROWS
from .groups import Group
from .plan import Inside, Loop, Move, Plan, Row, Scratch
from .unfold import unfolded
from .views import VIEWS, Strided, contiguous, strided

MakePlan = Callable[[Sequence[Node], Sequence[Node]], Plan]


def operands(node: Node) -> list[Strided]:
    """The inputs of a loop as they lie in memory: rows of sequences are contiguous, everything else is as a whole."""
    p = parts(node)
    return [*(_in_rows(x) for x in p.sequences), *(_whole(x) for x in (*p.initials, *p.constants))]


def _view(x: Node) -> Strided:
    view = strided(x) if not is_leaf(x) and x.op.name in VIEWS else None
    # where a counted size moves the view, it is laid out from its first element
    return view if view is not None and not any(map(_is_counted, (view.offset, *view.strides))) else _stored(x)


def _is_counted(size: Any) -> bool:
    return any(a.kind == "counted" for a in poly.atoms(size))


def _stored(x: Node) -> Strided:
    return Strided(x, 0, contiguous(x.dims), x.dims)


def _in_rows(x: Node) -> Strided:
    view = _view(x)
    tight = all(is_one(d) or s == t for d, s, t in zip(view.dims[1:], view.strides[1:], contiguous(view.dims[1:])))
    return view if tight else _stored(x)


def _whole(x: Node) -> Strided:
    view = _view(x)
    return view if view.is_contiguous else _stored(x)


def plan_loop(name: str, group: Group, make_plan: MakePlan) -> Loop:
    """The loop of a group whose template is a scan."""
    node = group.template
    assert node is not None
    return _Planner(name, node, group, make_plan).loop


class _Planner:
    def __init__(self, name: str, node: Node, group: Group, make_plan: MakePlan):
        self.node, self.body = node, node.op.body
        wanted = set(group.stored)
        targets = [*(s.next for s in self.body.states), *self.body.outs, *([] if self.body.until is None else [self.body.until])]
        computed = _each_its_own(unfolded(targets))
        plan = make_plan(self.body.inputs, computed)
        self.loop = Loop(name, node, plan, list(group.stored), [], [], [], [], [], guard=group.guard)
        views = operands(node)
        first, states = len(self.body.elements), len(self.body.states)
        for x, view in zip(self.body.elements, views):
            self.loop.rows.append(Row(x, view.base, view.offset, view.strides[0]))
        for j, initial in enumerate(views[first:first + states]):
            self._state(j, initial, computed[j], wanted)
        for x, view in zip(self.body.constants, views[first + states:]):
            self.loop.rows.append(Row(x, view.base, view.offset, 0))
        for m, y in enumerate(computed[states:states + len(self.body.outs)]):
            item = stacked(node, m)
            memory = item if item in wanted else self._scratch(f"out{m}", y.dtype, y._type.size)
            self.loop.rows.append(Row(y, memory, 0, y._type.size if item in wanted else 0))
        if self.body.until is not None:
            self.loop.stop = self._scratch("stop", "bool", 1)
            self.loop.rows.append(Row(computed[-1], self.loop.stop, 0, 0))
            self.loop.steps = count(node) if count(node) in wanted else None
        self.loop.scratch.append(Inside("inside", "int8", 0, loop=self.loop))

    def _scratch(self, name: str, dtype: str, elements: Any) -> Scratch:
        outside = self.node.op.given(self.node.attrs["sizes"])
        self.loop.scratch.append(Scratch(name, dtype, poly.substitute(elements, outside.get)))
        return self.loop.scratch[-1]

    def _state(self, j: int, initial: Strided, made: Node, wanted: set[Node]) -> None:
        state, loop = self.body.states[j], self.loop
        row, depth = poly.product(initial.dims[1:]), state.depth
        all_rows, last_rows = trajectory(self.node, j), last(self.node, j)
        kept = all_rows in wanted
        memory: Any = all_rows if kept else last_rows if last_rows in wanted else self._scratch(f"state{j}", made.dtype, depth * row)
        loop.before.append(Move((memory, 0), (initial.base, initial.offset), depth * row, made.dtype))
        for tap, read in zip(state.taps, state.reads):
            loop.rows.append(Row(read, memory, (depth + tap) * row, row if kept else 0))
        if kept:
            loop.rows.append(Row(made, memory, depth * row, row))
            if last_rows in wanted:
                assert self.body.until is None and not _is_counted(self.node.attrs["n"]), "read the last rows from the trajectory"
                loop.after.append(Move((last_rows, 0), (memory, self.node.attrs["n"] * row), depth * row, made.dtype))
            return
        new = self._scratch(f"next{j}", made.dtype, row)
        loop.rows.append(Row(made, new, 0, 0))
        if depth > 1:
            loop.between.append(Move((memory, 0), (memory, row), (depth - 1) * row, made.dtype))
        loop.between.append(Move((memory, (depth - 1) * row), (new, 0), row, made.dtype))


def _each_its_own(results: Sequence[Node]) -> list[Node]:
    """The results as nodes that are computed and differ: each has memory of its own."""
    seen: set[Node] = set()
    made = []
    for y in results:
        while is_leaf(y) or y in seen:
            y = make(ROWS["positive"], [y])
        seen.add(y)
        made.append(y)
    return made


__all__ = ["operands", "plan_loop"]
