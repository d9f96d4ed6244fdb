"""Elementwise ops: every NumPy ufunc with one result, and the activations. One row each.

A row is: name, scalar law (a function of `loops.scalar`, or an expression of them), NumPy spelling, derivative, samples.
Derivatives are the textbook ones; what happens at a kink is said where it is not obvious. Sections: casts, arithmetic,
exponentials, trigonometry, special functions, rounding, comparisons, logic and bits, selection, activations.
"""

from __future__ import annotations

import math

import numpy as np

from ..base import dtypes
from ..graph.node import Node, make
from ..graph.types import Type, broadcast_dims
from ..loops import ir
from ..loops.ir import E, View
from .row import STOP, Elementwise, Row, as_tensor, broadcast_index, cast, promoted, sample, undefined

INTS = ("int8", "int32", "int64", "uint8")
ANY = ("float32", "float64", *INTS)


def number(value: float, like: Node) -> Node:
    """A constant of the dtype of `like`."""
    return as_tensor(value, like.dtype)


def _total(function, v: float) -> float:
    try:
        return function(v)
    except (ValueError, OverflowError):
        return math.inf


def _flat(function):
    def vectorised(x):
        return np.array([_total(function, v) for v in x.ravel().tolist()], dtype=x.dtype).reshape(x.shape)
    return vectorised


# ------------------------------------------------------------------------------------------------ casts
class Cast(Row):
    """x converted to another dtype, as ndarray.astype."""

    elementwise = True
    samples = [sample((3, 4), dtype="float64"), sample((3,), dtype="int32", grad=False), sample((4,), dtype="bool", grad=False),
               sample((2, 3), dtypes=INTS, dtype="float32", grad=False), sample((5,), dtypes=("bool",), dtype="float32", grad=False)]

    def infer(self, x: Type, *, dtype: str) -> Type:
        return x.with_dtype(dtype)

    def at(self, i: tuple, x: View, *, dtype: str) -> E:
        return ir.cast(x[i], dtype)

    def numpy(self, x: np.ndarray, *, dtype: str) -> np.ndarray:
        with np.errstate(all="ignore"):
            return x.astype(dtype)

    def vjp(self, g: Node, y: Node, x: Node, *, dtype: str):
        return (cast(g, x.dtype) if dtypes.is_float(x.dtype) and dtypes.is_float(dtype) else STOP,)

    def __call__(self, x, dtype):
        return cast(x, dtype)


_cast = Cast("cast")
astype = _cast


def _unary(name, law, numpy, vjp=None, *, kind="float", **more):
    return Elementwise(name, law, numpy=numpy, vjp=vjp, kind=kind, arity=1,
                       samples=more.pop("samples", None) or [sample((3, 4)), sample((0, 2)), sample(())], **more)


def _binary(name, law, numpy, vjp=None, *, kind="same", **more):
    return Elementwise(name, law, numpy=numpy, vjp=vjp, kind=kind, arity=2, samples=more.pop("samples", None) or
                       [sample((3, 4), (3, 4)), sample((3, 1), (4,)), sample((), (2, 3))], **more)


def _with_integers(*shapes, low=-3, high=4):
    return [sample((3, 4), (3, 4)), sample((3, 1), (4,)), sample((), (2, 3)),
            sample((3, 4), (4,), dtypes=INTS, low=low, high=high, grad=False)]


# ------------------------------------------------------------------------------------------- arithmetic
add = _binary("add", "add", np.add, lambda g, y, a, b: (g, g), samples=_with_integers())
subtract = _binary("subtract", "sub", np.subtract, lambda g, y, a, b: (g, -g), samples=_with_integers())
multiply = _binary("multiply", "mul", np.multiply, lambda g, y, a, b: (g * b, g * a), samples=_with_integers())
divide = _binary("divide", "div", np.true_divide, lambda g, y, a, b: (g / b, -g * y / b), kind="quotient",
                 samples=[sample((3, 4), (3, 4), low=0.5), sample((3, 1), (4,), low=0.5)])
true_divide = divide
negative = _unary("negative", "neg", np.negative, lambda g, y, x: (-g,), kind="same",
                  samples=[sample((3, 4)), sample((4,), dtypes=INTS, grad=False)])
