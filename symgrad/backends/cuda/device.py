"""What a plan needs of a device. `emulated` and `runtime` have one each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    has_blas: bool                          # matrix products may be launches of the library

    def prepare(self, kernels: Sequence[CudaKernel]) -> None:
        """Compile what is going to be launched."""

    def allocate(self, nbytes: int, purpose: str) -> Region:
        """New memory. Raises BackendError, with the purpose, when there is not enough."""

    def constant(self, array: np.ndarray) -> Memory:
        """An array that never changes; it stays as long as the device."""

    @property
    def residents(self) -> Any:
        """The values of shared variables that are here."""

    def write(self, memory: Memory, array: np.ndarray) -> None:
        """Elements from the host."""

    def read(self, memory: Memory) -> np.ndarray:
        """Elements as a new flat array on the host, after everything that was launched before."""

    def copy(self, target: int, source: int, nbytes: int) -> None: ...

    def launch(self, kernel: CudaKernel, blocks: int, arguments: Sequence[Memory | int]) -> None: ...

    def recorded(self, actions: Sequence[Any]) -> Callable[[], None] | None:
        """A replay of launches and copies that costs the host one call; None where there is no such thing."""

    def synchronise(self) -> None:
        """Wait until everything that was launched has ended. Raises BackendError if something failed."""

    @property
    def stream_handle(self) -> int | None:
        """The stream on which everything happens, for those who wait for it."""

    def exported(self, array: Any) -> Any:
        """An object through which other libraries read a device array."""
