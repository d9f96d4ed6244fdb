"""Order along an axis: sorting and what follows from it; running sums and products.

Sorting is by rank: the place of an element is the number of elements before it, so each one finds its place
by itself. The order is stable and NaN comes last. Backends that can do better sort in their kernel of `rank`.
Running sums of a long axis are taken in blocks, then over the blocks.
"""

from __future__ import annotations

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
from .arrange import pad_constant, stack
from .elementwise import ANY, ceil, equal, floor, isnan, less, less_equal, number, where
from .index import take_along_axis
from .partition import inverse_permutation
from .reduce import _wide
from .reduce import any as any_
from .reduce import sum as sum_
from .row import STOP, Row, as_tensor, cast, normalize_axis, promoted, sample
from .shape import as_size, expand_dims, reshape, shape_tuple, slice_axis


def _with(i: tuple, axis: int, k: Any) -> tuple:
    return (*i[:axis], k, *i[axis + 1 :])


def before(a: E, b: E, descending: bool) -> E:
    """Whether a stands strictly before b, NaN being larger than every number."""
    if not dtypes.is_float(a.dtype):
        return ir.call("gt" if descending else "lt", a, b)
    # a comparison with NaN is false, so "not b <= a" also holds where b is NaN
    larger, smaller = (a, b) if descending else (b, a)
    return ~ir.call("le", larger, smaller) & ~ir.call("isnan", smaller)


_ties = np.array([[2.0, 1.0, 2.0, np.nan, -1.0, 1.0], [0.0, -0.0, np.inf, np.nan, np.nan, -np.inf]])


class Rank(Row):
    """The place of each element in the sorted order along an axis, as int64; equal elements keep their order.

    Attributes: axis, descending.
    """

    public = False
    samples = [
        sample((3, 5), axis=1, descending=False, grad=False),
        sample((5, 2), axis=0, descending=True, grad=False),
        sample(_ties, axis=1, descending=False, grad=False),
        sample(_ties, axis=1, descending=True, grad=False),
        sample((0,), axis=0, descending=False, grad=False),
        sample((2, 6), dtypes=(*ANY, "bool"), low=0, high=2, axis=1, descending=False, grad=False),
    ]

    def infer(self, x: Type, *, axis: int, descending: bool) -> Type:
        return x.with_dtype("int64")

    def at(self, i: tuple, x: View, *, axis: int, descending: bool) -> E:
        mine = x[i]
        # counted in integers as wide as the elements, so that the loop vectorises
        counter = "int64" if dtypes.itemsize(x.dtype) == 8 else "int32"

        def ahead(k: Any) -> E:
            other = x[_with(i, axis, k)]
            earlier = ~before(mine, other, descending)
            return ir.cast(
                ir.select(ir.compare("lt", k, i[axis]), earlier, before(other, mine, descending)), counter
            )

        return ir.cast(ir.fold("add", [x.dims[axis]], ahead), "int64")

    def numpy(self, x, *, axis, descending):
        return np.argsort(_stable_order(x, axis, descending), axis=axis, kind="stable")

    def vjp(self, g, y, x, **attrs):
        return (STOP,)

    def __call__(self, x, axis, descending=False):
        return make(self, [as_tensor(x)], axis=axis, descending=descending)


