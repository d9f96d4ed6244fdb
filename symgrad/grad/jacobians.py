"""Jacobians, Hessians and `vectorize`: one batched backward pass instead of a loop over outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..base import dtypes, poly
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.block import refuse_unknown
from ..graph.node import Node, new_input
from ..graph.types import Type, shape_text
from ..ops.batching import batched
from ..ops.create import eye
from ..ops.row import as_tensor, normalize_axis
from ..ops.shape import broadcast_to, reshape, transpose
from .forward import jvp
from .receipts import receipts_in, with_receipts
from .reverse import flat, grad, rebuilt, vjp


def jacobian(y: Node, x: Any, *, consider_constant: Sequence[Node] = (), disconnected: str = "raise", overrides: Any = None, **unknown: Any) -> Any:
    """dy/dx of shape y.shape + x.shape, in the structure of x: the cotangents of all elements of y in one batched pass.

    Raises DTypeError for an integer, DisconnectedError, and what `sg.grad` raises for overrides.
    """
    refuse_unknown(unknown, "jacobian", ("consider_constant", "disconnected", "overrides"))
    y = _float(y, "jacobian")
    rows = _pulled(y, y.dims, x, consider_constant, disconnected, overrides)
    return rebuilt(x, [reshape(j, (*y.dims, *j.dims[1:])) for j in rows])


def batch_jacobian(y: Node, x: Any, *, consider_constant: Sequence[Node] = (), disconnected: str = "raise", overrides: Any = None,
                   **unknown: Any) -> Any:
    """dy[n]/dx[n] for every example n: shape (n,) + y.shape[1:] + x.shape[1:].

    y[n] must depend on x[n] alone, as in a network without batch statistics; then one pass serves all examples.
    Raises ShapeError when the first sizes differ.
    """
    refuse_unknown(unknown, "batch_jacobian", ("consider_constant", "disconnected", "overrides"))
    y = _float(y, "batch_jacobian")
    for v in flat(x):
        if not y.ndim or not v.ndim or (isinstance(y.dims[0], int) and isinstance(v.dims[0], int) and y.dims[0] != v.dims[0]):
            raise ShapeError(four_parts("batch_jacobian of variables over the same examples", f"y {shape_text(y.dims)}, x {shape_text(v.dims)}",
                                        show(user_line()), "jacobian gives all y.shape + x.shape"))
    rows = _pulled(y, y.dims[1:], x, consider_constant, disconnected, overrides)
    result = []
    for j in rows:
        examples_first = transpose(j, (1, 0, *range(2, j.ndim)))
        result.append(reshape(examples_first, (*y.dims, *j.dims[2:])))
    return rebuilt(x, result)


def _pulled(y: Node, dims: Sequence[Any], x: Any, consider_constant: Sequence[Node], disconnected: str, overrides: Any) -> list[Node]:
    """The cotangents of x for each unit cotangent over the last axes `dims` of y, stacked in front."""
    cotangent = new_input(y._type)
    pulled = flat(vjp(y, x, cotangent, consider_constant=consider_constant, disconnected=disconnected, overrides=overrides))
    size = poly.product(dims)
    units = reshape(eye(size, dtype=y.dtype), (size, *(1,) * (y.ndim - len(dims)), *dims))
    rows = batched(pulled, {cotangent: broadcast_to(units, (size, *y.dims))}, size)
    return [with_receipts(j, receipts_in([g])) for j, g in zip(rows, pulled)]


def hessian(cost: Node, x: Any, **options: Any) -> Any:
    """d2 cost / dx dx of shape x.shape + x.shape; for a list of variables a list of rows of blocks."""
    if isinstance(x, Node):
        return jacobian(grad(cost, x, **options), x, disconnected="zero")
    return [jacobian(g, list(flat(x)), disconnected="zero") for g in flat(grad(cost, list(flat(x)), **options))]


def hvp(cost: Node, x: Any, v: Any, **options: Any) -> Any:
    """The Hessian of the cost at x times v, without the Hessian: the gradient's tangent along v (Pearlmutter 1994)."""
    return jvp(grad(cost, x, **options), x, v)


def vectorize(fn: Callable[..., Any], in_axes: Any = 0) -> Callable[..., Any]:
    """fn, which builds graph for one example, as a function of batches: results get a new leading axis.

    in_axes: the batch axis of each argument, or None for one that all examples share; an int for all. What does not depend on
    a batched argument is computed once.
    """
    def over_batches(*args: Any) -> Any:
        nodes = [as_tensor(a) for a in args]
        axes = list(in_axes) if isinstance(in_axes, (tuple, list)) else [in_axes] * len(nodes)
        if len(axes) != len(nodes) or all(a is None for a in axes):
            raise ShapeError(four_parts("vectorize with an axis or None per argument, one axis at least", f"in_axes={in_axes!r} for {len(nodes)} arguments",
                                        show(user_line())))
        fronts = [n if a is None else _to_front(n, a) for n, a in zip(nodes, axes)]
        sizes = [n.dims[0] for n, a in zip(fronts, axes) if a is not None]
        known = {s for s in sizes if isinstance(s, int)}
        if len(known) > 1:
            raise ShapeError(four_parts("vectorize over one number of examples", f"sizes {sizes}", show(user_line())))
        singles = [n if a is None else new_input(Type(n.dtype, n.dims[1:]), n.name) for n, a in zip(fronts, axes)]
        outs = fn(*singles)
        sources = {s: n for s, n, a in zip(singles, fronts, axes) if a is not None}
        alone = [as_tensor(y) for y in flat(outs)]
        together = batched(alone, sources, known.pop() if known else sizes[0])
        return rebuilt(outs, [with_receipts(b, receipts_in([a])) for a, b in zip(alone, together)])
    return over_batches


def _to_front(x: Node, axis: int) -> Node:
    k = normalize_axis(axis, x.ndim, "vectorize")
    return transpose(x, (k, *(a for a in range(x.ndim) if a != k)))


def _float(y: Node, what: str) -> Node:
    y = as_tensor(y)
    if not dtypes.is_float(y.dtype):
        raise DTypeError(four_parts(f"the {what} of a float variable", f"{y._type}, made at {y.where}", show(user_line()), "integers have no derivative"))
    return y