positive = _unary("positive", lambda x: x, np.positive, lambda g, y, x: (g,), kind="same")
absolute = _unary("absolute", "abs", np.abs, lambda g, y, x: (g * sign(x),), kind="same", kinks=(0.0,),
                  samples=[sample((3, 4)), sample((4,), dtypes=INTS, grad=False)])
fabs = _unary("fabs", "abs", np.fabs, lambda g, y, x: (g * sign(x),), kinks=(0.0,))
sign = _unary("sign", "sign", np.sign, lambda g, y, x: (STOP,), kind="same",
              samples=[sample((3, 4)), sample((4,), dtypes=INTS, grad=False)])
reciprocal = _unary("reciprocal", lambda x: 1 / x, np.reciprocal, lambda g, y, x: (-g * y * y,), samples=[sample((3, 4), low=0.5)])
square = _unary("square", lambda x: x * x, np.square, lambda g, y, x: (2 * g * x,), kind="same",
                samples=[sample((3, 4)), sample((4,), dtypes=INTS, low=-9, high=9, grad=False)])
floor_divide = _binary("floor_divide", "floordiv", np.floor_divide, lambda g, y, a, b: (STOP, STOP), samples=[
    sample((3, 4), (4,), low=0.5), sample((3, 4), (4,), dtypes=INTS, low=1, high=9, grad=False)])
# d/db (a - floor(a/b) b) = -floor(a/b)
remainder = _binary("remainder", "mod", np.remainder, lambda g, y, a, b: (g, -g * floor_divide(a, b)), samples=[
    sample((3, 4), (3, 4), low=0.6, high=1.0), sample((3, 4), (4,), dtypes=INTS, low=1, high=9, grad=False)])
mod = remainder
fmod = _binary("fmod", "fmod", np.fmod, lambda g, y, a, b: (g, -g * trunc(a / b)), samples=[
    sample((3, 4), (3, 4), low=0.6, high=1.0), sample((3, 4), (4,), dtypes=INTS, low=1, high=9, grad=False)])


def _power_vjp(g, y, a, b):
    # where b == 0 the derivative in a is 0 (not 0 * a**-1 = nan at a == 0); where a == 0 the derivative in b is 0 for b > 0
    da = where(equal(b, 0), number(0, g), g * b * power(a, b - 1))
    safe = where(a > 0, a, number(1, a))
    return da, g * where(a > 0, y * log(safe), where(equal(a, 0), number(0, y), number(math.nan, y)))


power = _binary("power", "pow", np.power, _power_vjp, samples=[
    sample((3, 4), (3, 4), low=0.3), sample((3, 1), (4,), low=0.3), sample((4,), (4,), dtypes=("int32", "int64"), low=0, high=5, grad=False)])
float_power = power


def _half_at_ties(better):
    # at a tie both sides get half, so the result stays a subgradient (as in PyTorch and JAX)
    def vjp(g, y, a, b):
        tie = where(equal(a, b), number(0.5, g), number(0, g))
        return g * where(better(a, b), number(1, g), tie), g * where(better(b, a), number(1, g), tie)
    return vjp


_extremes = [sample((3, 4), (3, 4)), sample((3, 1), (4,)), sample((4,), (4,), dtypes=INTS, low=-9, high=9, grad=False)]
maximum = _binary("maximum", "maximum", np.maximum, _half_at_ties(lambda a, b: a > b), samples=_extremes)
minimum = _binary("minimum", "minimum", np.minimum, _half_at_ties(lambda a, b: a < b), samples=_extremes)
fmax = _binary("fmax", "fmax", np.fmax, _half_at_ties(lambda a, b: (a > b) | isnan(b)), samples=_extremes)
fmin = _binary("fmin", "fmin", np.fmin, _half_at_ties(lambda a, b: (a < b) | isnan(b)), samples=_extremes)

