"""Loops made smaller: what need not be done step by step leaves them.

    together    loops that differ in what they collect become one (the forward pass and the one that keeps values for the way back)
    needed      results that nobody reads, and the states behind them, go
    hoisted     what does not change is computed once before the loop; products of sequences, which do not wait for the states, as
                one product over all steps
    sunk        products that no later step waits for are one product over all steps, after the loop; sums of them likewise
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..base import poly
from ..graph.node import ITEM, Node, is_leaf, make, new_input
from ..graph.scan import Body, count, is_scan, last, make_scan, opened, parts, rebodied, stacked, trajectory
from ..graph.walk import consumers, copy_notes, depends_on, order, resized, substitute
from ..ops.batching import batched, merge
from ..ops.branch import guards
from ..ops.control import Identity
from ..ops.cost import MOVEMENT, is_elementwise
from ..ops.counted import count as count_row
from ..ops.counted import counted
from ..ops.elementwise import add
from ..ops.reduce import Reduction
from ..ops.reduce import sum as sum_
from ..ops.shape import reshape, slice_axis, transpose

Pass = Callable[[Sequence[Node]], list[Node]]
CONTRACTIONS = {"matmul", "conv1d", "conv2d", "conv3d", "convolution_input_grad", "convolution_weight_grad"}


def smaller_loops(outputs: Sequence[Node], simplify: Pass) -> list[Node]:
    """The outputs with every loop made as small as it can be; bodies are simplified on the way, inner loops first."""
    if not any(map(is_scan, order(outputs))):
        return list(outputs)
    outputs = each_loop(simplify(outputs), lambda node, _: _simplified(node, simplify))
    outputs = needed(last_rows(together(outputs)))
    outputs = each_loop(outputs, hoisted)
    outputs = needed(each_loop(outputs, sunk))
    return each_loop(outputs, lambda node, _: _simplified(node, simplify))


def each_loop(outputs: Sequence[Node], change: Callable[[Node, set[int]], Sequence[Node | None]]) -> list[Node]:
    """The outputs with the results of every loop replaced: change(node, the numbers of the results that are read)."""
    wanted: dict[Node, set[int]] = {}
    for node in order(outputs):
        if node.op is ITEM:
            wanted.setdefault(node.inputs[0], set()).add(node.attrs["k"])
    new: dict[Node, Node] = {}
    results: dict[Node, Sequence[Node | None]] = {}
    for node in order(outputs):
        if node.op is ITEM and node.inputs[0] in results:
            found = results[node.inputs[0]][node.attrs["k"]]
            assert found is not None
            new[node] = found
            copy_notes(found, node)
            continue
        inputs = [new[x] for x in node.inputs]
        attrs = resized(node.attrs, {}, new)
        same = attrs is node.attrs and all(a is b for a, b in zip(inputs, node.inputs))
        new[node] = node if same or is_leaf(node) else make(node.op, inputs, **attrs)
        copy_notes(new[node], node)
        if is_scan(node):
            results[node] = change(new[node], wanted.get(node, set()))
    return [new[y] for y in outputs]


def results_of(node: Node) -> list[Node]:
    """All results of a loop."""
    return [make(ITEM, [node], k=k) for k in range(len(node._type.items))]


def _simplified(node: Node, simplify: Pass) -> list[Node]:
    body = node.op.body
    return results_of(rebodied(node, body.on(body.inputs, smaller_loops(simplify(body.outputs), simplify))))


# ---------------------------------------------------------------------------------------- together
def together(outputs: Sequence[Node]) -> list[Node]:
    """Loops over the same inputs with the same states are one loop that collects what each of them does."""
    alike: dict[Any, list[Node]] = {}
    for node in order(outputs):
        if is_scan(node):
            body = node.op.body
            same = [*node.inputs, *body.inputs, *(s.next for s in body.states), *([] if body.until is None else [body.until])]
            shape = tuple(s.taps for s in body.states), body.until is None, len(body.elements), body.truncate
            sizes = node.attrs["n"], tuple(zip(node.op.symbols, node.attrs["sizes"]))
            alike.setdefault((tuple(x.serial for x in same), shape, sizes), []).append(node)
    mapping: dict[Node, Node] = {}
    for nodes in alike.values():
        if len(nodes) > 1:
            mapping |= _joined(nodes)
    return substitute(outputs, mapping) if mapping else list(outputs)


def _joined(nodes: Sequence[Node]) -> dict[Node, Node]:
    body = nodes[0].op.body
    outs = tuple(dict.fromkeys(y for node in nodes for y in node.op.body.outs))
    place = {y: m for m, y in enumerate(outs)}
    whole = rebodied(nodes[0], replace(body, outs=outs))
    states, mapping = 2 * len(body.states), {}
    for node in nodes:
        mapping |= {make(ITEM, [node], k=k): make(ITEM, [whole], k=k) for k in range(states)}
        mapping |= {stacked(node, m): stacked(whole, place[y]) for m, y in enumerate(node.op.body.outs)}
        if body.until is not None:
            mapping[results_of(node)[-1]] = results_of(whole)[-1]
    return {old: new for old, new in mapping.items() if old is not new}


# ------------------------------------------------------------------------------------------ needed
def last_rows(outputs: Sequence[Node]) -> list[Node]:
    """Trajectories of which only the last rows are read are not kept: the loop holds just these rows."""
    mapping: dict[Node, Node] = {}
    readers = consumers(order(outputs))
    for item, users in readers.items():
        if item.op is not ITEM or not is_scan(item.inputs[0]) or item in set(outputs):
            continue
        loop, (j, rest) = item.inputs[0], divmod(item.attrs["k"], 2)
        if rest == 0 and j < len(loop.op.body.states) and all(_from(u, loop.attrs["n"]) is not None for u in users):
            rows = last(loop, j)
            mapping |= {u: make(u.op, [rows], **{**u.attrs, "items": (_from(u, loop.attrs["n"]), *u.attrs["items"][1:])}) for u in users}
    return substitute(outputs, mapping) if mapping else list(outputs)


def _from(node: Node, n: Any) -> tuple | None:
    """The first item of an indexing, counted from row n; None where it may read rows before that."""
    if node.op.name != "subtensor":
        return None
    kind, start, *rest = node.attrs["items"][0] if node.attrs["items"][0][0] != "new" else ("new", None)
    if kind == "new" or not isinstance(start - n, int) or start - n < 0 or (kind == "slice" and rest[0] < 0):
        return None
    return kind, start - n, *rest


def needed(outputs: Sequence[Node]) -> list[Node]:
    """Loops without results that nobody reads, without states and inputs that nothing needs."""
    return each_loop(outputs, _pruned)


def _pruned(node: Node, wanted: set[int]) -> list[Node | None]:
    body, p, n_states = node.op.body, parts(node), len(node.op.body.states)
    outs = [m for m in range(len(body.outs)) if 2 * n_states + m in wanted]
    states = {j for j in range(n_states) if {2 * j, 2 * j + 1} & wanted}
    while True:
        used = set(order([*(body.states[j].next for j in states), *(body.outs[m] for m in outs), *([] if body.until is None else [body.until])]))
        more = {j for j, s in enumerate(body.states) if any(r in used for r in s.reads)} - states
        if not more:
            break
        states |= more
    kept = sorted(states)
    elements = [k for k, x in enumerate(body.elements) if x in used]
    constants = [k for k, x in enumerate(body.constants) if x in used]
    twice = any({2 * j, 2 * j + 1} <= wanted for j in kept)
    if not twice and len(kept) == n_states and len(outs) == len(body.outs) and len(elements) == len(body.elements) and len(constants) == len(body.constants):
        return list(results_of(node))
    open_ = opened(node)
    less = Body(open_.step, tuple(open_.elements[k] for k in elements), tuple(open_.states[j] for j in kept),
                tuple(open_.constants[k] for k in constants), tuple(open_.outs[m] for m in outs), open_.until, open_.truncate)
    new = make_scan(less, [p.sequences[k] for k in elements], [p.initials[j] for j in kept], [p.constants[k] for k in constants], node.attrs["n"])
    copy_notes(new, node)
    found: list[Node | None] = [None] * len(node._type.items)
    taken = node.attrs["n"] if body.until is None else counted(count(new), node.attrs["n"])
    for place, j in enumerate(kept):
        found[2 * j] = trajectory(new, place)
        # a trajectory that is kept holds its last rows too
        found[2 * j + 1] = slice_axis(trajectory(new, place), 0, taken, body.states[j].depth) if 2 * j in wanted else last(new, place)
    for place, m in enumerate(outs):
        found[2 * n_states + m] = stacked(new, place)
    if body.until is not None:
        found[-1] = results_of(new)[-1]
    return found


# ----------------------------------------------------------------------------------------- hoisted
def hoisted(node: Node, _: set[int]) -> list[Node]:
    """The results of the loop with what does not depend on its states computed before it, where that is work."""
    body, p, n = opened(node), parts(node), node.attrs["n"]
    always = _movable(body)
    changing = depends_on(body.outputs, body.varying)
    waiting = depends_on(body.outputs, [body.step, *body.reads])
    fixed = [x for x in _entering(body, changing) if x in always and _is_work(x)]
    early: set[Node] = set()
    moving = changing - waiting
    for x in order(body.outputs):
        if x in moving and x in always and (
                x.op.name in CONTRACTIONS or (is_elementwise(x) and any(y in early and y.dims == x.dims for y in x.inputs))):
            early.add(x)
    rows = _leaving(body, early)
    if not fixed and not rows:
        return results_of(node)
    outside = dict(zip(body.constants, p.constants))
    inner = {x: new_input(x._type) for x in [*fixed, *rows]}
    before = substitute(fixed, outside)
    over = substitute(batched(rows, dict(zip(body.elements, p.sequences)), n), outside) if rows else []
    smaller = replace(body, elements=(*body.elements, *(inner[x] for x in rows)), constants=(*body.constants, *(inner[x] for x in fixed)))
    new = make_scan(smaller.on(smaller.inputs, substitute(body.outputs, inner)), [*p.sequences, *over], p.initials, [*p.constants, *before], n)
    copy_notes(new, node)
    return results_of(new)


def _movable(body: Body) -> set[Node]:
    """The nodes that may be computed for all steps at once: every step computes them, and nothing behind them has a size of its own per step."""
    conditional, nodes = guards(body.outputs), order(body.outputs)
    counting = {x for x in nodes if x.op is count_row}
    ragged: set[Node] = set()
    for x in nodes:
        if x in counting or any(y in ragged for y in x.deps) or any(a.kind == "counted" and a.args[0] in counting for d in _dims(x) for a in poly.atoms(d)):
            ragged.add(x)
    return {x for x in nodes if x not in conditional and x not in ragged}


def _dims(x: Node) -> tuple:
    return getattr(x._type, "dims", ())


def _entering(body: Body, changing: set[Node]) -> list[Node]:
    """The nodes outside `changing` that its nodes read."""
    return list({x: None for y in order(body.outputs) if y in changing for x in y.inputs if x not in changing and not is_leaf(x)})


def _leaving(body: Body, early: set[Node]) -> list[Node]:
    """The nodes of `early` that others read, or that are results."""
    found = {x: None for y in order(body.outputs) if y not in early for x in y.inputs if x in early}
    return [*(found | {y: None for y in body.outputs if y in early})]


def _is_work(x: Node) -> bool:
    """More than telling where elements lie."""
    return any(not is_leaf(y) and y.op.name not in MOVEMENT and not isinstance(y.op, Identity) and y.inputs for y in order([x]))


# -------------------------------------------------------------------------------------------- sunk
def sunk(node: Node, wanted: set[int]) -> Sequence[Node | None]:
    """The results of the loop with products that no step waits for taken out, over all steps at once."""
    if node.op.body.until is not None:
        return results_of(node)
    return _Sinker(node, wanted).results()


class _Sinker:
    def __init__(self, node: Node, wanted: set[int]):
        self.node, self.body, self.parts, self.n = node, opened(node), parts(node), node.attrs["n"]
        body = self.body
        self.always = _movable(body)
        totals = {j: self._terms(j) for j in range(len(body.states)) if 2 * j not in wanted}
        self.totals = {j: terms for j, terms in totals.items() if terms is not None}
        kept = [s.next for j, s in enumerate(body.states) if j not in self.totals]
        awaited = set(order(kept))
        self.totals = {j: terms for j, terms in self.totals.items() if not any(t in awaited for t in terms)}
        kept = [s.next for j, s in enumerate(body.states) if j not in self.totals]
        self.awaited = set(order(kept))
        self.late: set[Node] = set()
        for x in order(body.outputs):
            if x not in self.awaited and x in self.always and not is_leaf(x) and (
                    x.op.name in CONTRACTIONS or (_follows(x) and any(y in self.late for y in x.inputs))):
                self.late.add(x)
        self.outs = [m for m, y in enumerate(body.outs) if y in self.late]

    def _terms(self, j: int) -> list[Node] | None:
        """The contributions of each step to a state that only adds up; None if it is anything else, or they are not worth it."""
        state = self.body.states[j]
        read, terms = state.reads[0], []
        todo = [state.next]
        while todo:
            x = todo.pop()
            if x.op is add and x.dims == read.dims and all(y.dims == x.dims for y in x.inputs):
                todo.extend(x.inputs)
            else:
                terms.append(x)
        mine = [t for t in terms if t is not read]
        if state.taps != (-1,) or len(terms) - len(mine) != 1 or not mine:
            return None
        others = [y for y in self.body.outputs if y is not state.next] + mine
        worth = all(t in self.always and (t.op.name in CONTRACTIONS or (isinstance(t.op, Reduction) and t.op.operation == "add")) for t in mine)
        return mine if worth and read not in set(order(others)) else None

    def results(self) -> Sequence[Node | None]:
        if not self.totals and not self.outs:
            return results_of(self.node)
        body, n_states = self.body, len(self.body.states)
        sums = [t for terms in self.totals.values() for t in terms]
        roots = [*(body.outs[m] for m in self.outs), *sums]
        border = self._border(roots, set(sums))
        collected = [x for x in border if x not in set(body.inputs)]
        states = [j for j in range(n_states) if j not in self.totals]
        outs = [m for m in range(len(body.outs)) if m not in self.outs]
        less = replace(body, states=tuple(body.states[j] for j in states), outs=(*(body.outs[m] for m in outs), *collected))
        new = make_scan(less, self.parts.sequences, [self.parts.initials[j] for j in states], self.parts.constants, self.n)
        copy_notes(new, self.node)
        rows = {x: stacked(new, len(outs) + k) for k, x in enumerate(collected)}
        rows |= dict(zip(body.elements, self.parts.sequences))
        for place, j in enumerate(states):
            state = body.states[j]
            for tap, read in zip(state.taps, state.reads):
                if read in border:
                    rows[read] = slice_axis(trajectory(new, place), 0, state.depth + tap, self.n)
        sources = {x: rows[x] for x in border if x in rows}
        return self._found(new, states, outs, sources)

    def _border(self, roots: Iterable[Node], sums: set[Node]) -> dict[Node, None]:
        """What the late nodes read: it is collected over all steps."""
        border: dict[Node, None] = {}
        seen: set[Node] = set()
        todo = list(roots)
        constants, inputs = set(self.body.constants), set(self.body.inputs)
        while todo:
            x = todo.pop()
            if x in seen:
                continue
            seen.add(x)
            if x in self.late or x in sums:
                todo.extend(self._read(x) if x in sums else x.inputs)
            elif x not in constants and not (is_leaf(x) and x not in inputs):
                border[x] = None
        return border

    def _read(self, x: Node) -> Sequence[Node]:
        """The operands of a sum over steps; through a transpose, which is cheaper to do once."""
        return [y.inputs[0] if _is_turned(y) else y for y in x.inputs] if x.op.name == "matmul" and x.ndim == 2 else x.inputs

    def _found(self, new: Node, states: list[int], outs: list[int], sources: dict[Node, Node]) -> list[Node | None]:
        body, n_states = self.body, len(self.body.states)
        outside = dict(zip(body.constants, self.parts.constants))
        found: list[Node | None] = [None] * len(self.node._type.items)
        for place, j in enumerate(states):
            found[2 * j], found[2 * j + 1] = trajectory(new, place), last(new, place)
        for place, m in enumerate(outs):
            found[2 * n_states + m] = stacked(new, place)
        late = substitute(batched([body.outs[m] for m in self.outs], sources, self.n), outside) if self.outs else []
        for m, y in zip(self.outs, late):
            found[2 * n_states + m] = y
        for j, terms in self.totals.items():
            total = self.parts.initials[j]
            for t in terms:
                y, = substitute([self._over_steps(t, sources)], outside)
                total = total + reshape(y, (1, *y.dims))
            found[2 * j + 1] = total
        return found

    def _over_steps(self, t: Node, sources: dict[Node, Node]) -> Node:
        """The sum of a term over all steps: the steps join the axis that the term sums over."""
        if t.op.name == "matmul" and t.ndim == 2:
            left, right = t.inputs
            rows = transpose(merge(self._rows(left.inputs[0], sources)), (1, 0)) if _is_turned(left) else _columns(self._rows(left, sources))
            columns = _columns_turned(self._rows(right.inputs[0], sources)) if _is_turned(right) else merge(self._rows(right, sources))
            return make(t.op, [rows, columns])
        if t.op.name == "convolution_weight_grad":
            return make(t.op, [merge(self._rows(x, sources)) for x in t.inputs], **t.attrs)
        if isinstance(t.op, Reduction) and 0 in t.attrs["axis"] and not t.attrs["keepdims"]:
            return make(t.op, [merge(self._rows(t.inputs[0], sources))], **t.attrs)
        return sum_(batched([t], sources, self.n)[0], axis=0)

    def _rows(self, x: Node, sources: dict[Node, Node]) -> Node:
        return batched([x], sources, self.n)[0]


def _follows(x: Node) -> bool:
    return is_elementwise(x) or x.op.name in MOVEMENT or isinstance(x.op, Reduction)


def _is_turned(x: Node) -> bool:
    return not is_leaf(x) and x.op.name == "transpose" and x.attrs["axes"] == (1, 0)


def _columns(x: Node) -> Node:
    """(steps, m, k) as (m, steps * k)."""
    front = transpose(x, (1, 0, 2))
    return reshape(front, (front.dims[0], front.dims[1] * front.dims[2]))


def _columns_turned(x: Node) -> Node:
    """(steps, n, k) as (steps * k, n)."""
    front = transpose(x, (0, 2, 1))
    return reshape(front, (front.dims[0] * front.dims[1], front.dims[2]))


__all__ = ["each_loop", "results_of", "smaller_loops"]
