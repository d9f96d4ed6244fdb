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
from .counted import count, size_counted_by
from .row import ROWS, STOP, Row, as_tensor, broadcast_index, normalize_axes, normalize_axis, sample


class BoundsError(ShapeError, IndexError):
    """An index outside its axis, or more indices than axes."""


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
            raise ShapeError(
                four_parts(what, f"{value!r}", show(user_line()), "an int, or a size such as x.shape[0]")
            )
        return int(value)
    if value.ndim or value.dtype not in ("int64", "int32"):
        raise ShapeError(
            four_parts(what, f"{value.dtype} {shape_text(value.dims)}", show(user_line()), "a 0-d integer")
        )
    if value.op is CONSTANT:
        return int(value.payload)
    if value.op is size_of:
        return value.inputs[0].dims[value.attrs["axis"]]
    if value.op is count:
        return size_counted_by(value)
    algebra = {
        "add": lambda a, b: a + b,
        "subtract": lambda a, b: a - b,
        "multiply": lambda a, b: a * b,
        "floor_divide": poly.floordiv,
        "remainder": poly.mod,
        "maximum": poly.maximum,
        "minimum": poly.minimum,
        "negative": lambda a: -a,
        "cast": lambda a: a,
    }.get(value.op.name)
    if algebra is not None and all(x.ndim == 0 and x.dtype in ("int64", "int32") for x in value.inputs):
        return algebra(*(as_size(x, what) for x in value.inputs))
    return poly.atom("value", value)  # decided by data: evaluated on the host before anything is allocated


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
        common = broadcast_dims(x.dims, shape, what="broadcast_to")
        if len(common) != len(shape) or any(
            isinstance(d, int) and isinstance(s, int) and d != s for d, s in zip(common, shape)
        ):
            raise ShapeError(
                four_parts(
                    f"broadcast_to {shape_text(shape)}", f"operand {x}", attempt="sizes must be equal or 1"
                )
            )
        return Type(x.dtype, shape)

    def at(self, i: tuple, x: View, *, shape: tuple) -> E:
        return x[broadcast_index(i, x.dims)]

    def numpy(self, x, *, shape):
        return np.broadcast_to(x, shape).copy()

    def vjp(self, g, y, x, *, shape):
        return (g,)  # the driver sums what was broadcast

    def __call__(self, x, shape):
        x, shape = as_tensor(x), as_shape(shape, "broadcast_to")
        return x if x.dims == shape else make(self, [x], shape=shape)


broadcast_to = BroadcastTo("broadcast_to")


# ----------------------------------------------------------------------------------------- reshape
class Reshape(Row):
    """x with the same elements in row-major order under another shape; one size may be -1."""

    samples = [
        sample((3, 4), shape=(2, 6)),
        sample((2, 3, 4), shape=(4, 6)),
        sample((0, 3), shape=(3, 0)),
        sample((1, 1), shape=()),
    ]

    def infer(self, x: Type, *, shape: tuple) -> Type:
        if isinstance(x.size, int) and isinstance(poly.product(shape), int) and x.size != poly.product(shape):
            raise ShapeError(
                four_parts(
                    f"reshape to {shape_text(shape)}, {poly.product(shape)} elements",
                    f"{x.size} elements in {shape_text(x.dims)}",
                    attempt="leave one size as -1",
                )
            )
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
        raise ShapeError(
            four_parts(
                f"reshape to {tuple(sizes)}",
                "more than one unknown size or a negative one",
                show(user_line()),
                "one size may be -1, the others are at least 0",
            )
        )
    if not holes:
        return tuple(sizes)
    rest = poly.product(d for k, d in enumerate(sizes) if k != holes[0])
    total = x._type.size
    exact = poly.exact_quotient(total, rest)
    if exact is None and isinstance(total, int) and isinstance(rest, int):
        raise ShapeError(
            four_parts(
                f"reshape to {tuple(sizes)}",
                f"{total} elements in {shape_text(x.dims)}, not a multiple of {rest}",
                show(user_line()),
                "sizes whose product divides the number of elements",
            )
        )
    return tuple(
        (exact if exact is not None else poly.floordiv(total, rest)) if k == holes[0] else d
        for k, d in enumerate(sizes)
    )


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
        order = (
            tuple(reversed(range(x.ndim)))
            if not axes
            else tuple(normalize_axis(a, x.ndim, "transpose") for a in axes)
        )
        if sorted(order) != list(range(x.ndim)):
            raise ShapeError(
                four_parts(
                    f"transpose with axes {tuple(axes)}",
                    f"the operand has {x.ndim} axes",
                    show(user_line()),
                    "each axis exactly once",
                )
            )
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
    """x without axes of size 1: all that are known to be 1, or those named.

    Raises ShapeError for a named axis of another size.
    """
    x = as_tensor(x)
    axes = (
        tuple(k for k, d in enumerate(x.dims) if is_one(d))
        if axis is None
        else normalize_axes(axis, x.ndim, "squeeze")
    )
    wrong = [k for k in axes if isinstance(x.dims[k], int) and not is_one(x.dims[k])]
    if wrong:
        raise ShapeError(
            four_parts(f"squeeze of axis {wrong[0]}", f"its size is {x.dims[wrong[0]]}", show(user_line()))
        )
    return reshape(x, tuple(d for k, d in enumerate(x.dims) if k not in axes))


