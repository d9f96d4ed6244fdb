"""Parts of arrays chosen by their values: as many elements as there turn out to be."""

from __future__ import annotations

from typing import Any

from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node
from .arrange import roll
from .create import arange, ones, zeros
from .elementwise import equal, isnan, not_equal
from .index import inc_subtensor, take
from .partition import flatnonzero
from .row import as_tensor
from .shape import reshape
from .sort import argsort, cumsum


def compress(condition, a, axis=None):
    """The slices of a along an axis (elements of the flattened a by default) where the vector `condition` is true, as numpy.compress."""
    condition = as_tensor(condition)
    if condition.ndim != 1:
        raise ShapeError(four_parts("compress by a vector of conditions", f"{condition._type}, made at {condition.where}", show(user_line()),
                                    "a[mask] for a mask of several axes"))
    return take(a, flatnonzero(condition), axis)


def extract(condition, arr):
    """The elements of the flattened arr where the condition is true, as numpy.extract."""
    return take(arr, flatnonzero(condition))


def unique(ar, return_index=False, return_inverse=False, return_counts=False):
    """The different elements of ar in order, as numpy.unique; NaN counts as one element and comes last.

    On request also a tuple with: where each is first found in the flattened ar, which of them each element of ar is (of its
    shape), how often each occurs.
    """
    ar = as_tensor(ar)
    flat = reshape(ar, -1)
    order = argsort(flat)
    ordered = take(flat, order)
    first = _differs_from_previous(ordered)
    places = flatnonzero(first)
    results = [take(ordered, places)]
    number = take(cumsum(first) - 1, argsort(order))          # which of the results each element is
    if return_index:
        results.append(take(order, places))
    if return_inverse:
        results.append(reshape(number, ar.dims))
    if return_counts:
        counts = zeros(results[0].dims, "int64")
        results.append(inc_subtensor(counts[number], ones(number.dims, "int64")))
    return results[0] if len(results) == 1 else tuple(results)


def _differs_from_previous(ordered: Node) -> Node:
    """Where a new value begins."""
    previous: Any = roll(ordered, 1)
    new = not_equal(ordered, previous)
    if ordered.dtype.startswith("float"):
        new = new & ~(isnan(ordered) & isnan(previous))
    return new | equal(arange(ordered.dims[0]), 0)


__all__ = ["compress", "extract", "unique"]
