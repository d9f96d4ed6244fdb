"""Questions about sizes of which one or both may be unknown."""

from __future__ import annotations

from typing import Any


def one_size(a: Any, b: Any) -> Any:
    """The size that two axes share: the known one when only one is known."""
    return a if isinstance(a, int) else b


def differ(a: Any, b: Any) -> bool:
    """Both sizes are known and they are not equal."""
    return isinstance(a, int) and isinstance(b, int) and a != b
