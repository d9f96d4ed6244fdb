"""Elementary functions as branch-free polynomials, so that a loop calling them becomes pure SIMD code.

Each works in float32 and float64 through the same text, with the constants of its dtype. Polynomials that
name no source were fitted by interpolation at Chebyshev nodes in 50-digit arithmetic. NaN, infinities, signed
zeros and subnormal results follow C99; errors stay below about 4 units in the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .values import MANTISSA, Value, as_integer, bits

INF = float("inf")
NAN = float("nan")
LN2 = 0.6931471805599453
LOG2_E = 1.4426950408889634
LOG10_E = 0.4342944819032518

# ln 2 = HIGH + LOW, where HIGH has trailing zero bits, so that n * HIGH is exact for every exponent n.
LN2_PARTS = {"float32": (0.693145751953125, 1.4286068203094173e-06),
             "float64": (0.6931471803691238, 1.9082149292705877e-10)}
# (exp(r) - 1 - r) / r**2 on |r| <= ln(2)/2, low powers first
EXP_TAIL = {
    "float32": (0.5, 0.1666666716337204, 0.04166646674275398, 0.00833331048488617, 0.0013933649752289057,
                0.00019890991097781807),
    "float64": (0.5, 0.16666666666666669, 0.04166666666662413, 0.008333333333330062, 0.0013888888917213717,
                0.00019841269863053618, 2.4801521295954376e-05, 2.7557268459997064e-06,
                2.7620088445409746e-07,
                2.510038549551032e-08),
}
# (log(1 + z) - z + z**2 / 2) / z**3 on sqrt(1/2) - 1 <= z <= sqrt(2) - 1
LOG_TAIL = (0.3333333134651184, -0.2499999701976776, 0.20000715553760529, -0.1666780263185501,
            0.14249040186405182,
            -0.12425654381513596, 0.11685580015182495, -0.11480068415403366, 0.06971585005521774)
# (log((1 + s) / (1 - s)) - 2 s) / s in powers of s**2. Source: Sun Microsystems, fdlibm e_log.c, Lg1 ... Lg7.
LOG_ATANH = (6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
             2.222219843214978396e-01,
             1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01)
# erf(a) / a - 1 in powers of a**2 on |a| < 1, and log(erfc(t)) on 0.95 <= t <= 4, both for float32
ERF_NEAR = (0.12837916612625122, -0.3761262595653534, 0.11283594369888306, -0.02685421146452427,
            0.005189087241888046,
            -0.000801686430349946, 7.875874871388078e-05)
ERFC_LOG = (0.00032186624594032764, -1.130241870880127, -0.6318095326423645, -0.1100972443819046,
            0.026431642472743988,
            -0.00476350961253047, 0.0005976772517897189, -4.616478690877557e-05, 1.6426789670731523e-06)
# Beyond these the exponential is 0 or infinite, also in its subnormal range.
EXP_LIMITS = {"float32": (-104.0, 89.0), "float64": (-746.0, 710.0)}
EXP2_LIMITS = {"float32": (-151.0, 129.0), "float64": (-1076.0, 1025.0)}


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """The sum of coefficients[k] * x**k, by Horner's rule with fused steps."""
    total = x.lift(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total.fma(x, coefficient)
    return total


def clamped(x: Value, low: float, high: float) -> Value:
    """x limited to [low, high]; NaN stays NaN."""
    x = (x < low).choose(x.lift(low), x)
    return (x > high).choose(x.lift(high), x)


def copysign(x: Value, sign: Value | float) -> Value:
    return x.intrinsic("copysign", sign)


def rounded(x: Value) -> Value:
    """The nearest integer, ties to even, as a float."""
    return x.intrinsic("rint")


def _small_integer(x: Value) -> Value:
    """An integral float below 2**31 as an integer; through int32, which every SIMD set converts."""
    return x.truncated("int32").resized(as_integer(x.dtype))


def _power_of_two(exponent: Value, dtype: str) -> Value:
    """2**exponent for an integer exponent in the normal range."""
    mantissa = MANTISSA[dtype]
    bias = 2 ** (bits(dtype) - mantissa - 2) - 1
    return ((exponent + bias) << mantissa).bits_as(dtype)


def scaled(x: Value, exponent: Value) -> Value:
    """x * 2**exponent for |exponent| up to twice the normal range; in two steps, to underflow gradually."""
    half = exponent >> 1
    return x * _power_of_two(half, x.dtype) * _power_of_two(exponent - half, x.dtype)


def _exp_reduced(x: Value) -> tuple[Value, Value]:
    """(exp(r) - 1, n) with x = n ln 2 + r, |r| <= ln(2)/2, for x within the exponential's limits."""
    high, low = LN2_PARTS[x.dtype]
    n = rounded(x * LOG2_E)
    r = n.fma(-low, n.fma(-high, x))
    return polynomial(r, EXP_TAIL[x.dtype]).fma(r * r, r), n


def exp(x: Value) -> Value:
    x = clamped(x, *EXP_LIMITS[x.dtype])
    p, n = _exp_reduced(x)
    return scaled(p + 1.0, _small_integer(n))


def exp2(x: Value) -> Value:
    x = clamped(x, *EXP2_LIMITS[x.dtype])
    n = rounded(x)
    r = (x - n) * LN2
    p = polynomial(r, EXP_TAIL[x.dtype]).fma(r * r, r)
    return scaled(p + 1.0, _small_integer(n))


def expm1(x: Value) -> Value:
    # below -40 the result is -1 and above the limit infinite, in both dtypes
    p, n = _exp_reduced(clamped(x, -40.0, EXP_LIMITS[x.dtype][1]))
    # half the power of two keeps n = 128 (1024) finite until the last step
    half = _power_of_two(_small_integer(n) - 1, x.dtype)
    result = p.fma(half, half - 0.5) * 2.0
    tiny = abs(x) < (1e-7 if x.dtype == "float32" else 1e-16)
    return tiny.choose(x, result)


def _split(x: Value) -> tuple[Value, Value]:
    """(m, e) with x = m * 2**e and sqrt(1/2) <= m < sqrt(2), for positive finite x, subnormal ones too."""
    dtype, mantissa, integer = x.dtype, MANTISSA[x.dtype], as_integer(x.dtype)
    subnormal = x < 2.0 ** (2 - 2 ** (bits(dtype) - mantissa - 2))
    x = subnormal.choose(x * 2.0 ** mantissa, x)
    root = {"float32": 0x3F3504F3, "float64": 0x3FE6A09E667F3BCD}[dtype]
    bias = 2 ** (bits(dtype) - mantissa - 2)
    # biased, so that a logical shift does: 64-bit arithmetic shifts are slow in AVX2
    shifted = x.bits_as(f"u{integer}") - root + (bias << mantissa)
    e = (shifted >> mantissa).resized(integer) - bias
    m = (x.bits_as(integer) - (e << mantissa)).bits_as(dtype)
    exponent = e.resized("int32").as_float(dtype)
    return m, subnormal.choose(exponent - float(mantissa), exponent)


def _log_mantissa(m: Value) -> tuple[Value, Value]:
    """(high, low) with log(m) = high + low, high = m - 1, for m near 1."""
    z = m - 1.0
    if m.dtype == "float32":
        square = z * z
        return z, (polynomial(z, LOG_TAIL) * z).fma(square, square * -0.5)
    s = z / (z + 2.0)
    square, half = s * s, z * z * 0.5
    tail = polynomial(square, LOG_ATANH) * square
    return z, s * (half + tail) - half


def _at_log_edges(x: Value, result: Value) -> Value:
    """`result` with the logarithm's values at 0, infinity, NaN and below 0."""
    result = x.equals(INF).choose(x, result)
    result = x.equals(0.0).choose(x.lift(-INF), result)
    return (x >= 0.0).choose(result, NAN)


def log(x: Value) -> Value:
    m, e = _split(x)
    high, low = _log_mantissa(m)
    ln2_high, ln2_low = LN2_PARTS[x.dtype]
    return _at_log_edges(x, e.fma(ln2_high, e.fma(ln2_low, low) + high))


def log2(x: Value) -> Value:
    m, e = _split(x)
    high, low = _log_mantissa(m)
    # log2(e) = head + tail; head * high is then corrected by what its rounding lost
    head, tail = ((1.4426950216293335, 1.9259629911266175e-08) if x.dtype == "float32"
                  else (LOG2_E, 2.0355273740931033e-17))
    product = high * head
    lost = high.fma(head, -product)
    return _at_log_edges(x, e + (product + low.fma(head, high.fma(tail, lost))))


def log10(x: Value) -> Value:
    m, e = _split(x)
    high, low = _log_mantissa(m)
    head, tail = ((0.4342944920063019, -1.0103050052231683e-08) if x.dtype == "float32"
                  else (LOG10_E, 1.098319650216765e-17))
    two, rest = ((0.301025390625, 4.605038981195214e-06) if x.dtype == "float32"
                 else (0.301029995663157, 8.241712586023572e-13))
    product = high * head
    lost = high.fma(head, -product)
    small = e.fma(rest, low.fma(head, high.fma(tail, lost)))
    return _at_log_edges(x, e.fma(two, product + small))


def log1p(x: Value) -> Value:
    u = x + 1.0
    # what rounding took from 1 + x, relative to u: log(1 + x) = log(u) + log(1 + lost / u)
    lost = (x < 1.0).choose(x - (u - 1.0), 1.0 - (u - x))
    result = log(u) + lost / u
    result = (abs(x) < (1e-8 if x.dtype == "float32" else 1e-17)).choose(x, result)
    result = x.equals(INF).choose(x, result)
    return x.equals(-1.0).choose(x.lift(-INF), result)


def tanh(x: Value) -> Value:
    t = expm1(abs(x) * -2.0)
    return copysign(-t / (t + 2.0), x)


def sigmoid(x: Value) -> Value:
    e = exp(-abs(x))
    r = 1.0 / (e + 1.0)
    return (x < 0.0).choose(e * r, r)


def softplus(x: Value) -> Value:
    """log(1 + exp(x))."""
    return (x > 0.0).choose(x, 0.0) + log1p(exp(-abs(x)))


def logaddexp(x: Value, y: Value) -> Value:
    larger = (x > y).choose(x, y)
    result = larger + log1p(exp(-abs(x - y)))
    return x.equals(y).choose(x + LN2, result)


def logaddexp2(x: Value, y: Value) -> Value:
    larger = (x > y).choose(x, y)
    result = larger + log1p(exp2(-abs(x - y))) * LOG2_E
    return x.equals(y).choose(x + 1.0, result)


def erf(x: Value) -> Value:
    """The error function in float32; float64 goes through the C library."""
    t = abs(x)
    near = polynomial(x * x, ERF_NEAR).fma(x, x)
    # 1 - erf(4) is below a quarter unit in the last place of 1
    far = copysign(1.0 - exp(polynomial(clamped(t, 0.9, 4.0), ERFC_LOG)), x)
    return (t < 0.96).choose(near, far)


# ---- circular functions of float32 -------------------------------------------------------------------------

# (sin(r) / r - 1) / r**2 and (cos(r) - 1 + r**2 / 2) / r**4 in powers of r**2 on |r| <= pi / 4
SIN_TAIL = (-0.16666666663832763, 0.008333331865959415, -0.00019840082012765537, 2.7249314054698804e-06)
COS_TAIL = (0.0416666666643024, -0.0013888887664713619, 2.4800596435621998e-05, -2.7300448619488353e-07)
# (arctan(x) / x - 1) / x**2 in powers of x**2 on |x| <= tan(pi / 8)
ARCTAN_TAIL = (-0.33333331746431516, 0.19999537099824088, -0.14263838476131002, 0.10742466849090754,
               -0.06447741047112404)
# (arcsin(x) / x - 1) / x**2 in powers of x**2 on |x| <= 1/2
ARCSIN_TAIL = (0.16666666337430908, 0.07500094543497424, 0.04459940152851218, 0.03110066273549457,
               0.017149238357677253, 0.03369084720283012)
PI = 3.141592653589793
HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
# (from, scale, 1 / scale modulo 2 pi in parts of 29 bits): a float32 from there on is a multiple of 1 /
# scale, and its multiplier times each part is exact in float64.
LARGE = (
    (2.0 ** 50, 2.0 ** -27, (-0.8685656264424324, 1.8044342409151426e-10, 4.858463821249879e-18)),
    (2.0 ** 77, 2.0 ** -54, (2.0278995484113693, 5.614124248820573e-09, 4.384721805741282e-18)),
    (2.0 ** 104, 2.0 ** -81, (-2.063877299427986, 2.007920552049569e-09, 9.039837028323406e-18)),
)


def _quarter_turns(t: Value) -> tuple[Value, Value]:
    """(r, n) with t = n pi/2 + r, |r| <= pi/4, for a float64 t below 2**50; exact to the last bit of r."""
    n = rounded(t * (2.0 / PI))
    # each difference is a multiple of 2**-52 and small, so the first step loses nothing
    r = n.fma(-HALF_PI[1], n.fma(-HALF_PI[0], t))
    return r, n


def _quadrant(x: Value) -> tuple[Value, Value]:
    """(r, quadrant) of any finite float32 x: x = n pi/2 + r with |r| <= pi/4, and n modulo 4 as int32."""
    wide = x.as_float("float64")
    parts = [wide.lift(1.0), wide.lift(0.0), wide.lift(0.0)]
    scaled_down = wide
    for threshold, scale, residue in LARGE:
        large = abs(wide) >= threshold
        scaled_down = large.choose(wide * scale, scaled_down)
        parts = [large.choose(wide.lift(new), old) for new, old in zip(residue, parts)]
    first, n = _quarter_turns(scaled_down * parts[0])
    second, m = _quarter_turns(scaled_down * parts[1])
    r, k = _quarter_turns(first + (second + scaled_down * parts[2]))
    turns = n + m + k
    quarter = turns - rounded(turns * 0.25) * 4.0
    # infinity and NaN have no quadrant, and converting them would be undefined
    finite = abs(x) < INF
    return finite.choose(r.as_float(x.dtype), NAN), finite.choose(quarter, 0.0).truncated("int32")


def _sine_and_cosine(r: Value) -> tuple[Value, Value]:
    square = r * r
    sine = (polynomial(square, SIN_TAIL) * square).fma(r, r)
    return sine, polynomial(square, COS_TAIL).fma(square * square, square.fma(-0.5, 1.0))


def _turned(r: Value, quadrant: Value) -> Value:
    """The sine of r after that many quarter turns."""
    sine, cosine = _sine_and_cosine(r)
    result = (quadrant & 1).differs(0).choose(cosine, sine)
    return (quadrant & 2).differs(0).choose(-result, result)


def sin(x: Value) -> Value:
    r, quadrant = _quadrant(x)
    return x.equals(0.0).choose(x, _turned(r, quadrant))


def cos(x: Value) -> Value:
    r, quadrant = _quadrant(x)
    return _turned(r, quadrant + 1)


def tan(x: Value) -> Value:
    r, quadrant = _quadrant(x)
    sine, cosine = _sine_and_cosine(r)
    odd = (quadrant & 1).differs(0)
    result = odd.choose(-cosine, sine) / odd.choose(sine, cosine)
    return x.equals(0.0).choose(x, result)


def arctan(x: Value) -> Value:
    t = abs(x)
    steep, flat = t > 2.414213562373095, t <= 0.41421356237309503
    # arctan(t) = pi/2 - arctan(1/t) = pi/4 + arctan((t - 1) / (t + 1))
    z = steep.choose(t.lift(-1.0), flat.choose(t, t - 1.0)) / steep.choose(t,
                                                                           flat.choose(t.lift(1.0), t + 1.0))
    base = steep.choose(t.lift(PI / 2), flat.choose(t.lift(0.0), PI / 4))
    square = z * z
    return copysign(base + (polynomial(square, ARCTAN_TAIL) * square).fma(z, z), x)


def arctan2(y: Value, x: Value) -> Value:
    """The angle of the point (x, y), as C99 has it for zeros and infinities."""
    tall = abs(y) > abs(x)
    both_infinite = abs(x).equals(INF) & abs(y).equals(INF)
    quotient = both_infinite.choose(x.lift(1.0), tall.choose(abs(x), abs(y)) / tall.choose(abs(y), abs(x)))
    nothing = x.equals(0.0) & y.equals(0.0)
    angle = arctan(nothing.choose(x.lift(0.0), quotient))
    angle = tall.choose(PI / 2 - angle, angle)
    left = x.bits_as(as_integer(x.dtype)) < 0
    result = copysign(left.choose(PI - angle, angle), y)
    return (x.is_nan() | y.is_nan()).choose(x + y, result)


def _arcsin_near(x: Value) -> Value:
    square = x * x
    return (polynomial(square, ARCSIN_TAIL) * square).fma(x, x)


def arcsin(x: Value) -> Value:
    t = abs(x)
    near = t <= 0.5
    # arcsin(t) = pi/2 - 2 arcsin(sqrt((1 - t) / 2))
    root = ((1.0 - t) * 0.5).intrinsic("sqrt")
    z = _arcsin_near(near.choose(t, root))
    return copysign(near.choose(z, z.fma(-2.0, PI / 2)), x)


def arccos(x: Value) -> Value:
    t = abs(x)
    near = t <= 0.5
    root = ((1.0 - t) * 0.5).intrinsic("sqrt")
    z = _arcsin_near(near.choose(x, root))
    far = (x < 0.0).choose(z.fma(-2.0, PI), z * 2.0)
    return near.choose(PI / 2 - z, far)


# ---- float32 through float64 -------------------------------------------------------------------------------

def through_float64(function: Callable[..., Value]) -> Callable[..., Value]:
    """A float32 function that computes in float64, where simple formulas are accurate enough."""
    def emit(*operands: Value) -> Value:
        return function(*(x.as_float("float64") for x in operands)).as_float(operands[0].dtype)
    return emit


def wide_sinh(x: Value) -> Value:
    e = expm1(abs(x))
    # e / (e + 1) is 1 long before e overflows
    return copysign((e + (e < 1e30).choose(e, 1e30) / ((e < 1e30).choose(e, 1e30) + 1.0)) * 0.5, x)


def wide_cosh(x: Value) -> Value:
    e = exp(abs(x))
    return (e + 1.0 / e) * 0.5


def wide_arcsinh(x: Value) -> Value:
    t = abs(x)
    # log(t + sqrt(t**2 + 1)), spelled for small t
    square = t * t
    result = log1p(t + square / ((square + 1.0).intrinsic("sqrt") + 1.0))
    return copysign((t < INF).choose(result, t), x)


def wide_arccosh(x: Value) -> Value:
    t = x - 1.0
    return (t < 0.0).choose(x.lift(NAN), log1p(t + (t * (t + 2.0)).intrinsic("sqrt")))


def wide_arctanh(x: Value) -> Value:
    t = abs(x)
    return copysign(log1p(t * 2.0 / (1.0 - t)) * 0.5, x)


def wide_hypot(x: Value, y: Value) -> Value:
    infinite = abs(x).equals(INF) | abs(y).equals(INF)
    return infinite.choose(x.lift(INF), (x * x + y * y).intrinsic("sqrt"))


def wide_cbrt(x: Value) -> Value:
    t = abs(x)
    positive = (t > 0.0) & (t < INF)
    return copysign(positive.choose(exp(log(positive.choose(t, 1.0)) * (1.0 / 3.0)), t), x)


def wide_pow(x: Value, y: Value) -> Value:
    """x**y as C99 has it, for operands that were float32."""
    magnitude = exp2(y * log2(abs(x)))                                 # 0 and infinity fall out of the limits
    whole = rounded(y).equals(y)
    odd = whole & rounded(y * 0.5).differs(y * 0.5)
    negative = x.bits_as("int64") < 0
    result = (negative & odd).choose(-magnitude, magnitude)
    undefined = (x < 0.0) & (abs(x) < INF) & ~whole
    result = undefined.choose(x.lift(NAN), result)
    unit = abs(x).equals(1.0) & abs(y).equals(INF)
    return (y.equals(0.0) | x.equals(1.0) | unit).choose(x.lift(1.0), result)


# ---- the gamma function's relatives ------------------------------------------------------------------------

# Bernoulli numbers over their index, for the asymptotic series: Abramowitz and Stegun 6.3.18 and 6.4.12.
DIGAMMA_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760)
TRIGAMMA_SERIES = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730)
SHIFT = 10                                  # the series is used from here on


