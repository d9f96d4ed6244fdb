"""Arrays put together, taken apart, turned, padded and repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, make
from ..graph.types import Type, shape_text
from ..loops import ir
from ..loops.ir import E, View
from .elementwise import not_equal
from .row import Row, as_tensor, normalize_axes, normalize_axis, promoted, sample
from .shape import (
    as_shape,
    as_size,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    broadcast_to,
    expand_dims,
    full_item,
    reshape,
    slice_axis,
    slice_item,
    subtensor,
    swapaxes,
)


# ------------------------------------------------------------------------------------ concatenate, stack
class Concatenate(Row):
    """The operands one after the other along an axis that exists. Sizes on the other axes are equal.

    Attribute: axis.
    """

    samples = [
        sample((3, 4), (2, 4), (1, 4), axis=0),
        sample((3, 1), (3, 4), axis=1),
        sample((0, 2), (3, 2), axis=0),
        sample((2, 3), axis=0),
        sample((3,), (2,), dtypes=("int64", "bool", "uint8"), low=0, high=2, axis=0, grad=False),
    ]

    def infer(self, *xs: Type, axis: int) -> Type:
        dims = list(xs[0].dims)
        for x in xs[1:]:
            for k, d in enumerate(x.dims):
                if k == axis:
                    dims[k] = dims[k] + d
                elif not isinstance(dims[k], int):
                    dims[k] = d
                elif isinstance(d, int) and d != dims[k]:
                    raise ShapeError(
                        four_parts(
                            f"concatenate along axis {axis}",
                            [shape_text(x.dims) for x in xs],
                            attempt=f"sizes on axis {k} must be equal",
                        )
                    )
        return Type(xs[0].dtype, dims)

    def at(self, i: tuple, *xs: View, axis: int) -> E:
        ends = [0]
        for x in xs:
            ends.append(ends[-1] + x.dims[axis])

        def element(k: int) -> E:
            return xs[k][(*i[:axis], i[axis] - ends[k], *i[axis + 1 :])]

        result = element(len(xs) - 1)
        for k in range(len(xs) - 2, -1, -1):
            result = ir.cond(ir.compare("lt", i[axis], ends[k + 1]), element(k), result)
        return result

    def numpy(self, *xs, axis):
        return np.concatenate(xs, axis=axis)

    def vjp(self, g, y, *xs, axis):
        return tuple(split_at(g, [x.dims[axis] for x in xs], axis))

    def __call__(self, xs, axis=0, *, dim=None):
        xs = promoted(*xs)
        if axis is None:
            xs, axis = [reshape(x, -1) for x in xs], 0
        _same_rank(xs, "concatenate")
        if not xs[0].ndim:
            raise ShapeError(four_parts("concatenate", "0-d operands", show(user_line()), "T.stack"))
        axis = normalize_axis(axis, xs[0].ndim, "concatenate")
        return xs[0] if len(xs) == 1 else make(self, xs, axis=axis)


concatenate = Concatenate("concatenate")
concat = concatenate


def _same_rank(xs: Sequence[Node], what: str) -> None:
    if len({x.ndim for x in xs}) != 1:
        raise ShapeError(
            four_parts(
                what,
                [shape_text(x.dims) for x in xs] or "no operands",
                show(user_line()),
                "operands with the same number of axes",
            )
        )


def append(x, values, axis=None):
    """x and then the values along an axis; both flattened without one."""
    return concatenate([x, values], axis)


class Stack(Row):
    """The operands, all of one shape, next to each other along a new axis. Attribute: axis."""

    samples = [
        sample((3, 4), (3, 4), axis=0),
        sample((3,), (3,), (3,), axis=1),
        sample((), (), axis=0),
        sample((0, 2), (0, 2), axis=1),
    ]

    def infer(self, *xs: Type, axis: int) -> Type:
        dims = list(xs[0].dims)
        for x in xs[1:]:
            for k, d in enumerate(x.dims):
                if not isinstance(dims[k], int):
                    dims[k] = d
                elif isinstance(d, int) and d != dims[k]:
                    raise ShapeError(
                        four_parts("stack of operands of one shape", [shape_text(x.dims) for x in xs])
                    )
        return Type(xs[0].dtype, (*dims[:axis], len(xs), *dims[axis:]))

    def at(self, i: tuple, *xs: View, axis: int) -> E:
        rest = (*i[:axis], *i[axis + 1 :])
        result = xs[-1][rest]
        for k in range(len(xs) - 2, -1, -1):
            result = ir.cond(ir.compare("le", i[axis], k), xs[k][rest], result)
        return result

    def numpy(self, *xs, axis):
        return np.stack(xs, axis=axis)

    def vjp(self, g, y, *xs, axis):
        return tuple(unstack(g, axis))

    def __call__(self, *xs, axis=0):
        xs = xs[0] if len(xs) == 1 and not isinstance(xs[0], Node) else xs
        if len(xs) == 2 and isinstance(xs[0], (list, tuple)) and isinstance(xs[1], int):
            xs, axis = xs  # numpy.stack(arrays, axis)
        xs = promoted(*xs)
        _same_rank(xs, "stack")
        axis = normalize_axis(axis, xs[0].ndim + 1, "stack")
        return expand_dims(xs[0], axis) if len(xs) == 1 else make(self, xs, axis=axis)


stack = Stack("stack")


def hstack(xs):
    """The operands side by side: along axis 1, or along axis 0 when they have one axis."""
    xs = [atleast_1d(x) for x in xs]
    return concatenate(xs, 0 if xs[0].ndim == 1 else 1)


def vstack(xs):
    """The operands below each other; 1-d operands are rows."""
    return concatenate([atleast_2d(x) for x in xs], 0)


def dstack(xs):
    """The operands behind each other, along axis 2."""
    return concatenate([atleast_3d(x) for x in xs], 2)


def column_stack(xs):
    """1-d operands as the columns of a matrix; 2-d operands side by side."""
    xs = [as_tensor(x) for x in xs]
    return concatenate([reshape(x, (-1, 1)) if x.ndim < 2 else x for x in xs], 1)


# -------------------------------------------------------------------------------------------- parts
def unstack(x, axis=0):
    """A list of the parts of x along an axis of known size, without that axis."""
    x = as_tensor(x)
    axis = normalize_axis(axis, x.ndim, "unstack")
    if not isinstance(x.dims[axis], int):
        raise ShapeError(
            four_parts(
                f"unstack along axis {axis}",
                f"{x._type}: its size is not known",
                show(user_line()),
                "sg.scan",
            )
        )
    items = [full_item(d) for d in x.dims]
    return [subtensor(x, (*items[:axis], ("int", k), *items[axis + 1 :])) for k in range(x.dims[axis])]


def split_at(x: Node, sizes: Sequence[Any], axis: int) -> list[Node]:
    """Consecutive parts of x of these sizes along an axis."""
    parts, start = [], 0
    for size in sizes:
        parts.append(slice_axis(x, axis, start, size))
        start = start + size
    return parts


def split(x, indices_or_sections, axis=0):
    """A list of parts of x: as many equal ones as the int says, or cut at the positions of the list."""
    x = as_tensor(x)
    axis = normalize_axis(axis, x.ndim, "split")
    sections, size = indices_or_sections, x.dims[axis]
    if (
        isinstance(sections, (int, np.integer))
        and isinstance(size, int)
        and (sections < 1 or size % int(sections))
    ):
        raise ShapeError(
            four_parts(
                f"split into {sections} equal parts",
                f"size {size} on axis {axis} of {shape_text(x.dims)}",
                show(user_line()),
                "a number that divides the size, or T.array_split",
            )
        )
    return array_split(x, sections, axis)


def array_split(x, indices_or_sections, axis=0):
    """`split` that allows parts of different sizes: the first ones are longer by one."""
    x = as_tensor(x)
    axis = normalize_axis(axis, x.ndim, "array_split")
    size, sections = x.dims[axis], indices_or_sections
    if isinstance(sections, (int, np.integer)):
        n = int(sections)
        if n < 1:
            raise ShapeError(
                four_parts(f"array_split into {n} parts", "at least one part is needed", show(user_line()))
            )
        each, extra = poly.floordiv(size, n), poly.mod(size, n)
        return split_at(x, [each + poly.maximum(poly.minimum(extra - k, 1), 0) for k in range(n)], axis)
    bounds = [None, *(as_size(p, "a position to split at") for p in sections), None]
    parts = []
    for low, high in zip(bounds[:-1], bounds[1:]):
        _, start, step, length = slice_item(slice(low, high), size)
        parts.append(slice_axis(x, axis, start, length, step))
    return parts


def hsplit(x, indices_or_sections):
    """`split` along axis 1, or along axis 0 of a vector."""
    x = as_tensor(x)
    return split(x, indices_or_sections, 1 if x.ndim > 1 else 0)


def vsplit(x, indices_or_sections):
    """`split` along axis 0."""
    return split(x, indices_or_sections, 0)


# -------------------------------------------------------------------------------------------- turned
def flip(x, axis=None):
    """x with the order of elements reversed along the axes (all by default)."""
    x = as_tensor(x)
    axes = normalize_axes(axis, x.ndim, "flip")
    items = tuple(("slice", d - 1, -1, d) if k in axes else full_item(d) for k, d in enumerate(x.dims))
    return subtensor(x, items) if axes else x


def fliplr(x):
    """x reversed along axis 1."""
    return flip(x, 1)


def flipud(x):
    """x reversed along axis 0."""
    return flip(x, 0)


def diff(x, n=1, axis=-1):
    """The n-th difference of neighbours along an axis."""
    x = as_tensor(x)
    axis = normalize_axis(axis, x.ndim, "diff")
    for _ in range(n):
        size = poly.maximum(x.dims[axis] - 1, 0)
        after, before = slice_axis(x, axis, 1, size), slice_axis(x, axis, 0, size)
        x = not_equal(after, before) if x.dtype == "bool" else after - before
    return x


def rot90(x, k=1, axes=(0, 1)):
    """x turned by 90 degrees k times in the plane of two axes, from the first towards the second."""
    x = as_tensor(x)
    a, b = (normalize_axis(axis, x.ndim, "rot90") for axis in axes)
    if a == b:
        raise ShapeError(four_parts(f"rot90 with axes {axes}", "an axis named twice", show(user_line())))
    k %= 4
    if k in (0, 2):
        return flip(x, (a, b)) if k else x
    return flip(swapaxes(x, a, b), a) if k == 1 else swapaxes(flip(x, a), a, b)


def flatten(x, start_axis=0, end_axis=-1):
    """x with the axes from start_axis to end_axis made one (an axis of one element when x has none)."""
    x = as_tensor(x)
    if not x.ndim:
        return reshape(x, (1,))
    first, last = (normalize_axis(a, x.ndim, "flatten") for a in (start_axis, end_axis))
    if first > last:
        raise ShapeError(
            four_parts(f"flatten from axis {first} to axis {last}", f"{x._type}", show(user_line()))
        )
    return reshape(x, (*x.dims[:first], poly.product(x.dims[first : last + 1]), *x.dims[last + 1 :]))


# ------------------------------------------------------------------------------------------ pad, roll
class Pad(Row):
    """x with a border of one value. Attributes: widths, (before, after) for each axis; value."""

    public = False
    samples = [
        sample((3, 4), widths=((1, 2), (0, 3)), value=0.0),
        sample((3,), widths=((2, 0),), value=1.5),
        sample((0, 2), widths=((1, 1), (0, 0)), value=0.0),
        sample((3,), dtypes=("int64", "uint8"), low=0, high=5, widths=((1, 1),), value=2.0, grad=False),
    ]

    def infer(self, x: Type, *, widths: tuple, value: float) -> Type:
        return Type(x.dtype, [low + d + high for d, (low, high) in zip(x.dims, widths)])

    def at(self, i: tuple, x: View, *, widths: tuple, value: float) -> E:
        source = tuple(k - low for k, (low, _) in zip(i, widths))
        inside = [
            c
            for k, d, (low, high) in zip(source, x.dims, widths)
            for c in (
                (() if is_zero(low) else (ir.compare("ge", k, 0),))
                + (() if is_zero(high) else (ir.compare("lt", k, d),))
            )
        ]
        return ir.cond(ir.both(*inside), x[source], ir.literal(value, x.dtype))

    def numpy(self, x, *, widths, value):
        return np.pad(x, widths, constant_values=value)

    def vjp(self, g, y, x, *, widths, value):
        return (subtensor(g, tuple(("slice", low, 1, d) for d, (low, _) in zip(x.dims, widths))),)

    def __call__(self, x, widths, value=0.0):
        x = as_tensor(x)
        return (
            make(self, [x], widths=tuple(widths), value=value)
            if any(not is_zero(w) for pair in widths for w in pair)
            else x
        )


pad_constant = Pad("pad")


def is_zero(size: Any) -> bool:
    return isinstance(size, int) and size == 0


class Roll(Row):
    """x shifted along one axis; what leaves at one end comes back at the other. Attributes: shift, axis."""

    public = False
    samples = [
        sample((3, 4), shift=1, axis=1),
        sample((5,), shift=-7, axis=0),
        sample((0, 2), shift=1, axis=0),
        sample((4,), dtypes=("int64", "bool"), low=0, high=2, shift=3, axis=0, grad=False),
    ]

    def infer(self, x: Type, *, shift: int, axis: int) -> Type:
        return x

    def at(self, i: tuple, x: View, *, shift: int, axis: int) -> E:
        n = poly.maximum(x.dims[axis], 1)  # never divide by a size of 0, even where nothing is computed
        forward = n - poly.mod(shift, n) if shift >= 0 else poly.mod(-shift, n)
        return x[(*i[:axis], poly.mod(i[axis] + forward, n), *i[axis + 1 :])]

    def numpy(self, x, *, shift, axis):
        return np.roll(x, shift, axis)

    def vjp(self, g, y, x, *, shift, axis):
        return (roll(g, -shift, axis),)

    def __call__(self, x, shift, axis):
        return make(self, [as_tensor(x)], shift=shift, axis=axis) if shift else x


_roll = Roll("roll")


def roll(x, shift, axis=None):
    """x shifted by `shift` places along the axis (ints or tuples), or in row-major order without an axis."""
    x = as_tensor(x)
    if axis is None:
        return reshape(roll(reshape(x, -1), int(np.sum(shift)), 0), x.dims)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    for s, a in zip(shifts, axes, strict=True):
        x = _roll(x, int(s), normalize_axis(a, x.ndim, "roll"))
    return x


# --------------------------------------------------------------------------------------- repetition
def tile(x, reps):
    """x repeated reps times along each axis, as numpy.tile."""
    x = as_tensor(x)
    reps = as_shape(reps, "tile")
    x = reshape(x, (1,) * (len(reps) - x.ndim) + x.dims)
    reps = (1,) * (x.ndim - len(reps)) + reps
    paired = broadcast_to(
        reshape(x, [d for size in x.dims for d in (1, size)]), [d for pair in zip(reps, x.dims) for d in pair]
    )
    return reshape(paired, [r * d for r, d in zip(reps, x.dims)])


def repeat(x, repeats, axis=None):
    """Each element `repeats` times in a row along the axis; without one, of the flattened operand.

    For counts per element: T.take.
    """
    x = as_tensor(x)
    x, axis = (reshape(x, -1), 0) if axis is None else (x, normalize_axis(axis, x.ndim, "repeat"))
    n = as_size(repeats, "repeat")
    wide = broadcast_to(expand_dims(x, axis + 1), (*x.dims[: axis + 1], n, *x.dims[axis + 1 :]))
    return reshape(wide, (*x.dims[:axis], x.dims[axis] * n, *x.dims[axis + 1 :]))


__all__ = [
    "append",
    "array_split",
    "column_stack",
    "concat",
    "concatenate",
    "diff",
    "dstack",
    "flatten",
    "flip",
    "fliplr",
    "flipud",
    "hsplit",
    "hstack",
    "repeat",
    "roll",
    "rot90",
    "split",
    "stack",
    "tile",
    "unstack",
    "vsplit",
    "vstack",
]
