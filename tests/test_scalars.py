"""Every scalar function of kernel text in every dtype, against NumPy in the same or a wider dtype."""

import math

import numpy as np
import pytest
from kernel_numerics import pairs, run_scalars, ulps_apart, values

from symgrad.backends.cpu import scalars
from symgrad.backends.plain import gammaln

FLOATS, INTEGERS, DTYPES = scalars.FLOATS, scalars.INTEGERS, scalars.DTYPES
WIDER = {"float32": np.float64, "float64": np.longdouble}
# The reference of float64 is the x87 long double; elsewhere it is float64 itself, with errors of its own.
SLACK = 0.0 if np.finfo(np.longdouble).nmant > 52 else 2.0


def rng_for(*key) -> np.random.Generator:
    return np.random.default_rng(sum(map(ord, "".join(map(str, key)))))


def elementwise(function):
    """A function of Python floats over an array."""
    def apply(x):
        return np.array([function(float(v)) for v in x], np.float64)
    return apply


def finite_gammaln(x):
    """Python raises where log(gamma) leaves the range of floats."""
    return math.inf if math.isinf(x) or x > 2e305 else gammaln(x)


def sigmoid(x):
    return np.where(x > 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x)))


def softplus(x):
    return np.where(np.isnan(x), x, np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def logaddexp(x, y, one, exp, log1p):
    with np.errstate(all="ignore"):
        return np.where(x == y, x + one, np.maximum(x, y) + log1p(exp(-np.abs(x - y))))


# name -> (function, ulps allowed)
UNARY = {
    "exp": (np.exp, 2), "exp2": (np.exp2, 2), "expm1": (np.expm1, 2), "log": (np.log, 2),
    "log2": (np.log2, 2),
    "log10": (np.log10, 2), "log1p": (np.log1p, 2), "tanh": (np.tanh, 4), "sigmoid": (sigmoid, 4),
    "softplus": (softplus, 4),
    "sqrt": (np.sqrt, 0.5), "cbrt": (np.cbrt, 4), "sin": (np.sin, 3), "cos": (np.cos, 3), "tan": (np.tan, 4),
    "arcsin": (np.arcsin, 4), "arccos": (np.arccos, 4), "arctan": (np.arctan, 4), "sinh": (np.sinh, 3),
    "cosh": (np.cosh, 3),
    "arcsinh": (np.arcsinh, 3), "arccosh": (np.arccosh, 3), "arctanh": (np.arctanh, 3),
    "neg": (np.negative, 0), "abs": (np.abs, 0), "sign": (np.sign, 0), "floor": (np.floor, 0),
    "ceil": (np.ceil, 0),
    "trunc": (np.trunc, 0), "rint": (np.rint, 0),
}
# These have a reference in Python's float64 only, so their float64 results are compared with a few ulps of
# slack.
THROUGH_MATH = {"erf": (math.erf, 4), "erfc": (math.erfc, 6), "gammaln": (finite_gammaln, 8)}
BINARY = {
    "add": (np.add, 0.5), "sub": (np.subtract, 0.5), "mul": (np.multiply, 0.5), "div": (np.divide, 0.5),
    "pow": (np.power, 3), "arctan2": (np.arctan2, 4), "hypot": (np.hypot, 2), "copysign": (np.copysign, 0),
    "maximum": (np.maximum, 0), "minimum": (np.minimum, 0), "fmax": (np.fmax, 0), "fmin": (np.fmin, 0),
    "acc_add": (np.add, 0.5), "acc_mul": (np.multiply, 0.5), "fmod": (np.fmod, 0),
    "heaviside": (np.heaviside, 0),
}
LN2 = np.log(np.longdouble(2))
SOFT_MAXIMA = {
    "logaddexp": lambda x, y: logaddexp(x, y, LN2.astype(x.dtype), np.exp, np.log1p),
    "logaddexp2": lambda x, y: logaddexp(x, y, 1, np.exp2, lambda t: np.log1p(t) / LN2.astype(t.dtype)),
}
SAME_DTYPE = {"mod": np.mod, "floordiv": np.floor_divide, "nextafter": np.nextafter}
INTEGER_UNARY = {"neg": np.negative, "abs": np.abs, "sign": np.sign, "bitnot": np.invert}
INTEGER_BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "floordiv": np.floor_divide, "mod": np.mod,
    "fmod": np.fmod,
    "maximum": np.maximum, "minimum": np.minimum, "fmax": np.fmax, "fmin": np.fmin, "acc_add": np.add,
    "acc_mul": np.multiply,
    "acc_maximum": np.maximum, "acc_minimum": np.minimum, "bitand": np.bitwise_and, "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor, "shl": np.left_shift, "shr": np.right_shift, "gcd": np.gcd, "lcm": np.lcm,
}
BOOL_UNARY = {"abs": np.abs, "bitnot": np.invert}
BOOL_BINARY = {
    "add": np.add, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum, "fmax": np.maximum,
    "fmin": np.minimum,
    "acc_add": np.add, "acc_mul": np.multiply, "acc_maximum": np.maximum, "acc_minimum": np.minimum,
    "bitand": np.bitwise_and, "bitor": np.bitwise_or, "bitxor": np.bitwise_xor,
}
PREDICATES = {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "lognot": np.logical_not}
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
    "logand": np.logical_and, "logor": np.logical_or, "logxor": np.logical_xor,
}


