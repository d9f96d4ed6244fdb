"""Arrays from sizes and numbers alone, and the masks made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import E
from .elementwise import equal, less_equal, number, power, where
from .row import Row, as_tensor, cast, promoted, sample
from .shape import as_shape, as_size, broadcast_arrays, broadcast_to, expand_dims, moveaxis, reshape


class Arange(Row):
    """start + step * k for 0 <= k < size.

    Attributes: start (a number, or a size), step (a number), size, dtype.
    """

    samples = [
        sample(start=0, step=1, size=5, dtype="int64", dtypes=("int64",), grad=False),
        sample(start=7, step=-2, size=4, dtype="float32", dtypes=("float32",), grad=False),
        sample(start=0.5, step=0.25, size=6, dtype="float64", dtypes=("float64",), grad=False),
        sample(start=0, step=1, size=0, dtype="uint8", dtypes=("uint8",), grad=False),
    ]

    def infer(self, *, start: Any, step: Any, size: Any, dtype: str) -> Type:
        return Type(dtype, (size,))

    def at(self, i: tuple, *, start: Any, step: Any, size: Any, dtype: str) -> E:
        if isinstance(start, float) or isinstance(step, float):
            k = ir.cast(ir.index(i[0]), dtype)
            return ir.literal(start, dtype) + k * ir.literal(step, dtype)
        return ir.cast(ir.index(start + step * i[0]), dtype)

    def numpy(self, *, start, step, size, dtype):
        if isinstance(start, float) or isinstance(step, float):
            kind = np.dtype(dtype).type
            return kind(start) + kind(step) * np.arange(size, dtype=dtype)
        return np.arange(start, start + step * size, step).astype(dtype)

    def vjp(self, g: Node, y: Node, **attrs: Any) -> tuple:
        return ()

    def __call__(self, start, stop=None, step=1, dtype=None):
        start, stop = (0, start) if stop is None else (start, stop)
        if any(isinstance(v, (float, np.floating)) for v in (start, stop, step)):
            start, stop, step = (_plain(v) for v in (start, stop, step))
            size: Any = max(0, math.ceil((stop - start) / _nonzero(step)))
            start, step = float(start), float(step)
        else:
            start, stop, step = (as_size(v, "arange") for v in (start, stop, step))
            size = _steps(stop - start, _nonzero(step))
            dtype = dtype or "int64"
        return make(self, [], start=start, step=step, size=size, dtype=dtypes.dtype_name(dtype))


def _plain(value: Any) -> float:
    if isinstance(value, Node):
        raise DTypeError(
            four_parts(
                "arange with floats",
                f"a variable, made at {value.where}",
                show(user_line()),
                "start + step * T.arange(n), with n the number of elements",
            )
        )
    return value


def _nonzero(step: Any) -> Any:
    if not isinstance(step, (int, float)) or step == 0:
        raise ShapeError(
            four_parts(f"arange with step {step}", "the step is a number other than 0", show(user_line()))
        )
    return step


def _steps(distance: Any, step: int) -> Any:
    ahead = distance if step > 0 else -distance
    return poly.ceildiv(poly.maximum(ahead, 0), abs(step))


arange = Arange("arange")


# -------------------------------------------------------------------------------------- one value
def full(shape, fill_value, dtype=None):
    """An array of one value (a number, or a variable that broadcasts to the shape)."""
    return broadcast_to(as_tensor(fill_value, dtype), as_shape(shape, "full"))


def zeros(shape, dtype=None):
    """Zeros; floatX unless told."""
    return full(shape, 0, dtypes.dtype_name(dtype))


def ones(shape, dtype=None):
    """Ones; floatX unless told."""
    return full(shape, 1, dtypes.dtype_name(dtype))


def alloc(value, *shape):
    """Theano's name for `full`: the value repeated to a shape."""
    return full(shape, value)


def full_like(x, fill_value, dtype=None):
    """An array of one value with the shape of x, and its dtype unless told."""
    x = as_tensor(x)
    return broadcast_to(as_tensor(fill_value, dtype or x.dtype), x.dims)


def zeros_like(x, dtype=None):
    """Zeros with the shape of x, and its dtype unless told."""
    return full_like(x, 0, dtype)


