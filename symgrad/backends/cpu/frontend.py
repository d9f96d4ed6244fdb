"""Kernel text to LLVM text, by Numba: bytecode to Numba IR, type inference and lowering, and nothing else.

Numba's own contexts load every NumPy, container and random-number implementation it has, and its pipeline
looks for closures, parallel loops and exceptions. Kernel text has none of those, so a pair of bare contexts
and the shortest pipeline that still infers types do; optimisation and machine code are left to `machine`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import compiler, errors, funcdesc, lowering, types, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.cpu import CPUContext
from numba.core.datamodel import models
from numba.core.imputils import lower_constant
from numba.core.typed_passes import IRLegalization, NopythonTypeInference, PreLowerStripPhis
from numba.core.typing.templates import builtin_registry as builtin_templates
from numba.core.typing.templates import signature
from numba.core.typing.typeof import typeof_impl
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode
from numba.cpython import builtins, numbers, rangeobj  # noqa: F401  (they register arithmetic and range)
from numba.extending import register_model

from symgrad.base.errors import close_match

from . import scalars
from .micro_code import Micro, named_by
from .pointers import ARGUMENTS, NUMBA_TYPES, Ptr, type_advance, type_ptr, type_size
from .values import LLVM_TYPES, empty_module

ENTRY = "kernel"
PYTHON_NAMES = {"range": range}
LITERAL = re.compile(r"""\blit_(\w+)\(\s*(?:"([^"()]*)"|'([^'()]*)'|([^"'()]+?))\s*\)""")


# ---- functions of kernel text as Numba sees them -----------------------------------------------------------

class Native(types.Callable, types.Opaque):
    """A function of kernel text: its own Numba type, which types a call and emits it without any registry."""

    def __init__(self, name: str, define: Callable[..., tuple[Any, Callable]]) -> None:
        self.define = define
        self.known: dict[tuple, tuple[Any, Callable]] = {}
        super().__init__(name)

    @property
    def key(self):
        return self.name, id(self.define)

    def get_call_type(self, context, args, kws):
        return self.definition(args)[0]

    def definition(self, args) -> tuple[Any, Callable]:
        """(signature, emitter) of a call with these argument types."""
        if args not in self.known:
            try:
                self.known[args] = self.define(*args)
            except TypeError as error:
                raise errors.TypingError(f"{self.name}: {error}") from None
        return self.known[args]

    def get_call_signatures(self):
        return (), False

    def get_impl_key(self, sig):
        return self


register_model(Native)(models.OpaqueModel)


@typeof_impl.register(Native)
def _type_of_native(value, _):
    return value


@lower_constant(Native)
def _native_constant(context, builder, kind, value):
    return context.get_dummy_value()


def _scalar_definition(function: scalars.Scalar):
    wanted = tuple(NUMBA_TYPES[dtype] for dtype in function.arguments)
    sig = signature(NUMBA_TYPES[function.result], *wanted)

    def emit(context, builder, sig, args):
        return function(builder, *args)

    def define(*args):
        found = tuple(types.unliteral(a) for a in args)
        if found != wanted:
            raise TypeError(f"takes ({', '.join(map(str, wanted))}), not ({', '.join(map(str, found))})")
        return sig, emit
    return define


@cache
def native(name: str) -> Native | None:
    """The function of kernel text with that name: pointers, sizes and scalar functions."""
    if name == "size":
        return Native(name, type_size)
    if name == "advance":
        return Native(name, type_advance)
    if name in ("min", "max"):
        return Native(name, _type_extremum(name))
    if name.startswith("ptr_") and name[4:] in LLVM_TYPES:
        return Native(name, type_ptr(name[4:]))
    function = scalars.scalar(name)
    return Native(name, _scalar_definition(function)) if function else None


def _type_extremum(name: str):
    """The typing of `min` and `max` of index values."""
    sign = "<" if name == "min" else ">"

    def emit(context, builder, sig, args):
        best = args[0]
        for other in args[1:]:
            best = builder.select(builder.icmp_signed(sign, best, other), best, other)
        return best

    def define(*args):
        if len(args) < 2 or not all(isinstance(a, types.Integer) for a in args):
            raise TypeError(f"compares two or more indices, not ({', '.join(map(str, args))})")
        return signature(types.int64, *[types.int64] * len(args)), emit
    return define


