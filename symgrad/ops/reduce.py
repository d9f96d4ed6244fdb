"""Reductions over axes.

Inside this module `sum`, `max`, `min`, `any` and `all` are the array functions, as in NumPy's namespace.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, make
from ..graph.types import Type, shape_text
from ..loops import ir
from ..loops.ir import E, View
from .elementwise import (
    INTS,
    absolute,
    equal,
    exp,
    isfinite,
    isnan,
    not_equal,
    number,
    power,
    sqrt,
    square,
    where,
)
from .row import STOP, Row, as_tensor, cast, normalize_axes, normalize_axis, promoted, sample
from .shape import broadcast_to, flatten, reshape, size_of

_shapes = [
    sample((3, 4), axis=(1,), keepdims=False),
    sample((2, 3, 4), axis=(0, 2), keepdims=True),
    sample((3, 4), axis=(0, 1), keepdims=False),
    sample((3, 1), axis=(1,), keepdims=False),
    sample((), axis=(), keepdims=False),
]
_empty = [sample((0, 3), axis=(0,), keepdims=False, grad=False), sample((0, 3), axis=(1,), keepdims=True)]


def reduced_dims(dims: tuple, axis: tuple[int, ...], keepdims: bool) -> tuple:
    """The sizes left when `axis` is reduced."""
    if keepdims:
        return tuple(1 if k in axis else d for k, d in enumerate(dims))
    return tuple(d for k, d in enumerate(dims) if k not in axis)


def kept(g: Node, x: Node, axis: tuple[int, ...]) -> Node:
    """g with the reduced axes of x put back at size 1."""
    return reshape(g, reduced_dims(x.dims, axis, True))


def full_index(i: tuple, ks: tuple, axis: tuple[int, ...], ndim: int, keepdims: bool) -> tuple:
    """The operand's index from the result's index and the reduced indices."""
    ks_left, rest = iter(ks), iter(i)
    out: list[Any] = []
    for k in range(ndim):
        if k in axis:
            out.append(next(ks_left))
            if keepdims:
                next(rest)
        else:
            out.append(next(rest))
    return tuple(out)


def over(
    operation: str,
    i: tuple,
    x: View,
    axis: tuple[int, ...],
    keepdims: bool,
    body: Callable[..., E] | None = None,
) -> E:
    """The fold over `axis` at the result's index i of body(element, *reduced indices), or of the element."""

    def at_reduced(*ks: Any) -> E:
        element = x[full_index(i, ks, axis, x.ndim, keepdims)]
        return element if body is None else body(element, *ks)

    return ir.fold(operation, [x.dims[a] for a in axis], at_reduced)


def count(x: Node, axis: tuple[int, ...]) -> Any:
    """Number of elements reduced: an int, or an int64 variable when it is only known at the call."""
    n = poly.product(x.dims[a] for a in axis)
    if isinstance(n, int):
        return n
    total: Any = 1
    for a in axis:
        total = total * (x.dims[a] if isinstance(x.dims[a], int) else make(size_of, [x], axis=a))
    return total


def _needs_elements(name: str, x: Type, axis: tuple[int, ...]) -> None:
    none = [a for a in axis if isinstance(x.dims[a], int) and not x.dims[a]]
    if none:
        raise ShapeError(
            four_parts(
                f"{name} over axis {none[0]}",
                f"no elements there in {shape_text(x.dims)}",
                attempt=f"an operand with elements: {name} of nothing has no value",
            )
        )


class Reduction(Row):
    """x folded over `axis` with an associative operation. Attributes: axis (sorted tuple), keepdims."""

    operation = "add"

    def infer(self, x: Type, *, axis: tuple, keepdims: bool) -> Type:
        return Type(x.dtype, reduced_dims(x.dims, axis, keepdims))

    def at(self, i: tuple, x: View, *, axis: tuple, keepdims: bool) -> E:
        return over(self.operation, i, x, axis, keepdims)

    def prepare(self, x: Node) -> Node:
        return x

    def __call__(self, x, axis=None, keepdims=False, dtype=None):
        x = as_tensor(x)
        x = self.prepare(x) if dtype is None else cast(x, dtype)
        return make(self, [x], axis=normalize_axes(axis, x.ndim, self.name), keepdims=bool(keepdims))


def _wide(x: Node) -> Node:
    """Small integers and bools are summed in 64 bits, as NumPy does."""
    if dtypes.is_float(x.dtype):
        return x
    return cast(x, "uint64" if x.dtype in dtypes.UNSIGNED else "int64")