# ------------------------------------------------------------------------------------------ exponentials
_positive = [sample((3, 4), low=0.2, high=3.0), sample((), low=0.2)]
exp = _unary("exp", "exp", np.exp, lambda g, y, x: (g * y,))
exp2 = _unary("exp2", "exp2", np.exp2, lambda g, y, x: (g * y * math.log(2),))
expm1 = _unary("expm1", "expm1", np.expm1, lambda g, y, x: (g * exp(x),))
log = _unary("log", "log", np.log, lambda g, y, x: (g / x,), samples=_positive)
log2 = _unary("log2", "log2", np.log2, lambda g, y, x: (g / (x * math.log(2)),), samples=_positive)
log10 = _unary("log10", "log10", np.log10, lambda g, y, x: (g / (x * math.log(10)),), samples=_positive)
log1p = _unary("log1p", "log1p", np.log1p, lambda g, y, x: (g / (1 + x),), samples=[sample((3, 4), low=-0.5)])
sqrt = _unary("sqrt", "sqrt", np.sqrt, lambda g, y, x: (g / (2 * y),), samples=_positive)
rsqrt = _unary("rsqrt", lambda x: 1 / ir.call("sqrt", x), lambda x: x.dtype.type(1) / np.sqrt(x),
               lambda g, y, x: (-0.5 * g * y * y * y,), samples=_positive, doc="1 / sqrt(x).")
cbrt = _unary("cbrt", "cbrt", np.cbrt, lambda g, y, x: (g / (3 * y * y),), samples=_positive)
logaddexp = _binary("logaddexp", "logaddexp", np.logaddexp, lambda g, y, a, b: (g * sigmoid(a - b), g * sigmoid(b - a)), kind="float")
logaddexp2 = _binary("logaddexp2", "logaddexp2", np.logaddexp2, lambda g, y, a, b: (
    g * sigmoid((a - b) * math.log(2)), g * sigmoid((b - a) * math.log(2))), kind="float")

# ----------------------------------------------------------------------------------------- trigonometry
_inside = [sample((3, 4), low=-0.9, high=0.9), sample((), low=-0.9, high=0.9)]
sin = _unary("sin", "sin", np.sin, lambda g, y, x: (g * cos(x),))
cos = _unary("cos", "cos", np.cos, lambda g, y, x: (-g * sin(x),))
tan = _unary("tan", "tan", np.tan, lambda g, y, x: (g * (1 + y * y),), samples=[sample((3, 4), low=-1.2, high=1.2)])
arcsin = _unary("arcsin", "arcsin", np.arcsin, lambda g, y, x: (g / sqrt(1 - x * x),), samples=_inside)
arccos = _unary("arccos", "arccos", np.arccos, lambda g, y, x: (-g / sqrt(1 - x * x),), samples=_inside)
arctan = _unary("arctan", "arctan", np.arctan, lambda g, y, x: (g / (1 + x * x),))
arctan2 = _binary("arctan2", "arctan2", np.arctan2, lambda g, y, a, b: (g * b / (a * a + b * b), -g * a / (a * a + b * b)), kind="float",
                  samples=[sample((3, 4), (3, 4), low=0.3), sample((3, 1), (4,), low=-2.0, high=-0.3)])
hypot = _binary("hypot", "hypot", np.hypot, lambda g, y, a, b: (g * a / y, g * b / y), kind="float",
                samples=[sample((3, 4), (3, 4), low=0.3), sample((3, 1), (4,), low=-2.0, high=-0.3)])
sinh = _unary("sinh", "sinh", np.sinh, lambda g, y, x: (g * cosh(x),))
cosh = _unary("cosh", "cosh", np.cosh, lambda g, y, x: (g * sinh(x),))
tanh = _unary("tanh", "tanh", np.tanh, lambda g, y, x: (g * (1 - y * y),))
arcsinh = _unary("arcsinh", "arcsinh", np.arcsinh, lambda g, y, x: (g / sqrt(x * x + 1),))
arccosh = _unary("arccosh", "arccosh", np.arccosh, lambda g, y, x: (g / sqrt(x * x - 1),), samples=[sample((3, 4), low=1.5, high=4.0)])
arctanh = _unary("arctanh", "arctanh", np.arctanh, lambda g, y, x: (g / (1 - x * x),), samples=_inside)
deg2rad = _unary("deg2rad", lambda x: x * (math.pi / 180), np.deg2rad, lambda g, y, x: (g * (math.pi / 180),))
rad2deg = _unary("rad2deg", lambda x: x * (180 / math.pi), np.rad2deg, lambda g, y, x: (g * (180 / math.pi),))
radians, degrees = deg2rad, rad2deg

