"""`route`: each row through the branch that its gate names, each branch once, on just its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import dtypes
from ..base.errors import DTypeError, ShapeError, SymgradError, four_parts
from ..base.origin import show, user_line
from ..base.structure import flat, rebuilt
from ..graph.node import CONSTANT, Node
from ..graph.types import Type, shape_text
from .partition import Parts, parts_by
from .row import as_tensor, cast
from .shape import BoundsError
from .sizes import differ


def route(gates: Any, branches: Sequence[Callable[[Any], Any]], x: Any) -> Any:
    """Row i of x through `branches[gates[i]]`; the results in the order of the rows.

    gates: a vector of integers (or bools for two branches); negative ones count from the end. branches: functions of rows
    (any number of them, also none) to as many rows of results: a variable, or a list, tuple or dict of them, of one type for
    all branches. x: a variable whose first axis is the rows, or a list, tuple or dict of such. Each branch is computed once, on
    just its rows, forward and backward; parameters of a branch without rows have zero gradients.
    Raises BoundsError for gates that name no branch, where they are known or at the call.
    """
    gates, branches, xs = as_tensor(gates), list(branches), [as_tensor(v) for v in flat(x)]
    _check(gates, branches, xs)
    parts = parts_by(cast(gates, "int64"), len(branches))
    results = [branch(rebuilt(x, [parts.of(v, k) for v in xs])) for k, branch in enumerate(branches)]
    rows = [[as_tensor(y) for y in flat(result)] for result in results]
    for k in range(len(branches)):
        _check_results(k, results, rows, parts)
    return rebuilt(results[0], [parts.together(ys) for ys in zip(*rows)])


def _check(gates: Node, branches: Sequence[Any], xs: Sequence[Node]) -> None:
    here, number = show(user_line()), len(branches)
    if dtypes.is_float(gates.dtype):
        raise DTypeError(four_parts("route by gates that number branches", f"gates {gates._type}, made at {gates.where}", here, "gates.astype('int64')"))
    if gates.ndim != 1:
        raise ShapeError(four_parts("route by one gate per row", f"gates {gates._type}, made at {gates.where}", here,
                                    "a vector of gates; sg.ifelse chooses for all rows at once"))
    if not number or not all(map(callable, branches)):
        raise SymgradError(four_parts("route through a list of functions", f"{[type(b).__name__ for b in branches]}", here,
                                      "functions from rows to rows, such as layers"))
    for v in xs:
        if not v.ndim or differ(v.dims[0], gates.dims[0]):
            raise ShapeError(four_parts("route with one gate per row", [f"gates {gates._type}, made at {gates.where}", f"x {v._type}, made at {v.where}"],
                                        here, "as many gates as rows"))
    if gates.op is CONSTANT and gates.payload.size:
        wrong = np.flatnonzero((gates.payload.astype("int64") < -number) | (gates.payload.astype("int64") >= number))
        if wrong.size:
            raise BoundsError(four_parts(f"route through {number} branches", f"gate {gates.payload[wrong[0]]} of row {wrong[0]}", here,
                                         f"gates from {-number} to {number - 1}"))


def _check_results(k: int, results: Sequence[Any], rows: Sequence[Sequence[Node]], parts: Parts) -> None:
    """What branch k made has a row for each of its rows, and the structure and types of what the first branch made."""
    structure = lambda result: list(result) if isinstance(result, dict) else len(flat(result)) if isinstance(result, (list, tuple)) else "one"
    if structure(results[k]) != structure(results[0]):
        raise ShapeError(four_parts("route through branches with as many results", f"branch 0: {structure(results[0])}, branch {k}: {structure(results[k])}",
                                    show(user_line()), "the same structure from every branch"))
    for first, y in zip(rows[0], rows[k]):
        if not y.ndim or y.dims[0] != parts.sizes[k]:
            raise ShapeError(four_parts("branches that return a row for each row they are given",
                                        f"branch {k} made {y._type} of {shape_text((parts.sizes[k],))} rows, made at {y.where}", show(user_line()),
                                        "keep the first axis; T.broadcast_to(value, rows.shape) where the result does not depend on x"))
        if y.dtype != first.dtype or y.ndim != first.ndim or any(map(differ, y.dims[1:], first.dims[1:])):
            row = lambda node: Type(node.dtype, node.dims[1:])
            raise (DTypeError if y.dtype != first.dtype else ShapeError)(four_parts(
                "branches whose rows have one type", [f"branch 0: rows {row(first)}, made at {first.where}", f"branch {k}: rows {row(y)}, made at {y.where}"],
                show(user_line()), "reshape or cast the results of one branch"))


__all__: list[str] = []