# ---------------------------------------------------------------------------------- axes and ranks
def moveaxis(x, source, destination):
    """x with axes moved to other places; the others keep their order."""
    x = as_tensor(x)
    sources = [
        normalize_axis(a, x.ndim, "moveaxis")
        for a in (source if isinstance(source, (tuple, list)) else [source])
    ]
    places = [
        normalize_axis(a, x.ndim, "moveaxis")
        for a in (destination if isinstance(destination, (tuple, list)) else [destination])
    ]
    if len(set(sources)) != len(sources) or len(set(places)) != len(places) or len(sources) != len(places):
        raise ShapeError(
            four_parts(
                f"moveaxis from {source} to {destination}",
                "axes named twice, or not equally many",
                show(user_line()),
            )
        )
    order = [k for k in range(x.ndim) if k not in sources]
    for place, axis in sorted(zip(places, sources)):
        order.insert(place, axis)
    return transpose(x, order) if x.ndim else x


permute_dims = transpose


def swapaxes(x, axis1, axis2):
    """x with two axes exchanged."""
    x = as_tensor(x)
    a, b = normalize_axis(axis1, x.ndim, "swapaxes"), normalize_axis(axis2, x.ndim, "swapaxes")
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return transpose(x, order)


def matrix_transpose(x):
    """x with its last two axes exchanged."""
    return swapaxes(x, -1, -2)


def ravel(x):
    """x with all elements on one axis, in row-major order."""
    return reshape(x, -1)


def atleast_1d(x):
    """x, with an axis when it has none."""
    x = as_tensor(x)
    return x if x.ndim else reshape(x, (1,))


def atleast_2d(x):
    """x with at least two axes; a vector becomes a row."""
    x = atleast_1d(x)
    return x if x.ndim > 1 else expand_dims(x, 0)


def atleast_3d(x):
    """x with at least three axes; a vector (n,) becomes (1, n, 1), a matrix (m, n) becomes (m, n, 1)."""
    x = atleast_2d(x)
    return x if x.ndim > 2 else expand_dims(x, 2)


def broadcast_arrays(*xs):
    """The operands, all at their common shape."""
    xs = [as_tensor(x) for x in xs]
    dims = common_dims([x.dims for x in xs], "broadcast_arrays")
    return [broadcast_to(x, dims) for x in xs]


def common_dims(shapes: Sequence[Sequence[Any]], what: str) -> tuple:
    """The common shape, for use outside `infer`. Raises ShapeError with the user's line."""
    try:
        return broadcast_dims(*shapes, what=what)
    except ShapeError as error:
        raise ShapeError(f"{error}\n  where: {show(user_line())}") from None


# ------------------------------------------------------------------------------------------- slicing
# One index item per axis of the operand, and "new" ones between them, all with known meaning:
#   ("slice", start, step, size)  start + step * k for 0 <= k < size     ("int", k)  one element, axis dropped
#   ("new",)                      a new axis of size 1                   ("array",)  the next index array (see
# ops/index.py)
# start, size and k are ints or polynomials; step is an int. Every slice lies inside its axis, whatever the
# sizes are.
Items = tuple[tuple, ...]


