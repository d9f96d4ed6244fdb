"""Seconds to build, differentiate and compile chains of growing length: time per node should not grow."""

from __future__ import annotations

import time

import symgrad as sg
import symgrad.tensor as T

SIZES = (1_000, 10_000, 50_000)


def table(sizes: tuple[int, ...] = SIZES) -> list[list[str]]:
    """A row per number of nodes of `y = tanh(y) * 1.01 + 0.1`, with its gradient."""
    rows = [["nodes", "build, s", "gradient, s", "compile, s", "us per node"]]
    for nodes in sizes:
        marks = [time.perf_counter()]
        x = y = T.vector("x", shape=8)
        for _ in range(nodes // 3):
            y = T.tanh(y) * 1.01 + 0.1
        marks.append(time.perf_counter())
        g = sg.grad(T.sum(y), x)
        marks.append(time.perf_counter())
        sg.function([x], [y, g])
        marks.append(time.perf_counter())
        steps = [b - a for a, b in zip(marks, marks[1:])]
        rows.append([f"{nodes:,}", *(f"{s:.2f}" for s in steps), f"{1e6 * sum(steps) / nodes:.0f}"])
    return rows
