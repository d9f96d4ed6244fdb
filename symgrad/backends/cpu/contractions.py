"""Which ops the CPU has templates for, and how a node becomes a template's problem."""

from __future__ import annotations

from typing import Any

from ...graph.node import Node
from ...schedule.groups import Group, Grouping
from ...schedule.plan import Scratch
from ..text import Printer


class Templates:
    """The contractions of the CPU backend."""

    def accepts(self, node: Node) -> bool:
        return False

    def print(self, group: Group, grouping: Grouping, printer: Printer) -> tuple[tuple[str, ...], list[Scratch]]:
        raise NotImplementedError

    def flops(self, node: Node) -> Any:
        return 0
