"""Kernel text run by Python itself: the same words over NumPy scalars, slow and with tracebacks one can read.

Pointers are flat NumPy arrays that refuse negative indices, `advance` is a slice, and every scalar function
checks the dtypes it is given. The functions are NumPy's own or plain `math`, so they share nothing with the
compiled ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from symgrad.base.dtypes import DTYPES

Array = np.ndarray


class Pointer(np.ndarray):
    """A flat array as kernel text sees it: no index wraps around."""

    def __getitem__(self, index):
        return super().__getitem__(self._checked(index))

    def __setitem__(self, index, value):
        if not isinstance(index, slice) and np.asarray(value).dtype != self.dtype:
            raise TypeError(f"a {np.asarray(value).dtype} value stored to {self.dtype} memory")
        super().__setitem__(self._checked(index), value)

    def _checked(self, index):
        if not isinstance(index, slice) and index < 0:
            raise IndexError(f"index {index} lies before the start of the memory")
        return index


def run_text(text: str, arguments: Sequence[Array | int]) -> None:
    """Run a kernel text on its argument table: arrays, which it reads and writes in place, and sizes."""
    space: dict[str, Any] = _Namespace()
    exec(compile(text, "<kernel>", "exec"), space)
    space["kernel"](list(arguments))


def scalar(name: str) -> Callable | None:
    """The plain scalar function of a full name such as `exp_float32`, or None."""
    base, _, dtype = name.rpartition("_")
    if dtype not in DTYPES:
        return None
    if base == "lit":
        return lambda written: _literal(dtype, written)
    if base == "index_to":
        return lambda index: np.int64(index).astype(dtype)
    if base.startswith("cast_") and base[5:] in DTYPES:
        return _typed(name, lambda x: _cast(x, dtype), (base[5:],), dtype)
    if base == "where":
        return _typed(name, lambda c, x, y: x if c else y, ("bool", dtype, dtype), dtype)
    if base == "ldexp":
        return _typed(name, np.ldexp, (dtype, "int32"), dtype)
    function = FUNCTIONS.get(base)
    if function is None:
        return None
    return _typed(name, function, None if base == "fma" else (dtype,) * _count(base),
                  "bool" if base in PREDICATES else dtype)


class _Namespace(dict):
    """The globals of a kernel text; names are made as it asks for them."""

    def __init__(self) -> None:
        super().__init__(size=lambda args, slot: int(args[slot]), advance=advance,
                         __builtins__=_Builtins(self))

    def find(self, name: str) -> Any:
        if name.startswith("ptr_") and name[4:] in DTYPES:
            return _pointer(name[4:])
        found = scalar(name) or _micro_kernels().get(name)
        if found is None:
            raise NameError(f"kernel text has no function {name!r}")
        return found


class _Builtins(dict):
    """What Python asks when a global is missing."""

    def __init__(self, space: _Namespace) -> None:
        super().__init__(range=range, min=min, max=max)
        self._space = space

    def __missing__(self, name: str) -> Any:
        return self._space.find(name)


@cache
def _micro_kernels() -> dict[str, Callable]:
    """The factories of micro-kernels that have a plain twin, `plain_<factory>`."""
    # here, for it brings in Numba, and only kernels with a header come this far
    from symgrad.backends.cpu import micro
    twins = {name: getattr(micro, f"plain_{name}", None) for name in micro.__all__}
    return {name: twin for name, twin in twins.items() if twin}


def _pointer(dtype: str) -> Callable:
    def bind(args: list, slot: int) -> Pointer:
        array = np.asarray(args[slot])
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise TypeError(f"slot {slot} holds {array.dtype} memory, not contiguous {dtype}")
        return array.reshape(-1).view(Pointer)
    return bind


def advance(pointer: Pointer, offset: int) -> Pointer:
    """The memory from element `offset` on."""
    return pointer[pointer._checked(offset):]


def _literal(dtype: str, written: Any) -> Any:
    return np.bool_(written in (True, 1, "True", "1")) if dtype == "bool" else np.dtype(dtype).type(written)


def _cast(x: Any, dtype: str) -> Any:
    return np.asarray(x).astype(dtype)[()]


def _typed(name: str, function: Callable, wanted: tuple[str, ...] | None, result: str) -> Callable:
    """`function` with operand dtypes checked, the result's dtype fixed and floating-point warnings off."""
    def call(*operands):
        found = tuple(np.asarray(x).dtype.name for x in operands)
        if wanted is not None and found != wanted:
            raise TypeError(f"{name} takes {wanted}, not {found}")
        with np.errstate(all="ignore"):
            return np.asarray(function(*operands)).astype(result)[()]
    return call


# ---- functions NumPy lacks ---------------------------------------------------------------------------------

