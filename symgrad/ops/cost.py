"""What an element of an op costs, in operations: what is cheaper to compute again than to keep."""

from __future__ import annotations

from ..graph.node import Node

COST = {"exp": 8, "log": 8, "tanh": 8, "sigmoid": 8, "power": 16, "erf": 10, "erfc": 12, "sin": 8, "cos": 8, "softplus": 12, "log1p": 8,
        "expm1": 8, "random_bits": 40, "divide": 3, "sqrt": 3, "rsqrt": 3, "reciprocal": 3, "remainder": 4, "floor_divide": 4, "logaddexp": 16}
# ops that say where an element comes from: reading through them is an index, not a pass over memory
MOVEMENT = {"broadcast_to", "reshape", "transpose", "subtensor", "flip", "pad", "concatenate", "stack", "roll", "diagonal", "tril", "triu",
            "gather", "permuted", "take", "take_along_axis", "repeat", "tile", "eye", "arange", "full", "zeros", "ones", "linspace", "iota",
            "size_of", "one_hot"}
# ops that are not elementwise rows (their operands do not broadcast) but read one element per result
POINTWISE = {"stop_gradient", "grad_clip", "grad_scale", "condition", "count", "ifelse", "again", "random_bits"}
FREE = {"broadcast_to", "reshape", "transpose", "subtensor", "flip", "size_of", "positive", "stop_gradient", "grad_clip", "grad_scale"}


def is_elementwise(node: Node) -> bool:
    return getattr(node.op, "elementwise", False) or node.op.name in POINTWISE


def node_cost(node: Node) -> float:
    if node.op.name in FREE:
        return 0
    if is_elementwise(node):
        return COST.get(node.op.name, 1)
    return 2 if node.op.name in MOVEMENT else 1000
