"""The reference backend: walks the graph with each row's NumPy spelling. Shares no code with loops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import BackendError, ShapeError, SymgradError, four_parts
from ..graph.node import CONSTANT, INPUT, ITEM, SHARED, Node
from ..graph.scan import is_scan
from ..graph.walk import order
from ..ops.branch import guards
from .profile import Profile, Row

Watch = Callable[[Node, Any], None]


def sizes_from(inputs: Sequence[Node], arrays: Sequence[Any]) -> dict[poly.Atom, int]:
    """The sizes that the arguments of a call decide; they have been checked before."""
    sizes: dict[poly.Atom, int] = {}
    for x, array in zip(inputs, arrays):
        for dim, size in zip(x.dims, array.shape):
            if isinstance(dim, poly.Poly) and len(dim.terms) == 1:
                sizes[next(iter(dim.terms))[0]] = size
    return sizes


def evaluated(attrs: Mapping[str, Any], size_of: Callable[[poly.Atom], int]) -> dict[str, Any]:
    """Attributes with sizes as ints."""
    def value(item: Any) -> Any:
        if isinstance(item, tuple):
            return tuple(value(i) for i in item)
        return poly.evaluate(item, size_of) if isinstance(item, poly.Poly) else item
    return {k: value(v) for k, v in attrs.items()}


class Reference:
    """A graph ready to run op by op. `watch(node, value)` sees every result."""

    backend = "reference"

    def __init__(self, inputs: Sequence[Node], outputs: Sequence[Node]):
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.nodes = order(outputs)
        last: dict[Node, int] = {}
        for k, node in enumerate(self.nodes):
            for x in node.deps:
                last[x] = k
        self.guards = guards(outputs)
        keep = {*self.outputs}
        self.free_after = [[x for x in set(n.deps) if last[x] == k and x not in keep] for k, n in enumerate(self.nodes)]

    def __call__(self, arrays: Sequence[np.ndarray], watch: Watch | None = None,
                 given: Mapping[poly.Atom, int] | None = None) -> list[np.ndarray]:
        """The outputs for these arguments; `given`: sizes that the arguments do not tell."""
        values: dict[Node, Any] = dict(zip(self.inputs, arrays))
        sizes = {**sizes_from(self.inputs, arrays), **(given or {})}

        def size_of(a: poly.Atom) -> int:
            return sizes[a] if a in sizes else int(values[a.args[0]])

        for node, dead in zip(self.nodes, self.free_after):
            if node in values or not all(bool(values[test]) == side for test, side in self.guards.get(node, ())):
                continue
            values[node] = value_of(node, values, size_of, watch)
            if watch is not None and node.op not in (CONSTANT, SHARED):
                watch(node, values[node])
            for x in dead:
                if not any(a.kind == "value" for d in getattr(x._type, "dims", ()) for a in poly.atoms(d)):
                    values.pop(x, None)
        return owned([values[y] for y in self.outputs], [y.op in (CONSTANT, SHARED, INPUT) for y in self.outputs])

    def source(self) -> str:
        """The graph it walks, one line per op."""
        return "\n".join(f"{n.op.name}: {n._type}  # {n.where}" for n in self.nodes if n.deps)

    def explain(self) -> str:
        """What runs: every op by itself, in NumPy."""
        counts = Counter(n.op.name for n in self.nodes if n.deps)
        ops = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        return f"{sum(counts.values())} ops, run one by one in NumPy: {ops}"

    def profile(self, arrays: Sequence[np.ndarray]) -> Profile:
        """Times per op, for one call."""
        rows: list[Row] = []
        last = time.perf_counter()

        def watch(node: Node, value: Any) -> None:
            nonlocal last
            now = time.perf_counter()
            if node.deps:
                rows.append(Row(f"op{len(rows)}", node.op.name, now - last, getattr(value, "nbytes", 0), 0))
            last = now

        self(arrays, watch)
        return Profile(rows)


def owned(results: Sequence[np.ndarray], borrowed: Sequence[bool]) -> list[np.ndarray]:
    """The results as arrays that are the caller's to change: no argument, parameter or constant, no view, none twice."""
    seen: set[int] = set()
    mine = []
    for array, is_leaf in zip(results, borrowed):
        if is_leaf or array.base is not None or id(array) in seen:
            array = np.array(array, order="C")
        seen.add(id(array))
        mine.append(array)
    return mine