def slice_item(s: slice, size: Any) -> tuple:
    """The index item of a Python slice on an axis of this size, by NumPy's rules."""
    step = 1 if s.step is None else as_size(s.step, "the step of a slice")
    if not isinstance(step, int) or step == 0:
        raise ShapeError(
            four_parts(f"a slice with step {step}", "steps are ints other than 0", show(user_line()))
        )
    low = None if s.start is None else as_size(s.start, "the start of a slice")
    high = None if s.stop is None else as_size(s.stop, "the stop of a slice")
    if step > 0:
        start = 0 if low is None else _from_end(low, size, 0)
        stop = size if high is None else _from_end(high, size, 0)
        if high is not None and poly.bounds(high)[1] >= 0:
            stop = poly.minimum(stop, size)
        length = stop - start
    else:
        start = size - 1 if low is None else _from_end(low, size, -1)
        if low is not None and poly.bounds(low)[1] >= 0:
            start = poly.minimum(start, size - 1)
        stop = -1 if high is None else _from_end(high, size, -1)
        length = start - stop
    return "slice", start, step, poly.ceildiv(poly.maximum(length, 0), abs(step))


def _from_end(position: Any, size: Any, floor: int) -> Any:
    """position, counted from the end when negative, and then at least floor."""
    low, high = poly.bounds(position)
    if low >= 0:
        return position
    if high < 0:
        return poly.maximum(position + size, floor)
    negative = poly.maximum(poly.minimum(-position, 1), 0)  # 1 when the position turns out to be negative
    return poly.maximum(position + size * negative, floor)


def full_item(size: Any) -> tuple:
    """The item that takes a whole axis."""
    return "slice", 0, 1, size


def source_axes(items: Items) -> list[tuple[int, tuple]]:
    """(axis of the operand, item) for the items that consume one."""
    return list(enumerate(item for item in items if item[0] != "new"))


def check_positions(items: Items, dims: Sequence[Any]) -> None:
    """Raises BoundsError for a single position that is known to lie outside its axis."""
    for axis, item in source_axes(items):
        if (
            item[0] == "int"
            and isinstance(item[1], int)
            and isinstance(dims[axis], int)
            and not 0 <= item[1] < dims[axis]
        ):
            k = item[1] if item[1] >= 0 else item[1] - dims[axis]
            raise BoundsError(
                four_parts(
                    f"index {k} on axis {axis}",
                    f"size {dims[axis]} there",
                    attempt=f"indices from {-dims[axis]} to {dims[axis] - 1}",
                )
            )


def basic_dims(items: Items) -> tuple:
    """The sizes that slices and new axes give, in order."""
    return tuple(1 if item[0] == "new" else item[3] for item in items if item[0] in ("new", "slice"))


def basic_source(i: Sequence[Any], items: Items) -> tuple:
    """The operand's index, None on the axes of index arrays, from the index of slices and new axes."""
    rest, out = iter(i), []
    for item in items:
        if item[0] == "slice":
            out.append(item[1] + item[2] * next(rest))
        elif item[0] == "new":
            next(rest)
        else:
            out.append(item[1] if item[0] == "int" else None)
    return tuple(out)


def ints_inside(items: Items, dims: Sequence[Any]) -> E:
    """The condition that every integer item lies inside its axis; constant when the sizes are known."""
    return ir.both(
        *(
            c
            for axis, item in source_axes(items)
            if item[0] == "int"
            for c in (ir.compare("ge", item[1], 0), ir.compare("lt", item[1], dims[axis]))
        )
    )


