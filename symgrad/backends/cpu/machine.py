"""LLVM text to object code, and object code to addresses. Needs llvmlite alone, so a warm start stays light.

One engine holds every loaded object for the life of the process: addresses of kernels end up in plans and argument
tables, so code is never unloaded.
"""

from __future__ import annotations

import ctypes.util
from collections.abc import Sequence
from functools import cache
from threading import RLock

import llvmlite
import llvmlite.binding as llvm

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
    return target.create_target_machine(cpu=name, features=features, opt=2, reloc=reloc, codemodel="jitdefault", jit=True)


@cache
def _machine() -> llvm.TargetMachine:
    return _target_machine()


def _optimized(ir_text: str) -> llvm.ModuleRef:
    """The module of a text after LLVM's pipeline; loops are vectorised, straight lines are not."""
    module = llvm.parse_assembly(ir_text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.loop_interleaving = options.loop_unrolling = True
    options.slp_vectorization = False
    builder = llvm.create_pass_builder(_machine(), options)
    # a run uses the pass manager up
    builder.getModulePassManager().run(module, builder)
    return module


def object_code(ir_text: str) -> bytes:
    """The optimised object file of an LLVM module given as text. Raises RuntimeError for text LLVM rejects."""
    with _lock:
        return _machine().emit_object(_optimized(ir_text))


def assembly(ir_text: str) -> tuple[str, str]:
    """(optimised LLVM text, machine assembly) of a module, for reading and for tests."""
    with _lock:
        module = _optimized(ir_text)
        return str(module), _machine().emit_assembly(module)


@cache
def _engine() -> llvm.ExecutionEngine:
    _initialized()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())


def load(object_file: bytes, symbols: Sequence[str]) -> list[int]:
    """The addresses of `symbols` after loading an object file into this process. Raises RuntimeError if one is missing."""
    with _lock:
        engine = _engine()
        engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
        engine.finalize_object()
        addresses = [engine.get_function_address(symbol) for symbol in symbols]
    for symbol, address in zip(symbols, addresses):
        if not address:
            raise RuntimeError(f"the object file does not define {symbol}")
    return addresses