def value_of(node: Node, values: Mapping[Node, Any], size_of: Callable[[poly.Atom], int], watch: Watch | None = None) -> Any:
    if node.op is CONSTANT or node.op is SHARED:
        return node.payload
    if node.op is ITEM:
        return values[node.inputs[0]][node.attrs["k"]]
    if is_scan(node):
        return run_loop(node, [values[x] for x in node.inputs], size_of, watch)
    if not hasattr(node.op, "numpy"):
        raise BackendError(four_parts(f"the reference backend runs {node.op.name}", "the op has no NumPy spelling", node.where))
    try:
        with np.errstate(all="ignore"):
            operands = [values.get(x) if node.op.lazy else values[x] for x in node.inputs]
            result = node.op.numpy(*operands, **evaluated(node.attrs, size_of))
    except SymgradError:
        raise
    except (ValueError, IndexError) as error:
        raise failure(node, [values[x] for x in node.inputs], error) from error
    return np.asarray(result, dtype=node.dtype) if hasattr(node._type, "dtype") else result


def run_loop(node: Node, arrays: Sequence[np.ndarray], size_of: Callable[[poly.Atom], int], watch: Watch | None = None) -> list[np.ndarray]:
    """The results of a loop, its body run op by op at every step; `watch` sees the results of every step."""
    body, n = node.op.body, poly.evaluate(node.attrs["n"], size_of)
    given = {a: poly.evaluate(size, size_of) for a, size in node.op.given(node.attrs["sizes"]).items()}
    first, states = len(body.elements), len(body.states)
    sequences, initials, constants = arrays[:first], arrays[first:first + states], arrays[first + states:]
    for x, array in zip(node.inputs, sequences):
        if len(array) != n:
            raise ShapeError(four_parts(f"a loop of {n} steps", f"{x.name or x.op.name} has {len(array)} rows", f"scan made at {node.where}"))
    step = Reference(body.inputs, body.outputs)
    rows = [list(x) for x in initials]
    outs: list[list[np.ndarray]] = [[] for _ in body.outs]
    t = 0
    while t < n:
        reads = [rows[j][t + s.depth + tap] for j, s in enumerate(body.states) for tap in s.taps]
        results = step([np.array(t), *(x[t] for x in sequences), *reads, *constants], watch, given)
        for kept, value in zip([*rows, *outs], results):
            kept.append(value)
        t += 1
        if body.until is not None and results[-1]:
            break
    items = []
    for state, kept, initial in zip(body.states, rows, initials):
        trajectory = padded(kept, state.depth + n, initial.shape[1:], initial.dtype)
        items += [trajectory, trajectory[t:t + state.depth].copy()]
    shape = lambda y: tuple(poly.evaluate(d, lambda a: given[a] if a in given else size_of(a)) for d in y.dims)
    items += [padded(kept, n, shape(y), np.dtype(y.dtype)) for y, kept in zip(body.outs, outs)]
    return [*items, *([np.array(t)] if body.until is not None else [])]


def padded(rows: Sequence[np.ndarray], n: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """n rows: those there are, then zeros for steps that were not taken."""
    result = np.zeros((n, *shape), dtype)
    if rows:
        result[:len(rows)] = rows
    return result


def failure(node: Node, inputs: Sequence[Any], error: Exception) -> SymgradError:
    """What NumPy found wrong, told at the line that made the node."""
    kind = RunIndexError if isinstance(error, IndexError) else ShapeError
    shapes = [f"{x.name or x.op.name}: {v.dtype} {v.shape}, made at {x.where}" for x, v in zip(node.inputs, inputs)]
    return kind(four_parts(f"{node.op.name} at run time", [str(error), *shapes], f"{node.op.name} made at {node.where}",
                           "check the sizes and indices passed to this call"))


class RunIndexError(SymgradError, IndexError):
    """An index outside its axis, found when the function ran."""


def build(inputs: Sequence[Node], outputs: Sequence[Node]) -> Reference:
    """An executable that runs op by op in NumPy."""
    return Reference(inputs, outputs)
