"""Times of kernels, as a short aligned table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One kernel: median seconds per call, bytes touched, floating operations (0 where not counted), threads that shared it."""

    kernel: str
    what: str
    seconds: float
    nbytes: int
    flops: int
    calls: int = 1
    threads: int = 1

    @property
    def gigabytes_per_second(self) -> float:
        return self.nbytes / max(self.seconds, 1e-12) / 1e9

    @property
    def gigaflops(self) -> float:
        return self.flops / max(self.seconds, 1e-12) / 1e9


class Profile(list[Row]):
    """Rows in running order; prints as a table. `seconds` is their sum."""

    @property
    def seconds(self) -> float:
        return sum(r.seconds for r in self)

    def __str__(self) -> str:
        total = max(self.seconds, 1e-12)
        shared = any(r.threads > 1 for r in self)
        lines = [f"{'kernel':<8}{'us':>10}{'%':>6}{'calls':>7}{'threads' if shared else '':>{9 if shared else 0}}{'GB/s':>8}{'GFLOP/s':>9}  computes"]
        for r in self:
            flops = f"{r.gigaflops:9.1f}" if r.flops else " " * 9
            threads = f"{r.threads:9d}" if shared else ""
            lines.append(f"{r.kernel:<8}{1e6 * r.seconds:10.1f}{100 * r.seconds / total:6.1f}{r.calls:7d}{threads}"
                         f"{r.gigabytes_per_second:8.1f}{flops}  {r.what[:60]}")
        lines.append(f"{'total':<8}{1e6 * self.seconds:10.1f}")
        return "\n".join(lines)

    __repr__ = __str__


def median_seconds(call: Callable[[], object], budget: float) -> float:
    """The median time of a call, over at most `budget` seconds."""
    samples = []
    deadline = time.perf_counter() + budget
    while len(samples) < 3 or (time.perf_counter() < deadline and len(samples) < 200):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)
