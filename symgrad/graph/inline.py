"""Inlines blocks. Leaves: call, item. After this no override is left anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from .block import Call, is_call
from .node import ITEM, Node, is_leaf, make
from .scan import is_scan, rebodied
from .walk import copy_notes, order, resized


def inline_blocks(outputs: Sequence[Node]) -> list[Node]:
    """The outputs with every block replaced by its body, at any depth."""
    outputs = list(outputs)
    while any(_has_block(n) or (n.notes.receipts and not is_leaf(n)) for n in order(outputs)):
        outputs = _inline_once(outputs)
    return outputs


def _has_block(node: Node) -> bool:
    """A block, or a loop with one inside."""
    return is_call(node) or (is_scan(node) and any(map(_has_block, order(node.op.body.outputs))))


def _inline_once(outputs: list[Node]) -> list[Node]:
    new: dict[Node, Node] = {}
    bodies: dict[Node, list[Node]] = {}
    for node in order(outputs):
        if is_leaf(node):
            new[node] = node
        elif node.op is ITEM and node.inputs[0] in bodies:
            new[node] = bodies[node.inputs[0]][node.attrs["k"]]
        else:
            inputs = [new[x] for x in node.inputs]
            if isinstance(node.op, Call):
                scope = node.notes.scopes[0] if node.notes.scopes else ""
                bodies[node] = node.op.body.inlined(inputs, scope)
                new[node] = bodies[node][0]
            elif is_scan(node) and _has_block(node):
                twin = make(node.op, inputs, **resized(node.attrs, {}, new))
                body = twin.op.body
                new[node] = rebodied(twin, body.on(body.inputs, inline_blocks(body.outputs)))
                copy_notes(new[node], node)
            else:
                attrs = resized(node.attrs, {}, new)
                same = attrs is node.attrs and all(a is b for a, b in zip(inputs, node.inputs))
                # a gradient with a receipt is an object of its own: merge it with equal expressions
                new[node] = node if same and not node.notes.receipts else make(node.op, inputs, **attrs)
                copy_notes(new[node], node)
    return [new[y] for y in outputs]
