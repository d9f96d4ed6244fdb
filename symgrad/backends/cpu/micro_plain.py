"""The micro-kernels in plain NumPy: what each one means, for running kernel text without a compiler.

`plain_<factory>` takes the same numbers as `micro.<factory>` and returns a function of flat arrays and sizes. A read or
a write beyond the end of its array raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

Array = np.ndarray

# the matrices of Lavin and Gray 2016, section 4
FILTERING: dict[int, dict[str, list[list[float]]]] = {
    2: {
        "B": [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        "G": [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        "A": [[1, 1, 1, 0], [0, 1, -1, -1]],
    },
    4: {
        "B": [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
              [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
        "G": [[1 / 4, 0, 0], [-1 / 6] * 3, [-1 / 6, 1 / 6, -1 / 6],
              [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]],
        "A": [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    },
}


def part(pointer: Array, start: int, count: int) -> Array:
    """`count` elements from `start` on, as a view."""
    view = np.asarray(pointer)[start:start + count]
    if start < 0 or len(view) != count:
        raise ValueError(f"elements {start} to {start + count} of memory that has {len(pointer)}")
    return view


def plain_tile_micro(dtype: str, lanes: int, rows: int, vectors: int, *, w_row: int, w_red: int, x_red: int,
                     y_row: int, taps: Sequence[tuple[int, int]] = ((0, 0),),
                     steps: Sequence[tuple[int, int]] = ((0, 0),), last: int | None = None) -> Callable:
    width = vectors * lanes
    exist = width - lanes + (lanes if last is None else last)

    def kernel(x: Array, w: Array, y: Array, c0: int, c1: int, done: int) -> None:
        for i in range(rows):
            total = part(y, i * y_row, width)
            if done == 0:
                total[:] = 0
            for c, (xs, ws), (xt, wt) in product(range(c0, c1), steps, taps):
                weight = part(w, i * w_row + c * w_red + ws + wt, 1)
                total[:exist] += weight * part(x, c * x_red + xs + xt, exist)
    return kernel


def plain_dot_micro(dtype: str, lanes: int, rows: int, columns: Sequence[int], *, a_row: int, y_row: int,
                    end: int = 0, last: int = 0) -> Callable:
    def kernel(a: Array, x: Array, y: Array, p0: int, p1: int, count: int, a_next: int, x_next: int) -> None:
        length = p1 - p0 + (last if p1 == end else 0)
        part(y, (rows - 1) * y_row, 1 << (len(columns) - 1).bit_length())       # what is written, with the surplus
        for m, i, (t, column) in product(range(count), range(rows), enumerate(columns)):
            dot = np.dot(part(a, m * a_next + i * a_row + p0, length), part(x, m * x_next + column + p0, length))
            part(y, i * y_row + t, 1)[:] += dot
    return kernel


def plain_copy_micro(dtype: str, lanes: int, vectors: int, *, last: int | None = None) -> Callable:
    width = vectors * lanes
    exist = width - lanes + (lanes if last is None else last)

    def kernel(x: Array, y: Array, count: int, x_row: int, y_row: int) -> None:
        for r in range(count):
            to = part(y, r * y_row, width)
            to[:exist], to[exist:] = part(x, r * x_row, exist), 0
    return kernel


def plain_zero_micro(dtype: str) -> Callable:
    def kernel(y: Array, count: int, parts: int, y_part: int) -> None:
        for k in range(parts):
            part(y, k * y_part, count)[:] = 0
    return kernel


def plain_transpose_micro(dtype: str, lanes: int, lines: int, *, end: int, last: int = 0) -> Callable:
    width = -(-lines // lanes) * lanes

    def kernel(x: Array, y: Array, x_line: int, y_row: int) -> None:
        for k in range(end + last):
            part(y, k * y_row, width)[:] = [part(x, q * x_line + k, 1)[0] if q < lines else 0 for q in range(width)]
    return kernel


def plain_split_micro(dtype: str, lanes: int, step: int) -> Callable:
    def kernel(x: Array, y: Array, count: int, y_phase: int) -> None:
        whole = -(-count // lanes) * lanes
        for phase in range(step):
            part(y, phase * y_phase, whole)[:] = part(x, 0, whole * step)[phase::step]
    return kernel


def plain_max_micro(dtype: str, lanes: int, count: int, *, columns: Sequence[int]) -> Callable:
    whole = -(-count // lanes) * lanes

    def kernel(x: Array, y: Array) -> None:
        best = part(y, 0, whole)
        for column in columns:
            best[:] = np.maximum(best, part(x, column, whole))
    return kernel


def plain_argmax_micro(dtype: str, lanes: int, count: int, *, columns: Sequence[int]) -> Callable:
    whole = -(-count // lanes) * lanes

    def kernel(x: Array, y: Array, at: Array, place: int) -> None:
        best, winner = part(y, 0, whole), part(at, 0, whole)
        for k, column in enumerate(columns):
            candidate = part(x, column, whole)
            take = beats(candidate, best)
            best[take] = candidate[take]
            winner[take] = place + k
    return kernel


def plain_claim_micro(dtype: str, lanes: int, count: int, *, columns: Sequence[int], taps: Sequence[int]) -> Callable:
    whole = -(-count // lanes) * lanes

    def kernel(at: Array, g: Array, y: Array, place: int) -> None:
        total = part(y, 0, whole)
        for column, tap in zip(columns, taps):
            total += np.where(part(at, column, whole) == place + tap, part(g, column, whole), 0)
    return kernel


def plain_unpool_micro(dtype: str, lanes: int, count: int, *, x_row: int, y_row: int) -> Callable:
    def kernel(x: Array, g: Array, y: Array) -> None:
        cells = [part(x, row, 2 * count)[side::2] for row in (0, x_row) for side in (0, 1)]
        winner, best = np.zeros(count, int), cells[0].copy()
        for k in (1, 2, 3):
            take = beats(cells[k], best)
            winner[take], best[take] = k, cells[k][take]
        for k in range(4):
            to = part(y, k // 2 * y_row, 2 * count)[k % 2::2]
            to[:] = np.where(winner == k, part(g, 0, count), 0)
    return kernel


def beats(candidate: Array, best: Array) -> Array:
    return (candidate > best) | np.isnan(candidate)


def plain_winograd_input_micro(dtype: str, lanes: int, m: int) -> Callable:
    side = range(m + 2)

    def kernel(x: Array, v: Array, v_next: int, phase: int, line: int) -> None:
        tile = np.array([[part(x, (i % m * m + j % m) * phase + i // m * line + j // m, lanes) for j in side] for i in side])
        store_square(v, v_next, two_sided(FILTERING[m]["B"], tile))
    return kernel


def plain_winograd_weight_micro(dtype: str, lanes: int, m: int, *, taps: Sequence[int], exist: int | None = None) -> Callable:
    def kernel(w: Array, u: Array, w_lane: int, u_next: int) -> None:
        tile = np.zeros((9, lanes), dtype)
        for k, lane in product(range(9), range(lanes if exist is None else exist)):
            tile[k, lane] = part(w, taps[k] + lane * w_lane, 1)[0]
        store_square(u, u_next, two_sided(FILTERING[m]["G"], tile.reshape(3, 3, lanes)))
    return kernel


def plain_winograd_output_micro(dtype: str, lanes: int, m: int) -> Callable:
    side = m + 2

    def kernel(t: Array, y: Array, t_next: int, y_row: int) -> None:
        tile = np.array([part(t, k * t_next, lanes) for k in range(side**2)]).reshape(side, side, lanes)
        for a, row in enumerate(two_sided(FILTERING[m]["A"], tile)):
            part(y, a * y_row, m * lanes)[:] = row.T.ravel()
    return kernel


def two_sided(matrix: Sequence[Sequence[float]], tile: Array) -> Array:
    """matrix @ tile @ matrix' for a tile (side, side, lanes)."""
    with np.errstate(all="ignore"):         # surplus lanes hold anything
        return np.einsum("ia,abp,jb->ijp", matrix, tile, matrix)


def store_square(pointer: Array, distance: int, square: Array) -> None:
    lanes = square.shape[-1]
    for k, value in enumerate(square.reshape(-1, lanes)):
        part(pointer, k * distance, lanes)[:] = value
