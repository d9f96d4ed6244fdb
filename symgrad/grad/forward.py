"""Forward mode. A tangent is pushed through a node by transposing its cotangent rule, so every rule has a forward form.

v -> J^T v is linear in v for every true derivative, and its transpose is the push-forward. A user's rule that is not linear in
its cotangent (guided backprop) has no transpose: then forward mode refuses, unless the block brings a jvp.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..base.errors import OverrideError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.block import is_call, refuse_unknown
from ..graph.node import ITEM, Node, is_leaf, make, new_input
from ..graph.types import TupleType
from ..graph.walk import order, substitute
from ..ops.row import STOP, as_tensor
from ..ops.shape import broadcast_to
from .linearity import nonlinear_at
from .overrides import Ruling, is_ordinary, rule_line, rule_name
from .reverse import _matching_cotangent, flat, flows, node_cotangents, pull_back, rebuilt


def jvp(outputs: Any, wrt: Any, tangents: Any, *, consider_constant: Iterable[Node] = (), disconnected: str = "zero",
        overrides: Any = None, **unknown: Any) -> Any:
    """Tangents of `outputs` from tangents of `wrt` (Theano's Rop): J v, in the structure of `outputs`.

    Outputs that do not depend on `wrt` have zero tangents (disconnected="raise" to refuse).
    Raises OverrideError when a gradient rule on the way is not linear in its cotangent.
    """
    refuse_unknown(unknown, "jvp", ("consider_constant", "disconnected", "overrides"))
    variables, moves = flat(wrt), [tangents] if isinstance(wrt, Node) else flat(tangents)
    if len(variables) != len(moves):
        raise ShapeError(four_parts("jvp with one tangent per variable", f"{len(variables)} variables, {len(moves)} tangents", show(user_line())))
    known: dict[Node, Any] = {}
    for x, t in zip(variables, moves):
        t = _matching_cotangent(x, t)
        known[x] = known[x] + t if x in known else t
    ruling = Ruling(overrides)
    found = push_forward(flat(outputs), known, ruling, set(consider_constant))
    ruling.check_used()
    result = []
    for y in flat(outputs):
        t = found.get(y)
        if t is None and disconnected == "raise":
            raise ShapeError(four_parts(f"the tangent of {y.name or y.op.name}", "it does not depend on the variables", show(user_line())))
        result.append(broadcast_to(as_tensor(0, y.dtype), y.dims) if t is None else t)
    return rebuilt(outputs, result)


def push_forward(outputs: list[Node], tangents: dict[Node, Any], ruling: Ruling, constants: set[Node]) -> dict[Node, Any]:
    """{node: tangent} for everything between; a list of tangents for nodes with several results."""
    moved = dict(tangents)
    for node in order(outputs):
        if node in moved or is_leaf(node) or node in constants or not flows(node):
            continue
        if not any(x in moved for x in node.inputs):
            continue
        t = node_tangent(node, moved, ruling)
        if t is not None:
            moved[node] = t
    return moved


def node_tangent(node: Node, moved: dict[Node, Any], ruling: Ruling) -> Any:
    if node.op is ITEM:
        return moved[node.inputs[0]][node.attrs["k"]]
    rule = ruling.rule_for(node)
    rule = None if rule is not None and is_ordinary(rule[0]) else rule
    if is_call(node):
        body = node.op.body
        if body.jvp is not None and (rule is None or rule[0] is body.vjp):
            return call_jvp(node, moved)
        if rule is None:
            outs = body.inlined(node.inputs, node.notes.scopes[0] if node.notes.scopes else "")
            inner = push_forward(outs, {x: moved[x] for x in node.inputs if x in moved}, ruling, set())
            ts = [inner.get(y) for y in outs]
            return ts if isinstance(node._type, TupleType) else ts[0]
    return transposed(node, moved, rule, ruling)


def call_jvp(node: Node, moved: dict[Node, Any]) -> Any:
    body = node.op.body
    xs = node.inputs[:body.declared]
    ts = [moved.get(x, broadcast_to(as_tensor(0, x.dtype), x.dims)) for x in xs]
    y = [make(ITEM, [node], k=k) for k in range(len(node._type.items))] if isinstance(node._type, TupleType) else node
    answer = body.jvp(y, tuple(xs), tuple(ts))
    return list(answer) if isinstance(node._type, TupleType) else answer


def transposed(node: Node, moved: dict[Node, Any], rule: Any, ruling: Ruling) -> Any:
    """The push-forward as the transpose of the pull-back u -> J^T u, at a fresh u."""
    several = isinstance(node._type, TupleType)
    us = [new_input(t) for t in (node._type.items if several else [node._type])]
    xs, cotangents = node_cotangents(node, list(us) if several else us[0], rule, ruling)
    pulled = [(x, dx) for x, dx in zip(xs, cotangents) if dx is not STOP and x in moved]
    if not pulled:
        return None
    if rule is not None:
        refuse_nonlinear(node, rule[0], [dx for _, dx in pulled], us)
    seeds: dict[Node, Node] = {}
    for x, dx in pulled:
        seeds[dx] = seeds[dx] + moved[x] if dx in seeds else moved[x]
    back = pull_back(seeds, us, Ruling(None))
    zero = {u: broadcast_to(as_tensor(0, u.dtype), u.dims) for u in us}
    # the transpose of a linear map no longer depends on where it was taken
    outs = substitute([back.get(u, zero[u]) for u in us], zero)
    return outs if several else outs[0]


def refuse_nonlinear(node: Node, rule: Any, answers: list[Node], us: list[Node]) -> None:
    culprit = nonlinear_at(answers, us)
    if culprit is not None:
        first = rule[0] if isinstance(rule, (list, tuple)) else rule
        raise OverrideError(four_parts(
            f"forward mode through rule {rule_name(first)!r} ({rule_line(first)})",
            f"it is not linear in its cotangent: {culprit.op.name} at {culprit.where}", f"{node.name or node.op.name} made at {node.where}",
            "reverse mode (sg.grad, sg.vjp), or give the block a jvp=(y, xs, tangents) rule"))
