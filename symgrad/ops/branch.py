"""`ifelse`: a choice of which only one side is computed.

The graph holds both sides; laziness is a fact about its nodes. `guards` finds, for every node, the conditions under which
anything asks for it; backends compute a node only where they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, make
from ..graph.types import Type, shape_text
from ..graph.walk import order
from ..loops import ir
from ..loops.ir import E, View
from .control import Identity
from .row import STOP, Row, as_tensor, cast, sample
from .shape import broadcast_to

Guard = tuple[tuple[Node, bool], ...]
_SIDES = [sample(np.array(c), (3, 4), (3, 4), grad=False) for c in (True, False)]


class Condition(Identity):
    """The truth value that a choice depends on, in memory of its own."""

    samples = [sample(np.array(True), grad=False)]

    def vjp(self, g, y, x):
        return (STOP,)


class IfElse(Row):
    """then where the 0-d condition holds, else otherwise; the other side is not computed."""

    lazy = True             # an operand that was not computed is not read
    public = False
    samples = _SIDES

    def infer(self, condition: Type, then: Type, otherwise: Type) -> Type:
        known = [a if isinstance(a, int) else b for a, b in zip(then.dims, otherwise.dims)]
        return Type(then.dtype, known)

    def at(self, i: tuple, condition: View, then: View, otherwise: View) -> E:
        return ir.cond(condition[()], then[i], otherwise[i])

    def numpy(self, condition: np.ndarray, then: np.ndarray | None, otherwise: np.ndarray | None) -> np.ndarray:
        chosen = then if condition else otherwise
        assert chosen is not None
        return chosen.copy()

    def vjp(self, g: Node, y: Node, condition: Node, then: Node, otherwise: Node) -> Any:
        zero = zeros_like(g)
        return STOP, make(self, [condition, g, zero]), make(self, [condition, zero, g])


condition_of = Condition("condition")
if_else = IfElse("ifelse")


def ifelse(condition: Any, then: Any, else_: Any) -> Any:
    """`then` if the condition holds, else `else_`: only that side is computed, forward and backward.

    condition: a 0-d bool or integer variable. then, else_: variables, or lists of equal length; same structure back.
    Parameters of the side that is not taken have zero gradients, which cost nothing but writing the zeros.
    Raises ShapeError or DTypeError when the sides differ in rank, dtype or a known size. See T.where for elementwise choice.
    """
    condition = as_tensor(condition)
    if condition.ndim or dtypes.is_float(condition.dtype):
        raise (ShapeError if condition.ndim else DTypeError)(four_parts(
            "ifelse with a 0-d bool or integer condition", f"{condition._type}, made at {condition.where}", show(user_line()),
            "a scalar such as x.sum() > 0; T.where(condition, x, y) chooses element by element"))
    several = isinstance(then, (list, tuple))
    sides = list(zip(*([list(then), list(else_)] if several else [[then], [else_]])))
    if several and not (isinstance(else_, (list, tuple)) and len(then) == len(else_)):
        raise ShapeError(four_parts("ifelse with as many results on both sides", f"{len(then)} and "
                                    f"{len(else_) if isinstance(else_, (list, tuple)) else 'a single variable'}", show(user_line())))
    test = make(condition_of, [cast(condition, "bool")])
    results = [make(if_else, [test, *_matching(a, b)]) for a, b in sides]
    return (type(then)(results) if several else results[0])


def _matching(then: Any, otherwise: Any) -> tuple[Node, Node]:
    if not isinstance(then, Node):
        then = as_tensor(then, otherwise.dtype if isinstance(otherwise, Node) and isinstance(then, (bool, int, float)) else None)
    if not isinstance(otherwise, Node):
        otherwise = as_tensor(otherwise, then.dtype if isinstance(otherwise, (bool, int, float)) else None)
    differ = then.ndim != otherwise.ndim or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(then.dims, otherwise.dims))
    if differ or then.dtype != otherwise.dtype:
        raise (ShapeError if differ else DTypeError)(four_parts(
            "ifelse with sides of one type", [f"then  {then.dtype} {shape_text(then.dims)}, made at {then.where}",
                                             f"else  {otherwise.dtype} {shape_text(otherwise.dims)}, made at {otherwise.where}"], show(user_line()),
            "reshape or cast one side"))
    counted = [(a, b) for a, b in zip(then.dims, otherwise.dims) if a != b and any(d.kind == "counted" for size in (a, b) for d in poly.atoms(size))]
    if counted:
        raise ShapeError(four_parts("ifelse with sides of one size", [f"then  {shape_text(then.dims)}, made at {then.where}",
                                                                     f"else  {shape_text(otherwise.dims)}, made at {otherwise.where}",
                                                                     "data decide a size on one side, and not in the same way on the other"],
                                    show(user_line()), "choose the mask, then select: x[sg.ifelse(condition, mask, other_mask)]"))
    return then, otherwise


def zeros_like(x: Node) -> Node:
    return broadcast_to(as_tensor(0, x.dtype), x.dims)


def guards(outputs: Iterable[Node]) -> dict[Node, Guard]:
    """node -> the (condition, value) pairs that hold whenever the node is needed. Nodes always needed are left out.

    A pair comes after those under which its condition is computed at all, so they are to be tested in order.
    """
    outputs = list(outputs)
    found: dict[Node, frozenset[tuple[Node, bool]]] = {y: frozenset() for y in outputs}
    for node in reversed(order(outputs)):
        own = found.setdefault(node, frozenset())
        for k, x in enumerate(node.deps):
            asked = own | {(node.deps[0], k == 1)} if node.op is if_else and k in (1, 2) else own
            found[x] = found[x] & asked if x in found else asked
    outer_first = lambda literal: (len(found[literal[0]]), literal[0].serial)
    return {node: tuple(sorted(guard, key=outer_first)) for node, guard in found.items() if guard}


def conditions(guard: Sequence[tuple[Node, bool]]) -> tuple[tuple[int, bool], ...]:
    """The guard as something that compares: `==` between variables makes a variable."""
    return tuple((test.serial, side) for test, side in guard)


def gated(guard: Sequence[tuple[Node, bool]], g: Node) -> Node:
    """g where all conditions hold, else zeros that cost no more than writing them."""
    for test, side in reversed(guard):
        g = make(if_else, [test, g, zeros_like(g)] if side else [test, zeros_like(g), g])
    return g


__all__: list[str] = []
