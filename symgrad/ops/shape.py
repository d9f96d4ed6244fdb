"""Movement ops: they say where an element comes from and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..base.poly import Poly
from ..graph.node import CONSTANT, Node, make
from ..graph.types import Type, broadcast_dims, is_one, shape_text
from ..loops import ir
from ..loops.ir import E, View
from .row import ROWS, STOP, Row, as_tensor, broadcast_index, normalize_axes, normalize_axis, sample


# ------------------------------------------------------------------------------- sizes as values
class SizeOf(Row):
    """The size of an axis, as an int64 scalar."""

    public = False

    def infer(self, x: Type, *, axis: int) -> Type:
        return Type("int64", ())

    def at(self, i: tuple, x: View, *, axis: int) -> E:
        return ir.index(x.dims[axis])

    def numpy(self, x: np.ndarray, *, axis: int) -> np.ndarray:
        return np.array(x.shape[axis], dtype="int64")

    def vjp(self, g, y, x, *, axis):
        return (STOP,)


size_of = SizeOf("size_of")


def shape_tuple(x: Node) -> tuple:
    """Python ints where sizes are known, int64 scalar variables where they are not."""
    return tuple(d if isinstance(d, int) else make(size_of, [x], axis=k) for k, d in enumerate(x.dims))


def as_size(value: Any, what: str = "a size") -> Any:
    """An int or polynomial from an int, or from integer scalar arithmetic on sizes (`x.shape[0] * 2`)."""
    if isinstance(value, Poly):
        return value
    if not isinstance(value, Node):
        if isinstance(value, (bool, float)) or not hasattr(value, "__index__"):
            raise ShapeError(four_parts(what, f"{value!r}", show(user_line()), "an int, or a size such as x.shape[0]"))
        return int(value)
    if value.ndim or value.dtype not in ("int64", "int32"):
        raise ShapeError(four_parts(what, f"{value.dtype} {shape_text(value.dims)}", show(user_line()), "a 0-d integer"))
    if value.op is CONSTANT:
        return int(value.payload)
    if value.op is size_of:
        return value.inputs[0].dims[value.attrs["axis"]]
    algebra = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
               "floor_divide": poly.floordiv, "remainder": poly.mod, "maximum": poly.maximum, "minimum": poly.minimum,
               "negative": lambda a: -a, "cast": lambda a: a}.get(value.op.name)
    if algebra is not None and all(x.ndim == 0 and x.dtype in ("int64", "int32") for x in value.inputs):
        return algebra(*(as_size(x, what) for x in value.inputs))
    return poly.atom("value", value)        # decided by data: evaluated on the host before anything is allocated


def as_shape(shape: Any, what: str = "a shape") -> tuple:
    items = shape if isinstance(shape, (tuple, list)) else [shape]
    dims = tuple(as_size(d, what) for d in items)
    if any(isinstance(d, int) and d < 0 for d in dims):
        raise ShapeError(four_parts(what, f"{dims}", show(user_line()), "sizes are at least 0"))
    return dims


# ------------------------------------------------------------------------------------ broadcast_to
class BroadcastTo(Row):
    """x repeated to a larger shape, as numpy.broadcast_to."""

    samples = [sample((3, 1), shape=(2, 3, 4)), sample((), shape=(3,)), sample((0, 1), shape=(0, 5))]

    def infer(self, x: Type, *, shape: tuple) -> Type:
        if broadcast_dims(x.dims, shape, what="broadcast_to") != tuple(shape) and x.is_static:
            raise ShapeError(four_parts(f"broadcast_to {shape_text(shape)}", f"operand {x}", attempt="sizes must be equal or 1"))
        return Type(x.dtype, shape)

    def at(self, i: tuple, x: View, *, shape: tuple) -> E:
        return x[broadcast_index(i, x.dims)]

    def numpy(self, x, *, shape):
        return np.broadcast_to(x, shape).copy()

    def vjp(self, g, y, x, *, shape):
        return (g,)                          # the driver sums what was broadcast

    def __call__(self, x, shape):
        x, shape = as_tensor(x), as_shape(shape, "broadcast_to")
        return x if x.dims == shape else make(self, [x], shape=shape)


broadcast_to = BroadcastTo("broadcast_to")


# ----------------------------------------------------------------------------------------- reshape
class Reshape(Row):
    """x with the same elements in row-major order under another shape; one size may be -1."""

    samples = [sample((3, 4), shape=(2, 6)), sample((2, 3, 4), shape=(4, 6)), sample((0, 3), shape=(3, 0)), sample((1, 1), shape=())]

    def infer(self, x: Type, *, shape: tuple) -> Type:
        if isinstance(x.size, int) and isinstance(poly.product(shape), int) and x.size != poly.product(shape):
            raise ShapeError(four_parts(f"reshape to {shape_text(shape)}, {poly.product(shape)} elements",
                                        f"{x.size} elements in {shape_text(x.dims)}", attempt="leave one size as -1"))
        return Type(x.dtype, shape)

    def at(self, i: tuple, x: View, *, shape: tuple) -> E:
        return x[unflatten(flatten(i, shape), x.dims)]

    def numpy(self, x, *, shape):
        return x.reshape(shape).copy()

    def vjp(self, g, y, x, *, shape):
        return (reshape(g, x.dims),)

    def __call__(self, x, *shape):
        x = as_tensor(x)
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        sizes = [as_size(d, "reshape") for d in shape]
        return make(self, [x], shape=_fill_minus_one(x, sizes)) if tuple(sizes) != x.dims else x


def _fill_minus_one(x: Node, sizes: Sequence[Any]) -> tuple:
    holes = [k for k, d in enumerate(sizes) if isinstance(d, int) and d == -1]
    if len(holes) > 1 or any(isinstance(d, int) and d < -1 for d in sizes):
        raise ShapeError(four_parts(f"reshape to {tuple(sizes)}", "more than one unknown size or a negative one", show(user_line()),
                                    "one size may be -1, the others are at least 0"))
    if not holes:
        return tuple(sizes)
    rest = poly.product(d for k, d in enumerate(sizes) if k != holes[0])
    total = x._type.size
    exact = poly.exact_quotient(total, rest)
    if exact is None and isinstance(total, int) and isinstance(rest, int):
        raise ShapeError(four_parts(f"reshape to {tuple(sizes)}", f"{total} elements in {shape_text(x.dims)}, not a multiple of {rest}",
                                    show(user_line()), "sizes whose product divides the number of elements"))
    return tuple((exact if exact is not None else poly.floordiv(total, rest)) if k == holes[0] else d for k, d in enumerate(sizes))


def flatten(i: Sequence[Any], dims: Sequence[Any]) -> Any:
    """The row-major position of index i in an array of these dims."""
    flat: Any = 0
    for k, d in zip(i, dims):
        flat = flat * d + k
    return flat


def unflatten(flat: Any, dims: Sequence[Any]) -> tuple:
    """The index at a row-major position."""
    out = []
    for axis in range(len(dims) - 1, -1, -1):
        d = dims[axis]
        if is_one(d):
            out.append(0)
        elif axis == 0 or all(is_one(e) for e in dims[:axis]):
            out.append(flat)
        else:
            out.append(poly.mod(flat, d))
            flat = poly.floordiv(flat, d)
    return tuple(reversed(out))


reshape = Reshape("reshape")


# --------------------------------------------------------------------------------------- transpose
class Transpose(Row):
    """x with its axes in another order, as numpy.transpose."""

    samples = [sample((3, 4), axes=(1, 0)), sample((2, 3, 4), axes=(2, 0, 1)), sample((0, 3), axes=(1, 0))]

    def infer(self, x: Type, *, axes: tuple) -> Type:
        return Type(x.dtype, [x.dims[a] for a in axes])

    def at(self, i: tuple, x: View, *, axes: tuple) -> E:
        return x[tuple(i[axes.index(k)] for k in range(len(axes)))]

    def numpy(self, x, *, axes):
        return np.ascontiguousarray(x.transpose(axes)) if axes else x.copy()

    def vjp(self, g, y, x, *, axes):
        return (transpose(g, np.argsort(axes).tolist()),)

    def __call__(self, x, *axes):
        x = as_tensor(x)
        axes = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))) else axes
        order = tuple(reversed(range(x.ndim))) if not axes else tuple(normalize_axis(a, x.ndim, "transpose") for a in axes)
        if sorted(order) != list(range(x.ndim)):
            raise ShapeError(four_parts(f"transpose with axes {tuple(axes)}", f"the operand has {x.ndim} axes", show(user_line()),
                                        "each axis exactly once"))
        return x if order == tuple(range(x.ndim)) else make(self, [x], axes=order)


transpose = Transpose("transpose")


def expand_dims(x, axis):
    """x with axes of size 1 at `axis` (an int or a tuple, counted in the result)."""
    x = as_tensor(x)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    places = normalize_axes(axes, x.ndim + len(axes), "expand_dims")
    rest = iter(x.dims)
    return reshape(x, tuple(1 if k in places else next(rest) for k in range(x.ndim + len(axes))))


def squeeze(x, axis=None):
    """x without axes of size 1: all that are known to be 1, or those named. Raises ShapeError for a named axis of another size."""
    x = as_tensor(x)
    axes = tuple(k for k, d in enumerate(x.dims) if is_one(d)) if axis is None else normalize_axes(axis, x.ndim, "squeeze")
    wrong = [k for k in axes if isinstance(x.dims[k], int) and not is_one(x.dims[k])]
    if wrong:
        raise ShapeError(four_parts(f"squeeze of axis {wrong[0]}", f"its size is {x.dims[wrong[0]]}", show(user_line())))
    return reshape(x, tuple(d for k, d in enumerate(x.dims) if k not in axes))


__all__ = ["ROWS", "as_shape", "as_size", "broadcast_to", "expand_dims", "flatten", "reshape", "shape_tuple", "squeeze", "transpose",
           "unflatten"]