def _micro_kernel(name: str, kernel: Micro) -> Native:
    """A micro-kernel as a function of kernel text."""
    def emit(context, builder, sig, args):
        kernel.emit(builder, *args)
        return context.get_dummy_value()

    def define(*args):
        pointers, sizes = args[:kernel.pointers], args[kernel.pointers:]
        fits = len(args) == kernel.pointers + kernel.sizes and all(isinstance(a, Ptr) for a in pointers)
        if not fits or not all(isinstance(a, types.Integer) for a in sizes):
            raise TypeError(f"takes {kernel.pointers} pointers and {kernel.sizes} indices, not ({', '.join(map(str, args))})")
        return signature(types.none, *pointers, *[types.int64] * kernel.sizes), emit
    return Native(name, define)


# ---- contexts ----------------------------------------------------------------------------------------------

class _Typing(typing.Context):
    """Types int64 and float arithmetic, comparisons, range and the functions above; nothing else."""

    def __init__(self) -> None:
        self._resolved: dict = {}
        super().__init__()
        for template in filter(_is_plain, builtin_templates.functions):
            self.insert_function(template(self))
        for value, kind in builtin_templates.globals:
            if isinstance(kind, types.Function) and all(map(_is_plain, kind.templates)):
                self._add_global(value, kind)

    def _add_global(self, value: Any, kind: types.Function) -> None:
        known = self._lookup_global(value)
        if known is not None:                            # several templates make up one operator
            kind = known.augment(kind)
            self._remove_global(value)
        self._insert_global(value, kind)

    def refresh(self) -> None:
        """Nothing is registered later on; Numba's own refresh would load all of its implementations."""

    def resolve_value_type(self, val):
        """The type of a value that a kernel names; Numba's own search loads its containers on the way."""
        return self._lookup_global(range) if val is range else super().resolve_value_type(val)

    def resolve_function_type(self, func, args, kws):
        """The signature of a call; remembered, for kernels have few types and Numba would search anew."""
        key = func, args, tuple(kws)
        if key not in self._resolved:
            self._resolved[key] = super().resolve_function_type(func, args, kws)
        return self._resolved[key]


def _is_plain(template: type) -> bool:
    """Whether a typing rule is a plain table; rules that compile Python or emit code pull in all of Numba."""
    return not hasattr(template, "_overload_func") and not hasattr(template, "_definition_func")


class _Codegen:
    """What a target context asks of a code generator: empty modules and the target's data layout."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
        self.target_data = target.target_data

    def _create_empty_module(self, name: str) -> ir.Module:
        return empty_module(name)


class _Library:
    """Keeps the one module that lowering hands over."""

    def __init__(self, codegen: _Codegen) -> None:
        self.codegen, self.module = codegen, None

    def create_ir_module(self, name: str) -> ir.Module:
        return self.codegen._create_empty_module(name)

    def add_ir_module(self, module: ir.Module) -> None:
        self.module = module


class _Target(CPUContext):
    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = _Codegen()

    def load_additional_registries(self) -> None:
        """Only what the imports above have registered."""

    def post_lowering(self, module, library) -> None:
        """Nothing is linked in."""

    def get_function(self, fn, sig, _firstcall=True):
        if isinstance(fn, Native):
            emit = fn.definition(sig.args)[1]
            return lambda builder, args, loc=None: emit(self, builder, sig, args)
        return super().get_function(fn, sig, _firstcall)


@cache
def _typing() -> _Typing:
    return _Typing()


@cache
def _target() -> _Target:
    return _Target(_typing(), "cpu")


# ---- pipeline ----------------------------------------------------------------------------------------------

class _Lower(lowering.Lower):
    def emit_environment_object(self) -> None:
        """Kernels have no Python environment."""


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(LoweringPass):
    """Numba's native lowering without its statistics, for which it would wait until LLVM is idle."""

    _name = "kernel_lowering"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state) -> bool:
        description = funcdesc.PythonFunctionDescriptor.from_specialized_function(
            state.func_ir, state.typemap, state.return_type, state.calltypes, mangler=state.targetctx.mangler,
            inline=False, noalias=False, abi_tags=())
        with state.targetctx.push_code_library(state.library):
            lower = _Lower(state.targetctx, state.library, description, state.func_ir,
                           metadata=state.metadata)
            lower.lower()
        state["cr"] = compiler._LowerResult(description, lower.call_helper, cfunc=None, env=lower.env)
        return True


