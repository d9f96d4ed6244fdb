"""Softmax, argmax and their kin as reductions and elementwise ops, which are grouped and fused like any others.

Their rows say what one element is, folds over a whole axis included; computed so, every element would repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..graph.node import Node, constant, make
from ..graph.walk import order, substitute
from ..ops.row import ROWS


def unfolded(outputs: Sequence[Node]) -> list[Node]:
    """Equal outputs without ops that reduce an axis for each of their elements."""
    found = {n: DEFINITIONS[n.op.name](*n.inputs, **n.attrs) for n in order(outputs) if n.op.name in DEFINITIONS and 0 not in n.inputs[0].dims}
    # a definition is over the operands as they are, so what lies inside one is found in the next round
    return unfolded(substitute(outputs, found)) if found else list(outputs)


def _apply(name: str, *inputs: Node, **attrs: Any) -> Node:
    return make(ROWS[name], inputs, **attrs)


def _reduced(name: str, x: Node, axis: int | tuple[int, ...]) -> Node:
    return _apply(name, x, axis=axis if isinstance(axis, tuple) else (axis,), keepdims=True)


def _softmax(x: Node, axis: int) -> Node:
    e = _apply("exp", x - _reduced("max", x, axis))
    return e * _apply("reciprocal", _reduced("sum", e, axis))


def _log_softmax(x: Node, axis: int) -> Node:
    shifted = x - _reduced("max", x, axis)
    return shifted - _apply("log", _reduced("sum", _apply("exp", shifted), axis))


def _logsumexp(x: Node, axis: tuple[int, ...], keepdims: bool) -> Node:
    top = _reduced("max", x, axis)
    shift = _apply("where", _apply("isfinite", top), top, constant(0, x.dtype))
    result = _apply("log", _reduced("sum", _apply("exp", x - shift), axis)) + shift
    return result if keepdims else _apply("reshape", result, shape=tuple(d for k, d in enumerate(x.dims) if k not in axis))


def _place_of(extreme: str) -> Callable[..., Node]:
    def place(x: Node, axis: tuple[int, ...], keepdims: bool) -> Node:
        """The first place of the largest (or smallest) element, or of a NaN."""
        sizes = tuple(d if k in axis else 1 for k, d in enumerate(x.dims))
        count = poly.product(sizes)
        dtype = "int32" if isinstance(count, int) and count < 2**31 else "int64"
        places = _apply("reshape", _apply("arange", start=0, step=1, size=count, dtype=dtype), shape=sizes)
        found = _apply("equal", x, _apply(extreme, x, axis=axis, keepdims=True))
        found = _apply("logical_or", found, _apply("isnan", x)) if x.dtype.startswith("float") else found
        first = _apply("min", _apply("where", found, places, constant(np.iinfo(dtype).max, dtype)), axis=axis, keepdims=keepdims)
        return _apply("cast", first, dtype="int64") if dtype != "int64" else first
    return place


DEFINITIONS: dict[str, Callable[..., Node]] = {"softmax": _softmax, "log_softmax": _log_softmax, "logsumexp": _logsumexp,
                                           "argmax": _place_of("max"), "argmin": _place_of("min")}
