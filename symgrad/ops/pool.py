"""Pooling over the last one, two or three axes; whatever comes before them is left alone.

Attributes of the rows: kernel_size, stride, dilation (ints per axis), padding (pairs per axis), ceil_mode;
the average also has count_include_pad. max_pool_grad and max_pool_pick are adjoints of each other, and so are
avg_pool and avg_pool_grad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.block import block
from ..graph.node import Node, make
from ..graph.types import Type, shape_text
from ..loops import ir
from ..loops.ir import E, View
from . import reduce
from .elementwise import INTS, absolute, power
from .resample import along, averaging_matrix
from .row import STOP, Row, as_tensor, cast, sample
from .shape import as_shape, flatten
from .windows import (
    Pairs,
    inside,
    output_size,
    output_sizes,
    padded,
    pairs,
    per_axis,
    readers,
    source,
    span,
    taps,
    windows_of,
)


def _attributes(n: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
                ceil_mode: bool) -> dict[str, Any]:
    """The attributes in their one spelling; the stride defaults to the kernel size."""
    kernel = per_axis(kernel_size, n, "kernel_size")
    facts = {"kernel_size": kernel, "stride": kernel if stride is None else per_axis(stride, n, "stride"),
             "padding": pairs(padding, n),
             "dilation": per_axis(dilation, n, "dilation"), "ceil_mode": bool(ceil_mode)}
    if any(p > span(k, d) // 2 for k, d, both in zip(kernel, facts["dilation"], facts["padding"])
           for p in both):
        raise ShapeError(four_parts(f"padding={padding!r} for a pooling kernel of {kernel}",
                                    "more than half of the kernel: windows of padding only",
                                    show(user_line()), "pad x with T.pad"))
    return facts


def _pooled(what: str, x: Type, rank: int, kernel_size: tuple, stride: tuple, padding: Pairs, dilation: tuple,
            ceil_mode: bool) -> tuple:
    if x.ndim < rank:
        raise ShapeError(four_parts(f"{what} over the last {rank} axes", f"shape {shape_text(x.dims)}",
                                    attempt="x of shape (n, c, *spatial)"))
    return (*x.dims[:-rank], *output_sizes(what, x.dims[-rank:], kernel_size, stride, padding, dilation,
                                           ceil_mode))


class _Pool(Row):
    """What the pooling rows share."""

    rank = 0

    def split(self, i: Sequence[Any], kernel_size: tuple) -> tuple[tuple, tuple]:
        """Leading and spatial parts of an index or of dims."""
        n = len(i) - len(kernel_size)
        return tuple(i[:n]), tuple(i[n:])


def _windows(x: np.ndarray, kernel_size: tuple, stride: tuple, padding: Pairs, dilation: tuple,
             ceil_mode: bool, fill: Any) -> np.ndarray:
    """(*lead, *windows, *kernel) of x padded with `fill`, at the end also as far as ceil_mode reaches."""
    sizes = x.shape[x.ndim - len(kernel_size):]
    counts = [output_size(*facts, ceil_mode) for facts in zip(sizes, kernel_size, stride, padding, dilation)]
    reach = [(n - 1) * s + span(k, d) for n, s, k, d in zip(counts, stride, kernel_size, dilation)]
    ends = tuple((before, max(after, r - before - size))
                 for (before, after), r, size in zip(padding, reach, sizes))
    view = windows_of(padded(x, ends, fill), kernel_size, stride, dilation)
    lead = x.ndim - len(kernel_size)
    return view[(*(slice(None),) * lead, *(slice(n) for n in counts))]


# ---------------------------------------------------------------------------------------------- maximum
def _matches(x: E, y: E) -> E:
    """x is the maximum y of its window; a NaN is the maximum of every window it is in."""
    equal = ir.call("eq", x, y)
    return equal | (ir.call("isnan", x) & ir.call("isnan", y)) if dtypes.is_float(x.dtype) else equal


class _Picking(_Pool):
    """Rows that find the first maximum of a window again, in row-major order, from x and the pooled y."""

    public = False

    def is_pick(self, x: View, y: View, lead: tuple, o: tuple, k: tuple, place: tuple, kernel_size: tuple,
                stride: tuple, padding: Pairs, dilation: tuple) -> E:
        """Whether window o has its first maximum at kernel position k, which is `place` in x."""
        sizes = x.dims[len(lead):]
        found = y[(*lead, *o)]

        def before(*j: Any) -> E:
            q = source(o, j, stride, padding, dilation)
            test = ir.both(ir.compare("lt", flatten(j, kernel_size), flatten(k, kernel_size)),
                           inside(q, sizes))
            return ir.cond(test, _matches(x[(*lead, *q)], found), ir.literal(False, "bool"))
        here = _matches(x[(*lead, *place)], found)
        return ir.cond(here, ~taps("logor", kernel_size, before), ir.literal(False, "bool"))

    def picks(self, x: np.ndarray, y: np.ndarray, kernel_size: tuple, stride: tuple, padding: Pairs,
              dilation: tuple,
              ceil_mode: bool) -> tuple[np.ndarray, np.ndarray]:
        """The flat spatial position of each window's first maximum, and whether it has one."""
        n = len(kernel_size)
        facts = (kernel_size, stride, padding, dilation, ceil_mode)
        sizes = x.shape[x.ndim - n:]
        flat = np.broadcast_to(np.arange(math.prod(sizes)).reshape(sizes), x.shape)
        places = _windows(flat, *facts, -1).reshape(*y.shape, math.prod(kernel_size))
        values = _windows(x, *facts, 0).reshape(*y.shape, math.prod(kernel_size))
        target = y[..., None]
        match = (places >= 0) & ((values == target) | ((values != values) & (target != target)))
        first = match.argmax(axis=-1)[..., None]
        return np.take_along_axis(places, first, -1)[..., 0], match.any(axis=-1)


