"""Loops in the graph: a node that runs a body step after step.

    scan body(sequence*, initial*, constant*) n sizes = (trajectory, last)* stacked* count?
    body = step, element*, (tap read*, next)*, constant*, out*, until?

A body is closed: it reads its own inputs and constants, nothing else. Its inputs are the same objects for equal bodies, so
equal loops are one node, and two loops can be compared by looking at their outputs. Element k of a step is row `step` of
sequence k. A state with taps -a, ..., -b has a trajectory of depth + n rows, the first depth = a of which are its initial value; step t
reads rows t + depth + tap and makes row t + depth. `last` is the last depth rows, for readers who do not need the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from ..base import poly
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from .block import captured
from .node import ITEM, Node, Op, make, new_input
from .types import TupleType, Type, shape_text
from .walk import depends_on, order, substitute

STEP = Type("int64", ())


@dataclass(frozen=True)
class State:
    """A value carried from step to step: where it is read (ascending negative taps), and what it becomes."""

    taps: tuple[int, ...]
    reads: tuple[Node, ...]
    next: Node

    @property
    def depth(self) -> int:
        return -self.taps[0]


@dataclass(frozen=True)
class Structure:
    """What the inputs and outputs of a body are: numbers of elements and collected outputs, taps of each state, and the rest."""

    elements: int
    taps: tuple[tuple[int, ...], ...]
    outs: int
    stops: bool
    truncate: int | None

    def over(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> Body:
        """The body of this structure with these inputs and outputs, in their order there."""
        ins, made = iter(inputs), iter(outputs)
        step, elements = next(ins), tuple(next(ins) for _ in range(self.elements))
        reads = [tuple(next(ins) for _ in taps) for taps in self.taps]
        states = tuple(State(taps, r, next(made)) for taps, r in zip(self.taps, reads))
        outs = tuple(next(made) for _ in range(self.outs))
        return Body(step, elements, states, tuple(ins), outs, next(made) if self.stops else None, self.truncate)


@dataclass(frozen=True, eq=False)
class Body:
    """What one step computes. `truncate`: the gradient goes back this many steps (None: all)."""

    step: Node
    elements: tuple[Node, ...]
    states: tuple[State, ...]
    constants: tuple[Node, ...]
    outs: tuple[Node, ...]
    until: Node | None = None
    truncate: int | None = None

    @property
    def reads(self) -> list[Node]:
        """What is read of all states."""
        return [r for s in self.states for r in s.reads]

    @property
    def varying(self) -> list[Node]:
        """The inputs that differ from step to step."""
        return [self.step, *self.elements, *self.reads]

    @property
    def inputs(self) -> list[Node]:
        return [*self.varying, *self.constants]

    @property
    def outputs(self) -> list[Node]:
        return [*(s.next for s in self.states), *self.outs, *([] if self.until is None else [self.until])]

    @property
    def structure(self) -> Structure:
        return Structure(len(self.elements), tuple(s.taps for s in self.states), len(self.outs), self.until is not None, self.truncate)

    def on(self, inputs: Sequence[Node], outputs: Sequence[Node]) -> Body:
        """The same structure over other inputs and outputs (in the order of `inputs` and `outputs`)."""
        return self.structure.over(inputs, outputs)

    def over(self, inputs: Sequence[Node], sizes: Mapping[poly.Atom, Any] | None = None) -> Body:
        """The body with its inputs replaced."""
        return self.on(inputs, substitute(self.outputs, dict(zip(self.inputs, inputs)), sizes=sizes))


# ----------------------------------------------------------------------------------------- the op
_inputs: dict[tuple[int, Type], Node] = {}              # the one input of each position and type
_scans: WeakValueDictionary = WeakValueDictionary()


class Scan(Op):
    """The op of one body. Attributes: n, the number of steps; sizes, what the body's size symbols stand for at this node."""

    name = "scan"
    adapts = True

    def __init__(self, body: Body, symbols: tuple[poly.Atom, ...]):
        self.body, self.symbols = body, symbols

    def infer(self, *types: Type, n: Any, sizes: tuple) -> TupleType:
        body = self.body
        first = len(body.elements)
        results: list[Type] = []
        for state, initial in zip(body.states, types[first:]):
            results += [Type(initial.dtype, (state.depth + n, *initial.dims[1:])), Type(initial.dtype, (state.depth, *initial.dims[1:]))]
        results += [Type(y.dtype, (n, *(poly.substitute(d, self.given(sizes).get) for d in y.dims))) for y in body.outs]
        return TupleType([*results, *([STEP] if body.until is not None else [])])

    def given(self, sizes: Sequence[Any]) -> dict[poly.Atom, Any]:
        """What each size symbol of the body stands for."""
        return dict(zip(self.symbols, sizes))

    def adapted(self, inputs: Sequence[Node], attrs: dict[str, Any]) -> tuple[Op, dict[str, Any]]:
        """The op whose body has exactly these input types and sizes, and the attributes that go with it."""
        wanted = [STEP, *_step_types(self.body, [x._type for x in inputs])]
        given = self.given(attrs["sizes"])
        changed = {a: size for a, size in given.items() if poly.the_atom(size) is not a and (not _is_formal(a) or isinstance(size, int))}
        if not changed and all(x._type == t for x, t in zip(self.body.inputs, wanted)):
            return self, attrs
        op, sizes = scan_of(self.body.over([new_input(t) for t in wanted], changed))
        return op, {**attrs, "sizes": tuple(poly.substitute(s, given.get) for s in sizes)}


