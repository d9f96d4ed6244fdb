"""Structures of values: one value, a list, a tuple or a dict of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flat(structure: Any) -> list:
    """The leaves of a variable, list, tuple or dict."""
    if isinstance(structure, Mapping):
        return list(structure.values())
    return list(structure) if isinstance(structure, (list, tuple)) else [structure]


def rebuilt(structure: Any, values: Sequence[Any]) -> Any:
    """Values in the structure of `structure`."""
    if isinstance(structure, Mapping):
        return dict(zip(structure, values))
    return type(structure)(values) if isinstance(structure, (list, tuple)) else values[0]
