"""Why rewriting ends: every rule lowers this measure, compared as a tuple.

First the weight: a sum over the tree of what the ops cost, so terms that merge or get cheaper win. Then
how deep negations lie under other ops, then how deep broadcasts do: what is equally heavy moves them
outwards. Weights grow with the weights of their operands, so replacing part of a graph by something
lighter makes the whole lighter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..graph.node import CONSTANT, Node, is_leaf
from ..graph.walk import order

WEIGHTS = {
    "negative": 1,
    "logical_not": 1,
    "invert": 1,
    "broadcast_to": 1,
    "reshape": 1,
    "transpose": 1,
    "subtensor": 1,
    "pad": 2,
    "concatenate": 1,
    "stack": 1,
    "positive": 1,
    "stop_gradient": 1,
    "grad_clip": 1,
    "grad_scale": 1,
    "expected": 1,
    "add": 2,
    "subtract": 2,
    "multiply": 2,
    "cast": 2,
    "where": 2,
    "square": 3,
    "divide": 6,
    "reciprocal": 7,
    **dict.fromkeys(
        (
            "maximum",
            "minimum",
            "relu",
            "absolute",
            "sign",
            "floor",
            "ceil",
            "trunc",
            "rint",
            "equal",
            "not_equal",
            "less",
            "less_equal",
            "greater",
            "greater_equal",
            "logical_and",
            "logical_or",
            "logical_xor",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
        ),
        2,
    ),
    "sqrt": 6,
    "rsqrt": 6,
    "power": 40,
    "sum": 12,
    "max": 12,
    "min": 12,
    "softmax": 30,
    "log_softmax": 30,
    "logsumexp": 30,
}
OTHER = 10
OUTWARD = ("negative", "broadcast_to")
# x**4 becomes products that name x four times; a sum of repeated values becomes a multiple
COPIES = {"power": 10, "square": 2, "sum": 4, "max": 4, "min": 4}

Measure = tuple[int, int, int, int, int]


def measure(node: Node, leaves: Mapping[Node, int] | None = None) -> Measure:
    """(weight, depth of negations, depth of broadcasts, ops on constants, axes of constants).

    Leaves weigh what `leaves` says, by default 1. What is made of constants alone weighs nothing: it will be one.
    """
    found: dict[Node, Measure] = {}
    count: dict[Node, tuple[int, int]] = {}  # negations and broadcasts in the tree below
    for n in order([node]):
        inner = [found[x] for x in n.inputs]
        if n.op is CONSTANT:
            found[n], count[n] = (0, 0, 0, 0, n.ndim), (0, 0)
        elif is_leaf(n):
            found[n], count[n] = ((leaves or {}).get(n, 1), 0, 0, 0, 0), (0, 0)
        elif n.inputs and all(m[0] == 0 for m in inner):
            found[n], count[n] = (
                (0, 0, 0, _total(inner, 3) + (1 if n.op.name == "broadcast_to" else 2), _total(inner, 4)),
                (0, 0),
            )
        else:
            found[n], count[n] = _measured(n, inner, [count[x] for x in n.inputs])
    return found[node]


def _measured(
    node: Node, inner: list[Measure], counts: list[tuple[int, int]]
) -> tuple[Measure, tuple[int, int]]:
    name = node.op.name
    negations, broadcasts = sum(c[0] for c in counts), sum(c[1] for c in counts)
    weight = WEIGHTS.get(name, OTHER) + COPIES.get(name, 1) * _total(inner, 0)
    deep = (
        _total(inner, 1) + (name not in OUTWARD) * negations,
        _total(inner, 2) + (name != "broadcast_to") * broadcasts,
    )
    below = (negations + (name == "negative"), broadcasts + (name == "broadcast_to"))
    return (weight, *deep, _total(inner, 3), _total(inner, 4)), below


def _total(inner: Iterable[Measure], k: int) -> int:
    return sum(m[k] for m in inner)


def goes_down(before: Node, after: Node, leaves: Mapping[Node, int] | None = None) -> bool:
    """Whether replacing one by the other brings the end nearer."""
    return measure(after, leaves) < measure(before, leaves)
