"""Functions composed of rows: NumPy's ufuncs with two results, scipy.special's everyday ones, other names."""

from __future__ import annotations

import math

import numpy as np

from ..base import dtypes
from ..base.errors import DTypeError, four_parts
from ..base.origin import show, user_line
from ..graph.block import block, op_from_graph
from ..graph.node import Node
from . import elementwise as e
from .elementwise import (
    absolute,
    equal,
    erf,
    erfc,
    exp,
    floor,
    gammaln,
    log,
    log1p,
    number,
    sqrt,
    trunc,
    where,
)
from .row import as_tensor, cast, promoted

# names the Array API and NumPy 2 added
abs, acos, acosh, asin, asinh = e.absolute, e.arccos, e.arccosh, e.arcsin, e.arcsinh
atan, atan2, atanh, pow = e.arctan, e.arctan2, e.arctanh, e.power
bitwise_invert, bitwise_left_shift, bitwise_right_shift = e.invert, e.left_shift, e.right_shift


def _float(x) -> Node:
    x = as_tensor(x)
    return cast(x, dtypes.as_float(x.dtype))


def conjugate(x):
    """x: there are no complex numbers here."""
    return as_tensor(x)


conj = conjugate


# ----------------------------------------------------------------------------- ufuncs with two results
def divmod(x, y):
    """(x // y, x % y)."""
    return e.floor_divide(x, y), e.remainder(x, y)


def modf(x):
    """(fractional part, integral part), both with the sign of x."""
    x = _float(x)
    whole = trunc(x)
    fraction = where(e.isinf(x), number(0, x), x - whole)
    return e.copysign(fraction, x), whole


def frexp(x):
    """(mantissa, exponent) with x = mantissa * 2**exponent, 0.5 <= |mantissa| < 1; exponents are int32."""
    x = _float(x)
    plain = e.isfinite(x) & e.not_equal(x, 0)
    safe = absolute(where(plain, x, number(1, x)))
    guess = floor(e.log2(safe))
    # log2 may round across a power of two, so the guess is put right by comparing
    high = where(safe >= _two_to(guess + 1), guess + 1, guess)
    exponent = where(safe < _two_to(high), high, high + 1)
    mantissa = where(plain, _divided(x, exponent), x)
    return mantissa, cast(where(plain, exponent, number(0, x)), "int32")


def _two_to(k: Node) -> Node:
    """2**k for whole k: inf above the range, exact in it."""
    return e.exp2(k)


def _divided(x: Node, k: Node) -> Node:
    """x / 2**k in two steps, neither of which overflows."""
    half = floor(k / 2)
    return x * e.exp2(-half) * e.exp2(half - k)


def spacing(x):
    """The distance from x to the next number away from zero, with the sign of x."""
    x = _float(x)
    return e.nextafter(x, e.copysign(number(math.inf, x), x)) - x


def bitwise_count(x):
    """The number of one bits in |x|, as uint8."""
    x = as_tensor(x)
    if not dtypes.is_integer(x.dtype):
        raise DTypeError(four_parts("bitwise_count of integers", f"dtype {x.dtype}", show(user_line()),
                                    "x.astype('int64')"))
    value = x if x.dtype in dtypes.UNSIGNED else absolute(x)
    total = number(0, x)
    # the top bit of a signed minimum, whose absolute value is itself, is masked like the others
    for bit in range(8 * dtypes.itemsize(x.dtype)):
        total = total + e.bitwise_and(e.right_shift(value, bit), 1)
    return cast(total, "uint8")


def nan_to_num(x, nan=0.0, posinf=None, neginf=None):
    """x with NaN replaced by `nan` and infinities by the largest numbers, or by posinf and neginf."""
    x = as_tensor(x)
    if not dtypes.is_float(x.dtype):
        return x
    info = np.finfo(x.dtype)
    high = number(float(info.max) if posinf is None else posinf, x)
    low = number(float(info.min) if neginf is None else neginf, x)
    finite = where(e.isinf(x), where(x > 0, high, low), x)
    return where(e.isnan(x), number(nan, x), finite)


def isclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=False):
    """|a - b| <= atol + rtol * |b|, elementwise; infinities are close to themselves only."""
    a, b = (_float(x) for x in promoted(a, b))
    near = (absolute(a - b) <= absolute(b) * rtol + atol) & e.isfinite(b)
    near = near | equal(a, b)
    return near | (e.isnan(a) & e.isnan(b)) if equal_nan else near


