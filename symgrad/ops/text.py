"""Graphs from text, with every op that is registered."""

from __future__ import annotations

from collections.abc import Mapping

from ..graph.node import Node
from ..graph.parse import parse
from .row import ROWS


def parse_graph(text: str, given: Mapping[str, Node] | None = None) -> Node | list[Node]:
    """What `sg.graph_text` wrote, as variables: one, or a list where a list was written.

    Inputs and shared variables are new ones, or those in `given`, by label. A gradient rule that a block carried is not in the
    text, so it is gone. Raises SymgradError that names the line which cannot be read.
    """
    return parse(text, ROWS, given)


__all__ = ["parse_graph"]