def _floating(x: Any) -> Node:
    """x as floats: integers and bools become float64, as in numpy.mean."""
    x = as_tensor(x)
    return x if dtypes.is_float(x.dtype) else cast(x, "float64")


# ------------------------------------------------------------------------------------ sum, prod, mean
class Sum(Reduction):
    """The sum over `axis` (all axes by default). Integers and bools are summed in 64 bits."""

    samples = [
        *_shapes,
        *_empty,
        sample((3, 4), dtypes=("int64",), low=-5, high=5, axis=(1,), keepdims=False, grad=False),
    ]

    def prepare(self, x):
        return _wide(x)

    def numpy(self, x, *, axis, keepdims):
        return np.asarray(x.sum(axis=axis, keepdims=keepdims, dtype=x.dtype))

    def vjp(self, g, y, x, *, axis, keepdims):
        return (broadcast_to(kept(g, x, axis), x.dims),)


sum = Sum("sum")


class Prod(Reduction):
    """The product over `axis`. Integers and bools are multiplied in 64 bits.

    The gradient is exact where x holds zeros.
    """

    operation = "mul"
    samples = [
        *_shapes,
        *_empty,
        sample((3, 4), dtypes=("int64",), low=-3, high=3, axis=(1,), keepdims=False, grad=False),
    ]

    def prepare(self, x):
        return _wide(x)

    def numpy(self, x, *, axis, keepdims):
        return np.asarray(x.prod(axis=axis, keepdims=keepdims, dtype=x.dtype))

    def vjp(self, g, y, x, *, axis, keepdims):
        # the product of the others, element by element: p is the product of the nonzero ones, q the sum of
        # the zeros,
        # written so that the second derivative is right too
        zero, one = number(0, x), number(1, x)
        is_zero = equal(x, zero)
        safe = where(is_zero, one, x)
        p = prod(safe, axis, True)
        zeros = sum(is_zero, axis, True)
        q = sum(where(is_zero, x, zero), axis, True)
        at_zero = where(equal(zeros, 1), p, where(equal(zeros, 2), p * (q - x), zero))
        elsewhere = where(equal(zeros, 0), p / safe, where(equal(zeros, 1), p * q / safe, zero))
        return (kept(g, x, axis) * where(is_zero, at_zero, elsewhere),)


prod = Prod("prod")


def mean(x, axis=None, keepdims=False, dtype=None):
    """The mean over `axis`; integers and bools give float64. NaN where there are no elements."""
    x = _floating(x) if dtype is None else cast(x, dtype)
    axes = normalize_axes(axis, x.ndim, "mean")
    return sum(x, axes, keepdims) / _as_number(count(x, axes), x)


def _as_number(n: Any, like: Node) -> Any:
    """A count next to floats: a number stays weak, a variable takes their dtype."""
    return cast(n, like.dtype) if isinstance(n, Node) else number(n, like)


def var(x, axis=None, keepdims=False, *, ddof=0, correction=None, dtype=None):
    """The sum of squared deviations from the mean over `axis`, divided by n - ddof.

    `correction` is the Array API's name for ddof.

    Two passes, so values far from 0 lose nothing.
    """
    x = _floating(x) if dtype is None else cast(x, dtype)
    axes = normalize_axes(axis, x.ndim, "var")
    deviation = x - mean(x, axes, True)
    n = count(x, axes) - (ddof if correction is None else correction)
    n = n if isinstance(n, Node) else builtins.max(n, 0)
    return sum(deviation * deviation, axes, keepdims) / _as_number(n, x)


def std(x, axis=None, keepdims=False, *, ddof=0, correction=None, dtype=None):
    """The square root of `var`. Its gradient where all elements are equal is 0."""
    return _safe_sqrt(var(x, axis, keepdims, ddof=ddof, correction=correction, dtype=dtype))


def _safe_sqrt(x: Node) -> Node:
    """sqrt(x) with derivative 0 at 0, where the true one is infinite."""
    positive = x > 0
    return where(positive, sqrt(where(positive, x, number(1, x))), x)


