"""Laws of arithmetic, of selection and of logic. Exact for every input unless a rule says where it is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..base import dtypes
from ..graph.node import CONSTANT, Node, make, new_input
from ..graph.types import Type
from ..ops.row import ROWS
from .pattern import anything, attribute, boolean, constant, floating, integer, op, uniform
from .rule import ROUNDING, ZERO_SIGN, RuleBook, examples, except_at, when

x, y, z = anything("x"), anything("y"), anything("z")
f, n, b, b2 = floating("f"), integer("n"), boolean("b"), boolean("b2")
c, d = constant("c"), constant("d")
a, a2, s = attribute("a"), attribute("a2"), attribute("s")
maximum, minimum, relu, absolute = op("maximum"), op("minimum"), op("relu"), op("absolute")
floor, ceil, trunc, rint, sign = op("floor"), op("ceil"), op("trunc"), op("rint"), op("sign")
sqrt, rsqrt, square, reciprocal = op("sqrt"), op("rsqrt"), op("square"), op("reciprocal")
negative, where, cast, equal, not_equal = (
    op("negative"),
    op("where"),
    op("cast"),
    op("equal"),
    op("not_equal"),
)
logical_and, logical_or, logical_xor, logical_not = (
    op("logical_and"),
    op("logical_or"),
    op("logical_xor"),
    op("logical_not"),
)
less, less_equal, greater, greater_equal = op("less"), op("less_equal"), op("greater"), op("greater_equal")
sum_, ifelse = op("sum"), op("ifelse")

SIDES = examples({"b": (), "x": (3, 4), "y": (3, 4), "z": (3, 4)})
MASK = examples({"a": "float32"})


def is_power_of_two(value: Any) -> bool:
    """Multiplying by it, or by its inverse, only changes the exponent."""
    mantissa, exponent = math.frexp(abs(float(value)))
    return mantissa == 0.5 and abs(exponent) < 100


def scales_up(c: Node, d: Node) -> bool:
    """Scaling twice rounds, overflows and underflows like scaling once."""
    return all(is_power_of_two(uniform(v)) and abs(float(uniform(v))) >= 1 for v in (c, d))


def is_finite(node: Node) -> bool:
    """Known to be neither NaN nor infinite: integers, masks, and floats made of them."""
    while node.op.name in ("broadcast_to", "reshape", "transpose"):
        node = node.inputs[0]
    if node.op is CONSTANT:
        return node.payload.size <= 4096 and bool(np.isfinite(node.payload).all())
    if node.op.name == "cast":
        return is_finite(node.inputs[0])
    return not dtypes.is_float(node.dtype)


# fmt: off
algebra = RuleBook("algebra", [
    # neutral elements
    (x * 1,                             x),
    (f / 1,                             f),
    (x + 0,                             x, ZERO_SIGN),
    (x - 0,                             x, ZERO_SIGN),
    (0 - x,                             -x, ZERO_SIGN),
    (x * 0,                             0, when(lambda x: is_finite(x)), ZERO_SIGN, "not for floats: 0 * NaN is NaN"),
    # signs go outwards, and into constants
    (negative(-x),                      x),
    (x * -1,                            -x),
    (f / -1,                            -f),
    ((-x) * c,                          x * (-c)),
    (-(x * c),                          x * (-c)),
    ((-x) * y,                          -(x * y)),
    ((-f) / c,                          f / (-c)),
    (-(f / c),                          f / (-c)),
    (-(c / f),                          (-c) / f),
    ((-f) / z,                          -(f / z)),
    (f / (-z),                          -(f / z)),
    (x + (-y),                          x - y),
    (x - (-y),                          x + y),
    ((-x) - y,                          -(x + y), ZERO_SIGN),
    (-(x - y),                          y - x, ZERO_SIGN),
    (sum_(-x, axis=a, keepdims=s),      -sum_(x, axis=a, keepdims=s), ZERO_SIGN,
     examples({"x": (3, 4), "a": (1,), "s": False}, {"x": (0, 3), "a": (0,), "s": True})),
    (where(b, -x, 0),                   -where(b, x, 0), ZERO_SIGN),
    (where(b, 0, -x),                   -where(b, 0, x), ZERO_SIGN),
    # factors and terms
    ((n * c) * d,                       n * (c * d)),
    ((n + c) + d,                       n + (c + d)),
    ((n - c) + d,                       n + (d - c)),
    ((f * c) * d,                       f * (c * d), when(scales_up), "other factors would round once instead of twice"),
    (f / c,                             f * (1 / c), when(lambda f, c: is_power_of_two(uniform(c)) and uniform(f) is None), "the inverse is exact"),
    ((f * cast(b, dtype=a)) * cast(b2, dtype=a), f * cast(logical_and(b, b2), dtype=a), examples({"a": "float32", "f": "float32"})),
    # powers
    (x ** 0,                            1),
    (x ** 1,                            x),
    (x ** 2,                            x * x, ROUNDING),
    (x ** 3,                            (x * x) * x, ROUNDING),
    (x ** 4,                            (x * x) * (x * x), ROUNDING),
    (f ** -1,                           1 / f, ROUNDING),
    (f ** 0.5,                          sqrt(f), ROUNDING, ZERO_SIGN, except_at(-math.inf)),
    (f ** -0.5,                         rsqrt(f), ROUNDING, except_at(-math.inf, -0.0)),
    (f ** 1.5,                          f * sqrt(f), ROUNDING, except_at(-math.inf)),
    (square(x),                         x * x),
    (reciprocal(f),                     1 / f),
    # extremes and steps
    (maximum(x, x),                     x),
    (minimum(x, x),                     x),
    (maximum(maximum(x, y), y),         maximum(x, y)),
    (minimum(minimum(x, y), y),         minimum(x, y)),
    (maximum(maximum(x, c), d),         maximum(x, maximum(c, d)), ZERO_SIGN),
    (minimum(minimum(x, c), d),         minimum(x, minimum(c, d)), ZERO_SIGN),
    (maximum(f, -math.inf),             f),
    (minimum(f, math.inf),              f),
    (relu(relu(x)),                     relu(x)),
    (relu(absolute(x)),                 absolute(x), when(lambda x: not dtypes.is_integer(x.dtype)), "|-128| is -128 in int8"),
    (absolute(absolute(x)),             absolute(x)),
    (absolute(relu(x)),                 relu(x), ZERO_SIGN),
    (absolute(-x),                      absolute(x), when(lambda x: x.dtype not in dtypes.UNSIGNED)),
    (floor(floor(f)),                   floor(f)),
    (ceil(ceil(f)),                     ceil(f)),
    (trunc(trunc(f)),                   trunc(f)),
    (rint(rint(f)),                     rint(f)),
    (sign(sign(x)),                     sign(x)),
    # selection
    (where(True, x, y),                 x),
    (where(False, x, y),                y),
    (where(b, x, x),                    x),
    (where(b, where(b, x, y), z),       where(b, x, z)),
    (where(b, x, where(b, y, z)),       where(b, x, z)),
    (where(logical_not(b), x, y),       where(b, y, x)),
    (where(~b, x, y),                   where(b, y, x)),
    (ifelse(True, x, y),                x, SIDES),
    (ifelse(False, x, y),               y, SIDES),
    (ifelse(b, x, x),                   x, SIDES),
    (ifelse(b, ifelse(b, x, y), z),     ifelse(b, x, z), SIDES),
    (ifelse(b, x, ifelse(b, y, z)),     ifelse(b, x, z), SIDES),
    # truth
    (logical_not(logical_not(b)),       b),
    (~(~x),                             x),
    (logical_and(b, b),                 b),
    (logical_or(b, b),                  b),
    (b & b,                             b),
    (b | b,                             b),
    (logical_and(b, True),              b),
    (logical_and(b, False),             False),
    (logical_or(b, False),              b),
    (logical_or(b, True),               True),
    (logical_xor(b, False),             b),
    (logical_xor(b, True),              logical_not(b)),
    (b & True,                          b),
    (b & False,                         False),
    (b | False,                         b),
    (b | True,                          True),
    (logical_not(equal(x, y)),          not_equal(x, y)),
    (logical_not(not_equal(x, y)),      equal(x, y)),
    (~equal(x, y),                      not_equal(x, y)),
    (~not_equal(x, y),                  equal(x, y)),
    (logical_not(n < z),                n >= z, "not for floats: NaN is neither"),
    (logical_not(n > z),                n <= z),
    (~(n < z),                          n >= z),
    (~(n > z),                          n <= z),
    (cast(b, dtype=a) > 0,              b, MASK),
    (0 < cast(b, dtype=a),              b, MASK),
    (not_equal(cast(b, dtype=a), 0),    b, MASK),
    (equal(cast(b, dtype=a), 0),        logical_not(b), MASK),
    # what only grad looks at, and copies nobody needs: the backend makes the ones it does
    (op("stop_gradient")(x),            x),
    (op("grad_clip")(x, ...),           x, examples({"attributes": {"low": -1.0, "high": 1.0}})),
    (op("grad_scale")(x, ...),          x, examples({"attributes": {"scale": -1.0}})),
    (op("expected")(x, ...),            x, examples({"attributes": {"kind": "not negative"}})),
    (op("positive")(x),                 x),
])
# fmt: on


# ops that turn their sign when one of these operands does
ODD = {
    "matmul": (0, 1),
    "conv1d": (0, 1),
    "conv2d": (0, 1),
    "conv3d": (0, 1),
    "convolution_input_grad": (0, 1),
    "convolution_weight_grad": (0, 1),
    "max_pool_grad": (2,),
    "max_pool_pick": (2,),
    "avg_pool_grad": (0,),
    "reshape": (0,),
    "transpose": (0,),
    "subtensor": (0,),
}


def _odd_samples() -> list[Node]:
    square_, image, filters = (new_input(Type("float32", d)) for d in ((4, 4), (1, 2, 5, 5), (3, 2, 3, 3)))
    minus = lambda v: make(ROWS["negative"], [v])
    conv = make(ROWS["conv2d"], [image, filters], stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    return [
        make(ROWS["matmul"], [minus(square_), square_]),
        make(ROWS["matmul"], [square_, minus(square_)]),
        make(ROWS["conv2d"], [minus(image), filters], **conv.attrs),
        make(ROWS["conv2d"], [image, minus(filters)], **conv.attrs),
        make(ROWS["reshape"], [minus(square_)], shape=(2, 8)),
        make(ROWS["transpose"], [minus(square_)], axes=(1, 0)),
        make(ROWS["subtensor"], [minus(square_)], items=(("int", 1), ("slice", 0, 2, 2))),
    ]


@algebra.law(*sorted(ODD), samples=_odd_samples, claims=[ZERO_SIGN])
def negate_late(node: Node) -> Node | None:
    """The sign of an operand becomes the sign of the result, where it meets other signs or a kernel that runs anyway."""
    for k in ODD[node.op.name]:
        if k < len(node.inputs) and node.inputs[k].op is ROWS["negative"]:
            inputs = [*node.inputs[:k], node.inputs[k].inputs[0], *node.inputs[k + 1 :]]
            return make(ROWS["negative"], [make(node.op, inputs, **node.attrs)])
    return None


def holds(small: str, large: str) -> bool:
    """Every value of one dtype is a value of the other. (NumPy calls int64 to float64 safe; it rounds above 2**53.)"""
    if small == large or small == "bool":
        return True
    if dtypes.is_float(large) and not dtypes.is_float(small):
        return 8 * dtypes.itemsize(small) <= np.finfo(large).nmant
    return bool(np.can_cast(small, large, "safe"))


def _cast_samples() -> list[Node]:
    chains = [
        ("float32", "float64", "float32"),
        ("bool", "float32", "int64"),
        ("int8", "float32", "float64"),
        ("uint8", "int32", "bool"),
        ("int32", "int64", "float32"),
        ("float32", "float64", "bool"),
    ]
    casts = []
    for first, second, third in chains:
        node = new_input(Type(first, (3, 4)))
        for dtype in (second, third):
            node = make(ROWS["cast"], [node], dtype=dtype)
        casts.append(node)
    return casts


@algebra.law("cast", samples=_cast_samples)
def cast_twice(node: Node) -> Node | None:
    """A cast through a dtype that holds every value is one cast, or none."""
    inner, dtype = node.inputs[0], node.attrs["dtype"]
    if inner.dtype == dtype:
        return inner
    if inner.op is not node.op or not holds(inner.inputs[0].dtype, inner.dtype):
        return None
    source = inner.inputs[0]
    return source if source.dtype == dtype else make(node.op, [source], dtype=dtype)