class MaxPoolGrad(_Picking):
    """The cotangent of x from that of the pooled y: each window gives its own to its first maximum."""

    def infer(self, x: Type, y: Type, g: Type, **attrs: Any) -> Type:
        return Type(g.dtype, x.dims)

    def at(self, i, x, y, g, *, kernel_size, stride, padding, dilation, ceil_mode):
        lead, q = self.split(i, kernel_size)
        zero = ir.literal(0, g.dtype)

        counts, reader = readers(q, kernel_size, y.dims[len(lead):], stride, padding, dilation)

        def term(*j: Any) -> E:
            o, k, there = reader(j)
            pick = self.is_pick(x, y, lead, o, k, q, kernel_size, stride, padding, dilation)
            return ir.cond(there, ir.cond(pick, g[(*lead, *o)], zero), zero)
        return taps("add", counts, term)

    def numpy(self, x, y, g, **attrs):
        n = len(attrs["kernel_size"])
        lead = x.shape[:x.ndim - n]
        place, found = self.picks(x, y, **attrs)
        out = np.zeros((math.prod(lead), math.prod(x.shape[x.ndim - n:])), dtype=g.dtype)
        rows = np.broadcast_to(np.arange(len(out)).reshape(*lead, *(1,) * n), y.shape)
        np.add.at(out, (rows[found], place[found]), g[found])
        return out.reshape(x.shape)

    def vjp(self, g, out, x, y, gy, **attrs):
        return STOP, STOP, make(max_pool_pick, [x, y, g], **attrs)


class MaxPoolPick(_Picking):
    """The values of h, which is like x, where x has the first maximum of each window."""

    def infer(self, x: Type, y: Type, h: Type, **attrs: Any) -> Type:
        return Type(h.dtype, y.dims)

    def at(self, i, x, y, h, *, kernel_size, stride, padding, dilation, ceil_mode):
        lead, o = self.split(i, kernel_size)
        zero = ir.literal(0, h.dtype)

        def term(*k: Any) -> E:
            q = source(o, k, stride, padding, dilation)
            pick = self.is_pick(x, y, lead, o, k, q, kernel_size, stride, padding, dilation)
            return ir.cond(inside(q, x.dims[len(lead):]), ir.cond(pick, h[(*lead, *q)], zero), zero)
        return taps("add", kernel_size, term)

    def numpy(self, x, y, h, **attrs):
        n = len(attrs["kernel_size"])
        place, found = self.picks(x, y, **attrs)
        lead = x.ndim - n
        flat = h.reshape(*h.shape[:lead], math.prod(h.shape[lead:]))
        places = np.where(found, place, 0).reshape(*y.shape[:lead], math.prod(y.shape[lead:]))
        picked = np.take_along_axis(flat, places,
                                    -1).reshape(y.shape) if flat.size else np.zeros(y.shape, h.dtype)
        return np.where(found, picked, h.dtype.type(0))

    def vjp(self, g, out, x, y, h, **attrs):
        return STOP, STOP, make(max_pool_grad, [x, y, g], **attrs)


