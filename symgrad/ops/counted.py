"""Counted sizes: sizes that are only known while a plan runs, such as how many elements of a mask are true.

`counted(n, bound)` makes a size of a 0-d integer variable. Memory is laid out for the bound; a kernel computes the number,
and the plan writes it to where later kernels read their sizes, before they run. Shape inference treats it as any other
unknown size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import CONSTANT, Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import E, View
from .row import ROWS, STOP, Row, as_tensor, cast, sample


class Count(Row):
    """A number of things as a size: the int64 variable itself, held to 0 ... bound, in memory of its own. Attribute: bound."""

    public = False
    samples = [sample(np.array(n), dtypes=("int64",), bound=5, grad=False) for n in (-1, 3, 7)]

    def infer(self, n: Type, *, bound: Any) -> Type:
        return n

    def at(self, i: tuple, n: View, *, bound: Any) -> E:
        return ir.call("minimum", ir.call("maximum", n[()], 0), ir.index(bound))

    def numpy(self, n: np.ndarray, *, bound: int) -> np.ndarray:
        return np.clip(n, 0, bound)

    def vjp(self, g: Node, y: Node, n: Node, *, bound: Any) -> Any:
        return (STOP,)


count = Count("count")


def counted(n: Any, bound: Any) -> Any:
    """The size that the 0-d integer n turns out to be, at most `bound` (a size known before the call).

    An int where n is known. A number outside 0 ... bound counts as the nearer end.
    """
    n = as_tensor(n)
    if n.ndim or not n.dtype.startswith(("int", "uint")):
        raise ShapeError(four_parts("a counted size", f"{n._type}, made at {n.where}", show(user_line()), "a 0-d integer variable"))
    node = n if n.op is count else make(count, [cast(n, "int64")], bound=bound)
    return size_counted_by(node)


def size_counted_by(node: Node) -> Any:
    """The size that a `count` node stands for."""
    if node.inputs[0].op is CONSTANT and isinstance(node.attrs["bound"], int):
        return int(np.clip(node.inputs[0].payload, 0, node.attrs["bound"]))
    return poly.atom("counted", node, node.attrs["bound"])


def number_of_steps(size: Any) -> Any:
    """The size as the length of a loop: what is made of counted sizes is counted once more, so that it is one number while the plan runs."""
    if poly.the_atom(size) is not None or not any(a.kind == "counted" for a in poly.atoms(size)):
        return size
    bound = poly.substitute(size, lambda a: a.args[1] if a.kind == "counted" else None)
    value = make(ROWS["arange"], [], start=size, step=1, size=1, dtype="int64")
    return counted(make(ROWS["reshape"], [value], shape=()), bound)


__all__ = ["counted", "number_of_steps"]
