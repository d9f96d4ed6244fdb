"""The words of kernel text as numba-cuda understands them: each an intrinsic that emits NVVM's LLVM."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic
from numba.cuda.typing.templates import signature

from ..cpu.values import LLVM_TYPES, bits, declared, is_float
from . import scalars

INT32 = ir.IntType(32)
SHARED_SPACE = 3
NUMBA_TYPES = {dtype: types.boolean if dtype == "bool" else getattr(types, dtype) for dtype in LLVM_TYPES}
_serial = itertools.count()


def memory_type(dtype: str) -> types.Type:
    """The type of a pointer; a bool is a byte in memory."""
    return types.CPointer(NUMBA_TYPES["uint8" if dtype == "bool" else dtype])


def parameter(kind: str) -> types.Type:
    """The type of a kernel's parameter, `i64` or the dtype of what it points to."""
    return types.int64 if kind == "i64" else memory_type(kind)


@cache
def word(name: str) -> Any:
    """The intrinsic of a word of kernel text, or None."""
    if name in WORDS:
        return intrinsic(WORDS[name])
    base, _, dtype = name.rpartition("_")
    if base in TYPED and dtype in LLVM_TYPES:
        return intrinsic(TYPED[base](dtype))
    function = scalars.scalar(name)
    return intrinsic(_scalar(function)) if function else None


def _scalar(function: Any) -> Callable:
    wanted = tuple(NUMBA_TYPES[dtype] for dtype in function.arguments)
    sig = signature(NUMBA_TYPES[function.result], *wanted)

    def emit(context, builder, sig, args):
        return function.emit(*(scalars.DeviceValue(builder, v, d) for v, d in zip(args, function.arguments, strict=True))).llvm

    def typed(*found):
        # no conversion: a value of another dtype is a mistake of the printer
        return (sig, emit) if tuple(map(types.unliteral, found)) == wanted else None

    # an intrinsic names its parameters
    return (lambda typing, x: typed(x), lambda typing, x, y: typed(x, y), lambda typing, x, y, z: typed(x, y, z))[len(wanted) - 1]


# ---- indices -----------------------------------------------------------------------------------------------
def _resized(builder: ir.IRBuilder, value: ir.Value, width: int) -> ir.Value:
    old, target = value.type.width, ir.IntType(width)
    return value if old == width else builder.trunc(value, target) if width < old else builder.sext(value, target)


def _width(width: int) -> Callable:
    result = {32: types.int32, 64: types.int64}[width]

    def define(typing, value):
        kind = types.unliteral(value)

        def emit(context, builder, sig, args):
            return _resized(builder, args[0], width)
        return (signature(result, kind), emit) if isinstance(kind, types.Integer) else None
    return define


def _unsigned(method: str) -> Callable:
    """Division of indices that are not negative, in 32 bits."""
    def define(typing, a, b):
        def emit(context, builder, sig, args):
            return getattr(builder, method)(*(_resized(builder, x, 32) for x in args))
        return signature(types.int32, types.unliteral(a), types.unliteral(b)), emit
    return define


def _floored(part: str) -> Callable:
    """Floor division of any indices, in 64 bits. The divisor is a size or a literal, hence positive or 0, where anything will do."""
    def define(typing, a, b):
        def emit(context, builder, sig, args):
            x, y = (_resized(builder, v, 64) for v in args)
            zero, one = ir.Constant(x.type, 0), ir.Constant(x.type, 1)
            y = builder.select(builder.icmp_signed("==", y, zero), one, y)
            quotient, rest = builder.sdiv(x, y), builder.srem(x, y)
            below = builder.icmp_signed("<", rest, zero)
            if part == "quotient":
                return builder.select(below, builder.sub(quotient, one), quotient)
            return builder.select(below, builder.add(rest, y), rest)
        return signature(types.int64, types.unliteral(a), types.unliteral(b)), emit
    return define


# ---- threads -----------------------------------------------------------------------------------------------
def _register(builder: ir.IRBuilder, name: str) -> ir.Value:
    return builder.call(declared(builder.module, ir.FunctionType(INT32, []), f"llvm.nvvm.read.ptx.sreg.{name}.x"), [])


def _geometry(compute: Callable[[ir.IRBuilder], ir.Value]) -> Callable:
    def define(typing):
        return signature(types.int32), lambda context, builder, sig, args: compute(builder)
    return define


def _product(first: str, second: str, plus: str = "") -> Callable[[ir.IRBuilder], ir.Value]:
    def compute(b: ir.IRBuilder) -> ir.Value:
        whole = b.mul(_register(b, first), _register(b, second))
        return b.add(whole, _register(b, plus)) if plus else whole
    return compute


