"""Sliding windows over the last axes: the arithmetic that convolution and pooling share.

A window op has, per spatial axis: a kernel size, a stride, a pair of paddings and a dilation. Output o reads
the input at `o*stride + k*dilation - before` for every k below the kernel size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.types import is_one, shape_text
from ..loops import ir
from ..loops.ir import E

Pairs = tuple[tuple[int, int], ...]


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def per_axis(value: Any, n: int, what: str, least: int = 1) -> tuple[int, ...]:
    """n ints from an int or a sequence of n ints, each at least `least`."""
    items = (value,) * n if _whole(value) else tuple(value) if isinstance(value, (tuple, list)) else (None,)
    if len(items) == 1 and _whole(items[0]):
        items *= n
    if len(items) != n or not all(_whole(v) and v >= least for v in items):
        raise ShapeError(four_parts(f"{what}={value!r}", f"{n} spatial axes", show(user_line()),
                                    f"an int or {n} ints, each at least {least}"))
    return tuple(int(v) for v in items)


def pairs(padding: Any, n: int, what: str = "padding") -> Pairs:
    """n pairs (before, after) from an int, n ints or n pairs."""
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) == n and all(isinstance(p, (tuple, list)) and len(p) == 2 for p in padding):
            return tuple(per_axis(p, 2, what, 0) for p in padding)  # type: ignore[misc]
    elif n == 1 and isinstance(padding, (tuple, list)) and len(padding) == 2:
        return (per_axis(padding, 2, what, 0),)  # type: ignore[return-value]
    elif not isinstance(padding, str):
        return tuple((p, p) for p in per_axis(padding, n, what, 0))
    raise ShapeError(four_parts(f"{what}={padding!r}", f"{n} spatial axes", show(user_line()),
                                f"an int, {n} ints or {n} pairs (before, after)"))


def span(kernel: Any, dilation: int) -> Any:
    """How many positions a window covers."""
    return (kernel - 1) * dilation + 1


def output_size(size: Any, kernel: Any, stride: int, padding: tuple[int, int], dilation: int,
                ceil_mode: bool = False) -> Any:
    """Number of windows on one axis. With ceil_mode the last may hang over the end, not start behind it."""
    room = size + padding[0] + padding[1] - span(kernel, dilation)
    if not ceil_mode:
        return poly.floordiv(room, stride) + 1
    return poly.minimum(poly.ceildiv(room, stride) + 1, poly.floordiv(size + padding[0] - 1, stride) + 1)


def output_sizes(what: str, sizes: Sequence[Any], kernel: Sequence[Any], stride: Sequence[int],
                 padding: Pairs, dilation: Sequence[int],
                 ceil_mode: bool = False) -> tuple:
    """Number of windows per axis. Raises ShapeError where a window is known not to fit."""
    result = tuple(output_size(*facts, ceil_mode) for facts in zip(sizes, kernel, stride, padding, dilation))
    for size, k, pad, d in zip(sizes, kernel, padding, dilation):
        if isinstance(size, int) and isinstance(k, int) and size + sum(pad) < span(k, d):
            raise ShapeError(four_parts(
                f"{what} with a kernel of {shape_text(tuple(kernel))}" + (f", dilation {tuple(dilation)}"
                                                                          if set(dilation) != {1} else ""),
                [f"the kernel spans {span(k, d)}, the padded input has {size + sum(pad)}",
                 f"spatial size {shape_text(tuple(sizes))}"],
                attempt="a smaller kernel, more padding, or a larger input"))
    return result


def source(o: Sequence[Any], k: Sequence[Any], stride: Sequence[int], padding: Pairs,
           dilation: Sequence[int]) -> tuple:
    """The input position that window o reads for kernel position k; it may lie in the padding."""
    return tuple(a * s + b * d - before for a, b, s, (before, _), d in zip(o, k, stride, padding, dilation))


def inside(position: Sequence[Any], sizes: Sequence[Any]) -> E:
    """The condition that a position lies in the array."""
    return ir.both(*(test for p, n in zip(position, sizes) for test in (ir.compare("ge", p, 0),
                                                                        ir.compare("lt", p, n))))


def taps(operation: str, extents: Sequence[Any], body: Callable[..., E]) -> E:
    """`ir.fold` over extents of which many are 1: those have no loop."""
    def filled(*ks: Any) -> E:
        rest = iter(ks)
        return body(*(0 if is_one(n) else next(rest) for n in extents))
    return ir.fold(operation, [n for n in extents if not is_one(n)], filled)


Reader = Callable[[Sequence[Any]], tuple[tuple, tuple, E]]


def readers(q: Sequence[Any], kernel: Sequence[Any], windows: Sequence[Any], stride: Sequence[int],
            padding: Pairs, dilation: Sequence[int]) -> tuple[list, Reader]:
    """Which windows read input position q: how many may, per axis, and a function of j that gives the j-th.

    It returns the window, the kernel position it reads q as, and the condition that there is such a window.
    """
    counts = [poly.ceildiv(n, s) if d == 1 else n for n, s, d in zip(kernel, stride, dilation)]

    def reader(j: Sequence[Any]) -> tuple[tuple, tuple, E]:
        found, places, tests = [], [], []
        for a, b, size, n, s, (before, _), d in zip(q, j, kernel, windows, stride, padding, dilation):
            if d == 1:
                # positions s apart are read by one window after another, so none but these is tried
                o, k = poly.floordiv(a + before, s) - b, poly.mod(a + before, s) + b * s
                tests += [ir.compare("lt", k, size), ir.compare("ge", o, 0)]
            else:
                start = a + before - b * d
                o, k = poly.floordiv(start, s), b
                tests += [ir.compare("eq", poly.mod(start, s), 0), ir.compare("ge", start, 0)]
            tests.append(ir.compare("lt", o, n))
            found.append(o)
            places.append(k)
        return tuple(found), tuple(places), ir.both(*tests)
    return counts, reader


# ------------------------------------------------------------------------------------------ in NumPy
def padded(x: np.ndarray, padding: Pairs, value: Any = 0) -> np.ndarray:
    """x with its last axes padded."""
    return np.pad(x, [(0, 0)] * (x.ndim - len(padding)) + list(padding), constant_values=value)


def windows_of(x: np.ndarray, kernel: Sequence[int], stride: Sequence[int],
               dilation: Sequence[int]) -> np.ndarray:
    """A view (*lead, *windows, *kernel) of x, which is padded already."""
    n = len(kernel)
    spans = [span(k, d) for k, d in zip(kernel, dilation)]
    view = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(x.ndim - n, x.ndim)))
    return view[(..., *(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation))]


def strided(k: Sequence[int], windows: Sequence[int], stride: Sequence[int],
            dilation: Sequence[int]) -> tuple:
    """The slices of a padded array that all windows read for kernel position k."""
    return (..., *(slice(j * d, j * d + (n - 1) * s + 1 if n else 0, s)
                   for j, n, s, d in zip(k, windows, stride, dilation)))