class MaxPool(_Pool):
    """The maximum of each window over the last axes, as in torch.nn.functional; padding never wins.

    kernel_size, stride (default: kernel_size), dilation: an int or one per axis. padding: also pairs, at most
    half the kernel. The gradient goes to the first maximum in row-major order. A window with a NaN gives NaN.
    """

    def __init__(self, rank: int):
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "samples", _pool_samples(rank, dilation=(1,) * rank))
        super().__init__(f"max_pool{rank}d")

    def infer(self, x: Type, **attrs: Any) -> Type:
        return Type(x.dtype, _pooled(self.name, x, self.rank, **attrs))

    def at(self, i: tuple, x: View, *, kernel_size: tuple, stride: tuple, padding: Pairs, dilation: tuple,
           ceil_mode: bool) -> E:
        lead, o = self.split(i, kernel_size)
        lowest = ir.literal(ir.IDENTITY["maximum"](x.dtype), x.dtype)

        def term(*k: Any) -> E:
            q = source(o, k, stride, padding, dilation)
            return ir.cond(inside(q, x.dims[len(lead):]), x[(*lead, *q)], lowest)
        return taps("maximum", kernel_size, term)

    def numpy(self, x, **attrs):
        view = _windows(x, *_in_order(attrs), ir.IDENTITY["maximum"](x.dtype.name))
        return np.ascontiguousarray(view.max(axis=tuple(range(-self.rank, 0))))

    def vjp(self, g, y, x, **attrs):
        return (make(max_pool_grad, [x, y, g], **attrs),)

    def __call__(self, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        return make(self, [as_tensor(x)], **_attributes(self.rank, kernel_size, stride, padding, dilation,
                                                        ceil_mode))


def _in_order(attrs: dict[str, Any]) -> tuple:
    return tuple(attrs[k] for k in ("kernel_size", "stride", "padding", "dilation", "ceil_mode"))


def _pool_samples(rank: int, **more: Any) -> list:
    def case(shape, kernel, stride, padding, ceil_mode=False, dilation=None, **kwargs):
        facts = {"kernel_size": (kernel,) * rank, "stride": (stride,) * rank, "padding": (padding,) * rank,
                 "ceil_mode": ceil_mode, **more}
        if dilation and "dilation" in more:
            facts["dilation"] = (dilation,) * rank
        return sample(shape if kwargs else _distinct(shape), **facts, **kwargs)
    s = (5, 6, 4)[:rank]
    cases = [case((2, 3, *s), 2, 2, (0, 0)), case((1, 2, *s), 3, 2, (1, 1)),
             case((2, *s), 3, 1, (0, 1), dilation=2), case((2, *s), 3, 2, (0, 0), True),
             case((0, 2, *s), 2, 2, (0, 0)), case((1, 1, *(1,) * rank), 1, 1, (0, 0))]
    if "dilation" in more:
        cases.append(case((2, 3, *s), 2, 1, (1, 0), dtypes=INTS, low=-9, high=9, grad=False))
    return cases


def _distinct(shape: tuple) -> np.ndarray:
    """Values in [-2, 2) no two of which are close, so that a small change moves no maximum."""
    count = math.prod(shape)
    step = next(k for k in range(int(0.618 * count), count + 2) if math.gcd(k, count) == 1)      # walks over all of them, in no visible order
    return (np.arange(count) * step % max(count, 1) * (4 / max(count, 1)) - 2).reshape(shape)


def _picking_samples(like: str) -> list:
    """x with ties and a NaN, its pooled y, and g shaped like y or like x."""
    cases = []
    for shape, k, s, p, d in [((2, 5), 2, 1, (1, 0), 1), ((1, 2, 4, 5), 3, 2, (1, 1), 1),
                              ((2, 5, 4), 2, 1, (0, 1), 2)]:
        rank = 1 if len(shape) == 2 else 2
        attrs = {"kernel_size": (k,) * rank, "stride": (s,) * rank, "padding": (p,) * rank,
                 "dilation": (d,) * rank, "ceil_mode": False}
        x = (np.arange(math.prod(shape)) * 7 % 5).astype("float64").reshape(shape)
        x[(0,) * len(shape)] = math.nan
        y = _windows(x, *_in_order(attrs), -math.inf).max(axis=tuple(range(-rank, 0)))
        cases.append(sample(x, y, y.shape if like == "y" else shape, dtypes=("float64",), grad=False,
                            **attrs))
    return cases


max_pool1d, max_pool2d, max_pool3d = (MaxPool(rank) for rank in (1, 2, 3))
max_pool_grad, max_pool_pick = MaxPoolGrad("max_pool_grad"), MaxPoolPick("max_pool_pick")
for _row, _like in ((max_pool_grad, "y"), (max_pool_pick, "x")):
    object.__setattr__(_row, "samples", _picking_samples(_like))


# ---------------------------------------------------------------------------------------------- average
def _divisor(o: Sequence[Any], sizes: Sequence[Any], kernel_size: tuple, stride: tuple, padding: Pairs,
             ceil_mode: bool, count_include_pad: bool, dtype: str) -> E:
    """How many elements window o averages, as torch counts: not what lies beyond the padding."""
    count: Any = 1
    for a, n, k, s, (before, after) in zip(o, sizes, kernel_size, stride, padding):
        start = a * s - before
        end = poly.minimum(start + k, n + after) if ceil_mode else start + k
        if not count_include_pad:
            start, end = poly.maximum(start, 0), poly.minimum(end, n)
        count = count * (end - start)
    return ir.cast(ir.index(count), dtype)


class AvgPool(_Pool):
    """The average of each window over the last axes, as in torch.nn.functional.

    kernel_size, stride (default: kernel_size): an int or one per axis. padding: also pairs, at most half the
    kernel; it counts as zeros unless count_include_pad is False. Integers give floats.
    """

    def __init__(self, rank: int):
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "samples", _pool_samples(rank, count_include_pad=True)
                           + _pool_samples(rank, count_include_pad=False)[1:4])
        super().__init__(f"avg_pool{rank}d")

    def infer(self, x: Type, *, kernel_size: tuple, stride: tuple, padding: Pairs, ceil_mode: bool,
              count_include_pad: bool) -> Type:
        return Type(x.dtype, _pooled(self.name, x, self.rank, kernel_size, stride, padding, (1,) * self.rank,
                                     ceil_mode))

    def at(self, i: tuple, x: View, *, kernel_size: tuple, stride: tuple, padding: Pairs, ceil_mode: bool,
           count_include_pad: bool) -> E:
        lead, o = self.split(i, kernel_size)
        sizes = x.dims[len(lead):]

        def term(*k: Any) -> E:
            q = source(o, k, stride, padding, (1,) * self.rank)
            return ir.cond(inside(q, sizes), x[(*lead, *q)], ir.literal(0, x.dtype))
        count = _divisor(o, sizes, kernel_size, stride, padding, ceil_mode, count_include_pad, x.dtype)
        return taps("add", kernel_size, term) / count

    def numpy(self, x, *, kernel_size, stride, padding, ceil_mode, count_include_pad):
        axes = tuple(range(-self.rank, 0))
        total = _windows(x, kernel_size, stride, padding, (1,) * self.rank, ceil_mode,
                         0).sum(axis=axes, dtype=x.dtype)
        return total / _window_counts(x.shape[-self.rank:], kernel_size, stride, padding, ceil_mode,
                                      count_include_pad).astype(x.dtype)

    def vjp(self, g, y, x, **attrs):
        return (make(avg_pool_grad, [g], shape=x.dims, **attrs),)

    def __call__(self, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        x = as_tensor(x)
        attrs = _attributes(self.rank, kernel_size, stride, padding, 1, ceil_mode)
        del attrs["dilation"]
        return make(self, [cast(x, dtypes.as_float(x.dtype))], **attrs,
                    count_include_pad=bool(count_include_pad))


def _window_counts(sizes: tuple, kernel_size: tuple, stride: tuple, padding: Pairs, ceil_mode: bool,
                   count_include_pad: bool) -> np.ndarray:
    """In NumPy: how many elements each window averages."""
    total = np.ones(())
    for n, k, s, (before, after) in zip(sizes, kernel_size, stride, padding):
        starts = np.arange(output_size(n, k, s, (before, after), 1, ceil_mode)) * s - before
        ends = np.minimum(starts + k, n + after)
        if not count_include_pad:
            starts, ends = np.maximum(starts, 0), np.minimum(ends, n)
        total = np.multiply.outer(total, ends - starts)
    return total


class AvgPoolGrad(_Pool):
    """The adjoint of the average, to `shape`: each window spreads its value evenly over what it averaged."""

    public = False
    samples = [sample((2, 2, 3), shape=(2, 5, 6), kernel_size=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)),
                      ceil_mode=False, count_include_pad=True),
               sample((2, 3), shape=(2, 5), kernel_size=(3,), stride=(2,), padding=((1, 1),), ceil_mode=False,
                      count_include_pad=False),
               sample((3, 3), shape=(6, 6), kernel_size=(3, 3), stride=(2, 2), padding=((0, 0), (0, 0)),
                      ceil_mode=True, count_include_pad=True)]

    def infer(self, g: Type, *, shape: tuple, **attrs: Any) -> Type:
        return Type(g.dtype, shape)

    def at(self, i: tuple, g: View, *, shape: tuple, kernel_size: tuple, stride: tuple, padding: Pairs,
           ceil_mode: bool, count_include_pad: bool) -> E:
        lead, q = self.split(i, kernel_size)

        counts, reader = readers(q, kernel_size, g.dims[len(lead):], stride, padding, (1,) * len(kernel_size))
        alike = count_include_pad and not ceil_mode             # then the sum is divided, not its terms

        def term(*j: Any) -> E:
            o, _, there = reader(j)
            count = _divisor(o, shape[len(lead):], kernel_size, stride, padding, ceil_mode, count_include_pad,
                             g.dtype)
            value = g[(*lead, *o)]
            return ir.cond(there, value if alike else value / count, ir.literal(0, g.dtype))
        total = taps("add", counts, term)
        return total / ir.literal(math.prod(kernel_size), g.dtype) if alike else total

    def numpy(self, g, *, shape, kernel_size, stride, padding, ceil_mode, count_include_pad):
        n = len(kernel_size)
        sizes = shape[len(shape) - n:]
        counts = _window_counts(sizes, kernel_size, stride, padding, ceil_mode, count_include_pad)
        share = g / counts.astype(g.dtype)
        out = np.zeros(shape, dtype=g.dtype)
        for o in np.ndindex(*counts.shape):
            starts = [a * s - before for a, s, (before, _) in zip(o, stride, padding)]
            window = tuple(slice(max(a, 0), max(a + k, 0)) for a, k in zip(starts, kernel_size))
            out[(..., *window)] += share[(..., *o)][(..., *(None,) * n)]
        return out

    def vjp(self, g, y, gy, *, shape, **attrs):
        return (make(AVERAGES[len(attrs["kernel_size"])], [g], **attrs),)

    def __call__(self, g, *, shape, **attrs):
        return make(self, [as_tensor(g)], shape=as_shape(shape), **attrs)