# -------------------------------------------------------------------------------------- scipy.special
@block
def logit(x):
    """log(x / (1 - x)), the inverse of sigmoid."""
    x = _float(x)
    return log(x) - log1p(-x)


@block
def xlogy(x, y):
    """x * log(y), and 0 where x is 0; so is its gradient in y there."""
    x, y = (_float(v) for v in promoted(x, y))
    zero = equal(x, 0) & ~e.isnan(y)
    return where(zero, number(0, x), x * log(where(zero, number(1, y), y)))


@block
def xlog1py(x, y):
    """x * log(1 + y), and 0 where x is 0."""
    x, y = (_float(v) for v in promoted(x, y))
    zero = equal(x, 0) & ~e.isnan(y)
    return where(zero, number(0, x), x * log1p(where(zero, number(0, y), y)))


@block
def entr(x):
    """-x * log(x); 0 at 0 and -inf below."""
    x = _float(x)
    positive = x > 0
    inner = where(positive, x, number(1, x))
    return where(positive, -inner * log(inner), where(equal(x, 0), number(0, x),
                                                      where(e.isnan(x), x, number(-math.inf, x))))


@block
def ndtr(x):
    """The distribution function of the standard normal distribution."""
    return 0.5 * erfc(_float(x) * -math.sqrt(0.5))


@block
def betaln(a, b):
    """log |B(a, b)|."""
    a, b = (_float(v) for v in promoted(a, b))
    return gammaln(a) + gammaln(b) - gammaln(a + b)


@block
def log1mexp(x):
    """log(1 - exp(-x)) for x > 0, by the formula that is accurate on each side of log 2 (Maechler 2012)."""
    x = _float(x)
    small = x < math.log(2)
    return where(small, log(-e.expm1(-where(small, x, number(1, x)))),
                 log1p(-exp(-where(small, number(1, x), x))))


# Giles' approximation, single precision: coefficients in w = -log(1 - x^2), middle and tails (2010)
_CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
           -0.00417768164, 0.246640727, 1.50140941)
_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
         0.00943887047, 1.00167406, 2.83297682)


def _polynomial(coefficients, w: Node) -> Node:
    total = number(coefficients[0], w)
    for c in coefficients[1:]:
        total = total * w + c
    return total


@op_from_graph(vjp=lambda g, y, x: g * (math.sqrt(math.pi) / 2) * exp(y * y))
def erfinv(x):
    """The inverse of erf: +-inf at +-1, NaN outside. Giles' approximation, polished by Halley's steps."""
    x = _float(x)
    inside = absolute(x) < 1
    safe = where(inside, x, number(0, x))
    w = -log1p(-safe * safe)
    y = safe * where(w < 5, _polynomial(_CENTRE, w - 2.5), _polynomial(_TAIL, sqrt(e.maximum(w, 5)) - 3))
    # beyond the range of his fit: the first terms of the asymptotic series of erfc
    far = e.maximum(math.log(2 / math.pi) - 2 * log(1 - absolute(safe)), 8)
    y = where(w < 14, y, e.copysign(sqrt((far - log(far)) / 2), y))
    for _ in range(1 if x.dtype == "float32" else 3):
        # the error is measured from the nearer end, where erf itself has no digits left
        side = e.copysign(number(1, x), y)
        error = where(absolute(y) < 1, erf(y) - safe, side * ((1 - absolute(safe)) - erfc(absolute(y))))
        step = error * (math.sqrt(math.pi) / 2) * exp(y * y)
        y = y - step / (1 + y * step)
    edge = where(equal(absolute(x), 1), e.copysign(number(math.inf, x), x), number(math.nan, x))
    return where(inside, y, edge)


def polyval(p, x):
    """numpy.polyval: the polynomial with coefficients p (a vector of known length, highest first) at x."""
    p, x = promoted(p, x)
    total = number(0, x)
    for k in range(len(p)):
        total = total * x + p[k]
    return total


__all__ = ["abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "betaln", "bitwise_count",
           "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift", "conj", "conjugate", "divmod",
           "entr",
           "erfinv", "frexp", "isclose", "log1mexp", "logit", "modf", "nan_to_num", "ndtr", "polyval", "pow",
           "spacing", "xlog1py", "xlogy"]