class _Pipeline(compiler.CompilerBase):
    """The shortest pipeline; enough while a name keeps one type throughout the kernel."""

    passes: tuple[type, ...] = (TranslateByteCode, FixupArgs, IRProcessing, NopythonTypeInference, _Lowering)

    def define_pipelines(self):
        manager = PassManager("kernel")
        for one in self.passes:
            manager.add_pass(one, one._name)
        manager.finalize()
        return [manager]


class _PipelineWithSSA(_Pipeline):
    """For kernels that use one name for values of several types."""

    passes = (TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA, NopythonTypeInference,
              PreLowerStripPhis,
              IRLegalization, _Lowering)


def _flags() -> compiler.Flags:
    flags: Any = compiler.Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model, flags.fastmath = "numpy", {"contract"}
    return flags


# ---- text --------------------------------------------------------------------------------------------------

def names(code: CodeType) -> set[str]:
    """Every name a piece of code and the functions in it look up."""
    inner = (names(c) for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*inner)


def literals(text: str) -> tuple[str, dict[str, Any]]:
    """The text with a name for each literal, and their values; Numba takes constants faster than calls."""
    values: dict[str, Any] = {}

    def replace(match: re.Match) -> str:
        dtype, written = match[1], match[2] or match[3] or match[4]
        if dtype not in LLVM_TYPES:
            raise NameError(f"no literal lit_{dtype}")
        name = f"literal_{len(values)}"
        values[name] = literal_value(dtype, written)
        return name
    return LITERAL.sub(replace, text), values


def literal_value(dtype: str, written: str) -> Any:
    """The NumPy scalar that `lit_<dtype>(written)` stands for, rounded once."""
    if dtype == "bool":
        return written not in ("False", "0")
    return np.dtype(dtype).type(written)


def _kernel_function(text: str) -> tuple[Callable, list[Micro]]:
    """The Python function that the text defines, with everything it names bound, and the micro-kernels it calls."""
    text, namespace = literals(text)
    *header, definition = ast.parse(text, "<kernel>").body
    micro_kernels = named_by(header)
    namespace.update((name, _micro_kernel(name, kernel)) for name, kernel in micro_kernels.items())
    code = compile(ast.Module([definition], []), "<kernel>", "exec")
    for name in names(code) - {"args", ENTRY} - set(namespace):
        namespace[name] = PYTHON_NAMES.get(name) or native(name)
        if namespace[name] is None:
            known = [*PYTHON_NAMES, *micro_kernels, *scalars.names(), "size", "advance", "ptr_float32"]
            raise NameError(f"the kernel names {name!r}, which does not exist{close_match(name, known)}")
    exec(code, namespace)
    return namespace[ENTRY], list(micro_kernels.values())


def _allow_contraction(function: ir.Function) -> None:
    """Let products of the kernel fuse into the reductions that add them; everything else keeps the roundings it spells."""
    for block in function.blocks:
        for instruction in block.instructions:
            if instruction.opname == "fmul" and not instruction.flags:
                instruction.flags = ["contract"]


def _add_entry(module: ir.Module, symbol: str) -> None:
    """Give the lowered function a plain C entry point `void symbol(int64_t *)` and hide it behind that."""
    inner = next(f for f in module.functions if not f.is_declaration and f.linkage == "")
    _allow_contraction(inner)
    inner.linkage = "internal"
    inner.attributes.add("alwaysinline")
    result_slot, error_slot, table = (argument.type for argument in inner.args)
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [table]), symbol)
    entry.attributes.add("nounwind")
    builder = ir.IRBuilder(entry.append_basic_block())
    slots = [builder.alloca(slot.pointee) for slot in (result_slot, error_slot)]
    builder.call(inner, [*slots, entry.args[0]])
    builder.ret_void()


def _lowered(function: Callable, pipeline: type[_Pipeline]) -> ir.Module:
    library = _Library(_target()._internal_codegen)
    compiler.compile_extra(_typing(), _target(), function, (ARGUMENTS,), types.none, _flags(), {},
                           library=library,
                           pipeline_class=pipeline)
    return library.module


@global_compiler_lock
def llvm_text(text: str, symbol: str) -> tuple[str, list[Micro]]:
    """(unoptimised LLVM assembly, micro-kernels) of a kernel text, with entry point `void symbol(int64_t *)`.

    Raises whatever Python or Numba raise for text that is not a kernel.
    """
    function, micro_kernels = _kernel_function(text)
    try:
        module = _lowered(function, _Pipeline)
    except errors.TypingError:
        module = _lowered(function, _PipelineWithSSA)
    _add_entry(module, symbol)
    return str(module), micro_kernels
