"""`function(inputs, outputs)`: compile a graph once, call it with arrays."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.config import config
from ..base.errors import BackendError, DTypeError, MissingInputError, ShapeError, SymgradError, UnusedInputError, four_parts
from ..base.origin import show, user_line
from ..graph.block import refuse_unknown
from ..graph.inline import inline_blocks
from ..graph.node import INPUT, SHARED, Node
from ..graph.shared import Shared
from ..graph.types import shape_text
from ..graph.walk import order, substitute
from ..ops.row import as_tensor
from . import arguments, assumptions, checking, pickling
from .pipeline import compile_graph

_count = itertools.count()


def function(inputs: Sequence[Node] | Node, outputs: Any, *, updates: Any = None, givens: Mapping[Node, Any] | None = None,
             backend: str | None = None, name: str | None = None, on_unused_input: str = "raise", check: str | None = None,
             outputs_on_device: bool = False, **unknown: Any) -> Function:
    """A compiled function from arrays to arrays.

    outputs: a variable, a list, tuple or dict of them (the call returns the same structure), or None for updates only.
    updates: {shared: new value}, stored after the outputs are computed, all or none.
    givens: {variable: replacement}, made before compiling.
    backend: "cpu" (Numba kernels), "cuda" (a GPU), "cuda-emulated" (the same kernels without one), "reference" (NumPy, op by op);
        default from config.backend.
    outputs_on_device: results stay in the memory of the GPU; np.asarray copies them, DLPack and the CUDA array interface share them.
    check: "nan" raises NanError at the first op that makes NaN or Inf; "reference" compares every op with NumPy.
    Raises MissingInputError, UnusedInputError (on_unused_input="warn" or "ignore" to allow), ShapeError, DTypeError.
    """
    if outputs_on_device and not (backend or config.backend).startswith("cuda"):
        raise BackendError(four_parts("outputs_on_device=True", f"backend {backend or config.backend!r} computes in host memory", show(user_line()),
                                      "leave it out: the outputs are NumPy arrays"))
    refuse_unknown(unknown, "function", ("updates", "givens", "backend", "name", "on_unused_input", "check"))
    ins = [inputs] if isinstance(inputs, Node) else list(inputs)
    check_inputs(ins)
    structure, outs = flatten_outputs(outputs)
    pairs = update_pairs(updates)
    pairs += advancing([*outs, *(new for _, new in pairs)], [target for target, _ in pairs])
    replaced = substitute_givens([*outs, *(new for _, new in pairs)], givens)
    outs, news = replaced[:len(outs)], replaced[len(outs):]
    new_values = [fitting_update(target, new) for (target, _), new in zip(pairs, news)]
    check_reach(ins, [*outs, *new_values], on_unused_input)
    label = name or f"function{next(_count)}"
    made = Function(ins, outs, structure, [t for t, _ in pairs], new_values, backend or config.backend, label, check)
    if outputs_on_device:
        made.executable.outputs_on_device = True
    return made


class Function:
    """A compiled function. Call it with arrays, by position or by input name."""

    def __init__(self, inputs: list[Node], outputs: list[Node], structure: Any, targets: list[Shared], new_values: list[Node],
                 backend: str, name: str, check: str | None) -> None:
        self.inputs, self.outputs, self.structure, self.targets = inputs, outputs, structure, targets
        self.new_values, self.backend, self.name, self.check = new_values, backend, name, check
        self.__name__ = name
        self._lock = threading.Lock()
        self.receipts = collect_receipts([*outputs, *new_values])
        everything = inline_blocks([*outputs, *new_values])
        self._run_checks = assumptions.checked_while_running(everything)
        computed = [*everything, *(condition for _, condition in self._run_checks)]
        self._open_updates = not all(n._type.is_static for n in new_values)
        # what may be refused after it was computed, or is computed a second time to compare, must leave the old values
        keep_old = self._run_checks or self._open_updates or check
        in_place = {} if keep_old else {len(outputs) + k: target for k, target in enumerate(targets)}
        self.executable = checking.checked(check, compile_graph(inputs, computed, backend, in_place), inputs, computed)
        self._assumptions: list[Any] = [*assumptions.collect(everything), *assumptions.positions(everything)]
        self._sizes_meet = bool(self._assumptions) or assumptions.sizes_meet(inputs)
        self._native = getattr(self.executable, "fast", None) if not self._sizes_meet else None
        # a function with updates reads and writes parameters: one call at a time
        self._fast = self._native if not targets else None
        self._finished = self._finish if targets or self._run_checks else structure

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fast = self._fast
        if fast is not None and not kwargs and config.debug < 2:
            results = fast(args)
            if results is not None:
                return self._finished(results)
        with self._lock:
            results = self._native(args) if self._native is not None and not kwargs else None
            return self._finish(self._run(args, kwargs) if results is None else results)

    def _run(self, args: tuple, kwargs: Mapping[str, Any]) -> list[np.ndarray]:
        """The way that converts and explains: for arguments that the native entry does not take as they are."""
        values = arguments.ordered(self.inputs, args, kwargs, self.name) if kwargs or len(args) != len(self.inputs) else args
        arrays = [arguments.converted(x, v, k) for k, (x, v) in enumerate(zip(self.inputs, values))]
        if self._sizes_meet:
            assumptions.verify(self._assumptions, self.inputs, arrays)
        return self.executable(arrays)

    def _finish(self, results: list[np.ndarray]) -> Any:
        """Refuse what only the run could show to be wrong, store the updates and give the outputs their structure."""
        for refusal, _ in reversed(self._run_checks):
            if results.pop():
                raise refusal()
        if self.targets:
            values = results[len(self.outputs):]
            if self._open_updates:
                self._check_updates(values)
            for target, value in zip(self.targets, values):
                target.replace(value)
            results = results[:len(self.outputs)]
        return self.structure(results)

    def _check_updates(self, values: Sequence[np.ndarray]) -> None:
        """Refuse all updates when one of them turns out to have another shape than its variable."""
        for target, value, node in zip(self.targets, values, self.new_values):
            if value.shape != target.payload.shape:
                raise ShapeError(four_parts(f"an update of {target.name or 'a shared variable'} of shape {target.payload.shape}",
                                            f"shape {value.shape}, {node.op.name} made at {node.where}; nothing was updated", show(user_line()),
                                            "updates keep the shape"))

    def copy(self) -> Function:
        """The same function with shared values of its own."""
        own: dict[Node, Shared] = {s: Shared(s.payload.copy(), s.name) for s in self.shared()}
        nodes = substitute([*self.outputs, *self.new_values], own)
        twin = Function(self.inputs, nodes[:len(self.outputs)], self.structure, [own[t] for t in self.targets],
                        nodes[len(self.outputs):], self.backend, self.name, self.check)
        twin.receipts = list(self.receipts)
        return twin

    def shared(self) -> list[Shared]:
        """The shared variables the function reads or updates."""
        found = {n: None for n in order([*self.outputs, *self.new_values]) if n.op is SHARED}
        found.update((t, None) for t in self.targets)
        return list(found)  # type: ignore[arg-type]

    def source(self) -> str:
        """The generated kernels as text."""
        return self.executable.source()

    def explain(self) -> str:
        """What was fused, stored and reused."""
        return self.executable.explain()

    def profile(self, *args: Any, **kwargs: Any) -> Any:
        """A table per kernel: time, calls, GB/s, GFLOP/s, for one call with these arguments."""
        values = arguments.ordered(self.inputs, args, kwargs, self.name)
        return self.executable.profile([arguments.converted(x, v, k) for k, (x, v) in enumerate(zip(self.inputs, values))])

    def __reduce__(self) -> tuple[Any, ...]:
        return load_function, (pickling.dump_function(self),)

    def __repr__(self) -> str:
        names = ", ".join(x.name or f"arg{k}" for k, x in enumerate(self.inputs))
        return f"<{self.name}({names}) on {self.backend}>"


def load_function(record: Mapping[str, Any]) -> Function:
    """A pickled function again: it recompiles, or finds its kernels in the cache."""
    nodes = pickling.load_graph(record["graph"])
    pick = lambda key: [nodes[k] for k in record[key]]
    f = Function(pick("inputs"), pick("outputs"), record["structure"], pick("targets"), pick("new_values"),
                 record["backend"], record["name"], record["check"])
    f.receipts = record["receipts"]
    return f


# ---------------------------------------------------------------------------------------- what was asked
def check_inputs(inputs: list[Any]) -> None:
    for x in inputs:
        if not isinstance(x, Node) or x.op is not INPUT:
            found = f"{x.op.name} ({x._type}), made at {x.where}" if isinstance(x, Node) else f"{type(x).__name__} {x!r:.40}"
            hint = "shared variables are not listed; givens={x: value} replaces inner variables"
            raise DTypeError(four_parts("function inputs made by T.tensor and its kin", found, show(user_line()), hint))
    twice = [x for k, x in enumerate(inputs) if any(x is y for y in inputs[:k])]
    if twice:
        raise UnusedInputError(four_parts("each input once", f"{twice[0].name or 'an input'} ({twice[0]._type}) is listed twice", show(user_line())))


def flatten_outputs(outputs: Any) -> tuple[Structure, list[Node]]:
    if outputs is None:
        return Structure("none"), []
    if isinstance(outputs, Mapping):
        return Structure("dict", tuple(outputs)), [output(y) for y in outputs.values()]
    if isinstance(outputs, (list, tuple)):
        return Structure("tuple" if isinstance(outputs, tuple) else "list"), [output(y) for y in outputs]
    return Structure("one"), [output(outputs)]


def output(value: Any) -> Node:
    node = as_tensor(value)
    if not hasattr(node._type, "dims"):
        raise DTypeError(four_parts("outputs that are arrays", f"{node.op.name} with several results", show(user_line()), "list its results"))
    return node


class Structure:
    """Puts results back into the structure the outputs were asked in."""

    def __init__(self, kind: str, keys: tuple = ()) -> None:
        self.kind, self.keys = kind, keys

    def __call__(self, results: list[np.ndarray]) -> Any:
        if self.kind == "one":
            return results[0]
        if self.kind == "list":
            return results
        if self.kind == "dict":
            return dict(zip(self.keys, results))
        return tuple(results) if self.kind == "tuple" else None


def update_pairs(updates: Any) -> list[tuple[Shared, Any]]:
    """[(shared, new value)] from a dict or pairs. Raises DTypeError for a target that is not shared."""
    pairs = list(updates.items()) if isinstance(updates, Mapping) else list(updates or ())
    for target, _ in pairs:
        if not isinstance(target, Shared):
            found = f"{target.op.name} ({target._type}), made at {target.where}" if isinstance(target, Node) else f"{type(target).__name__}"
            raise DTypeError(four_parts("updates of shared variables", found, show(user_line()), "sg.shared(value)"))
    targets = [t for t, _ in pairs]
    if len(set(targets)) != len(targets):
        raise SymgradError(four_parts("one update per shared variable", "one is listed twice", show(user_line())))
    return pairs


def advancing(nodes: list[Any], updated: list[Shared]) -> list[tuple[Shared, Any]]:
    """Updates that shared variables bring along: the state of a random stream moves on at every call that draws from it."""
    read = [n for n in order(as_tensor(n) for n in nodes) if isinstance(n, Shared) and n.advance is not None]
    return [(s, s.advance(s)) for s in read if s.advance is not None and not any(s is u for u in updated)]


def fitting_update(target: Shared, new: Node) -> Node:
    if new.dtype != target.dtype:
        raise DTypeError(four_parts(f"an update of {target.name or 'a shared variable'} ({target._type})", f"{new._type}, made at {new.where}",
                                    show(user_line()), f"new.astype({target.dtype!r})"))
    if new.ndim != target.ndim or any(isinstance(a, int) and a != b for a, b in zip(new.dims, target.dims)):
        raise ShapeError(four_parts(f"an update of {target.name or 'a shared variable'} of shape {shape_text(target.dims)}",
                                    f"{shape_text(new.dims)}, made at {new.where}", show(user_line()), "updates keep the shape"))
    return new


def substitute_givens(nodes: Iterable[Any], givens: Mapping[Node, Any] | Iterable[tuple[Node, Any]] | None) -> list[Node]:
    nodes = [as_tensor(n) for n in nodes]
    if not givens:
        return nodes
    mapping = {}
    for old, new in (givens.items() if isinstance(givens, Mapping) else givens):
        new = as_tensor(new, old.dtype) if not isinstance(new, Node) else new
        if new.dtype != old.dtype or new.ndim != old.ndim:
            raise DTypeError(four_parts(f"givens for {old.name or old.op.name} ({old._type})", f"{new._type}", show(user_line()),
                                        "a replacement has the dtype and rank of what it replaces"))
        mapping[old] = new
    return substitute(nodes, mapping)


def check_reach(inputs: list[Node], nodes: list[Node], on_unused_input: str) -> None:
    """Every leaf is an input; every input is used."""
    if on_unused_input not in ("raise", "warn", "ignore"):
        raise SymgradError(four_parts(f"on_unused_input={on_unused_input!r}", "it is 'raise', 'warn' or 'ignore'", show(user_line())))
    used = {n for n in order(nodes) if n.op is INPUT}
    missing = sorted(used - set(inputs), key=lambda n: n.serial)
    if missing:
        names = [f"{x.name or 'an unnamed input'} ({x._type}), made at {x.where}" for x in missing]
        raise MissingInputError(four_parts("a function of its inputs", ["the outputs also need:", *names], show(user_line()),
                                           "add it to the inputs, or replace it through givens"))
    unused = [x for x in inputs if x not in used and not _decides_a_size(x, nodes)]
    if unused and on_unused_input != "ignore":
        text = four_parts("inputs that the outputs use", [f"{x.name or 'an unnamed input'} ({x._type}), made at {x.where}" for x in unused],
                          show(user_line()), 'on_unused_input="ignore" if that is intended')
        if on_unused_input == "raise":
            raise UnusedInputError(text)
        warnings.warn(text, stacklevel=3)


def _decides_a_size(x: Node, nodes: list[Node]) -> bool:
    own = {a for d in x.dims for a in poly.atoms(d)}
    if not own:
        return False
    return any(own & poly.atoms(d) for n in order(nodes) for d in getattr(n._type, "dims", ()))


def collect_receipts(nodes: list[Node]) -> list[Any]:
    """The override receipts of every `grad` inside the graph."""
    found: dict[int, Any] = {}
    for node in order(nodes):
        for r in node.notes.receipts:
            found[id(r)] = r
    return list(found.values())


_eval_cache: dict[tuple, Function] = {}


def evaluate(node: Node, values: Mapping[Node, Any] | None = None, backend: str | None = None) -> np.ndarray:
    """The value of a variable given those of its inputs; compiled once per variable and set of inputs."""
    values = dict(values or {})
    chosen = backend or config.backend
    key = (node.serial, tuple(x.serial for x in values), chosen)
    found = _eval_cache.get(key)
    if found is None:
        extra = {x: y for x, y in values.items() if x.op is not INPUT}
        fresh = {x: x.type(x.name) for x in extra}
        found = function([fresh.get(x, x) for x in values], substitute([node], fresh)[0], backend=chosen, on_unused_input="ignore", name="eval")
        if len(_eval_cache) >= 256:
            _eval_cache.clear()
        _eval_cache[key] = found
    return found(*values.values())


__all__ = ["Function", "evaluate", "function"]
