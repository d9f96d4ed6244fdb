"""Elements put in order of small labels, and what that selects: the rows of each branch, the true elements of a mask.

`label_places` says where each element stands when elements are sorted by label, equal labels in the order they come;
`inverse_permutation` says which element stands at each place. The first of them, as many as there are of label 0, are that
label's elements: how many is a counted size (ops/counted.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import E, View
from .arrange import stack
from .counted import counted
from .elementwise import floor_divide, not_equal, remainder
from .reduce import sum as sum_
from .row import STOP, Row, as_tensor, cast, sample
from .shape import reshape, shape_tuple


# ------------------------------------------------------------------------------------- permutations
class LabelPlaces(Row):
    """The place of each element of a vector of int64 labels 0 ... labels-1 among all, sorted by label; equal labels keep their order.

    Attribute: labels, their number (at least 1). A label outside counts as the nearest.
    """

    public = False
    samples = [
        sample(np.array([1, 0, 2, 1, 0]), dtypes=("int64",), labels=3, grad=False),
        sample(np.array([4, -1, 1]), dtypes=("int64",), labels=2, grad=False),
        sample(np.zeros(0, "int64"), dtypes=("int64",), labels=2, grad=False),
    ]

    def infer(self, x: Type, *, labels: int) -> Type:
        return x

    def label(self, x: E, labels: int) -> E:
        """A label held to 0 ... labels-1."""
        return ir.call("minimum", ir.call("maximum", x, 0), labels - 1)

    def at(self, i: tuple, x: View, *, labels: int) -> E:
        mine = self.label(x[i], labels)

        def ahead(k: Any) -> E:
            other = self.label(x[(k,)], labels)
            return ir.cast(ir.select(ir.compare("lt", k, i[0]), other <= mine, other < mine), "int64")

        return ir.fold("add", [x.dims[0]], ahead)

    def numpy(self, x: np.ndarray, *, labels: int) -> np.ndarray:
        return np.argsort(np.argsort(np.clip(x, 0, labels - 1), kind="stable"), kind="stable")

    def vjp(self, g: Node, y: Node, x: Node, *, labels: int) -> Any:
        return (STOP,)


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


label_places, inverse_permutation = LabelPlaces("label_places"), InversePermutation("inverse_permutation")


# --------------------------------------------------------------------------------- what a mask selects
def flatnonzero(x):
    """The int64 positions of the nonzero elements of the flattened x, in order; how many there are is known when it runs."""
    x = reshape(as_tensor(x), -1)
    mask = x if x.dtype == "bool" else not_equal(x, 0)
    size = counted(sum_(mask), x.dims[0])
    return inverse_permutation(make(label_places, [cast(~mask, "int64")], labels=2), 0, size)


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
