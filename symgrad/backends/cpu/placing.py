"""Where the buffers of a plan are, and the driver's items that run it.

A buffer has an address (in the arena, or of a constant), or is met later: arguments when a call binds them, rows of a loop at every step.
Until then the places that want its address are kept.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...base import poly
from ...base.dtypes import itemsize
from ...graph.node import CONSTANT, Node
from ...schedule.memory import ALIGNMENT, rounded
from ...schedule.plan import Inside, Kernel, Loop, Move, Plan, Row
from . import driver
from .sharing import is_worth_sharing

Guard = tuple[tuple[Node, bool], ...]


class Frame:
    """A plan with its sizes known, laid out from `base` on."""

    def __init__(self, plan: Plan, compiled: Iterator[Any], size_of: Callable[[poly.Atom], int], offsets: dict[Any, int], base: int,
                 around: tuple[Frame, Loop] | None = None):
        """`around`: the frame and the loop that this plan is the step of."""
        self.plan, self.size_of, self.offsets, self.base, self.around = plan, size_of, offsets, base, around
        self.open: dict[Node, list[int]] = {}               # buffer -> the places that want its address
        self.kept: list[Any] = []                           # memory that the driver reads
        self.counting: dict[Node, list[int]] = {}           # count -> the places that want its value, once it is computed
        self.tests = {test: base + offsets[test] for item in plan.kernels for test, _ in item.guard}
        self.parallel = False                               # whether threads share any of the items
        self.items: list[tuple[Guard, tuple[driver.Item, ...]]] = []
        for k, item in enumerate(plan.kernels):
            made = self._loop(k, item, compiled) if isinstance(item, Loop) else self._call(k, item, next(compiled))
            self.items.append((item.guard, made))
        for k, item in enumerate(plan.kernels):
            guard, made = self.items[k]
            self.items[k] = guard, (*made, *(self._tell_count(k, n, place) for n in item.stored for place in self.counting.get(n, ())))

    def code(self) -> tuple[driver.Item, ...]:
        """All items, behind branches where they have conditions."""
        return tuple(self._branches([(guard, item) for guard, items in self.items for item in items]))

    def ran(self, guard: Guard) -> bool:
        """Whether an item with this guard ran in the last call."""
        return all(bool(ctypes.c_bool.from_address(self.tests[test]).value) == side for test, side in guard)

    def _branches(self, items: Sequence[tuple[Guard, driver.Item]]) -> list[driver.Item]:
        """The items in order; runs of them with a first condition in common go behind one branch."""
        result: list[driver.Item] = []
        for first, run in itertools.groupby(items, key=lambda c: (c[0][0][0].serial, c[0][0][1]) if c[0] else None):
            members = list(run)
            if first is None:
                result.extend(item for _, item in members)
                continue
            test, side = members[0][0][0]
            inside = tuple(self._branches([(guard[1:], item) for guard, item in members]))
            result.append(driver.Branch(self.tests[test], inside if side else (), () if side else inside))
        return result

    # ---- addresses
    def address(self, k: int, what: Any) -> int | None:
        """The address of a buffer or scratch of item k; None if it is met later."""
        place = self.offsets.get(what) if isinstance(what, Node) else self.offsets[k, what]
        if place is not None:
            return self.base + place
        return what.payload.ctypes.data if what.op is CONSTANT else None

    def tell(self, k: int, what: Any, place: int) -> None:
        """Write the address of `what` to `place`, now or when it is known."""
        address = self.address(k, what)
        if address is None:
            self.open.setdefault(self.plan.memory_of(what), []).append(place)
        else:
            write(place, address)

    def tell_size(self, size: Any, place: int) -> None:
        """Write a size to `place`, now or when it is counted."""
        a = poly.the_atom(size)
        if a is not None and a.kind == "counted":
            self.counting.setdefault(a.args[0], []).append(place)
        elif a is not None and self.around is not None and a in self.around[1].given:
            frame, loop = self.around
            frame.tell_size(loop.given[a], place)
        else:
            write(place, poly.evaluate(size, self.size_of))

    def cell(self, value: int = 0) -> int:
        """The address of an int64 of its own."""
        self.kept.append(np.array([value], np.int64))
        return int(self.kept[-1].ctypes.data)

    def latest_size_of(self, a: poly.Atom) -> int:
        """A size as it was in the last call."""
        return ctypes.c_int64.from_address(self.counting[a.args[0]][0]).value if a.kind == "counted" else self.size_of(a)

    # ---- items
    def _tell_count(self, k: int, count: Node, place: int) -> driver.Item:
        """A size that was counted, written to an argument table."""
        return driver.Move(self.cell(place), 0, self._pointer(k, count), 0, 8)

    def _table(self, k: int, kernel: Kernel, parts: Sequence[int] = (0, 0, 0)) -> np.ndarray:
        """The argument table of a kernel, for those parts (stage, first, last + 1) if it is one that threads may share."""
        table = np.zeros(max(len(kernel.arguments), 1), np.int64)
        self.kept.append(table)
        for slot, (kind, what) in enumerate(kernel.arguments):
            if kind == "size":
                self.tell_size(poly.of_atom(what), table.ctypes.data + 8 * slot)
            elif kind != "parts":
                self.tell(k, what, table.ctypes.data + 8 * slot)
        if kernel.sharing:
            table[-3:] = parts
        return table

    def _call(self, k: int, kernel: Kernel, compiled: Any) -> tuple[driver.Item, ...]:
        """The call of a kernel, of each of its stages, or where there is enough to do one call that threads share."""
        sharing = kernel.sharing
        if sharing is None:
            return (driver.Call(compiled.address, self._table(k, kernel).ctypes.data),)
        stages = tuple(poly.largest(parts, self.size_of) for parts in sharing.stages)
        if not is_worth_sharing(poly.largest(sharing.work, self.size_of)):
            tables = [self._table(k, kernel, (stage, 0, parts)) for stage, parts in enumerate(stages)]
            return tuple(driver.Call(compiled.address, table.ctypes.data) for table in tables)
        self.parallel = True
        own = [(slot, what) for slot, (kind, what) in enumerate(kernel.arguments) if kind == "scratch" and not what.common]
        *places, nbytes = itertools.accumulate((rounded(s.nbytes(self.size_of)) for _, s in own), initial=0)
        buffers = tuple((slot, place) for (slot, _), place in zip(own, places))
        table = self._table(k, kernel)
        return (driver.Parallel(compiled.address, table.ctypes.data, len(table), stages, sharing.pieces, buffers, nbytes),)

    def _loop(self, k: int, loop: Loop, compiled: Iterator[Any]) -> tuple[driver.Item, ...]:
        size_of = loop.sizes(self.size_of)
        own = next(s for s in loop.scratch if isinstance(s, Inside))
        start = self.base + self.offsets[k, own]
        offsets, _ = loop.plan.arena(size_of)
        inside = Frame(loop.plan, compiled, size_of, offsets, -(-start // ALIGNMENT) * ALIGNMENT, (self, loop))
        self.kept.append(inside)
        self.parallel |= inside.parallel
        counter, steps = self.cell(), self.cell()
        self.tell_size(loop.node.attrs["n"], steps)
        for place in inside.open.pop(loop.node.op.body.step, ()):
            write(place, counter)
        before, moving = self._rows(k, loop, inside, counter)
        move = lambda m: self._move(k, m)
        body = (*moving, *inside.code(), *map(move, loop.between))
        stop = 0 if loop.stop is None else self.base + self.offsets[k, loop.stop]
        after = [*map(move, loop.after)]
        if loop.steps is not None:
            after.append(driver.Move(self._pointer(k, loop.steps), 0, self.cell(counter), 0, 8))
        return (*before, *map(move, loop.before), driver.Loop(steps, counter, body, stop), *after)

    def _rows(self, k: int, loop: Loop, inside: Frame, counter: int) -> tuple[list[driver.Item], list[driver.Item]]:
        """(what points the kernels inside to buffers that stay where they are, what does so at every step for rows)."""
        staying: list[driver.Item] = []
        moving: list[driver.Item] = []
        for row in loop.rows:
            targets = tuple(inside.open.pop(row.inner, ()))
            if targets:
                (moving if self._stride(row) else staying).append(self._point(k, row, counter, targets))
        assert not inside.open, "a buffer inside a loop that nobody provides"
        return staying, moving

    def _stride(self, row: Row) -> int:
        return itemsize(row.inner.dtype) * poly.evaluate(row.stride, self.size_of)

    def _point(self, k: int, row: Row, counter: int, targets: tuple[int, ...]) -> driver.Item:
        offset = itemsize(row.inner.dtype) * poly.evaluate(row.offset, self.size_of)
        return driver.Point(self._pointer(k, row.memory), offset, counter, self._stride(row), targets)

    def _pointer(self, k: int, what: Any) -> int:
        """The address of a cell that holds the address of `what`."""
        cell = self.cell()
        self.tell(k, what, cell)
        return cell

    def _move(self, k: int, move: Move) -> driver.Item:
        size = itemsize(move.dtype)
        value = lambda n: size * poly.evaluate(n, self.size_of)
        (target, to), (source, start) = move.target, move.source
        return driver.Move(self._pointer(k, target), value(to), self._pointer(k, source), value(start), value(move.elements))


def write(place: int, value: int) -> None:
    ctypes.c_int64.from_address(place).value = value


__all__ = ["Frame"]
