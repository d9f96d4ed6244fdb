"""Laws of real numbers that floats break: at 0, at NaN and infinity, or by more than a rounding. Off
unless asked for.
"""

from __future__ import annotations

from .pattern import anything, attribute, boolean, constant, floating, op, uniform
from .rule import RuleBook, examples, when

x, y, z, f, h = anything("x"), anything("y"), anything("z"), floating("f"), floating("h")
b, c, d = boolean("b"), constant("c"), constant("d")
a, s = attribute("a"), attribute("s")
exp, log, sqrt, where, cast, sum_ = op("exp"), op("log"), op("sqrt"), op("where"), op("cast"), op("sum")

# fmt: off
unsafe = RuleBook("unsafe", [
    (f / f,                         1, "NaN at 0 and infinity"),
    (f - f,                         0, "NaN at infinity"),
    (f * 0,                         0, "NaN at infinity"),
    ((f * c) * d,                   f * (c * d), "may overflow on the way, or not"),
    ((f + c) + d,                   f + (c + d), "cancels differently"),
    ((f - c) + d,                   f + (d - c), "cancels differently"),
    ((f / c) * d,                   f * (d / c), "rounds once less"),
    ((f * c) / d,                   f * (c / d), "rounds once less"),
    (f / c,                         f * (1 / c), when(lambda f: uniform(f) is None), "rounds twice"),
    (f * h + f * z,                 f * (h + z), "inf - inf"),
    (f * cast(b, dtype=a),          where(b, f, 0), "0 * NaN is NaN", examples({"a": "float32", "f": "float32"})),
    (exp(log(f)),                   f, "NaN below 0"),
    (log(f) + log(h),               log(f * h), "two negative factors; overflow"),
    (exp(f) * exp(h),               exp(f + h), "inf * 0"),
    (sqrt(f) * sqrt(f),             f, "NaN below 0"),
    (sum_(f * c, axis=a, keepdims=s), sum_(f, axis=a, keepdims=s) * c, "overflow",
     examples({"f": (3, 4), "a": (1,), "s": False})),
])
# fmt: on
