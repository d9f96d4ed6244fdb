"""The scalar functions of kernel text: a table from name to LLVM, with NumPy's semantics in every dtype.

`scalar("exp_float32")` gives the row of a full name. A row knows its operand dtypes, its result dtype and how
to emit itself. Short rows are emitted where they are called; long ones once per module, as an internal
function that LLVM inlines before it vectorises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llvmlite import ir

from . import elementary as math
from .values import (
    LLVM_TYPES,
    Value,
    add_attribute,
    as_integer,
    bits,
    constant,
    is_float,
    is_integer,
    is_signed,
)

FLOATS = ("float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
NUMBERS = FLOATS + INTEGERS
DTYPES = NUMBERS + ("bool",)

Emit = Callable[..., Value]


@dataclass(frozen=True)
class Scalar:
    """One scalar function in one dtype."""

    name: str
    arguments: tuple[str, ...]
    result: str
    emit: Emit
    long: bool = False

    def __call__(self, builder: ir.IRBuilder, *operands: ir.Value) -> ir.Value:
        """The LLVM value of the function at `operands`."""
        if self.long:
            return builder.call(self._function(builder.module), operands)
        return self._body(builder, operands)

    def _body(self, builder: ir.IRBuilder, operands: tuple[ir.Value, ...]) -> ir.Value:
        return self.emit(*(Value(builder, v, d) for v, d in zip(operands, self.arguments, strict=True))).llvm

    def _function(self, module: ir.Module) -> ir.Function:
        """The module's own copy of this function, emitted on first use."""
        symbol = f"scalar.{self.name}"
        if symbol in module.globals:
            return module.globals[symbol]
        kind = ir.FunctionType(LLVM_TYPES[self.result], [LLVM_TYPES[d] for d in self.arguments])
        function = ir.Function(module, kind, symbol)
        function.linkage = "internal"
        for attribute in ("alwaysinline", "nounwind", "willreturn", "memory(none)"):
            add_attribute(function, attribute)
        builder = ir.IRBuilder(function.append_basic_block())
        builder.ret(self._body(builder, function.args))
        return function


@dataclass(frozen=True)
class Row:
    """A scalar function in all its dtypes: operand dtypes, result dtype (None: the operands'), emitter."""

    dtypes: tuple[str, ...]
    arguments: Callable[[str], tuple[str, ...]]
    result: str | None
    emit: Emit
    long: bool


ROWS: dict[str, Row] = {}


def row(name: str, dtypes: tuple[str, ...], count: int | Callable[[str], tuple[str, ...]],
        emit: Emit | None = None, *,
        result: str | None = None, long: bool = False):
    """Add a row to the table; without `emit`, a decorator for the emitter."""
    if emit is None:
        return lambda emit: row(name, dtypes, count, emit, result=result, long=long) or emit
    ROWS[name] = Row(dtypes, count if callable(count) else lambda dtype: (dtype,) * count, result, emit, long)
    return None


@cache
def scalar(full_name: str) -> Scalar | None:
    """The scalar function of a full name such as `exp_float32` or `cast_int32_float64`, or None."""
    name, _, dtype = full_name.rpartition("_")
    if dtype not in LLVM_TYPES:
        return None
    if name == "index_to":
        return Scalar(full_name, ("int64",), dtype, lambda x: converted(x, dtype))
    if name.startswith("cast_") and name[5:] in LLVM_TYPES:
        return Scalar(full_name, (name[5:],), dtype, lambda x: converted(x, dtype))
    found = ROWS.get(name)
    if found is None or dtype not in found.dtypes:
        return None
    return Scalar(full_name, found.arguments(dtype), found.result or dtype, found.emit, found.long)


def names() -> list[str]:
    """Every full name, casts included."""
    return ([f"{name}_{dtype}" for name, found in ROWS.items() for dtype in found.dtypes]
            + [f"cast_{a}_{b}" for a in DTYPES for b in DTYPES] + [f"index_to_{dtype}" for dtype in DTYPES])


# ---- conversion --------------------------------------------------------------------------------------------

