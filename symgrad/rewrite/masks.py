"""Conditions on what a ReLU reads become conditions on what it gives, so that only its result is kept for
the way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.node import Node, make
from ..graph.walk import copy_notes, order, substitute
from ..ops.branch import guards
from ..ops.elementwise import greater, less, maximum, relu
from ..ops.known import is_zero


def masks_of_results(outputs: Sequence[Node]) -> list[Node]:
    """x > 0 becomes relu(x) > 0 where relu(x) is computed anyway: equal for every x, NaN included."""
    nodes = order(outputs)
    rectified = {n.inputs[0]: n for n in nodes if n.op is relu}
    for n in nodes:
        if n.op is maximum:
            for x, zero in (n.inputs, n.inputs[::-1]):
                if is_zero(zero) and x.dims == n.dims:
                    rectified.setdefault(x, n)
    mapping, when = {}, guards(outputs)
    for n in nodes:
        for op, x, zero in ((greater, *n.inputs[:2]), (less, *n.inputs[1::-1])) if len(n.inputs) == 2 else ():
            # a result of one side of a choice stays unasked for elsewhere
            if n.op is op and x in rectified and is_zero(zero) and set(when.get(rectified[x], ())) <= set(when.get(n, ())):
                y = rectified[x]
                mapping[n] = make(op, [y, zero] if op is greater else [zero, y])
                copy_notes(mapping[n], n)
    return substitute(outputs, mapping) if mapping else list(outputs)
