"""Prints loops as kernel text: the restricted Python that the plain, CPU and CUDA backends share.

Every expression is computed in the outermost loop that binds the indices it depends on, once; what a condition guards stays
behind the condition. Names are handed out in order of appearance, so equal kernels have equal text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..base import poly
from ..base.poly import Atom, Poly
from ..loops import ir
from ..loops.ir import E
from ..schedule.plan import Access, Scratch

CHUNK = 2048            # long float sums add chunks of this many elements: the error grows with the root of their number
OPERATORS = {"add": "+", "sub": "-", "mul": "*"}


@dataclass
class Scope:
    """One level of nesting: its lines, the indices it binds, the names of values computed in it."""

    parent: Scope | None
    bound: frozenset[Atom]
    guarded: bool = False
    lines: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def find(self, serial: int) -> str | None:
        scope: Scope | None = self
        while scope is not None:
            if serial in scope.names:
                return scope.names[serial]
            scope = scope.parent
        return None

    def home(self, free: frozenset[Atom]) -> Scope:
        """The outermost scope where these indices are bound, not leaving a guard."""
        scope = self
        while not scope.guarded and scope.parent is not None and free <= scope.parent.bound:
            scope = scope.parent
        return scope


class Printer:
    """Collects the arguments and the lines of one kernel."""

    def __init__(self) -> None:
        self.arguments: list[tuple[str, Any]] = []          # ("buffer", node) or ("size", atom), by slot
        self.slots: dict[Any, int] = {}
        self.accesses: list[Access] = []                    # in printed order
        self.index_names: dict[Atom, str] = {}
        self.named: dict[str, Any] = {}                     # sizes that templates know by name
        self.temporaries = 0
        self.ranges: dict[Atom, str] = {}                   # of loops of which the caller chooses a part
        self.scope = Scope(None, frozenset())

    # ---- names
    def pointer(self, buffer: Any) -> str:
        """The name of a buffer, for text that reads and writes it in its own way."""
        self.accesses.append(Access("any", buffer))
        return self._name(buffer)

    def store(self, buffer: Any, at: Any, value: str) -> None:
        """Prints a store of one element that is written once."""
        place = f"{self._name(buffer)}[{self.poly_text(at)}]"
        self.accesses.append(Access("store", buffer, at))
        self.add(f"{place} = {value}")

    def _load(self, buffer: Any, at: Any) -> str:
        place = f"{self._name(buffer)}[{self.poly_text(at)}]"
        self.accesses.append(Access("load", buffer, at))
        return place

    def _name(self, buffer: Any) -> str:
        if isinstance(buffer, Scratch):
            self._slot("scratch", buffer)
            return buffer.name
        return f"p{self._slot('buffer', buffer)}"

    def size(self, a: Atom) -> str:
        return f"n{self._slot('size', a)}"

    def _slot(self, kind: str, what: Any) -> int:
        if what not in self.slots:
            self.slots[what] = len(self.arguments)
            self.arguments.append((kind, what))
        return self.slots[what]

    def index_name(self, a: Atom) -> str:
        return self.index_names.setdefault(a, f"i{len(self.index_names)}")

    def bind_index(self, a: Atom, name: str) -> None:
        """An index that surrounding text has already named."""
        self.index_names[a] = name
        self.scope.bound |= {a}

    def share(self, a: Atom, extent: Any, step: int) -> None:
        """Leave to the caller which turns of the loop over `a` to take; a part is `step` of them."""
        by = f" * {step}" if step != 1 else ""
        self.ranges = {a: f"part0{by}, min(part1{by}, {self.poly_text(extent)})"}

    def temporary(self) -> str:
        self.temporaries += 1
        return f"t{self.temporaries - 1}"

    def poly_text(self, value: Any) -> str:
        return poly.text(value, self._atom_text)

    def _atom_text(self, a: Atom) -> str:
        if a.kind == "index":
            return self.index_name(a)
        if a.kind == "value" and isinstance(a.args[0], E):
            return self.text(a.args[0])
        return self.size(a)

    # ---- scopes
    def add(self, line: str) -> None:
        self.scope.lines.append(line)

    @contextmanager
    def nested(self, head: str, bound: Sequence[Atom] = (), guarded: bool = False) -> Iterator[Scope]:
        """A block below `head`; its lines join the surrounding ones when it closes."""
        outer = self.scope
        inner = Scope(outer, outer.bound | frozenset(bound), guarded)
        self.scope = inner
        yield inner
        self.scope = outer
        outer.lines.append(head)
        outer.lines.extend("    " + line for line in inner.lines or ["pass"])

    @contextmanager
    def loop(self, a: Atom, extent: Any) -> Iterator[Scope]:
        limits = self.ranges.get(a) or self.poly_text(extent)
        with self.nested(f"for {self.index_name(a)} in range({limits}):", [a]) as scope:
            yield scope

    # ---- expressions
    def text(self, e: E) -> str:
        """A name or literal for the value of e; what it takes to compute it is printed where it belongs."""
        if e.kind == "lit":
            return literal_text(e)
        if e.kind == "given":
            return e.args[0]
        for part in self._missing(e):
            self._compute(part)
        return self.scope.find(e.serial) or self._compute(e)

    def _missing(self, e: E) -> list[E]:
        """What must be computed before e, inner first; iterative. What conditions and folds enclose is left to them."""
        found: list[E] = []
        stack: list[tuple[E, bool]] = [(e, False)]
        seen: set[int] = set()
        while stack:
            item, entered = stack.pop()
            if entered:
                found.append(item)
            elif item.serial not in seen and item.kind not in ("lit", "given") and self.scope.find(item.serial) is None:
                seen.add(item.serial)
                stack.append((item, True))
                stack.extend((x, False) for x in eager_parts(item))
        return found

    def _compute(self, e: E) -> str:
        home = self.scope.home(e.free)
        found = home.find(e.serial)
        if found:
            return found
        here, self.scope = self.scope, home
        try:
            name = self._print(e)
        finally:
            self.scope = here
        home.names[e.serial] = name
        return name

    def _print(self, e: E) -> str:
        if e.kind == "cond":
            return self._print_cond(e)
        if e.kind == "fold":
            return self._print_fold(e)
        body = self._expression(e)
        name = self.temporary()
        self.add(f"{name} = {body}")
        return name

    def _expression(self, e: E) -> str:
        if e.kind == "load":
            return self._load(e.args[0], e.args[1])
        if e.kind == "index":
            return self.poly_text(e.args[0])
        return self.call_text(e.args[0], [self.text(a) for a in e.args[1:]], e.args[1].dtype if e.args[0] != "where" else e.dtype)

    def call_text(self, name: str, operands: Sequence[str], dtype: str) -> str:
        if name in OPERATORS and dtype.startswith("float"):
            return f"{operands[0]} {OPERATORS[name]} {operands[1]}"
        if name.startswith("cast_"):
            return f"{name}({operands[0]})"
        return f"{name}_{dtype}({', '.join(operands)})"

    def _print_cond(self, e: E) -> str:
        condition, a, b = e.args
        test = self.text(condition)
        name = self.temporary()
        for head, side in ((f"if {test}:", a), ("else:", b)):
            with self.nested(head, guarded=True):
                self.add(f"{name} = {self.text(side)}")
        return name

    def _print_fold(self, e: E) -> str:
        operation, ks, body = e.args
        name = self.temporary()
        self.add(f"{name} = {literal_text(ir.literal(ir.IDENTITY[operation](e.dtype), e.dtype))}")
        self._fold_loops(list(ks), name, operation, body)
        return name

    def _fold_loops(self, ks: list[Poly], name: str, operation: str, body: E) -> None:
        if not ks and operation == "first":
            with self.nested(f"if isnan_{body.dtype}({name}):", guarded=True):
                self.add(f"{name} = {self.text(body)}")
            return
        if not ks:
            self.add(f"{name} = {self.accumulate_text(operation, name, self.text(body), body.dtype)}")
            return
        a = next(iter(ks[0].terms))[0]
        with self.loop(a, a.extent):
            self._fold_loops(ks[1:], name, operation, body)

    def accumulate_text(self, operation: str, name: str, value: str, dtype: str) -> str:
        if operation in ("logor", "logand"):
            return f"{operation}_{dtype}({name}, {value})"
        return f"acc_{operation}_{dtype}({name}, {value})"

    # ---- kernels
    def kernel(self, header: Sequence[str] = (), taken: Mapping[Any, Any] = MappingProxyType({})) -> str:
        """The text of the whole kernel: header, bindings of the arguments, lines.

        taken: buffers that lie in the memory of another. The two get one slot, as compilers take different slots for different memory.
        """
        binding = []
        for slot, (kind, what) in enumerate(self.arguments):
            if kind == "buffer":
                binding.append(f"    p{slot} = ptr_{what.dtype}(args, {self.slots.get(taken.get(what), slot)})")
            elif kind == "scratch":
                binding.append(f"    {what.name} = ptr_{what.dtype}(args, {slot})")
            elif kind == "parts":
                binding.append(f"    {what} = size(args, {slot})")
            else:
                binding.append(f"    n{slot} = size(args, {slot})")
        lines = ["    " + line for line in self.scope.lines]
        return "\n".join([*header, "def kernel(args):", *binding, *lines, *([] if binding or lines else ["    pass"])]) + "\n"


def eager_parts(e: E) -> list[E]:
    """What is evaluated unconditionally before e: not the sides of a condition, not the body of a fold."""
    if e.kind == "cond":
        return [e.args[0]]
    if e.kind == "fold":
        return []
    parts = [a for a in e.args if isinstance(a, E)]
    for a in e.args:
        if isinstance(a, Poly):
            parts.extend(v.args[0] for v in poly.atoms(a) if v.kind == "value" and isinstance(v.args[0], E))
    return parts


def literal_text(e: E) -> str:
    value = e.args[0]
    if e.dtype == "bool":
        return f"lit_bool({bool(value)})"
    if e.dtype.startswith("float"):
        if value != value or value in (float("inf"), float("-inf")):
            spelled = "nan" if value != value else "inf" if value > 0 else "-inf"
            return f'lit_{e.dtype}("{spelled}")'
        return f"lit_{e.dtype}({float(value)!r})"
    return f"lit_{e.dtype}({int(value)})"