def _through_float64(function: Callable[[float], float]) -> Callable:
    """A function of Python floats, with the limits that `math` raises for given as NaN or infinity."""
    def call(x):
        try:
            return np.float64(function(float(x)))
        except OverflowError:
            return np.float64(math.inf)
        except ValueError:
            return np.float64(math.nan)
    return call


def gammaln(x: float) -> float:
    """log |gamma(x)|; infinite at the poles."""
    if x <= 0 and x == math.floor(x):
        return math.inf
    return math.lgamma(x)


def digamma(x: float) -> float:
    """The derivative of log(gamma(x)) by recurrence, reflection and series: Abramowitz and Stegun 6.3."""
    if x == 0:
        return -math.copysign(math.inf, x)
    if x < 0:
        return math.nan if x == math.floor(x) else digamma(1 - x) - math.pi / math.tan(math.pi * (x % 1.0))
    shift = 0.0
    while x < 12:
        shift -= 1 / x
        x += 1
    if x == math.inf:
        return x
    w = 1 / (x * x)
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w * (1 / 132 - w * 691 / 32760)))))
    return shift + math.log(x) - 0.5 / x - series


def trigamma(x: float) -> float:
    """The derivative of digamma: Abramowitz and Stegun 6.4."""
    if x <= 0:
        if x == math.floor(x):
            return math.inf
        return (math.pi / math.sin(math.pi * (x % 1.0))) ** 2 - trigamma(1 - x)
    shift = 0.0
    while x < 12:
        shift += 1 / (x * x)
        x += 1
    w = 1 / (x * x)
    tail = w * (1 / 6 - w * (1 / 30 - w * (1 / 42 - w * (1 / 30 - w * (5 / 66 - w * 691 / 2730)))))
    return shift + 1 / x + 0.5 * w + tail / x


def _sigmoid(x):
    return 1 / (1 + np.exp(-x)) if x >= 0 else np.exp(x) / (1 + np.exp(x))


def _softplus(x):
    return np.logaddexp(x, x * 0)


def _fma(a, b, c):
    """a * b + c rounded once: float32 products are exact in float64, float64 ones nearly in long double."""
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return (wide(a) * wide(b) + wide(c)).astype(a.dtype)


def _integer_power(x, y):
    """x**y, wrapping; the truncated quotient for negative exponents, which NumPy refuses."""
    if np.issubdtype(x.dtype, np.floating) or y >= 0:
        return np.power(x, y)
    return {1: 1, -1: -1 if y % 2 else 1}.get(int(x), 0)


def _remainder_of(numpy_function: Callable) -> Callable:
    """Integer division by zero gives 0, as NumPy's arrays do."""
    return lambda x, y: numpy_function(np.asarray(x)[None], np.asarray(y)[None])[0]


FUNCTIONS: dict[str, Callable] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign, "floordiv": _remainder_of(np.floor_divide), "mod": _remainder_of(np.mod),
    "fmod": _remainder_of(np.fmod), "pow": _integer_power, "maximum": np.maximum, "minimum": np.minimum,
    "fmax": np.fmax, "fmin": np.fmin, "acc_add": np.add, "acc_mul": np.multiply, "acc_maximum": np.maximum,
    "acc_minimum": np.minimum, "fma": _fma, "copysign": np.copysign, "nextafter": np.nextafter,
    "heaviside": np.heaviside, "arctan2": np.arctan2, "hypot": np.hypot, "logaddexp": np.logaddexp,
    "logaddexp2": np.logaddexp2, "sigmoid": _sigmoid, "softplus": _softplus,
    "erf": _through_float64(math.erf), "erfc": _through_float64(math.erfc),
    "gammaln": _through_float64(gammaln),
    "digamma": _through_float64(digamma), "trigamma": _through_float64(trigamma),
    **{name: getattr(np, name) for name in (
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "sin", "cos", "tan",
        "arcsin",
        "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "floor", "ceil", "trunc",
        "rint",
        "gcd", "lcm", "isnan", "isinf", "isfinite", "signbit")},
    "bitand": np.bitwise_and, "bitor": np.bitwise_or, "bitxor": np.bitwise_xor, "bitnot": np.invert,
    "shl": np.left_shift, "shr": np.right_shift,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
    "logand": np.logical_and, "logor": np.logical_or, "logxor": np.logical_xor, "lognot": np.logical_not,
}
PREDICATES = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "signbit", "logand",
                        "logor",
                        "logxor", "lognot"))


def _count(base: str) -> int:
    """How many operands a function takes."""
    function = FUNCTIONS[base]
    if isinstance(function, np.ufunc):
        return function.nin
    return 2 if base in ("floordiv", "mod", "fmod", "pow") else 1
