"""Values of shared variables on a device: brought there when they change on the host, and changed there by updates."""

from __future__ import annotations

import weakref

from ...graph.shared import Shared
from .array import DeviceArray
from .device import Device, Memory, Region


class Residents:
    """Where each shared variable lies on one device, and which of its values is there."""

    def __init__(self, device: Device) -> None:
        self.device = device
        # by serial number: `==` of variables is a variable
        self.regions: dict[int, Region] = {}
        self.versions: dict[int, int] = {}

    def memory(self, variable: Shared) -> Memory:
        """The place of its value; it never moves."""
        if variable.serial not in self.regions:
            weakref.finalize(variable, self._forget, variable.serial)
            self.regions[variable.serial] = self.device.allocate(variable._type.nbytes, f"the shared variable {variable.name or variable._type}")
        return self.regions[variable.serial].part(0, variable.dtype, variable._type.size)

    def _forget(self, serial: int) -> None:
        self.regions.pop(serial, None)
        self.versions.pop(serial, None)

    def refresh(self, variable: Shared) -> None:
        """Bring the value to the device, unless it is there. One that others may write to is brought at every call."""
        if variable.lent or self.versions.get(variable.serial) != variable.version:
            self.device.write(self.memory(variable), variable.payload)
            self.versions[variable.serial] = variable.version

    def update(self, variable: Shared, value: Memory) -> DeviceArray:
        """Write a new value over the old one, on the device; the variable is told of it afterwards, by `replace`."""
        target = self.memory(variable)
        self.device.copy(target.address, value.address, target.nbytes)
        self.versions[variable.serial] = variable.version + 1
        return DeviceArray(target, tuple(variable.dims), self.device, self.regions[variable.serial])
