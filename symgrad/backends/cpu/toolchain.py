"""Kernel text to machine code: a memory of this process, object files on disk, and the compiler behind both.

Importing this module loads neither Numba nor llvmlite. Kernels need llvmlite; Numba is loaded only if it is
the front end and a kernel is not on disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from symgrad.base.config import config
from symgrad.base.errors import CompileError
from symgrad.base.progress import Progress

from .objects import MIB, ObjectCache, default_folder

if TYPE_CHECKING:
    from .micro_code import Micro

# What the machine code of a kernel depends on besides its text.
COMPILER_SOURCES = ("elementary.py", "frontend.py", "machine.py", "memory.py", "micro.py", "micro_code.py", "pointers.py",
                    "reader.py", "scalars.py", "values.py")
LINE = re.compile(r'<kernel>"?, line (\d+)|<kernel> \((\d+)\)|<kernel>:(\d+)')
NOISE = ("Failed in ", "During:", "File ", "<source missing", "This is not usually", "To see",
         "For more information")
ANSI = re.compile(r"\x1b\[[0-9;]*m")

_lock = RLock()
_kernels: dict[tuple[str, str], Kernel] = {}
_caches: dict[Path, ObjectCache] = {}
_present: set[str] = set()                # keys of the object files that this process has loaded


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
        front_end = config.front_end
        missing = {text: name for text, name in kernels if (front_end, text) not in _kernels}
        if missing:
            _kernels.update(((front_end, kernel.text), kernel) for kernel in _loaded(missing))
        return [_kernels[front_end, text] for text, _ in kernels]


def compile_llvm(ir_text: str, symbols: Sequence[str]) -> list[int]:
    """The addresses of `symbols` in a module given as LLVM text, with the same caches."""
    from . import machine
    key = _key(ir_text)
    with _lock:
        code = object_cache().load(key)
        if code is None:
            code = machine.object_code(ir_text)
            object_cache().store(key, code)
        return machine.load([code], symbols)


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
    return machine.assembly(_read(text, "kernel_entry")[0])


# ---- from text to address ----------------------------------------------------------------------------------

def _loaded(missing: Mapping[str, str]) -> list[Kernel]:
    """The kernels {text: name}, from disk or compiled, in this process."""
    from . import machine
    parts: dict[str, bytes | Future[bytes]] = {}
    with Progress("compiling kernels", 2 * len(missing)) as progress, ThreadPoolExecutor(config.num_threads) as llvm:
        cached = [_begin(text, name, parts, llvm) for text, name in progress.over(missing.items())]
        objects = [part if isinstance(part, bytes) else part.result() for part in progress.over(parts.values(), len(missing))]
    addresses = machine.load(objects, [_symbol(_kernel_key(text)) for text in missing])
    _present.update(parts)
    return [Kernel(name, text, address, was_cached)
            for (text, name), address, was_cached in zip(missing.items(), addresses, cached)]


def _begin(text: str, name: str, parts: dict[str, bytes | Future[bytes]], llvm: Executor) -> bool:
    """Add the object files of a kernel to `parts`, by key: from disk, or on their way. Returns whether from disk."""
    key = _kernel_key(text)
    if found := _from_disk(key):
        parts.update(found)
        return True
    ir_text, micro_kernels = _explained(text, name, lambda: _read(text, _symbol(key)))
    needs = {_key(kernel.code): kernel for kernel in micro_kernels}
    for need, kernel in needs.items():
        if need not in _present and need not in parts:
            parts[need] = _from_disk(need).get(need) or llvm.submit(_compiled, need, kernel.llvm_text(), (), text, name)
    parts[key] = llvm.submit(_compiled, key, ir_text, tuple(needs), text, name)
    return False


def _read(text: str, symbol: str) -> tuple[str, list[Micro]]:
    """A kernel text as LLVM text, and the micro-kernels it calls, by the front end in use."""
    # each is imported only where it is used: one needs Numba, and neither is needed for a kernel on disk
    if config.front_end == "reader":
        from . import reader
        return reader.llvm_text(text, symbol)
    from . import frontend
    return frontend.llvm_text(text, symbol)


def _compiled(key: str, ir_text: str, needs: Sequence[str], text: str, name: str) -> bytes:
    """The object file of an LLVM text, now also on disk, below the keys of the objects that it needs."""
    from . import machine
    code = _explained(text, name, lambda: machine.object_code(ir_text))
    object_cache().store(key, " ".join(needs).encode() + b"\n" + code)
    return code


def _from_disk(key: str) -> dict[str, bytes]:
    """The object files of a key, those it needs first, without what this process has; empty if one is missing."""
    content = object_cache().load(key)
    if content is None:
        return {}
    needs, _, code = content.partition(b"\n")
    found: dict[str, bytes] = {}
    for need in needs.decode().split():
        if need not in _present:
            other = object_cache().load(need)
            if other is None:
                return {}
            found[need] = other.partition(b"\n")[2]
    return {**found, key: code}


def _symbol(key: str) -> str:
    return f"symgrad_{key[:32]}"


def _explained(text: str, name: str, step: Callable[[], Any]) -> Any:
    """The result of a step; what goes wrong in it becomes a CompileError."""
    try:
        return step()
    except Exception as error:
        # The frames below are the compiler's own; the numbered text says more.
        raise CompileError(explanation(text, name, error)) from error.with_traceback(None)


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

def _key(*source: str) -> str:
    """The cache key of what is compiled: everything its machine code depends on, hashed."""
    return hashlib.sha256("\0".join((*source, *_environment())).encode()).hexdigest()


def _kernel_key(text: str) -> str:
    return _key(text, config.front_end)


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
