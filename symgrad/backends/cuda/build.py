"""Executables of the CUDA backend: a plan's kernels as a list of launches on a device, real or emulated."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base import poly
from ...base.config import config
from ...graph.node import SHARED, Node, make, new_input
from ...graph.types import Type
from ...graph.walk import order, substitute
from ...ops.counted import count
from ...ops.row import ROWS
from ...rewrite.books import simplify
from ...schedule.plan import Plan, table
from ..generic import distinct_outputs
from ..profile import Profile, Row
from ..reference import Reference, sizes_from
from .device import Device, Region
from .launch import CudaKernel
from .plan import make_plan

SPECIALISED = 4         # sizes a function is compiled for by themselves; more are served by kernels for any size
KEPT = 16               # bindings kept per program: each has memory on the device


class Executable:
    """A graph compiled for a device: one program when all sizes are known, else one per size signature and one for any."""

    backend = "cuda"

    def __init__(self, inputs: list[Node], outputs: list[Node], device: Device):
        self.inputs, self.outputs, self.device = inputs, outputs, device
        self.is_static = all(n._type.is_static for n in [*inputs, *order(outputs)])
        self.programs: dict[Any, Program] = {}
        self.generic: Program | None = None
        if self.is_static:
            self.programs[()] = Program(inputs, outputs, device)

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._bound(arrays)(arrays)

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
        computed, self.places = distinct_outputs(outputs, lambda y: make(ROWS["positive"], [y]))
        start = time.perf_counter()
        self.plan: Plan = make_plan(inputs, computed)
        self.kernels: list[CudaKernel] = list(self.plan.kernels)  # type: ignore[arg-type]
        device.prepare(self.kernels)
        self.deciding = list({x: None for n in order(computed) for x in n.deps[len(n.inputs):]})
        self.bindings: dict[tuple[int, ...], Bound] = {}
        if config.debug >= 1:
            print(f"[symgrad] {len(order(computed))} nodes, {len(self.kernels)} CUDA kernels, {time.perf_counter() - start:.2f} s", file=sys.stderr)

    def bound(self, arrays: Sequence[np.ndarray]) -> Bound:
        """The launches for the sizes of these arguments."""
        sizes = sizes_from(self.inputs, arrays)
        # what decides sizes is computed on the host, before memory is planned
        for node, value in zip(self.deciding, Reference(self.inputs, self.deciding)(arrays) if self.deciding else ()):
            counted = poly.Atom("counted", node, node.attrs["bound"]) if node.op is count else None
            sizes[counted or poly.Atom("value", node)] = int(value)
        key = tuple(sizes.values())
        if key not in self.bindings:
            while len(self.bindings) >= KEPT:
                self.bindings.pop(next(iter(self.bindings)))
            self.bindings[key] = Bound(self, sizes)
        return self.bindings[key]


class Bound:
    """A program with every size known: one arena that holds inputs, outputs and intermediates, and the launches."""

    def __init__(self, program: Program, sizes: dict[poly.Atom, int]):
        self.program, self.device = program, program.device
        size_of = sizes.__getitem__
        shape = lambda dims: tuple(poly.evaluate(d, size_of) for d in dims)
        plan = program.plan
        offsets, self.arena_bytes = plan.arena(size_of)
        self.arena = self.device.allocate(self.arena_bytes)
        self.regions: dict[Node, Region] = {}
        for node in [*(x for x in plan.used_inputs if x not in offsets), *plan.outputs]:
            self.regions[node] = self.device.allocate(int(poly.evaluate(node._type.nbytes, size_of)))
        for node in plan.constants:
            self.regions[node] = self.device.constant(node.payload)
        self.shapes = {node: shape(node.dims) for node in plan.outputs}
        self.places = [(plan.outputs[p.k], p.copied, shape(p.dims)) for p in program.places]
        elements = lambda node: int(poly.evaluate(node._type.size, size_of))

        def argument(k: int, kind: str, what: Any) -> Any:
            if kind == "size":
                return size_of(what)
            if kind == "scratch":
                return self.arena.part(offsets[k, what], what.dtype, what.elements)
            if what in offsets:
                return self.arena.part(offsets[what], what.dtype, elements(what))
            if what.op is SHARED:
                return what
            return self.regions[what].part(0, what.dtype, elements(what))

        self.launches = [(kernel, grid, [argument(k, *a) for a in kernel.arguments])
                         for k, kernel in enumerate(program.kernels) if (grid := kernel.grid(size_of))]

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self._upload(arrays)
        for kernel, grid, arguments in self.launches:
            self._launch(kernel, grid, arguments)
        return self._results()

    def _upload(self, arrays: Sequence[np.ndarray]) -> None:
        for x, array in zip(self.program.inputs, arrays):
            if x in self.regions:
                self.device.upload(self.regions[x], array)

    def _launch(self, kernel: CudaKernel, grid: int, arguments: list[Any]) -> None:
        resolved = [self.device.shared(a) if isinstance(a, Node) else a for a in arguments]
        self.device.launch(kernel, grid, resolved)

    def _results(self) -> list[np.ndarray]:
        found = {y: self.device.download(self.regions[y], y.dtype, shape) for y, shape in self.shapes.items()}
        return [(found[y].copy() if copied else found[y]).reshape(shape) for y, copied, shape in self.places]

    def profile(self, arrays: Sequence[np.ndarray]) -> Profile:
        """Each kernel timed by itself, in order, within one call."""
        self._upload(arrays)
        rows = Profile()
        for kernel, grid, arguments in self.launches:
            self.device.synchronise()
            start = time.perf_counter()
            self._launch(kernel, grid, arguments)
            self.device.synchronise()
            moved = sum(a.nbytes for a in arguments if not isinstance(a, (int, Node)))
            rows.append(Row(kernel.name, kernel.what, time.perf_counter() - start, moved, kernel.flops if isinstance(kernel.flops, int) else 0))
        return rows


__all__ = ["Executable"]