# ------------------------------------------------------------------------------------- special functions
erf = _unary("erf", "erf", _flat(math.erf), lambda g, y, x: (g * exp(-x * x) * (2 / math.sqrt(math.pi)),), doc="The error function.")
erfc = _unary("erfc", "erfc", _flat(math.erfc), lambda g, y, x: (-g * exp(-x * x) * (2 / math.sqrt(math.pi)),), doc="1 - erf(x).")
gammaln = _unary("gammaln", "gammaln", _flat(math.lgamma), lambda g, y, x: (g * digamma(x),), samples=_positive,
                 doc="log |Gamma(x)|.")


def _digamma(x: float) -> float:
    """psi(x) in double precision: reflection, upward recurrence to 10, asymptotic series (Abramowitz and Stegun 6.3.18)."""
    if x == 0:
        return -math.copysign(math.inf, x)
    if x == -math.inf or (x < 0 and x == math.floor(x)):
        return math.nan
    if x < 0.5:
        return _digamma(1 - x) - math.pi / math.tan(math.pi * x)
    total = 0.0
    while x < 10:
        total, x = total - 1 / x, x + 1
    s = 1 / (x * x)
    series = s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s * (1 / 132 - s * 691 / 32760)))))
    return total + math.log(x) - 0.5 / x - series


def _trigamma(x: float) -> float:
    """psi'(x), by the same steps (Abramowitz and Stegun 6.4.12)."""
    if x == -math.inf:
        return math.nan
    if x <= 0 and x == math.floor(x):
        return math.inf
    if x < 0.5:
        return -_trigamma(1 - x) + (math.pi / math.sin(math.pi * x)) ** 2
    total = 0.0
    while x < 10:
        total, x = total + 1 / (x * x), x + 1
    s = 1 / (x * x)
    series = (1 / x) * (1 + s * (1 / 6 - s * (1 / 30 - s * (1 / 42 - s * (1 / 30 - s * 5 / 66)))))
    return total + series + 0.5 * s


digamma = _unary("digamma", "digamma", _flat(_digamma), lambda g, y, x: (g * trigamma(x),), samples=_positive, doc="d log Gamma(x) / dx.")


def _no_tetragamma(g, y, x):
    return (undefined("the derivative of trigamma (polygamma of order 2) is not available"),)


trigamma = _unary("trigamma", "trigamma", _flat(_trigamma), _no_tetragamma, doc="The derivative of digamma.",
                  samples=[sample((3, 4), low=0.2, high=3.0, grad=False)])
sinc = _unary("sinc", lambda x: ir.cond(ir.call("eq", x, 0), ir.literal(1, x.dtype), ir.call("sin", x * math.pi) / (x * math.pi)),
              np.sinc, lambda g, y, x: (g * where(equal(x, 0), number(0, x), (cos(x * math.pi) - y) / where(equal(x, 0), number(1, x), x)),))

# --------------------------------------------------------------------------------------------- rounding
_steps = [sample((3, 4), low=-2.4, high=2.4), sample((4,), low=-2.4)]
_flat_vjp = lambda g, y, x: (STOP,)                     # piecewise constant
floor = _unary("floor", "floor", np.floor, _flat_vjp, samples=_steps)
ceil = _unary("ceil", "ceil", np.ceil, _flat_vjp, samples=_steps)
trunc = _unary("trunc", "trunc", np.trunc, _flat_vjp, samples=_steps)
rint = _unary("rint", "rint", np.rint, _flat_vjp, samples=_steps, doc="Round to the nearest integer, halves to even.")
fix = trunc
copysign = _binary("copysign", "copysign", np.copysign, lambda g, y, a, b: (g * sign(a) * sign(y), STOP), kind="float")
nextafter = _binary("nextafter", "nextafter", np.nextafter, lambda g, y, a, b: (g, STOP), kind="float",
                    samples=[sample((3, 4), (3, 4), grad=False)])
heaviside = _binary("heaviside", "heaviside", np.heaviside, lambda g, y, a, b: (STOP, g * equal(a, 0)), kind="float",
                    samples=[sample((3, 4), (3, 4), grad=False)])