def converted(x: Value, dtype: str) -> Value:
    """x as another dtype, as `ndarray.astype` does; floats that do not fit give the answer of an x86-64."""
    if dtype == x.dtype:
        return x
    if dtype == "bool":
        return x.differs(0)
    if is_float(dtype):
        return x.as_float(dtype)
    if not is_float(x.dtype):
        return x.resized(dtype)
    if dtype == "uint64":
        high = x - 2.0 ** 63
        upper = _truncated(high, "int64") ^ -2 ** 63
        return (x >= 2.0 ** 63).choose(upper, _truncated(x, "int64")).resized(dtype)
    return _truncated(x, "int64" if dtype in ("int64", "uint32") else "int32").resized(dtype)


def _truncated(x: Value, dtype: str) -> Value:
    """A float as an integer, rounded towards zero; NaN and what does not fit give the lowest integer."""
    limit = 2.0 ** (bits(dtype) - 1)
    fits = (x < limit) & (x >= -limit)
    # the conversion itself must never see a value that does not fit: LLVM calls its result poison
    return fits.choose(fits.choose(x, 0.0).truncated(dtype), -2 ** (bits(dtype) - 1))


# ---- arithmetic --------------------------------------------------------------------------------------------

def flagged(method: str, *flags: str) -> Emit:
    """A float operation that carries fast-math flags."""
    def emit(x: Value, y: Value) -> Value:
        return x.new(getattr(x.builder, method)(x.llvm, y.llvm, flags=flags))
    return emit


def by_kind(of_float: Emit, of_integer: Emit, of_bool: Emit | None = None) -> Emit:
    """An emitter that depends on the kind of its first operand's dtype."""
    def emit(x: Value, *others: Value) -> Value:
        chosen = of_float if is_float(x.dtype) else of_integer if is_integer(x.dtype) else of_bool
        assert chosen is not None, x.dtype
        return chosen(x, *others)
    return emit


def maximum(x: Value, y: Value) -> Value:
    """The larger; NaN if either is NaN."""
    if not is_float(x.dtype):
        return (x > y).choose(x, y)
    # `x > y` fails for NaN in x, so that is chosen apart; NaN in y falls out of the comparison
    return (x.is_nan() | (x > y)).choose(x, y)


def minimum(x: Value, y: Value) -> Value:
    if not is_float(x.dtype):
        return (x < y).choose(x, y)
    return (x.is_nan() | (x < y)).choose(x, y)


def fmax(x: Value, y: Value) -> Value:
    """The larger; the other one where one is NaN."""
    return (y.is_nan() | (x >= y)).choose(x, y) if is_float(x.dtype) else maximum(x, y)


def fmin(x: Value, y: Value) -> Value:
    return (y.is_nan() | (x <= y)).choose(x, y) if is_float(x.dtype) else minimum(x, y)


def sign(x: Value) -> Value:
    if not is_signed(x.dtype) and not is_float(x.dtype):
        return (x > 0).choose(x.lift(1), 0)
    at_zero = x.equals(0).choose(x.lift(0), x)                       # NaN stays, -0.0 becomes 0.0
    return (x > 0).choose(x.lift(1), (x < 0).choose(x.lift(-1), at_zero))


def _safe_divisor(x: Value, y: Value) -> tuple[Value, Value]:
    """(y made harmless, whether it was harmful): 0, and -1 below the lowest integer, trap in hardware."""
    harmful = y.equals(0)
    if is_signed(x.dtype):
        harmful = harmful | (y.equals(-1) & x.equals(-2 ** (bits(x.dtype) - 1)))
    return harmful.choose(y.lift(1), y), harmful


def integer_floordiv(x: Value, y: Value) -> Value:
    """Floor of the quotient; 0 where y is 0, and the wrapped lowest integer for lowest // -1."""
    safe, _ = _safe_divisor(x, y)
    quotient = x / safe
    if is_signed(x.dtype):
        remainder = x - quotient * safe
        quotient = (remainder.differs(0) & ((remainder ^ safe) < 0)).choose(quotient - 1, quotient)
    return y.equals(0).choose(y, quotient)


def integer_mod(x: Value, y: Value) -> Value:
    """The remainder with the sign of y; 0 where y is 0."""
    safe, harmful = _safe_divisor(x, y)
    remainder = x % safe
    if is_signed(x.dtype):
        remainder = (remainder.differs(0) & ((remainder ^ safe) < 0)).choose(remainder + safe, remainder)
    return harmful.choose(x.lift(0), remainder)


def integer_fmod(x: Value, y: Value) -> Value:
    """The remainder with the sign of x; 0 where y is 0."""
    safe, harmful = _safe_divisor(x, y)
    return harmful.choose(x.lift(0), x % safe)


