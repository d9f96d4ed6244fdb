"""What can be known of a value from the graph alone."""

from __future__ import annotations

import numpy as np

from ..graph.node import CONSTANT, Node


def is_zero(node: Node) -> bool:
    """A constant that is zero everywhere, seen through casts and broadcasts."""
    node = seen_through(node, "broadcast_to", "reshape", "cast")
    return node.op is CONSTANT and bool(np.all(node.payload == 0))


def seen_through(node: Node, *names: str) -> Node:
    """The node below any number of these ops."""
    while node.op.name in names:
        node = node.inputs[0]
    return node
