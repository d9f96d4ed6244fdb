"""Lifetimes and places in the arena: buffers that do not live at the same time may share memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ALIGNMENT = 64          # bytes: a cache line, and the widest vector
STAGGER = 128           # buffers do not start on the same set of a cache


@dataclass(frozen=True)
class Lifetime:
    """A buffer of nbytes, alive from kernel `first` to kernel `last`, both included."""

    buffer: Any
    nbytes: int
    first: int
    last: int


def place(lifetimes: Sequence[Lifetime]) -> tuple[dict[Any, int], int]:
    """Byte offsets in one arena and its size. Largest buffers first, each at the lowest place free while it lives."""
    placed: list[tuple[int, int, Lifetime]] = []
    offsets: dict[Any, int] = {}
    total = 0
    for item in sorted(lifetimes, key=lambda b: (-b.nbytes, b.first)):
        size = rounded(item.nbytes)
        taken = sorted((o, o + s) for o, s, other in placed if other.first <= item.last and item.first <= other.last)
        offset = 0
        for start, stop in taken:
            if start - offset >= size:
                break
            offset = max(offset, stop)
        placed.append((offset, size, item))
        offsets[item.buffer] = offset
        total = max(total, offset + size)
    return offsets, total


def rounded(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT + STAGGER
