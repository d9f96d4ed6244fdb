"""What nodes may look like, written in the arithmetic of nodes.

    pattern = variable | literal | op(pattern*, attribute*)         x * 1, log(softmax(x, axis=a))

Pattern variables obey the operators of nodes, so a rule (see rule.py) is written like the graphs it is about.
Matching begins at the op of the root; the operands of commuting ops are tried in both orders.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import ops as _families  # noqa: F401  (fills the table of rows)
from ..base import dtypes
from ..graph.node import CONSTANT, Node, make
from ..graph.node import constant as constant_node
from ..graph.types import broadcast_dims
from ..ops.row import ROWS
from ..ops.shape import broadcast_to

Found = dict[str, Any]
Match = Callable[[Node, Found], bool]

COMMUTING = {
    "add",
    "multiply",
    "maximum",
    "minimum",
    "equal",
    "not_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "logaddexp",
}
LARGEST_SCAN = 1 << 16  # elements of a constant that are compared to find out whether they are all the same


# ------------------------------------------------------------------------------------------- patterns
class Pattern:
    """What a node may look like. Operators build larger patterns; the line that wrote them is kept for messages."""

    def __init__(self) -> None:
        self.line = _writer()

    # fmt: off
    def __add__(self, other: Any) -> Apply: return Apply("add", (self, other))
    def __radd__(self, other: Any) -> Apply: return Apply("add", (other, self))
    def __sub__(self, other: Any) -> Apply: return Apply("subtract", (self, other))
    def __rsub__(self, other: Any) -> Apply: return Apply("subtract", (other, self))
    def __mul__(self, other: Any) -> Apply: return Apply("multiply", (self, other))
    def __rmul__(self, other: Any) -> Apply: return Apply("multiply", (other, self))
    def __truediv__(self, other: Any) -> Apply: return Apply("divide", (self, other))
    def __rtruediv__(self, other: Any) -> Apply: return Apply("divide", (other, self))
    def __pow__(self, other: Any) -> Apply: return Apply("power", (self, other))
    def __neg__(self) -> Apply: return Apply("negative", (self,))
    def __abs__(self) -> Apply: return Apply("absolute", (self,))
    def __lt__(self, other: Any) -> Apply: return Apply("less", (self, other))
    def __le__(self, other: Any) -> Apply: return Apply("less_equal", (self, other))
    def __gt__(self, other: Any) -> Apply: return Apply("greater", (self, other))
    def __ge__(self, other: Any) -> Apply: return Apply("greater_equal", (self, other))
    def __and__(self, other: Any) -> Apply: return Apply("bitwise_and", (self, other))
    def __or__(self, other: Any) -> Apply: return Apply("bitwise_or", (self, other))
    def __invert__(self) -> Apply: return Apply("invert", (self,))
    # fmt: on


class Variable(Pattern):
    """Stands for any node of a kind: "any", "float", "integer", "boolean" or "constant" (one value everywhere)."""

    def __init__(self, name: str, kind: str = "any"):
        super().__init__()
        self.name, self.kind = name, kind

    def __repr__(self) -> str:
        return self.name


class Literal(Pattern):
    """A number: a constant that has this value everywhere, under any shape. 0 stands for -0.0 too."""

    def __init__(self, value: bool | int | float):
        super().__init__()
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Attribute:
    """Stands for the value of an attribute; the same name stands for equal values."""

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Computed:
    """An attribute on the right side, from what was found; parameters are named like the variables."""

    function: Callable[..., Any]

    def __repr__(self) -> str:
        return "..."


class Apply(Pattern):
    """op(arguments, attributes). `...` as last argument allows any attributes."""

    def __init__(self, name: str, arguments: Sequence[Any], attrs: Mapping[str, Any] | None = None):
        super().__init__()
        self.name, self.any_attrs = name, bool(arguments) and arguments[-1] is ...
        self.arguments = tuple(lifted(a) for a in arguments if a is not ...)
        self.attrs = dict(attrs or {})

    def __repr__(self) -> str:
        spelled = [
            *map(repr, self.arguments),
            *(f"{k}={v!r}" for k, v in self.attrs.items()),
            *(["..."] if self.any_attrs else []),
        ]
        symbol = _SYMBOLS.get(self.name)
        if symbol and len(self.arguments) == 2:
            return f"({spelled[0]} {symbol} {spelled[1]})"
        return f"{symbol or self.name}({', '.join(spelled)})"


_SYMBOLS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "power": "**",
    "negative": "-",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "invert": "~",
}


def lifted(value: Any) -> Pattern:
    return value if isinstance(value, Pattern) else Literal(value)


def op(name: str) -> Callable[..., Apply]:
    """A function that makes patterns of an op: `log = op("log")`."""
    return lambda *arguments, **attrs: Apply(name, arguments, attrs)


def anything(name: str) -> Variable:
    return Variable(name)


def floating(name: str) -> Variable:
    return Variable(name, "float")


def integer(name: str) -> Variable:
    return Variable(name, "integer")


def boolean(name: str) -> Variable:
    return Variable(name, "boolean")


def constant(name: str) -> Variable:
    """A constant with one value everywhere, such as 2.0 or ones((3, 4))."""
    return Variable(name, "constant")


def attribute(name: str) -> Attribute:
    return Attribute(name)


def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of what a plain function takes."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount]


def computed(function: Callable[..., Any]) -> Computed:
    return Computed(function)


def _writer() -> tuple[str, int]:
    frame = sys._getframe(2)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_code.co_filename, frame.f_lineno


# ------------------------------------------------------------------------------------------- matching
def uniform(node: Node) -> Any:
    """The value that a constant has everywhere (a NumPy scalar), or None."""
    while node.op is broadcast_to:
        node = node.inputs[0]
    if node.op is not CONSTANT:
        return None
    flat = node.payload.reshape(-1)
    if flat.size == 1:
        return flat[0]
    if not 0 < flat.size <= LARGEST_SCAN:
        return None
    raw = flat.view(f"u{flat.itemsize}")  # by bits: NaN equals itself, -0.0 is not 0.0
    return flat[0] if raw[0] == raw[-1] and (raw == raw[0]).all() else None


def matcher(pattern: Pattern) -> Match:
    """A function that says whether a node looks like the pattern, and notes what the variables stand for."""
    if isinstance(pattern, Literal):
        return _match_literal(pattern.value)
    if isinstance(pattern, Variable):
        return _match_variable(pattern.name, _KINDS[pattern.kind])
    assert isinstance(pattern, Apply)
    row, inner = ROWS[pattern.name], [matcher(a) for a in pattern.arguments]
    firsts = ops_of_operands(pattern)
    attrs = None if pattern.any_attrs else tuple(pattern.attrs.items())

    def match(node: Node, found: Found) -> bool:
        inputs = node.inputs
        if node.op is not row or len(inputs) != len(inner):
            return False
        for k, ops in firsts:  # nearly every node that does not match is told apart here
            if inputs[k].op not in ops:
                return False
        for m, x in zip(inner, inputs):
            if not m(x, found):
                return False
        return not attrs or all(_match_attribute(node.attrs[k], v, found) for k, v in attrs)

    return match


def ops_of_operands(pattern: Apply) -> list[tuple[int, frozenset[Any]]]:
    """The operands, by number, that must be of certain ops, and those."""
    return [(k, ops) for k, a in enumerate(pattern.arguments) if (ops := first_ops(a)) is not None]


def _match_literal(value: bool | int | float) -> Match:
    return lambda node, found: _is_value(node, value)


def first_ops(pattern: Pattern) -> frozenset[Any] | None:
    """The ops a node must have to look like the pattern; None when any will do."""
    if isinstance(pattern, Apply):
        return frozenset({ROWS[pattern.name]})
    fixed = isinstance(pattern, Literal) or (isinstance(pattern, Variable) and pattern.kind == "constant")
    return frozenset({CONSTANT, broadcast_to}) if fixed else None


def _match_variable(name: str, is_kind: Callable[[Node], bool] | None) -> Match:
    def match(node: Node, found: Found) -> bool:
        known = found.get(name)
        if known is not None:
            return known is node
        if is_kind is not None and not is_kind(node):
            return False
        found[name] = node
        return True

    return match


_KINDS: dict[str, Callable[[Node], bool] | None] = {
    "any": None,
    "float": lambda x: dtypes.is_float(x.dtype),
    "integer": lambda x: dtypes.is_integer(x.dtype),
    "boolean": lambda x: x.dtype == "bool",
    "constant": lambda x: uniform(x) is not None,
}


def _is_value(node: Node, value: bool | int | float) -> bool:
    if node.op is not CONSTANT and node.op is not broadcast_to:
        return False
    found = uniform(node)
    return found is not None and isinstance(value, bool) == (node.dtype == "bool") and bool(found == value)


def _match_attribute(given: Any, wanted: Any, found: Found) -> bool:
    if not isinstance(wanted, Attribute):
        return type(given) is type(wanted) and given == wanted
    if wanted.name in found:
        return found[wanted.name] == given
    found[wanted.name] = given
    return True


def orders(pattern: Pattern) -> list[Pattern]:
    """The pattern with the operands of commuting ops in every order that makes a difference."""
    if not isinstance(pattern, Apply):
        return [pattern]
    result: dict[str, Pattern] = {}
    for arguments in itertools.product(*(orders(a) for a in pattern.arguments)):
        swaps = [arguments, arguments[::-1]] if pattern.name in COMMUTING and not _symmetric(arguments) else [arguments]
        for chosen in swaps:
            other = Apply(pattern.name, (*chosen, *([...] if pattern.any_attrs else [])), pattern.attrs)
            result.setdefault(repr(other), other)
    return list(result.values())


def _symmetric(arguments: Sequence[Pattern]) -> bool:
    """Two plain variables of one kind: what the other order would match, this one does, unless they occur elsewhere too."""
    return repr(arguments[0]) == repr(arguments[1])


# ------------------------------------------------------------------------------------------- building
def build(pattern: Pattern, found: Found, dtype: str) -> Node:
    """The node a pattern describes, with variables as found. A literal takes the dtype of its neighbours, or `dtype`."""
    if isinstance(pattern, Variable):
        return found[pattern.name]
    if isinstance(pattern, Literal):
        return constant_node(pattern.value, "bool" if isinstance(pattern.value, bool) else dtype)
    assert isinstance(pattern, Apply)
    built = [None if isinstance(a, Literal) else build(a, found, dtype) for a in pattern.arguments]
    near = [b.dtype for b in built if b is not None]
    inputs = [build(a, found, near[-1] if near else dtype) if b is None else b for a, b in zip(pattern.arguments, built)]
    attrs = found["attributes"] if pattern.any_attrs else {k: _attribute_value(v, found) for k, v in pattern.attrs.items()}
    return make(ROWS[pattern.name], inputs, **attrs)


def _attribute_value(value: Any, found: Found) -> Any:
    if isinstance(value, Attribute):
        return found[value.name]
    if isinstance(value, Computed):
        return value.function(*(found[n] for n in parameters(value.function)))
    return value


def fitted(new: Node | None, node: Node) -> Node | None:
    """`new` repeated to the shape of `node` where it is smaller; None where it cannot stand for it."""
    if new is None or new._type == node._type:
        return new
    if new.dtype != node.dtype or not repeats_to(new.dims, node.dims):
        return None
    return make(broadcast_to, [new], shape=node.dims)


def repeats_to(dims: Sequence[Any], target: Sequence[Any]) -> bool:
    """Whether broadcasting gives the target for any sizes: each axis is equal to the target's, or 1, or missing."""
    if len(dims) > len(target):
        return False
    tail = target[len(target) - len(dims) :]
    return all(d == e or (isinstance(d, int) and d == 1) for d, e in zip(dims, tail)) and broadcast_dims(dims, target) == tuple(target)
