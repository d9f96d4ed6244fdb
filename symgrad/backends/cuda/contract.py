"""Contractions as tiles in shared memory: matrix products, convolutions and their adjoints, found by their form.

A value that holds a sum of products, `sum over k of A * B` where A depends on some of the outer loops and B on others, is a matrix
product whatever the addresses are: the loops of A alone are its rows, those of B alone its columns, common ones its batch. A block
brings tiles of A and B into shared memory, each element through the expression that says where it lies (padding included), and every
thread sums a small square of results. What is computed from the sum happens where it is finished. Long sums of few results are
divided into parts of fixed size, which a second kernel adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...base import poly
from ...base.dtypes import itemsize
from ...base.poly import Atom, Poly
from ...graph.node import new_input
from ...graph.types import Type
from ...loops import ir
from ...loops.ir import E
from ...schedule.lower import Effect, Store, coefficient, flat_index, replace_part, subexpressions
from ..text import literal_text
from .launch import Launch
from .printer import CudaPrinter

PARTS = 256             # blocks that keep a device busy
SHORTEST = 256          # products that are worth a block
LEAST = 8               # rows, columns and products that are worth a tile
MOST_SHARED = 48 * 1024 # bytes that every device gives a block without being asked
PAD = 4                 # elements between the rows of a tile: neighbours in a column lie in different banks

Loops = list[tuple[Atom, Any]]


@dataclass(frozen=True)
class Tile:
    """What a block computes: rows x columns, `depth` products at a time, a square of `side` per thread."""

    rows: int
    columns: int
    depth: int = 16
    side: int = 4

    @property
    def threads(self) -> int:
        return self.rows * self.columns // self.side ** 2

    @property
    def shared_elements(self) -> int:
        return self.depth * (self.rows + self.columns + 2 * PAD) + self.rows * self.columns


@dataclass
class Operand:
    """One factor: its value, its own loops, and whether neighbours in memory are neighbours along the sum."""

    value: E
    loops: Loops
    along_sum: bool

    @property
    def size(self) -> int:
        return int(poly.product(n for _, n in self.loops))


@dataclass
class Contraction:
    """sum = the sum over the `inner` loops of a * b; rows are the loops of a, columns those of b, the last of which is the innermost."""

    sum: E
    a: Operand
    b: Operand
    batch: Loops
    inner: Loops

    @property
    def depth(self) -> int:
        return int(poly.product(n for _, n in self.inner))


def find(effects: Sequence[Effect], loops: Loops) -> Contraction | None:
    """The contraction that the values of a nest hold, if that is worth tiles."""
    if not loops or not all(isinstance(e, Store) for e in effects) or not all(isinstance(n, int) for _, n in loops):
        return None
    folds = {x.serial: x for e in effects for x in subexpressions(e.value) if x.kind == "fold"}
    if len(folds) != 1:
        return None
    found = _product(next(iter(folds.values())), loops)
    if found is None or min(found.a.size, found.b.size, found.depth) < LEAST:
        return None
    return found


def _product(fold: E, loops: Loops) -> Contraction | None:
    operation, ks, body = fold.args
    inner = [(atom, atom.extent) for atom in (next(iter(k.terms))[0] for k in ks)]
    test = None
    if body.kind == "cond" and body.args[2].kind == "lit" and body.args[2].args[0] == 0:
        test, body = body.args[0], body.args[1]
    if operation != "add" or not fold.dtype.startswith("float") or body.kind != "call" or body.args[0] != "mul":
        return None
    if not all(isinstance(n, int) and n for _, n in (*inner, *loops)):
        return None
    outer = {a for a, _ in loops}
    a, b = body.args[1:]
    if loops[-1][0] in a.free and loops[-1][0] not in b.free:
        a, b = b, a
    mine, theirs = (x.free & outer for x in (a, b))
    if mine | theirs != outer or loops[-1][0] not in theirs - mine:
        return None
    zero = ir.literal(0, fold.dtype)
    if test is not None and test.free & outer <= theirs:
        b = ir.cond(test, b, zero)
    elif test is not None and test.free & outer <= mine:
        a = ir.cond(test, a, zero)
    elif test is not None:
        return None
    chosen = lambda atoms: [(x, n) for x, n in loops if x in atoms]
    operand = lambda value, own: Operand(value, chosen(own), _runs_along(value, inner[-1][0]) and not _runs_along(value, chosen(own)[-1][0]))
    if not mine - theirs:
        return None
    return Contraction(fold, operand(a, mine - theirs), operand(b, theirs - mine), chosen(mine & theirs), inner)


def _runs_along(value: E, loop: Atom) -> bool:
    """Whether neighbours along the loop are neighbours in memory."""
    addresses = [x.args[1] for x in subexpressions(value) if x.kind == "load" and isinstance(x.args[1], Poly)]
    return any(isinstance(c := coefficient(at, loop), int) and c == 1 for at in addresses)


# --------------------------------------------------------------------------------------------------- kernels
def print_contraction(start: Any, effects: Sequence[Effect], loops: Loops, c: Contraction) -> Iterator[Launch]:
    """The kernel of a contraction, or two."""
    tile = choose(c)
    blocks = _blocks(c, tile)
    parts = max(1, min(c.depth // SHORTEST, PARTS // blocks))
    if parts == 1:
        yield _kernel(start, effects, c, tile, 1)
        return
    results = int(poly.product(n for _, n in loops))
    flat = flat_index([Poly({(a,): 1}) for a, _ in loops], [n for _, n in loops])
    part = poly.index("part", parts)
    buffer = new_input(Type(c.sum.dtype, (parts, results)), "parts of a sum")
    yield _kernel(start, [Store(buffer, part * results + flat, c.sum)], c, tile, parts)
    whole = ir.fold("add", [parts], lambda k: ir.load(buffer, k * results + flat, buffer.dtype), "part")
    yield from _second_stage(start, [Store(e.node, e.at, replace_part(e.value, c.sum, whole)) for e in effects], loops)


def _second_stage(start: Any, effects: Sequence[Effect], loops: Loops) -> Iterator[Launch]:
    from .nests import print_points  # which comes here for its contractions
    yield print_points(start, effects, loops)


def choose(c: Contraction) -> Tile:
    """The tile that wastes the least, of those that fit."""
    tiles = [Tile(64, 64), Tile(32, 128), Tile(128, 32), Tile(16, 128), Tile(128, 16), Tile(32, 32)]
    fitting = [t for t in tiles if t.shared_elements * itemsize(c.sum.dtype) <= MOST_SHARED]
    waste = lambda size, step: -(-size // step) * step / size
    return min(fitting, key=lambda t: waste(c.a.size, t.rows) * waste(c.b.size, t.columns) * (1 + 8 / t.rows + 8 / t.columns))


def _blocks(c: Contraction, tile: Tile) -> int:
    return -(-c.a.size // tile.rows) * -(-c.b.size // tile.columns) * int(poly.product(n for _, n in c.batch))


def _kernel(start: Any, effects: Sequence[Effect], c: Contraction, tile: Tile, parts: int) -> Launch:
    printer = start()
    _Tiles(printer, c, tile, parts).print(effects)
    depth = c.depth
    flops = 2 * depth * c.a.size * c.b.size * int(poly.product(n for _, n in c.batch))
    return Launch(printer, [e.node for e in effects], 0, tile.threads, blocks=_blocks(c, tile) * parts, flops=flops)


class _Tiles:
    """Prints one kernel."""

    def __init__(self, printer: CudaPrinter, c: Contraction, tile: Tile, parts: int) -> None:
        self.printer, self.c, self.tile, self.parts = printer, c, tile, parts
        self.dtype = c.sum.dtype
        self.part = -(-c.depth // parts)                    # products per block
        self.zero = literal_text(ir.literal(0, self.dtype))
        self.shared: list[Atom] = [a for a, _ in c.batch]   # indices that are the same throughout a block

    def print(self, effects: Sequence[Effect]) -> None:
        p, tile, side = self.printer, self.tile, range(self.tile.side)
        self.place_block()
        p.add(f"ty = quotient(lane(), {tile.columns // tile.side})")
        p.add(f"tx = remainder(lane(), {tile.columns // tile.side})")
        p.add(f"sa = shared_{self.dtype}({tile.depth * (tile.rows + PAD)})")
        p.add(f"sb = shared_{self.dtype}({tile.depth * (tile.columns + PAD)})")
        p.add(f"sc = shared_{self.dtype}({tile.rows * tile.columns})")
        for i in side:
            for j in side:
                p.add(f"s{i}_{j} = {self.zero}")
        p.add("k0 = first")
        with p.nested("while k0 < last:", guarded=True):
            self.fetch("a", self.c.a, tile.rows, "r0")
            self.fetch("b", self.c.b, tile.columns, "c0")
            p.add("barrier()")
            with p.nested(f"for kk in range(i32(0), i32({tile.depth}), i32(1)):"):
                self.multiply()
            p.add("barrier()")
            p.add(f"k0 = i32(k0 + {tile.depth})")
        for i in side:
            for j in side:
                p.add(f"sc[i32((ty * {tile.side} + {i}) * {tile.columns} + tx * {tile.side} + {j})] = s{i}_{j}")
        p.add("barrier()")
        self.finish(effects)

    def place_block(self) -> None:
        """Which part of which product this block computes."""
        p, c, tile = self.printer, self.c, self.tile
        down, across = -(-c.a.size // tile.rows), -(-c.b.size // tile.columns)
        p.add(f"c0 = i32({tile.columns} * remainder(block(), {across}))")
        p.add(f"r0 = i32({tile.rows} * remainder(quotient(block(), {across}), {down}))")
        p.add(f"z = quotient(block(), {across * down})")
        p.add("first = i32(0)")
        p.add(f"last = i32({c.depth})")
        if self.parts > 1:
            batch = int(poly.product(n for _, n in c.batch))
            index = next(iter(poly.index("part", self.parts).terms))[0]
            p.add(f"part = quotient(z, {batch})")
            p.index_names[index] = "part"
            self.shared.append(index)
            p.add(f"z = remainder(z, {batch})")
            p.add(f"first = i32(part * {self.part})")
            p.add(f"last = i32(min(first + {self.part}, {c.depth}))")
        if c.batch:
            self.decode("z", c.batch, "z")

    def decode(self, flat: str, loops: Loops, prefix: str) -> None:
        """The indices of loops, from one that runs over all of them."""
        self.printer.index_names.update({a: f"{prefix}_{k}" for k, (a, _) in enumerate(loops)})
        self.printer.split(flat, poly.product(n for _, n in loops), loops)

    def fetch(self, side: str, operand: Operand, length: int, corner: str) -> None:
        """Brings one tile into shared memory. What lies behind an edge is read at the edge, and not used; behind the sum it is 0."""
        p, tile, c = self.printer, self.tile, self.c
        elements = length * tile.depth
        fast = tile.depth if operand.along_sum else length
        bound = [*(a for a, _ in operand.loops), *(a for a, _ in c.inner), *self.shared]
        with p.nested(f"for q in range(i32(0), i32({-(-elements // tile.threads)}), i32(1)):", bound, guarded=True):
            p.add(f"e = i32(lane() + q * {tile.threads})")
            quick, slow = f"remainder(e, {fast})", f"quotient(e, {fast})"
            for name, text in zip(("ek", "ex") if operand.along_sum else ("ex", "ek"), (quick, slow)):
                p.add(f"{name} = {text}")
            p.add(f"ei = i32(min({corner} + ex, {operand.size - 1}))")
            p.add(f"en = i32(min(k0 + ek, {c.depth - 1}))")
            self.decode("ei", operand.loops, f"{side}i")
            self.decode("en", c.inner, f"{side}n")
            value = p.text(operand.value)
            if c.depth % tile.depth or self.part % tile.depth:
                value = f"where_{self.dtype}(k0 + ek < last, {value}, {self.zero})"
            p.add(f"s{side}[i32(ek * {length + PAD} + ex)] = {value}")

    def multiply(self) -> None:
        p, tile = self.printer, self.tile
        for side, thread, length in (("a", "ty", tile.rows), ("b", "tx", tile.columns)):
            start = f"kk * {length + PAD} + {thread} * {tile.side}"
            names = [f"{side}{i}" for i in range(tile.side)]
            if self.dtype == "float32":
                p.add(f"{', '.join(names)} = load4_float32(s{side}, i32({start}))")
            else:
                for i, name in enumerate(names):
                    p.add(f"{name} = s{side}[i32({start} + {i})]")
        for i in range(tile.side):
            for j in range(tile.side):
                p.add(f"s{i}_{j} = fma_{self.dtype}(a{i}, b{j}, s{i}_{j})")

    def finish(self, effects: Sequence[Effect]) -> None:
        """What becomes of the sums, neighbours in memory by neighbouring threads."""
        p, c, tile = self.printer, self.c, self.tile
        bound = [*(a for a, _ in c.a.loops), *(a for a, _ in c.b.loops), *self.shared]
        with p.nested(f"for q in range(i32(0), i32({tile.rows * tile.columns // tile.threads}), i32(1)):", guarded=True):
            p.add(f"e = i32(lane() + q * {tile.threads})")
            p.add(f"row = i32(r0 + quotient(e, {tile.columns}))")
            p.add(f"column = i32(c0 + remainder(e, {tile.columns}))")
            with p.nested(f"if row < {c.a.size} and column < {c.b.size}:", bound, guarded=True):
                self.decode("row", c.a.loops, "row")
                self.decode("column", c.b.loops, "column")
                p.add("total = sc[e]")
                given = ir.given("total", self.dtype, frozenset())
                values = [p.text(replace_part(e.value, c.sum, given)) for e in effects]
                for e, value in zip(effects, values):
                    p.store(e.node, e.at, value)


__all__ = ["find", "print_contraction"]