# ------------------------------------------------------------------------------------- extreme values
class Extreme(Reduction):
    """The largest or smallest element over `axis`; NaN wins. Elements that tie share the gradient equally."""

    def __init__(self, name: str, operation: str, numpy: Callable[..., Any]):
        object.__setattr__(self, "operation", operation)
        object.__setattr__(self, "_numpy", numpy)
        object.__setattr__(
            self,
            "samples",
            [
                *_shapes,
                sample((0, 3), axis=(1,), keepdims=False),
                sample((3, 4), dtypes=(*INTS, "bool"), low=0, high=3, axis=(1,), keepdims=False, grad=False),
            ],
        )
        super().__init__(name)

    def infer(self, x, *, axis, keepdims):
        _needs_elements(self.name, x, axis)
        return super().infer(x, axis=axis, keepdims=keepdims)

    def numpy(self, x, *, axis, keepdims):
        return np.asarray(self._numpy(x, axis=axis, keepdims=keepdims))

    def vjp(self, g, y, x, *, axis, keepdims):
        tied = cast(equal(x, kept(y, x, axis)), g.dtype)
        return (kept(g, x, axis) / sum(tied, axis, True) * tied,)


max = Extreme("max", "maximum", np.max)
min = Extreme("min", "minimum", np.min)
amax, amin = max, min


class ArgExtreme(Row):
    """Where the first largest (smallest) element lies, as int64; the first NaN when there is one.

    Attributes: axis, one axis or all of them (then the position is the row-major one), keepdims.
    """

    def __init__(self, name: str, operation: str, numpy: Callable[..., Any]):
        object.__setattr__(self, "operation", operation)
        object.__setattr__(self, "_numpy", numpy)
        object.__setattr__(
            self,
            "samples",
            [
                sample((3, 4), axis=(1,), keepdims=False, grad=False),
                sample((3, 4), axis=(0,), keepdims=True, grad=False),
                sample((2, 3, 2), axis=(0, 1, 2), keepdims=False, grad=False),
                sample((), axis=(), keepdims=False, grad=False),
                sample((3, 5), dtypes=(*INTS, "bool"), low=0, high=3, axis=(1,), keepdims=False, grad=False),
            ],
        )
        super().__init__(name)

    def infer(self, x, *, axis, keepdims):
        _needs_elements(self.name, x, axis)
        return Type("int64", reduced_dims(x.dims, axis, keepdims))

    def at(self, i, x, *, axis, keepdims):
        best = over(self.operation, i, x, axis, keepdims)
        dims = [x.dims[a] for a in axis]

        def place_if_best(element: E, *ks: Any) -> E:
            hit = ir.call("eq", element, best)
            if dtypes.is_float(x.dtype):
                hit = hit | ir.call("isnan", element)  # best is NaN as soon as one element is
            return ir.select(hit, ir.index(flatten(ks, dims)), ir.index(poly.product(dims)))

        return over("minimum", i, x, axis, keepdims, place_if_best)

    def numpy(self, x, *, axis, keepdims):
        whole = len(axis) != 1
        found = np.asarray(
            self._numpy(x.reshape(-1) if whole else x, axis=0 if whole else axis[0]), dtype="int64"
        )
        return found.reshape(reduced_dims(x.shape, axis, keepdims))

    def vjp(self, g, y, x, *, axis, keepdims):
        return (STOP,)

    def __call__(self, x, axis=None, keepdims=False):
        x = as_tensor(x)
        axes = tuple(range(x.ndim)) if axis is None else (normalize_axis(axis, x.ndim, self.name),)
        return make(self, [x], axis=axes, keepdims=bool(keepdims))


argmax = ArgExtreme("argmax", "maximum", np.argmax)
argmin = ArgExtreme("argmin", "minimum", np.argmin)


def ptp(x, axis=None, keepdims=False):
    """The largest minus the smallest element over `axis`."""
    return max(x, axis, keepdims) - min(x, axis, keepdims)


# ------------------------------------------------------------------------------------------- logical
class Logical(Reduction):
    """Whether any (all) elements over `axis` are true."""

    def __init__(self, name: str, operation: str, numpy: Callable[..., Any]):
        object.__setattr__(self, "operation", operation)
        object.__setattr__(self, "_numpy", numpy)
        object.__setattr__(
            self,
            "samples",
            [
                sample(*s.args, dtypes=("bool",), low=0, high=2, grad=False, **s.attrs)
                for s in (*_shapes, *_empty)
            ],
        )
        super().__init__(name)

    def prepare(self, x):
        return cast(x, "bool")

    def numpy(self, x, *, axis, keepdims):
        return np.asarray(self._numpy(x, axis=axis, keepdims=keepdims))

    def vjp(self, g, y, x, *, axis, keepdims):
        return (STOP,)

    def __call__(self, x, axis=None, keepdims=False):
        return super().__call__(x, axis, keepdims)


