"""backend="cuda": a GPU through `cuda.core`. One device, one stream, the driver's memory pool, captured graphs.

Nothing here computes anything: what is launched, with which arguments and in which order, is decided in `steps`, and runs without a
GPU as well. This module is kept short for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from ...base.config import config
from ...base.errors import BackendError, four_parts
from ...base.origin import show, user_line
from ...graph.node import Node
from ...graph.shared import Shared
from . import blas, cubins
from .array import DeviceArray, is_on_device
from .build import Executable
from .compiler import INSTALL
from .device import Memory, Region
from .launch import CudaKernel
from .residents import Residents

WITHOUT = 'backend="cuda-emulated" runs the same kernels without a GPU, backend="cpu" is the fast one there'


class CudaDevice:
    """The present device of `cuda.core`, and one stream on which everything happens in order."""

    def __init__(self, core: Any, driver: Any, library: Callable[[], blas.Cublas | None] = lambda: None) -> None:
        """core, driver: the modules `cuda.core` and `cuda.bindings.driver`; library: finds cuBLAS. Tests have stand-ins for all three."""
        self.core, self.driver = core, driver
        self.device = core.Device()
        self.device.set_current()
        self.library = library()
        self.has_blas = self.library is not None
        self.capability: tuple[int, int] = tuple(self.device.compute_capability)
        self.stream = self.device.create_stream()
        self.target: Any = self.stream                              # what launches go to: the stream, or a graph being recorded
        self.handles: dict[Any, Any] = {}
        self.configurations: dict[tuple[int, int], Any] = {}
        self.constants: dict[int, tuple[np.ndarray, Region]] = {}
        self.launched: list[CudaKernel] = []                        # since everything was known to be well
        self.residents = Residents(self)

    @property
    def stream_handle(self) -> int:
        return int(self.stream.handle)

    # ---- kernels
    def prepare(self, kernels: Sequence[CudaKernel]) -> None:
        for kernel in kernels:
            if not isinstance(kernel, blas.Product) and self._key(kernel) not in self.handles:
                made = cubins.find(kernel, self.capability)
                self.handles[self._key(kernel)] = self.core.ObjectCode.from_cubin(made.code).get_kernel(made.entry)

    @staticmethod
    def _key(kernel: CudaKernel) -> Any:
        return kernel.text, kernel.types, kernel.block

    def launch(self, kernel: CudaKernel, blocks: int, arguments: Sequence[Memory | int]) -> None:
        if isinstance(kernel, blas.Product):
            self._multiply(kernel, [a.address for a in arguments if isinstance(a, Memory)])
            return
        shape = blocks, kernel.block
        if shape not in self.configurations:
            self.configurations[shape] = self.core.LaunchConfig(grid=blocks, block=kernel.block)
        # every parameter is 8 bytes: an address, or a size
        values = [a if isinstance(a, int) else a.address for a in arguments]
        self.launched.append(kernel)
        self._asked(lambda: self.core.launch(self.target, self.configurations[shape], self.handles[self._key(kernel)], *values))
        if config.check and self.target is self.stream:
            self.synchronise()

    def _multiply(self, product: blas.Product, addresses: Sequence[int]) -> None:
        assert self.library is not None
        stream = self.target.stream if self.target is not self.stream else self.stream
        self.launched.append(product)
        self._asked(lambda: self.library.multiply(product, *addresses, int(stream.handle)))
        if config.check and self.target is self.stream:
            self.synchronise()

    def recorded(self, actions: Sequence[Any]) -> Callable[[], None] | None:
        if not all(getattr(action, "is_recordable", False) for action in actions):
            return None
        builder = self.stream.create_graph_builder().begin_building()
        self.target = builder
        try:
            for action in actions:
                action(self)
        finally:
            self.target = self.stream
            builder.end_building()
        graph = builder.complete()
        kernels = [action.kernel for action in actions if hasattr(action, "kernel")]

        def replay() -> None:
            self.launched.extend(kernels)
            self._asked(lambda: graph.launch(self.stream))
        return replay

    # ---- memory
    def allocate(self, nbytes: int, purpose: str) -> Region:
        try:
            buffer = self.device.allocate(max(nbytes, 1), stream=self.stream)
        except Exception as error:
            if "OUT_OF_MEMORY" not in str(error).upper().replace(" ", "_"):
                raise self._failed(error) from error
            free, total = self._called("cuMemGetInfo")
            raise BackendError(four_parts(f"{nbytes / 2**20:.1f} MiB on {self.device.name} for {purpose}",
                                          f"{free / 2**20:.1f} MiB of {total / 2**20:.1f} MiB are free", show(user_line()),
                                          "smaller batches, sg.checkpoint, or delete functions that are not needed: each keeps its memory")) from error
        return Region(int(buffer.handle), nbytes, buffer)

    def constant(self, array: np.ndarray) -> Memory:
        if id(array) not in self.constants:
            region = self.allocate(array.nbytes, "a constant")
            self.constants[id(array)] = array, region               # the array too: its identity is the key
            self.write(region.part(0, array.dtype.name, array.size), array)
        return self.constants[id(array)][1].part(0, array.dtype.name, array.size)

    def write(self, memory: Memory, array: Any) -> None:
        if is_on_device(array):
            self._write_from_device(memory, array)
        elif memory.nbytes:
            host = np.ascontiguousarray(array, memory.dtype)
            self._called("cuMemcpyHtoDAsync", memory.address, host.ctypes.data, memory.nbytes, self.stream.handle)
            self.synchronise()                                      # the array is the caller's again when this returns

    def _write_from_device(self, memory: Memory, array: Any) -> None:
        view = self.core.utils.StridedMemoryView.from_any_interface(array, stream_ptr=self.stream_handle)
        if view.strides is not None and tuple(view.strides) != tuple(np.cumprod((1, *view.shape[:0:-1]))[::-1]):
            raise BackendError(four_parts("a contiguous array on the device", f"strides {view.strides} for shape {view.shape}", show(user_line()),
                                          "copy it first, with .contiguous() or its like"))
        self.copy(memory.address, int(view.ptr), memory.nbytes)

    def read(self, memory: Memory) -> np.ndarray:
        array = np.empty(memory.elements, memory.dtype)
        if memory.nbytes:
            self._called("cuMemcpyDtoHAsync", array.ctypes.data, memory.address, memory.nbytes, self.stream.handle)
        self.synchronise()
        return array

    def copy(self, target: int, source: int, nbytes: int) -> None:
        if nbytes:
            stream = self.target.stream if self.target is not self.stream else self.stream
            self._called("cuMemcpyDtoDAsync", target, source, nbytes, stream.handle)

    def exported(self, array: DeviceArray) -> Any:
        buffer = self.core.Buffer.from_handle(array.memory.address, array.nbytes, owner=array)
        return self.core.utils.StridedMemoryView.from_buffer(buffer, array.shape, dtype=array.dtype)

    # ---- errors
    def synchronise(self) -> None:
        self._asked(self.stream.sync)
        self.launched.clear()

    def _called(self, function: str, *arguments: Any) -> Any:
        """The results of a driver function. Raises BackendError for an error code."""
        code, *results = getattr(self.driver, function)(*arguments)
        if int(code):
            raise self._failed(RuntimeError(f"{function}: {getattr(code, 'name', code)}"))
        return results[0] if len(results) == 1 else tuple(results)

    def _asked(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> BackendError:
        """What a device reports, it reports late: the kernels that may be meant, each with the lines that made what it computes."""
        suspects, self.launched = self.launched[-8:], []
        places = [f"{kernel.name}: {kernel.what}, made at {kernel.stored[-1].where}" for kernel in suspects if kernel.stored]
        found = [f"{type(error).__name__}: {error}", *(places if len(places) == 1 else ["since it was last well:", *places] if places else [])]
        exact = config.check or len(places) == 1
        hint = "the program must be started again" if exact else "SYMGRAD_CHECK=1 waits for every kernel, and so says which one it is"
        return BackendError(four_parts(f"a call on {self.device.name}", found, show(user_line()), hint))


@cache
def device() -> CudaDevice:
    """The device of this process. Raises BackendError that says what is missing."""
    try:
        from cuda import core
        from cuda.bindings import driver
        from cuda.core import utils  # noqa: F401
    except ImportError as error:
        raise BackendError(four_parts('backend="cuda"', f"{error}", show(user_line()), f"{INSTALL}; {WITHOUT}")) from None
    try:
        return CudaDevice(core, driver, blas.find)
    except Exception as error:
        raise BackendError(four_parts('backend="cuda"', f"no usable NVIDIA GPU: {type(error).__name__}: {error}", show(user_line()),
                                      f"nvidia-smi shows whether the driver works; {WITHOUT}")) from None


def build(inputs: Sequence[Node], outputs: Sequence[Node], updates: Mapping[int, Shared] = MappingProxyType({})) -> Executable:
    """An executable for this graph. updates: the variables that outputs, by position, are the next values of."""
    return Executable(list(inputs), list(outputs), device(), updates)


build_in_place = build
