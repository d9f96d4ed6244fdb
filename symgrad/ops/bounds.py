"""Indices that are only known at the call: which need a check, and the check as graph.

Rows that index say so with `bounds_checked` (index arrays) and `sizes_checked` (positions that depend on
sizes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import four_parts
from ..graph.node import CONSTANT, Node, make
from ..graph.walk import order
from .elementwise import greater_equal, less
from .reduce import any as any_
from .shape import BoundsError, as_size, size_of

Bound = Any  # an int, a polynomial, or None where nothing is known
_MOVES = {
    "reshape",
    "broadcast_to",
    "transpose",
    "subtensor",
    "gather",
    "take_along_axis",
    "roll",
    "diagonal",
    "ordered",
    "positive",
}


def out_of_range(outputs: Sequence[Node], apart: Callable[[Node], Any] = lambda node: None) -> list[tuple[Node, Node]]:
    """(node, condition) for every indexing below the outputs whose index arrays may lie outside their axes.

    The condition is a 0-d bool variable, true when an index does. Arrays that are known to lie inside are
    left out. Indexings that ask for the same are listed once, unless `apart` says different things of them.
    """
    found: dict[tuple[Node, Any, Any], tuple[Node, Node]] = {}
    for node in order(outputs):
        checks = getattr(node.op, "bounds_checked", None)
        for k, size in checks(*(x._type for x in node.inputs), **node.attrs) if checks else ():
            key = node.inputs[k], size, apart(node)
            if key not in found and not inside(*key[:2]):
                found[key] = node, _some_outside(node, *key[:2])
    return list(found.values())


def positions(outputs: Sequence[Node]) -> list[tuple[Node, Any, Any]]:
    """(node, position, size) for every single position not known to lie in [0, size) below the outputs."""
    found: dict[tuple[Any, Any], tuple[Node, Any, Any]] = {}
    for node in order(outputs):
        checks = getattr(node.op, "sizes_checked", None)
        for k, size in checks(*(x._type for x in node.inputs), **node.attrs) if checks else ():
            if not _between(k, k, 0, size):
                found.setdefault((k, size), (node, k, size))
    return list(found.values())


def refusal(node: Node, found: str = "an index outside its axis") -> BoundsError:
    """The error for a node whose indices turned out to lie outside."""
    x = node.inputs[0]
    return BoundsError(
        four_parts(
            f"{node.op.name} of {x.name or x.op.name}: {x._type}",
            found,
            f"{node.op.name} made at {node.where}",
            getattr(node.op, "bounds_advice", "indices lie from minus the size of their axis to the size minus 1"),
        )
    )


def _some_outside(node: Node, indices: Node, size: Any) -> Node:
    n = size
    if not isinstance(size, int):
        x = node.inputs[0]
        n = make(size_of, [x], axis=x.dims.index(size))
    return any_(less(indices, -n) | greater_equal(indices, n))


# ------------------------------------------------------------------------------------ what is known
def inside(indices: Node, size: Any) -> bool:
    """Whether all indices are known to lie in [-size, size)."""
    low, high = span(indices)
    return low is not None and high is not None and _between(low, high, -size, size)


def _between(low: Any, high: Any, floor: Any, ceiling: Any) -> bool:
    return poly.bounds(low - floor)[0] >= 0 and poly.bounds(high - ceiling)[1] < 0


def span(node: Node) -> tuple[Bound, Bound]:
    """The least and greatest value that an integer variable can have, inclusive."""
    if node.op is CONSTANT:
        return (int(node.payload.min()), int(node.payload.max())) if node.payload.size else (0, 0)
    rule = _SPANS.get(node.op.name)
    if rule is not None:
        return rule(node)
    if node.op.name in _MOVES or (
        node.op.name == "cast" and node.inputs[0].dtype.startswith(("int", "uint", "bool"))
    ):
        return span(node.inputs[0])
    if node.dtype == "bool":
        return 0, 1
    if node.dtype in ("int8", "uint8", "int16", "uint16"):
        return int(np.iinfo(node.dtype).min), int(np.iinfo(node.dtype).max)
    return None, None


def _places(node: Node) -> tuple[Bound, Bound]:
    """Of rows that give places along one axis of their operand."""
    axis = node.attrs["axis"]
    axes = axis if isinstance(axis, tuple) else (axis,)
    return 0, poly.product(node.inputs[0].dims[a] for a in axes) - 1


def _progression(node: Node) -> tuple[Bound, Bound]:
    start, step = node.attrs["start"], node.attrs["step"]
    if isinstance(start, float) or isinstance(step, float):
        return None, None
    last = start + step * (node.dims[0] - 1)
    return (start, last) if step > 0 else (last, start)


def _remainder(node: Node) -> tuple[Bound, Bound]:
    divisor = _size(node.inputs[1])
    return (0, divisor - 1) if divisor is not None and poly.bounds(divisor)[0] >= 0 else (None, None)


def _size(node: Node) -> Bound:
    """The size a scalar stands for, also when it was broadcast; None when data decide it."""
    while node.op.name in ("broadcast_to", "reshape", "cast"):
        node = node.inputs[0]
    if node.ndim or node.dtype not in ("int32", "int64"):
        return None
    size = as_size(node)
    return None if any(a.kind == "value" for a in poly.atoms(size)) else size


def _least(a: Bound, b: Bound) -> Bound:
    return None if a is None or b is None else poly.minimum(a, b)


def _greatest(a: Bound, b: Bound) -> Bound:
    return None if a is None or b is None else poly.maximum(a, b)


def _minimum(node: Node) -> tuple[Bound, Bound]:
    (a, b), (c, d) = map(span, node.inputs)
    return _least(a, c), d if b is None else b if d is None else poly.minimum(b, d)


def _maximum(node: Node) -> tuple[Bound, Bound]:
    (a, b), (c, d) = map(span, node.inputs)
    return c if a is None else a if c is None else poly.maximum(a, c), _greatest(b, d)


def _where(node: Node) -> tuple[Bound, Bound]:
    (a, b), (c, d) = map(span, node.inputs[1:])
    return _least(a, c), _greatest(b, d)


def _add(node: Node) -> tuple[Bound, Bound]:
    (a, b), (c, d) = map(span, node.inputs)
    return None if a is None or c is None else a + c, None if b is None or d is None else b + d


def _subtract(node: Node) -> tuple[Bound, Bound]:
    (a, b), (c, d) = map(span, node.inputs)
    return None if a is None or d is None else a - d, None if b is None or c is None else b - c


def _clip(node: Node) -> tuple[Bound, Bound]:
    low, high = span(node.inputs[1])[0], span(node.inputs[2])[1]
    return (None if low is None or high is None else poly.minimum(low, high)), high


def _own_size(node: Node) -> tuple[Bound, Bound]:
    size = _size(node)
    return size, size


_SPANS = {
    "rank": _places,
    "inverse_permutation": _places,
    "argmax": _places,
    "argmin": _places,
    "arange": _progression,
    "remainder": _remainder,
    "minimum": _minimum,
    "maximum": _maximum,
    "where": _where,
    "add": _add,
    "subtract": _subtract,
    "clip": _clip,
    "size_of": _own_size,
}
