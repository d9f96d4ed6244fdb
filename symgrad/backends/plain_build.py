"""The plain backend: the kernel text of a plan, run by Python itself. Slow, with tracebacks one can read; for debugging."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..graph.node import CONSTANT, INPUT, SHARED, Node, make
from ..ops.row import ROWS
from ..schedule.plan import Loop, Move, Plan
from ..schedule.report import table
from ..schedule.unfold import unfolded
from . import plain
from .generic import NoTemplates, arranged, distinct_outputs, make_plan, shapes_of, size_deciders
from .profile import Profile, Row
from .reference import Reference, sizes_from


class Executable:
    """A plan whose kernels run as Python, for any sizes."""

    backend = "plain"

    def __init__(self, inputs: list[Node], outputs: list[Node]):
        self.inputs = inputs
        computed, self.places = distinct_outputs(unfolded(outputs), lambda y: make(ROWS["positive"], [y]))
        self.plan: Plan = make_plan(inputs, computed, NoTemplates())
        self.deciding = size_deciders(computed)

    def __call__(self, arrays: Sequence[np.ndarray], rows: list[Row] | None = None) -> list[np.ndarray]:
        sizes = sizes_from(self.inputs, arrays)
        for node, value in zip(self.deciding, Reference(self.inputs, self.deciding)(arrays) if self.deciding else ()):
            sizes[poly.Atom("value", node)] = int(value)
        memory: dict[Any, np.ndarray] = {x: np.ascontiguousarray(a).reshape(-1) for x, a in zip(self.inputs, arrays)}
        # what a side counts that is not taken, nobody reads: 0
        size_of = lambda a: int(memory.get(a.args[0], [0])[0]) if a.kind == "counted" else sizes[a]
        run_plan(self.plan, memory, size_of, rows)
        return arranged(self.places, [memory[y] for y in self.plan.outputs], shapes_of(self.places, size_of))

    def profile(self, arrays: Sequence[np.ndarray]) -> Profile:
        """Times of the kernels, run by Python, for one call."""
        rows: list[Row] = []
        self(arrays, rows)
        return Profile(rows)

    def source(self) -> str:
        """The kernels as text."""
        return "\n\n".join(f"# {k.name}: {k.what}\n{k.text}" for k in self.plan.flat())

    def explain(self) -> str:
        """What was fused and stored."""
        return table(self.plan)


def run_plan(plan: Plan, memory: dict[Any, np.ndarray], size_of: Any, rows: list[Row] | None = None) -> None:
    """Run the kernels and loops of a plan; memory holds a flat array per buffer, and grows."""
    for item in plan.kernels:
        if not all(bool(memory[test][0]) == side for test, side in item.guard):
            continue
        start = time.perf_counter()
        for node in item.stored:
            if node in plan.taken:
                memory[node] = argument("buffer", plan.taken[node], memory, size_of)
        if isinstance(item, Loop):
            run_loop(item, memory, size_of)
        else:
            plain.run_text(item.text, [argument(kind, what, memory, size_of) for kind, what in item.arguments])
        if rows is not None:
            rows.append(Row(item.name, item.what, time.perf_counter() - start, poly.evaluate(item.moved_bytes(), size_of), 0))


def run_loop(loop: Loop, memory: dict[Any, np.ndarray], size_of: Any) -> None:
    """All steps of a loop: its buffers are windows into the memory outside."""
    for kind, what in loop.arguments:
        argument(kind, what, memory, size_of)
    value = lambda size: poly.evaluate(size, size_of)
    inside = loop.sizes(size_of)
    for move in loop.before:
        run_move(move, memory, value)
    step, taken = np.zeros(1, np.int64), 0
    for t in range(value(loop.node.attrs["n"])):
        step[0] = t
        here: dict[Any, np.ndarray] = {loop.node.op.body.step: step}
        for r in loop.rows:
            begin = value(r.offset) + t * value(r.stride)
            here[r.inner] = memory[r.memory][begin:begin + poly.evaluate(r.inner._type.size, inside)]
        run_plan(loop.plan, here, inside)
        for move in loop.between:
            run_move(move, memory, value)
        taken += 1
        if loop.stop is not None and memory[loop.stop][0]:
            break
    for move in loop.after:
        run_move(move, memory, value)
    if loop.steps is not None:
        memory[loop.steps][0] = taken


def run_move(move: Move, memory: dict[Any, np.ndarray], value: Any) -> None:
    (target, to), (source, start), n = move.target, move.source, value(move.elements)
    memory[target][value(to):value(to) + n] = memory[source][value(start):value(start) + n].copy()


def argument(kind: str, what: Any, memory: dict[Any, np.ndarray], size_of: Any) -> Any:
    """A size, or the flat array of a buffer, made on first use."""
    if kind == "size":
        counted_here = what.kind == "counted" and what.args[0] in memory
        return int(memory[what.args[0]][0]) if counted_here else size_of(what)
    if what not in memory:
        if kind == "scratch":
            memory[what] = np.empty(poly.evaluate(what.elements, size_of), what.dtype)
        else:
            leaf = what.op in (CONSTANT, SHARED, INPUT)
            memory[what] = what.payload.reshape(-1) if leaf else np.empty(what._type.most_elements(size_of), what.dtype)
    return memory[what]


def build(inputs: Sequence[Node], outputs: Sequence[Node]) -> Executable:
    """An executable for this graph."""
    return Executable(list(inputs), list(outputs))
