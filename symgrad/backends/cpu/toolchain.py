"""Kernel text to machine code: a memory of this process, object files on disk, and the compiler behind both.

Importing this module loads neither Numba nor llvmlite. A kernel found on disk needs llvmlite; only one that
is not brings in Numba.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from threading import RLock
from typing import Any

from symgrad.base.config import config
from symgrad.base.errors import CompileError

from .objects import MIB, ObjectCache, default_folder

# What reads kernel text: Numba, or a reader of just this dialect that is several times faster and needs no
# Numba.
FRONT_ENDS = ("numba", "reader")
FRONT_END = os.environ.get("SYMGRAD_FRONT_END", "numba")

# What the machine code of a kernel depends on besides its text.
COMPILER_SOURCES = ("elementary.py", "frontend.py", "machine.py", "memory.py", "micro.py", "pointers.py",
                    "reader.py",
                    "scalars.py", "values.py")
LINE = re.compile(r'<kernel>"?, line (\d+)|<kernel> \((\d+)\)|<kernel>:(\d+)')
NOISE = ("Failed in ", "During:", "File ", "<source missing", "This is not usually", "To see",
         "For more information")
ANSI = re.compile(r"\x1b\[[0-9;]*m")

_lock = RLock()
_kernels: dict[tuple[str, str], Kernel] = {}
_caches: dict[Path, ObjectCache] = {}


@dataclass(frozen=True)
class Kernel:
    """A kernel in this process: the address of a C function `void (int64_t *args)`; cached: from disk."""

    name: str
    text: str
    address: int
    cached: bool


def compile_text(text: str, name: str = "kernel") -> Kernel:
    """The kernel of a text, from memory, from disk or compiled now.

    Raises CompileError, with the numbered text and the cause, if the text is not a valid kernel.
    """
    return compile_texts([(text, name)])[0]


def compile_texts(kernels: Sequence[tuple[str, str]]) -> list[Kernel]:
    """The kernels of several (text, name) pairs; LLVM compiles in other threads while this one reads.

    Raises CompileError for a text that is not a valid kernel, as `compile_text` does.
    """
    with _lock:
        missing = {text: name for text, name in kernels if (FRONT_END, text) not in _kernels}
        if len(missing) > 1:
            with ThreadPoolExecutor(config.num_threads) as llvm:
                waiting = [llvm.submit(_finished, _begun(text, name)) for text, name in missing.items()]
                done = [future.result() for future in waiting]
        else:
            done = [_finished(_begun(text, name)) for text, name in missing.items()]
        _kernels.update(((FRONT_END, kernel.text), kernel) for kernel in done)
        return [_kernels[FRONT_END, text] for text, _ in kernels]


def compile_llvm(ir_text: str, symbols: Sequence[str]) -> list[int]:
    """The addresses of `symbols` in a module given as LLVM text, with the same caches."""
    from . import machine
    key = _key(ir_text)
    with _lock:
        code = object_cache().load(key)
        if code is None:
            code = machine.object_code(ir_text)
            object_cache().store(key, code)
        return machine.load(code, symbols)


def object_cache() -> ObjectCache:
    """The cache on disk, as the settings have it now."""
    folder = default_folder()
    if folder not in _caches:
        _caches[folder] = ObjectCache(folder)
    _caches[folder].limit = config.cache_size_mib * MIB
    return _caches[folder]


def assembly(text: str) -> tuple[str, str]:
    """(optimised LLVM text, machine assembly) of a kernel text, compiled afresh; for eyes and tests."""
    from . import machine
    return machine.assembly(_llvm_text(text, "kernel_entry"))


# ---- from text to address ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Begun:
    """A kernel half way: the object code that the disk had, or else its LLVM text."""

    name: str
    text: str
    key: str
    code: bytes | None
    ir_text: str = ""

    @property
    def symbol(self) -> str:
        return f"symgrad_{self.key[:32]}"


def _begun(text: str, name: str) -> _Begun:
    """What Python has to do for a kernel: find it on disk, or bring it to LLVM text."""
    key = _key(text)
    begun = _Begun(name, text, key, object_cache().load(key))
    if begun.code is not None:
        return begun
    return replace(begun, ir_text=_explained(begun, lambda: _llvm_text(text, begun.symbol)))


def _llvm_text(text: str, symbol: str) -> str:
    """A kernel text as LLVM text, by the front end in use."""
    # each is imported only where it is used: one needs Numba, and neither is needed for a kernel on disk
    if FRONT_END == "reader":
        from . import reader
        return reader.llvm_text(text, symbol)
    from . import frontend
    return frontend.llvm_text(text, symbol)


def _finished(begun: _Begun) -> Kernel:
    """What LLVM has to do for a kernel: compile it, unless it came from disk, and load it."""
    from . import machine
    code = begun.code
    if code is None:
        code = _explained(begun, lambda: machine.object_code(begun.ir_text))
        object_cache().store(begun.key, code)
    return Kernel(begun.name, begun.text, machine.load(code, [begun.symbol])[0], begun.code is not None)


def _explained(begun: _Begun, step: Callable[[], Any]) -> Any:
    """The result of a step; what goes wrong in it becomes a CompileError."""
    try:
        return step()
    except Exception as error:
        # The frames below are the compiler's own; the numbered text says more.
        raise CompileError(explanation(begun.text, begun.name, error)) from error.with_traceback(None)


def explanation(text: str, name: str, error: Exception) -> str:
    """The message for a kernel that does not compile: what, where, the cause and the numbered text."""
    cause = ANSI.sub("", str(error)).strip() or type(error).__name__
    line = getattr(error, "lineno", None) or _line_of(error, cause)
    place = f", line {line}" if line else ""
    lines = enumerate(text.splitlines(), 1)
    numbered = "\n".join(f"{'>' if k == line else ' '}{k:4d}  {content}" for k, content in lines)
    return f"kernel {name!r} does not compile{place}\n{_first_cause(cause)}\n{numbered}"


def _line_of(error: Exception, cause: str) -> int | None:
    """The line of the text that an error speaks of; the last one named is the innermost."""
    location = getattr(getattr(error, "loc", None), "line", None)
    named = [int(next(filter(None, groups))) for groups in LINE.findall(cause)]
    return named[-1] if named else location


def _first_cause(cause: str) -> str:
    """What a compiler's message says of the text, indented, without its advice and repetitions."""
    kept = []
    for line in map(str.strip, cause.splitlines()):
        if line.startswith("There are "):                # what follows lists every candidate of an overload
            break
        if line and line not in kept and not line.startswith(NOISE):
            kept.append(line)
    return "\n".join(f"  {line}" for line in kept[:12])


# ---- keys --------------------------------------------------------------------------------------------------

def _key(text: str) -> str:
    """The cache key of a text: everything its machine code depends on, hashed."""
    return hashlib.sha256("\0".join((text, FRONT_END, *_environment())).encode()).hexdigest()


@cache
def _environment() -> tuple[str, ...]:
    """Processor, compiler versions and the compiler's own source."""
    from . import machine
    here = Path(__file__).parent
    source = hashlib.sha256(b"\0".join((here / name).read_bytes() for name in COMPILER_SOURCES)).hexdigest()
    try:
        numba = installed_version("numba")
    except PackageNotFoundError:
        numba = "none"
    return (*machine.cpu(), machine.version(), numba, source)