def _either(condition: Value, then: Value, otherwise: Value) -> Value:
    """One of two bools, spelled with logic, which vectorises better than a selection."""
    return condition & then | ~condition & otherwise


def float_mod(x: Value, y: Value) -> Value:
    """x - floor(x / y) * y, exactly as npy_divmod computes it."""
    remainder = x % y
    other_sign = _either(y < 0.0, remainder > 0.0, remainder < 0.0)
    adjusted = other_sign.choose(remainder + y, remainder)
    at_zero = math.copysign(x.lift(0.0), y)
    # NumPy gives the plain remainder (NaN) for a zero divisor
    return (remainder.equals(0.0) & y.differs(0.0)).choose(at_zero, adjusted)


def float_floordiv(x: Value, y: Value) -> Value:
    """Floor of the quotient without the error of rounding x / y first, as npy_divmod computes it."""
    remainder = x % y
    quotient = (x - remainder) / y
    other_sign = _either(y < 0.0, remainder > 0.0, remainder < 0.0)
    quotient = other_sign.choose(quotient - 1.0, quotient)
    floor = quotient.intrinsic("floor")
    floor = (quotient - floor > 0.5).choose(floor + 1.0, floor)
    plain = x / y
    result = quotient.equals(0.0).choose(math.copysign(x.lift(0.0), plain), floor)
    return y.equals(0.0).choose(plain, result)


def float_div(x: Value, y: Value) -> Value:
    return x / y


def integer_pow(x: Value, y: Value) -> Value:
    """x**y by squaring, wrapping; a negative y gives the truncated quotient 1 / x**-y, or 0 for x = 0."""
    builder, entry = x.builder, x.builder.block
    exponent = y.resized(f"u{y.dtype}") if is_signed(y.dtype) else y
    loop, done = builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    kind = x.llvm.type
    base_phi, power_phi, left_phi = builder.phi(kind), builder.phi(kind), builder.phi(kind)
    base, power, left = x.new(base_phi), x.new(power_phi), exponent.new(left_phi)
    next_power = (left & 1).differs(0).choose(power * base, power)
    next_base, next_left = base * base, left >> 1
    carried = (base_phi, x, next_base), (power_phi, x.lift(1), next_power), (left_phi, exponent, next_left)
    for phi, first, following in carried:
        phi.add_incoming(first.llvm, entry)
        phi.add_incoming(following.llvm, loop)
    builder.cbranch(next_left.differs(0).llvm, loop, done)
    builder.position_at_end(done)
    if not is_signed(x.dtype):
        return next_power
    odd = (y & 1).differs(0)
    inverse = x.equals(1).choose(x, x.equals(-1).choose(odd.choose(x, 1), 0))
    return (y < 0).choose(inverse, next_power)


def gcd(x: Value, y: Value) -> Value:
    """Greatest common divisor of the absolute values."""
    return _euclid(_magnitude(x), _magnitude(y)).resized(x.dtype)


def lcm(x: Value, y: Value) -> Value:
    """Least common multiple of the absolute values, wrapping; 0 if either is 0."""
    a, b = _magnitude(x), _magnitude(y)
    divisor = _euclid(a, b)
    nothing = divisor.equals(0)
    return nothing.choose(a.lift(0), a / nothing.choose(a.lift(1), divisor) * b).resized(x.dtype)


def _magnitude(x: Value) -> Value:
    """The absolute value as an unsigned integer, which has room for that of the lowest integer."""
    return abs(x).resized(f"u{x.dtype}") if is_signed(x.dtype) else x


def _euclid(a: Value, b: Value) -> Value:
    """Greatest common divisor of unsigned integers by Euclid's algorithm."""
    builder = a.builder
    entry, loop, step, done = builder.block, *(builder.append_basic_block() for _ in range(3))
    builder.branch(loop)
    builder.position_at_end(loop)
    a_phi, b_phi = builder.phi(a.llvm.type), builder.phi(a.llvm.type)
    first, second = a.new(a_phi), a.new(b_phi)
    builder.cbranch(second.equals(0).llvm, done, step)
    builder.position_at_end(step)
    remainder = first % second
    builder.branch(loop)
    for phi, start, following in ((a_phi, a, second), (b_phi, b, remainder)):
        phi.add_incoming(start.llvm, entry)
        phi.add_incoming(following.llvm, step)
    builder.position_at_end(done)
    return first


