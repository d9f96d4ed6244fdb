"""Arrays that stay on the device: results with `outputs_on_device=True`, and values of shared variables between calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from .device import Device, Memory


class DeviceArray:
    """An array in the memory of a device, contiguous and not written again. `np.asarray` copies it to the host.

    Other libraries take it without a copy, through DLPack or the CUDA array interface.
    """

    __slots__ = ("memory", "shape", "device", "owner")

    def __init__(self, memory: Memory, shape: tuple[int, ...], device: Device, owner: Any = None) -> None:
        """owner: what keeps the memory alive."""
        self.memory, self.shape, self.device, self.owner = memory, shape, device, owner

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.memory.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.memory.elements

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the memory of a device is not that of the host: a copy is needed")
        array = self.device.read(self.memory).reshape(self.shape)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __float__(self) -> float:
        return float(np.asarray(self))

    def __repr__(self) -> str:
        return f"DeviceArray({self.memory.dtype}, {self.shape})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: who reads it waits for the stream it was made on."""
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.memory.address, False), "strides": None, "version": 3,
                "stream": self.device.stream_handle}

    def __dlpack__(self, **options: Any) -> Any:
        return self.device.exported(self).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device.exported(self).__dlpack_device__()


def is_on_device(value: Any) -> bool:
    """Whether a value lies in the memory of a GPU, by what it says of itself."""
    if isinstance(value, (np.ndarray, np.generic, int, float, list, tuple)):
        return False
    if isinstance(value, DeviceArray) or hasattr(value, "__cuda_array_interface__"):
        return True
    return hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) == 2
