"""Executables of the CUDA backend: a plan's kernels as a list of launches on a device, real or emulated."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...base import poly
from ...base.config import config
from ...base.dtypes import itemsize
from ...base.errors import BackendError, four_parts
from ...graph.node import Node, make, new_input
from ...graph.shared import Shared
from ...graph.types import Type
from ...graph.walk import order, substitute
from ...ops.row import ROWS
from ...rewrite.books import simplify
from ...schedule.plan import Plan
from ...schedule.report import table
from ..generic import arranged, counts_of, distinct_outputs, shapes_of, size_deciders
from ..profile import Profile, Row
from ..reference import Reference, sizes_from
from .array import DeviceArray
from .device import Device, Memory
from .launch import CudaKernel
from .plan import make_plan
from .steps import Copy, Run, Unrolled

SPECIALISED = 4         # sizes a function is compiled for by themselves; more are served by kernels for any size
KEPT = 16               # bindings kept per program: each has memory on the device
ALIGNMENT = 256         # bytes: what a device's own allocations have


class Executable:
    """A graph compiled for a device: one program when all sizes are known, else one per size signature and one for any."""

    backend = "cuda"
    outputs_on_device = False

    def __init__(self, inputs: list[Node], outputs: list[Node], device: Device, updates: Mapping[int, Shared]):
        """updates: the shared variables that outputs, by position, are the next values of; they stay on the device."""
        self.inputs, self.outputs, self.device, self.updates = inputs, outputs, device, updates
        self.is_static = all(n._type.is_bounded for n in [*inputs, *order(outputs)])
        self.programs: dict[Any, Program] = {}
        self.generic: Program | None = None
        if self.is_static:
            self.programs[()] = Program(inputs, outputs, device)

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        return self._bound(arrays)(arrays, self.updates, self.outputs_on_device)

    def _bound(self, arrays: Sequence[np.ndarray]) -> Bound:
        signature = () if self.is_static else tuple(a.shape for a in arrays)
        program = self.programs.get(signature)
        if program is None and len(self.programs) < SPECIALISED:
            program = self.programs[signature] = self._specialised(arrays)
        if program is None:
            program = self.generic = self.generic or Program(self.inputs, self.outputs, self.device)
        return program.bound(arrays)

    def _specialised(self, arrays: Sequence[np.ndarray]) -> Program:
        """The program for the sizes of these arguments alone."""
        static = {x: new_input(Type(x.dtype, a.shape), x.name) for x, a in zip(self.inputs, arrays)}
        return Program(list(static.values()), simplify(substitute(self.outputs, static)), self.device)

    def latest(self) -> Program:
        """The program of the newest sizes."""
        if not self.programs and self.generic is None:
            self.generic = Program(self.inputs, self.outputs, self.device)
        return self.generic or list(self.programs.values())[-1]

    def source(self) -> str:
        """The kernels as text."""
        return "\n\n".join(f"# {k.name}: {k.what}, blocks of {k.block}\n{k.text}" for k in self.latest().kernels)

    def explain(self) -> str:
        """What was fused and stored."""
        return table(self.latest().plan)

    def profile(self, arrays: Sequence[np.ndarray]) -> Profile:
        """Times of the kernels of one call."""
        return self._bound(arrays).profile(arrays)


class Program:
    """The kernels of one graph."""

    def __init__(self, inputs: list[Node], outputs: list[Node], device: Device):
        self.inputs, self.device = inputs, device
        self.counts = counts_of(d for y in outputs for d in y.dims)         # results too: they say how much of a result counts
        computed, self.places = distinct_outputs([*outputs, *self.counts], lambda y: make(ROWS["positive"], [y]))
        start = time.perf_counter()
        self.plan: Plan = make_plan(inputs, computed, library=device.has_blas)
        self.kernels: list[CudaKernel] = self.plan.flat()  # type: ignore[assignment]
        device.prepare(self.kernels)
        self.deciding = size_deciders(computed)
        self.bindings: dict[tuple[int, ...], Bound] = {}
        if config.debug >= 1:
            print(f"[symgrad] {len(order(computed))} nodes, {len(self.kernels)} CUDA kernels, {time.perf_counter() - start:.2f} s", file=sys.stderr)

    def bound(self, arrays: Sequence[np.ndarray]) -> Bound:
        """The launches for the sizes of these arguments."""
        sizes = sizes_from(self.inputs, arrays)
        # what decides sizes is computed on the host, before memory is planned
        for node, value in zip(self.deciding, Reference(self.inputs, self.deciding)(arrays) if self.deciding else ()):
            sizes[poly.Atom("value", node)] = int(value)
        key = tuple(sizes.values())
        if key not in self.bindings:
            while len(self.bindings) >= KEPT:
                self.bindings.pop(next(iter(self.bindings)))
            self.bindings[key] = Bound(self, sizes)
        return self.bindings[key]


class Bound:
    """A program with every size known or bounded: its memory on the device, and what the device does in a call."""

    def __init__(self, program: Program, sizes: dict[poly.Atom, int]):
        self.program, self.device = program, program.device
        self.sizes, plan = sizes, program.plan
        elements = lambda x: x._type.most_elements(self.size_of)
        self.arena_bytes = plan.arena(self.size_of)[1]
        kept = [*(x for x in plan.used_inputs if x in set(program.inputs)), *plan.outputs]
        rounded = lambda nbytes: -(-nbytes // ALIGNMENT) * ALIGNMENT
        places = list(itertools.accumulate((rounded(elements(x) * itemsize(x.dtype)) for x in kept), initial=rounded(self.arena_bytes)))
        self.memory = self.device.allocate(places[-1], f"{len(program.kernels)} kernels")
        self.shared = plan.shared
        self.known = {x: self.memory.part(place, x.dtype, elements(x)) for x, place in zip(kept, places)}
        self.known.update((x, self.device.residents.memory(x)) for x in self.shared)
        self.actions = tuple(Unrolled(self.device, plan, self.size_of, self.memory.address, self.known).actions())
        self.replay: Callable[[], None] | None = None

    def size_of(self, a: poly.Atom) -> int:
        """A size that is known before the call."""
        if a.kind == "counted":
            raise BackendError(four_parts("a scan over values whose size is counted outside it", f"{a}", f"{a.args[0].op.name} made at {a.args[0].where}",
                                          "T.where over all of them instead of x[mask]"))
        return self.sizes[a]

    def __call__(self, arrays: Sequence[Any], updates: Mapping[int, Shared], on_device: bool) -> list[Any]:
        self.begin(arrays)
        if self.replay is not None:
            self.replay()
        else:
            for action in self.actions:
                action(self.device)
            # what has run once is known to work, and is recorded then
            self.replay = self.device.recorded(self.actions)
        return self.results(updates, on_device)

    def results(self, updates: Mapping[int, Shared], on_device: bool) -> list[Any]:
        """The outputs: arrays of the host, or of the device where they are to stay there."""
        places, counts, plan = self.program.places, self.program.counts, self.program.plan
        wanted, counted = places[:len(places) - len(counts)], places[len(places) - len(counts):]
        numbers = {n: int(self.device.read(self.known[plan.outputs[p.k]])[0]) for n, p in zip(counts, counted)}
        shapes = shapes_of(wanted, lambda a: numbers[a.args[0]] if a.kind == "counted" else self.sizes[a])
        new = {k: self.device.residents.update(updates[k], self.known[plan.outputs[wanted[k].k]]) for k in updates}
        if on_device:
            return [new.get(k) or self.kept(plan.outputs[p.k], shape) for k, (p, shape) in enumerate(zip(wanted, shapes))]
        asked = {p.k for k, p in enumerate(wanted) if k not in new}
        found = [self.device.read(self.known[y]) if k in asked else np.empty(0, y.dtype) for k, y in enumerate(plan.outputs)]
        return [new.get(k) if k in new else arranged([p], found, [shape])[0] for k, (p, shape) in enumerate(zip(wanted, shapes))]

    def kept(self, output: Node, shape: tuple[int, ...]) -> DeviceArray:
        """A copy of a result that the next call does not write over."""
        memory = self.device.allocate(self.known[output].nbytes, f"the result of {output.op.name}")
        self.device.copy(memory.address, self.known[output].address, self.known[output].nbytes)
        return DeviceArray(memory.part(0, output.dtype, math.prod(shape)), shape, self.device, memory)

    def begin(self, arrays: Sequence[np.ndarray]) -> None:
        """Bring the arguments and the values of shared variables to the device."""
        for x, array in zip(self.program.inputs, arrays):
            if x in self.known:
                self.device.write(self.known[x], array)
        for x in self.shared:
            self.device.residents.refresh(x)

    def profile(self, arrays: Sequence[np.ndarray]) -> Profile:
        """Each kernel timed by itself, in order, within one call; a loop in one row, if the host has to look when it ends."""
        self.begin(arrays)
        rows: dict[str, list[float]] = {}
        moved: dict[str, int] = {}
        kernels = {action.kernel.name: action.kernel for action in self.actions if isinstance(action, Run)}
        for action in self.actions:
            name = action.kernel.name if isinstance(action, Run) else "copies" if isinstance(action, Copy) else "loop"
            self.device.synchronise()
            start = time.perf_counter()
            action(self.device)
            self.device.synchronise()
            rows.setdefault(name, []).append(time.perf_counter() - start)
            moved[name] = moved.get(name, 0) + (sum(a.nbytes for a in action.arguments if isinstance(a, Memory)) if isinstance(action, Run) else 0)
        what = lambda name: (kernels[name].what, kernels[name].flops) if name in kernels else (name, 0)
        return Profile([Row(name, what(name)[0], sum(times), moved[name], what(name)[1] * len(times) if isinstance(what(name)[1], int) else 0, len(times))
                        for name, times in rows.items()])


__all__ = ["Executable"]