def _shifted(x: Value, term: Callable[[Value], Value]) -> tuple[Value, Value]:
    """(x + SHIFT, the sum of term(x + k) for k < SHIFT) where x < SHIFT, else (x, 0)."""
    small = x < float(SHIFT)
    start = small.choose(x, float(SHIFT))
    total = term(start)
    for k in range(1, SHIFT):
        total = total + term(start + float(k))
    return small.choose(x + float(SHIFT), x), small.choose(total, 0.0)


def _fraction(x: Value) -> Value:
    """x minus the nearest integer."""
    return x - rounded(x)


def wide_digamma(x: Value) -> Value:
    """The derivative of log(gamma(x)), to 1e-15 near its roots; infinite at 0, NaN at the other poles."""
    reflected = x < 0.5
    y = reflected.choose(1.0 - x, x)
    z, total = _shifted(y, lambda t: 1.0 / t)
    w = 1.0 / (z * z)
    result = log(z) - 0.5 / z - polynomial(w, DIGAMMA_SERIES) * w - total
    result = y.equals(INF).choose(y, result)
    angle = _fraction(x) * PI
    result = reflected.choose(result - PI / angle.call("tan", "float64"), result)
    pole = x.equals(0.0).choose(copysign(x.lift(INF), -x), NAN)
    return ((x <= 0.0) & angle.equals(0.0)).choose(pole, result)


def wide_trigamma(x: Value) -> Value:
    """The second derivative of log(gamma(x)); infinite at its poles."""
    reflected = x < 0.5
    z, total = _shifted(reflected.choose(1.0 - x, x), lambda t: 1.0 / (t * t))
    inverse = 1.0 / z
    w = inverse * inverse
    result = total + inverse + w * 0.5 + polynomial(w, TRIGAMMA_SERIES) * w * inverse
    angle = _fraction(x) * PI
    ratio = PI / angle.call("sin", "float64")
    result = reflected.choose(ratio * ratio - result, result)
    return ((x <= 0.0) & angle.equals(0.0)).choose(x.lift(INF), result)
