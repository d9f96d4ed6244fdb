"""Aligned text for terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"[\d.,]+%?")


def table(rows: Iterable[Sequence[object]]) -> str:
    """Rows as text, columns aligned: to the right where everything below the first row is a number."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = [[row[k] for row in cells if k < len(row)] for k in range(max(map(len, cells)))]
    widths = [max(map(len, column)) for column in columns]
    pads = [str.rjust if _numeric(column[1:]) else str.ljust for column in columns]
    return "\n".join("  ".join(pad(cell, width) for cell, pad, width in zip(row, pads, widths)).rstrip()
                     for row in cells)


def _numeric(column: Sequence[str]) -> bool:
    return bool(column) and all(map(_NUMBER.fullmatch, column))


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} us"
