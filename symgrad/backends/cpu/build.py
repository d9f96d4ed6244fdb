"""The CPU backend: plans of kernels that Numba defines and LLVM compiles, run by one native driver."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ...base import poly
from ...base.config import config
from ...base.dtypes import itemsize
from ...base.errors import BackendError, ShapeError, four_parts
from ...graph.node import Node, make, new_input
from ...graph.shared import Shared
from ...graph.types import Type
from ...graph.walk import order, substitute
from ...ops.row import ROWS
from ...rewrite.books import simplify
from ...schedule.plan import Plan
from ...schedule.report import table
from ...schedule.unfold import unfolded
from ..generic import arranged, counts_of, distinct_outputs, make_plan, shapes_of, size_deciders
from ..profile import Profile, Row, median_seconds
from ..reference import Reference, sizes_from
from . import driver, toolchain
from .contractions import Templates
from .panels import in_panels
from .placing import Frame

SPECIALISED = 4         # sizes a function is compiled for by themselves; more are served by kernels for any size
KEPT = 64               # bindings kept per program,
KEPT_BYTES = 1 << 28    # and bytes that their arenas take together, unless one alone takes more
RECYCLED = 1 << 16      # bytes from which result arrays are kept for the next call
POOLED = 3              # arrays kept per output
UNHELD = 3              # references that a pooled array has inside `recycled`: the pool, the loop, the argument
LARGEST = 1 << 46       # bytes that no machine has: a product of sizes that went wrong


def build(inputs: Sequence[Node], outputs: Sequence[Node]) -> Executable:
    """An executable for this graph."""
    return Executable(list(inputs), list(outputs))


def build_in_place(inputs: Sequence[Node], outputs: Sequence[Node], updates: Mapping[int, Shared]) -> Executable:
    """An executable that may write outputs, by position, over the shared variables whose next values they are."""
    return Executable(list(inputs), list(outputs), updates)


class Executable:
    """A graph compiled for the CPU: one program when all sizes are known or bounded, else one per size signature and one for any."""

    backend = "cpu"

    def __init__(self, inputs: list[Node], outputs: list[Node], updates: Mapping[int, Shared] = MappingProxyType({})):
        self.inputs, self.outputs, self.updates = inputs, outputs, updates
        self.is_static = all(n._type.is_bounded for n in [*inputs, *order(outputs)])
        self.programs: dict[Any, Program] = {}
        self.generic: Program | None = None
        self.fast: Callable[[tuple], list[np.ndarray] | None] | None = None
        if self.is_static:
            program = self.programs[()] = Program(inputs, outputs, updates)
            self.fast = program.bound({}).fast

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._bound(arrays)(tuple(arrays))

    def _bound(self, arrays: Sequence[np.ndarray]) -> Bound:
        if self.is_static:
            return self.programs[()].bound({})
        signature = tuple(a.shape for a in arrays)
        program = self.programs.get(signature)
        if program is None and len(self.programs) < SPECIALISED:
            program = self.programs[signature] = self._specialised(arrays)
        if program is not None and program.is_static:
            return program.bound({})
        if program is None:
            if self.generic is None:
                self.generic = Program(self.inputs, self.outputs, self.updates)
            program = self.generic
        return program.bound(program.sizes(arrays))

    def _specialised(self, arrays: Sequence[np.ndarray]) -> Program:
        """The program for the sizes of these arguments alone."""
        static = {x: new_input(Type(x.dtype, a.shape), x.name) for x, a in zip(self.inputs, arrays)}
        return Program(list(static.values()), simplify(substitute(self.outputs, static)), self.updates)

    def latest(self) -> Program:
        known = [*self.programs.values(), *([self.generic] if self.generic else [])]
        if not known:
            self.generic = Program(self.inputs, self.outputs, self.updates)
            known = [self.generic]
        return known[-1]

    def source(self) -> str:
        return self.latest().source()

    def explain(self) -> str:
        return self.latest().explain()

    def profile(self, arrays: Sequence[np.ndarray]) -> Any:
        return self._bound(arrays).profile(tuple(arrays))


def allocator(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype]) -> Callable[[], list[np.ndarray]]:
    """A function that makes the results of a call: new arrays, or large ones of an earlier call that nobody holds any more.

    A fresh large array costs a page fault per 4 KiB; one that came back does not. The function is written out: a
    loop takes half as long as making the small arrays it goes over.
    """
    space: dict[str, Any] = {"empty": np.empty, "recycled": recycled}
    made = []
    for k, (shape, dtype) in enumerate(zip(shapes, dtypes)):
        space.update({f"shape{k}": shape, f"dtype{k}": dtype, f"pool{k}": []})
        large = math.prod(shape) * dtype.itemsize >= RECYCLED
        made.append(f"recycled(pool{k}, shape{k}, dtype{k})" if large else f"empty(shape{k}, dtype{k})")
    return eval(f"lambda: [{', '.join(made)}]", space)


def recycled(pool: list[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of the pool that only the pool refers to, or a new one, which joins it."""
    for array in pool:
        if sys.getrefcount(array) == UNHELD:
            return array
    array = np.empty(shape, dtype)
    if len(pool) < POOLED:
        pool.append(array)
    return array