def _step_types(body: Body, types: Sequence[Type]) -> list[Type]:
    """The types of the elements, reads and constants of a step, from the types of the node's inputs."""
    first, states = len(body.elements), len(body.states)
    row = lambda t: Type(t.dtype, t.dims[1:])
    elements = [row(t) for t in types[:first]]
    reads = [row(t) for s, t in zip(body.states, types[first:]) for _ in s.taps]
    return [*elements, *reads, *types[first + states:]]


def scan_of(body: Body) -> tuple[Scan, tuple]:
    """The op of a closed body, the same object for equal bodies, and the sizes that its symbols stand for."""
    inputs = [_inputs.setdefault((k, x._type), new_input(x._type)) for k, x in enumerate(body.inputs)]
    body = body.over(inputs)
    _check(body)
    symbols, values = _sizes(body)
    taken = 1 + max((int(a.args[0][len(FORMAL):]) for a in symbols if _is_formal(a)), default=-1)
    formal = {a: poly.Atom("symbol", f"{FORMAL}{taken + k}") for k, a in enumerate(values)}
    if formal:
        body = body.over(inputs, {a: poly.of_atom(b) for a, b in formal.items()})
    key = (tuple(x.serial for x in body.inputs), tuple(y.serial for y in body.outputs), body.structure)
    found = _scans.get(key)
    if found is None:
        found = _scans[key] = Scan(body, (*symbols, *formal.values()))
    return found, tuple(map(poly.of_atom, (*symbols, *values)))


FORMAL = "size of scan "


def _is_formal(a: poly.Atom) -> bool:
    return a.kind == "symbol" and a.args[0].startswith(FORMAL)


def _sizes(body: Body) -> tuple[list[poly.Atom], list[poly.Atom]]:
    """The symbols that sizes inside the body mention, and the variables outside it whose values decide sizes."""
    found: set[poly.Atom] = set()
    inside = depends_on(body.outputs, body.inputs)
    for node in order(body.outputs, stop=lambda n: n not in inside):
        for item in _polys([getattr(node._type, "dims", ()), tuple(node.attrs.values())]):
            found.update(a for a in poly.atoms(item) if a.kind == "symbol" or isinstance(a.args[0], Node))
    of_steps = {a for a in found if a.kind != "symbol" and a.args[0] in inside}
    leaving = {a for y in body.outputs for d in y.dims for a in poly.atoms(d)} & of_steps
    for a in leaving | {a for a in of_steps if a.kind != "counted"}:
        raise ShapeError(four_parts("sizes that are known before a loop starts", f"a size that each step computes: {a.args[0].op.name}, made at "
                                    f"{a.args[0].where}", show(user_line()), "a mask over a fixed size: T.where(T.arange(n) < t, x, 0)"))
    values = sorted((a for a in found - of_steps if a.kind != "symbol"), key=lambda a: a.order)
    return sorted((a for a in found if a.kind == "symbol"), key=lambda a: a.order), values


def _polys(value: Any) -> list[poly.Poly]:
    if isinstance(value, (tuple, list)):
        return [p for v in value for p in _polys(v)]
    return [value] if isinstance(value, poly.Poly) else []


