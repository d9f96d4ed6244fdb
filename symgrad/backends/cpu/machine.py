"""LLVM text to object code, and object code to addresses. Needs llvmlite alone, so a warm start stays light.

One engine holds every loaded object for the life of the process: addresses of kernels end up in plans and
argument tables, so code is never unloaded.
"""

from __future__ import annotations

import ctypes.util
from collections.abc import Callable, Iterable, Sequence
from ctypes import string_at
from functools import cache
from threading import RLock, local

import llvmlite
import llvmlite.binding as llvm
from llvmlite.binding import ffi

_lock = RLock()


@cache
def cpu() -> tuple[str, str]:
    """(name, features) of this machine's processor, as LLVM spells them."""
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def version() -> str:
    """The version of llvmlite, which fixes that of LLVM."""
    return llvmlite.__version__


@cache
def _initialized() -> llvm.Target:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # Objects call libm by name; Python itself may have been linked without it.
    libm = ctypes.util.find_library("m")
    if libm and not llvm.address_of_symbol("erff"):
        llvm.load_library_permanently(libm)
    return llvm.Target.from_triple(llvm.get_process_triple())


def _target_machine() -> llvm.TargetMachine:
    name, features = cpu()
    target = _initialized()
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(cpu=name, features=features, opt=2, reloc=reloc,
                                        codemodel="jitdefault", jit=True)


class _Compiler(local):
    """LLVM's context and target machine of one thread; two threads with their own may compile at once."""

    def __init__(self) -> None:
        self.machine, self.context = _target_machine(), llvm.create_context()


_compiler: Callable[[], _Compiler] = cache(_Compiler)


def _unlocked(name: str) -> Callable:
    """A function of llvmlite without its process-wide lock, which the two long calls below do not need."""
    function = getattr(ffi.lib, name)
    return getattr(function, "_cfn", function)


def _optimized(ir_text: str) -> llvm.ModuleRef:
    """The module of a text after LLVM's pipeline; loops are vectorised, straight lines are not."""
    module = llvm.parse_assembly(ir_text, _compiler().context)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.loop_interleaving = options.loop_unrolling = True
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(_compiler().machine, options)
    # a run uses the pass manager up
    _unlocked("LLVMPY_RunNewModulePassManager")(builder.getModulePassManager(), module, builder)
    return module


def object_code(ir_text: str) -> bytes:
    """The optimised object file of an LLVM module given as text. Raises RuntimeError for text LLVM rejects.

    Several threads may call this at once; LLVM runs without Python's lock.
    """
    module = _optimized(ir_text)
    with ffi.OutputString() as trouble:
        buffer = _unlocked("LLVMPY_TargetMachineEmitToMemory")(_compiler().machine, module, 1, trouble)
        if not buffer:
            raise RuntimeError(str(trouble))
    try:
        return string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def assembly(ir_text: str) -> tuple[str, str]:
    """(optimised LLVM text, machine assembly) of a module, for reading and for tests."""
    module = _optimized(ir_text)
    return str(module), _compiler().machine.emit_assembly(module)


@cache
def _engine() -> llvm.ExecutionEngine:
    _initialized()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())


def load(object_files: Iterable[bytes], symbols: Sequence[str]) -> list[int]:
    """The addresses of `symbols` in object files, now loaded, which may call each other and earlier ones.

    Raises RuntimeError if a symbol is missing.
    """
    with _lock:
        engine = _engine()
        for object_file in object_files:
            engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
        engine.finalize_object()
        addresses = [engine.get_function_address(symbol) for symbol in symbols]
    for symbol, address in zip(symbols, addresses):
        if not address:
            raise RuntimeError(f"no object file defines {symbol}")
    return addresses
