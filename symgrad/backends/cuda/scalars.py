"""The scalar functions of kernel text on a device: the CPU's table where LLVM has an instruction, libdevice where it has a library.

Sums are spelled so that they are never contracted with the product before them; only reductions may be (`acc_add`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from llvmlite import ir

from ..cpu import scalars as cpu
from ..cpu.values import Value, declared, is_float

INTRINSICS = {"fabs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint", "sqrt": "sqrt", "fma": "fma", "copysign": "copysign"}
# kernel word -> libdevice function, without its `__nv_` and the `f` of float32
LIBRARY = {"exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10", "log1p": "log1p", "tanh": "tanh",
           "sin": "sin", "cos": "cos", "tan": "tan", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "sinh": "sinh", "cosh": "cosh",
           "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "arctan2": "atan2", "hypot": "hypot", "erf": "erf", "erfc": "erfc",
           "gammaln": "lgamma", "cbrt": "cbrt", "pow": "pow", "fmod": "fmod", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint",
           "sqrt": "sqrt", "nextafter": "nextafter", "copysign": "copysign"}


class DeviceValue(Value):
    """A value whose functions come from libdevice."""

    __slots__ = ()

    def library(self, name: str, *others: Value | float) -> Value:
        """The libdevice function of that name in this dtype."""
        return self.call(name, self.dtype, *(self.lift(other) for other in others))

    def call(self, name: str, result: str, *others: Value) -> Value:
        operands = [self.llvm, *(other.llvm for other in others)]
        kind = ir.FunctionType(cpu.LLVM_TYPES[result], [operand.type for operand in operands])
        symbol = f"__nv_{name.removesuffix('f') if name != 'erf' else name}{'f' if self.dtype == 'float32' else ''}"
        return self.new(self.builder.call(declared(self.builder.module, kind, symbol), operands), result)

    def intrinsic(self, name: str, *others: Value | int | float) -> Value:
        if name in ("maximum", "minimum"):
            return getattr(cpu, name)(self, *others)
        return self.library(INTRINSICS[name], *others)

    def __neg__(self) -> Value:
        # the LLVM of NVVM has no instruction for it
        return self.lift(-0.0) - self if is_float(self.dtype) else super().__neg__()

    def __mod__(self, other: Value | float) -> Value:
        return self.library("fmod", other) if is_float(self.dtype) else super().__mod__(other)


def _rounded_alone(name: str) -> Callable[..., Value]:
    """A sum or difference that rounds what it is given: an instruction that the compiler may not contract."""
    def emit(x: DeviceValue, y: DeviceValue) -> Value:
        return x.new(x.builder.call(_function(x, f"__nv_{'f' if x.dtype == 'float32' else 'd'}{name}_rn"), [x.llvm, y.llvm]))
    return emit


def _function(x: DeviceValue, symbol: str) -> ir.Function:
    return declared(x.builder.module, ir.FunctionType(x.llvm.type, [x.llvm.type, x.llvm.type]), symbol)


def _sigmoid(x: DeviceValue) -> Value:
    """1 / (1 + exp(-x)): exp may overflow, and then the quotient is 0, as it should be."""
    return x.lift(1.0) / (x.lift(1.0) + (-x).library("exp"))


def _softplus(x: DeviceValue) -> Value:
    """max(x, 0) + log(1 + exp(-|x|)); NaN stays."""
    return (x > 0.0).choose(x, (x <= 0.0).choose(x.lift(0.0), x)) + (-abs(x)).library("exp").library("log1p")


def _logaddexp(base: str) -> Callable[..., Value]:
    """log(exp(x) + exp(y)) in base e or 2, without overflow; equal operands may be infinite."""
    def emit(x: DeviceValue, y: DeviceValue) -> Value:
        distance = x - y
        larger = (x > y).choose(x, y)
        if base == "e":
            tail = (-abs(distance)).library("exp").library("log1p")
        else:
            tail = (-abs(distance)).library("exp2").library("log1p") * 1.4426950408889634
        result = larger + x.equals(y).choose(x.lift(0.6931471805599453 if base == "e" else 1.0), tail)
        return (x.is_nan() | y.is_nan()).choose(x + y, result)
    return emit


def _ldexp(x: DeviceValue, exponent: DeviceValue) -> Value:
    return x.call("ldexp", x.dtype, exponent)


OWN: dict[str, Callable[..., Value]] = {"sigmoid": _sigmoid, "softplus": _softplus, "logaddexp": _logaddexp("e"), "logaddexp2": _logaddexp("2"),
                                        "ldexp": _ldexp, "neg": lambda x: -x, "add": _rounded_alone("add"), "sub": _rounded_alone("sub")}


@cache
def scalar(full_name: str) -> cpu.Scalar | None:
    """The function of a full name such as `exp_float32`, or None. Its `emit` takes DeviceValues."""
    found = cpu.scalar(full_name)
    name, _, dtype = full_name.rpartition("_")
    if found is None or not is_float(dtype) or name not in {*OWN, *LIBRARY}:
        return found
    emit = OWN.get(name) or (lambda x, *others: x.library(LIBRARY[name], *others))
    return cpu.Scalar(full_name, found.arguments, found.result, emit)


__all__ = ["DeviceValue", "scalar"]
