"""`symgrad doctor`: what is installed, and which backends really compile and run here."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import symgrad as sg
import symgrad.tensor as T
from symgrad.cli import gpu
from symgrad.cli.text import seconds, table

BACKENDS = ("reference", "cpu", "cuda-emulated", "cuda")
PACKAGES = ("numpy", "numba", "llvmlite", "networkx", "safetensors", "pillow", "matplotlib",
            "scikit-learn")


def report() -> str:
    """A table: versions, processor, settings that matter, and each backend tried on a small function."""
    return table([
        ("python", platform.python_version(), platform.platform()),
        ("processor", f"{cores()} cores", processor()),
        *((name, installed(name)) for name in PACKAGES),
        *gpu.rows(),
        ("threads", sg.config.num_threads, "SYMGRAD_NUM_THREADS"),
        ("default", sg.config.backend, "SYMGRAD_BACKEND"),
        *((f"backend {name}", *tried(name)) for name in BACKENDS),
    ])


def installed(package: str) -> str:
    """The version of a package, or that it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def tried(backend: str) -> tuple[str, str]:
    """Whether a backend gets a gradient right, with the time it took or the reason it did not."""
    x = T.vector("x")
    start = time.perf_counter()
    try:
        f = sg.function([x], sg.grad(T.sum(T.relu(x) * x), x), backend=backend)
        value = f(np.array([-1, 2, 3], "float32"))
    except Exception as error:                        # whatever a broken installation raises is the answer
        return "no", " ".join(f"{type(error).__name__}: {error}".split())
    if not np.array_equal(value, np.array([0, 4, 6], "float32")):
        return "WRONG", f"the gradient of sum(relu(x) * x) at (-1, 2, 3) came out as {value}"
    return "works", f"first result after {seconds(time.perf_counter() - start)}"