def around(x, decimals=0):
    """x rounded to a number of decimals, halves to even; integers stay what they are for decimals >= 0."""
    x = as_tensor(x)
    if dtypes.is_float(x.dtype):
        return rint(x) if not decimals else rint(x * 10.0**decimals) / 10.0**decimals
    if decimals >= 0:
        return x if x.dtype != "bool" else cast(x, "float32")
    return cast(rint(cast(x, "float64") * 10.0**decimals) / 10.0**decimals, x.dtype)


round = around


def ldexp(x, e):
    """x * 2**e."""
    x, e = as_tensor(x), as_tensor(e)
    x = cast(x, dtypes.as_float(x.dtype))
    return x * exp2(cast(e, x.dtype))


# ------------------------------------------------------------------------------------------- comparisons
def _predicate(name, law, numpy, arity=2):
    shapes = [(3, 4), (4,)][:arity]
    cases = [sample(*shapes, grad=False), sample(*shapes, dtypes=INTS, low=-3, high=3, grad=False)]
    return Elementwise(name, law, numpy=numpy, kind="predicate", arity=arity, samples=cases)


equal = _predicate("equal", "eq", np.equal)
not_equal = _predicate("not_equal", "ne", np.not_equal)
less = _predicate("less", "lt", np.less)
less_equal = _predicate("less_equal", "le", np.less_equal)
greater = _predicate("greater", "gt", np.greater)
greater_equal = _predicate("greater_equal", "ge", np.greater_equal)


def _never(value):
    return lambda x: ir.call(value, x) if dtypes.is_float(x.dtype) else ir.literal(value == "isfinite", "bool")


isnan = _predicate("isnan", _never("isnan"), np.isnan, 1)
isinf = _predicate("isinf", _never("isinf"), np.isinf, 1)
isfinite = _predicate("isfinite", _never("isfinite"), np.isfinite, 1)
signbit = _predicate("signbit", lambda x: ir.call("signbit", x) if dtypes.is_float(x.dtype) else x < 0, np.signbit, 1)
# Theano's names
eq, neq, lt, le, gt, ge = equal, not_equal, less, less_equal, greater, greater_equal


# ----------------------------------------------------------------------------------------- logic and bits
def _logical(name, law, numpy, arity=2):
    shapes = [(3, 4), (4,)][:arity]
    return Elementwise(name, law, numpy=numpy, kind="logical", arity=arity, samples=[sample(*shapes, dtypes=("bool", "int32"), low=0, high=2, grad=False)])


logical_and = _logical("logical_and", "logand", np.logical_and)
logical_or = _logical("logical_or", "logor", np.logical_or)
logical_xor = _logical("logical_xor", "logxor", np.logical_xor)
logical_not = _logical("logical_not", "lognot", np.logical_not, 1)


def _bits(name, law, boolean, numpy, arity=2):
    shapes = [(3, 4), (4,)][:arity]
    return Elementwise(name, lambda *x: ir.call(boolean if x[0].dtype == "bool" else law, *x), numpy=numpy, kind="bits", arity=arity,
                       samples=[sample(*shapes, dtypes=("bool", *INTS), low=0, high=2 if arity == 1 else 9, grad=False)])


bitwise_and = _bits("bitwise_and", "bitand", "logand", np.bitwise_and)
bitwise_or = _bits("bitwise_or", "bitor", "logor", np.bitwise_or)
bitwise_xor = _bits("bitwise_xor", "bitxor", "logxor", np.bitwise_xor)
invert = _bits("invert", "bitnot", "lognot", np.invert, 1)
bitwise_not = invert


def _integer(name, law, numpy, low=0, high=7):
    return Elementwise(name, law, numpy=numpy, kind="integer", arity=2, samples=[sample((3, 4), (4,), dtypes=INTS, low=low, high=high, grad=False)])


left_shift = _integer("left_shift", "shl", np.left_shift)
right_shift = _integer("right_shift", "shr", np.right_shift)
gcd = _integer("gcd", "gcd", np.gcd, high=100)
lcm = _integer("lcm", "lcm", np.lcm, high=11)


