"""Lifetimes and places in the arena: buffers that do not live at the same time may share memory."""

from __future__ import annotations

import bisect
import heapq
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
    """Byte offsets in one arena, and its size.

    In the order in which buffers are first written, each takes the smallest gap that holds it; gaps open when buffers die and
    grow together. Near linear: graphs may have very many buffers.
    """
    offsets: dict[Any, int] = {}
    gaps = Gaps()
    alive: list[tuple[int, int, int]] = []              # (last, offset, size), soonest to die first
    for item in sorted(lifetimes, key=lambda b: (b.first, -b.nbytes)):
        while alive and alive[0][0] < item.first:
            _, offset, size = heapq.heappop(alive)
            gaps.free(offset, size)
        size = rounded(item.nbytes)
        offsets[item.buffer] = gaps.take(size)
        heapq.heappush(alive, (item.last, offsets[item.buffer], size))
    return offsets, gaps.end


class Gaps:
    """The free parts of the arena, apart from what lies behind its end."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.sizes: dict[int, int] = {}
        self.end = 0

    def take(self, size: int) -> int:
        """The offset of `size` bytes: the tightest gap, else the end of the arena."""
        start = min((s for s in self.starts if self.sizes[s] >= size), key=self.sizes.__getitem__, default=None)
        if start is None:
            return self._grow(size)
        self._remove(start)
        rest = self.sizes.pop(start) - size
        if rest:
            self._add(start + size, rest)
        return start

    def _grow(self, size: int) -> int:
        """The arena made longer, from its last gap if that touches its end."""
        start = self.end
        if self.starts and self.starts[-1] + self.sizes[self.starts[-1]] == self.end:
            start = self.starts.pop()
            del self.sizes[start]
        self.end = start + size
        return start

    def free(self, start: int, size: int) -> None:
        """Give a part back; it joins the gaps that it touches."""
        k = bisect.bisect(self.starts, start)
        if k < len(self.starts) and self.starts[k] == start + size:
            size += self.sizes.pop(self.starts.pop(k))
        if k and self.starts[k - 1] + self.sizes[self.starts[k - 1]] == start:
            self.sizes[self.starts[k - 1]] += size
        else:
            self._add(start, size)

    def _add(self, start: int, size: int) -> None:
        bisect.insort(self.starts, start)
        self.sizes[start] = size

    def _remove(self, start: int) -> None:
        self.starts.pop(bisect.bisect_left(self.starts, start))


def rounded(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT + STAGGER
