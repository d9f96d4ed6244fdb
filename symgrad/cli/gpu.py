"""What `symgrad doctor` says of GPUs: the device, its driver, the compiler and the matrix library, and what mends what is missing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

PARTS = (("numba-cuda", "compiles kernels", "cuda"), ("nvidia-nvvm", "compiles kernels", "cuda"), ("nvidia-nvjitlink", "links kernels", "cuda"),
         ("cuda-core", "launches kernels", "cuda"), ("cuda-bindings", "launches kernels", "cuda"),
         ("nvidia-cublas", "matrix products, which kernels of our own do without it", "cuda-blas"))


def rows() -> list[tuple[str, ...]]:
    """One row per part: name, what was found, what it is for or how to get it."""
    return [("gpu", *device()), *((name, *part(name, purpose, extra)) for name, purpose, extra in PARTS)]


def part(name: str, purpose: str, extra: str) -> tuple[str, str]:
    """The version of a package, or how to install it."""
    try:
        return version(name), purpose
    except PackageNotFoundError:
        return "not installed", f"{purpose}: pip install 'symgrad[{extra}]'"


def device() -> tuple[str, str]:
    """The present device and its driver, or why there is none."""
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None or find_spec("cuda.core") is None:
        return "unknown", "pip install 'symgrad[cuda]' to look for one"
    from cuda.bindings import driver
    from cuda.core import Device
    try:
        found = Device()
        code, number = driver.cuDriverGetVersion()
        major, minor = found.compute_capability
        return found.name, f"sm_{major}{minor}, driver for CUDA {number // 1000}.{number % 1000 // 10}" if not int(code) else "driver unknown"
    except Exception as error:                  # a driver that is missing or broken says so in many ways
        return "none", " ".join(f"{type(error).__name__}: {error}".split())
