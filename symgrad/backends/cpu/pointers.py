"""Typed pointers of kernel text: Numba's view of `ptr_<dtype>(args, slot)`, `advance`, `p[i]` and `p[i] = v`.

A pointer's type holds the slot it came from. Every access is marked with LLVM's scoped alias metadata, one scope per
slot, so that loops over several slots vectorise without run-time overlap checks. Indices neither wrap around nor are
they checked. A bool is a byte in memory and one bit in a register.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import register_model

from .values import LLVM_TYPES

NUMBA_TYPES = {dtype: types.boolean if dtype == "bool" else getattr(types, dtype) for dtype in LLVM_TYPES}
ARGUMENTS = types.CPointer(types.int64)


class Ptr(types.Type):
    """A pointer to elements of `dtype` within the memory of argument slot `slot`."""

    def __init__(self, dtype: str, slot: int) -> None:
        self.dtype, self.slot = dtype, slot
        super().__init__(f"Ptr({dtype}, {slot})")


def memory_type(dtype: str) -> ir.Type:
    """The LLVM type of one element in memory."""
    return ir.IntType(8) if dtype == "bool" else LLVM_TYPES[dtype]


@register_model(Ptr)
class _PtrModel(models.PrimitiveModel):
    def __init__(self, manager, kind: Ptr) -> None:
        super().__init__(manager, kind, ir.PointerType(memory_type(kind.dtype)))


# ---- alias metadata ------------------------------------------------------------------------------------------------

def scope_of(module: ir.Module, slot: int) -> ir.MDValue:
    """The alias scope of a slot; the module remembers those it has."""
    scopes = vars(module).setdefault("alias_scopes", {})
    if slot not in scopes:
        domain = module.add_metadata([ir.MetaDataString(module, "kernel arguments")])
        scopes[slot] = module.add_metadata([ir.MetaDataString(module, f"slot {slot}"), domain])
    return scopes[slot]


def mark_access(builder: ir.IRBuilder, instruction: ir.Instruction, slot: int) -> None:
    """Say that a load or store touches the memory of `slot` and of no other slot bound so far."""
    module = builder.module
    instruction.set_metadata("alias.scope", module.add_metadata([scope_of(module, slot)]))
    others = [scope for other, scope in module.alias_scopes.items() if other != slot]
    if others:
        instruction.set_metadata("noalias", module.add_metadata(others))


# ---- loads and stores ----------------------------------------------------------------------------------------------

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
        if isinstance(pointer, Ptr) and isinstance(index, types.Integer) and value == NUMBA_TYPES[pointer.dtype]:
            return signature(types.none, pointer, types.int64, value)
        return None


@lower_builtin(operator.getitem, Ptr, types.int64)
def _load(context, builder, sig, args):
    pointer, index = args
    loaded = builder.load(builder.gep(pointer, [index], inbounds=True))
    mark_access(builder, loaded, sig.args[0].slot)
    return builder.icmp_unsigned("!=", loaded, loaded.type(0)) if sig.args[0].dtype == "bool" else loaded


def _store(context, builder, sig, args):
    pointer, index, value = args
    if sig.args[0].dtype == "bool":
        value = builder.zext(value, ir.IntType(8))
    stored = builder.store(value, builder.gep(pointer, [index], inbounds=True))
    mark_access(builder, stored, sig.args[0].slot)
    return context.get_dummy_value()


for _kind in NUMBA_TYPES.values():
    lower_builtin(operator.setitem, Ptr, types.int64, _kind)(_store)


# ---- the functions that make pointers -------------------------------------------------------------------------------

def _table_entry(builder: ir.IRBuilder, table: ir.Value, slot: int) -> ir.Value:
    entry = builder.load(builder.gep(table, [ir.IntType(64)(slot)], inbounds=True))
    # the table does not change while a kernel runs
    entry.set_metadata("invariant.load", builder.module.add_metadata([]))
    return entry


def type_ptr(dtype: str):
    """The typing of `ptr_<dtype>(args, slot)`: (signature, emitter)."""
    def define(table, slot):
        kind = Ptr(dtype, _literal(slot))

        def emit(context, builder, sig, args):
            scope_of(builder.module, kind.slot)
            address = _table_entry(builder, args[0], kind.slot)
            return builder.inttoptr(address, ir.PointerType(memory_type(dtype)))
        return signature(kind, table, slot), emit
    return define


def type_size(table, slot):
    """The typing of `size(args, slot)`."""
    number = _literal(slot)

    def emit(context, builder, sig, args):
        return _table_entry(builder, args[0], number)
    return signature(types.int64, table, slot), emit


def type_advance(pointer, offset):
    """The typing of `advance(pointer, offset)`; the slot stays."""
    if not isinstance(pointer, Ptr):
        raise TypeError(f"advance() moves a pointer, not {pointer}")

    def emit(context, builder, sig, args):
        return builder.gep(args[0], [args[1]], inbounds=True)
    return signature(pointer, pointer, types.int64), emit


def _literal(slot) -> int:
    if not isinstance(slot, types.IntegerLiteral):
        raise TypeError("the slot of an argument is a literal integer")
    return slot.literal_value
