"""What a micro-kernel is to the compiler: machine code of its own, which kernels call.

It is compiled once, however many kernels call it: micro-kernels are the larger part of most kernels, and the
layers of a network need the same few.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any

from llvmlite import ir

from .values import LLVM_TYPES, declared, empty_module

I64 = ir.IntType(64)

FACTORIES: dict[str, Callable[..., Micro]] = {}


@dataclass(frozen=True)
class Micro:
    """A micro-kernel of `pointers` pointers to `dtype` (others are cast by the body) and `sizes` int64 numbers.

    body(builder, *values) emits it. code: all that its machine code depends on; equal codes are one object.
    in_place: it is emitted where it is called, for it takes hardly longer than a call.
    """

    body: Callable[..., None]
    pointers: int
    sizes: int
    in_place: bool = False
    dtype: str = ""
    code: str = ""

    @cached_property
    def symbol(self) -> str:
        return f"symgrad_micro_{hashlib.sha256(self.code.encode()).hexdigest()[:32]}"

    def emit(self, builder: ir.IRBuilder, *values: ir.Value) -> None:
        """The call with these pointers and numbers, or what it would do."""
        if self.in_place:
            self.body(builder, *values)
        else:
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
            builder.call(declared(builder.module, kind, self.symbol), values)

    def llvm_text(self) -> str:
        """The LLVM assembly of the function `symbol`."""
        module = empty_module(self.symbol)
        kinds = [ir.PointerType(LLVM_TYPES[self.dtype])] * self.pointers + [I64] * self.sizes
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), self.symbol)
        function.attributes.add("nounwind")
        builder = ir.IRBuilder(function.append_basic_block())
        self.body(builder, *function.args)
        builder.ret_void()
        return str(module)


def factory(make: Callable[..., Micro]) -> Callable[..., Micro]:
    """Of a function from a dtype and numbers to a micro-kernel: the same, with results that know their code."""
    parameters = inspect.signature(make)

    @wraps(make)
    def made(*args: Any, **kwargs: Any) -> Micro:
        given = parameters.bind(*args, **kwargs)
        given.apply_defaults()
        numbers = ", ".join(f"{name}={value!r}" for name, value in given.arguments.items())
        return replace(make(*args, **kwargs), dtype=given.arguments["dtype"], code=f"{make.__name__}({numbers})")
    FACTORIES[make.__name__] = made
    return made


class KernelError(Exception):
    """A mistake in a kernel text, with its line."""

    def __init__(self, message: str, lineno: int | None = None) -> None:
        super().__init__(message)
        self.lineno = lineno


def named_by(header: Sequence[ast.stmt]) -> dict[str, Micro]:
    """The micro-kernels that the header lines `name = factory(...)` make, by name.

    Raises KernelError, with the line, for other lines and for what a factory refuses.
    """
    if header:
        from . import micro  # noqa: F401  (it fills FACTORIES; most kernels have no header)
    found: dict[str, Micro] = {}
    for line in header:
        if not (isinstance(line, ast.Assign) and isinstance(line.value, ast.Call) and isinstance(line.targets[0], ast.Name)):
            raise KernelError("a header line is `name = factory(...)`", line.lineno)
        try:
            found[line.targets[0].id] = eval(compile(ast.Expression(line.value), "<kernel>", "eval"), dict(FACTORIES))
        except Exception as error:
            raise KernelError(f"{type(error).__name__}: {error}", line.lineno) from error
    return found
