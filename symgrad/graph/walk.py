"""Walks over graphs: order, consumers, substitution. All iterative: a graph may be as deep as it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..base import poly
from .node import CONSTANT, INPUT, SHARED, Node, is_leaf, make, unshared


def order(outputs: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """Every node the outputs depend on, inputs before users. Nodes where `stop` holds are listed, not entered."""
    done: set[Node] = set()
    result: list[Node] = []
    stack: list[Node | None] = [*reversed(list(outputs))]
    while stack:
        node = stack.pop()
        if node is None:                    # what stands below it has been entered, and everything it needs is listed
            result.append(stack.pop())      # type: ignore[arg-type]
        elif node not in done:
            done.add(node)
            if not node.deps or (stop is not None and stop(node)):
                result.append(node)
                continue
            stack += (node, None)
            for x in reversed(node.deps):
                if x not in done:
                    stack.append(x)
    return result


def leaves(outputs: Iterable[Node]) -> list[Node]:
    """Inputs and shared variables that the outputs depend on, in order of first use."""
    return [n for n in order(outputs) if n.op is INPUT or n.op is SHARED]


def consumers(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """node -> the nodes that read it (once per use)."""
    table: dict[Node, list[Node]] = {}
    for node in nodes:
        table.setdefault(node, [])
        for x in node.deps:
            table.setdefault(x, []).append(node)
    return table


def depends_on(outputs: Iterable[Node], sources: Iterable[Node]) -> set[Node]:
    """The nodes on some path from a source to an output, sources included."""
    reached = set(sources)
    for node in order(outputs):
        if node not in reached and any(x in reached for x in node.inputs):
            reached.add(node)
    return reached


def copy_notes(new: Node, old: Node, scope: str = "") -> None:
    """`new` stands for `old`: it takes over label, line and scopes (below `scope`), unless it has its own label."""
    if new is old:
        return
    notes = new.notes
    notes.origin = old.notes.origin or notes.origin
    notes.label = notes.label or old.notes.label
    for inner in old.notes.scopes or (("",) if scope else ()):
        path = "/".join(filter(None, (scope, inner)))
        if path and path not in notes.scopes:
            notes.scopes += (path,)


def substitute(outputs: Iterable[Node], mapping: Mapping[Node, Node], scope: str = "",
               rebuild: Callable[[Node, list[Node]], Node] | None = None, sizes: Mapping[poly.Atom, Any] | None = None) -> list[Node]:
    """The outputs with nodes replaced; every match is replaced at once, and what depends on it is rebuilt.

    `rebuild(node, new_inputs)` may say how a node is made again; types are inferred afresh. `sizes`: size symbols to replace as well.
    """
    outputs = list(outputs)
    new: dict[Node, Node] = dict(mapping)
    sizes = {**size_map(mapping), **(sizes or {})}
    for node in order(outputs, stop=lambda n: n in mapping):
        if node in new:
            continue
        inputs = [new[x] for x in node.inputs]
        if rebuild is not None:
            new[node] = rebuild(node, inputs)
        elif is_leaf(node):
            new[node] = node
        else:
            attrs = resized(node.attrs, sizes, new)
            same = attrs is node.attrs and all(a is b for a, b in zip(inputs, node.inputs))
            new[node] = node if same else make(node.op, inputs, **attrs)
            if node.notes.receipts and not same:
                new[node] = unshared(new[node])
                new[node].notes.receipts = node.notes.receipts
        copy_notes(new[node], node, scope)
    return [new[out] for out in outputs]


def size_map(mapping: Mapping[Node, Node]) -> dict[poly.Atom, Any]:
    """The sizes that change when nodes are replaced: symbol -> its new value."""
    sizes: dict[poly.Atom, Any] = {}
    for old, new in mapping.items():
        for a, b in zip(getattr(old._type, "dims", ()), getattr(new._type, "dims", ())):
            if isinstance(a, poly.Poly) and a != b and len(a.terms) == 1:
                (mono, c), = a.terms.items()
                if c == 1 and len(mono) == 1 and mono[0].kind in ("symbol", "counted"):
                    sizes.setdefault(mono[0], b)
    return sizes


def resized(attrs: Mapping[str, Any], sizes: Mapping[poly.Atom, Any], new: Mapping[Node, Node]) -> Mapping[str, Any]:
    """Attributes with sizes replaced; the same object when nothing changes."""
    def replace(a: poly.Atom) -> Any:
        if a in sizes or a.kind not in ("value", "counted") or not isinstance(a.args[0], Node):
            return sizes.get(a)
        value = new.get(a.args[0], a.args[0])
        return int(value.payload) if value.op is CONSTANT else poly.atom(a.kind, value, *bound_of(a, value))

    def change(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(change(v) for v in value)
        return poly.substitute(value, replace)

    def bound_of(a: poly.Atom, count: Node) -> list[Any]:
        return [count.attrs["bound"]] if a.kind == "counted" else []

    changed = {k: change(v) for k, v in attrs.items()}
    return attrs if all(changed[k] == attrs[k] for k in attrs) else changed


def is_constant(node: Node) -> bool:
    return node.op is CONSTANT