def shl(x: Value, y: Value) -> Value:
    """x << y; 0 once every bit has left."""
    inside = _within_width(x, y)
    return inside.choose(x << inside.choose(y, 0), 0)


def shr(x: Value, y: Value) -> Value:
    """x >> y; the sign (or 0) once every bit has left."""
    inside = _within_width(x, y)
    emptied = (x < 0).choose(x.lift(-1), 0) if is_signed(x.dtype) else x.lift(0)
    return inside.choose(x >> inside.choose(y, 0), emptied)


def _within_width(x: Value, y: Value) -> Value:
    unsigned = y.resized(f"u{y.dtype}") if is_signed(y.dtype) else y
    return unsigned < bits(x.dtype)


def heaviside(x: Value, at_zero: Value) -> Value:
    result = x.equals(0.0).choose(at_zero, (x > 0.0).choose(x.lift(1.0), 0.0))
    return x.is_nan().choose(x, result)


def nextafter(x: Value, y: Value) -> Value:
    """The float after x towards y."""
    integer = as_integer(x.dtype)
    raw = x.bits_as(integer)
    away = _either(x < y, x > 0.0, x < 0.0)                                            # from zero
    moved = away.choose(raw + 1, raw - 1)
    from_zero = y.bits_as(integer) & -2 ** (bits(x.dtype) - 1) | 1     # the smallest, with y's sign
    result = x.equals(0.0).choose(from_zero, moved).bits_as(x.dtype)
    return (x.is_nan() | y.is_nan()).choose(x + y, x.equals(y).choose(y, result))


def ldexp(x: Value, exponent: Value) -> Value:
    return x.call(_c_name("ldexp", x.dtype), x.dtype, exponent)


def _c_name(name: str, dtype: str) -> str:
    """A function of the C mathematical library, by dtype."""
    return name + "f" if dtype == "float32" else name


def library(name: str) -> Emit:
    """The C library's function of that name."""
    return lambda x, *others: x.call(_c_name(name, x.dtype), x.dtype, *others)


def rebuilt(name: str) -> Emit:
    """The LLVM intrinsic of that name, for functions every machine has an instruction for."""
    return lambda x, *others: x.intrinsic(name, *others)


def in_float32(ours: Emit, name: str) -> Emit:
    """Our polynomial in float32 and the C library's function in float64."""
    return lambda x, *others: ours(x, *others) if x.dtype == "float32" else library(name)(x, *others)


# Sums never fuse with the product before them: a value that two kernels compute, such as x in `x == max(x)`, must come out
# equal in both, whatever else reads the product. Only reductions fuse (acc_add), which takes a product that allows it.
row("add", DTYPES, 2, by_kind(Value.__add__, Value.__add__, Value.__or__))
row("sub", NUMBERS, 2, by_kind(Value.__sub__, Value.__sub__))
row("mul", DTYPES, 2, by_kind(flagged("fmul", "contract"), Value.__mul__, Value.__and__))
row("div", FLOATS, 2, float_div)
row("neg", NUMBERS, 1, Value.__neg__)
row("abs", DTYPES, 1, by_kind(abs, lambda x: abs(x) if is_signed(x.dtype) else x, lambda x: x))
row("sign", NUMBERS, 1, sign)
row("floordiv", NUMBERS, 2, by_kind(float_floordiv, integer_floordiv))
row("mod", NUMBERS, 2, by_kind(float_mod, integer_mod))
row("fmod", NUMBERS, 2, by_kind(Value.__mod__, integer_fmod))
row("pow", NUMBERS, 2, by_kind(in_float32(math.through_float64(math.wide_pow), "pow"), integer_pow),
    long=True)
row("maximum", DTYPES, 2, by_kind(maximum, maximum, Value.__or__))
row("minimum", DTYPES, 2, by_kind(minimum, minimum, Value.__and__))
row("fmax", DTYPES, 2, by_kind(fmax, fmax, Value.__or__))
row("fmin", DTYPES, 2, by_kind(fmin, fmin, Value.__and__))
row("fma", FLOATS, 3, Value.fma)
row("copysign", FLOATS, 2, math.copysign)
row("nextafter", FLOATS, 2, nextafter)
row("heaviside", FLOATS, 2, heaviside)
row("ldexp", FLOATS, lambda dtype: (dtype, "int32"), ldexp)

