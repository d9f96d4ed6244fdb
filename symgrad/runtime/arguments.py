"""Arguments of a call: positional or by name, converted where nothing is lost, checked against the declared types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.errors import DTypeError, MissingInputError, ShapeError, close_match, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node
from ..graph.types import dim_text, shape_text


def ordered(inputs: Sequence[Node], args: tuple, kwargs: Mapping[str, Any], function: str) -> list[Any]:
    """The values of the inputs in order, from positional and named arguments."""
    names = {x.name: k for k, x in enumerate(inputs) if x.name}
    signature = f"{function}({', '.join(x.name or f'arg{k}' for k, x in enumerate(inputs))})"
    if len(args) > len(inputs):
        raise MissingInputError(four_parts(f"{signature} takes {len(inputs)} arguments", f"{len(args)} given", show(user_line())))
    values: list[Any] = [*args, *[_absent] * (len(inputs) - len(args))]
    for name, value in kwargs.items():
        if name not in names:
            raise MissingInputError(four_parts(f"{signature} with {name}=...", f"no input of that name{close_match(name, names)}", show(user_line())))
        if values[names[name]] is not _absent:
            raise MissingInputError(four_parts(f"{signature}", f"{name} given twice", show(user_line())))
        values[names[name]] = value
    missing = [x.name or f"arg{k}" for k, (x, v) in enumerate(zip(inputs, values)) if v is _absent]
    if missing:
        raise MissingInputError(four_parts(signature, f"no value for {', '.join(missing)}", show(user_line())))
    return values


_absent = object()


def converted(x: Node, value: Any, position: int) -> np.ndarray:
    """The value as a C-contiguous array of the input's dtype. Only conversions that lose nothing are made."""
    label = x.name or f"argument {position}"
    if isinstance(value, Node):
        raise DTypeError(four_parts(f"a value for {label}", "a symbolic variable", show(user_line()), "givens={x: variable} when compiling"))
    array = _from_python(x, value, label) if not isinstance(value, (np.ndarray, np.generic)) else np.asarray(value)
    if array.dtype.name != x.dtype or not array.dtype.isnative:
        if not np.can_cast(array.dtype, x.dtype, "safe"):
            raise DTypeError(four_parts(f"{x.dtype} for {label} ({x._type}, made at {x.where})", f"an array of {array.dtype}", show(user_line()),
                                        f"value.astype({x.dtype!r}); it would lose information, so it is not done for you"))
        array = array.astype(x.dtype)
    _check_shape(x, array, label)
    return np.require(array, requirements=["C", "A"]) if array.ndim else np.ascontiguousarray(array).reshape(())


def _from_python(x: Node, value: Any, label: str) -> np.ndarray:
    """Python numbers and lists are weak: floats take a float input's dtype, ints must fit."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(four_parts(f"{x._type} for {label}", f"{error}", show(user_line()))) from None
    if array.dtype.kind not in "biuf":
        raise DTypeError(four_parts(f"{x._type} for {label}", f"{type(value).__name__} of {array.dtype}", show(user_line()), "a NumPy array"))
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return array
    target = np.dtype(x.dtype)
    if target.kind == "f" and array.dtype.kind in "biuf":
        return array.astype(target)
    if target.kind in "iu" and array.dtype.kind in "biu":
        info = np.iinfo(target)
        if array.size == 0 or (array.min() >= info.min and array.max() <= info.max):
            return array.astype(target)
    if array.size == 0:
        return array.astype(target)
    return array


def _check_shape(x: Node, array: np.ndarray, label: str) -> None:
    if array.ndim != x.ndim or any(isinstance(d, int) and d != n for d, n in zip(x.dims, array.shape)):
        wrong = [f"axis {k} is {n}, not {dim_text(d)}" for k, (d, n) in enumerate(zip(x.dims, array.shape)) if isinstance(d, int) and d != n]
        raise ShapeError(four_parts(f"shape {shape_text(x.dims)} for {label} (made at {x.where})",
                                    [f"shape {array.shape}", *(wrong if array.ndim == x.ndim else [f"{array.ndim} axes, not {x.ndim}"])],
                                    show(user_line()), "declare a size as None or a name where it varies"))
