"""Reductions over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..graph.node import Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import E, View
from .elementwise import INTS
from .row import Row, as_tensor, cast, normalize_axes, sample
from .shape import broadcast_to, reshape, size_of

_shapes = [sample((3, 4), axis=(1,), keepdims=False), sample((2, 3, 4), axis=(0, 2), keepdims=True), sample((3, 4), axis=(0, 1), keepdims=False),
           sample((0, 3), axis=(0,), keepdims=False), sample((), axis=(), keepdims=False)]


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


class Reduction(Row):
    """x folded over `axis` with an associative operation. Attributes: axis (sorted tuple), keepdims."""

    operation = "add"

    def infer(self, x: Type, *, axis: tuple, keepdims: bool) -> Type:
        return Type(x.dtype, reduced_dims(x.dims, axis, keepdims))

    def at(self, i: tuple, x: View, *, axis: tuple, keepdims: bool) -> E:
        return ir.fold(self.operation, [x.dims[a] for a in axis], lambda *ks: x[full_index(i, ks, axis, x.ndim, keepdims)])

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


class Sum(Reduction):
    """The sum over `axis` (all axes by default). Integers and bools are summed in 64 bits."""

    samples = [*_shapes, sample((3, 4), dtypes=("int64",), low=-5, high=5, axis=(1,), keepdims=False, grad=False)]

    def prepare(self, x):
        return _wide(x)

    def numpy(self, x, *, axis, keepdims):
        return np.asarray(x.sum(axis=axis, keepdims=keepdims, dtype=x.dtype))

    def vjp(self, g, y, x, *, axis, keepdims):
        return (broadcast_to(kept(g, x, axis), x.dims),)


sum = Sum("sum")


def count(x: Node, axis: tuple[int, ...]) -> Any:
    """Number of elements reduced: an int, or a float variable when it is only known at the call."""
    n = poly.product(x.dims[a] for a in axis)
    if isinstance(n, int):
        return n
    total: Any = 1
    for a in axis:
        total = total * (x.dims[a] if isinstance(x.dims[a], int) else make(size_of, [x], axis=a))
    return total
