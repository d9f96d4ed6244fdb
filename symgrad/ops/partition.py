"""Elements put in order of small labels, and what that selects: the rows of each branch, the true elements of a mask.

`partition` says where each element stands when elements are sorted by label, equal labels in the order they come;
`inverse_permutation` says which element stands at each place. The first of them, as many as there are of label 0, are that
label's elements: how many is a counted size (ops/counted.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import E, View
from .arrange import concatenate, stack
from .counted import counted
from .create import arange
from .elementwise import clip, equal, floor_divide, less, not_equal, remainder, where
from .reduce import sum as sum_
from .row import STOP, Row, as_tensor, cast, sample
from .shape import expand_dims, reshape, shape_tuple, slice_axis


# ------------------------------------------------------------------------------------- permutations
class Partition(Row):
    """The place of each element of a vector of int64 labels 0 ... labels-1 among all, sorted by label; equal labels keep their order.

    Attribute: labels, their number (at least 1). Negative labels count from the end. One outside is an error, and is held to the ends.
    """

    public = False
    bounds_advice = "labels number what they choose from 0, or from the end when negative"
    samples = [
        sample(np.array([1, 0, 2, 1, 0]), dtypes=("int64",), labels=3, grad=False),
        sample(np.array([1, -1, 0, -2]), dtypes=("int64",), labels=2, grad=False),
        sample(np.zeros(0, "int64"), dtypes=("int64",), labels=2, grad=False),
    ]

    def infer(self, x: Type, *, labels: int) -> Type:
        return x

    def label(self, x: E, labels: int) -> E:
        """A label held to 0 ... labels-1."""
        return ir.call("minimum", ir.call("maximum", ir.select(x < 0, x + labels, x), 0), labels - 1)

    def at(self, i: tuple, x: View, *, labels: int) -> E:
        mine = self.label(x[i], labels)

        def ahead(k: Any) -> E:
            other = self.label(x[(k,)], labels)
            return ir.cast(ir.select(ir.compare("lt", k, i[0]), other <= mine, other < mine), "int64")

        return ir.fold("add", [x.dims[0]], ahead)

    def numpy(self, x: np.ndarray, *, labels: int) -> np.ndarray:
        return np.argsort(np.argsort(np.clip(np.where(x < 0, x + labels, x), 0, labels - 1), kind="stable"), kind="stable")

    def vjp(self, g: Node, y: Node, x: Node, *, labels: int) -> Any:
        return (STOP,)

    def bounds_checked(self, x: Type, *, labels: int) -> list[tuple[int, Any]]:
        """(input number, size) pairs: those inputs hold labels that must lie in [-size, size)."""
        return [(0, labels)]


class InversePermutation(Row):
    """Where each of the first `size` places of a permutation along an axis is found, as int64.

    Attributes: axis, size.
    """

    public = False
    samples = [
        sample(np.array([[2, 0, 1], [0, 2, 1]]), axis=1, size=3, dtypes=("int64",), grad=False),
        sample(np.array([3, 1, 0, 2]), axis=0, size=2, dtypes=("int64",), grad=False),
    ]

    def infer(self, places: Type, *, axis: int, size: Any) -> Type:
        return Type("int64", (*places.dims[:axis], size, *places.dims[axis + 1:]))

    def at(self, i: tuple, places: View, *, axis: int, size: Any) -> E:
        def found(k: Any) -> E:
            here = ir.call("eq", places[(*i[:axis], k, *i[axis + 1:])], ir.index(i[axis]))
            return ir.select(here, ir.index(k), ir.literal(0, "int64"))

        return ir.fold("add", [places.dims[axis]], found)

    def numpy(self, places: np.ndarray, *, axis: int, size: int) -> np.ndarray:
        return np.take(np.argsort(places, axis=axis), range(size), axis=axis)

    def vjp(self, g: Node, y: Node, places: Node, **attrs: Any) -> Any:
        return (STOP,)

    def __call__(self, places, axis, size=None):
        places = as_tensor(places)
        return make(self, [places], axis=axis, size=places.dims[axis] if size is None else size)


class Permuted(Row):
    """x at a permutation of its first axis. Inputs: x, the permutation and its inverse (int64): the adjoint reads at the inverse."""

    public = False
    samples = [sample((4, 3), np.array([2, 0, 3, 1]), np.array([1, 3, 0, 2])), sample((0,), np.zeros(0, "int64"), np.zeros(0, "int64"))]

    def infer(self, x: Type, order: Type, inverse: Type) -> Type:
        return x

    def at(self, i: tuple, x: View, order: View, inverse: View) -> E:
        return x[(ir.as_index(order[(i[0],)]), *i[1:])]

    def numpy(self, x: np.ndarray, order: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        return x[order]

    def vjp(self, g: Node, y: Node, x: Node, order: Node, inverse: Node) -> Any:
        return self(g, inverse, order), STOP, STOP


partition, inverse_permutation, permuted = Partition("partition"), InversePermutation("inverse_permutation"), Permuted("permuted")


# --------------------------------------------------------------------------------------- rows by label
@dataclass(frozen=True)
class Parts:
    """The rows of arrays divided by label: which row stands at each place in order of labels, where each row stands, rows per label."""

    order: Node
    places: Node
    sizes: tuple[Any, ...]

    def of(self, x: Node, label: int) -> Node:
        """The rows of x with this label, in the order they come."""
        start: Any = sum(self.sizes[:label], start=0)
        return slice_axis(permuted(x, self.order, self.places), 0, start, self.sizes[label])

    def together(self, rows: Sequence[Node]) -> Node:
        """The rows of all labels, each where it came from."""
        return permuted(rows[0] if len(rows) == 1 else concatenate(rows), self.places, self.order)


def parts_by(labels: Node, number: int) -> Parts:
    """Rows divided by int64 labels 0 ... number-1, one for each row; negative ones count from the end."""
    n = labels.dims[0]
    places = make(partition, [labels], labels=number)
    held = clip(where(less(labels, 0), labels + number, labels), 0, number - 1)
    totals = sum_(equal(expand_dims(held, 1), arange(number - 1)), 0)
    sizes = [counted(totals[k], n) for k in range(number - 1)]
    return Parts(inverse_permutation(places, 0), places, (*sizes, n - sum(sizes, start=0)))


# --------------------------------------------------------------------------------- what a mask selects
def flatnonzero(x):
    """The int64 positions of the nonzero elements of the flattened x, in order; how many there are is known when it runs."""
    x = reshape(as_tensor(x), -1)
    mask = x if x.dtype == "bool" else not_equal(x, 0)
    size = counted(sum_(mask), x.dims[0])
    return inverse_permutation(make(partition, [cast(~mask, "int64")], labels=2), 0, size)


def nonzero(x):
    """The positions of the nonzero elements of x in row-major order: one int64 vector per axis, as numpy.nonzero."""
    x = as_tensor(x)
    if not x.ndim:
        raise ShapeError(four_parts("nonzero of an array", f"{x._type}, made at {x.where}", show(user_line()), "T.flatnonzero(x)"))
    flat, found = flatnonzero(x), []
    sizes = shape_tuple(x)
    for axis in range(x.ndim):
        inner = math.prod(sizes[axis + 1:])
        position = flat if axis == x.ndim - 1 else floor_divide(flat, inner)
        found.append(position if axis == 0 else remainder(position, sizes[axis]))
    return tuple(found)


def argwhere(x):
    """The positions of the nonzero elements of x in row-major order, one per row, as numpy.argwhere."""
    return stack(nonzero(x), axis=1)


__all__ = ["argwhere", "flatnonzero", "nonzero"]