avg_pool1d, avg_pool2d, avg_pool3d = (AvgPool(rank) for rank in (1, 2, 3))
AVERAGES = {row.rank: row for row in (avg_pool1d, avg_pool2d, avg_pool3d)}
MAXIMA = {row.rank: row for row in (max_pool1d, max_pool2d, max_pool3d)}
avg_pool_grad = AvgPoolGrad("avg_pool_grad")


# --------------------------------------------------------------------------------- global and adaptive
def _spatial(x: Node, what: str) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ShapeError(four_parts(f"{what} of x (n, c, *spatial)", shape_text(x.dims), show(user_line()),
                                    "at least three axes"))
    return tuple(range(2, x.ndim))


@block
def global_avg_pool(x, keepdims=False):
    """The mean over all axes behind the channels: (n, c, *s) gives (n, c); keepdims leaves axes of 1."""
    x = as_tensor(x)
    x = cast(x, dtypes.as_float(x.dtype))
    axes = _spatial(x, "global_avg_pool")
    return reduce.mean(x, axis=axes, keepdims=keepdims)


@block
def global_max_pool(x, keepdims=False):
    """The maximum over all axes behind the channels: (n, c, *s) gives (n, c); keepdims leaves axes of 1."""
    x = as_tensor(x)
    return reduce.max(x, axis=_spatial(x, "global_max_pool"), keepdims=keepdims)


