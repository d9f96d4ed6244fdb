"""Blocks: a subgraph under a name, which may carry its own gradient rule.

`OpFromGraph` makes a block from inputs and outputs; `block` and `op_from_graph` make one from a Python function, with types
taken from each call. Calling a block makes one `call` node, so a gradient rule can be attached to it as a whole. `grad` spends
the rules; afterwards blocks are inlined, so at run time they cost nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..base import poly
from ..base.errors import DTypeError, OverrideError, ShapeError, close_match, four_parts
from ..base.origin import root_scope, show, user_line
from .node import CONSTANT, INPUT, SHARED, Node, Op, Rule, constant, freeze, make, new_input, results
from .types import TupleType, Type, shape_text
from .walk import order, substitute

_INSTEAD = "sg.OpFromGraph(inputs, outputs, vjp=rule) with rule(g, y, *xs) -> cotangents, or sg.grad(cost, wrt, overrides={op: rule})"
_OLD_SPELLINGS = ("grad", "L_op", "R_op", "lop_overrides", "grad_overrides", "rop_overrides", "pullback", "pushforward",
                  "set_lop_overrides", "set_grad_overrides", "connection_pattern")


class Body:
    """What a block computes: inputs (declared, then captured), outputs, and the rules it carries. Never changes."""

    def __init__(self, name: str, inputs: Sequence[Node], outputs: Sequence[Node], vjp: Any = None, jvp: Rule | None = None,
                 owner: Any = None, attrs: Mapping[str, Any] | None = None):
        self.name, self.outputs, self.vjp, self.jvp, self.owner = name, tuple(outputs), vjp, jvp, owner
        self.attrs = dict(attrs or {})
        self.declared = len(inputs)
        self.inputs = (*inputs, *captured(inputs, outputs))
        refuse_counting(self.name, self.inputs, outputs)
        self.call = Call(self)
        self._types: dict[tuple[Type, ...], Any] = {tuple(x._type for x in self.inputs): _pack([y._type for y in self.outputs])}

    def types(self, types: tuple[Type, ...]) -> Any:
        """The result type for these input types; sizes left open take the sizes of the call."""
        if types not in self._types:
            for k, (x, t) in enumerate(zip(self.inputs, types)):
                self._check(k, x, t)
            mapping = {x: new_input(t) for x, t in zip(self.inputs, types)}
            self._types[types] = _pack([y._type for y in substitute(self.outputs, mapping)])
        return self._types[types]

    def _check(self, k: int, x: Node, given: Type) -> None:
        if x.dtype != given.dtype:
            raise DTypeError(four_parts(f"input {k} of {self.name} is {x.dtype}", f"{given}", attempt=f"x.astype({x.dtype!r})"))
        if x.ndim != given.ndim or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(x.dims, given.dims)):
            raise ShapeError(four_parts(f"input {k} of {self.name} has shape {shape_text(x.dims)}", f"{shape_text(given.dims)}",
                                        attempt="leave sizes open (None) when the block is made, or make it per shape"))

    def inlined(self, inputs: Sequence[Node], scope: str = "") -> list[Node]:
        """The outputs as plain graph over `inputs`."""
        return substitute(self.outputs, dict(zip(self.inputs, inputs)), scope)


def _pack(types: list[Type]) -> Any:
    return types[0] if len(types) == 1 else TupleType(types)


def captured(inputs: Sequence[Node], outputs: Sequence[Node]) -> list[Node]:
    """What the outputs use besides the inputs: the outermost nodes that do not depend on an input (constants left out)."""
    own = set(inputs)
    nodes = order(outputs, stop=lambda n: n in own)
    inside = set(own)
    for node in nodes:
        if node not in inside and any(x in inside for x in node.inputs):
            inside.add(node)
    frontier: dict[Node, None] = {}
    for node in nodes:
        if node in inside and node not in own:
            frontier.update((x, None) for x in node.inputs if x not in inside and not _is_fixed(x))
    frontier.update((y, None) for y in outputs if y not in inside and not _is_fixed(y))
    return list(frontier)


def refuse_counting(name: str, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
    """Raises ShapeError when a size of an output is decided by data inside the block: nobody outside could say what it is."""
    for y in outputs:
        for decider in (x for d in y.dims for x in poly.decided(d) if isinstance(x, Node)):
            if set(inputs) & set(order([decider])):
                raise ShapeError(four_parts(f"a block {name} whose results have sizes that its inputs' sizes decide", f"{y._type}, made at {y.where}",
                                            f"{decider.op.name} made at {decider.where}", "select from the result outside the block"))


def _is_fixed(node: Node) -> bool:
    return all(n.op is CONSTANT for n in order([node]) if n.op in (CONSTANT, INPUT, SHARED))


class Call(Op):
    """The op of one body: its inputs are the body's, its results the body's outputs."""

    def __init__(self, body: Body):
        self.body, self.name = body, body.name

    def infer(self, *types: Type) -> Any:
        return self.body.types(types)


def is_call(node: Node) -> bool:
    return isinstance(node.op, Call)


class _Block:
    """What `OpFromGraph` and `block` share: nothing about them can be changed by assignment."""

    name: str

    def __setattr__(self, attribute: str, value: Any) -> None:
        raise OverrideError(four_parts(f"setting {self.name}.{attribute}",
                                       "a block never changes after it is made, so this rule would never run",
                                       show(user_line()), _INSTEAD))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for old in (*_OLD_SPELLINGS, "vjp", "jvp"):
            if old in vars(cls):
                raise OverrideError(four_parts(f"class {cls.__name__} defines {old}", "symgrad never calls a method of that name",
                                               show(user_line()), _INSTEAD))

    def _set(self, **facts: Any) -> None:
        for key, value in facts.items():
            object.__setattr__(self, key, value)

    def __repr__(self) -> str:
        return self.name


class OpFromGraph(_Block):
    """A callable op that computes `outputs` from `inputs`, with an optional gradient rule of its own.

    vjp(g, y, *xs) returns one cotangent per input (tuples of g and y when there are several outputs); or a list with one such
    rule, or sg.DEFAULT, per input. jvp(y, xs, tangents) gives the forward-mode rule. Shared variables and other variables
    that the outputs use are captured; they keep their ordinary gradient.
    Raises OverrideError for keywords of other systems (grad_overrides=, pullback=, ...).
    """

    body: Body

    def __init__(self, inputs: Sequence[Node] | Node, outputs: Sequence[Node] | Node, *, vjp: Rule | list | None = None,
                 jvp: Rule | None = None, name: str | None = None, **unknown: Any):
        refuse_unknown(unknown, "OpFromGraph", ("vjp", "jvp", "name"))
        ins = [inputs] if isinstance(inputs, Node) else list(inputs)
        outs = [outputs] if isinstance(outputs, Node) else list(outputs)
        check_block_inputs(ins, outs)
        check_rule(vjp, len(ins), name)
        self._set(name=name or "OpFromGraph", body=Body(name or "OpFromGraph", ins, outs, vjp, jvp, owner=self))

    def __call__(self, *args: Any) -> Any:
        body = self.body
        if len(args) != body.declared:
            raise ShapeError(four_parts(f"{self.name} takes {body.declared} inputs", f"{len(args)} given", show(user_line())))
        return call_body(body, [lift(a) for a in args])


def call_body(body: Body, args: list[Node]) -> Any:
    """The results of a call: a bare node for one output, a list for several."""
    outs = results(make(body.call, [*args, *body.inputs[body.declared:]]))
    return outs[0] if len(outs) == 1 else outs


def lift(value: Any) -> Node:
    return value if isinstance(value, Node) else constant(value)


def check_block_inputs(inputs: list[Node], outputs: list[Node]) -> None:
    for x in [*inputs, *outputs]:
        if not isinstance(x, Node):
            raise DTypeError(four_parts("OpFromGraph of variables", f"{type(x).__name__}", show(user_line())))
    if len(set(inputs)) != len(inputs):
        raise OverrideError(four_parts("OpFromGraph inputs", "one variable listed twice", show(user_line())))


def check_rule(vjp: Any, inputs: int, name: str | None) -> None:
    if isinstance(vjp, (list, tuple)) and len(vjp) != inputs:
        raise OverrideError(four_parts(f"one rule per input of {name or 'the block'}, {inputs} in all", f"{len(vjp)} rules",
                                       show(user_line()), "sg.DEFAULT for inputs that keep the ordinary rule"))
    for rule in vjp if isinstance(vjp, (list, tuple)) else [vjp]:
        if rule is not None and not callable(rule) and repr(rule) not in ("sg.DEFAULT", "sg.STOP"):
            raise OverrideError(four_parts("a gradient rule", f"{rule!r} is not callable", show(user_line()), "rule(g, y, *xs) -> cotangents"))


def refuse_unknown(unknown: Mapping[str, Any], what: str, known: Sequence[str]) -> None:
    for key in unknown:
        instead = _INSTEAD if key in _OLD_SPELLINGS or "override" in key or "grad" in key else f"one of {', '.join(known)}"
        raise OverrideError(four_parts(f"{what}({key}=...)", f"no such keyword{close_match(key, known)}; it would have been ignored",
                                       show(user_line()), instead))


class BlockFunction(_Block):
    """A Python function of variables as a block: each call makes one node.

    Arguments that are variables or arrays become inputs; the others are attributes of the block, as the rule sees them in
    `node.attrs`. The function runs once per combination of input types and attributes.
    """

    function: Callable[..., Any]
    vjp_rule: Any
    jvp_rule: Rule | None
    bodies: dict[Any, Body]
    signature: inspect.Signature

    def __init__(self, function: Callable[..., Any], vjp: Any = None, jvp: Rule | None = None, name: str | None = None):
        self._set(name=name or function.__name__, function=function, vjp_rule=vjp, jvp_rule=jvp, bodies={},
                  signature=inspect.signature(function))
        functools.update_wrapper(cast(Any, _Facade(self)), function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        variables: list[Node] = []
        template: dict[str, Any] = {}
        for parameter, value in bound.arguments.items():
            template[parameter] = _mark(value, variables)
        key = (tuple(x._type for x in variables), freeze({k: _plain(v) for k, v in template.items()}))
        body = self.bodies.get(key)
        if body is None:
            body = self.bodies[key] = self._build(variables, template, bound)
        return call_body(body, variables)

    def _build(self, variables: list[Node], template: dict[str, Any], bound: inspect.BoundArguments) -> Body:
        fresh = [new_input(x._type, x.name) for x in variables]
        filled = inspect.BoundArguments(self.signature, {k: _fill(v, fresh) for k, v in template.items()})
        with root_scope():      # the scopes of the call are added when the body is inlined there
            out = self.function(*filled.args, **filled.kwargs)
        outputs = [out] if isinstance(out, Node) else list(out)
        check_rule(self.vjp_rule, len(fresh), self.name)
        attrs = {k: v for k, v in template.items() if not _has_slot(v)}
        return Body(self.name, fresh, outputs, self.vjp_rule, self.jvp_rule, owner=self, attrs=attrs)


class _Facade:
    """Lets functools.update_wrapper copy the docstring onto a block in spite of its frozen attributes."""

    def __init__(self, target: Any):
        object.__setattr__(self, "target", target)

    def __setattr__(self, key: str, value: Any) -> None:
        object.__setattr__(self.target, key, value)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.target, key)


class _Slot:
    """The place of variable number k in the arguments of a block function."""

    def __init__(self, k: int):
        self.k = k


def _mark(value: Any, variables: list[Node]) -> Any:
    if isinstance(value, np.ndarray):
        value = constant(value)
    if isinstance(value, Node):
        variables.append(value)
        return _Slot(len(variables) - 1)
    if isinstance(value, (list, tuple)):
        return tuple(_mark(v, variables) for v in value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, _Slot):
        return "variable", value.k
    return tuple(_plain(v) for v in value) if isinstance(value, tuple) else value


def _has_slot(value: Any) -> bool:
    return isinstance(value, _Slot) or (isinstance(value, tuple) and any(_has_slot(v) for v in value))


def _fill(value: Any, fresh: list[Node]) -> Any:
    if isinstance(value, _Slot):
        return fresh[value.k]
    return tuple(_fill(v, fresh) for v in value) if isinstance(value, tuple) else value


def block(function: Callable[..., Any]) -> BlockFunction:
    """A function of variables as a named block without a rule of its own; selectors can name it."""
    return BlockFunction(function)


def op_from_graph(function: Callable[..., Any] | None = None, *, vjp: Any = None, jvp: Rule | None = None,
                  name: str | None = None, **unknown: Any) -> Any:
    """Decorator: a function of variables as a block, with a gradient rule. Types come from each call.

    `@sg.op_from_graph(vjp=rule)` or `sg.op_from_graph(fn, vjp=rule)`; see OpFromGraph for the rule.
    """
    refuse_unknown(unknown, "op_from_graph", ("vjp", "jvp", "name"))
    if function is None:
        return lambda fn: BlockFunction(fn, vjp, jvp, name)
    return BlockFunction(function, vjp, jvp, name)


def block_attrs(node: Node) -> Mapping[str, Any]:
    """The attributes of an op node or of the block it calls."""
    return node.op.body.attrs if isinstance(node.op, Call) else node.attrs


__all__ = ["Body", "BlockFunction", "Call", "OpFromGraph", "block", "block_attrs", "call_body", "is_call", "op_from_graph"]