def _barrier(typing):
    def emit(context, builder, sig, args):
        builder.call(declared(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.nvvm.barrier0"), [])
        return context.get_dummy_value()
    return signature(types.none), emit


def _shuffle(mode: str) -> Callable[[str], Callable]:
    """The value of another lane of the warp, all of whose lanes take part."""
    def typed(dtype: str) -> Callable:
        def exchange(builder: ir.IRBuilder, value: ir.Value, distance: ir.Value) -> ir.Value:
            kind = ir.FunctionType(INT32, [INT32, INT32])
            code = ir.InlineAsm(kind, f"shfl.sync.{mode}.b32 $0, $1, $2, {0 if mode == 'up' else 31}, 0xffffffff;", "=r,r,r", side_effect=True)
            return builder.call(code, [value, distance])

        def emit(context, b, sig, args):
            value, distance = args[0], _resized(b, args[1], 32)
            width = bits(dtype)
            raw = b.bitcast(value, ir.IntType(width)) if is_float(dtype) else value
            if width == 64:
                low = b.zext(exchange(b, b.trunc(raw, INT32), distance), ir.IntType(64))
                high = b.zext(exchange(b, b.trunc(b.lshr(raw, ir.Constant(raw.type, 32)), INT32), distance), ir.IntType(64))
                found = b.or_(low, b.shl(high, ir.Constant(high.type, 32)))
            else:
                found = exchange(b, raw if width == 32 else b.zext(raw, INT32), distance)
                found = found if width == 32 else b.trunc(found, raw.type)
            return b.bitcast(found, value.type) if is_float(dtype) else found

        def define(typing, value, distance):
            kind = NUMBA_TYPES[dtype]
            return (signature(kind, kind, types.unliteral(distance)), emit) if types.unliteral(value) == kind else None
        return define
    return typed


# ---- memory ------------------------------------------------------------------------------------------------
def _truth(typing, value):
    def emit(context, builder, sig, args):
        return builder.icmp_unsigned("!=", args[0], ir.Constant(args[0].type, 0))
    return (signature(types.boolean, types.uint8), emit) if types.unliteral(value) == types.uint8 else None


def _byte(typing, value):
    def emit(context, builder, sig, args):
        return builder.zext(args[0], ir.IntType(8))
    return (signature(types.uint8, types.boolean), emit) if types.unliteral(value) == types.boolean else None


def _array(space: str) -> Callable[[str], Callable]:
    """Memory of a block (`shared`) or of a thread (`local`), of a literal number of elements, aligned for vectors of four."""
    def typed(dtype: str) -> Callable:
        element = ir.IntType(8) if dtype == "bool" else LLVM_TYPES[dtype]

        def define(typing, count):
            if not isinstance(count, types.IntegerLiteral):
                return None
            kind = ir.ArrayType(element, count.literal_value)

            def emit(context, builder, sig, args):
                if space == "local":
                    with builder.goto_entry_block():
                        whole = builder.alloca(kind)
                else:
                    whole = ir.GlobalVariable(builder.module, kind, f"shared_{next(_serial)}", SHARED_SPACE)
                    whole.linkage, whole.initializer = "internal", ir.Constant(kind, ir.Undefined)
                whole.align = 16
                start = builder.gep(whole, [ir.Constant(INT32, 0)] * 2)
                return builder.addrspacecast(start, element.as_pointer(), "generic") if space == "shared" else start
            return signature(memory_type(dtype), count), emit
        return define
    return typed


def _load4(dtype: str) -> Callable:
    """Four neighbours in one instruction; the first is a multiple of four elements from the start of the memory."""
    kind, result = LLVM_TYPES[dtype], types.UniTuple(NUMBA_TYPES[dtype], 4)

    def emit(context, builder, sig, args):
        place = builder.gep(args[0], [_resized(builder, args[1], 64)])
        vector = builder.load(builder.bitcast(place, ir.VectorType(kind, 4).as_pointer(place.type.addrspace)))
        vector.align = 16
        return context.make_tuple(builder, result, [builder.extract_element(vector, ir.Constant(INT32, k)) for k in range(4)])

    def define(typing, pointer, index):
        return (signature(result, pointer, types.unliteral(index)), emit) if pointer == memory_type(dtype) else None
    return define


WORDS: dict[str, Callable] = {
    "i32": _width(32), "i64": _width(64), "quotient": _unsigned("udiv"), "remainder": _unsigned("urem"),
    "floor_quotient": _floored("quotient"), "floor_remainder": _floored("remainder"), "truth": _truth, "byte": _byte, "barrier": _barrier,
    "first_thread": _geometry(_product("ctaid", "ntid", "tid")), "thread_count": _geometry(_product("nctaid", "ntid")),
    "lane": _geometry(lambda b: _register(b, "tid")), "block": _geometry(lambda b: _register(b, "ctaid")),
    "block_size": _geometry(lambda b: _register(b, "ntid")), "block_count": _geometry(lambda b: _register(b, "nctaid")),
}
TYPED: dict[str, Callable[[str], Callable]] = {"shuffle_up": _shuffle("up"), "shared": _array("shared"), "local": _array("local"), "load4": _load4,
                                               "shuffle_down": _shuffle("down"), "shuffle_xor": _shuffle("bfly")}