def _output_sizes(x: Node, output_size: Any, rank: int, what: str) -> tuple:
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    if len(wanted) != rank or x.ndim < rank:
        raise ShapeError(four_parts(f"{what} to {output_size!r}", f"x {shape_text(x.dims)}",
                                    show(user_line()), f"an int or {rank} ints"))
    sizes = tuple(d if w is None else w for w, d in zip(wanted, x.dims[x.ndim - rank:]))
    return per_axis(sizes, rank, "output_size") if all(isinstance(s, int) for s in sizes) else sizes


def _adaptive(x: Any, output_size: Any, rank: int, what: str, rows: dict[int, Any],
              general: Callable) -> Node:
    x = as_tensor(x)
    sizes = x.dims[x.ndim - rank:]
    wanted = _output_sizes(x, output_size, rank, what)
    if all(isinstance(w, int) and isinstance(d, int) and d % w == 0 for w, d in zip(wanted, sizes)):
        return rows[rank](x, tuple(d // w for w, d in zip(wanted, sizes)))
    return general(x, wanted, rank, what)


def _averages(x: Node, wanted: tuple, rank: int, what: str) -> Node:
    """Windows of different sizes: one product with a matrix of averages per axis."""
    x = cast(x, dtypes.as_float(x.dtype))
    axes = tuple(range(x.ndim - rank, x.ndim))
    if all(isinstance(w, int) and w == 1 for w in wanted):
        return reduce.mean(x, axis=axes, keepdims=True)
    for axis, w in zip(axes, wanted):
        size = x.dims[axis]
        if not isinstance(size, int) or not isinstance(w, int):
            raise ShapeError(four_parts(f"{what} to {wanted}", f"x {shape_text(x.dims)}", show(user_line()),
                                        "known spatial sizes, or output size 1"))
        x = along(x, averaging_matrix(size, w), axis)
    return x


def _largest(x: Node, wanted: tuple, rank: int, what: str) -> Node:
    if all(isinstance(w, int) and w == 1 for w in wanted):
        return reduce.max(x, axis=tuple(range(x.ndim - rank, x.ndim)), keepdims=True)
    raise ShapeError(four_parts(f"{what} to {wanted}", f"x {shape_text(x.dims)}", show(user_line()),
                                "output sizes that divide known input sizes, or 1"))


@block
def adaptive_avg_pool1d(x, output_size):
    """torch's adaptive_avg_pool1d: the average of `output_size` nearly equal windows of the last axis."""
    return _adaptive(x, output_size, 1, "adaptive_avg_pool1d", AVERAGES, _averages)


@block
def adaptive_avg_pool2d(x, output_size):
    """torch's adaptive_avg_pool2d: averages of `output_size` about equal windows per axis; None keeps it."""
    return _adaptive(x, output_size, 2, "adaptive_avg_pool2d", AVERAGES, _averages)


@block
def adaptive_avg_pool3d(x, output_size):
    """torch's adaptive_avg_pool3d, over the last three axes."""
    return _adaptive(x, output_size, 3, "adaptive_avg_pool3d", AVERAGES, _averages)


@block
def adaptive_max_pool1d(x, output_size):
    """torch's adaptive_max_pool1d, for output sizes that divide the input size."""
    return _adaptive(x, output_size, 1, "adaptive_max_pool1d", MAXIMA, _largest)


@block
def adaptive_max_pool2d(x, output_size):
    """torch's adaptive_max_pool2d, for output sizes that divide the input sizes."""
    return _adaptive(x, output_size, 2, "adaptive_max_pool2d", MAXIMA, _largest)


@block
def adaptive_max_pool3d(x, output_size):
    """torch's adaptive_max_pool3d, for output sizes that divide the input sizes."""
    return _adaptive(x, output_size, 3, "adaptive_max_pool3d", MAXIMA, _largest)


@block
def lp_pool1d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    """torch's lp_pool1d: the p-norm of each window of the last axis."""
    return _lp_pool(x, norm_type, kernel_size, stride, ceil_mode, 1)


@block
def lp_pool2d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    """torch's lp_pool2d: the p-norm of each window of the last two axes."""
    return _lp_pool(x, norm_type, kernel_size, stride, ceil_mode, 2)


@block
def lp_pool3d(x, norm_type, kernel_size, stride=None, ceil_mode=False):
    """torch's lp_pool3d: the p-norm of each window of the last three axes."""
    return _lp_pool(x, norm_type, kernel_size, stride, ceil_mode, 3)


def _lp_pool(x: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool, rank: int) -> Node:
    kernel = per_axis(kernel_size, rank, "kernel_size")
    mean = AVERAGES[rank](power(absolute(x), norm_type), kernel, stride, ceil_mode=ceil_mode)
    return power(mean * math.prod(kernel), 1 / norm_type)


__all__ = ["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
           "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
           "global_avg_pool", "global_max_pool", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d",
           "max_pool2d",
           "max_pool3d"]
