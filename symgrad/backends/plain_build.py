"""The plain backend: the kernel text of a plan, run by Python itself. Slow, with tracebacks one can read; for debugging."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..graph.node import CONSTANT, INPUT, SHARED, Node, make
from ..graph.walk import order
from ..ops.row import ROWS
from ..schedule.plan import Plan, table
from . import plain
from .generic import NoTemplates, distinct_outputs, make_plan
from .profile import Profile, Row
from .reference import Reference, sizes_from


class Executable:
    """A plan whose kernels run as Python, for any sizes."""

    backend = "plain"

    def __init__(self, inputs: list[Node], outputs: list[Node]):
        self.inputs = inputs
        computed, self.places = distinct_outputs(outputs, lambda y: make(ROWS["positive"], [y]))
        self.plan: Plan = make_plan(inputs, computed, NoTemplates())
        self.deciding = list({x: None for n in order(computed) for x in n.deps[len(n.inputs):]})

    def __call__(self, arrays: Sequence[np.ndarray], rows: list[Row] | None = None) -> list[np.ndarray]:
        sizes = sizes_from(self.inputs, arrays)
        for node, value in zip(self.deciding, Reference(self.inputs, self.deciding)(arrays) if self.deciding else ()):
            sizes[poly.Atom("value", node)] = int(value)
        size_of = sizes.__getitem__
        memory: dict[Any, np.ndarray] = {x: np.ascontiguousarray(a).reshape(-1) for x, a in zip(self.inputs, arrays)}
        for kernel in self.plan.kernels:
            if not all(bool(memory[test][0]) == side for test, side in kernel.guard):
                continue
            start = time.perf_counter()
            plain.run_text(kernel.text, [self._argument(kind, what, memory, size_of) for kind, what in kernel.arguments])
            if rows is not None:
                rows.append(Row(kernel.name, kernel.what, time.perf_counter() - start, poly.evaluate(kernel.moved_bytes(), size_of), 0))
        results = [memory[y] for y in self.plan.outputs]
        shape = lambda dims: tuple(poly.evaluate(d, size_of) for d in dims)
        return [(results[p.k].copy() if p.copied else results[p.k]).reshape(shape(p.dims)) for p in self.places]

    def profile(self, arrays: Sequence[np.ndarray]) -> Profile:
        """Times of the kernels, run by Python, for one call."""
        rows: list[Row] = []
        self(arrays, rows)
        return Profile(rows)

    def _argument(self, kind: str, what: Any, memory: dict[Any, np.ndarray], size_of: Any) -> Any:
        if kind == "size":
            return size_of(what)
        if what not in memory:
            leaf = what.op in (CONSTANT, SHARED, INPUT)
            memory[what] = what.payload.reshape(-1) if leaf else np.empty(poly.evaluate(what._type.size, size_of), what.dtype)
        return memory[what]

    def source(self) -> str:
        """The kernels as text."""
        return "\n\n".join(f"# {k.name}: {k.what}\n{k.text}" for k in self.plan.kernels)

    def explain(self) -> str:
        """What was fused and stored."""
        return table(self.plan)


def build(inputs: Sequence[Node], outputs: Sequence[Node]) -> Executable:
    """An executable for this graph."""
    return Executable(list(inputs), list(outputs))
