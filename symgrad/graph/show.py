"""A graph as text that can be read back (`parse.py`), for looking at, comparing and keeping.

    graph = block* line* "return" node, ...
    block = "block" @name ":" line* "inputs" node, ... "return" node, ...
    line  = %k ["label"] "=" value ":" type ["#" file:line]
    value = "input" | "shared" [data] | "constant" data | op(node, ..., attribute=value, ...) | "call" @name(node, ...)
    data  = number | [number, ...] in row-major order | base64"bytes"
    type  = dtype (size, ...)          size = 3 | n | ?0 | sums and products of these

Unknown sizes are numbered as they appear. Scopes, receipts and gradient rules are not part of the text.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base import poly
from .block import Body, Call
from .node import CONSTANT, INPUT, ITEM, SHARED, Node
from .scan import Scan
from .types import TupleType
from .walk import order

LISTED = 16  # elements of a constant that are written as numbers; more are written as bytes
SHORT = 12  # nodes that `repr` shows
RESERVED = {"max", "min", "floordiv", "mod", "value", "counted", "size", "True", "False", "None", "nan", "inf"}


def graph_text(outputs: Node | Sequence[Node], *, values: bool = False) -> str:
    """The graph of these variables, one line per node. `values` writes the values of shared variables too."""
    roots = [outputs] if isinstance(outputs, Node) else list(outputs)
    writer = Writer(values)
    lines = writer.lines(roots)
    returned = f"return {', '.join(writer.names[y] for y in roots)}" + (
        "" if isinstance(outputs, Node) else ","
    )
    return "\n".join([*writer.blocks, *lines, returned]) + "\n"


def node_text(node: Node) -> str:
    """What `repr` shows: the text of a small graph, one line about a large one."""
    if isinstance(node.op, Call) or not _is_small(node):
        operands = ", ".join(x.name or x.op.name for x in node.inputs)
        return f"<{node.name + ' = ' if node.name else ''}{node.op.name}({operands}) : {node._type!r}, made at {node.where}>"
    writer = Writer(False)
    return "\n".join([*writer.blocks, *writer.lines([node])])


def _is_small(node: Node) -> bool:
    seen, todo = {node}, [node]
    while todo and len(seen) <= SHORT:
        for x in todo.pop().deps:
            if x not in seen:
                seen.add(x)
                todo.append(x)
    return len(seen) <= SHORT


class Writer:
    """Numbers the nodes of one graph, or of one block, and spells them."""

    def __init__(self, values: bool, parent: Writer | None = None):
        self.values = values
        self.names: dict[Node, str] = {}
        self.unknown: dict[str, str] = parent.unknown if parent else {}
        self.bodies: dict[Body | Scan, str] = parent.bodies if parent else {}
        self.blocks: list[str] = parent.blocks if parent else []

    def lines(self, roots: Sequence[Node], inputs: Sequence[Node] = ()) -> list[str]:
        """One line per node; `inputs` are shown as inputs whatever they are."""
        result, given = [], set(inputs)
        for node in order([*inputs, *roots], stop=lambda n: n in self.names or n in given):
            if node in self.names:
                continue
            name = self.names[node] = f"%{len(self.names)}"
            label = f" {quoted(node.name)}" if node.name else ""
            value = "input" if node in given else self.value(node)
            result.append(f"{name}{label} = {value} : {self.type(node._type)}{line_of(node)}")
        return result

    def value(self, node: Node) -> str:
        if node.op is INPUT:
            return "input"
        if node.op is SHARED:
            return f"shared {data_text(node.payload)}" if self.values else "shared"
        if node.op is CONSTANT:
            return f"constant {data_text(node.payload)}"
        operands = [self.names[x] for x in node.inputs]
        if isinstance(node.op, Call):
            return f"call @{self.block(node.op.body)}({', '.join(operands)})"
        if isinstance(node.op, Scan):
            operands = [f"@{self.loop(node.op)}", *operands]
        name = "item" if node.op is ITEM else node.op.name
        return (
            f"{name}({', '.join([*operands, *(f'{k}={self.attribute(v)}' for k, v in node.attrs.items())])})"
        )

    def block(self, body: Body) -> str:
        """The name of a block; its text is written where it is first met."""
        if body not in self.bodies:
            base = "".join(c if c.isalnum() or c == "_" else "_" for c in body.name)
            self.bodies[body] = f"{base}.{len(self.bodies)}"
            inner = Writer(self.values, self)
            lines = inner.lines(body.outputs, body.inputs)
            spelled = lambda nodes: ", ".join(inner.names[n] for n in nodes)
            text = [
                f"block @{self.bodies[body]}:",
                *lines,
                f"inputs {spelled(body.inputs)}",
                f"return {spelled(body.outputs)}",
            ]
            self.blocks.append("\n    ".join(text) + "\n")
        return self.bodies[body]

    def loop(self, op: Scan) -> str:
        """The name of a loop's body; its text is written where it is first met."""
        if op not in self.bodies:
            self.bodies[op] = f"scan.{len(self.bodies)}"
            inner = Writer(self.values, self)
            lines = inner.lines(op.body.outputs, op.body.inputs)
            spelled = lambda nodes: ", ".join(inner.names[n] for n in nodes)
            s = op.body.structure
            text = [f"loop @{self.bodies[op]}:", *lines, f"inputs {spelled(op.body.inputs)}", f"return {spelled(op.body.outputs)}",
                    f"structure {self.attribute((s.elements, s.taps, s.outs, s.stops, s.truncate, tuple(map(poly.of_atom, op.symbols))))}"]
            self.blocks.append("\n    ".join(text) + "\n")
        return self.bodies[op]

    def type(self, type_: Any) -> str:
        if isinstance(type_, TupleType):
            return f"({', '.join(map(self.type, type_.items))})"
        sizes = ", ".join(self.size(d) for d in type_.dims)
        return f"{type_.dtype} ({sizes}{',' if len(type_.dims) == 1 else ''})"

    def attribute(self, value: Any) -> str:
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(self.attribute, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{quoted(k)}: {self.attribute(v)}' for k, v in value.items())}}}"
        if isinstance(value, str):
            return quoted(value)
        if isinstance(value, np.generic):
            return repr(value.item())
        return self.size(value) if isinstance(value, poly.Poly) else repr(value)

    def size(self, value: Any) -> str:
        """A size: terms in the order of their text, so that equal sizes are written alike."""
        if not isinstance(value, poly.Poly):
            return str(value)
        terms = sorted(
            (self._term(mono, c) for mono, c in value.terms.items()), key=lambda t: (t[1] == "", t)
        )
        text = ""
        for sign, factors, number in terms:
            body = "*".join(filter(None, [number, factors]))
            text += (f" {sign} " if text else sign.replace("+", "")) + body
        return text

    def _term(self, mono: tuple, c: int) -> tuple[str, str, str]:
        factors = "*".join(sorted(map(self._atom, mono)))
        return ("-" if c < 0 else "+"), factors, "" if abs(c) == 1 and factors else str(abs(c))

    def _atom(self, a: poly.Atom) -> str:
        if a.kind == "symbol":
            return self._symbol(a.args[0])
        if a.kind == "value":
            return f"value({self.names[a.args[0]]})"
        if a.kind == "counted":
            return f"counted({self.names[a.args[0]]})"
        return f"{a.kind}({', '.join(map(self.size, a.args))})"

    def _symbol(self, name: str) -> str:
        if name.startswith("?"):
            return self.unknown.setdefault(name, f"?{len(self.unknown)}")
        return name if name.isidentifier() and name not in RESERVED else f"size({quoted(name)})"


def quoted(text: str) -> str:
    """The text in double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def line_of(node: Node) -> str:
    """The user's file:line as a comment; the file relative to the working folder where it lies there."""
    if not node.notes.origin:
        return ""
    file, number = node.notes.origin
    here = os.getcwd() + os.sep
    return f"  # {file[len(here) :] if file.startswith(here) else file}:{number}"


def data_text(array: np.ndarray) -> str:
    """The elements: numbers when they are few and reading them back gives the same bits, else bytes."""
    flat = array.reshape(-1)
    if flat.size <= LISTED:
        words = [str(v) for v in flat]
        if np.array([number(w, array.dtype) for w in words], array.dtype).tobytes() == flat.tobytes():
            return words[0] if not array.ndim else f"[{', '.join(words)}]"
    return f'base64"{base64.b64encode(flat.tobytes()).decode()}"'


def number(word: str, dtype: np.dtype) -> Any:
    """The element that `data_text` wrote as this word."""
    if dtype.kind == "b":
        return word == "True"
    return float(word) if dtype.kind == "f" else int(word)


__all__ = ["graph_text", "node_text"]