def ones_like(x, dtype=None):
    """Ones with the shape of x, and its dtype unless told."""
    return full_like(x, 1, dtype)


# ---------------------------------------------------------------------------------------- progressions
def linspace(start, stop, num=50, endpoint=True, dtype=None, axis=0):
    """num evenly spaced values from start to stop, which is included unless endpoint=False.

    start and stop may be variables, which broadcast.
    """
    n = as_size(num, "linspace")
    if not isinstance(n, int) or n < 0:
        raise ShapeError(four_parts(f"linspace with num={num}", "num is an int >= 0", show(user_line())))
    dtype = dtypes.as_float(dtypes.dtype_name(dtype)) if dtype or not _any_node(start, stop) else None
    start, stop = broadcast_arrays(
        *(
            promoted(start, stop, 0.0)[:2]
            if dtype is None
            else (as_tensor(start, dtype), as_tensor(stop, dtype))
        )
    )
    intervals = n - 1 if endpoint else n
    k = reshape(arange(n, dtype=start.dtype), (n,) + (1,) * start.ndim)
    values = start + k * ((stop - start) / number(max(intervals, 1), start))
    if endpoint and n > 1:
        values = where(equal(k, n - 1), stop, values)
    return moveaxis(values, 0, axis) if axis else values


def _any_node(*values: Any) -> bool:
    return any(isinstance(v, Node) for v in values)


def logspace(start, stop, num=50, endpoint=True, base=10.0, dtype=None, axis=0):
    """base to the powers of linspace(start, stop, num)."""
    return power(base, linspace(start, stop, num, endpoint, dtype, axis))


# ------------------------------------------------------------------------------- matrices and masks
def _from_diagonal(rows: Any, columns: Any) -> Node:
    """How far right of the main diagonal each element of a matrix lies."""
    return arange(columns) - expand_dims(arange(rows), 1)


def eye(N, M=None, k=0, dtype=None):
    """A matrix of N rows and M (or N) columns with ones on its k-th diagonal; floatX unless told."""
    return cast(equal(_from_diagonal(N, N if M is None else M), k), dtypes.dtype_name(dtype))


def identity(n, dtype=None):
    """The identity matrix of n rows; floatX unless told."""
    return eye(n, dtype=dtype)


def tri(N, M=None, k=0, dtype=None):
    """Ones on and below the k-th diagonal, zeros above; floatX unless told."""
    return cast(less_equal(_from_diagonal(N, N if M is None else M), k), dtypes.dtype_name(dtype))


def tril(x, k=0):
    """The last two axes of x on and below their k-th diagonal, zeros above."""
    x = _matrix(x, "tril")
    return where(less_equal(_from_diagonal(*x.dims[-2:]), k), x, number(0, x))


def triu(x, k=0):
    """The last two axes of x on and above their k-th diagonal, zeros below."""
    x = _matrix(x, "triu")
    return where(less_equal(_from_diagonal(*x.dims[-2:]), k - 1), number(0, x), x)


def _matrix(x: Any, what: str) -> Node:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(
            four_parts(
                f"{what} of matrices", f"{x._type}", show(user_line()), "an operand with at least two axes"
            )
        )
    return x


def meshgrid(*xs, indexing="xy", sparse=False):
    """Coordinate arrays from coordinate vectors; "xy" puts the first along axis 1, "ij" along axis 0."""
    if indexing not in ("xy", "ij"):
        raise ShapeError(
            four_parts(f"meshgrid with indexing={indexing!r}", "it is 'xy' or 'ij'", show(user_line()))
        )
    n = len(xs)
    order = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    out = [
        reshape(x, tuple(-1 if axis == order[k] else 1 for axis in range(n)))
        for k, x in enumerate(map(as_tensor, xs))
    ]
    return out if sparse or not out else broadcast_arrays(*out)


__all__ = [
    "alloc",
    "arange",
    "eye",
    "full",
    "full_like",
    "identity",
    "linspace",
    "logspace",
    "meshgrid",
    "ones",
    "ones_like",
    "tri",
    "tril",
    "triu",
    "zeros",
    "zeros_like",
]