# A reduction may add in any order. Without `nsz` LLVM does not vectorise a chain of selects.
row("acc_add", DTYPES, 2, by_kind(flagged("fadd", "reassoc", "contract"), Value.__add__, Value.__or__))
row("acc_mul", DTYPES, 2, by_kind(flagged("fmul", "reassoc", "contract"), Value.__mul__, Value.__and__))
row("acc_maximum", DTYPES, 2, by_kind(rebuilt("maximum"), maximum, Value.__or__))
row("acc_minimum", DTYPES, 2, by_kind(rebuilt("minimum"), minimum, Value.__and__))

# ---- elementary functions ----------------------------------------------------------------------------------

for _name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "sigmoid", "softplus"):
    row(_name, FLOATS, 1, getattr(math, _name), long=True)
for _name in ("logaddexp", "logaddexp2"):
    row(_name, FLOATS, 2, getattr(math, _name), long=True)
for _name, _c in {"sin": "sin", "cos": "cos", "tan": "tan", "arcsin": "asin", "arccos": "acos",
                  "arctan": "atan",
                  "erf": "erf"}.items():
    row(_name, FLOATS, 1, in_float32(getattr(math, _name), _c), long=True)
for _name, _c in {"cbrt": "cbrt", "sinh": "sinh", "cosh": "cosh", "arcsinh": "asinh", "arccosh": "acosh",
                  "arctanh": "atanh"}.items():
    row(_name, FLOATS, 1, in_float32(math.through_float64(getattr(math, f"wide_{_name}")), _c), long=True)
row("arctan2", FLOATS, 2, in_float32(math.arctan2, "atan2"), long=True)
row("hypot", FLOATS, 2, in_float32(math.through_float64(math.wide_hypot), "hypot"), long=True)
row("erfc", FLOATS, 1, library("erfc"))
row("gammaln", FLOATS, 1, library("lgamma"))
row("digamma", FLOATS, 1, math.through_float64(math.wide_digamma), long=True)
row("trigamma", FLOATS, 1, math.through_float64(math.wide_trigamma), long=True)
for _name in ("sqrt", "floor", "ceil", "trunc", "rint"):
    row(_name, FLOATS, 1, rebuilt(_name))

# ---- bits, comparisons, logic ------------------------------------------------------------------------------

WHOLE = INTEGERS + ("bool",)
row("bitand", WHOLE, 2, Value.__and__)
row("bitor", WHOLE, 2, Value.__or__)
row("bitxor", WHOLE, 2, Value.__xor__)
row("bitnot", WHOLE, 1, Value.__invert__)
row("shl", INTEGERS, 2, shl)
row("shr", INTEGERS, 2, shr)
row("gcd", INTEGERS, 2, gcd, long=True)
row("lcm", INTEGERS, 2, lcm, long=True)

row("eq", DTYPES, 2, Value.equals, result="bool")
row("ne", DTYPES, 2, Value.differs, result="bool")
row("lt", DTYPES, 2, Value.__lt__, result="bool")
row("le", DTYPES, 2, Value.__le__, result="bool")
row("gt", DTYPES, 2, Value.__gt__, result="bool")
row("ge", DTYPES, 2, Value.__ge__, result="bool")


def constantly(answer: bool) -> Emit:
    return lambda x: x.new(constant("bool", answer), "bool")


def signbit(x: Value) -> Value:
    return x.bits_as(as_integer(x.dtype)) < 0


row("isnan", DTYPES, 1, by_kind(Value.is_nan, constantly(False), constantly(False)), result="bool")
row("isinf", DTYPES, 1, by_kind(lambda x: abs(x).equals(math.INF), constantly(False), constantly(False)),
    result="bool")
row("isfinite", DTYPES, 1, by_kind(lambda x: abs(x) < math.INF, constantly(True), constantly(True)),
    result="bool")
row("signbit", FLOATS, 1, signbit, result="bool")


def truth(x: Value) -> Value:
    return x if x.dtype == "bool" else x.differs(0)


row("logand", DTYPES, 2, lambda x, y: truth(x) & truth(y), result="bool")
row("logor", DTYPES, 2, lambda x, y: truth(x) | truth(y), result="bool")
row("logxor", DTYPES, 2, lambda x, y: truth(x) ^ truth(y), result="bool")
row("lognot", DTYPES, 1, lambda x: ~truth(x), result="bool")
row("where", DTYPES, lambda dtype: ("bool", dtype, dtype), Value.choose)
