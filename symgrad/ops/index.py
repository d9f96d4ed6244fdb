"""Indexing: `x[...]` as in NumPy, its adjoints, and what is made of them.

Reading is `subtensor` (slices, positions, new axes: ops/shape.py) or `gather` (index arrays too). Writing is
`index_set` and `index_add`, copies of x with that part replaced or incremented; gather and index_add are each
other's adjoint. Indices count from the end when negative. One outside its axis is an error: where the sizes
are known, at the user's line; else at the call, which is what `bounds_checked` and `sizes_checked` of a row
are for (see ops/bounds.py). `at` never reads outside, whatever it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import CONSTANT, Node, constant, make
from ..graph.types import Type, broadcast_dims, dim_text, is_one, shape_text
from ..loops import ir
from ..loops.ir import E, View
from .arrange import pad_constant, stack
from .create import arange, zeros_like
from .elementwise import clip, equal, maximum, minimum, number, remainder, where
from .partition import nonzero
from .row import STOP, Row, as_tensor, broadcast_index, cast, normalize_axis, promoted, sample
from .shape import (
    BoundsError,
    Items,
    as_size,
    basic_dims,
    basic_source,
    basic_target,
    broadcast_arrays,
    broadcast_to,
    check_positions,
    common_dims,
    expand_dims,
    flatten,
    full_item,
    ints_inside,
    numpy_items,
    reshape,
    shape_tuple,
    slice_item,
    source_axes,
    subtensor,
    unflatten,
    zeros_of,
)
from .sizes import differ


# --------------------------------------------------------------------------------------- reading a key
def getitem(x: Node, key: Any) -> Node:
    """x[key] by NumPy's rules.

    A key may hold ints, slices, None, Ellipsis, integer arrays and boolean arrays, variables or not.
    """
    items, arrays, place = read_key(x, key)
    if arrays:
        return gather(x, arrays, items, place)
    whole = [item == full_item(d) for d, item in zip(x.dims, (item for item in items if item[0] != "new"))]
    if all(whole) and len(items) > x.ndim:
        return reshape(x, basic_dims(items))
    return subtensor(x, items)


def read_key(x: Node, key: Any) -> tuple[Items, list[Node], int]:
    """The index items of a key, its index arrays, and the place of their dims among the result's.

    Arrays and single positions that stand side by side leave their dims in place, otherwise they come first
    (NumPy's rule).
    """
    entries: list[Any] = []
    for entry in key if isinstance(key, tuple) else (key,):
        axis = None if any(e is Ellipsis for e in entries) else sum(e is not None for e in entries)
        entries += _entry(x, entry, axis)
    consumed = sum(e is not None and e is not Ellipsis for e in entries)
    if consumed > x.ndim or sum(e is Ellipsis for e in entries) > 1:
        raise BoundsError(
            four_parts(
                f"indexing with {consumed} indices",
                f"{x._type}, made at {x.where}",
                show(user_line()),
                f"at most {x.ndim} indices and one ellipsis",
            )
        )
    if not any(e is Ellipsis for e in entries):
        entries.append(Ellipsis)
    items: list[tuple] = []
    arrays: list[Node] = []
    advanced = _advanced_entries(entries)
    axis = 0
    for entry in entries:
        if entry is Ellipsis:
            for _ in range(x.ndim - consumed):
                items.append(full_item(x.dims[axis]))
                axis += 1
        elif entry is None:
            items.append(("new",))
        else:
            item = _item(x, axis, entry)
            if isinstance(item, Node):
                arrays.append(item)
                item = ("array",)
            items.append(item)
            axis += 1
    first = next((k for k, item in enumerate(items) if item[0] == "array" or item[0] == "int"), 0)
    before = sum(item[0] in ("slice", "new") for item in items[:first])
    adjacent = advanced == list(range(advanced[0], advanced[-1] + 1)) if advanced else True
    return tuple(items), arrays, before if adjacent else 0


def _advanced_entries(entries: Sequence[Any]) -> list[int]:
    return [
        k for k, e in enumerate(entries) if e is not None and e is not Ellipsis and not isinstance(e, slice)
    ]


def _entry(x: Node, entry: Any, axis: int | None) -> list[Any]:
    """A key's entry, checked: boolean masks become positions, lists become arrays."""
    if entry is None or entry is Ellipsis or isinstance(entry, slice):
        return [entry]
    if isinstance(entry, (int, np.integer)) and not isinstance(entry, (bool, np.bool_)):
        return [int(entry)]
    if isinstance(entry, (list, tuple)) and not len(entry):
        entry = np.zeros(0, "int64")
    entry = as_tensor(entry)
    if entry.dtype == "bool":
        if not entry.ndim:
            raise DTypeError(
                four_parts(
                    "indexing with a boolean array",
                    f"a 0-d {entry._type}, made at {entry.where}",
                    show(user_line()),
                    "a mask of the sizes of the axes it selects from, or sg.ifelse",
                )
            )
        if axis is not None and any(map(differ, entry.dims, x.dims[axis:])):
            raise BoundsError(
                four_parts(
                    f"a mask over axis {axis} of {x._type}, made at {x.where}",
                    f"a mask of shape {shape_text(entry.dims)}, made at {entry.where}",
                    show(user_line()),
                    "a mask of the sizes of the axes it selects from",
                )
            )
        if entry.op is CONSTANT:
            return [constant(k, "int64") for k in np.nonzero(entry.payload)]
        return list(nonzero(entry))
    if not dtypes.is_integer(entry.dtype):
        raise DTypeError(
            four_parts(
                "indexing with integers",
                f"{entry._type}, made at {entry.where}",
                show(user_line()),
                "index.astype('int64')",
            )
        )
    return [entry]


def _item(x: Node, axis: int, entry: Any) -> Any:
    """The index item of a checked entry, or the index array it is."""
    size = x.dims[axis]
    if isinstance(entry, slice):
        return slice_item(entry, size)
    if isinstance(entry, Node) and entry.ndim == 0:
        position = as_size(cast(entry, "int64"), "an index")
        if not any(a.kind == "value" for a in poly.atoms(position)):
            entry = position
    if not isinstance(entry, Node):
        return "int", _position(x, axis, entry)
    if entry.op is CONSTANT:
        return _known_positions(x, axis, entry)
    return cast(entry, "int64")


def _position(x: Node, axis: int, k: Any) -> Any:
    """k counted from the start. Raises BoundsError when it is known to lie outside."""
    size = x.dims[axis]
    if isinstance(k, int) and isinstance(size, int) and not -size <= k < size:
        raise _outside(x, axis, k)
    low, high = poly.bounds(k)
    if low >= 0:
        return k
    return k + size * (1 if high < 0 else poly.maximum(poly.minimum(-k, 1), 0))


def _known_positions(x: Node, axis: int, indices: Node) -> Node:
    size, k = x.dims[axis], indices.payload.astype("int64")
    if isinstance(size, int):
        wrong = k[(k < -size) | (k >= size)]
        if wrong.size:
            raise _outside(x, axis, int(wrong.flat[0]))
        k = np.where(k < 0, k + size, k)
    return constant(k, "int64")


def _outside(x: Node, axis: int, k: Any) -> BoundsError:
    return BoundsError(
        four_parts(
            f"index {k} on axis {axis}",
            f"size {dim_text(x.dims[axis])} there in {x._type}, made at {x.where}",
            show(user_line()),
            f"indices from {-x.dims[axis]} to {x.dims[axis] - 1}",
        )
    )


# ----------------------------------------------------------------------------------- reading by arrays
def wrapped(k: E, size: Any) -> Any:
    """An index as a polynomial, counted from the start."""
    position = ir.as_index(k)
    if poly.bounds(position)[0] >= 0:
        return position
    return ir.as_index(
        ir.select(ir.index(position) < 0, ir.index(position) + ir.index(size), ir.index(position))
    )


def clamped(k: E, size: Any) -> Any:
    """An index as a polynomial, counted from the start, moved inside the axis where it lies outside."""
    position = wrapped(k, size)
    if poly.bounds(position)[0] >= 0 and ir.compare("lt", position, size).kind == "lit":
        return position
    inside = ir.call("minimum", ir.call("maximum", ir.index(position), 0), ir.index(size - 1))
    return ir.as_index(inside)


def _array_axes(items: Items) -> list[int]:
    return [axis for axis, item in source_axes(items) if item[0] == "array"]


def _part_dims(items: Items, place: int, *arrays: Any) -> tuple:
    basic = basic_dims(items)
    return (*basic[:place], *_array_dims(arrays), *basic[place:])


def _array_dims(arrays: Sequence[Any]) -> tuple:
    return broadcast_dims(*(a.dims for a in arrays), what="index arrays")


def _numpy_place(items: Items) -> int:
    """Where NumPy puts the dims of the arrays for these items."""
    at = [k for k, item in enumerate(items) if item[0] in ("array", "int")]
    adjacent = at == list(range(at[0], at[-1] + 1))
    return sum(item[0] in ("slice", "new") for item in items[: at[0]]) if adjacent else 0


def _moved(x: np.ndarray, n: int, source: int, destination: int) -> np.ndarray:
    """x with n axes at `source` moved to `destination`."""
    return np.moveaxis(x, range(source, source + n), range(destination, destination + n))


_rows = np.array([2, -1, 0, 2])
_grid = np.array([[0, 1], [-2, 1]])
_read_items = ((("array",), ("slice", 0, 1, 3)), 0)


class Gather(Row):
    """Elements of x at index arrays, which broadcast together, combined with slices, positions and new axes.

    Inputs: x, int64 arrays. Attributes: items (see ops/shape.py), place (where the arrays' dims stand in the
    result).
    """

    public = False
    samples = [
        sample((3, 4), _rows, items=(("array",), ("slice", 0, 1, 4)), place=0),
        sample((3, 4), _grid, items=(("slice", 1, 1, 2), ("array",)), place=1),
        sample((3, 2, 4), _rows, np.array(1), items=(("array",), ("slice", 0, 1, 2), ("array",)), place=0),
        sample((3, 4), _rows, _grid[:, :1], items=(("array",), ("array",)), place=0),
        sample((3, 4), _rows, items=(("int", 1), ("array",)), place=0),
        sample((3,), np.zeros((0,), "int64"), items=(("new",), ("array",)), place=1),
        sample(
            (3,),
            _rows,
            dtypes=("int64", "uint8", "bool"),
            low=0,
            high=2,
            items=(("array",),),
            place=0,
            grad=False,
        ),
    ]

    def infer(self, x: Type, *arrays: Type, items: Items, place: int) -> Type:
        check_positions(items, x.dims)
        return Type(x.dtype, _part_dims(items, place, *arrays))

    def at(self, i: tuple, x: View, *arrays: View, items: Items, place: int) -> E:
        n = max(a.ndim for a in arrays)
        source = list(basic_source((*i[:place], *i[place + n :]), items))
        for axis, a in zip(_array_axes(items), arrays):
            source[axis] = clamped(a[broadcast_index(i[place : place + n], a.dims)], x.dims[axis])
        inside = ir.both(
            ints_inside(items, x.dims), *(ir.compare("gt", x.dims[axis], 0) for axis in _array_axes(items))
        )
        return ir.cond(inside, x[tuple(source)], ir.literal(0, x.dtype))

    def numpy(self, x, *arrays, items, place):
        part = x[numpy_items(items, x.shape, arrays)]
        n = np.broadcast(*arrays).ndim
        return np.ascontiguousarray(_moved(part, n, _numpy_place(items), place))

    def vjp(self, g, y, x, *arrays, items, place):
        return index_add.raw(zeros_of(x), g, items, arrays, place), *(STOP for _ in arrays)

    def bounds_checked(self, x: Type, *arrays: Type, items: Items, place: int) -> list[tuple[int, Any]]:
        """(input number, size) pairs: those inputs hold indices that must lie in [-size, size)."""
        return [(k + 1, x.dims[axis]) for k, axis in enumerate(_array_axes(items))]

    def sizes_checked(self, x: Type, *arrays: Type, items: Items, place: int) -> list[tuple[Any, Any]]:
        return subtensor.sizes_checked(x, items=items)

    def __call__(self, x, arrays, items, place):
        return make(self, [as_tensor(x), *arrays], items=items, place=place)


gather = Gather("gather")


# ------------------------------------------------------------------------------------------- writing
class Scatter(Row):
    """A copy of x with the part that the items and index arrays name changed by v, which has the part's dims.

    Inputs: x, v, int64 arrays. Attributes: items, place, as for gather.
    `at` goes through all updates for each element. A scheduler with loops over updates does better with
    `update`: it copies x and then, in row-major order of the dims of v, stores (`accumulate` False) or adds
    what `update` says.
    """

    public = False
    accumulate = False
    samples = [
        sample((5, 4), (2, 2), items=(("slice", 1, 2, 2), ("slice", 3, -2, 2)), place=0),
        sample((4, 3), (3,), items=(("int", 2), ("slice", 0, 1, 3)), place=0),
        sample((3, 4), (4, 4), _rows, items=(("array",), ("slice", 0, 1, 4)), place=0),
        sample((3, 4), (2, 2, 2), _grid, items=(("slice", 1, 1, 2), ("array",)), place=1),
        sample(
            (3, 2, 4), (4, 2), _rows, np.array(1), items=(("array",), ("slice", 0, 1, 2), ("array",)), place=0
        ),
        sample((3,), (0,), np.zeros((0,), "int64"), items=(("array",),), place=0),
        sample(
            (3,),
            (4,),
            _rows,
            dtypes=("int64", "uint8"),
            low=0,
            high=5,
            items=(("array",),),
            place=0,
            grad=False,
        ),
    ]

    def infer(self, x: Type, v: Type, *arrays: Type, items: Items, place: int) -> Type:
        check_positions(items, x.dims)
        return x

    def at(self, i: tuple, x: View, v: View, *arrays: View, items: Items, place: int) -> E:
        hit, part = basic_target(i, items, x.dims)
        if not arrays:
            new = x[i] + v[part] if self.accumulate else v[part]
            return ir.cond(hit, new, x[i])
        dims = _array_dims(arrays)

        def chosen(ks: tuple) -> E:
            return ir.both(
                *(
                    ir.call(
                        "eq",
                        ir.index(wrapped(a[broadcast_index(ks, a.dims)], x.dims[axis])),
                        ir.index(i[axis]),
                    )
                    for axis, a in zip(_array_axes(items), arrays)
                )
            )

        def value(ks: tuple) -> E:
            return v[(*part[:place], *ks, *part[place:])]

        if self.accumulate:
            total = ir.fold("add", dims, lambda *ks: ir.cond(chosen(ks), value(ks), ir.literal(0, x.dtype)))
            return ir.cond(hit, x[i] + total, x[i])
        last = ir.fold(
            "maximum",
            dims,
            lambda *ks: ir.select(chosen(ks), ir.index(flatten(ks, dims)), ir.literal(-1, "int64")),
        )
        return ir.cond(hit, ir.cond(last >= 0, value(unflatten(ir.as_index(last), dims)), x[i]), x[i])

    def update(
        self, j: tuple, x: View, v: View, *arrays: View, items: Items, place: int
    ) -> tuple[E, tuple, E]:
        """Update number j: whether it happens, the element of x it changes, and its value."""
        n = max((a.ndim for a in arrays), default=0)
        target = list(basic_source((*j[:place], *j[place + n :]), items))
        for axis, a in zip(_array_axes(items), arrays):
            target[axis] = clamped(a[broadcast_index(j[place : place + n], a.dims)], x.dims[axis])
        inside = ir.both(
            ints_inside(items, x.dims), *(ir.compare("gt", x.dims[axis], 0) for axis in _array_axes(items))
        )
        return inside, tuple(target), v[j]

    def numpy(self, x, v, *arrays, items, place):
        out, where_ = x.copy(), numpy_items(items, x.shape, arrays)
        if arrays:
            v = _moved(v, np.broadcast(*arrays).ndim, place, _numpy_place(items))
        if self.accumulate:
            np.add.at(out, where_, v)
        else:
            out[where_] = v
        return out

    def bounds_checked(
        self, x: Type, v: Type, *arrays: Type, items: Items, place: int
    ) -> list[tuple[int, Any]]:
        return [(k + 2, x.dims[axis]) for k, axis in enumerate(_array_axes(items))]

    def sizes_checked(
        self, x: Type, v: Type, *arrays: Type, items: Items, place: int
    ) -> list[tuple[Any, Any]]:
        return subtensor.sizes_checked(x, items=items)

    def raw(self, x: Node, v: Node, items: Items, arrays: Sequence[Node] = (), place: int = 0) -> Node:
        """The node, from parts that already fit."""
        return make(self, [x, v, *arrays], items=items, place=place)

    def __call__(self, x, v, *arrays, items, place=0):
        return self.raw(as_tensor(x), as_tensor(v), items, [as_tensor(a) for a in arrays], place)


class IndexAdd(Scatter):
    """x with v added to part of it; an element named several times gets every addition."""

    accumulate = True

    def vjp(self, g, y, x, v, *arrays, items, place):
        return g, _read(g, items, arrays, place), *(STOP for _ in arrays)


class IndexSet(Scatter):
    """x with part of it replaced by v.

    Where an element is named several times the last value stays, and gets the gradient.
    """

    def vjp(self, g, y, x, v, *arrays, items, place):
        gx = self.raw(g, zeros_like(v), items, arrays, place)
        gv = _read(g, items, arrays, place)
        if _may_repeat(arrays):
            number_of = broadcast_to(reshape(arange(_elements(v)), v.dims), v.dims)
            last = _read(
                self.raw(zeros_like(x, "int64"), number_of, items, arrays, place), items, arrays, place
            )
            gv = where(equal(last, number_of), gv, number(0, gv))
        return gx, gv, *(STOP for _ in arrays)


def _elements(v: Node) -> Any:
    return v._type.size


def _may_repeat(arrays: Sequence[Node]) -> bool:
    """Whether an element may be named twice: not by slices, nor by known positions that differ."""
    if all(a.op is CONSTANT for a in arrays):
        named = (
            np.stack([a.ravel() for a in np.broadcast_arrays(*(a.payload for a in arrays))], 1)
            if arrays
            else np.zeros((0, 1))
        )
        return bool((named < 0).any()) or len(np.unique(named, axis=0)) < len(named)
    return True


def _read(x: Node, items: Items, arrays: Sequence[Node], place: int) -> Node:
    return gather(x, arrays, items, place) if arrays else subtensor(x, items)


index_add, index_set = IndexAdd("index_add"), IndexSet("index_set")


def set_subtensor(part, value):
    """A copy of x with x[idx] replaced by value: `set_subtensor(x[idx], value)`.

    Of repeated indices the last value stays.
    """
    return _written(part, value, index_set, "set_subtensor")


def inc_subtensor(part, value):
    """A copy of x with value added to x[idx]: `inc_subtensor(x[idx], value)`. Repeated indices add up."""
    return _written(part, value, index_add, "inc_subtensor")


def _written(part: Any, value: Any, row: Scatter, what: str) -> Node:
    if not isinstance(part, Node) or part.op not in (subtensor, gather, reshape):
        raise DTypeError(
            four_parts(
                f"{what}(x[idx], value)",
                f"{type(part).__name__}"
                if not isinstance(part, Node)
                else f"{part.op.name}, made at {part.where}",
                show(user_line()),
                "an indexed variable as the first argument",
            )
        )
    value = _fitting(value, part, what)
    x, *arrays = part.inputs
    if part.op is reshape:  # x[None], x[:, None]: all of x
        return reshape(value if row is index_set else part + value, x.dims)
    return row.raw(x, value, part.attrs["items"], arrays, part.attrs.get("place", 0))


def _fitting(value: Any, part: Node, what: str) -> Node:
    """value as the part's dtype and dims."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = promoted(value, part)[0]
    value = as_tensor(value)
    if dtypes.is_float(value.dtype) and not dtypes.is_float(part.dtype):
        raise DTypeError(
            four_parts(
                f"{what} of {part.dtype} elements",
                f"{value.dtype} values",
                show(user_line()),
                f"value.astype('{part.dtype}')",
            )
        )
    common = common_dims([value.dims, part.dims], what)
    if value.ndim > part.ndim or any(
        isinstance(d, int) and is_one(s) and d != 1 for d, s in zip(common, part.dims)
    ):
        raise ShapeError(
            four_parts(
                f"{what} of a part {shape_text(part.dims)}",
                f"values {shape_text(value.dims)}",
                show(user_line()),
                "values that broadcast to the part",
            )
        )
    return broadcast_to(cast(value, part.dtype), part.dims)


# --------------------------------------------------------------------------------- along one axis
class TakeAlongAxis(Row):
    """x at indices along one axis, position by position on the others. Inputs: x, int64 indices.

    Attribute: axis.
    """

    samples = [
        sample((3, 4), np.array([[3, -1], [0, 0], [2, 1]]), axis=1),
        sample((3, 4), np.array([[0, 1, 2, -3]]), axis=0),
        sample((3,), np.zeros((0,), "int64"), axis=0),
        sample((3,), np.array([1, 1]), dtypes=("int64", "bool"), low=0, high=2, axis=0, grad=False),
    ]

    def infer(self, x: Type, indices: Type, *, axis: int) -> Type:
        dims = [
            a if k == axis or not isinstance(d, int) else d
            for k, (d, a) in enumerate(zip(x.dims, indices.dims))
        ]
        wrong = [
            k
            for k, (d, a) in enumerate(zip(x.dims, indices.dims))
            if k != axis and isinstance(d, int) and isinstance(a, int) and d != a
        ]
        if wrong:
            raise ShapeError(
                four_parts(
                    f"take_along_axis {axis}",
                    [f"x {shape_text(x.dims)}", f"indices {shape_text(indices.dims)}"],
                    attempt=f"sizes on axis {wrong[0]} must be equal or 1",
                )
            )
        return Type(x.dtype, dims)

    def at(self, i: tuple, x: View, indices: View, *, axis: int) -> E:
        k = clamped(indices[i], x.dims[axis])
        return ir.cond(
            ir.compare("gt", x.dims[axis], 0), x[(*i[:axis], k, *i[axis + 1 :])], ir.literal(0, x.dtype)
        )

    def numpy(self, x, indices, *, axis):
        return np.take_along_axis(x, indices, axis)

    def vjp(self, g, y, x, indices, *, axis):
        return add_along_axis(zeros_of(x), indices, g, axis), STOP

    def bounds_checked(self, x: Type, indices: Type, *, axis: int) -> list[tuple[int, Any]]:
        return [(1, x.dims[axis])]

    def __call__(self, x, indices, axis=-1):
        x, indices = as_tensor(x), _integers(indices, "take_along_axis")
        if axis is None:
            x, axis = reshape(x, -1), 0
        axis = normalize_axis(axis, x.ndim, "take_along_axis")
        if x.ndim != indices.ndim:
            raise ShapeError(
                four_parts(
                    "take_along_axis",
                    [f"x {shape_text(x.dims)}", f"indices {shape_text(indices.dims)}"],
                    show(user_line()),
                    "x and indices with the same number of axes",
                )
            )
        return make(self, [*_aligned(x, indices, axis)], axis=axis)


take_along_axis = TakeAlongAxis("take_along_axis")


def _aligned(x: Node, indices: Node, axis: int) -> tuple[Node, Node]:
    """Both, broadcast against each other on every other axis; indices known to lie outside are refused."""
    if indices.op is CONSTANT:
        indices = _known_positions(x, axis, indices)
    rest = common_dims(
        [[1 if k == axis else d for k, d in enumerate(v.dims)] for v in (x, indices)], "take_along_axis"
    )

    def wide(v: Node) -> Node:
        return broadcast_to(v, tuple(v.dims[axis] if k == axis else d for k, d in enumerate(rest)))

    return wide(x), wide(indices)


class AddAlongAxis(Row):
    """x with v added at indices along one axis; the adjoint of take_along_axis.

    Inputs: x, int64 indices, v. Attribute: axis.
    """

    public = False
    accumulate = True
    samples = [
        sample((3, 4), np.array([[3, -1], [0, 0], [2, 1]]), (3, 2), axis=1),
        sample((3, 4), np.array([[0, 1, 2, -3]]), (1, 4), axis=0),
        sample((3,), np.zeros((0,), "int64"), (0,), axis=0),
    ]

    def infer(self, x: Type, indices: Type, v: Type, *, axis: int) -> Type:
        return x

    def at(self, i: tuple, x: View, indices: View, v: View, *, axis: int) -> E:
        def term(k: Any) -> E:
            j = (*i[:axis], k, *i[axis + 1 :])
            hit = ir.call("eq", ir.index(wrapped(indices[j], x.dims[axis])), ir.index(i[axis]))
            return ir.cond(hit, v[j], ir.literal(0, x.dtype))

        return x[i] + ir.fold("add", [v.dims[axis]], term)

    def update(self, j: tuple, x: View, indices: View, v: View, *, axis: int) -> tuple[E, tuple, E]:
        """Update number j: whether it happens, the element of x it changes, and its value."""
        return (
            ir.compare("gt", x.dims[axis], 0),
            (*j[:axis], clamped(indices[j], x.dims[axis]), *j[axis + 1 :]),
            v[j],
        )

    def numpy(self, x, indices, v, *, axis):
        out = x.copy()
        grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
        grid[axis] = indices
        np.add.at(out, tuple(grid), v)
        return out

    def vjp(self, g, y, x, indices, v, *, axis):
        return g, STOP, take_along_axis(g, indices, axis)

    def bounds_checked(self, x: Type, indices: Type, v: Type, *, axis: int) -> list[tuple[int, Any]]:
        return [(1, x.dims[axis])]

    def __call__(self, x, indices, v, axis):
        return make(self, [as_tensor(x), as_tensor(indices), as_tensor(v)], axis=axis)


add_along_axis = AddAlongAxis("add_along_axis")


def _integers(indices: Any, what: str) -> Node:
    indices = as_tensor(indices)
    if not dtypes.is_integer(indices.dtype):
        raise DTypeError(
            four_parts(
                f"{what} with integer indices",
                f"{indices._type}",
                show(user_line()),
                "indices.astype('int64')",
            )
        )
    return cast(indices, "int64")


def take(x, indices, axis=None, mode="raise"):
    """x at integer indices along an axis (of the flattened x by default); their dims take its place.

    mode: what an index outside the axis does: "raise", "wrap" around, or "clip" to the ends (then negative
    ones mean the first).
    """
    x = as_tensor(x)
    indices = _integers(indices, "take")
    x, axis = (reshape(x, -1), 0) if axis is None else (x, normalize_axis(axis, x.ndim, "take"))
    if mode not in ("raise", "wrap", "clip"):
        raise ShapeError(
            four_parts(f"take with mode={mode!r}", "it is 'raise', 'wrap' or 'clip'", show(user_line()))
        )
    n = shape_tuple(x)[axis]
    if mode == "wrap":
        indices = remainder(indices, n)
    elif mode == "clip":
        indices = clip(indices, 0, n - 1)
    return getitem(x, (*(slice(None),) * axis, indices))


def choose(a, choices, mode="raise"):
    """choices[a] position by position: a says which of the choices to take there. All broadcast."""
    a, n = _integers(a, "choose"), len(choices)
    if mode == "wrap":
        a = remainder(a, n)
    elif mode == "clip":
        a = clip(a, 0, n - 1)
    a, *choices = broadcast_arrays(a, *promoted(*choices))
    return reshape(take_along_axis(stack(choices), expand_dims(a, 0), 0), a.dims)


def one_hot(labels, num_classes, dtype="int64"):
    """1 at the class each integer label names, 0 at the other classes, along a new last axis.

    Labels outside give zeros.
    """
    labels = _integers(labels, "one_hot")
    return cast(equal(expand_dims(labels, -1), arange(num_classes)), dtype)


# ------------------------------------------------------------------------------------------- padding
def pad(x, pad_width, mode="constant", constant_values=0):
    """x with a border, as numpy.pad. pad_width: an int, (before, after), or one such pair for each axis.

    mode: "constant", "edge" (the end value), "reflect" and "symmetric" (mirrored without and with the end
    value), "wrap".
    """
    x = as_tensor(x)
    widths = _widths(pad_width, x.ndim)
    if mode == "constant":
        if np.ndim(constant_values):
            raise ShapeError(
                four_parts(
                    f"pad with constant_values={constant_values!r}",
                    "one value is meant for all sides",
                    show(user_line()),
                )
            )
        return pad_constant(x, widths, float(constant_values)) if x.ndim else x
    if mode not in _MIRRORS:
        raise ShapeError(
            four_parts(
                f"pad with mode={mode!r}", f"known are constant, {', '.join(_MIRRORS)}", show(user_line())
            )
        )
    sizes = shape_tuple(x)
    for axis, (before, after) in enumerate(widths):
        if not (isinstance(before, int) and isinstance(after, int) and before == after == 0):
            k = arange(-before, x.dims[axis] + after)
            x = getitem(x, (*(slice(None),) * axis, _MIRRORS[mode](k, sizes[axis])))
    return x


def _bounce(k: Node, last: Any) -> Node:
    """k reflected between 0 and last."""
    k = remainder(k, maximum(2 * last, 1))
    return minimum(minimum(k, 2 * last - k), last)  # the outer one says what the inner one implies


def _bounce_twice(k: Node, n: Any) -> Node:
    """0 .. n-1 and back again for k in 0 .. 2n-1."""
    return minimum(minimum(k, 2 * n - 1 - k), n - 1)


_MIRRORS = {
    "edge": lambda k, n: clip(k, 0, n - 1),
    "wrap": lambda k, n: remainder(k, n),
    "reflect": lambda k, n: _bounce(k, n - 1),
    "symmetric": lambda k, n: _bounce_twice(remainder(k, 2 * n), n),
}


def _widths(pad_width: Any, ndim: int) -> tuple:
    """(before, after) for each axis, from an int, one pair, or a pair for each axis."""
    entries = pad_width if isinstance(pad_width, (tuple, list, np.ndarray)) else (pad_width, pad_width)
    pairs = [tuple(p) if isinstance(p, (tuple, list, np.ndarray)) else None for p in entries]
    if not any(p is not None for p in pairs):
        flat = tuple(entries) if len(entries) == 2 else (entries[0],) * 2 if len(entries) == 1 else ()
        pairs = [flat] * ndim
    pairs = [
        p * 2 if p is not None and len(p) == 1 else p for p in (pairs * ndim if len(pairs) == 1 else pairs)
    ]
    if len(pairs) != ndim or any(p is None or len(p) != 2 for p in pairs):
        raise ShapeError(
            four_parts(
                f"pad with widths {pad_width!r}",
                f"the operand has {ndim} axes",
                show(user_line()),
                "an int, (before, after), or one pair for each axis",
            )
        )
    widths = tuple((as_size(a, "a padding"), as_size(b, "a padding")) for a, b in pairs)
    if any(isinstance(w, int) and w < 0 for pair in widths for w in pair):
        raise ShapeError(
            four_parts(
                f"pad with widths {widths}",
                "a width is at least 0",
                show(user_line()),
                "slice to take elements away",
            )
        )
    return widths


def setitem(x: Node, key: Any, value: Any) -> None:
    """Refuses: variables do not change."""
    raise DTypeError(
        four_parts(
            "x[idx] = value",
            "variables do not change",
            show(user_line()),
            "y = T.set_subtensor(x[idx], value)",
        )
    )


__all__ = ["choose", "inc_subtensor", "one_hot", "pad", "set_subtensor", "take", "take_along_axis"]
