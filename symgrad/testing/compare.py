"""Backends against each other, and arrays against expected arrays, with one tolerance table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import dtypes
from ..base.errors import SymgradError
from ..grad.reverse import flat
from ..graph.node import new_input
from ..graph.types import Type
from ..ops.row import as_tensor
from ..runtime.function import function


class Difference(SymgradError, AssertionError):
    """Two results that should be equal and are not."""


def assert_close(got: Any, want: Any, what: str = "result", *, factor: float = 8.0, scale: float | None = None) -> None:
    """Nothing, if dtype and shape are equal and floats agree within `factor` times the tolerance of the dtype.

    The error is measured against |want|, with the largest finite |want| as the unit near zero (`scale` to say otherwise).
    NaN equals NaN, and infinities keep their sign.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.dtype != want.dtype or got.shape != want.shape:
        raise Difference(f"{what}: {got.dtype} {got.shape}, expected {want.dtype} {want.shape}")
    wrong = ~elements_close(got, want, factor, scale)
    if not wrong.any():
        return
    index = tuple(int(k) for k in np.argwhere(wrong)[0]) if got.ndim else ()
    raise Difference(f"{what}: {got[index]!r} at {index}, expected {want[index]!r}; {int(wrong.sum())} of {wrong.size} elements differ")


def elements_close(got: np.ndarray, want: np.ndarray, factor: float, scale: float | None = None) -> np.ndarray:
    if got.dtype.kind != "f":
        return got == want
    finite = np.isfinite(want)
    if scale is None:
        scale = float(np.abs(want[finite]).max(initial=0.0)) or 1.0
    tolerance = factor * dtypes.TOLERANCE[got.dtype.name]
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(got - want) <= tolerance * np.maximum(np.abs(want), 0.1 * scale)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.where(finite, near | same, same)


def assert_same(fn: Callable[..., Any], *point: Any, backends: Sequence[str] = ("reference", "cpu"), factor: float = 8.0) -> None:
    """Nothing, if `fn` of these arrays gives the same on every backend; the first one is the standard.

    fn takes variables and gives one or several. Raises Difference with the output, the element and both values.
    """
    arrays = [np.asarray(p) for p in point]
    inputs = [new_input(Type(a.dtype.name, a.shape), f"argument {k}") for k, a in enumerate(arrays)]
    outputs = [as_tensor(y) for y in flat(fn(*inputs))]
    first, *others = backends
    want = function(inputs, outputs, backend=first, on_unused_input="ignore")(*arrays)
    for name in others:
        got = function(inputs, outputs, backend=name, on_unused_input="ignore")(*arrays)
        for k, (a, b) in enumerate(zip(got, want)):
            assert_close(a, b, f"output {k} ({outputs[k].op.name} made at {outputs[k].where}) on {name} against {first}", factor=factor)


__all__ = ["Difference", "assert_close", "assert_same"]
