"""Is an expression linear in some variables? Decided from the structure: each op says in which operands it is linear."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.inline import inline_blocks
from ..graph.node import Node
from ..graph.walk import order
from ..ops.known import is_zero

# ops that are linear in all float operands together
JOINT = {"add", "subtract", "negative", "positive", "sum", "mean", "reshape", "transpose", "broadcast_to", "concatenate", "stack", "pad",
         "subtensor", "flip", "cumsum", "cast", "roll", "grad_scale", "diagonal", "split"}
# ops that are linear in any one operand while the others are fixed
EACH = {"multiply", "matmul", "conv1d", "conv2d", "conv3d", "convolution_input_grad", "convolution_weight_grad"}
# ops that are linear in these operands while the others are fixed
SOME = {"divide": (0,), "ifelse": (1, 2), "where": (1, 2), "take": (0,), "gather": (0,), "scatter_add": (0, 1), "max_pool_grad": (2,), "max_pool_pick": (2,),
        "take_along_axis": (0,), "inc_subtensor": (0, 1), "set_subtensor": (0, 1), "avg_pool1d": (0,), "avg_pool2d": (0,), "avg_pool3d": (0,),
        "avg_pool_grad": (0,)}


def nonlinear_at(outputs: Sequence[Node], variables: Sequence[Node]) -> Node | None:
    """The first node where the outputs stop being linear in the variables, or None."""
    outputs = inline_blocks(outputs)
    linear = set(variables)
    for node in order(outputs):
        using = [k for k, x in enumerate(node.inputs) if x in linear]
        if node in linear or not using:
            continue
        if not _is_linear(node, using):
            return node
        linear.add(node)
    return None


def _is_linear(node: Node, using: list[int]) -> bool:
    name = node.op.name
    if name in JOINT:
        # a constant term makes it affine, not linear
        return name not in ("add", "subtract", "concatenate", "stack") or len(using) == len(node.inputs) or _others_zero(node, using)
    if name in EACH:
        return len(using) == 1
    if name in SOME:
        return all(k in SOME[name] for k in using)
    return False


def _others_zero(node: Node, using: list[int]) -> bool:
    return all(is_zero(x) for k, x in enumerate(node.inputs) if k not in using)

