"""Arrays put together from parts. The gradient of a slice writes it into zeros, and those of all slices
are added up; written next to each other instead, they are one pass over memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any

from ..base import poly
from ..graph.node import Node, constant, make, new_input
from ..graph.types import Type
from ..ops.row import ROWS
from ..ops.shape import broadcast_to, full_item, reshape
from .pattern import uniform
from .rule import ZERO_SIGN, RuleBook

MOST = 32  # parts of one array: a kernel asks for each element which of them it lies in

parts = RuleBook("parts")


def _fresh(*dims: Any) -> Node:
    return new_input(Type("float32", dims))


def _zeros(*dims: Any) -> Node:
    return make(broadcast_to, [constant(0.0, "float32")], shape=dims)


def _put(row: str, x: Node, v: Node, *items: tuple) -> Node:
    return make(ROWS[row], [x, v], items=items, place=0)


def _put_samples() -> list[Node]:
    rows, columns = full_item(5), full_item(4)
    return [
        _put("index_set", _zeros(5, 4), _fresh(2, 4), ("slice", 3, 1, 2), columns),
        _put("index_add", _zeros(5, 4), _fresh(5), rows, ("int", 3)),
        _put("index_set", _zeros(5, 4), _fresh(2, 1, 3), ("slice", 0, 1, 2), ("new",), ("slice", 1, 1, 3)),
        _put("index_set", _fresh(5, 4), _fresh(5, 4), rows, columns),
    ]


@parts.law("index_set", "index_add", samples=_put_samples, claims=[ZERO_SIGN])
def put_into_zeros(node: Node) -> Node | None:
    """A part written into zeros is that part with a border of zeros; a part that is everything is itself."""
    x, v, *arrays = node.inputs
    items = node.attrs["items"]
    if arrays or (node.op.name == "index_add" or items != tuple(map(full_item, x.dims))) and uniform(x) != 0:
        return None
    widths, inside = [], []
    axes = iter(x.dims)
    for item in items:
        if item[0] == "new":
            continue
        size = next(axes)
        start, length = (item[1], 1) if item[0] == "int" else (item[1], item[3])
        if item[0] == "slice" and not (isinstance(item[2], int) and item[2] == 1):
            return None
        if item[0] == "int" and not (isinstance(start, int) and isinstance(size, int) and 0 <= start < size):
            return None  # whether it lies inside is only known when it runs
        widths.append((start, size - start - length))
        inside.append(length)
    return ROWS["pad"](reshape(v, tuple(inside)), tuple(widths), 0.0)


# ------------------------------------------------------------------------------------ sums of such arrays
@dataclass(frozen=True)
class Strips:
    """What is not zero of an array that is zero but for strips across one axis: (start, end, strip), in order."""

    axis: int
    strips: tuple[tuple[Any, Any, Node], ...]


def strips_of(node: Node) -> Strips | None:
    """The strips a node consists of, when it is padded or joined along an axis."""
    if node.op.name == "pad" and node.attrs["value"] == 0:
        axes = [k for k, width in enumerate(node.attrs["widths"]) if width != (0, 0)]
        if len(axes) != 1:
            return None
        start, size = node.attrs["widths"][axes[0]][0], node.inputs[0].dims[axes[0]]
        return Strips(axes[0], ((start, start + size, node.inputs[0]),))
    if node.op.name == "concatenate":
        axis, start, found = node.attrs["axis"], 0, []
        for v in node.inputs:
            size = v.dims[axis]
            if uniform(v) != 0:
                found.append((start, start + size, v))
            start += size
        return Strips(axis, tuple(found)) if len(found) < len(node.inputs) else None
    return None


def _sum_samples() -> list[Node]:
    pad = lambda v, *widths: make(ROWS["pad"], [v], widths=widths, value=0.0)
    add = lambda a, b: make(ROWS["add"], [a, b])
    first, last = pad(_fresh(2, 4), (0, 3), (0, 0)), pad(_fresh(1, 4), (4, 0), (0, 0))
    joined = make(ROWS["concatenate"], [_fresh(2, 4), _zeros(2, 4), _fresh(1, 4)], axis=0)
    return [
        add(first, last),
        add(joined, pad(_fresh(2, 4), (2, 1), (0, 0))),
        add(pad(_fresh(0, 4), (2, 3), (0, 0)), first),
    ]


@parts.law("add", samples=_sum_samples, claims=[ZERO_SIGN])
def sum_of_strips(node: Node) -> Node | None:
    """A sum of arrays that are nowhere both other than zero is the arrays next to each other."""
    a, b = (strips_of(x) for x in node.inputs)
    if a is None or b is None or a.axis != b.axis or any(x.dims != node.dims for x in node.inputs):
        return None
    strips = _in_order((*a.strips, *b.strips))
    return None if strips is None or len(strips) > MOST else _joined(strips, a.axis, node)


def _in_order(strips: Sequence[tuple[Any, Any, Node]]) -> list[tuple[Any, Any, Node]] | None:
    """The strips one after the other, if it is known that none overlaps another: where each ends, or before, the next one starts."""
    ordered = sorted(strips, key=cmp_to_key(lambda a, b: -1 if _at_most(a[1], b[0]) else int(_at_most(b[1], a[0]))))
    return ordered if all(_at_most(low[1], high[0]) for low, high in zip(ordered, ordered[1:])) else None


def _at_most(a: Any, b: Any) -> bool:
    return poly.bounds(b - a)[0] >= 0


def _joined(strips: Sequence[tuple[int, int, Node]], axis: int, like: Node) -> Node:
    pieces: list[Node] = []
    at: Any = 0
    for start, end, v in (*strips, (like.dims[axis], like.dims[axis], None)):
        if start != at:
            dims = (*like.dims[:axis], start - at, *like.dims[axis + 1 :])
            pieces.append(make(broadcast_to, [constant(0, like.dtype)], shape=dims))
        if v is not None:
            pieces.append(v)
        at = end
    return make(ROWS["concatenate"], pieces, axis=axis) if len(pieces) > 1 else pieces[0]