def basic_target(i: Sequence[Any], items: Items, dims: Sequence[Any]) -> tuple[E, tuple]:
    """Whether the items select the operand's index i, and the index of the selected part it has then.

    Axes of index arrays are left to the caller. The second is only meaningful where the first holds.
    """
    conditions, part = [], []
    axis = 0
    for item in items:
        if item[0] == "new":
            part.append(0)
            continue
        k, axis = i[axis], axis + 1
        if item[0] == "int":
            conditions.append(ir.compare("eq", k, item[1]))
        elif item[0] == "slice":
            _, start, step, size = item
            if item == full_item(dims[axis - 1]):
                part.append(k)
                continue
            offset = k - start if step > 0 else start - k
            conditions.append(ir.compare("ge", offset, 0))
            if abs(step) > 1:
                conditions.append(ir.compare("eq", poly.mod(offset, abs(step)), 0))
            conditions.append(ir.compare("lt", offset, size * abs(step)))
            part.append(poly.floordiv(offset, abs(step)))
    return ir.both(*conditions), tuple(part)


def numpy_items(items: Items, dims: Sequence[int], arrays: Sequence[np.ndarray] = ()) -> tuple:
    """The items as an index for NumPy into an array of these dims, sizes being ints by now."""
    check_positions(items, dims)
    rest = iter(arrays)
    out: list[Any] = []
    for item in items:
        if item[0] == "slice":
            _, start, step, size = item
            stop = start + step * size
            out.append(slice(0, 0) if size == 0 else slice(start, None if stop < 0 else stop, step))
        else:
            out.append(None if item[0] == "new" else item[1] if item[0] == "int" else next(rest))
    return tuple(out)


class Subtensor(Row):
    """Part of x: slices, single positions and new axes. Attribute: items, see above."""

    samples = [
        sample((5, 4), items=(("slice", 1, 2, 2), ("slice", 3, -1, 4))),
        sample((5, 4), items=(("int", 3), ("slice", 0, 1, 4))),
        sample((4,), items=(("new",), ("slice", 3, -2, 2), ("new",))),
        sample((0, 2), items=(("slice", 0, 1, 0), ("slice", 1, 1, 1))),
        sample(
            (6,), dtypes=("int64", "uint8", "bool"), low=0, high=2, items=(("slice", 5, -3, 2),), grad=False
        ),
    ]
    public = False

    def infer(self, x: Type, *, items: Items) -> Type:
        check_positions(items, x.dims)
        return Type(x.dtype, basic_dims(items))

    def at(self, i: tuple, x: View, *, items: Items) -> E:
        return ir.cond(ints_inside(items, x.dims), x[basic_source(i, items)], ir.literal(0, x.dtype))

    def numpy(self, x, *, items):
        return np.ascontiguousarray(x[numpy_items(items, x.shape)]).reshape(basic_dims(items))

    def vjp(self, g, y, x, *, items):
        return (ROWS["index_set"].raw(zeros_of(x), g, items),)

    def sizes_checked(self, x: Type, *, items: Items) -> list[tuple[Any, Any]]:
        """(position, size) pairs of which 0 <= position < size is only known at the call."""
        return [
            (item[1], x.dims[axis])
            for axis, item in source_axes(items)
            if item[0] == "int" and not (isinstance(item[1], int) and isinstance(x.dims[axis], int))
        ]

    def __call__(self, x, items):
        return make(self, [as_tensor(x)], items=items)


subtensor = Subtensor("subtensor")


def zeros_of(x: Node) -> Node:
    """Zeros of the shape and dtype of x."""
    return broadcast_to(as_tensor(0, x.dtype), x.dims)


def slice_axis(x: Node, axis: int, start: Any, size: Any, step: int = 1) -> Node:
    """x from start on along one axis: `size` elements, `step` apart."""
    item = ("slice", start, step, size)
    if item == full_item(x.dims[axis]):
        return x
    return subtensor(x, tuple(item if k == axis else full_item(d) for k, d in enumerate(x.dims)))


