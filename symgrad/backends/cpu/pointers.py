"""Typed pointers of kernel text as Numba types: `ptr_<dtype>(args, slot)`, `advance`, `p[i]` and `p[i] = v`.

A pointer's type holds the slot it came from; what it means for LLVM is said in `memory`.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import register_model

from . import memory
from .values import LLVM_TYPES

NUMBA_TYPES = {dtype: types.boolean if dtype == "bool" else getattr(types, dtype) for dtype in LLVM_TYPES}
ARGUMENTS = types.CPointer(types.int64)


class Ptr(types.Type):
    """A pointer to elements of `dtype` within the memory of argument slot `slot`."""

    def __init__(self, dtype: str, slot: int) -> None:
        self.dtype, self.slot = dtype, slot
        super().__init__(f"Ptr({dtype}, {slot})")


@register_model(Ptr)
class _PtrModel(models.PrimitiveModel):
    def __init__(self, manager, kind: Ptr) -> None:
        super().__init__(manager, kind, ir.PointerType(memory.memory_type(kind.dtype)))


@infer_global(operator.getitem)
class _TypeOfLoad(AbstractTemplate):
    def generic(self, args, kws):
        pointer, index = args
        if isinstance(pointer, Ptr) and isinstance(index, types.Integer):
            return signature(NUMBA_TYPES[pointer.dtype], pointer, types.int64)
        return None


@infer_global(operator.setitem)
class _TypeOfStore(AbstractTemplate):
    def generic(self, args, kws):
        pointer, index, value = args
        # no conversion: a value of another dtype is a mistake of the printer
        if not isinstance(pointer, Ptr) or not isinstance(index, types.Integer):
            return None
        wanted = NUMBA_TYPES[pointer.dtype]
        return signature(types.none, pointer, types.int64, value) if value == wanted else None


@lower_builtin(operator.getitem, Ptr, types.int64)
def _load(context, builder, sig, args):
    return memory.load(builder, *args, sig.args[0].dtype, sig.args[0].slot)


def _store(context, builder, sig, args):
    memory.store(builder, *args, sig.args[0].dtype, sig.args[0].slot)
    return context.get_dummy_value()


for _kind in NUMBA_TYPES.values():
    lower_builtin(operator.setitem, Ptr, types.int64, _kind)(_store)


def type_ptr(dtype: str):
    """The typing of `ptr_<dtype>(args, slot)`: a function from argument types to (signature, emitter)."""
    def define(table, slot):
        kind = Ptr(dtype, _literal(slot))

        def emit(context, builder, sig, args):
            return memory.bound_pointer(builder, args[0], dtype, kind.slot)
        return signature(kind, table, slot), emit
    return define


def type_size(table, slot):
    """The typing of `size(args, slot)`."""
    number = _literal(slot)

    def emit(context, builder, sig, args):
        return memory.table_entry(builder, args[0], number)
    return signature(types.int64, table, slot), emit


def type_advance(pointer, offset):
    """The typing of `advance(pointer, offset)`; the slot stays."""
    if not isinstance(pointer, Ptr):
        raise TypeError(f"moves a pointer, not {pointer}")

    def emit(context, builder, sig, args):
        return memory.moved(builder, *args)
    return signature(pointer, pointer, types.int64), emit


def _literal(slot) -> int:
    if not isinstance(slot, types.IntegerLiteral):
        raise TypeError("the slot of an argument is a literal integer")
    return slot.literal_value