any = Logical("any", "logor", np.any)
all = Logical("all", "logand", np.all)


def array_equal(a, b):
    """Whether two arrays hold equal elements, as a 0-d bool; False for shapes known to differ."""
    a, b = as_tensor(a), as_tensor(b)
    known = [(d, e) for d, e in zip(a.dims, b.dims) if isinstance(d, int) and isinstance(e, int)]
    differ = a.ndim != b.ndim or builtins.any(d != e for d, e in known)
    return as_tensor(False) if differ else all(equal(a, b))


def count_nonzero(x, axis=None, keepdims=False):
    """How many elements over `axis` are not 0, as int64."""
    x = as_tensor(x)
    return sum(not_equal(x, number(0, x)), axis, keepdims)


# ---------------------------------------------------------------------------------- exponential sums
class LogSumExp(Row):
    """log(sum(exp(x))) over `axis`, without overflow. -inf where every element is -inf."""

    samples = [*_shapes, *_empty, sample((3, 4), low=80.0, high=200.0, axis=(1,), keepdims=False)]

    def infer(self, x, *, axis, keepdims):
        return Type(x.dtype, reduced_dims(x.dims, axis, keepdims))

    def at(self, i, x, *, axis, keepdims):
        largest = over("maximum", i, x, axis, keepdims)
        shift = ir.select(ir.call("isfinite", largest), largest, ir.literal(0, x.dtype))
        return (
            ir.call("log", over("add", i, x, axis, keepdims, lambda e, *ks: ir.call("exp", e - shift)))
            + shift
        )

    def numpy(self, x, *, axis, keepdims):
        return np.asarray(np.logaddexp.reduce(x, axis=axis, keepdims=keepdims))

    def vjp(self, g, y, x, *, axis, keepdims):
        y = kept(y, x, axis)
        return (kept(g, x, axis) * exp(x - where(isfinite(y), y, number(0, y))),)

    def __call__(self, x, axis=None, keepdims=False):
        x = as_tensor(x)
        return make(
            self,
            [cast(x, dtypes.as_float(x.dtype))],
            axis=normalize_axes(axis, x.ndim, self.name),
            keepdims=bool(keepdims),
        )


logsumexp = LogSumExp("logsumexp")


# -------------------------------------------------------------------------------- weighted, without NaN
def average(x, axis=None, weights=None, keepdims=False):
    """The mean over `axis`, weighted when weights are given: of the shape of x, or along one axis."""
    if weights is None:
        return mean(x, axis, keepdims)
    x, w = promoted(_floating(x), weights)
    if w.ndim != x.ndim:
        if w.ndim != 1 or axis is None or isinstance(axis, (tuple, list)):
            raise ShapeError(
                four_parts(
                    f"average with weights {w._type}",
                    f"operand {x._type}",
                    show(user_line()),
                    "weights of the operand's shape, or one axis and 1-d weights",
                )
            )
        place = normalize_axis(axis, x.ndim, "average")
        w = reshape(w, tuple(w.dims[0] if k == place else 1 for k in range(x.ndim)))
    w = broadcast_to(w, x.dims)
    return sum(x * w, axis, keepdims) / sum(w, axis, keepdims)


def nansum(x, axis=None, keepdims=False):
    """The sum without NaNs."""
    return sum(_instead_of_nan(x, 0), axis, keepdims)


def nanprod(x, axis=None, keepdims=False):
    """The product without NaNs."""
    return prod(_instead_of_nan(x, 1), axis, keepdims)


def nanmean(x, axis=None, keepdims=False):
    """The mean without NaNs; NaN where nothing is left."""
    x = _floating(x)
    return nansum(x, axis, keepdims) / cast(sum(~isnan(x), axis, keepdims), x.dtype)


def nanvar(x, axis=None, keepdims=False, *, ddof=0):
    """`var` without NaNs."""
    x = _floating(x)
    deviation = x - nanmean(x, axis, True)
    return nansum(deviation * deviation, axis, keepdims) / (
        cast(sum(~isnan(x), axis, keepdims), x.dtype) - ddof
    )


def nanstd(x, axis=None, keepdims=False, *, ddof=0):
    """`std` without NaNs."""
    return _safe_sqrt(nanvar(x, axis, keepdims, ddof=ddof))