def called(name, index, operands):
    return f"{name}({', '.join(repr(x[index]) for x in operands)})"


def assert_within(name, got, exact, allowed, *operands):
    """Fail with the worst operand if a result is more than `allowed` ulps from the exact value."""
    apart = ulps_apart(got, exact)
    worst = int(np.argmax(apart))
    away = float(apart[worst])
    assert away <= allowed, (f"{called(name, worst, operands)} = {got[worst]!r}, exact {exact[worst]!r}: "
                             f"{away:.2f} ulps, {allowed} allowed")


def assert_same(name, got, expected, *operands):
    """Fail with the first operand where two arrays differ; NaN equals NaN, and -0.0 differs from 0.0."""
    same = (got == expected) & (np.signbit(got) == np.signbit(expected) if got.dtype.kind == "f" else True)
    same |= (got != got) & (expected != expected)
    bad = int(np.argmin(same))
    assert same[bad], f"{called(name, bad, operands)} = {got[bad]!r}, expected {expected[bad]!r}"


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_functions_of_one_value_are_accurate(dtype):
    x = values(dtype, rng_for("unary", dtype))
    got = run_scalars([f"{name}_{dtype}" for name in UNARY], x)
    for name, (function, allowed) in UNARY.items():
        with np.errstate(all="ignore"):
            exact = function(x.astype(WIDER[dtype]))
        assert_within(name, got[f"{name}_{dtype}"], exact, allowed + SLACK, x)


