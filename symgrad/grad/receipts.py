"""Receipts: which rule of which `grad` hit which node."""

from __future__ import annotations

from typing import Any

from ..graph.node import Node
from ..graph.walk import order
from .overrides import Receipt


def receipt(value: Node | list[Node] | Any) -> Receipt:
    """What was overridden on the way to this gradient (or to anything computed from it). Prints as a table."""
    roots = [value] if isinstance(value, Node) else list(value)
    direct: dict[int, Receipt] = {id(r): r for v in roots for r in v.notes.receipts}
    found = direct or {id(r): r for node in order(roots) for r in node.notes.receipts}
    merged = Receipt("+".join(filter(None, (r.name for r in found.values()))) or None)
    for r in found.values():
        merged.hits.extend(r.hits)
    return merged
