"""The gradient of a loop: another loop, which walks back (backpropagation through time, Werbos 1990).

One step back gets what the step computed and the cotangents of its results, and gives those of what it read. What it needs of
the forward pass comes from rows: of the sequences, of the trajectories of the states, and of what the forward loop keeps for this purpose;
only cheap elementwise work is done again. Cotangents of a state travel from step to step in slots, one per row that may still receive
contributions; cotangents of constants add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..base import dtypes, poly
from ..graph.inline import inline_blocks
from ..graph.node import Node, new_input
from ..graph.scan import STEP, Body, State, count, last, make_scan, opened, parts, rebodied_outs, stacked, trajectory
from ..graph.walk import depends_on, order, substitute
from ..ops.arrange import concatenate, flip
from ..ops.branch import zeros_like
from ..ops.cost import MOVEMENT, is_elementwise, node_cost
from ..ops.counted import count as count_row
from ..ops.counted import counted, number_of_steps
from ..ops.create import arange
from ..ops.row import STOP, as_tensor
from ..ops.shape import broadcast_to, reshape, slice_axis
from .overrides import Ruling

AGAIN = 4               # operations per element that are cheaper than to keep a result and load it
PullBack = Callable[..., dict[Node, Any]]


def through_loop(node: Node, gs: Sequence[Node | None], ruling: Ruling, pull_back: PullBack) -> list[Any]:
    """The cotangents of a loop's inputs from those of its results (None where none comes)."""
    step = _StepBack(node, gs, ruling, pull_back)
    if not step.found:
        return [STOP] * len(node.inputs)
    return step.cotangents()


@dataclass(frozen=True)
class Slot:
    """Cotangents on their way to rows that were made `age` steps before the step that is walked."""

    state: int
    age: int


def narrowest(x: Node, users: dict[Node, list[Node]], read: set[Node]) -> Node:
    """x, or a value of fewer bytes that is all x is used for: the comparison, not the random bits behind it.

    users: what is computed again from each value. read: the values that must be there themselves.
    """
    best = x
    while x not in read and len(users.get(x, ())) == 1 and users[x][0].dims == best.dims:
        x = users[x][0]
        if dtypes.itemsize(x.dtype) < dtypes.itemsize(best.dtype):
            best = x
    return best