def nanmax(x, axis=None, keepdims=False):
    """The largest element that is no NaN; NaN where there is none."""
    return _without_nan(max, x, -math.inf, axis, keepdims)


def nanmin(x, axis=None, keepdims=False):
    """The smallest element that is no NaN; NaN where there is none."""
    return _without_nan(min, x, math.inf, axis, keepdims)


def nanargmax(x, axis=None, keepdims=False):
    """Where the first largest element lies that is no NaN."""
    return argmax(_instead_of_nan(x, -math.inf), axis, keepdims)


def nanargmin(x, axis=None, keepdims=False):
    """Where the first smallest element lies that is no NaN."""
    return argmin(_instead_of_nan(x, math.inf), axis, keepdims)


def _instead_of_nan(x: Any, value: float) -> Node:
    x = as_tensor(x)
    return where(isnan(x), number(value, x), x) if dtypes.is_float(x.dtype) else x


def _without_nan(reduction: Row, x: Any, neutral: float, axis: Any, keepdims: bool) -> Node:
    x = as_tensor(x)
    if not dtypes.is_float(x.dtype):
        return reduction(x, axis, keepdims)
    found = reduction(_instead_of_nan(x, neutral), axis, keepdims)
    return where(all(isnan(x), axis, keepdims), number(math.nan, x), found)


# ----------------------------------------------------------------------------------------------- norms
def norm(x, ord=None, axis=None, keepdims=False):
    """The norm of vectors along one axis, or of matrices over two, as numpy.linalg.norm but the spectral.

    ord: None (root of the sum of squares), "fro", a number p, inf or -inf; for matrices 1, -1, inf, -inf,
    "fro". axis None takes all elements, and then with an ord the operand itself is the vector or matrix. The
    gradient of a root at 0 is 0.
    """
    x = _floating(x)
    if axis is None and ord is None:
        return _safe_sqrt(sum(square(x), None, keepdims))
    axes = (
        tuple(range(x.ndim))
        if axis is None
        else (axis,)
        if not isinstance(axis, (tuple, list))
        else tuple(axis)
    )
    axes = tuple(normalize_axis(a, x.ndim, "norm") for a in axes)
    if len(axes) == 1:
        return _vector_norm(x, 2 if ord is None else ord, axes[0], keepdims)
    if ord is None or ord == "fro":
        return _safe_sqrt(sum(square(x), axes, keepdims))
    return _matrix_norm(x, ord, axes, keepdims)


def _vector_norm(x: Node, ord: Any, axis: int, keepdims: bool) -> Node:
    if ord == 2:
        return _safe_sqrt(sum(square(x), axis, keepdims))
    if ord == math.inf:
        return max(absolute(x), axis, keepdims)
    if ord == -math.inf:
        return min(absolute(x), axis, keepdims)
    if ord == 0:
        return cast(count_nonzero(x, axis, keepdims), x.dtype)
    if ord == 1:
        return sum(absolute(x), axis, keepdims)
    if isinstance(ord, str):
        raise DTypeError(
            four_parts(
                f"norm of vectors with ord {ord!r}", "a word", show(user_line()), "a number, or two axes"
            )
        )
    return power(sum(power(absolute(x), float(ord)), axis, keepdims), 1.0 / ord)


def _matrix_norm(x: Node, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Node:
    if len(axes) != 2 or ord not in (1, -1, math.inf, -math.inf):
        raise DTypeError(
            four_parts(
                f"norm over axes {axes} with ord {ord!r}",
                f"operand {x._type}",
                show(user_line()),
                "one axis with a number, or two with 'fro', 1, -1, inf or -inf",
            )
        )
    row, column = axes if ord in (1, -1) else reversed(axes)
    extreme = max if ord in (1, math.inf) else min
    sums = sum(absolute(x), row, True)
    found = extreme(sums, column, True)
    return found if keepdims else reshape(found, reduced_dims(x.dims, tuple(sorted(axes)), False))


__all__ = [
    "array_equal",
    "nanargmax",
    "nanargmin",
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "average",
    "count_nonzero",
    "logsumexp",
    "max",
    "mean",
    "min",
    "nanmax",
    "nanmean",
    "nanmin",
    "nanprod",
    "nanstd",
    "nansum",
    "nanvar",
    "norm",
    "prod",
    "ptp",
    "std",
    "sum",
    "var",
]
