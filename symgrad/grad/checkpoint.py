"""`checkpoint`: compute again on the way back instead of keeping what lies between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..base import dtypes
from ..graph.block import Body, call_body, captured, lift
from ..graph.node import Node, make, new_input
from ..graph.walk import order, substitute
from ..ops.control import again
from ..ops.random import Stochastic
from ..ops.row import STOP
from .reverse import RuleNode, flat, pull_back, zeros_like


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn, with its inner values computed a second time in the backward pass instead of being kept until then.

    Takes variables, gives what fn gives; the values and gradients are the same. Parameters that fn uses get their gradients too,
    overrides reach inside, and what fn draws is drawn again, the same numbers. Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    def recomputing(*args: Any) -> Any:
        values = [lift(a) for a in args]
        inputs = [new_input(v._type, v.name) for v in values]
        result = fn(*inputs)
        outputs = flat(result)
        states = drawn_from(outputs, since=inputs[0].serial if inputs else 0)
        outside = [*states, *captured([*inputs, *states], outputs)]
        stand_ins = [new_input(v._type, v.name) for v in outside]
        body = Body("checkpoint", [*inputs, *stand_ins], substitute(outputs, dict(zip(outside, stand_ins))), vjp=_rule)
        return call_body(body, [*values, *outside])
    return recomputing


def drawn_from(outputs: Sequence[Node], since: int) -> list[Node]:
    """The states of streams that were drawn from since a node was made: such draws are made again, not kept."""
    return list({n.inputs[0]: None for n in order(outputs) if isinstance(n.op, Stochastic) and n.serial > since})


def _rule(g: Any, y: Any, *xs: Node, node: RuleNode) -> tuple:
    """Pull g back through the body, computed anew from inputs that wait for g."""
    gs = list(g) if isinstance(g, tuple) else [g]
    fresh = [make(again, [x, gs[0]]) for x in xs]
    seeds: dict[Node, Node] = {}
    for out, cotangent in zip(node.body_on(fresh), gs):
        seeds[out] = seeds[out] + cotangent if out in seeds else cotangent
    wanted = [x for x in fresh if dtypes.is_float(x.dtype)]
    found = pull_back(seeds, wanted, node.ruling, leaves=set(fresh))
    return tuple(found.get(x, zeros_like(x)) if dtypes.is_float(x.dtype) else STOP for x in fresh)


_rule.is_ordinary = True  # type: ignore[attr-defined]
