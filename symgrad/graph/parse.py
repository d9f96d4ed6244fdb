"""Reads the text that `show.py` writes."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from ..base import poly
from ..base.dtypes import DTYPES
from ..base.errors import SymgradError, close_match, four_parts
from .block import Body
from .node import ITEM, Node, Op, constant, declared_dims, make, new_input
from .scan import Scan, Structure, scan_of
from .shared import Shared
from .show import number
from .types import TupleType, Type

TOKEN = re.compile(
    r"""\s*(?:(?P<comment>\#.*)|(?P<bytes>base64"[^"]*")|(?P<string>"(?:\\.|[^"\\])*")|(?P<node>%\d+)|(?P<unknown>\?\d+)|(?P<block>@[\w.]+)
                       |(?P<number>(?:\d+\.?\d*(?:[eE][+-]?\d+)?))|(?P<name>\w+)|(?P<mark>[-+*(),=:\[\]{}]))""",
    re.VERBOSE,
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "max": poly.maximum,
    "min": poly.minimum,
    "floordiv": poly.floordiv,
    "mod": poly.mod,
}
WORDS = {"True": True, "False": False, "None": None, "nan": float("nan"), "inf": float("inf")}


def parse(text: str, ops: Mapping[str, Op], given: Mapping[str, Node] | None = None) -> Node | list[Node]:
    """The variables that a text returns: one, or a list where the text has a list.

    Inputs and shared variables are new ones, or those of `given` by their labels.
    Raises SymgradError that names the line of text that cannot be read.
    """
    reader = Reader(text, ops, dict(given or {}))
    return reader.graph()


class Reader:
    """Reads line by line; nodes and blocks by name."""

    def __init__(self, text: str, ops: Mapping[str, Op], given: dict[str, Node]):
        self.todo = [
            (k + 1, line)
            for k, line in enumerate(text.split("\n"))
            if line.strip() and not line.strip().startswith("#")
        ]
        self.ops, self.given = ops, given
        self.nodes: dict[str, Node] = {}
        self.bodies: dict[str, Body] = {}
        self.loops: dict[str, tuple[Scan, tuple, tuple]] = {}
        self.unknown: dict[str, Any] = {}
        self.place = (0, "")
        self.tokens: list[tuple[str, str]] = []

    def graph(self) -> Node | list[Node]:
        while self.next_line():
            if self.accept("block"):
                self.block()
            elif self.accept("loop"):
                self.loop()
            elif self.accept("return"):
                found, is_list = self.operands()
                return found if is_list else found[0]
            else:
                self.line()
        if not self.nodes:
            self.fail("a graph", "no node")
        return list(self.nodes.values())[-1]

    def next_line(self) -> bool:
        if not self.todo:
            return False
        self.place = self.todo.pop(0)
        self.tokens = tokens(self.place[1], self.fail)
        return True

    def block(self) -> None:
        name = self.take("block")[1:]
        outer, self.nodes = self.nodes, {}
        inputs: list[Node] = []
        while self.next_line():
            if self.accept("inputs"):
                inputs = self.operands()[0]
            elif self.accept("return"):
                self.bodies[name] = Body(name.rsplit(".", 1)[0], inputs, self.operands()[0])
                self.nodes = outer
                return
            else:
                self.line()
        self.fail(f"the end of block {name}", "the end of the text")

    def loop(self) -> None:
        """The body of a loop: the lines of a block, and what its inputs and outputs are."""
        name = self.take("block")[1:]
        outer, self.nodes = self.nodes, {}
        inputs: list[Node] = []
        outputs: list[Node] = []
        while self.next_line():
            if self.accept("inputs"):
                inputs = self.operands()[0]
            elif self.accept("return"):
                outputs = self.operands()[0]
            elif self.accept("structure"):
                elements, taps, outs, stops, truncate, symbols = self.value()
                self.loops[name] = *scan_of(Structure(elements, taps, outs, stops, truncate).over(inputs, outputs)), symbols
                self.nodes = outer
                return
            else:
                self.line()
        self.fail(f"the end of loop {name}", "the end of the text")

    def scan(self) -> Node:
        self.expect("(")
        name = self.take("block")[1:]
        if name not in self.loops:
            self.fail("a loop of this text", f"@{name}")
        self.accept(",")
        op, sizes, written = self.loops[name]
        inputs, attrs = self.arguments(opened=True)
        given = {poly.the_atom(symbol): size for symbol, size in zip(written, attrs["sizes"])}
        return make(op, inputs, n=attrs["n"], sizes=tuple(poly.substitute(s, given.get) for s in sizes))

    def operands(self) -> tuple[list[Node], bool]:
        """(nodes, whether they are a list: several, or one with a comma after it)."""
        found, is_list = [], False
        while self.tokens and self.tokens[0][0] == "node":
            found.append(self.node())
            is_list = self.accept(",") or is_list
        return found, is_list or len(found) != 1

    def line(self) -> None:
        name = self.take("node")
        label = self.string() if self.tokens and self.tokens[0][0] == "string" else None
        self.expect("=")
        kind = self.take("name")
        if kind in ("input", "shared", "constant"):
            data = (
                self.tokens.pop(0)
                if self.tokens and self.tokens[0][0] == "bytes"
                else self.numbers()
                if kind != "input"
                else None
            )
            self.expect(":")
            node = self.leaf(kind, label, self.type(), data)
        else:
            if kind == "scan":
                node = self.scan()
            else:
                op, (inputs, attrs) = self.op(kind), self.arguments()
                node = make(op, inputs, **attrs)
            self.expect(":")
            type_ = self.type()
            if node._type != type_:
                self.fail(f"{kind} of type {type_}", f"it gives {node._type}")
        if label and node.name is None:
            node.name = label
        self.nodes[name] = node
        if self.tokens and self.tokens[0][0] == "comment":
            file, _, number_ = self.tokens[0][1].lstrip("# ").rpartition(":")
            if number_.isdigit():
                node.notes.origin = (file, int(number_))

    def op(self, kind: str) -> Op:
        if kind == "call":
            name = self.take("block")[1:]
            if name not in self.bodies:
                self.fail("a block of this text", f"@{name}")
            return self.bodies[name].call
        if kind == "item":
            return ITEM
        if kind not in self.ops:
            self.fail("the name of an op", f"{kind}{close_match(kind, self.ops)}")
        return self.ops[kind]

    def leaf(self, kind: str, label: str | None, type_: Any, data: Any) -> Node:
        if kind == "constant":
            return constant(self.array(type_, data), type_.dtype)
        if label in self.given:
            found = self.given[label]
            if found.dtype != type_.dtype or found.ndim != type_.ndim:
                self.fail(f"{label} : {type_}", f"the one that was given is {found._type}")
            return found
        if kind == "input":
            return new_input(type_, label)
        if data is None:
            self.fail(
                f"a value for shared variable {label or ''}".strip(),
                "the text has none",
                "given={label: shared}, or graph_text(..., values=True)",
            )
        return Shared(self.array(type_, data), label)

    def array(self, type_: Type, data: Any) -> np.ndarray:
        if isinstance(data, tuple):
            flat = np.frombuffer(base64.b64decode(data[1][7:-1]), type_.dtype)
        else:
            flat = np.array([number(w, np.dtype(type_.dtype)) for w in data or ()], type_.dtype)
        shape = tuple(d for d in type_.dims if isinstance(d, int))
        if len(shape) != type_.ndim or flat.size != int(np.prod(shape)):
            self.fail(f"elements for {type_}", f"{flat.size} of them")
        return flat.reshape(shape).copy()

    def numbers(self) -> list[str] | None:
        """The words of a number or of a list of numbers; None where there are none."""
        if self.tokens[0] == ("mark", ":"):
            return None
        many = self.accept("[")
        words: list[str] = []
        while self.tokens and self.tokens[0][1] not in ("]", ":"):
            sign = "-" if self.accept("-") else ""
            words.append(sign + self.tokens.pop(0)[1])
            self.accept(",")
        if many:
            self.expect("]")
        return words

    def type(self) -> Any:
        if self.accept("("):
            items = []
            while not self.accept(")"):
                items.append(self.type())
                self.accept(",")
            return TupleType(items)
        dtype = self.take("name")
        if dtype not in DTYPES:
            self.fail("a dtype", f"{dtype}{close_match(dtype, DTYPES)}")
        sizes = self.value()
        return Type(dtype, sizes if isinstance(sizes, tuple) else (sizes,))

    def arguments(self, opened: bool = False) -> tuple[list[Node], dict[str, Any]]:
        inputs: list[Node] = []
        attrs: dict[str, Any] = {}
        if not opened:
            self.expect("(")
        while not self.accept(")"):
            if self.tokens[0][0] == "node":
                inputs.append(self.node())
            else:
                name = self.take("name")
                self.expect("=")
                attrs[name] = self.value()
            self.accept(",")
        return inputs, attrs

    # ------------------------------------------------------------------------------------------- values
    def value(self) -> Any:
        """A number, a size, a string, None, or a tuple or dict of these."""
        total = self.product()
        while self.tokens and self.tokens[0][1] in ("+", "-"):
            total = (
                total + self.product()
                if self.accept("+")
                else total - self.product(after_sign=self.accept("-"))
            )
        return total

    def product(self, after_sign: bool = False) -> Any:
        if not after_sign and self.accept("-"):
            return -self.product()
        result = self.atom()
        while self.accept("*"):
            result = result * self.atom()
        return result

    def atom(self) -> Any:
        kind, word = self.tokens.pop(0) if self.tokens else self.fail("a value", "the end of the line")
        if kind == "number":
            return float(word) if any(c in word for c in ".eE") else int(word)
        if kind == "string":
            return unquoted(word)
        if kind == "unknown":
            return self.unknown.setdefault(word, declared_dims((None,), "a size")[0])
        if word in WORDS:
            return WORDS[word]
        if word in FUNCTIONS or word in ("value", "counted", "size"):
            return self.function(word)
        if kind == "name":
            return poly.symbol(word)
        if word == "(":
            return self.tuple()
        if word == "{":
            return self.dictionary()
        return self.fail("a value", word)

    def function(self, name: str) -> Any:
        self.expect("(")
        if name == "value":
            result = poly.atom("value", self.node())
        elif name == "counted":
            count = self.node()
            result = poly.atom("counted", count, count.attrs["bound"])
        elif name == "size":
            result = poly.symbol(self.string())
        else:
            first = self.value()
            self.expect(",")
            result = FUNCTIONS[name](first, self.value())
        self.expect(")")
        return result

    def tuple(self) -> Any:
        items, commas = [], 0
        while not self.accept(")"):
            items.append(self.value())
            commas += self.accept(",")
        return items[0] if len(items) == 1 and not commas else tuple(items)

    def dictionary(self) -> dict[str, Any]:
        result = {}
        while not self.accept("}"):
            key = self.string()
            self.expect(":")
            result[key] = self.value()
            self.accept(",")
        return result

    # ------------------------------------------------------------------------------------------- tokens
    def node(self) -> Node:
        name = self.take("node")
        if name not in self.nodes:
            self.fail("a node of an earlier line", name)
        return self.nodes[name]

    def string(self) -> str:
        return unquoted(self.take("string"))

    def accept(self, word: str) -> bool:
        if self.tokens and self.tokens[0][1] == word and self.tokens[0][0] != "string":
            self.tokens.pop(0)
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.accept(word):
            self.fail(f"{word!r}", repr(self.tokens[0][1]) if self.tokens else "the end of the line")

    def take(self, kind: str) -> str:
        if not self.tokens or self.tokens[0][0] != kind:
            self.fail(f"a {kind}", repr(self.tokens[0][1]) if self.tokens else "the end of the line")
        return self.tokens.pop(0)[1]

    def fail(self, wanted: str, found: str, attempt: str | None = None) -> NoReturn:
        number_, line = self.place
        raise SymgradError(
            four_parts(
                f"{wanted} in the text of a graph",
                [found, line.strip()[:120]],
                f"line {number_} of the text",
                attempt,
            )
        )


def tokens(line: str, fail: Callable[[str, str], NoReturn]) -> list[tuple[str, str]]:
    """(kind, text) of each word of a line."""
    result, at = [], 0
    while at < len(line.rstrip()):
        found = TOKEN.match(line, at)
        if found is None:
            fail("a word", repr(line[at : at + 20]))
        kind = str(found.lastgroup)
        result.append((kind, found.group(kind)))
        at = found.end()
    return result


def unquoted(word: str) -> str:
    return re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), word[1:-1])


__all__ = ["parse"]