empty = np.empty


def own_memory(shared: Shared) -> None:
    """Give a shared variable a copy of its value when somebody else may look at the array: it is about to be written over."""
    if shared.payload.base is not None or sys.getrefcount(shared.payload) > ALONE:
        shared.payload = shared.payload.copy()


_example = Shared(np.empty(0))
ALONE = sys.getrefcount(_example.payload)                       # references to a value that only its variable holds


class Program:
    """The kernels of one graph, compiled."""

    def __init__(self, inputs: list[Node], outputs: list[Node], updates: Mapping[int, Shared] = MappingProxyType({})):
        self.inputs = inputs
        outputs = unfolded(in_panels(outputs))
        self.counts = counts_of(d for y in outputs for d in y.dims)         # results too: they say how much of a result counts
        computed, self.places = distinct_outputs([*outputs, *self.counts], lambda y: make(ROWS["positive"], [y]))
        start = time.perf_counter()
        self.plan: Plan = make_plan(inputs, computed, Templates(), updates=self._replaced(computed, updates))
        self.compiled = toolchain.compile_texts([(k.text, k.name) for k in self.plan.flat()])
        self.seconds = time.perf_counter() - start
        self.is_static = all(n._type.is_bounded for n in [*inputs, *order(computed)])
        self.deciding = size_deciders(computed)
        self.bindings: dict[Any, Bound] = {}
        _report(self)

    def _replaced(self, computed: list[Node], updates: Mapping[int, Shared]) -> dict[Node, Node]:
        """What is computed for an update and for nothing else -> the shared variable it replaces."""
        uses = Counter(place.k for place in self.places)
        return {computed[self.places[k].k]: shared for k, shared in updates.items()
                if uses[self.places[k].k] == 1 and self.places[k].dims == shared.dims}

    def sizes(self, arrays: Sequence[np.ndarray]) -> dict[poly.Atom, int]:
        """Every size symbol of the program for one call."""
        sizes = sizes_from(self.inputs, arrays)
        if self.deciding:
            for node, value in zip(self.deciding, Reference(self.inputs, self.deciding)(arrays)):
                sizes[poly.Atom("value", node)] = int(value)
        return sizes

    def bound(self, sizes: dict[poly.Atom, int]) -> Bound:
        key = tuple(sizes.values())
        found = self.bindings.get(key)
        if found is None:
            found = Bound(self, sizes)
            while self.bindings and (len(self.bindings) >= KEPT or sum(b.arena_bytes for b in (found, *self.bindings.values())) > KEPT_BYTES):
                self.bindings.pop(next(iter(self.bindings)))
            self.bindings[key] = found
        return found

    def source(self) -> str:
        return "\n\n".join(f"# {k.name}: {k.what}\n{k.text}" for k in self.plan.flat())

    def explain(self) -> str:
        return table(self.plan, next(iter(self.bindings.values())).size_of if self.bindings else None)


def _report(program: Program) -> None:
    """What SYMGRAD_DEBUG asks to see of a compilation."""
    if config.debug >= 1:
        cached = sum(k.cached for k in program.compiled)
        print(f"[symgrad] {len(order(program.plan.outputs))} nodes, {len(program.compiled)} kernels ({cached} cached), {program.seconds:.2f} s",
              file=sys.stderr)
    if config.debug >= 3:
        print(program.explain(), file=sys.stderr)
    if config.debug >= 4:
        print(program.source(), file=sys.stderr)


