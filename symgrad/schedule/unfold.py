"""Softmax and its kin as reductions and elementwise ops, which are grouped and fused like any others.

Their rows say what one element is, folds over a whole axis included; computed so, every element would repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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


DEFINITIONS: dict[str, Callable[..., Node]] = {"softmax": _softmax, "log_softmax": _log_softmax, "logsumexp": _logsumexp}
