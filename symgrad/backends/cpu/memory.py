"""Loads and stores of kernel text in LLVM: argument slots, typed memory, alias scopes.

Every access is marked with LLVM's scoped alias metadata, one scope per slot, so that loops over several slots
vectorise without run-time overlap checks. Indices neither wrap around nor are they checked. A bool is a byte
in memory and one bit in a register.
"""

from __future__ import annotations

from llvmlite import ir

from .values import LLVM_TYPES

I64 = ir.IntType(64)
BYTE = ir.IntType(8)


def memory_type(dtype: str) -> ir.Type:
    """The LLVM type of one element in memory."""
    return BYTE if dtype == "bool" else LLVM_TYPES[dtype]


def table_entry(builder: ir.IRBuilder, table: ir.Value, slot: int) -> ir.Value:
    """The int64 in a slot of the argument table."""
    entry = builder.load(builder.gep(table, [I64(slot)], inbounds=True))
    # the table does not change while a kernel runs
    entry.set_metadata("invariant.load", builder.module.add_metadata([]))
    return entry


def bound_pointer(builder: ir.IRBuilder, table: ir.Value, dtype: str, slot: int) -> ir.Value:
    """The pointer whose address is in a slot of the argument table."""
    scope_of(builder.module, slot)
    return builder.inttoptr(table_entry(builder, table, slot), ir.PointerType(memory_type(dtype)))


def moved(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """The pointer `offset` elements further on."""
    return builder.gep(pointer, [offset], inbounds=True)


def load(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, dtype: str, slot: int) -> ir.Value:
    """The element at an index."""
    loaded = builder.load(moved(builder, pointer, index))
    mark_access(builder, loaded, slot)
    return builder.icmp_unsigned("!=", loaded, BYTE(0)) if dtype == "bool" else loaded


def store(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, value: ir.Value, dtype: str,
          slot: int) -> None:
    """Write the element at an index."""
    written = builder.zext(value, BYTE) if dtype == "bool" else value
    mark_access(builder, builder.store(written, moved(builder, pointer, index)), slot)


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
