"""Machine code of kernels, kept on disk by everything it depends on. A machine with filled cache needs no compiler."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..cpu import toolchain
from . import compiler
from .compiler import Cubin
from .launch import CudaKernel

# what the machine code of a kernel depends on besides its text
SOURCES = ("compiler.py", "dialect.py", "scalars.py", "../cpu/elementary.py", "../cpu/scalars.py", "../cpu/values.py")
PACKAGES = ("numba-cuda", "numba", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink")
REPORT = ("entry", "registers", "stack", "spilled", "shared", "float64_operations")


def find(kernel: CudaKernel, capability: tuple[int, int]) -> Cubin:
    """The machine code of a kernel, from disk or compiled now. Raises what `compile_kernel` does."""
    key = hashlib.sha256("\0".join((kernel.text, *kernel.types, str(kernel.block), str(capability), *_environment())).encode()).hexdigest()
    stored = toolchain.object_cache().load(key)
    if stored is not None:
        report, _, code = stored.partition(b"\n")
        return Cubin(code=code, **json.loads(report))
    made = compiler.compile_kernel(kernel, capability)
    report = json.dumps({name: getattr(made, name) for name in REPORT}).encode()
    toolchain.object_cache().store(key, report + b"\n" + made.code)
    return made


@cache
def _environment() -> tuple[str, ...]:
    """Versions of the compiler's parts, and our own source."""
    here = Path(__file__).parent
    source = hashlib.sha256(b"\0".join((here / name).read_bytes() for name in SOURCES)).hexdigest()
    return (*(_version(name) for name in PACKAGES), source)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
