"""Views: an operand as a stored buffer with an offset and strides, when movement ops are all that lies between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..graph.node import Node, is_leaf
from ..graph.types import is_one


@dataclass(frozen=True)
class Strided:
    """Element (i, j, ...) of an operand lies at offset + i*strides[0] + j*strides[1] ... of the buffer of `base`."""

    base: Node
    offset: Any
    strides: tuple
    dims: tuple

    @property
    def is_contiguous(self) -> bool:
        return all(is_one(d) or s == t for d, s, t in zip(self.dims, self.strides, contiguous(self.dims)))


def contiguous(dims: tuple) -> tuple:
    """Row-major strides, in elements."""
    strides: list[Any] = []
    step: Any = 1
    for d in reversed(dims):
        strides.append(step)
        step = step * d
    return tuple(reversed(strides))


VIEWS = {"reshape", "transpose", "subtensor"}


def base_of(node: Node) -> Node:
    """The node whose memory an operand can be read from: through transposes, slices and reshapes."""
    while not is_leaf(node) and node.op.name in VIEWS:
        if strided(node) is None:
            return node
        node = node.inputs[0]
    return node


def strided(node: Node) -> Strided | None:
    """The operand as a strided view of the node it comes from; None when a reshape would need a copy."""
    chain = []
    while not is_leaf(node) and node.op.name in VIEWS:
        chain.append(node)
        node = node.inputs[0]
    view = Strided(node, 0, contiguous(node.dims), node.dims)
    for step in reversed(chain):
        following = _STEP[step.op.name](view, step)
        if following is None:
            # the memory behind this step cannot be described by strides: what it makes is the base
            following = Strided(step, 0, contiguous(step.dims), step.dims)
        view = following
    return view


def _reshape(view: Strided, node: Node) -> Strided | None:
    if view.is_contiguous:
        return Strided(view.base, view.offset, contiguous(node.dims), node.dims)
    old = [(d, s) for d, s in zip(view.dims, view.strides) if not is_one(d)]
    if [d for d, _ in old] != [d for d in node.dims if not is_one(d)]:
        return None
    rest = iter(old)
    return Strided(view.base, view.offset, tuple(0 if is_one(d) else next(rest)[1] for d in node.dims), node.dims)


def _transpose(view: Strided, node: Node) -> Strided:
    return Strided(view.base, view.offset, tuple(view.strides[a] for a in node.attrs["axes"]), node.dims)


def _subtensor(view: Strided, node: Node) -> Strided | None:
    offset, strides, axis = view.offset, [], 0
    for item in node.attrs["items"]:
        if item[0] == "new":
            strides.append(0)
            continue
        step = view.strides[axis]
        offset = offset + item[1] * step
        if item[0] == "slice":
            strides.append(step * item[2])
        axis += 1
    inside = all(item[0] != "int" or isinstance(item[1], int) for item in node.attrs["items"])
    return Strided(view.base, offset, tuple(strides), node.dims) if inside else None


_STEP: dict[str, Callable[[Strided, Node], Strided | None]] = {"reshape": _reshape, "transpose": _transpose, "subtensor": _subtensor}