def _stable_order(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    backward = np.argsort(
        np.flip(x, axis), axis=axis, kind="stable"
    )  # reversed twice, so equal elements keep their order
    return np.flip(x.shape[axis] - 1 - backward, axis)


rank = Rank("rank")


def _order(x: Node, axis: int, descending: bool, size: Any = None) -> Node:
    """The int64 indices of the first `size` (all by default) elements along an axis in sorted order."""
    return inverse_permutation(rank(x, axis, descending), axis, size)


def _on_axis(x: Any, axis: Any, what: str) -> tuple[Node, int]:
    x = as_tensor(x)
    return (reshape(x, -1), 0) if axis is None else (x, normalize_axis(axis, x.ndim, what))


def argsort(x, axis=-1, *, descending=False):
    """The int64 indices that sort x along an axis (of the flattened x for None).

    Stable; NaN last, or first when descending.
    """
    x, axis = _on_axis(x, axis, "argsort")
    return _order(x, axis, bool(descending))


class Ordered(Row):
    """x at a permutation along an axis: its adjoint reads at the inverse permutation instead of adding up.

    Inputs: x, the permutation (int64). Attribute: axis.
    """

    public = False
    samples = [sample((2, 3), np.array([[1, 2, 0], [0, 2, 1]]), axis=1)]

    def infer(self, x: Type, order: Type, *, axis: int) -> Type:
        return x

    def at(self, i: tuple, x: View, order: View, *, axis: int) -> E:
        return take_along_axis.at(i, x, order, axis=axis)

    def numpy(self, x, order, *, axis):
        return np.take_along_axis(x, order, axis)

    def vjp(self, g, y, x, order, *, axis):
        return self(g, inverse_permutation(order, axis), axis), STOP

    def __call__(self, x, order, axis):
        return make(self, [as_tensor(x), as_tensor(order)], axis=axis)


ordered = Ordered("ordered")


def sort(x, axis=-1, *, descending=False):
    """x sorted along an axis (flattened first for None).

    NaN last, or first when descending; equal elements keep their order.
    """
    x, axis = _on_axis(x, axis, "sort")
    return ordered(x, _order(x, axis, bool(descending)), axis)


def topk(x, k, axis=-1, largest=True, sorted=True):
    """(values, indices) of the k largest (smallest) elements along an axis, in order.

    Of equal elements the first is taken. NaN counts as largest.

    The results are always sorted, so `sorted` changes nothing.
    """
    x, axis = _on_axis(x, axis, "topk")
    k = as_size(k, "topk")
    if not isinstance(k, int) or k < 0 or (isinstance(x.dims[axis], int) and k > x.dims[axis]):
        raise ShapeError(
            four_parts(
                f"topk with k={k}",
                f"size {x.dims[axis]} on axis {axis} of {shape_text(x.dims)}",
                show(user_line()),
                "an int from 0 to the size of the axis",
            )
        )
    indices = _order(x, axis, bool(largest), k)
    return take_along_axis(x, indices, axis), indices


def median(x, axis=None, keepdims=False):
    """The middle element along an axis (of all elements by default), or the mean of the two middle ones."""
    return quantile(x, 0.5, axis, keepdims)


def quantile(x, q, axis=None, keepdims=False):
    """The value below which the fraction q of the elements lies; a list of fractions gives a new first axis.

    Linear between neighbours, as numpy.quantile; NaN where an element is NaN.
    """
    x = as_tensor(x)
    whole, ndim = axis is None, x.ndim
    x = x if dtypes.is_float(x.dtype) else cast(x, "float64")
    values, axis = _on_axis(x, axis, "quantile")
    if isinstance(q, (list, tuple, np.ndarray)) and np.ndim(q):
        parts = [quantile(x, float(f), None if whole else axis, keepdims) for f in np.asarray(q).ravel()]
        return reshape(stack(parts), (*np.shape(q), *parts[0].dims))
    if isinstance(q, Node) or not 0 <= float(q) <= 1:
        raise ShapeError(four_parts(f"quantile {q}", "a fraction is a number from 0 to 1", show(user_line())))
    result = _interpolated(sort(values, axis), float(q), axis)
    result = where(any_(isnan(values), axis, True), number(np.nan, x), result)
    kept = (1,) * ndim if whole else result.dims
    return reshape(
        result, kept if keepdims else () if whole else tuple(d for k, d in enumerate(kept) if k != axis)
    )


def percentile(x, q, axis=None, keepdims=False):
    """`quantile` with q in percent."""
    return quantile(x, np.asarray(q, "float64") / 100, axis, keepdims)


def _interpolated(ranked: Node, q: float, axis: int) -> Node:
    """The element at q * (n - 1) of a sorted axis, kept at size 1, between neighbours linearly."""
    n = ranked.dims[axis]
    if isinstance(n, int):
        position = q * (n - 1)
        low = int(np.floor(position))
        below, above = (slice_axis(ranked, axis, min(k, n - 1), 1) for k in (low, low + 1))
        share = number(position - low, ranked)
    else:
        position = q * cast(shape_tuple(ranked)[axis] - 1, "float64")
        low = floor(position)
        ends = [expand_dims(cast(f, "int64"), tuple(range(ranked.ndim))) for f in (low, ceil(position))]
        below, above = (take_along_axis(ranked, k, axis) for k in ends)
        share = cast(position - low, ranked.dtype)
    return below + (above - below) * share


def searchsorted(a, v, side="left"):
    """The int64 places at which v would be put into the sorted vector a.

    They lie before equal elements, or after them for side="right".
    """
    a, v = promoted(a, v)
    if a.ndim != 1 or side not in ("left", "right"):
        raise ShapeError(
            four_parts(
                f"searchsorted with side={side!r}",
                f"a {shape_text(a.dims)}",
                show(user_line()),
                "a vector, and 'left' or 'right'",
            )
        )
    return sum_((less if side == "left" else less_equal)(a, expand_dims(v, -1)), -1)


# ---------------------------------------------------------------------------------- running sums
class Running(Row):
    """The sum or product of the elements up to each one along an axis.

    Attributes: axis, reverse (from each one on).
    """

    public = False
    operation = "add"
    samples = [
        sample((3, 4), axis=1, reverse=False),
        sample((3, 4), axis=0, reverse=True),
        sample((0,), axis=0, reverse=False),
        sample((1,), axis=0, reverse=False),
        sample((5,), dtypes=("int64", "uint64"), low=0, high=4, axis=0, reverse=False, grad=False),
    ]

    def infer(self, x: Type, *, axis: int, reverse: bool) -> Type:
        return x

    def at(self, i: tuple, x: View, *, axis: int, reverse: bool) -> E:
        neutral = ir.literal(ir.IDENTITY[self.operation](x.dtype), x.dtype)

        def term(k: Any) -> E:
            return ir.select(ir.compare("ge" if reverse else "le", k, i[axis]), x[_with(i, axis, k)], neutral)

        return ir.fold(self.operation, [x.dims[axis]], term)

    def numpy(self, x, *, axis, reverse):
        run = np.cumsum if self.operation == "add" else np.cumprod
        x = np.flip(x, axis) if reverse else x
        out = run(x, axis=axis, dtype=x.dtype)
        return np.ascontiguousarray(np.flip(out, axis) if reverse else out)

    def __call__(self, x, axis, reverse=False):
        return make(self, [as_tensor(x)], axis=axis, reverse=reverse)


class RunningSum(Running):
    """The sum of the elements up to each one."""

    def vjp(self, g, y, x, *, axis, reverse):
        return (self(g, axis, not reverse),)


class RunningProduct(Running):
    """The product of the elements up to each one.

    The gradient is exact at zeros, the second derivative is not there.
    """

    operation = "mul"

    def vjp(self, g, y, x, *, axis, reverse):
        # Up to the first zero d y_j / d x_i = y_j / x_i; at it, the products that step over it; behind it
        # nothing flows.
        zero, one = number(0, x), number(1, x)
        zeros = running_sum(cast(equal(x, zero), "int64"), axis, reverse)
        first = equal(x, zero) & equal(zeros, 1)
        over_it = self(where(first, one, x), axis, reverse)
        at_it = running_sum(g * over_it, axis, not reverse)
        before_it = running_sum(g * y, axis, not reverse) / where(equal(x, zero), one, x)
        return (where(first, at_it, where(equal(zeros, 0), before_it, zero)),)


running_sum, running_product = RunningSum("running_sum"), RunningProduct("running_product")
BLOCK = 64  # the size of the blocks in which a long axis is run through


def _run_through(row: Running, x: Node, axis: int, reverse: bool) -> Node:
    """row(x), in blocks when the axis is long or of unknown size.

    So the work per element stays about the size of a block.
    """
    n = x.dims[axis]
    if isinstance(n, int) and n <= 4 * BLOCK:
        return row(x, axis, reverse)
    blocks, neutral = poly.ceildiv(n, BLOCK), 0.0 if row.operation == "add" else 1.0

    def padded(v: Node, before: int, after: Any) -> Node:
        return pad_constant(
            v, tuple((before, after) if k == axis else (0, 0) for k in range(v.ndim)), neutral
        )

    parts = reshape(padded(x, 0, blocks * BLOCK - n), (*x.dims[:axis], blocks, BLOCK, *x.dims[axis + 1 :]))
    inner = row(parts, axis + 1, reverse)
    totals = reshape(slice_axis(inner, axis + 1, 0 if reverse else BLOCK - 1, 1), _with(x.dims, axis, blocks))
    whole = _run_through(row, totals, axis, reverse) if isinstance(n, int) else row(totals, axis, reverse)
    others = padded(whole, 0 if reverse else 1, 1 if reverse else 0)        # no block at all has no others either
    offset = expand_dims(slice_axis(others, axis, 1 if reverse else 0, blocks), axis + 1)
    out = inner + offset if row.operation == "add" else inner * offset
    return slice_axis(reshape(out, _with(x.dims, axis, blocks * BLOCK)), axis, 0, n)


@block
def cumsum(x, axis=None, dtype=None, *, reverse=False):
    """The sum of the elements up to each one along an axis (of the flattened x by default).

    With reverse, from each one on. Integers and bools are summed in 64 bits.
    """
    x, axis = _on_axis(x, axis, "cumsum")
    return _run_through(running_sum, _wide(x) if dtype is None else cast(x, dtype), axis, bool(reverse))


@block
def cumprod(x, axis=None, dtype=None, *, reverse=False):
    """The product of the elements up to each one along an axis (of the flattened x by default).

    With reverse, from each one on. The gradient is exact where x holds zeros, the second
    derivative is not there.
    """
    x, axis = _on_axis(x, axis, "cumprod")
    return _run_through(running_product, _wide(x) if dtype is None else cast(x, dtype), axis, bool(reverse))


__all__ = ["argsort", "cumprod", "cumsum", "median", "percentile", "quantile", "searchsorted", "sort", "topk"]
