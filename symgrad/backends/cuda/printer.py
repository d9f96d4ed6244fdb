"""Prints kernels for CUDA: the same expressions as everywhere, with typed index arithmetic and memory a device can read.

The dialect, beside the scalar functions that all backends share (`exp_float32`, `lit_int8`):

    kernel(p0, n1, ...)            pointers and sizes are parameters
    first_thread(), thread_count() this thread of the grid, and how many the grid has
    lane(), block(), block_size(), block_count()      the thread within its block, the block within the grid
    i32(x), i64(x)                 an index of that width; widths follow from the bounds of what is computed
    quotient(a, b), remainder(a, b)              of indices that are never negative, in 32 bits
    floor_quotient(a, b), floor_remainder(a, b)  of any indices
    truth(x), byte(x)              a bool of memory (one byte) as a value, and back
    shared_<dtype>(n), local_<dtype>(n)          memory of a block, and of a thread
    load4_float32(p, i)            four neighbours; i is a multiple of four
    barrier(), shuffle_down_<dtype>(x, d), shuffle_up_<dtype>(x, d), shuffle_xor_<dtype>(x, m)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

from ...base import poly
from ...base.poly import Atom, Poly
from ...loops import ir
from ...loops.ir import E
from ..text import Printer, Scope, literal_text

LIMIT = 2 ** 31
WARP = 32
COMMUTATIVE = {"add", "mul", "maximum", "minimum", "logor", "logand"}       # folds that may be taken in any order


class CudaPrinter(Printer):
    """Collects the parameters and the lines of one kernel. No float operation is spelled with an operator: `a + b` could be contracted."""

    def __init__(self) -> None:
        super().__init__()
        self.team: Scope | None = None          # where all threads of a block are present, and may work together
        self.threads = 0
        self.counts: dict[Atom, str] = {}       # sizes that an earlier kernel counted: read from memory at the start

    def size(self, a: Atom) -> str:
        if a.kind != "counted":
            return super().size(a)
        if a not in self.counts:
            self.counts[a] = f"m{len(self.counts)} = {self.pointer(a.args[0])}[0]"
        return self.counts[a].partition(" ")[0]

    def poly_text(self, value: Any) -> str:
        return index_text(value, self._atom_text)

    def loop_head(self, name: str, start: str, stop: Any, step: str = "1") -> str:
        """`for name in range(...)`, counting in 32 bits where `stop` fits."""
        width = "i32" if fits(stop) else "i64"
        last = f"{width}({self.poly_text(stop)})"
        return f"for {name} in range({width}({start}), {last}, {width}({step})):"

    @contextmanager
    def loop(self, a: Atom, extent: Any) -> Iterator[Scope]:
        with self.nested(self.loop_head(self.index_name(a), "0", extent), [a]) as scope:
            yield scope

    @contextmanager
    def grid(self, loops: Sequence[tuple[Atom, Any]], guarded: bool = False) -> Iterator[Scope]:
        """The points of these loops, one thread each; the threads take further ones if there are more. guarded: nothing moves out."""
        total = poly.product(extent for _, extent in loops)
        name = self.index_name(loops[0][0]) if len(loops) == 1 else "point"
        with self.striding(name, "first_thread()", total, "thread_count()", [a for a, _ in loops], guarded) as scope:
            if len(loops) > 1:
                self.split("point", total, loops)
            yield scope

    @contextmanager
    def striding(self, name: str, start: str, stop: Any, step: str, bound: Sequence[Atom] = (),
                 guarded: bool = False) -> Iterator[Scope]:
        """`name` from `start` on in steps; spelled out, for to know its number of turns `range` divides."""
        width = "i32" if fits(stop) else "i64"
        self.add(f"{name} = {width}({start})")
        with self.nested(f"while {name} < {self.poly_text(stop)}:", bound, guarded) as scope:
            yield scope
            self.add(f"{name} = {width}({name} + {step})")

    def split(self, flat: str, total: Any, loops: Sequence[tuple[Atom, Any]]) -> None:
        """The indices of nested loops from one that runs over all of them, innermost fastest."""
        divide, rest = ("quotient", "remainder") if fits(total) else ("floor_quotient", "floor_remainder")
        inner: Any = 1
        for k, (a, extent) in reversed(list(enumerate(loops))):
            text = flat if isinstance(inner, int) and inner == 1 else f"{divide}({flat}, {self.poly_text(inner)})"
            self.add(f"{self.index_name(a)} = {text if k == 0 else f'{rest}({text}, {self.poly_text(extent)})'}")
            inner = inner * extent

    # ---- blocks that work together
    @contextmanager
    def rows(self, loops: Sequence[tuple[Atom, Any]], threads: int) -> Iterator[None]:
        """The points of these loops, one block each. What is computed here all threads compute, and sums they compute together."""
        total = poly.product(extent for _, extent in loops)
        with ExitStack() as stack:
            if not isinstance(total, int):      # of which there may be fewer than blocks
                stack.enter_context(self.nested(f"if block() < {self.poly_text(total)}:", guarded=True))
            self.scope.bound |= {a for a, _ in loops}
            if len(loops) == 1:
                self.add(f"{self.index_name(loops[0][0])} = block()")
            elif loops:
                self.split("block()", total, loops)
            self.team, self.threads = self.scope, threads
            yield
            self.team = None

    @contextmanager
    def lanes(self, loops: Sequence[tuple[Atom, Any]]) -> Iterator[Scope]:
        """The points of these loops, shared out among the threads of a block; without loops, one point for the first thread."""
        if not loops:
            with self.nested("if lane() == 0:") as scope:
                yield scope
            return
        name = self.index_name(loops[0][0]) if len(loops) == 1 else self.temporary()
        total = poly.product(extent for _, extent in loops)
        with self.striding(name, "lane()", total, str(self.threads), [a for a, _ in loops]) as scope:
            if len(loops) > 1:
                self.split(name, total, loops)
            yield scope

    def combine(self, name: str, operation: str, dtype: str) -> None:
        """The results of all threads of the block into one that each of them has under this name, in an order that never changes."""
        step = WARP // 2
        while step:
            self.add(f"{name} = {self.accumulate_text(operation, name, f'shuffle_xor_{dtype}({name}, {step})', dtype)}")
            step //= 2
        warps = self.threads // WARP
        if warps == 1:
            return
        memory = self.temporary()
        self.add(f"{memory} = shared_{dtype}({warps})")
        with self.nested(f"if remainder(lane(), {WARP}) == 0:", guarded=True):
            self.add(f"{memory}[quotient(lane(), {WARP})] = {stored(name, dtype)}")
        self.add("barrier()")
        found = [loaded(f"{memory}[{k}]", dtype) for k in range(warps)]
        self.add(f"{name} = {found[0]}")
        for other in found[1:]:
            self.add(f"{name} = {self.accumulate_text(operation, name, other, dtype)}")

    def identity(self, operation: str, dtype: str) -> str:
        """The name of a new value: the identity of the operation."""
        name = self.temporary()
        self.add(f"{name} = {literal_text(ir.literal(ir.IDENTITY[operation](dtype), dtype))}")
        return name

    def _print_fold(self, e: E) -> str:
        if self.scope is not self.team or e.args[0] not in COMMUTATIVE:
            return super()._print_fold(e)
        operation, ks, body = e.args
        name = self.identity(operation, e.dtype)
        atoms = [next(iter(k.terms))[0] for k in ks]
        with self.lanes([(a, a.extent) for a in atoms]):
            self.add(f"{name} = {self.accumulate_text(operation, name, self.text(body), body.dtype)}")
        self.combine(name, operation, e.dtype)
        return name

    # ---- expressions
    def _expression(self, e: E) -> str:
        if e.kind == "load":
            text = super()._expression(e)
            return loaded(text, e.dtype)
        if e.kind == "index":
            return f"i64({self.poly_text(e.args[0])})"
        return super()._expression(e)

    def call_text(self, name: str, operands: Sequence[str], dtype: str) -> str:
        return f"{name}({operands[0]})" if name.startswith("cast_") else f"{name}_{dtype}({', '.join(operands)})"

    def store(self, buffer: Any, at: Any, value: str) -> None:
        super().store(buffer, at, stored(value, buffer.dtype))

    # ---- kernels
    def kernel(self, header: Sequence[str] = (), taken: Mapping[Any, Any] = MappingProxyType({})) -> str:
        names = [what.name if kind == "scratch" else f"{'p' if kind == 'buffer' else 'n'}{slot}"
                 for slot, (kind, what) in enumerate(self.arguments)]
        lines = ["    " + line for line in [*self.counts.values(), *self.scope.lines] or ["pass"]]
        return "\n".join([*header, f"def kernel({', '.join(names)}):", *lines]) + "\n"


def stored(value: str, dtype: str) -> str:
    """The text of a value as memory holds it."""
    return f"byte({value})" if dtype == "bool" else value


def loaded(text: str, dtype: str) -> str:
    """The text of a value in memory as a value of its dtype."""
    return f"truth({text})" if dtype == "bool" else text


def fits(value: Any) -> bool:
    """Whether the value of a polynomial is known to fit a signed integer of 32 bits."""
    low, high = poly.bounds(value)
    return -LIMIT <= low and high < LIMIT


def index_text(value: Any, name: Callable[[Atom], str]) -> str:
    """The text of an index: in 32 bits if it fits. What it consists of wraps alike, so only divisions care for its parts."""
    if not isinstance(value, Poly):
        return str(value)
    text = poly.text(value, name, _division(name))
    return text if text.isidentifier() or not fits(value) else f"i32({text})"


def _division(name: Callable[[Atom], str]) -> Callable[[Atom], str | None]:
    def text(a: Atom) -> str | None:
        if a.kind not in ("floordiv", "mod"):
            return None
        short = all(poly.bounds(x)[0] >= 0 and fits(x) for x in a.args)
        word = {"floordiv": "quotient", "mod": "remainder"}[a.kind]
        operands = ", ".join(index_text(x, name) for x in a.args)
        return f"{'' if short else 'floor_'}{word}({operands})"
    return text
