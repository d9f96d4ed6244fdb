"""Patterns: meanings that can be written in several ways. `sg.patterns.relu` finds every spelling of max(x, 0)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..graph.node import CONSTANT, Node
from ..graph.types import is_one
from ..ops.known import is_zero, seen_through


@dataclass(frozen=True)
class Pattern:
    """match(node) gives the variables the meaning is about when the node has it, else None."""

    name: str
    match: Callable[[Node], tuple[Node, ...] | None]


def _repeated(x: Node, y: Node) -> bool:
    """Whether broadcasting repeats x in y."""
    return x.ndim != y.ndim or any(is_one(a) and not is_one(b) for a, b in zip(x.dims, y.dims))


def _is_positive(condition: Node, x: Node) -> bool:
    """The condition x > 0 or x >= 0, either way round."""
    condition = seen_through(condition, "cast")
    if condition.op.name in ("greater", "greater_equal"):
        return condition.inputs[0] is x and is_zero(condition.inputs[1])
    if condition.op.name in ("less", "less_equal"):
        return condition.inputs[1] is x and is_zero(condition.inputs[0])
    return False


def _is_negative(condition: Node, x: Node) -> bool:
    condition = seen_through(condition, "cast")
    if condition.op.name in ("less", "less_equal"):
        return condition.inputs[0] is x and is_zero(condition.inputs[1])
    if condition.op.name in ("greater", "greater_equal"):
        return condition.inputs[1] is x and is_zero(condition.inputs[0])
    if condition.op.name in ("logical_not", "invert"):
        return _is_positive(condition.inputs[0], x)
    return False


def _relu(node: Node) -> tuple[Node, ...] | None:
    name, xs = node.op.name, node.inputs
    if name == "relu":
        return (xs[0],)
    if name in ("maximum", "fmax"):
        for x, zero in (xs, xs[::-1]):
            if is_zero(zero) and not _repeated(x, node) and not is_zero(x):
                return (x,)
    if name == "multiply":
        for x, gate in (xs, xs[::-1]):
            if _is_positive(gate, x):
                return (x,)
    if name == "where":
        condition, a, b = xs
        if is_zero(b) and _is_positive(condition, a):
            return (a,)
        if is_zero(a) and _is_negative(condition, b):
            return (b,)
    if name == "clip" and is_zero(xs[1]) and xs[2].op is CONSTANT and bool(np.all(np.isposinf(xs[2].payload))):
        return (xs[0],)
    return _half_of_x_plus_abs(node)


def _half_of_x_plus_abs(node: Node) -> tuple[Node, ...] | None:
    """0.5 * (x + |x|) and (x + |x|) / 2."""
    if node.op.name not in ("multiply", "divide"):
        return None
    for total, factor in (node.inputs, node.inputs[::-1]):
        half = 0.5 if node.op.name == "multiply" else 2.0
        if factor.op is CONSTANT and bool(np.all(factor.payload == half)) and total.op.name == "add":
            for x, size in (total.inputs, total.inputs[::-1]):
                if size.op.name in ("absolute", "fabs") and size.inputs[0] is x:
                    return (x,)
        if node.op.name == "divide":
            break
    return None


relu = Pattern("relu", _relu)