# --------------------------------------------------------------------------------------------- selection
class Where(Row):
    """x where the condition holds, else y. Both are computed; `sg.ifelse` computes one."""

    elementwise = True
    samples = [sample((3, 4), (3, 4), (3, 4)), sample((4,), (3, 1), ()), sample((4,), (3, 1), (4,), dtypes=INTS, low=0, high=3, grad=False)]

    def infer(self, condition: Type, x: Type, y: Type) -> Type:
        return Type(x.dtype, broadcast_dims(condition.dims, x.dims, y.dims, what="where"))

    def at(self, i: tuple, condition: View, x: View, y: View) -> E:
        return ir.select(*(v[broadcast_index(i, v.dims)] for v in (condition, x, y)))

    def numpy(self, condition, x, y):
        return np.where(condition, x, y)

    def vjp(self, g, out, condition, x, y):
        zero = number(0, g)
        return STOP, where(condition, g, zero), where(condition, zero, g)

    def __call__(self, condition, x, y):
        return make(self, [cast(condition, "bool"), *promoted(x, y)])


where = Where("where")


def switch(condition, x, y):
    """Theano's name for `where`."""
    return where(condition, x, y)


def clip(x, low=None, high=None):
    """x limited to [low, high], as numpy.clip; a None bound is absent. The gradient passes inside and at the bounds."""
    if low is None and high is None:
        return as_tensor(x)
    if low is None or high is None:
        return (minimum(x, high) if low is None else maximum(x, low))
    return _clip(x, low, high)


_clip = Elementwise("clip", lambda x, low, high: ir.call("minimum", ir.call("maximum", x, low), high), numpy=np.clip, arity=3, public=False,
                    vjp=lambda g, y, x, low, high: (where((x >= low) & (x <= high), g, number(0, g)),
                                                    where(x < low, g, number(0, g)), where(x > high, g, number(0, g))),
                    samples=[sample((3, 4), (), (4,))])

# -------------------------------------------------------------------------------------------- activations
relu = _unary("relu", lambda x: ir.call("maximum", x, 0), lambda x: np.maximum(x, 0), lambda g, y, x: (where(x > 0, g, number(0, g)),),
              kind="same", kinks=(0.0,), doc="max(x, 0). The gradient at 0 is 0. NaN stays NaN.")
sigmoid = _unary("sigmoid", "sigmoid", lambda x: np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))).astype(x.dtype),
                 lambda g, y, x: (g * y * (1 - y),), doc="1 / (1 + exp(-x)).")
softplus = _unary("softplus", "softplus", lambda x: np.logaddexp(x, x.dtype.type(0)), lambda g, y, x: (g * sigmoid(x),), doc="log(1 + exp(x)).")
logsigmoid = _unary("logsigmoid", lambda x: -ir.call("softplus", -x), lambda x: -np.logaddexp(-x, x.dtype.type(0)), lambda g, y, x: (g * sigmoid(-x),),
                    doc="log(sigmoid(x)), without overflow.")
expit = sigmoid

__all__ = [
    "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "around", "round",
    "astype", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cbrt", "ceil", "clip",
    "copysign", "cos", "cosh", "deg2rad", "degrees", "digamma", "divide", "eq", "equal", "erf", "erfc",
    "exp", "exp2", "expit", "expm1", "fabs", "fix", "float_power", "floor", "floor_divide", "fmax",
    "fmin", "fmod", "gammaln", "gcd", "ge", "greater", "greater_equal", "gt", "heaviside", "hypot",
    "invert", "isfinite", "isinf", "isnan", "lcm", "ldexp", "le", "left_shift", "less", "less_equal",
    "log", "log10", "log1p", "log2", "logaddexp", "logaddexp2", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logsigmoid", "lt", "maximum", "minimum", "mod", "multiply", "negative",
    "neq", "nextafter", "not_equal", "positive", "power", "rad2deg", "radians", "reciprocal", "relu",
    "remainder", "right_shift", "rint", "rsqrt", "sigmoid", "sign", "signbit", "sin", "sinc", "sinh",
    "softplus", "sqrt", "square", "subtract", "switch", "tan", "tanh", "trigamma", "true_divide",
    "trunc", "where",
]
