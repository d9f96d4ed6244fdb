"""Shared variables: parameters that live between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..base.dtypes import dtype_name
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from .node import SHARED, Node
from .types import Type, shape_text


class Shared(Node):
    """A variable with a value of its own, kept between calls; the handle in `updates`, `wrt` and `givens`."""

    __slots__ = ("advance", "version", "elsewhere", "lent")

    def __init__(self, array: np.ndarray, name: str | None = None, advance: Callable[[Node], Node] | None = None):
        """advance: what becomes of the value at each call of a function that reads it, unless the function updates it itself.

        lent: others may write to the array. elsewhere: a newer value, on a device.
        """
        super().__init__(SHARED, (), {}, Type(array.dtype.name, array.shape), payload=array, label=name)
        self.version, self.advance, self.lent = 0, advance, False

    @property
    def payload(self) -> Any:
        """The value as an array on the host. One that a device computed is copied from there when it is first asked for."""
        if self.elsewhere is not None:
            self.payload = np.asarray(self.elsewhere)
        return _value.__get__(self)

    @payload.setter
    def payload(self, array: np.ndarray) -> None:
        _value.__set__(self, array)
        self.elsewhere = None

    def get_value(self, borrow: bool = False) -> np.ndarray:
        """The value: a copy, or the array itself with borrow=True."""
        self.lent = self.lent or borrow
        return self.payload if borrow else self.payload.copy()

    def set_value(self, value: Any, borrow: bool = False) -> None:
        """Replace the value; dtype and shape stay. Raises ShapeError, or DTypeError where information would be lost."""
        array = np.asarray(value)
        if array.shape != self.payload.shape:
            raise ShapeError(four_parts(f"a value for {self.name or 'a shared variable'} of shape {shape_text(self.dims)}",
                                        f"shape {array.shape}", show(user_line()), "make a new sg.shared for another shape"))
        if not np.can_cast(array.dtype, self.payload.dtype, "same_kind"):
            raise DTypeError(four_parts(f"a value for {self.name or 'a shared variable'} of dtype {self.dtype}", f"dtype {array.dtype}",
                                        show(user_line()), f"value.astype({self.dtype!r})"))
        if borrow and array.dtype == self.payload.dtype and array.flags.c_contiguous and array.flags.writeable:
            self.payload, self.lent = array, True
        else:
            self.payload[...] = array
        self.version += 1

    def replace(self, array: Any) -> None:
        """Take over an array that fits exactly, from the host or a device; used for updates."""
        if isinstance(array, np.ndarray):
            self.payload = array
        else:
            self.elsewhere = array
        self.version += 1
        self.lent = False


_value = Node.__dict__["payload"]           # the slot behind the property


def shared(value: Any, name: str | None = None, borrow: bool = False) -> Shared:
    """A shared variable with this value. borrow=True aliases the array where dtype and layout allow.

    Python floats and lists of them become floatX; arrays keep their dtype.
    """
    if isinstance(value, Node):
        raise DTypeError(four_parts("sg.shared of an array or a number", f"a variable, {value._type}", show(user_line()), "value.eval() first"))
    dtype = None if isinstance(value, (np.ndarray, np.generic)) else _python_dtype(value)
    array = np.asarray(value, dtype=dtype)
    dtype_name(array.dtype)
    keep = borrow and array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative
    made = Shared(array if keep else np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True), name)
    made.lent = keep
    return made


def _python_dtype(value: Any) -> str | None:
    kind = np.asarray(value).dtype
    return dtype_name(None) if kind == np.float64 else None
