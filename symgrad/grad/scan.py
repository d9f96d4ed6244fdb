"""`scan`: one function applied step after step, with Theano's arguments.

Draws inside a step differ from step to step: each step has a stream of its own, whose seed is drawn from the stream outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base import poly
from ..base.errors import ShapeError, SymgradError, four_parts
from ..base.origin import show, user_line
from ..graph.block import captured, refuse_unknown
from ..graph.node import Node, make, new_input
from ..graph.scan import STEP, Body, State, count, last, make_scan, stacked, trajectory
from ..graph.types import Type, shape_text
from ..graph.walk import substitute
from ..ops.arrange import concatenate, flip
from ..ops.counted import counted, number_of_steps
from ..ops.elementwise import bitwise_or, left_shift
from ..ops.random import Stochastic, random_bits
from ..ops.row import as_tensor, cast, stack_of
from ..ops.shape import as_size, broadcast_to, reshape, slice_axis
from .checkpoint import checkpoint
from .reverse import flat

_KEYWORDS = ("sequences", "outputs_info", "non_sequences", "n_steps", "go_backwards", "truncate_gradient", "until", "checkpoint_every", "strict",
             "return_list", "name")
ALL = -1                # Theano's spelling of "do not truncate"
LOOPS = 2**32 - 1       # the number of the draw that gives the steps of a loop their seeds


@dataclass(frozen=True)
class until:
    """What a step returns after its results to end the loop: `return outputs, sg.until(condition)` (0-d bool).

    The step that says so is the last one; its results count.
    """

    condition: Any


@dataclass(frozen=True)
class Sequence_:
    """A variable whose rows are read, one per tap and step."""

    variable: Node
    taps: tuple[int, ...]

    @property
    def reach(self) -> int:
        """By how many rows the taps shorten the loop; tap 0 counts as read."""
        return max(*self.taps, 0) - min(*self.taps, 0)

    @property
    def length(self) -> Any:
        """The steps there are rows for."""
        return self.variable.dims[0] - self.reach

    def rows(self, tap: int, steps: Any, backwards: bool) -> Node:
        """The rows that this tap reads in `steps` steps (None: all there are), in the order of reading."""
        start = tap - min(*self.taps, 0)
        steps = self.length if steps is None else poly.minimum(steps, self.length)
        if not backwards:
            return slice_axis(self.variable, 0, start, steps)
        return flip(slice_axis(self.variable, 0, start + self.length - steps, steps), 0)


@dataclass(frozen=True)
class Carried:
    """A result that later steps read: its first rows (depth, ...) and the taps."""

    initial: Node
    taps: tuple[int, ...]


def scan(fn: Callable[..., Any], sequences: Any = (), outputs_info: Any = (), non_sequences: Any = (), n_steps: Any = None,
         go_backwards: bool = False, truncate_gradient: int | None = None, until: Callable[..., Any] | None = None, *,
         checkpoint_every: int | None = None, strict: bool = False, return_list: bool = False, name: str | None = None, **unknown: Any) -> Any:
    """The stacked results of applying fn step after step, as Theano's scan: (steps, ...) each; a list for several.

    fn receives, in this order, the rows of the sequences (per sequence, per tap), the earlier results (per entry of outputs_info,
    per tap) and the non_sequences; it returns one result per entry of outputs_info (any number without outputs_info).

    sequences: variables whose first axis is walked, or dicts {"input": x, "taps": [-1, 0]}.
    outputs_info: per result None (it is only collected), an initial value (the step reads the result of the one before), or
        {"initial": rows, "taps": [-2, -1]} where rows has as many leading rows as the deepest tap (no such axis for taps [-1]).
    n_steps: an int or 0-d integer variable; by default as many as the sequences have. go_backwards: read the sequences from their end.
    truncate_gradient: gradients go back this many steps (None or -1: all).
    until: a function of the results of a step that gives a 0-d bool; a step for which it holds is the last one. The same as
        returning (results, sg.until(condition)) from fn.
    checkpoint_every: for the way back keep the states of every k-th step only, and compute the steps between again (Chen et al. 2016):
        memory for n / k states and what k steps need, for one more pass forward; k near the root of n is best.
    strict: refuse variables that fn uses without being passed; by default they are found, at no cost. return_list: a list even for one result.
    State is kept in the graph: there is no pair of updates to hand on, and
    random draws differ from step to step by themselves. The loop is compiled, its gradient is a loop as well (Werbos 1990).
    Raises ShapeError or DTypeError for states that change their type, sequences of different lengths, and loops without a length.
    """
    refuse_unknown(unknown, "scan", _KEYWORDS)
    read = [_sequence(s) for s in _listed(sequences)]
    infos = _listed(outputs_info) if not isinstance(outputs_info, Mapping) else [outputs_info]
    carried = [_carried(info) for info in infos]
    fixed = [as_tensor(x) for x in _listed(non_sequences)]
    n = _steps(read, n_steps)
    rows = [s.rows(tap, None if n_steps is None else n, go_backwards) for s in read for tap in s.taps]
    step = _traced(fn, rows, carried, fixed, until, _truncation(truncate_gradient))
    if strict:
        _refuse_captured(step.body)
    rows += [states_of_steps(s, n) for s in step.streams]
    initials = [c.initial for c in step.carried if c is not None]
    if checkpoint_every is None:
        node = make_scan(step.body, rows, initials, fixed, n)
        states, outs = _results(node, n if step.body.until is None else counted(count(node), n))
    else:
        states, outs = segmented(step.body, rows, initials, fixed, n, _segment(checkpoint_every, step.body))
    made, collected = iter(states), iter(outs)
    results = [next(collected) if c is None else next(made) for c in step.carried]
    if name:
        results[0].name = name
    return results[0] if step.single and not return_list else results


def _results(node: Node, n: Any) -> tuple[list[Node], list[Node]]:
    """(the n rows that the steps made of every state, what they collected)."""
    body = node.op.body
    return ([slice_axis(trajectory(node, j), 0, s.depth, n) for j, s in enumerate(body.states)],
            [slice_axis(stacked(node, m), 0, 0, n) for m in range(len(body.outs))])


def _listed(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _truncation(steps: Any) -> int | None:
    if steps is None or steps == ALL:
        return None
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise SymgradError(four_parts("truncate_gradient: a number of steps", f"{steps!r}", show(user_line()), "an int of at least 1, or None for all"))
    return steps


# --------------------------------------------------------------------------------------- arguments
def _taps(info: Mapping[str, Any], default: list[int], known: tuple[str, ...]) -> tuple[int, ...]:
    refuse_unknown({k: v for k, v in info.items() if k not in known}, "scan's dict", known)
    taps = info.get("taps", default)
    taps = [taps] if isinstance(taps, int) else list(taps)
    if not taps or any(isinstance(t, bool) or not isinstance(t, int) for t in taps):
        raise SymgradError(four_parts("taps: a list of ints", f"{info.get('taps')!r}", show(user_line()), 'for example {"input": x, "taps": [-1, 0]}'))
    return tuple(taps)


def _sequence(item: Any) -> Sequence_:
    taps: tuple[int, ...] = (0,)
    if isinstance(item, Mapping):
        taps, item = _taps(item, [0], ("input", "taps")), item.get("input")
    x = as_tensor(item)
    if not x.ndim:
        raise ShapeError(four_parts("sequences with a first axis to walk", f"{x._type}, made at {x.where}", show(user_line()),
                                    "pass it in non_sequences"))
    return Sequence_(x, taps)


def _carried(info: Any) -> Carried | None:
    taps: tuple[int, ...] = (-1,)
    if isinstance(info, Mapping):
        taps, info = _taps(info, [-1], ("initial", "taps")), info.get("initial")
    if info is None:
        return None
    if any(t >= 0 for t in taps) or list(taps) != sorted(set(taps)):
        raise SymgradError(four_parts("taps of earlier results: negative, ascending", f"{list(taps)}", show(user_line()), "for example [-2, -1]"))
    initial = as_tensor(info)
    if taps == (-1,):
        return Carried(reshape(initial, (1, *initial.dims)), taps)
    depth = -taps[0]
    if not initial.ndim or (isinstance(initial.dims[0], int) and initial.dims[0] < depth):
        raise ShapeError(four_parts(f"an initial value with {depth} rows, one per step back", f"shape {shape_text(initial.dims)}, made at {initial.where}",
                                    show(user_line()), "T.stack([...]) of the results before the first step, oldest first"))
    return Carried(slice_axis(initial, 0, 0, depth), taps)


def _steps(read: Sequence[Sequence_], n_steps: Any) -> Any:
    """The number of steps: as asked, or as many as every sequence has."""
    lengths = [s.length for s in read]
    if n_steps is None:
        if not lengths:
            raise ShapeError(four_parts("a loop of known length", "no sequences and no n_steps", show(user_line()), "n_steps=10"))
        n = next((d for d in lengths if isinstance(d, int)), lengths[0])
        fits = lambda d: d == n
    else:
        n = as_size(n_steps, "n_steps")
        fits = lambda d: d >= n
    n = number_of_steps(n)
    if isinstance(n, int) and n < 1:
        raise ShapeError(four_parts("a loop of at least one step", f"{n} steps", show(user_line()), "a longer sequence, or n_steps of at least 1"))
    if not all(fits(d) for d in lengths if isinstance(d, int) and isinstance(n, int)):
        found = [f"{s.variable.name or s.variable.op.name}: {d} steps" + (f" with taps {list(s.taps)}" if s.reach else "") for s, d in zip(read, lengths)]
        raise ShapeError(four_parts("sequences of one length" if n_steps is None else f"sequences of at least {n} steps", found, show(user_line()),
                                    "cut the longer ones, or say n_steps" if n_steps is None else "fewer steps"))
    return n


def _refuse_captured(body: Body) -> None:
    found = captured(body.inputs, body.outputs)
    if found:
        raise SymgradError(four_parts("a step that uses only what it is passed (strict=True)", [
            f"{x.name or x.op.name}: {x._type}, made at {x.where}" for x in found], show(user_line()), "non_sequences=[...]"))


# ------------------------------------------------------------------------------------------ tracing
@dataclass(frozen=True)
class _Step:
    """A traced step: its body, and per result how it comes back."""

    body: Body
    streams: list[Node]
    carried: list[Carried | None]
    single: bool


def _traced(fn: Callable[..., Any], rows: Sequence[Node], carried: Sequence[Carried | None], fixed: Sequence[Node], until_: Any,
            truncate: int | None) -> _Step:
    initials = [c.initial for c in carried if c is not None]
    types = [Type(x.dtype, x.dims[1:]) for x in initials]
    while True:
        step = new_input(STEP)
        elements = [new_input(Type(x.dtype, x.dims[1:]), x.name) for x in rows]
        reads = [[new_input(t) for _ in c.taps] for t, c in zip(types, (c for c in carried if c is not None))]
        constants = [new_input(x._type, x.name) for x in fixed]
        mark = step.serial
        results, condition, single = _called(fn, [*elements, *(r for group in reads for r in group), *constants], until_)
        if not carried:
            carried = [None] * len(results)
        if len(results) != len(carried):
            raise ShapeError(four_parts(f"a step with {len(carried)} results, one per entry of outputs_info", f"{len(results)} results", show(user_line())))
        nexts = [as_tensor(y, t.dtype if not isinstance(y, Node) else None) for y, t in zip((y for y, c in zip(results, carried) if c is not None), types)]
        better = [_sharper(t, y) for t, y in zip(types, nexts)]
        if better == types:
            break
        types = better          # a size that only the step knows: once more with it
    outs = [as_tensor(y) for y, c in zip(results, carried) if c is None]
    traced = [*nexts, *outs, *([] if condition is None else [as_tensor(condition)])]
    traced, streams = separated(traced, mark)
    states = tuple(State(c.taps, tuple(group), y) for c, group, y in zip((c for c in carried if c is not None), reads, traced))
    made = traced[len(states):len(states) + len(outs)]
    body = Body(step, (*elements, *streams.values()), states, tuple(constants), tuple(made), traced[-1] if condition is not None else None, truncate)
    return _Step(body, list(streams), list(carried), single)


def _sharper(t: Type, y: Node) -> Type:
    """The type with sizes that y knows filled in."""
    if len(t.dims) != y.ndim:
        return t
    return Type(t.dtype, [b if isinstance(b, int) and not isinstance(a, int) else a for a, b in zip(t.dims, y.dims)])


def _called(fn: Callable[..., Any], args: Sequence[Node], until_: Any) -> tuple[list[Any], Any, bool]:
    """(the results of a step, its condition to end or None, whether it gave one bare result)."""
    answer, condition = fn(*args), None
    if isinstance(answer, (tuple, list)) and answer and isinstance(answer[-1], until):
        condition, answer = answer[-1].condition, (answer[0] if len(answer) == 2 else list(answer[:-1]))
    parts_ = list(answer) if isinstance(answer, (tuple, list)) else [answer]
    if any(isinstance(y, Mapping) for y in parts_):
        raise SymgradError(four_parts("a step that returns its results", "a dict of updates", show(user_line()),
                                      "carry what changes in outputs_info; random streams move on by themselves"))
    if until_ is not None:
        if condition is not None:
            raise SymgradError(four_parts("one condition to end", "until= and a step that returns sg.until(...)", show(user_line())))
        condition = until_(*parts_) if callable(until_) else until_
    if not parts_ or any(y is None for y in parts_):
        raise SymgradError(four_parts("a step that returns its results", f"{answer!r}", show(user_line()), "return the new values"))
    return parts_, condition, not isinstance(answer, (tuple, list))


# ------------------------------------------------------------------------------------- checkpoints
def _segment(steps: Any, body: Body) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise SymgradError(four_parts("checkpoint_every: a number of steps", f"{steps!r}", show(user_line()), "about the root of the number of steps"))
    if body.until is not None or body.truncate is not None:
        raise SymgradError(four_parts("checkpoint_every in a loop that runs to its end", "until or truncate_gradient", show(user_line()),
                                      "truncated gradients need no checkpoints: they keep few steps"))
    return steps


def segmented(body: Body, rows: Sequence[Node], initials: Sequence[Node], constants: Sequence[Node], n: Any, k: int) -> tuple[list[Node], list[Node]]:
    """The results of a loop run in segments of k steps, each of which is computed again on the way back."""
    segments = poly.floordiv(n, k)
    rest = n - segments * k

    def segment(*args: Node) -> list[Node]:
        given = iter(args)
        take = lambda nodes: [next(given) for _ in nodes]
        node = make_scan(body, take(rows), take(initials), take(constants), k)
        states, outs = _results(node, k)
        return [*(last(node, j) for j in range(len(states))), *states, *outs]

    elements = [new_input(Type(x.dtype, (k, *x.dims[1:]))) for x in rows]
    reads = [new_input(x._type) for x in initials]
    inside = [new_input(x._type) for x in constants]
    ends, collected = _split(flat(checkpoint(segment)(*elements, *reads, *inside)), len(initials))
    states = tuple(State((-1,), (read,), end) for read, end in zip(reads, ends))
    outer = Body(new_input(STEP), tuple(elements), states, tuple(inside), tuple(collected))
    whole = [reshape(slice_axis(x, 0, 0, segments * k), (segments, k, *x.dims[1:])) for x in rows]
    node = make_scan(outer, whole, [reshape(x, (1, *x.dims)) for x in initials], constants, segments)
    results = [reshape(stacked(node, m), (segments * k, *y.dims[1:])) for m, y in enumerate(collected)]
    if not isinstance(rest, int) or rest:
        ends = [reshape(last(node, j), x.dims) for j, x in enumerate(initials)]
        remaining = make_scan(body, [slice_axis(x, 0, segments * k, rest) for x in rows], ends, constants, rest)
        results = [concatenate([a, b], axis=0) for a, b in zip(results, flat(sum(_results(remaining, rest), [])))]
    return _split(results, len(initials))


def _split(nodes: list[Node], n: int) -> tuple[list[Node], list[Node]]:
    return nodes[:n], nodes[n:]


# -------------------------------------------------------------------------------------------- draws
def separated(outputs: Sequence[Node], since: int) -> tuple[list[Node], dict[Node, Node]]:
    """The outputs with every draw made since `since` from a state of its own per step, and {the stream's state: that input}.

    Draws of loops inside the step follow: the states of their steps are drawn from the state of this one.
    """
    states: dict[Node, Node] = {}

    def rebuild(node: Node, inputs: list[Node]) -> Node:
        if isinstance(node.op, Stochastic) and node.serial >= since:
            inputs = [states.setdefault(inputs[0], new_input(inputs[0]._type)), *inputs[1:]]
        same = all(a is b for a, b in zip(inputs, node.inputs))
        return node if same else make(node.op, inputs, **node.attrs)

    return substitute(outputs, {}, rebuild=rebuild), states


def states_of_steps(state: Node, n: Any) -> Node:
    """A state (seed, step) per step of a loop, uint64 (n, 2): the seeds are drawn, so streams of different steps are independent."""
    low, high = (cast(random_bits(state, draw=LOOPS, word=w, shape=(n,)), "uint64") for w in (0, 1))
    seed = bitwise_or(low, left_shift(high, as_tensor(32, "uint64")))
    return stack_of([seed, broadcast_to(state[1], (n,))]).T


__all__ = ["scan", "until"]