def _check(body: Body) -> None:
    for state in body.states:
        read, new = state.reads[0], state.next
        if read.dtype != new.dtype:
            raise DTypeError(four_parts("a state of one dtype", [f"it starts as {read.dtype}", f"a step makes it {new.dtype}, made at {new.where}"],
                                        show(user_line()), f"start with the dtype of the steps, or .astype({read.dtype!r}) in the step"))
        if read.ndim != new.ndim or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(read.dims, new.dims)):
            raise ShapeError(four_parts("a state of one shape", [f"it starts as {shape_text(read.dims)}",
                                                                f"a step makes it {shape_text(new.dims)}, made at {new.where}"],
                                        show(user_line()), "an initial value of the shape that every step makes, for example T.zeros((batch, units))"))
    if body.until is not None and (body.until.ndim or body.until.dtype != "bool"):
        raise (ShapeError if body.until.ndim else DTypeError)(four_parts(
            "until with a 0-d bool", f"{body.until._type}, made at {body.until.where}", show(user_line()),
            "a comparison such as T.max(x) < 1e-3, or T.all(...)"))


# ------------------------------------------------------------------------------------ making nodes
def make_scan(body: Body, sequences: Sequence[Node], initials: Sequence[Node], constants: Sequence[Node], n: Any) -> Node:
    """The node of a loop of n steps. What the body uses from outside is captured: it is passed as one more constant."""
    outside = captured(body.inputs, body.outputs)
    stand_ins = [new_input(x._type) for x in outside]
    inner = substitute(body.outputs, dict(zip(outside, stand_ins)))
    op, sizes = scan_of(body.on([*body.inputs, *stand_ins], inner))
    return make(op, [*sequences, *initials, *constants, *outside], n=n, sizes=sizes)


def is_scan(node: Node) -> bool:
    return isinstance(node.op, Scan)


def opened(node: Node) -> Body:
    """The body of a loop over new inputs, which nothing else refers to, with sizes as they are outside."""
    given = node.op.given(node.attrs["sizes"])
    types = [Type(x.dtype, (poly.substitute(d, given.get) for d in x.dims)) for x in node.op.body.inputs]
    return node.op.body.over([new_input(t) for t in types], given)


@dataclass(frozen=True)
class Parts:
    """The inputs of a loop by role."""

    sequences: tuple[Node, ...]
    initials: tuple[Node, ...]
    constants: tuple[Node, ...]


def parts(node: Node) -> Parts:
    body = node.op.body
    a, b = len(body.elements), len(body.elements) + len(body.states)
    return Parts(node.inputs[:a], node.inputs[a:b], node.inputs[b:])


def assumed_equal(node: Node) -> list[tuple[Any, Any]]:
    """Pairs of sizes that a loop takes to be equal: the lengths of its sequences, and the sizes of states before and after a step."""
    given = node.op.given(node.attrs["sizes"])
    outside = lambda d: poly.substitute(d, given.get)
    states = [(outside(a), outside(b)) for s in node.op.body.states for a, b in zip(s.reads[0].dims, s.next.dims)]
    return [*((node.attrs["n"], x.dims[0]) for x in parts(node).sequences), *states]


def trajectory(node: Node, j: int) -> Node:
    """The rows of state j, its initial ones first."""
    return make(ITEM, [node], k=2 * j)


def last(node: Node, j: int) -> Node:
    """The last rows of state j: as many as its depth."""
    return make(ITEM, [node], k=2 * j + 1)


def stacked(node: Node, m: int) -> Node:
    """Output m of every step."""
    return make(ITEM, [node], k=2 * len(node.op.body.states) + m)


def count(node: Node) -> Node:
    """How many steps were taken, where `until` decides."""
    return make(ITEM, [node], k=2 * len(node.op.body.states) + len(node.op.body.outs))


def rebodied(node: Node, body: Body) -> Node:
    """The loop with another closed body of the same inputs and results."""
    op, sizes = scan_of(body)
    given = node.op.given(node.attrs["sizes"])
    return make(op, node.inputs, n=node.attrs["n"], sizes=tuple(poly.substitute(s, given.get) for s in sizes))


def rebodied_outs(node: Node, body: Body, more: Sequence[Node]) -> Node:
    """The loop with further outputs per step; `body` is its body, opened. The loop itself when there are none."""
    if not more:
        return node
    p = parts(node)
    return make_scan(replace(body, outs=(*body.outs, *more)), p.sequences, p.initials, p.constants, node.attrs["n"])


__all__ = ["Body", "Parts", "Scan", "State", "Structure", "assumed_equal", "count", "is_scan", "last", "make_scan", "opened", "parts", "rebodied",
           "rebodied_outs", "scan_of", "stacked", "trajectory"]
