"""Walks over graphs: order, consumers, substitution. All iterative: a graph may be as deep as it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .node import CONSTANT, INPUT, SHARED, Node, is_leaf, make


def order(outputs: Iterable[Node], stop: Callable[[Node], bool] = lambda node: False) -> list[Node]:
    """Every node the outputs depend on, inputs before users. Nodes where `stop` holds are listed, not entered."""
    done: set[Node] = set()
    result: list[Node] = []
    stack = [(out, False) for out in reversed(list(outputs))]
    while stack:
        node, entered = stack.pop()
        if entered:
            result.append(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            if not stop(node):
                stack.extend((x, False) for x in reversed(node.inputs) if x not in done)
    return result


def leaves(outputs: Iterable[Node]) -> list[Node]:
    """Inputs and shared variables that the outputs depend on, in order of first use."""
    return [n for n in order(outputs) if n.op is INPUT or n.op is SHARED]


def consumers(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """node -> the nodes that read it (once per use)."""
    table: dict[Node, list[Node]] = {}
    for node in nodes:
        table.setdefault(node, [])
        for x in node.inputs:
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
               rebuild: Callable[[Node, list[Node]], Node] | None = None) -> list[Node]:
    """The outputs with nodes replaced; every match is replaced at once, and what depends on it is rebuilt.

    `rebuild(node, new_inputs)` may say how a node is made again; types are inferred afresh.
    """
    outputs = list(outputs)
    new: dict[Node, Node] = dict(mapping)
    for node in order(outputs, stop=lambda n: n in mapping):
        if node in new:
            continue
        inputs = [new[x] for x in node.inputs]
        if rebuild is not None:
            new[node] = rebuild(node, inputs)
        elif is_leaf(node) or all(a is b for a, b in zip(inputs, node.inputs)):
            new[node] = node
        else:
            new[node] = make(node.op, inputs, **node.attrs)
        copy_notes(new[node], node, scope)
    return [new[out] for out in outputs]


def is_constant(node: Node) -> bool:
    return node.op is CONSTANT
