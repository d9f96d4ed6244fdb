"""Sizes that were taken to be equal while the graph was built, checked against the arguments of each call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import ShapeError, SymgradError, four_parts
from ..graph.node import Node, make
from ..graph.scan import assumed_equal, is_scan
from ..graph.types import dim_text, is_one
from ..graph.walk import order
from ..ops import bounds
from ..ops.branch import gated, guards
from ..ops.elementwise import not_equal
from ..ops.row import as_tensor
from ..ops.shape import broadcast_to, size_of


@dataclass(frozen=True)
class Assumption:
    """Two sizes of one node's operands that must be equal at the call."""

    node: Node
    left: Any
    right: Any


@dataclass(frozen=True)
class Position:
    """A single position of an indexing that must lie inside its axis at the call."""

    node: Node
    position: Any
    size: Any


def positions(nodes: Sequence[Node]) -> list[Position]:
    """The positions whose legality depends on sizes."""
    return [Position(*found) for found in bounds.positions(nodes)]


def collect(nodes: Sequence[Node]) -> list[Assumption]:
    """What the graph assumes, each pair once."""
    found: dict[tuple[Any, Any], Assumption] = {}
    for node in order(nodes):
        for left, right in pairs(node):
            if (isinstance(left, poly.Poly) or isinstance(right, poly.Poly)) and left != right:
                found.setdefault((left, right), Assumption(node, left, right))
    return list(found.values())


def checked_while_running(nodes: Sequence[Node]) -> list[tuple[Callable[[], SymgradError], Node]]:
    """(what to raise, 0-d condition): indices that may lie outside, and sizes that kernels count and that must be equal.

    In a branch they count only where it is taken.
    """
    when = guards(nodes)
    guard_of = lambda node: when.get(node, ())
    found: list[tuple[Callable[[], SymgradError], Node]] = [
        (partial(bounds.refusal, node), gated(guard_of(node), wrong)) for node, wrong in bounds.out_of_range(nodes, guard_of)
    ]
    meetings: dict[Any, Node] = {}
    for node in order(nodes):
        for pair in pairs(node):
            if pair[0] != pair[1] and any(a.kind == "counted" for size in pair for a in poly.atoms(size)):
                meetings.setdefault((*pair, guard_of(node)), node)
    for (left, right, guard), node in meetings.items():
        found.append((partial(_sizes_differ, node, left, right), gated(guard, not_equal(_number(left), _number(right)))))
    return found


def _number(size: Any) -> Node:
    """A size as a 0-d variable."""
    return make(size_of, [broadcast_to(as_tensor(0), (size,))], axis=0)


def _sizes_differ(node: Node, left: Any, right: Any) -> ShapeError:
    operands = [f"{x.name or x.op.name}: {x._type}, made at {x.where}" for x in node.inputs]
    return ShapeError(four_parts(f"{node.op.name} of operands that fit", [f"size {dim_text(left)} and size {dim_text(right)} turned out to differ", *operands],
                                 f"{node.op.name} made at {node.where}", "select both with one mask"))


def pairs(node: Node) -> list[tuple[Any, Any]]:
    """Sizes of the operands of a node that its meaning takes to be equal."""
    dims = [x.dims for x in node.inputs if hasattr(x._type, "dims")]
    name = node.op.name
    if getattr(node.op, "elementwise", False) or name == "broadcast_to":
        return [(size, out) for d in dims for size, out in zip(reversed(d), reversed(node.dims)) if not is_one(size)]
    if is_scan(node):
        return assumed_equal(node)
    if name == "ifelse":
        return list(zip(dims[1], dims[2]))
    if name == "matmul":
        return [(dims[0][-1], dims[1][-2])]
    if name == "concatenate":
        axis = node.attrs["axis"]
        return [(a, b) for d in dims[1:] for k, (a, b) in enumerate(zip(dims[0], d)) if k != axis]
    if name == "stack":
        return [pair for d in dims[1:] for pair in zip(dims[0], d)]
    if name == "reshape":
        return [(poly.product(dims[0]), poly.product(node.dims))]
    if name in ("conv1d", "conv2d", "conv3d"):
        return [(dims[0][1], dims[1][1] * node.attrs["groups"])]
    return []


def verify(assumptions: Sequence[Assumption | Position], inputs: Sequence[Node], arrays: Sequence[np.ndarray]) -> None:
    """Raise ShapeError at the node whose operands turn out not to fit. Sizes that data decide are left to the run."""
    sizes = argument_sizes(inputs, arrays)
    for a in assumptions:
        if isinstance(a, Position):
            _verify_position(a, sizes)
            continue
        try:
            left, right = (poly.evaluate(d, sizes.__getitem__) for d in (a.left, a.right))
        except KeyError:
            continue
        if left != right:
            operands = [f"{x.name or x.op.name}: {x._type}, made at {x.where}" for x in a.node.inputs]
            raise ShapeError(four_parts(f"{a.node.op.name} of operands that fit", [
                f"size {dim_text(a.left)} is {left}, size {dim_text(a.right)} is {right}", *operands],
                f"{a.node.op.name} made at {a.node.where}", "pass arrays whose sizes agree; a size that broadcasts is declared as 1"))


def _verify_position(a: Position, sizes: dict[poly.Atom, int]) -> None:
    try:
        position, size = (poly.evaluate(d, sizes.__getitem__) for d in (a.position, a.size))
    except KeyError:
        return
    if not 0 <= position < size:
        raise bounds.refusal(a.node, f"position {position} on an axis of size {size}")


def sizes_meet(inputs: Sequence[Node]) -> bool:
    """Whether two axes of the inputs carry one name."""
    named = [d for x in inputs for d in x.dims if isinstance(d, poly.Poly)]
    return len(set(named)) != len(named)


def argument_sizes(inputs: Sequence[Node], arrays: Sequence[np.ndarray]) -> dict[poly.Atom, int]:
    """The sizes that the arguments decide. Raises ShapeError where two arguments disagree on a named size."""
    sizes: dict[poly.Atom, int] = {}
    owner: dict[poly.Atom, str] = {}
    for k, (x, array) in enumerate(zip(inputs, arrays)):
        for axis, (dim, size) in enumerate(zip(x.dims, array.shape)):
            if not isinstance(dim, poly.Poly) or len(dim.terms) != 1:
                continue
            a = next(iter(dim.terms))[0]
            if sizes.setdefault(a, size) != size:
                raise ShapeError(four_parts(
                    f"equal sizes for {dim_text(dim)!r}", f"{size} on axis {axis} of {x.name or f'argument {k}'}, {sizes[a]} on {owner[a]}",
                    f"declared at {x.where}", "equal names must have equal sizes in one call"))
            owner.setdefault(a, f"axis {axis} of {x.name or f'argument {k}'}")
    return sizes


__all__ = ["Assumption", "argument_sizes", "checked_while_running", "collect", "sizes_meet", "verify"]
