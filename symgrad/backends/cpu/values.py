"""LLVM values that obey Python's operators, so that scalar functions read like mathematics.

No operation carries a fast-math flag: the functions written here rely on every rounding they spell.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

FLOAT_BITS = {"float32": 32, "float64": 64}
MANTISSA = {"float32": 23, "float64": 52}
LLVM_TYPES: dict[str, ir.Type] = {
    "float32": ir.FloatType(), "float64": ir.DoubleType(), "bool": ir.IntType(1),
    **{f"{sign}int{bits}": ir.IntType(bits) for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def is_float(dtype: str) -> bool:
    return dtype.startswith("float")


def is_signed(dtype: str) -> bool:
    return dtype.startswith("int")


def is_integer(dtype: str) -> bool:
    return "int" in dtype


def bits(dtype: str) -> int:
    """Width in bits; a bool has one."""
    return FLOAT_BITS.get(dtype) or LLVM_TYPES[dtype].width


def as_integer(dtype: str) -> str:
    """The signed integer dtype of the same width as a float dtype."""
    return f"int{bits(dtype)}"


def constant(dtype: str, number: Any) -> ir.Constant:
    """An LLVM constant; floats are rounded once, integers wrap."""
    if is_float(dtype):
        number = float(number)
    if dtype == "float32" and abs(number) < 3.5e38:
        number = struct.unpack("f", struct.pack("f", number))[0]
    elif is_integer(dtype):
        number = int(number) & (2 ** bits(dtype) - 1)
    elif dtype == "bool":
        number = int(bool(number))
    return ir.Constant(LLVM_TYPES[dtype], number)


class Value:
    """One LLVM value and its dtype."""

    __slots__ = ("builder", "llvm", "dtype")

    def __init__(self, builder: ir.IRBuilder, llvm: ir.Value, dtype: str) -> None:
        self.builder, self.llvm, self.dtype = builder, llvm, dtype

    # ---- building blocks -----------------------------------------------------------------------------------

    def new(self, llvm: ir.Value, dtype: str | None = None) -> Value:
        return type(self)(self.builder, llvm, dtype or self.dtype)

    def lift(self, other: Value | int | float) -> Value:
        """`other` as a value of this dtype."""
        return other if isinstance(other, Value) else self.new(constant(self.dtype, other))

    def intrinsic(self, name: str, *others: Value | int | float) -> Value:
        """The LLVM intrinsic `llvm.<name>` applied to self and others, in this dtype."""
        operands = [self.llvm, *(self.lift(other).llvm for other in others)]
        suffix = f"f{bits(self.dtype)}" if is_float(self.dtype) else f"i{bits(self.dtype)}"
        kind = ir.FunctionType(self.llvm.type, [operand.type for operand in operands])
        function = declared(self.builder.module, kind, f"llvm.{name}.{suffix}")
        return self.new(self.builder.call(function, operands))

    def _operate(self, of_float: str, of_integer: str, other: Value | int | float,
                 swap: bool = False) -> Value:
        first, second = self.llvm, self.lift(other).llvm
        method = getattr(self.builder, of_float if is_float(self.dtype) else of_integer)
        return self.new(method(second, first) if swap else method(first, second))

    def _compare(self, sign: str, other: Value | int | float) -> Value:
        second = self.lift(other).llvm
        if is_float(self.dtype):
            # NaN differs from everything and is ordered with nothing
            compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        else:
            compare = self.builder.icmp_signed if is_signed(self.dtype) else self.builder.icmp_unsigned
        return self.new(compare(sign, self.llvm, second), "bool")

    # ---- operators -----------------------------------------------------------------------------------------

    def __add__(self, other): return self._operate("fadd", "add", other)
    def __radd__(self, other): return self._operate("fadd", "add", other, swap=True)
    def __sub__(self, other): return self._operate("fsub", "sub", other)
    def __rsub__(self, other): return self._operate("fsub", "sub", other, swap=True)
    def __mul__(self, other): return self._operate("fmul", "mul", other)
    def __rmul__(self, other): return self._operate("fmul", "mul", other, swap=True)
    def __rtruediv__(self, other): return self._operate("fdiv", "udiv", other, swap=True)

    def __truediv__(self, other):
        """The quotient; of integers, truncated."""
        return self._operate("fdiv", "sdiv" if is_signed(self.dtype) else "udiv", other)

    def __mod__(self, other):
        """The remainder with the sign of the dividend (C's % and fmod)."""
        return self._operate("frem", "srem" if is_signed(self.dtype) else "urem", other)

    def __and__(self, other): return self._operate("", "and_", other)
    def __or__(self, other): return self._operate("", "or_", other)
    def __xor__(self, other): return self._operate("", "xor", other)
    def __invert__(self): return self.new(self.builder.not_(self.llvm))
    def __lshift__(self, other): return self._operate("", "shl", other)
    def __rshift__(self, other): return self._operate("", "ashr" if is_signed(self.dtype) else "lshr", other)
    def __lt__(self, other): return self._compare("<", other)
    def __le__(self, other): return self._compare("<=", other)
    def __gt__(self, other): return self._compare(">", other)
    def __ge__(self, other): return self._compare(">=", other)
    def equals(self, other): return self._compare("==", other)
    def differs(self, other): return self._compare("!=", other)

    def __neg__(self):
        return self.new((self.builder.fneg if is_float(self.dtype) else self.builder.neg)(self.llvm))

    def __abs__(self):
        return self.intrinsic("fabs") if is_float(self.dtype) else (self < 0).choose(-self, self)

    # ---- selection, bits, conversion -----------------------------------------------------------------------

    def choose(self, then: Value, otherwise: Value | int | float) -> Value:
        """`then` where self (a bool) holds, else `otherwise`; both are evaluated."""
        return then.new(self.builder.select(self.llvm, then.llvm, then.lift(otherwise).llvm))

    def fma(self, factor: Value | float, term: Value | float) -> Value:
        """self * factor + term, rounded once."""
        return self.intrinsic("fma", factor, term)

    def is_nan(self) -> Value:
        return self.new(self.builder.fcmp_unordered("uno", self.llvm, self.llvm), "bool")

    def bits_as(self, dtype: str) -> Value:
        """The same bits read as another dtype of equal width."""
        same = LLVM_TYPES[dtype] == self.llvm.type
        return self.new(self.llvm if same else self.builder.bitcast(self.llvm, LLVM_TYPES[dtype]), dtype)

    def resized(self, dtype: str) -> Value:
        """An integer or bool as an integer of another width: wrapped, or extended by its own sign."""
        old, new, target = bits(self.dtype), bits(dtype), LLVM_TYPES[dtype]
        if old == new:
            return self.new(self.llvm, dtype)
        extend = self.builder.sext if is_signed(self.dtype) else self.builder.zext
        return self.new((self.builder.trunc if new < old else extend)(self.llvm, target), dtype)

    def as_float(self, dtype: str) -> Value:
        """The nearest float of `dtype`."""
        target = LLVM_TYPES[dtype]
        if is_float(self.dtype):
            if self.dtype == dtype:
                return self
            convert = self.builder.fpext if dtype == "float64" else self.builder.fptrunc
        else:
            convert = self.builder.sitofp if is_signed(self.dtype) else self.builder.uitofp
        return self.new(convert(self.llvm, target), dtype)

    def truncated(self, dtype: str) -> Value:
        """A float that is known to fit, as a signed integer, rounded towards zero."""
        return self.new(self.builder.fptosi(self.llvm, LLVM_TYPES[dtype]), dtype)

    def call(self, name: str, result: str, *others: Value) -> Value:
        """A C function `result name(self, *others)` of the mathematical library."""
        operands = [self.llvm, *(other.llvm for other in others)]
        kind = ir.FunctionType(LLVM_TYPES[result], [operand.type for operand in operands])
        function = declared(self.builder.module, kind, name)
        for attribute in ("nounwind", "willreturn", "memory(none)"):
            add_attribute(function, attribute)
        return self.new(self.builder.call(function, operands), result)


@cache
def _target() -> tuple[str, str]:
    """(triple, data layout) of this machine."""
    llvm.initialize_native_target()
    triple = llvm.get_process_triple()
    return triple, str(llvm.Target.from_triple(triple).create_target_machine().target_data)


def empty_module(name: str) -> ir.Module:
    """A module for this machine."""
    module = ir.Module(name)
    module.triple, module.data_layout = _target()
    return module


def declared(module: ir.Module, kind: ir.FunctionType, name: str) -> ir.Function:
    """The function of that name in the module, declared on first use."""
    return module.globals[name] if name in module.globals else ir.Function(module, kind, name)


def keep_rolled(branch: ir.Instruction) -> None:
    """Forbid LLVM to unroll the loop that this branch closes."""
    module = branch.function.module
    no_unrolling = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = ir.MDValue(module, [], name=str(len(module.metadata)))
    loop.operands = (loop, no_unrolling)                   # a loop is known by a node that names itself
    branch.set_metadata("llvm.loop", loop)


def add_attribute(function: ir.Function, attribute: str) -> None:
    """Mark a function with an attribute that the binding's own list may not know."""
    set.add(function.attributes, attribute)