class _StepBack:
    """One step of the gradient, and the loop around it."""

    def __init__(self, node: Node, gs: Sequence[Node | None], ruling: Ruling, pull_back: PullBack):
        self.node, self.body, self.parts = node, opened(node), parts(node)
        gs = [g if dtypes.is_float(t.dtype) else None for g, t in zip(gs, node._type.items)]
        n_states, n_outs = len(self.body.states), len(self.body.outs)
        self.g_rows = [gs[2 * j] for j in range(n_states)]
        self.g_last = [gs[2 * j + 1] for j in range(n_states)]
        self.g_outs = list(gs[2 * n_states:2 * n_states + n_outs])
        self.active = self._active_states()
        self.g_next = {j: new_input(self.body.states[j].next._type) for j in self.active}
        self.g_out = {m: new_input(self.body.outs[m]._type) for m, g in enumerate(self.g_outs) if g is not None}
        self.found = self._pulled(ruling, pull_back)

    def _active_states(self) -> list[int]:
        """The states whose cotangents may not be zero: results are asked of them, or of what later steps make of them."""
        body = self.body
        seeds = [y for y, g in zip(body.outs, self.g_outs) if g is not None]
        active = {j for j, (a, b) in enumerate(zip(self.g_rows, self.g_last)) if a is not None or b is not None}
        while True:
            reached = set(order([*seeds, *(body.states[j].next for j in active)]))
            more = {j for j, s in enumerate(body.states) if dtypes.is_float(s.next.dtype) and any(r in reached for r in s.reads)} - active
            if not more:
                return sorted(j for j in active if dtypes.is_float(body.states[j].next.dtype))
            active |= more

    def _pulled(self, ruling: Ruling, pull_back: PullBack) -> dict[Node, Node]:
        """{input of the step: its cotangent}, in plain graph."""
        body = self.body
        seeds: dict[Node, Node] = {}
        for y, g in [*((body.states[j].next, g) for j, g in self.g_next.items()), *((body.outs[m], g) for m, g in self.g_out.items())]:
            seeds[y] = seeds[y] + g if y in seeds else g
        inputs = [x for x in body.inputs if dtypes.is_float(x.dtype)]
        found = pull_back(seeds, inputs, ruling, leaves=set(body.inputs))
        values = inline_blocks(list(found.values()))
        idle = {self.g_next[j]: zeros_like(self.g_next[j]) for j in self.active
                if self.g_rows[j] is None and self.g_last[j] is None and not any(r in found for r in body.states[j].reads)}
        return dict(zip(found, substitute(values, idle)))

    # ---- the forward pass, kept
    def _kept(self) -> dict[Node, None]:
        """What the step back uses of the step and does not compute again."""
        cotangents = [*self.g_next.values(), *self.g_out.values()]
        exprs = list(self.found.values())
        back = depends_on(exprs, cotangents)
        moving = depends_on(exprs, self.body.varying)
        todo = [x for y in order(exprs, stop=lambda n: n not in back) if y in back for x in y.inputs if x not in back]
        todo += [y for y in exprs if y not in back]
        inputs, seen, kept, read = set(self.body.inputs), set(), dict[Node, None](), set(todo)
        while todo:
            x = todo.pop()
            if x in seen or x in inputs or x not in moving:
                continue
            seen.add(x)
            if _is_counted_in_step(x) or ((is_elementwise(x) or x.op.name in MOVEMENT) and node_cost(x) <= AGAIN):
                todo.extend(x.deps)
            else:
                kept[x] = None
        carried = set(inline_blocks([s.next for s in self.body.states]))
        users: dict[Node, list[Node]] = {}
        for y in seen - set(kept):
            for x in set(y.deps):
                users.setdefault(x, []).append(y)
        return dict.fromkeys(x if x in carried else narrowest(x, users, read) for x in kept)

    # ---- the loop back
    def cotangents(self) -> list[Any]:
        body, p = self.body, self.parts
        nexts = inline_blocks([s.next for s in body.states])
        kept = self._kept()
        saved = [x for x in kept if x not in set(nexts)]
        forward = rebodied_outs(self.node, body, saved)
        first_saved = len(self.node.op.body.outs)
        n = self.node.attrs["n"] if body.until is None else counted(count(forward), self.node.attrs["n"])
        walked = n if body.truncate is None else number_of_steps(poly.minimum(n, body.truncate))
        back_rows = lambda rows, start=0: flip(slice_axis(rows, 0, start + n - walked, walked), 0)

        # every value of the step, and the rows it comes from
        rows: dict[Node, Node] = dict(zip(body.elements, p.sequences))
        offsets: dict[Node, int] = {}
        for j, s in enumerate(body.states):
            for tap, read in zip(s.taps, s.reads):
                rows[read], offsets[read] = trajectory(forward, j), s.depth + tap
            if nexts[j] in kept:
                rows[nexts[j]], offsets[nexts[j]] = trajectory(forward, j), s.depth
        rows |= {x: stacked(forward, first_saved + k) for k, x in enumerate(saved)}
        rows[body.step] = arange(0, n)
        rows |= {self.g_out[m]: g for m, g in enumerate(self.g_outs) if g is not None}

        slots = [Slot(j, age) for j in self.active for age in range(body.states[j].depth)]
        pending = {slot: new_input(self.g_next[slot.state]._type) for slot in slots}
        constants = [x for x in body.constants if x in self.found]
        totals = {x: new_input(x._type) for x in constants}
        arriving: dict[Node, Node] = {}
        for j in self.active:
            arriving[self.g_next[j]] = pending[Slot(j, 0)]
            g_rows = self.g_rows[j]
            if g_rows is not None:
                g_row = new_input(self.g_next[j]._type)
                rows[g_row], offsets[g_row] = g_rows, body.states[j].depth
                arriving[self.g_next[j]] = pending[Slot(j, 0)] + g_row

        inner = dict(zip(self.found, substitute(list(self.found.values()), arriving)))
        states = [State((-1,), (pending[slot],), self._passed_on(slot, pending, inner)) for slot in slots]
        states += [State((-1,), (totals[x],), totals[x] + inner[x]) for x in constants]
        elements = [x for x in body.elements if x in inner]
        used = set(order([*(s.next for s in states), *(inner[x] for x in elements)]))
        walking = [x for x in rows if x in used]
        back = Body(new_input(STEP), tuple(walking), tuple(states), body.constants, tuple(inner[x] for x in elements))
        initials = [*(self._arrived_last(slot) for slot in slots), *(_one_row(zeros_like(c)) for x, c in zip(body.constants, p.constants) if x in totals)]
        loop = make_scan(back, [back_rows(rows[x], offsets.get(x, 0)) for x in walking], initials, p.constants, walked)

        answers: dict[Node, Any] = {x: self._rows_in_place(stacked(loop, k), walked, n) for k, x in enumerate(elements)}
        answers |= {x: last(loop, len(slots) + k)[0] for k, x in enumerate(constants)}
        initial = [self._into_initial(j, {s: last(loop, k)[0] for k, s in enumerate(slots)}, whole=walked is n) for j in range(len(body.states))]
        return [*(answers.get(x, STOP) for x in body.elements), *initial, *(answers.get(x, STOP) for x in body.constants)]

    def _passed_on(self, slot: Slot, pending: dict[Slot, Node], inner: dict[Node, Node]) -> Node:
        """What a slot holds for the step before: the older slot's content, and what this step contributes to that row."""
        state = self.body.states[slot.state]
        older = pending.get(Slot(slot.state, slot.age + 1))
        tap = -(slot.age + 1)
        read = state.reads[state.taps.index(tap)] if tap in state.taps else None
        given = [g for g in (older, inner.get(read) if read is not None else None) if g is not None]
        return sum(given[1:], given[0]) if given else zeros_like(pending[slot])

    def _arrived_last(self, slot: Slot) -> Node:
        """What the slot holds before the walk: cotangents of the last rows of the state."""
        g, depth = self.g_last[slot.state], self.body.states[slot.state].depth
        if g is not None:
            return slice_axis(g, 0, depth - 1 - slot.age, 1)
        x = self.parts.initials[slot.state]
        return broadcast_to(as_tensor(0, x.dtype), (1, *x.dims[1:]))

    def _into_initial(self, j: int, left: dict[Slot, Node], whole: bool) -> Any:
        """The cotangent of the initial rows of state j: what is left in its slots, and what was given for these rows."""
        if j not in self.active:
            return STOP
        g, depth = self.g_rows[j], self.body.states[j].depth
        given = None if g is None else slice_axis(g, 0, 0, depth)
        arrived = [_one_row(left[Slot(j, depth - 1 - k)]) for k in range(depth)] if whole else []
        if not arrived:
            return given if given is not None else zeros_like(self.parts.initials[j])
        total = arrived[0] if depth == 1 else concatenate(arrived, axis=0)
        return total if given is None else total + given

    def _rows_in_place(self, rows: Node, walked: Any, n: Any) -> Node:
        """Rows in the order of the walk as rows in the order of the steps; zeros for steps that were not walked."""
        result, steps = flip(rows, 0), self.node.attrs["n"]
        blank = lambda size: broadcast_to(as_tensor(0, rows.dtype), (size, *rows.dims[1:]))
        around = [*([] if walked is n else [blank(n - walked)]), result, *([] if n is steps else [blank(steps - n)])]
        return result if len(around) == 1 else concatenate(around, axis=0)


def _is_counted_in_step(x: Node) -> bool:
    """A size that each step counts for itself, or a value of such a size, which cannot be collected: it is counted again."""
    return x.op is count_row or any(a.kind == "counted" for d in x.dims for a in poly.atoms(d))


def _one_row(x: Node) -> Node:
    return reshape(x, (1, *x.dims))


__all__ = ["through_loop"]