class Bound:
    """A program with every size known or bounded: argument tables, arena, and the native entry."""

    def __init__(self, program: Program, sizes: dict[poly.Atom, int]):
        self.program, self.sizes = program, sizes
        plan = program.plan
        offsets, self.arena_bytes = plan.arena(self.size_of)
        self.made = [y for y in plan.outputs if y not in plan.taken]        # results in arrays of their own
        shapes = [self.shape(y) for y in self.made]
        self.outputs = allocator(shapes, [np.dtype(y.dtype) for y in self.made])
        self._refuse_oversized(plan)
        self.arena = np.empty(self.arena_bytes + 64, np.uint8)
        base = -(-self.arena.ctypes.data // 64) * 64
        self.shared: list[Any] = plan.shared
        position = {s: k for k, s in enumerate(self.shared)}
        self.overwritten = {y: position[plan.taken[y]] for y in plan.outputs if y in plan.taken}
        self.frame = Frame(plan, iter(program.compiled), self.size_of, offsets, base)
        self.code = driver.assemble(self.frame.code())
        arguments = [*program.inputs, *self.shared, *self.made]
        self.entry = driver.Entry([driver.Binding(x.dtype, self.shape(x), tuple(self.frame.open.get(x, ()))) for x in arguments], self.code,
                                  self.frame.parallel)
        self.call = self.entry.call
        # the common case: every output is its own array, as it was computed
        self.direct = not program.counts and all(p.k == k and p.dims == plan.outputs[k].dims for k, p in enumerate(program.places))
        self.plain = self.direct and not self.overwritten
        self.output_shapes = shapes_of(program.places, self.size_of) if not program.counts else []

    def size_of(self, a: poly.Atom) -> int:
        if a.kind == "counted":
            raise BackendError(four_parts("a scan over values whose size is counted outside it", f"{a}", f"{a.args[0].op.name} made at {a.args[0].where}",
                                          "T.where over all of them instead of x[mask]"))
        return self.sizes[a]

    def shape(self, node: Node) -> tuple[int, ...]:
        return tuple(poly.largest(d, self.size_of) for d in node.dims)

    def _refuse_oversized(self, plan: Plan) -> None:
        for node in [*plan.temporaries(), *plan.outputs]:
            shape = self.shape(node)
            if any(d < 0 for d in shape):
                raise ShapeError(four_parts(f"an array for {node.op.name}", f"shape {shape}: a negative size", f"{node.op.name} made at {node.where}",
                                            "check the sizes of the arguments"))
            nbytes = itemsize(node.dtype) * int(np.prod([int(d) for d in shape], dtype=object))
            if nbytes > LARGEST:
                raise BackendError(four_parts(f"memory for {node.op.name}", f"{node.dtype} {shape} is {nbytes / 2**30:.0f} GiB",
                                              f"{node.op.name} made at {node.where}",
                                              "check the sizes; reduce before broadcasting"))

    def parameters(self) -> list[np.ndarray]:
        """The values of the shared variables; those that will be written over are first made nobody else's."""
        for k in self.overwritten.values():
            own_memory(self.shared[k])
        return [s.payload for s in self.shared]

    def results(self, outs: list[np.ndarray], parameters: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs of the program after a call, as they were asked: reshaped, and copied where two outputs are one value."""
        if self.overwritten:
            own = iter(outs)
            outs = [parameters[self.overwritten[y]] if y in self.overwritten else next(own) for y in self.program.plan.outputs]
        return outs if self.direct else self.arranged(outs)

    def fast(self, args: tuple) -> list[np.ndarray] | None:
        """The outputs, or None when an argument is not ready to use as it is."""
        outs = self.outputs()
        parameters = self.parameters() if self.shared else []
        if self.call(*args, *parameters, *outs):
            return None
        return outs if self.plain else self.results(outs, parameters)

    def arranged(self, outs: list[np.ndarray]) -> list[np.ndarray]:
        """The results as the outputs were asked: see `generic.arranged`."""
        places, counts = self.program.places, self.program.counts
        if not counts:
            return arranged(places, outs, self.output_shapes)
        wanted, counted = places[:-len(counts)], places[-len(counts):]
        numbers = {count: int(outs[p.k]) for count, p in zip(counts, counted)}
        size_of = lambda a: numbers[a.args[0]] if a.kind == "counted" else self.sizes[a]
        return arranged(wanted, outs, shapes_of(wanted, size_of))

    def __call__(self, args: tuple) -> list[np.ndarray]:
        while True:
            outs, parameters = self.outputs(), self.parameters()
            code = self.call(*args, *parameters, *outs)
            if code == 0:
                if config.debug >= 2:
                    print(self.profile(args, budget=0.0), file=sys.stderr)
                return self.results(outs, parameters)
            if code == driver.FEW_WORKERS:
                driver.start_workers()
                continue
            if code != driver.BUSY:
                raise BackendError(f"argument {code - 1} was refused by the native entry after it was checked")
            time.sleep(1e-5)

    def profile(self, args: tuple, budget: float = 0.5) -> Profile:
        """Time every kernel by itself, on the buffers of a real call."""
        outs, parameters = self.outputs(), [s.payload for s in self.shared]
        for k in self.overwritten.values():
            parameters[k] = parameters[k].copy()                # looking changes nothing
        while self.call(*args, *parameters, *outs) == driver.FEW_WORKERS:
            driver.start_workers()
        rows = []
        for kernel, (guard, items) in zip(self.program.plan.kernels, self.frame.items):
            if not self.frame.ran(guard):
                rows.append(Row(kernel.name, kernel.what, 0.0, 0, 0, calls=0))
                continue
            code = driver.assemble(items)
            seconds = median_seconds(lambda code=code: driver.run(code), budget / len(self.frame.items))
            moved, flops = (poly.evaluate(n, self.frame.latest_size_of) for n in (kernel.moved_bytes(), kernel.flops))
            threads = max(min(max(item.stages), config.num_threads) if isinstance(item, driver.Parallel) else 1 for item in items)
            rows.append(Row(kernel.name, kernel.what, seconds, moved, flops, threads=threads))
        return Profile(rows)
