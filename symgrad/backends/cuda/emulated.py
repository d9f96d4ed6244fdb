"""backend="cuda-emulated": the launches of the CUDA backend on a machine without a GPU, in host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from ...graph.node import Node
from ...graph.shared import Shared
from . import serial_threads, simt
from .array import DeviceArray
from .build import Executable
from .device import Memory, Region
from .launch import CudaKernel
from .residents import Residents

ALIGNMENT = 256         # bytes, as device memory is aligned


class EmulatedDevice:
    """Host memory, and kernels that run before the launch returns.

    Kernels whose threads work together run in lockstep, which finds races; `checks` makes all others do so too.
    """

    checks = False

    def prepare(self, kernels: Sequence[CudaKernel]) -> None:
        """Kernels are compiled when they first run."""

    has_blas = False
    stream_handle = None

    def __init__(self) -> None:
        self.residents = Residents(self)
        self.kept: list[np.ndarray] = []

    def allocate(self, nbytes: int, purpose: str) -> Region:
        memory = np.empty(nbytes + ALIGNMENT, np.uint8)
        return Region(-(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT, nbytes, memory)

    def constant(self, array: np.ndarray) -> Memory:
        self.kept.append(array)
        return Memory(array.ctypes.data, array.dtype.name, array.size)

    def write(self, memory: Memory, array: np.ndarray) -> None:
        ctypes.memmove(memory.address, np.ascontiguousarray(array, memory.dtype).ctypes.data, memory.nbytes)

    def read(self, memory: Memory) -> np.ndarray:
        array = np.empty(memory.elements, memory.dtype)
        ctypes.memmove(array.ctypes.data, memory.address, memory.nbytes)
        return array

    def copy(self, target: int, source: int, nbytes: int) -> None:
        if abs(target - source) < nbytes:
            raise ValueError("a device copies between places that do not overlap")
        ctypes.memmove(target, source, nbytes)

    def launch(self, kernel: CudaKernel, blocks: int, arguments: Sequence[Memory | int]) -> None:
        if kernel.has_barriers or self.checks:
            simt.run(kernel.text, arguments, blocks, kernel.block)
        else:
            table = [a if isinstance(a, int) else a.address for a in arguments]
            serial_threads.run(kernel.text, kernel.types, table, blocks, kernel.block)

    def recorded(self, actions: Sequence[Any]) -> None:
        """Nothing: a launch costs the host what the kernel costs."""

    def synchronise(self) -> None:
        """Nothing runs behind the caller's back."""

    def exported(self, array: DeviceArray) -> np.ndarray:
        return np.asarray(array)


@cache
def device() -> EmulatedDevice:
    """The one emulated device of this process."""
    return EmulatedDevice()


def build(inputs: Sequence[Node], outputs: Sequence[Node], updates: Mapping[int, Shared] = MappingProxyType({})) -> Executable:
    """An executable for this graph. updates: the variables that outputs, by position, are the next values of."""
    return Executable(list(inputs), list(outputs), device(), updates)


build_in_place = build
