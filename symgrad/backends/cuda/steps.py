"""A plan with all sizes known, as the list of what a device does: launches and copies, the steps of loops written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base import poly
from ...base.dtypes import itemsize
from ...graph.node import CONSTANT, Node
from ...schedule.memory import ALIGNMENT
from ...schedule.plan import Inside, Loop, Move, Plan
from .device import Device, Memory
from .launch import CudaKernel


@dataclass(frozen=True)
class Run:
    """A kernel, in `blocks` blocks, on memory and sizes."""

    is_recordable = True
    kernel: CudaKernel
    blocks: int
    arguments: tuple[Memory | int, ...]

    def __call__(self, device: Device) -> None:
        device.launch(self.kernel, self.blocks, self.arguments)


@dataclass(frozen=True)
class Copy:
    """Bytes from one place of the device to another."""

    is_recordable = True
    target: int
    source: int
    nbytes: int

    def __call__(self, device: Device) -> None:
        # a copy within one buffer moves down; in pieces as long as the way it moves, no piece overlaps itself
        piece = min(abs(self.source - self.target), self.nbytes)
        for at in range(0, self.nbytes if piece else 0, piece or 1):
            device.copy(self.target + at, self.source + at, min(piece, self.nbytes - at))


@dataclass(frozen=True)
class Until:
    """Steps that go on until the flag at `stop` is set: the host has to look. The number of steps taken goes to `count`."""

    steps: tuple[tuple[Any, ...], ...]
    stop: Memory
    count: Memory | None

    def __call__(self, device: Device) -> None:
        taken = 0
        for actions in self.steps:
            for action in actions:
                action(device)
            taken += 1
            if device.read(self.stop)[0]:
                break
        if self.count is not None:
            device.write(self.count, np.array([taken], self.count.dtype))


class Unrolled:
    """Writes out a plan. `base` is the address of its arena, `known` has buffers that lie elsewhere."""

    def __init__(self, device: Device, plan: Plan, size_of: Any, base: int, known: Mapping[Node, Memory]) -> None:
        self.device, self.plan, self.size_of, self.base, self.known = device, plan, size_of, base, known
        self.offsets, _ = plan.arena(size_of)

    def value(self, size: Any) -> int:
        """A size, or the largest that it can be if it is counted on the device."""
        return int(poly.largest(size, self.size_of))

    def actions(self) -> Iterator[Any]:
        for k, item in enumerate(self.plan.kernels):
            if isinstance(item, Loop):
                yield from self.loop(k, item)
            elif blocks := item.grid(self.size_of):
                yield Run(item, blocks, tuple(self.argument(k, kind, what) for kind, what in item.arguments))

    def argument(self, k: int, kind: str, what: Any) -> Any:
        if kind == "size":
            return int(self.size_of(what))
        if kind == "scratch":
            return Memory(self.base + self.offsets[k, what], what.dtype, self.value(what.elements))
        if what in self.known:
            return self.known[what]
        if what.op is CONSTANT:
            return self.device.constant(what.payload)
        return Memory(self.base + self.offsets[what], what.dtype, self.value(what._type.size))

    # ---- loops
    def loop(self, k: int, loop: Loop) -> Iterator[Any]:
        place = lambda memory: self.argument(k, "buffer" if isinstance(memory, Node) else "scratch", memory)
        inside = loop.sizes(self.size_of)
        inner = next(s for s in loop.scratch if isinstance(s, Inside))
        base = -(-(self.base + self.offsets[k, inner]) // ALIGNMENT) * ALIGNMENT
        count = self.value(loop.node.attrs["n"])
        numbers = self.device.constant(np.arange(count, dtype=np.int64)) if count else None
        conditions = {test: self.argument(k, "buffer", test) for kernel in loop.plan.flat() for kind, test in kernel.arguments
                      if kind == "buffer" and (test in self.known or test in self.offsets)}

        def step(t: int) -> Iterator[Any]:
            known: dict[Node, Any] = dict(conditions)
            for r in loop.rows:
                known[r.inner] = self.row(place(r.memory), self.value(r.offset) + t * self.value(r.stride), r.inner.dtype,
                                          int(poly.largest(r.inner._type.size, inside)))
            assert numbers is not None
            known[loop.node.op.body.step] = Memory(numbers.address + 8 * t, "int64", 1)
            yield from Unrolled(self.device, loop.plan, inside, base, known).actions()
            yield from (self.move(m, place) for m in loop.between)

        yield from (self.move(m, place) for m in loop.before)
        if loop.stop is None:
            for t in range(count):
                yield from step(t)
        else:
            yield Until(tuple(tuple(step(t)) for t in range(count)), place(loop.stop), place(loop.steps) if loop.steps is not None else None)
        yield from (self.move(m, place) for m in loop.after)

    def row(self, memory: Memory, start: int, dtype: str, elements: int) -> Memory:
        """Elements from `start` on."""
        return Memory(memory.address + itemsize(dtype) * start, dtype, elements)

    def move(self, m: Move, place: Any) -> Copy:
        (target, to), (source, start), width = m.target, m.source, itemsize(m.dtype)
        return Copy(place(target).address + width * self.value(to), place(source).address + width * self.value(start), width * self.value(m.elements))


__all__ = ["Copy", "Run", "Unrolled", "Until"]
