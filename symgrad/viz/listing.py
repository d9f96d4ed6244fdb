"""A graph as lines of text, one per node, and what is known about each line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from symgrad.base.poly import Poly
from symgrad.grad.receipts import receipt
from symgrad.graph.node import CONSTANT, INPUT, SHARED, Node
from symgrad.graph.scan import is_scan
from symgrad.graph.types import TupleType, shape_text
from symgrad.graph.walk import order


@dataclass(frozen=True)
class Line:
    """One node of a listing: its place, its text, and the override rule that replaced its gradient, if any."""

    node: Node
    place: int
    text: str
    rule: str | None


def text(graph: Any) -> str:
    """The graph as text: `%3 = add(%1, b) : float32 (n, 32)  # model.py:12`, inputs before users.

    Named inputs and shared variables appear by name. A line ends in `overridden by RULE` where a rule was applied.
    """
    return "\n".join(line.text for line in lines(graph))


def lines(graph: Any) -> list[Line]:
    """The listing of a graph, line by line; leaves with a name of their own are not listed."""
    roots = variables(graph)
    nodes = order(roots)
    rules = overridden(roots)
    names = leaf_names(nodes)
    places: dict[Node, int] = {}
    found = []
    for node in nodes:
        if node in names:
            continue
        places[node] = len(places)
        label = f" {node.name}" if node.name and node.name != node.op.name else ""
        rule = rules.get(node)
        mark = f", overridden by {rule}" if rule else ""
        written = f"%{places[node]} = {call_text(node, names, places)} : {type_text(node)}{label}  # {node.where}{mark}"
        found.append(Line(node, places[node], written, rule))
        if is_scan(node):
            operands = [names[x] if x in names else f"%{places[x]}" for x in node.inputs]
            found += [Line(n, place, "    " + line, rule) for n, place, line in step_lines(node, f"%{places[node]}.", operands)]
    return found


def step_lines(loop: Node, prefix: str, operands: Sequence[str]) -> list[tuple[Node, int, str]]:
    """What a step of a loop computes, line by line: rows of `operands`, states by number and tap, results by what becomes of them."""
    body = loop.op.body
    states = [f"state{j}[{tap}]" for j, s in enumerate(body.states) for tap in s.taps]
    first, carried = len(body.elements), len(body.states)
    inputs = ["step", *(f"{x}[step]" for x in operands[:first]), *states, *operands[first + carried:]]
    names = {**leaf_names([n for n in order(body.outputs) if n.op is CONSTANT]), **dict(zip(body.inputs, inputs))}
    found = []
    for node in order(body.outputs):
        if node not in names:
            written = call_text(node, names, {})
            names[node] = f"{prefix}{len(found)}"
            found.append((node, len(found), f"{names[node]} = {written} : {type_text(node)}  # {node.where}"))
    results = [f"state{j}: {names[s.next]}" for j, s in enumerate(body.states)] + [f"out{m}: {names[y]}" for m, y in enumerate(body.outs)]
    if body.until is not None:
        results.append(f"until: {names[body.until]}")
    return [*found, (loop, len(found), ", ".join(results))]


def variables(graph: Any) -> list[Node]:
    """The outputs of what a user passed: a variable, several of them, or a compiled function."""
    if isinstance(graph, Node):
        return [graph]
    if hasattr(graph, "new_values"):
        return [*graph.outputs, *graph.new_values]
    return list(graph.values() if isinstance(graph, Mapping) else graph)


def overridden(roots: Sequence[Node]) -> dict[Node, str]:
    """The nodes whose gradient a rule replaced, with the rule's name."""
    hits = {hit.serial: hit for hit in receipt(list(roots))}
    return {node: hits[node.serial].rule for node in order(roots)
            if node.serial in hits and hits[node.serial].node_line == node.where}


def leaf_names(nodes: Sequence[Node]) -> dict[Node, str]:
    """How leaves are written: by name, or by value when they are small constants. Names are made distinct."""
    names: dict[Node, str] = {}
    taken: dict[str, int] = {}
    for node in nodes:
        if node.op is CONSTANT:
            names[node] = constant_text(node.payload)
        elif node.op is INPUT or node.op is SHARED:
            base = node.name or node.op.name
            taken[base] = taken.get(base, 0) + 1
            names[node] = base if taken[base] == 1 else f"{base}'{taken[base]}"
    return names


def constant_text(value: np.ndarray) -> str:
    if value.size == 1 and not value.ndim:
        return f"{value.item()!r}"
    return f"constant{shape_text(value.shape)}" if value.size > 4 else str(value.tolist())


def call_text(node: Node, names: Mapping[Node, str], places: Mapping[Node, int]) -> str:
    operands = [names[x] if x in names else f"%{places[x]}" for x in node.inputs]
    return f"{node.op.name}({', '.join([*operands, *(f'{k}={attribute_text(v)}' for k, v in node.attrs.items())])})"


def attribute_text(value: Any) -> str:
    if isinstance(value, tuple):
        return shape_text(value) if all(isinstance(v, (int, Poly)) for v in value) else f"({', '.join(map(attribute_text, value))})"
    return repr(value)


def type_text(node: Node) -> str:
    if isinstance(node._type, TupleType):
        return "(" + ", ".join(f"{t.dtype} {shape_text(t.dims)}" for t in node._type.items) + ")"
    return f"{node.dtype} {shape_text(node.dims)}"

