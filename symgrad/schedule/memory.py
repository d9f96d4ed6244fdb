"""Lifetimes and places in the arena: buffers that do not live at the same time may share memory."""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ALIGNMENT = 64          # bytes: a cache line, and the widest vector
FEW = 300               # buffers for which the better of two ways to place them is looked for
STAGGER = 128           # buffers do not start on the same set of a cache


@dataclass(frozen=True)
class Lifetime:
    """A buffer of nbytes, alive from kernel `first` to kernel `last`, both included."""

    buffer: Any
    nbytes: int
    first: int
    last: int


def place(lifetimes: Sequence[Lifetime]) -> tuple[dict[Any, int], int]:
    """Byte offsets in one arena, and its size."""
    in_time = placed_in_time(lifetimes)
    if len(lifetimes) > FEW or in_time[1] <= most_alive(lifetimes):
        return in_time
    return min(in_time, placed_by_size(lifetimes), key=lambda found: found[1])


def most_alive(lifetimes: Sequence[Lifetime]) -> int:
    """The bytes that are alive at once, which no arena is smaller than."""
    change: dict[int, int] = {}
    for item in lifetimes:
        change[item.first] = change.get(item.first, 0) + rounded(item.nbytes)
        change[item.last + 1] = change.get(item.last + 1, 0) - rounded(item.nbytes)
    return max(itertools.accumulate(change[k] for k in sorted(change)), default=0)


def placed_by_size(lifetimes: Sequence[Lifetime]) -> tuple[dict[Any, int], int]:
    """The largest first, each as low as those that live at the same time allow. Quadratic."""
    done: list[tuple[int, int, Lifetime]] = []              # (start, end, item), lowest first
    for item in sorted(lifetimes, key=lambda b: (-b.nbytes, b.first)):
        size, start = rounded(item.nbytes), 0
        for low, high, other in done:
            if other.first <= item.last and item.first <= other.last:
                if low - start >= size:
                    break
                start = max(start, high)
        bisect.insort(done, (start, start + size, item), key=lambda d: d[0])
    return {item.buffer: start for start, _, item in done}, max((end for _, end, _ in done), default=0)


def placed_in_time(lifetimes: Sequence[Lifetime]) -> tuple[dict[Any, int], int]:
    """In the order in which buffers are first written, each in the smallest gap that holds it.

    Gaps open when buffers die, and grow together. Near linear: graphs may have very many buffers.
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
