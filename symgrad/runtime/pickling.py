"""Graphs as plain records, for pickling compiled functions: nodes by position, ops by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..base import poly
from ..graph.inline import inline_blocks
from ..graph.node import CONSTANT, INPUT, SHARED, Node, constant, make, new_input
from ..graph.scan import Scan, Structure, is_scan, scan_of
from ..graph.shared import Shared
from ..graph.types import Type
from ..graph.walk import order
from ..ops.counted import size_counted_by


def dump_graph(roots: Sequence[Node]) -> list[dict[str, Any]]:
    """One record per node, inputs first. Blocks must have been inlined."""
    nodes = order(roots)
    place = {n: k for k, n in enumerate(nodes)}
    return [_record(n, place) for n in nodes]


def _record(node: Node, place: dict[Node, int]) -> dict[str, Any]:
    notes = (node.notes.label, node.notes.scopes, node.notes.origin)
    if node.op in (INPUT, SHARED, CONSTANT):
        return {"leaf": node.op.name, "type": (node.dtype, node.dims), "value": node.payload, "notes": notes}
    inputs = [place[x] for x in node.inputs]
    op = dump_loop(node.op) if is_scan(node) else node.op
    return {"op": op, "inputs": inputs, "attrs": {k: _without_nodes(v, place) for k, v in node.attrs.items()}, "notes": notes}


@dataclass(frozen=True)
class _Loop:
    """A loop's body as records, and the places of its inputs and outputs among them."""

    structure: Structure
    records: list[dict[str, Any]]
    inputs: list[int]
    outputs: list[int]
    symbols: tuple[poly.Atom, ...]


def dump_loop(op: Scan) -> _Loop:
    body = op.body
    roots = [*body.inputs, *body.outputs]
    place = {n: k for k, n in enumerate(order(roots))}
    return _Loop(body.structure, dump_graph(roots), [place[x] for x in body.inputs], [place[y] for y in body.outputs], op.symbols)


def load_loop(loop: _Loop, sizes: tuple) -> tuple[Scan, tuple]:
    """The op of the body, and the sizes that its symbols stand for."""
    nodes = load_graph(loop.records)
    op, symbols = scan_of(loop.structure.over([nodes[k] for k in loop.inputs], [nodes[k] for k in loop.outputs]))
    given = dict(zip(loop.symbols, sizes))
    return op, tuple(poly.substitute(s, given.get) for s in symbols)


class _At:
    """The place of a variable whose value decides a size."""

    def __init__(self, place: int):
        self.place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _At) and self.place == other.place

    def __hash__(self) -> int:
        return hash(("at", self.place))


def _without_nodes(value: Any, place: dict[Node, int]) -> Any:
    def hide(a: poly.Atom) -> Any:
        return poly.atom(a.kind, _At(place[a.args[0]])) if a.kind in ("value", "counted") and isinstance(a.args[0], Node) else None
    if isinstance(value, tuple):
        return tuple(_without_nodes(v, place) for v in value)
    return poly.substitute(value, hide)


def _with_nodes(value: Any, nodes: list[Node]) -> Any:
    def find(a: poly.Atom) -> Any:
        if a.kind not in ("value", "counted") or not isinstance(a.args[0], _At):
            return None
        node = nodes[a.args[0].place]
        return size_counted_by(node) if a.kind == "counted" else poly.atom("value", node)
    if isinstance(value, tuple):
        return tuple(_with_nodes(v, nodes) for v in value)
    return poly.substitute(value, find)


def load_graph(records: Sequence[dict[str, Any]]) -> list[Node]:
    """The nodes of `dump_graph`, made anew."""
    nodes: list[Node] = []
    for r in records:
        if "leaf" not in r:
            op, attrs = r["op"], {k: _with_nodes(v, nodes) for k, v in r["attrs"].items()}
            if isinstance(op, _Loop):
                op, attrs["sizes"] = load_loop(op, attrs["sizes"])
            node = make(op, [nodes[k] for k in r["inputs"]], **attrs)
        elif r["leaf"] == "input":
            node = new_input(Type(*r["type"]))
        else:
            node = Shared(r["value"].copy()) if r["leaf"] == "shared" else constant(r["value"])
        label, scopes, origin = r["notes"]
        node.notes.label, node.notes.scopes, node.notes.origin = node.notes.label or label, scopes, origin
        nodes.append(node)
    return nodes


def dump_function(f: Any) -> dict[str, Any]:
    nodes = inline_blocks([*f.outputs, *f.new_values])
    roots = [*f.inputs, *f.targets, *nodes]
    place = {n: k for k, n in enumerate(order(roots))}
    return {"graph": dump_graph(roots), "inputs": [place[x] for x in f.inputs], "targets": [place[t] for t in f.targets],
            "outputs": [place[n] for n in nodes[:len(f.outputs)]], "new_values": [place[n] for n in nodes[len(f.outputs):]],
            "structure": f.structure, "backend": f.backend, "name": f.name, "check": f.check,
            "receipts": f.receipts}
