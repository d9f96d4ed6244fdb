"""Folding: what is made of constants alone is computed once, while compiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base.errors import SymgradError
from ..base.poly import Poly
from ..graph.node import CONSTANT, Node, Op, constant, make, new_input
from ..graph.types import TupleType, Type
from ..ops.row import ROWS, Row
from .rule import RuleBook

SMALL = 4096  # elements a folded constant may always have; a larger one must not be larger than what it is made of
KEPT = {"broadcast_to"}  # a repeated value is printed as a literal, a folded one would be read from memory

constants = RuleBook("constants")


def _is_row(op: Op) -> bool:
    return isinstance(op, Row) and op.name not in KEPT and getattr(op, "pure", True)


def is_static(value: Any) -> bool:
    """No size in it waits for the call."""
    if isinstance(value, (tuple, list)):
        return all(map(is_static, value))
    if isinstance(value, Mapping):
        return all(map(is_static, value.values()))
    return not isinstance(value, Poly)


def _samples() -> list[Node]:
    numbers = constant(np.array([[1.5, -2.0], [0.25, np.nan]], "float32"))
    return [
        make(ROWS["exp"], [numbers]),
        make(ROWS["add"], [numbers, constant(2.0, "float32")]),
        make(ROWS["sum"], [numbers], axis=(1,), keepdims=False),
        make(ROWS["log"], [constant(-1.0, "float64")]),
        make(
            ROWS["concatenate"],
            [make(ROWS["broadcast_to"], [constant(0.0, "float32")], shape=(3, 2)), numbers],
            axis=0,
        ),
        make(ROWS["floor_divide"], [constant(7, "int32"), constant(0, "int32")]),
        make(ROWS["transpose"], [numbers], axes=(1, 0)),
    ]


@constants.law(_is_row, samples=_samples)
def fold(node: Node) -> Node | None:
    """A node whose operands are all constants is a constant."""
    if not node.inputs or any(x.op is not CONSTANT and x.op.name != "broadcast_to" for x in node.inputs):
        return None
    if isinstance(node._type, TupleType) or not is_static(node.attrs) or not node._type.is_static:
        return None
    repeats = any(x.op is not CONSTANT for x in node.inputs)
    if repeats and (len(node.inputs) == 1 or getattr(node.op, "elementwise", False)):
        return None  # stays one value: see shapes.py
    given = [known_array(x) for x in node.inputs]
    if any(v is None for v in given) or node._type.size > max(
        SMALL, sum(x.payload.size for x in node.inputs if x.op is CONSTANT)
    ):
        return None
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(node.op.numpy(*given, **node.attrs))
    except (ArithmeticError, IndexError, ValueError, SymgradError):
        return None  # what is wrong with it is told when it runs, at the user's line
    if value.shape != node.dims:
        return None
    return constant(value, node.dtype)


def known_array(x: Node) -> np.ndarray | None:
    """The value of a constant, or of a small repeated one; None for anything else."""
    if x.op is CONSTANT:
        return x.payload
    inner = x.inputs[0] if x.op.name == "broadcast_to" else x
    if inner.op is CONSTANT and x._type.is_static and x._type.size <= SMALL:
        return np.broadcast_to(inner.payload, x.dims)
    return None


def _size_samples() -> list[Node]:
    return [make(ROWS["size_of"], [new_input(Type("float32", (3, 4)))], axis=1)]


@constants.law("size_of", samples=_size_samples)
def known_size(node: Node) -> Node | None:
    """The size of an axis that is known is a constant."""
    size = node.inputs[0].dims[node.attrs["axis"]]
    return constant(size, "int64") if isinstance(size, int) else None