@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_that_the_standard_library_knows_are_accurate(dtype):
    x = values(dtype, rng_for("math", dtype))
    got = run_scalars([f"{name}_{dtype}" for name in THROUGH_MATH], x)
    for name, (function, allowed) in THROUGH_MATH.items():
        exact = elementwise(function)(x)
        # near its roots at 1, 2, -2.4 ... the reference itself has only an absolute accuracy
        near_root = np.abs(exact) < 1 if name == "gammaln" else np.zeros(x.shape, bool)
        assert_within(name, got[f"{name}_{dtype}"][~near_root], exact[~near_root], allowed, x[~near_root])
        np.testing.assert_allclose(got[f"{name}_{dtype}"][near_root], exact[near_root],
                                   atol=1e-6 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_functions_of_two_values_are_accurate(dtype):
    x, y = pairs(dtype, rng_for("binary", dtype))
    got = run_scalars([f"{name}_{dtype}" for name in BINARY], x, y)
    for name, (function, allowed) in BINARY.items():
        with np.errstate(all="ignore"):
            exact = function(x.astype(WIDER[dtype]), y.astype(WIDER[dtype]))
        if name in ("maximum", "minimum", "fmax", "fmin"):     # either of two zeros is the larger
            keep = ~((x == 0) & (y == 0))
            assert_within(name, got[f"{name}_{dtype}"][keep], exact[keep], allowed, x[keep], y[keep])
        else:
            assert_within(name, got[f"{name}_{dtype}"], exact, allowed + SLACK * bool(allowed), x, y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_soft_maxima_are_accurate_to_the_larger_operand(dtype):
    x, y = pairs(dtype, rng_for("soft", dtype))
    got = run_scalars([f"{name}_{dtype}" for name in SOFT_MAXIMA], x, y)
    for name, function in SOFT_MAXIMA.items():
        with np.errstate(all="ignore"):
            exact = function(x.astype(WIDER[dtype]), y.astype(WIDER[dtype])).astype(dtype)
            scale = np.minimum(np.maximum(np.abs(exact), np.abs(np.fmax(x, y))), np.finfo(dtype).max)
            # x - y is rounded before the exponential magnifies it
            apart = np.abs(x - y)
            allowed = 3 * np.spacing(scale) + np.nan_to_num(np.spacing(apart) * np.exp2(-apart))
            result = got[f"{name}_{dtype}"]
            close = (result == exact) | (np.abs(result - exact) <= allowed)
            bad = ~(close | np.isnan(x + y) & np.isnan(result))
        assert not bad.any(), (name, x[bad][:3], y[bad][:3], result[bad][:3], exact[bad][:3])


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_functions_that_numpy_defines_step_by_step_agree_exactly(dtype):
    x, y = pairs(dtype, rng_for("exact", dtype))
    got = run_scalars([f"{name}_{dtype}" for name in SAME_DTYPE], x, y)
    for name, function in SAME_DTYPE.items():
        with np.errstate(all="ignore"):
            assert_same(name, got[f"{name}_{dtype}"], function(x, y), x, y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_accumulating_extrema_propagate_nan(dtype):
    x, y = pairs(dtype, rng_for("extrema", dtype))
    keep = ~((x == 0) & (y == 0))
    got = run_scalars([f"acc_maximum_{dtype}", f"acc_minimum_{dtype}"], x, y)
    for name, function in (("acc_maximum", np.maximum), ("acc_minimum", np.minimum)):
        assert_same(name, got[f"{name}_{dtype}"][keep], function(x, y)[keep], x[keep], y[keep])


@pytest.mark.parametrize("dtype", FLOATS)
def test_multiply_add_rounds_once(dtype):
    rng = rng_for("fma", dtype)
    a, b = (rng.normal(size=1000).astype(dtype) for _ in range(2))
    c = (-a.astype(np.longdouble) * b).astype(dtype)             # leaves what one rounding would lose
    got = run_scalars([f"fma_{dtype}"], a, b, c)[f"fma_{dtype}"]
    if dtype == "float64":                                  # the product split exactly: Dekker 1971
        factor = 2.0 ** 27 + 1
        parts = [(v * factor - (v * factor - v)) for v in (a, b)]
        (ah, bh), (al, bl) = parts, (a - parts[0], b - parts[1])
        exact = ((ah * bh + c) + ah * bl + al * bh) + al * bl
    else:
        exact = a.astype(np.float64) * b + c
    assert_within("fma", got, exact.astype(np.longdouble), 0.5, a, b, c)
    assert np.count_nonzero(got) > 900


@pytest.mark.parametrize("dtype", FLOATS)
def test_ldexp_scales_by_powers_of_two(dtype):
    x = values(dtype, rng_for("ldexp", dtype))
    exponent = np.resize(np.array([0, 1, -1, 5, -30, 200, -200, 2000, -2000, 100, -126], np.int32), x.size)
    with np.errstate(all="ignore"):
        assert_same("ldexp", run_scalars([f"ldexp_{dtype}"], x, exponent)[f"ldexp_{dtype}"],
                    np.ldexp(x, exponent), x, exponent)


# Source: Abramowitz and Stegun tables 6.1 and 6.3 and the closed forms in 6.3.2, 6.3.3, 6.4.4.
EULER = 0.5772156649015329
DIGAMMA = {1.0: -EULER, 0.5: -EULER - 2 * math.log(2), 2.0: 1 - EULER,
           0.25: -EULER - math.pi / 2 - 3 * math.log(2),
           10.0: sum(1 / k for k in range(1, 10)) - EULER, -0.5: 2 - EULER - 2 * math.log(2),
           100.0: 4.600161852738087}
TRIGAMMA = {1.0: math.pi ** 2 / 6, 0.5: math.pi ** 2 / 2, 2.0: math.pi ** 2 / 6 - 1,
            -0.5: math.pi ** 2 / 2 + 4,
            3.0: math.pi ** 2 / 6 - 1.25}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name, known", [("digamma", DIGAMMA), ("trigamma", TRIGAMMA)])
def test_gamma_derivatives_match_closed_forms_and_recur(dtype, name, known):
    tolerance = 3e-7 if dtype == "float32" else 4e-15
    x = np.array(list(known), dtype)
    got = run_scalars([f"{name}_{dtype}"], x)[f"{name}_{dtype}"]
    np.testing.assert_allclose(got, list(known.values()), rtol=tolerance, atol=1e-15)
    y = rng_for(name).uniform(0.1, 30, 500).astype(dtype)
    here, next_one = (run_scalars([f"{name}_{dtype}"], v)[f"{name}_{dtype}"] for v in (y, y + 1))
    step = 1 / y.astype(np.float64) if name == "digamma" else -1 / y.astype(np.float64) ** 2
    difference = next_one.astype(np.float64) - here
    np.testing.assert_allclose(difference, step, atol=20 * tolerance, rtol=20 * tolerance)


def test_gamma_derivatives_at_their_poles():
    x = np.array([0.0, -0.0, -1.0, -7.0, np.nan, np.inf])
    got = run_scalars(["digamma_float64", "trigamma_float64"], x)
    np.testing.assert_array_equal(got["digamma_float64"], [-np.inf, np.inf, np.nan, np.nan, np.nan, np.inf])
    np.testing.assert_array_equal(got["trigamma_float64"], [np.inf, np.inf, np.inf, np.inf, np.nan, 0.0])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_functions_wrap_and_never_trap(dtype):
    x, y = pairs(dtype, rng_for("integer", dtype))
    with np.errstate(all="ignore"):
        got = run_scalars([f"{name}_{dtype}" for name in INTEGER_UNARY | INTEGER_BINARY], x, y)
        for name, function in INTEGER_UNARY.items():
            assert_same(name, got[f"{name}_{dtype}"], function(x), x)
        for name, function in INTEGER_BINARY.items():
            assert_same(name, got[f"{name}_{dtype}"], function(x, y), x, y)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_powers_wrap(dtype):
    x, y = pairs(dtype, rng_for("power", dtype))
    got = run_scalars([f"pow_{dtype}"], x, y)[f"pow_{dtype}"]
    keep = y >= 0
    assert_same("pow", got[keep], np.power(x[keep], y[keep]), x[keep], y[keep])
    # NumPy refuses negative exponents; the truncated quotient is 1 for 1, 1 or -1 for -1, and 0 for the rest
    negative = ~keep
    of_minus_one = np.where(y % 2 == 0, 1, -1)
    quotient = np.where(x == 1, 1, np.where(x.astype(float) == -1, of_minus_one, 0)).astype(dtype)
    assert (got[negative] == quotient[negative]).all()


def test_bool_functions_are_logical():
    x, y = np.array([False, False, True, True] * 9), np.array([False, True] * 18)
    got = run_scalars([f"{name}_bool" for name in BOOL_UNARY | BOOL_BINARY], x, y)
    for name, function in BOOL_UNARY.items():
        assert_same(name, got[f"{name}_bool"], function(x), x)
    for name, function in BOOL_BINARY.items():
        assert_same(name, got[f"{name}_bool"], function(x, y), x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_comparisons_and_predicates(dtype):
    x, y = pairs(dtype, rng_for("compare", dtype))
    predicates = PREDICATES | ({"signbit": np.signbit} if dtype in FLOATS else {})
    got = run_scalars([f"{name}_{dtype}" for name in predicates | COMPARISONS], x, y)
    for name, function in predicates.items():
        assert_same(name, got[f"{name}_{dtype}"], function(x), x)
    for name, function in COMPARISONS.items():
        assert_same(name, got[f"{name}_{dtype}"], function(x, y), x, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_selects_without_looking_at_the_other_side(dtype):
    x, y = pairs(dtype, rng_for("where", dtype))
    condition = rng_for("condition", dtype).random(x.size) < 0.5
    assert_same("where", run_scalars([f"where_{dtype}"], condition, x, y)[f"where_{dtype}"],
                np.where(condition, x, y), condition, x, y)


@pytest.mark.parametrize("source", DTYPES)
def test_casts_convert_as_numpy_does(source):
    x = values(source, rng_for("cast", source))
    got = run_scalars([f"cast_{source}_{target}" for target in DTYPES], x)
    for target in DTYPES:
        result = got[f"cast_{source}_{target}"]
        keep = np.ones(x.shape, bool)
        if source in FLOATS and target in INTEGERS:      # beyond, C leaves it to the machine
            limits = np.iinfo(target)
            keep = (x > float(limits.min) - 1) & (x < float(limits.max))
        with np.errstate(all="ignore"):
            assert_same(f"{source} to {target}", result[keep], x[keep].astype(target), x[keep])


def test_index_values_convert():
    x = np.array([0, 1, 5, 127, 1000, 70000], np.int64)
    got = run_scalars([f"index_to_{dtype}" for dtype in DTYPES], x)
    for dtype in DTYPES:
        assert_same(dtype, got[f"index_to_{dtype}"], x.astype(dtype), x)


def test_every_row_of_the_table_is_swept():
    swept = ({*UNARY, *THROUGH_MATH, *BINARY, *SOFT_MAXIMA, *SAME_DTYPE, *INTEGER_UNARY, *INTEGER_BINARY,
              *BOOL_UNARY, *BOOL_BINARY,
              *PREDICATES, *COMPARISONS} | {"signbit", "acc_maximum", "acc_minimum", "fma", "ldexp",
              "digamma", "trigamma", "where", "pow"})
    assert set(scalars.ROWS) == swept
