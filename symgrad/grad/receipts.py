"""Receipts: which rule of which `grad` hit which node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..graph.node import INPUT, SHARED, Node, make, unshared
from ..graph.walk import copy_notes, order
from ..ops.elementwise import positive
from .overrides import Receipt


def receipt(value: Node | list[Node] | Any) -> Receipt:
    """What was overridden on the way to this gradient (or to anything computed from it). Prints as a table."""
    roots = [value] if isinstance(value, Node) else list(value.values() if isinstance(value, Mapping) else value)
    direct = {id(r): r for v in roots for r in v.notes.receipts}
    found = list(direct.values()) or receipts_in(roots)
    merged = Receipt("+".join(filter(None, (r.name for r in found))) or None)
    for r in found:
        merged.hits.extend(r.hits)
    return merged


def receipts_in(roots: Iterable[Node]) -> list[Receipt]:
    """The receipts of every gradient that the roots are computed from, each once."""
    found: dict[int, Receipt] = {}
    for node in order(roots):
        for r in node.notes.receipts:
            found[id(r)] = r
    return list(found.values())


def with_receipts(node: Node, receipts: Iterable[Receipt]) -> Node:
    """The same value as a node that is not interned, so that the receipts stay with this gradient alone."""
    receipts = tuple(receipts)
    if not receipts:
        return node
    if node.op is INPUT or node.op is SHARED:
        node = make(positive, [node])
    copy = unshared(node)
    copy_notes(copy, node)
    copy.notes.receipts = receipts
    return copy