# ------------------------------------------------------------------------------------------ diagonals
class Diagonal(Row):
    """The diagonal of the last two axes, as the last axis.

    Attribute: offset, above the main one when positive.
    """

    public = False
    samples = [
        sample((4, 4), offset=0),
        sample((3, 5), offset=2),
        sample((2, 4, 3), offset=-1),
        sample((2, 2), offset=3),
        sample((3, 3), dtypes=("int64", "bool"), low=0, high=2, offset=1, grad=False),
    ]

    def infer(self, x: Type, *, offset: int) -> Type:
        *rest, m, n = x.dims
        return Type(x.dtype, (*rest, poly.maximum(poly.minimum(m + min(offset, 0), n - max(offset, 0)), 0)))

    def at(self, i: tuple, x: View, *, offset: int) -> E:
        return x[(*i[:-1], i[-1] - min(offset, 0), i[-1] + max(offset, 0))]

    def numpy(self, x, *, offset):
        return np.diagonal(x, offset, -2, -1).copy()

    def vjp(self, g, y, x, *, offset):
        return (diagonal_matrix(g, offset, x.dims[-2], x.dims[-1]),)

    def __call__(self, x, offset):
        return make(self, [as_tensor(x)], offset=offset)


_diagonal = Diagonal("diagonal")


class DiagonalMatrix(Row):
    """Matrices of rows by columns that are zero but on one diagonal, which is the last axis of x.

    Attributes: offset, rows, columns.
    """

    public = False
    samples = [
        sample((4,), offset=0, rows=4, columns=4),
        sample((2, 3), offset=2, rows=3, columns=5),
        sample((3,), offset=-1, rows=4, columns=3),
        sample((3,), dtypes=("int64", "bool"), low=0, high=2, offset=1, rows=4, columns=4, grad=False),
    ]

    def infer(self, x: Type, *, offset: int, rows: Any, columns: Any) -> Type:
        return Type(x.dtype, (*x.dims[:-1], rows, columns))

    def at(self, i: tuple, x: View, *, offset: int, rows: Any, columns: Any) -> E:
        k = i[-2] + min(offset, 0) if offset < 0 else i[-2]
        on = ir.both(
            ir.compare("eq", i[-1] - i[-2], offset), ir.compare("ge", k, 0), ir.compare("lt", k, x.dims[-1])
        )
        return ir.cond(on, x[(*i[:-2], k)], ir.literal(0, x.dtype))

    def numpy(self, x, *, offset, rows, columns):
        out = np.zeros((*x.shape[:-1], rows, columns), x.dtype)
        k = np.arange(x.shape[-1])
        out[..., k - min(offset, 0), k + max(offset, 0)] = x
        return out

    def vjp(self, g, y, x, *, offset, rows, columns):
        return (_diagonal(g, offset),)

    def __call__(self, x, offset, rows, columns):
        return make(self, [as_tensor(x)], offset=offset, rows=rows, columns=columns)


diagonal_matrix = DiagonalMatrix("diagonal_matrix")


def diagonal(x, offset=0, axis1=0, axis2=1):
    """The diagonal of two axes, as a new last axis."""
    x = as_tensor(x)
    a, b = (normalize_axis(axis, x.ndim, "diagonal") for axis in (axis1, axis2))
    if a == b:
        raise ShapeError(
            four_parts(
                f"diagonal of axes {axis1} and {axis2}", "two different axes are needed", show(user_line())
            )
        )
    return _diagonal(moveaxis(x, (a, b), (-2, -1)), int(offset))


def diag(x, k=0):
    """The k-th diagonal of a matrix, or a square matrix with the vector x on that diagonal."""
    x = as_tensor(x)
    if x.ndim == 1:
        return diagonal_matrix(x, int(k), x.dims[0] + abs(k), x.dims[0] + abs(k))
    if x.ndim != 2:
        raise ShapeError(
            four_parts(
                "diag of a vector or a matrix",
                f"{x._type}",
                show(user_line()),
                "T.diagonal(x, 0, axis1, axis2)",
            )
        )
    return diagonal(x, k)


def trace(x, offset=0, axis1=0, axis2=1):
    """The sum of the diagonal of two axes."""
    return ROWS["sum"](diagonal(x, offset, axis1, axis2), -1)


__all__ = [
    "as_shape",
    "as_size",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "broadcast_arrays",
    "broadcast_to",
    "diag",
    "diagonal",
    "expand_dims",
    "matrix_transpose",
    "moveaxis",
    "permute_dims",
    "ravel",
    "reshape",
    "shape_tuple",
    "squeeze",
    "swapaxes",
    "trace",
    "transpose",
]
