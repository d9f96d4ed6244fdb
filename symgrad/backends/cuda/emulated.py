"""backend="cuda-emulated": the launches of the CUDA backend on a machine without a GPU, in host memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...graph.node import Node
from . import serial_threads, simt
from .build import Executable
from .device import Memory, Region
from .launch import CudaKernel

ALIGNMENT = 256         # bytes, as device memory is aligned


class EmulatedDevice:
    """Host memory, and kernels that run before the launch returns.

    Kernels whose threads work together run in lockstep, which finds races; `checks` makes all others do so too.
    """

    checks = False

    def prepare(self, kernels: Sequence[CudaKernel]) -> None:
        """Kernels are compiled when they first run."""

    def allocate(self, nbytes: int) -> Region:
        memory = np.empty(nbytes + ALIGNMENT, np.uint8)
        return Region(-(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT, nbytes, memory)

    def constant(self, array: np.ndarray) -> Region:
        return Region(array.ctypes.data, array.nbytes, array)

    def shared(self, node: Node) -> Memory:
        return Memory(node.payload.ctypes.data, node.dtype, node.payload.size)

    def upload(self, region: Region, array: np.ndarray) -> None:
        view(region, array.dtype.name, array.size)[...] = array.reshape(-1)

    def download(self, region: Region, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        return view(region, dtype, int(np.prod(shape))).reshape(shape).copy()

    def launch(self, kernel: CudaKernel, blocks: int, arguments: Sequence[Memory | int]) -> None:
        if kernel.has_barriers or self.checks:
            simt.run(kernel.text, arguments, blocks, kernel.block)
        else:
            table = [a if isinstance(a, int) else a.address for a in arguments]
            serial_threads.run(kernel.text, kernel.types, table, blocks, kernel.block)

    def synchronise(self) -> None:
        """Nothing runs behind the caller's back."""


def view(region: Region, dtype: str, elements: int) -> np.ndarray:
    """The start of a region as an array over the same memory."""
    start = region.address - region.owner.ctypes.data
    return region.owner[start:start + elements * np.dtype(dtype).itemsize].view(dtype)


def build(inputs: Sequence[Node], outputs: Sequence[Node]) -> Executable:
    """An executable for this graph."""
    executable = Executable(list(inputs), list(outputs), EmulatedDevice())
    executable.backend = "cuda-emulated"
    return executable
