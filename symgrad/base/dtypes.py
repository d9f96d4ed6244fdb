"""dtype names, NumPy-2 promotion with weak Python scalars, tolerances."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .config import config
from .errors import DTypeError, close_match, four_parts
from .origin import show, user_line

FLOATS = ("float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
DTYPES = FLOATS + INTEGERS + ("bool",)

# Relative error that correct kernels stay within, per dtype; a reduction over n elements may use sqrt(n) times this.
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}


def dtype_name(dtype: Any) -> str:
    """The canonical name of a dtype given as a string, a NumPy dtype or a scalar type; None means floatX."""
    if dtype is None:
        return config.floatX
    if isinstance(dtype, str) and dtype in DTYPES:          # nearly always; NumPy takes its time over names
        return dtype
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise DTypeError(four_parts(f"dtype {dtype!r}", f"symgrad has {', '.join(DTYPES)}{close_match(name, DTYPES)}", show(user_line()),
                                    attempt="convert the data with .astype('float32') first"))
    return name


def is_float(dtype: str) -> bool:
    return dtype in FLOATS


def is_integer(dtype: str) -> bool:
    return dtype in INTEGERS


def itemsize(dtype: str) -> int:
    """Bytes per element."""
    return np.dtype(dtype).itemsize


@cache
def promote(*dtypes: str) -> str:
    """The common dtype of arrays, as NumPy 2 promotes (float32 with int64 gives float64)."""
    return dtype_name(np.result_type(*map(np.dtype, dtypes)))


def weak(value: bool | int | float, dtype: str) -> str:
    """The dtype a Python scalar takes next to `dtype`: scalars never widen within their kind (NEP 50)."""
    if isinstance(value, bool):
        return dtype
    if isinstance(value, int):
        return "int64" if dtype == "bool" else dtype
    return dtype if is_float(dtype) else "float64"


def as_float(dtype: str) -> str:
    """The float dtype that NumPy's floating functions give; 8-bit integers give float32, for there is no float16."""
    if is_float(dtype):
        return dtype
    return "float32" if itemsize(dtype) <= 2 else "float64"
