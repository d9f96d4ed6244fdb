"""What a plan needs of a device. `emulated` and `runtime` have one each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...base.dtypes import itemsize
from .launch import CudaKernel


@dataclass(frozen=True)
class Memory:
    """Elements in device memory, as a kernel is given them."""

    address: int
    dtype: str
    elements: int

    @property
    def nbytes(self) -> int:
        return itemsize(self.dtype) * self.elements


@dataclass(frozen=True)
class Region:
    """A block of device memory, alive as long as this. `owner` is what keeps it so."""

    address: int
    nbytes: int
    owner: Any

    def part(self, offset: int, dtype: str, elements: int) -> Memory:
        """Elements that lie `offset` bytes into it."""
        return Memory(self.address + offset, dtype, elements)


class Device(Protocol):
    """Memory, copies and launches, all in order."""

    def prepare(self, kernels: Sequence[CudaKernel]) -> None:
        """Compile what is going to be launched."""

    def allocate(self, nbytes: int) -> Region: ...

    def constant(self, array: np.ndarray) -> Region:
        """An array that never changes."""

    def shared(self, node: Any) -> Memory:
        """The present value of a shared variable."""

    def upload(self, region: Region, array: np.ndarray) -> None: ...

    def download(self, region: Region, dtype: str, shape: tuple[int, ...]) -> np.ndarray: ...

    def launch(self, kernel: CudaKernel, blocks: int, arguments: Sequence[Memory | int]) -> None: ...

    def synchronise(self) -> None:
        """Wait until everything that was launched has ended. Raises BackendError if something failed."""
