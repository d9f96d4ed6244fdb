"""Register-tiled micro-kernels: machine code of their own, which kernels call by name.

A factory gets every number of its kernel as a plain argument: its call is spelled in the header of the kernel
text, which is the key of the object cache. All offsets and strides count elements. `last` is the number of
lanes of the final vector that exist in memory; the others are read as zero and never touched. Every kernel
takes typed pointers (any slot) and int64 bounds, returns nothing, and accepts unaligned addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from llvmlite.ir import Value

from .micro_code import Micro, factory
from .micro_plain import (  # noqa: F401  (the plain backend looks for a twin of every factory here)
    plain_argmax_micro,
    plain_claim_micro,
    plain_copy_micro,
    plain_dot_micro,
    plain_max_micro,
    plain_split_micro,
    plain_tile_micro,
    plain_transpose_micro,
    plain_unpool_micro,
    plain_winograd_input_micro,
    plain_winograd_output_micro,
    plain_winograd_weight_micro,
    plain_zero_micro,
)
from .values import declared, keep_rolled

__all__ = [
    "argmax_micro",
    "claim_micro",
    "copy_micro",
    "dot_micro",
    "max_micro",
    "split_micro",
    "tile_micro",
    "transpose_micro",
    "unpool_micro",
    "winograd_input_micro",
    "winograd_output_micro",
    "winograd_weight_micro",
    "zero_micro",
]

I64, I32, I1 = ir.IntType(64), ir.IntType(32), ir.IntType(1)


@factory
def tile_micro(
    dtype: str,
    lanes: int,
    rows: int,
    vectors: int,
    *,
    w_row: int,
    w_red: int,
    x_red: int,
    y_row: int,
    taps: Sequence[tuple[int, int]] = ((0, 0),),
    steps: Sequence[tuple[int, int]] = ((0, 0),),
    last: int | None = None,
) -> Micro:
    """The outer-product kernel `mk(x, w, y, c0, c1, done)` behind matrix products and convolutions.

    y[i*y_row + p] (+)= sum over c in [c0, c1), (xs, ws) in steps and (xt, wt) in taps of
                        w[i*w_row + c*w_red + ws + wt] * x[p + c*x_red + xs + xt]
    for i < rows and p < vectors*lanes. The sum starts at zero if done == 0 and at y otherwise.
    `taps` are unrolled, `steps` are looped over. Only x is masked by `last`; y has room for whole vectors.
    """
    tail = lanes if last is None else last
    tile = [(i, j) for i in range(rows) for j in range(vectors)]

    def emit(b: ir.IRBuilder, x: Value, w: Value, y: Value, c0: Value, c1: Value, done: Value) -> None:
        vec = _Vectors(b, dtype, lanes)

        def reduce_taps(x_at: Value, w_at: Value, acc: list) -> list:
            acc = list(acc)
            for x_off, w_off in taps:
                def x_vector(j: int, x_off: int = x_off) -> Value:
                    return vec.load(x_at, x_off + lanes * j, tail if j == vectors - 1 else lanes)

                def weight(i: int, w_off: int = w_off) -> Value:
                    return vec.broadcast(w_at, w_off + i * w_row)

                if vectors <= rows:         # hold the smaller side in registers, stream the other one
                    held = [x_vector(j) for j in range(vectors)]
                    pairs = (
                        (i, j, w, held[j]) for i in range(rows) for w in [weight(i)] for j in range(vectors)
                    )
                else:
                    held = [weight(i) for i in range(rows)]
                    pairs = (
                        (i, j, held[i], x) for j in range(vectors) for x in [x_vector(j)] for i in range(rows)
                    )
                for i, j, w, x in pairs:
                    acc[i * vectors + j] = vec.fma(w, x, acc[i * vectors + j])
            return acc

        def channel(c: Value, acc: list) -> list:
            x_at, w_at = vec.at(x, b.mul(c, _int(x_red))), vec.at(w, b.mul(c, _int(w_red)))
            if len(steps) == 1:
                return reduce_taps(vec.at(x_at, steps[0][0]), vec.at(w_at, steps[0][1]), acc)
            x_table, w_table = (_table(b, [step[side] for step in steps]) for side in (0, 1))

            def step(s: Value, acc: list) -> list:
                return reduce_taps(vec.at(x_at, b.load(b.gep(x_table, [_int(0), s]))),
                                   vec.at(w_at, b.load(b.gep(w_table, [_int(0), s]))), acc)
            return _loop(b, _int(0), _int(len(steps)), 1, acc, step)

        start = _choose(b, b.icmp_signed("==", done, _int(0)),
                        lambda: [vec.zero for _ in tile],
                        lambda: [vec.load(y, i * y_row + lanes * j) for i, j in tile])
        total = _loop(b, c0, c1, 1, start, channel)
        for (i, j), value in zip(tile, total):
            vec.store(y, i * y_row + lanes * j, value)

    return Micro(emit, pointers=3, sizes=3)


@factory
def dot_micro(dtype: str, lanes: int, rows: int, columns: Sequence[int], *, a_row: int, y_row: int,
              end: int = 0, last: int = 0) -> Micro:
    """The inner-product kernel `mk(a, x, y, p0, p1, count, a_next, x_next)`.

    y[i*y_row + t] += sum over m < count and p in [p0, p1) of
                      a[m*a_next + i*a_row + p] * x[m*x_next + columns[t] + p]
    for i < rows and t < len(columns). It serves weight gradients and products with a transposed matrix.
    p1 - p0 is a multiple of lanes; a block with p1 == end also gets the `last` positions after it.
    Each row of y is updated as one vector, of the power of two from len(columns) on: the surplus gets + 0.
    """
    width = 1 << (len(columns) - 1).bit_length()
    tile = [(i, t) for i in range(rows) for t in range(len(columns))]

    def emit(b: ir.IRBuilder, a: Value, x: Value, y: Value, p0: Value, p1: Value, count: Value, a_next: Value, x_next: Value) -> None:
        vec = _Vectors(b, dtype, lanes)

        def positions(m: Value, acc: list) -> list:
            a_at, x_at = vec.at(a, b.mul(m, a_next)), vec.at(x, b.mul(m, x_next))
            acc = _loop(b, p0, p1, lanes, acc, lambda p, acc: position(a_at, x_at, p, acc))
            if not last:
                return acc
            return _choose(b, b.icmp_signed("==", p1, _int(end)), lambda: position(a_at, x_at, p1, acc, last),
                           lambda: acc)

        def position(a: Value, x: Value, p: Value, acc: list, exist: int = lanes) -> list:
            a_at, x_at, acc = vec.at(a, p), vec.at(x, p), list(acc)
            xs = [vec.load(x_at, offset, exist) for offset in columns]
            for i in range(rows):
                row = vec.load(a_at, i * a_row, exist)
                for t, value in enumerate(xs):
                    acc[i * len(columns) + t] = vec.fma(row, value, acc[i * len(columns) + t])
            return acc

        acc = _loop(b, _int(0), count, 1, [vec.zero for _ in tile], positions)
        narrow = _Vectors(b, dtype, width)
        for i in range(rows):
            sums = vec.horizontal(acc[i * len(columns):(i + 1) * len(columns)], width)
            narrow.store(y, i * y_row, b.fadd(narrow.load(y, i * y_row), sums))

    return Micro(emit, pointers=3, sizes=5)


@factory
def copy_micro(dtype: str, lanes: int, vectors: int, *, last: int | None = None) -> Micro:
    """The copy `mk(x, y, count, x_row, y_row)` of `count` rows: y[r*y_row + p] = x[r*x_row + p].

    p runs over vectors*lanes.

    Lanes beyond `last` of the final vector are stored as zero.
    """
    tail = lanes if last is None else last

    def emit(b: ir.IRBuilder, x: Value, y: Value, count: Value, x_row: Value, y_row: Value) -> None:
        vec = _Vectors(b, dtype, lanes)

        def row(r: Value, nothing: list) -> list:
            x_at, y_at = vec.at(x, b.mul(r, x_row)), vec.at(y, b.mul(r, y_row))
            for j in range(vectors):
                value = vec.load(x_at, lanes * j, tail if j == vectors - 1 else lanes)
                vec.store(y_at, lanes * j, value)
            return nothing

        _loop(b, _int(0), count, 1, [], row)

    return Micro(emit, pointers=2, sizes=3, in_place=True)


@factory
def zero_micro(dtype: str) -> Micro:
    """The fill `mk(y, count, parts, y_part)`: y[part*y_part + p] = 0 for part < parts, p < count."""
    def emit(b: ir.IRBuilder, y: Value, count: Value, parts: Value, y_part: Value) -> None:
        vec = _Vectors(b, dtype, 1)
        byte = ir.PointerType(ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [byte, ir.IntType(8), I64, I1])
        fill = declared(b.module, kind, "llvm.memset.p0.i64")

        def part(k: Value, nothing: list) -> list:
            start = b.bitcast(vec.at(y, b.mul(k, y_part)), byte)
            b.call(fill, [start, ir.Constant(ir.IntType(8), 0), b.mul(count, _int(vec.bytes)), ir.Constant(I1, 0)])
            return nothing

        _loop(b, _int(0), parts, 1, [], part)

    return Micro(emit, pointers=1, sizes=3, in_place=True)


@factory
def transpose_micro(dtype: str, lanes: int, lines: int, *, end: int, last: int = 0) -> Micro:
    """The transposition `mk(x, y, x_line, y_row)`: y[k*y_row + q] = x[q*x_line + k] for k < end + last.

    end is a multiple of lanes, last < lanes. q runs over `lines`, rounded up to whole vectors: the surplus is
    zero.
    """
    def emit(b: ir.IRBuilder, x: Value, y: Value, x_line: Value, y_row: Value) -> None:
        vec = _Vectors(b, dtype, lanes)

        def square(x_at: Value, y_at: Value, count: int, exist: int) -> None:
            values = [vec.load(vec.at(x_at, b.mul(_int(q), x_line)), 0, exist) if q < count else vec.zero for q in range(lanes)]
            for q, value in enumerate(vec.transposed(values)[:exist]):
                vec.store(vec.at(y_at, b.mul(_int(q), y_row)), 0, value)

        def block(k: Value, nothing: list, exist: int = lanes) -> list:
            x_at, y_at = vec.at(x, k), vec.at(y, b.mul(k, y_row))

            def squares(first: Value, nothing: list) -> list:
                square(vec.at(x_at, b.mul(first, x_line)), vec.at(y_at, first), lanes, exist)
                return nothing

            whole = lines - lines % lanes
            _loop(b, _int(0), _int(whole), lanes, [], squares)
            if whole < lines:
                square(vec.at(x_at, b.mul(_int(whole), x_line)), vec.at(y_at, whole), lines - whole, exist)
            return nothing

        _loop(b, _int(0), _int(end), lanes, [], block)
        if last:
            block(_int(end), [], last)

    return Micro(emit, pointers=2, sizes=2)


@factory
def max_micro(dtype: str, lanes: int, count: int, *, columns: Sequence[int]) -> Micro:
    """The running maximum `mk(x, y)`: y[p] = max(y[p], x[columns[0] + p], ...) for p < count; NaN wins.

    y is updated in whole vectors.
    """
    def emit(b: ir.IRBuilder, x: Value, y: Value) -> None:
        vec = _Vectors(b, dtype, lanes)

        def positions(p: Value, nothing: list) -> list:
            best = vec.load(vec.at(y, p), 0)
            for column in columns:
                candidate = vec.load(vec.at(x, p), column)
                best = b.select(vec.beats(candidate, best), candidate, best)
            vec.store(vec.at(y, p), 0, best)
            return nothing

        _loop(b, _int(0), _int(count), lanes, [], positions)

    return Micro(emit, pointers=2, sizes=0)


@factory
def argmax_micro(dtype: str, lanes: int, count: int, *, columns: Sequence[int]) -> Micro:
    """The running maximum `mk(x, y, at, place)` that also keeps where it was found.

    As `max_micro`, and at[p] (int32) becomes place + k where candidate columns[k] is taken, which it is if it
    exceeds all earlier ones or is NaN.
    """
    def emit(b: ir.IRBuilder, x: Value, y: Value, at: Value, place: Value) -> None:
        vec, at = _Vectors(b, dtype, lanes), b.bitcast(at, ir.PointerType(I32))
        places = [_splat_int32(b, lanes, b.add(place, _int(k))) for k in range(len(columns))]

        def positions(p: Value, nothing: list) -> list:
            at_here = b.bitcast(b.gep(at, [p]), ir.PointerType(ir.VectorType(I32, lanes)))
            best, winner = vec.load(vec.at(y, p), 0), b.load(at_here, align=4)
            for column, here in zip(columns, places):
                candidate = vec.load(vec.at(x, p), column)
                take = vec.beats(candidate, best)
                best, winner = b.select(take, candidate, best), b.select(take, here, winner)
            vec.store(vec.at(y, p), 0, best)
            b.store(winner, at_here, align=4)
            return nothing

        _loop(b, _int(0), _int(count), lanes, [], positions)

    return Micro(emit, pointers=3, sizes=1)


@factory
def claim_micro(dtype: str, lanes: int, count: int, *, columns: Sequence[int], taps: Sequence[int]) -> Micro:
    """The gradient `mk(at, g, y, place)` of a maximum, gathered by those that may have won (`at` is of `argmax_micro`).

    y[p] += sum over k of g[columns[k] + p] where at[columns[k] + p] == place + taps[k], for p < count. All are read and
    written in whole vectors.
    """
    def emit(b: ir.IRBuilder, at: Value, g: Value, y: Value, place: Value) -> None:
        vec, at = _Vectors(b, dtype, lanes), b.bitcast(at, ir.PointerType(I32))
        mine = [_splat_int32(b, lanes, b.add(place, _int(tap))) for tap in taps]

        def positions(p: Value, nothing: list) -> list:
            total = vec.load(vec.at(y, p), 0)
            for column, here in zip(columns, mine):
                there = b.add(p, _int(column))
                winner = b.load(b.bitcast(b.gep(at, [there]), ir.PointerType(ir.VectorType(I32, lanes))), align=4)
                share = b.select(b.icmp_signed("==", winner, here), vec.load(vec.at(g, there), 0), vec.zero)
                total = b.fadd(total, share)
            vec.store(vec.at(y, p), 0, total)
            return nothing

        _loop(b, _int(0), _int(count), lanes, [], positions)

    return Micro(emit, pointers=3, sizes=1)


def _splat_int32(b: ir.IRBuilder, lanes: int, number: Value) -> Value:
    """A vector of int32 that are all this int64."""
    empty = ir.Constant(ir.VectorType(I32, lanes), ir.Undefined)
    first = b.insert_element(empty, b.trunc(number, I32), ir.Constant(I32, 0))
    return b.shuffle_vector(first, empty, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


@factory
def unpool_micro(dtype: str, lanes: int, count: int, *, x_row: int, y_row: int) -> Micro:
    """The gradient `mk(x, g, y)` of 2x2 max pooling for one line of `count` windows.

    y[r*y_row + 2*q + s] = g[q] where x[r*x_row + 2*q + s] is the first maximum of window q, or its last NaN,
    else 0. y is written in whole vectors.
    """
    def emit(b: ir.IRBuilder, x: Value, g: Value, y: Value) -> None:
        vec = _Vectors(b, dtype, lanes)
        even, odd = range(0, 2 * lanes, 2), range(1, 2 * lanes, 2)
        low = [lane for i in range(lanes // 2) for lane in (i, lanes + i)]
        high = [lane + lanes // 2 for lane in low]

        def windows(q: Value, nothing: list, exist: int = lanes) -> list:
            x_at, y_at = vec.at(x, b.mul(q, _int(2))), vec.at(y, b.mul(q, _int(2)))
            cells = []
            for row in (0, x_row):
                first = vec.load(x_at, row, min(2 * exist, lanes))
                second = vec.load(x_at, row + lanes, 2 * exist - lanes) if 2 * exist > lanes else vec.zero
                cells += [vec.shuffle(first, second, even), vec.shuffle(first, second, odd)]
            best, takes = cells[0], []
            for cell in cells[1:]:
                takes.append(vec.beats(cell, best))
                best = b.select(takes[-1], cell, best)
            rest, shares = vec.load(vec.at(g, q), 0, exist), []
            for taken in reversed(takes):
                shares.append(b.select(taken, rest, vec.zero))
                rest = b.select(taken, vec.zero, rest)
            a_, (d_, c_, b_) = rest, shares
            for row, left, right in ((0, a_, b_), (y_row, c_, d_)):
                vec.store(y_at, row, vec.shuffle(left, right, low))
                if 2 * exist > lanes:
                    vec.store(y_at, row + lanes, vec.shuffle(left, right, high))
            return nothing

        full = count - count % lanes
        _loop(b, _int(0), _int(full), lanes, [], windows)
        if count > full:
            windows(_int(full), [], count - full)

    return Micro(emit, pointers=3, sizes=0)


@factory
def split_micro(dtype: str, lanes: int, step: int) -> Micro:
    """The deinterleaving copy `mk(x, y, count, y_phase)`: y[phase*y_phase + p] = x[p*step + phase].

    phase < step; p runs over `count`, rounded up to whole vectors.
    """
    def emit(b: ir.IRBuilder, x: Value, y: Value, count: Value, y_phase: Value) -> None:
        vec, wide = _Vectors(b, dtype, lanes), _Vectors(b, dtype, lanes * step)

        def positions(p: Value, nothing: list) -> list:
            mixed = wide.load(vec.at(x, b.mul(p, _int(step))), 0)
            for phase in range(step):
                part = vec.shuffle(mixed, mixed, range(phase, lanes * step, step))
                vec.store(vec.at(y, b.add(p, b.mul(_int(phase), y_phase))), 0, part)
            return nothing

        _loop(b, _int(0), count, lanes, [], positions)

    return Micro(emit, pointers=2, sizes=2)


# Winograd's minimal filtering F(m x m, 3 x 3): y = A' ((G w G') * (B' x B)) A, on tiles of m + 2 pixels.
# Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks";
# points 0, 1, -1, infinity and for m = 4 also 2, -2.
_FILTERING = {
    2: {"B": ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        "G": ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        "A": ((1, 1, 1, 0), (0, 1, -1, -1))},
    4: {"B": ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
              (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
        "G": ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
              (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
        "A": ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))},
}


@factory
def winograd_input_micro(dtype: str, lanes: int, m: int) -> Micro:
    """The transform `mk(x, v, v_next, phase, line)` of `lanes` tiles: v[(i*(m+2) + j)*v_next + p] = (B' x B)[i, j] of tile p.

    x holds each of the m x m phases of an image apart: pixel (i, j) of tile p is
    x[(i%m * m + j%m)*phase + i//m * line + j//m + p].
    """
    def emit(b: ir.IRBuilder, x: Value, v: Value, v_next: Value, phase: Value, line: Value) -> None:
        vec, side = _Vectors(b, dtype, lanes), range(m + 2)
        phases = [vec.at(x, b.mul(phase, _int(k))) for k in range(m * m)]
        lines = [[vec.at(start, b.mul(line, _int(k))) if k else start for k in range((m + 1) // m + 1)] for start in phases]
        tile = [[vec.load(lines[i % m * m + j % m][i // m], j // m) for j in side] for i in side]
        _store_square(vec, v, v_next, _two_sided(vec, _FILTERING[m]["B"], tile))

    return Micro(emit, pointers=2, sizes=3)


@factory
def winograd_weight_micro(dtype: str, lanes: int, m: int, *, taps: Sequence[int], exist: int | None = None) -> Micro:
    """The transform `mk(w, u, w_lane, u_next)` of `lanes` filters: u[(i*(m+2) + j)*u_next + p] = (G w G')[i, j] of filter p.

    Tap (r, s) of filter p is w[taps[3*r + s] + p*w_lane]; filters from `exist` on count as zero.
    """
    def emit(b: ir.IRBuilder, w: Value, u: Value, w_lane: Value, u_next: Value) -> None:
        vec = _Vectors(b, dtype, lanes)
        filters = [vec.at(w, b.mul(w_lane, _int(lane))) for lane in range(lanes if exist is None else exist)]

        def gathered(tap: int) -> Value:
            value = vec.zero
            for lane, own in enumerate(filters):
                scalar = b.load(vec.at(own, tap), align=vec.bytes)
                value = b.insert_element(value, scalar, ir.Constant(I32, lane))
            return value
        tile = [[gathered(taps[3 * r + s]) for s in range(3)] for r in range(3)]
        _store_square(vec, u, u_next, _two_sided(vec, _FILTERING[m]["G"], tile))

    return Micro(emit, pointers=2, sizes=2)


@factory
def winograd_output_micro(dtype: str, lanes: int, m: int) -> Micro:
    """The transform `mk(t, y, t_next, y_row)` of `lanes` tiles: y[a*y_row + p*m + b] = (A' t A)[a, b] of tile p.

    Product (i, j) of tile p is t[(i*(m+2) + j)*t_next + p].
    """
    def emit(b: ir.IRBuilder, t: Value, y: Value, t_next: Value, y_row: Value) -> None:
        vec, size = _Vectors(b, dtype, lanes), m + 2
        tile = [[vec.load(vec.at(t, b.mul(t_next, _int(i * size + j))), 0) for j in range(size)] for i in range(size)]
        for a, row in enumerate(_two_sided(vec, _FILTERING[m]["A"], tile)):
            for part, value in enumerate(vec.interleaved(row)):
                vec.store(vec.at(y, b.mul(y_row, _int(a))), part * lanes, value)

    return Micro(emit, pointers=2, sizes=2)


def _two_sided(vec: _Vectors, matrix: Sequence[Sequence[float]], tile: list[list]) -> list[list]:
    """matrix @ tile @ matrix' for a tile of vectors."""
    columns = [vec.combined(matrix, [row[j] for row in tile]) for j in range(len(tile[0]))]
    return [vec.combined(matrix, [column[i] for column in columns]) for i in range(len(matrix))]


def _store_square(vec: _Vectors, pointer: Value, distance: Value, square: list[list]) -> None:
    for k, value in enumerate(value for row in square for value in row):
        vec.store(vec.at(pointer, vec.b.mul(distance, _int(k))), 0, value)


class _Vectors:
    """Emits operations on vectors of one length and dtype at the builder's position."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int) -> None:
        self.b, self.lanes = builder, lanes
        self.element = {"float32": ir.FloatType(), "float64": ir.DoubleType()}[dtype]
        self.bytes = 4 if dtype == "float32" else 8
        self.type = ir.VectorType(self.element, lanes)
        self.name = f"v{lanes}f{8 * self.bytes}"
        self.zero = ir.Constant(self.type, [0.0] * lanes)

    def constant(self, value: float) -> Value:
        return ir.Constant(self.type, [value] * self.lanes)

    def at(self, pointer: Value, offset: int | Value) -> Value:
        if isinstance(offset, int):
            if offset == 0:
                return pointer
            offset = _int(offset)
        return self.b.gep(pointer, [offset])

    def load(self, pointer: Value, offset: int, exist: int | None = None) -> Value:
        address = self.b.bitcast(self.at(pointer, offset), ir.PointerType(self.type))
        if exist is None or exist == self.lanes:
            return self.b.load(address, align=self.bytes)
        mask = ir.Constant(ir.VectorType(I1, self.lanes), [int(lane < exist) for lane in range(self.lanes)])
        kind = ir.FunctionType(self.type, [address.type, I32, mask.type, self.type])
        masked = declared(self.b.module, kind, f"llvm.masked.load.{self.name}.p0")
        return self.b.call(masked, [address, ir.Constant(I32, self.bytes), mask, self.zero])

    def store(self, pointer: Value, offset: int, value: Value) -> None:
        address = self.b.bitcast(self.at(pointer, offset), ir.PointerType(self.type))
        self.b.store(value, address, align=self.bytes)

    def broadcast(self, pointer: Value, offset: int) -> Value:
        return self.splat(self.b.load(self.at(pointer, offset), align=self.bytes))

    def splat(self, scalar: Value) -> Value:
        if self.lanes == 1:
            return self.b.insert_element(self.zero, scalar, ir.Constant(I32, 0))
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.b.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def shuffle(self, left: Value, right: Value, lanes: Sequence[int]) -> Value:
        return self.b.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        kind = ir.FunctionType(self.type, [self.type] * 3)
        return self.b.call(declared(self.b.module, kind, f"llvm.fma.{self.name}"), [x, y, z])

    def transposed(self, values: list) -> list:
        """The rows of the transposed square whose rows are `values`: log2(lanes) rounds of interleaving."""
        half, n = self.lanes // 2, self.lanes
        low = [lane for i in range(half) for lane in (i, n + i)]
        high = [lane for i in range(half, n) for lane in (i, n + i)]
        for _ in range(n.bit_length() - 1):
            values = [
                self.shuffle(values[i], values[i + half], pattern)
                for i in range(half)
                for pattern in (low, high)
            ]
        return values

    def beats(self, candidate: Value, best: Value) -> Value:
        """Where a candidate replaces the best value before it: greater, or NaN."""
        greater = self.b.fcmp_ordered(">", candidate, best)
        return self.b.or_(greater, self.b.fcmp_unordered("uno", candidate, candidate))

    def interleaved(self, values: list) -> list:
        """Lane 0 of every value, then lane 1 of every value, ...; the number of values is a power of two."""
        if len(values) == 1:
            return values
        n = self.lanes
        low = [lane for i in range(n // 2) for lane in (i, n + i)]
        high = [lane + n // 2 for lane in low]
        pairs = zip(self.interleaved(values[0::2]), self.interleaved(values[1::2]))
        return [self.shuffle(even, odd, part) for even, odd in pairs for part in (low, high)]

    def combined(self, matrix: Sequence[Sequence[float]], values: list) -> list:
        """The product of a small constant matrix with a list of vectors."""
        results = []
        for row in matrix:
            terms = sorted(
                ((factor, value) for factor, value in zip(row, values) if factor), key=lambda t: t[0] != 1
            )
            factor, total = terms[0]
            if factor != 1:
                total = self.b.fmul(self.constant(factor), total)
            for factor, value in terms[1:]:
                if factor in (1, -1):
                    total = (self.b.fadd if factor == 1 else self.b.fsub)(total, value)
                else:
                    total = self.fma(self.constant(factor), value, total)
            results.append(total)
        return results

    def horizontal(self, values: list, width: int) -> Value:
        """A vector of `width` lanes holding the sum of each vector, zero beyond len(values)."""
        values = list(values) + [self.zero] * (width - len(values))
        lanes = self.lanes
        while lanes > width:                                  # fold each vector onto itself ...
            half = lanes // 2
            low, high = range(half), range(half, lanes)
            values = [self.b.fadd(self.shuffle(v, v, low), self.shuffle(v, v, high)) for v in values]
            lanes = half
        if lanes < width:
            raise ValueError("more columns than lanes")
        group = lanes
        while len(values) > 1:                                # ... then fold pairs into one vector
            half, pairs = group // 2, len(values) // 2
            blocks = [range(base, base + half) for base in range(0, lanes, group)]
            left = [lane for block in blocks for lane in (*block, *(lanes + q for q in block))]
            right = [lane + half for lane in left]
            values = [self.b.fadd(self.shuffle(values[k], values[k + pairs], left),
                                  self.shuffle(values[k], values[k + pairs], right)) for k in range(pairs)]
            group = half
        return self.shuffle(values[0], values[0], _lanes_of_tree(width)) if width > 1 else values[0]


def _lanes_of_tree(width: int) -> list[int]:
    """For each input of the pairwise tree, the lane in which its sum ends up."""
    owners, group = [[k] * width for k in range(width)], width
    while len(owners) > 1:
        half, pairs = group // 2, len(owners) // 2
        owners = [
            [
                o
                for base in range(0, width, group)
                for o in owners[k][base : base + half] + owners[k + pairs][base : base + half]
            ]
            for k in range(pairs)
        ]
        group = half
    return [owners[0].index(k) for k in range(width)]


def _int(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _table(b: ir.IRBuilder, numbers: Sequence[int]) -> Value:
    """A constant int64 array inside the module."""
    kind = ir.ArrayType(I64, len(numbers))
    table = ir.GlobalVariable(b.module, kind, b.module.get_unique_name("offsets"))
    table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(kind, list(numbers))
    return table


def _choose(b: ir.IRBuilder, condition: Value, if_true: Callable[[], list], if_false: Callable[[], list]) -> list:
    """The values of one of two lists, computed only on the side that is taken."""
    sides = []
    yes, no, after = (b.append_basic_block(name) for name in ("yes", "no", "after"))
    b.cbranch(condition, yes, no)
    for block, values in ((yes, if_true), (no, if_false)):
        b.position_at_end(block)
        sides.append((values(), b.block))
        b.branch(after)
    b.position_at_end(after)
    chosen = []
    for pair in zip(*(values for values, _ in sides)):
        phi = b.phi(pair[0].type)
        for value, (_, block) in zip(pair, sides):
            phi.add_incoming(value, block)
        chosen.append(phi)
    return chosen


def _loop(b: ir.IRBuilder, start: Value, stop: Value, step: int, carried: list, body: Callable[..., list]) -> list:
    """What `carried` has become after body(index, carried) ran for index in range(start, stop, step)."""
    before = b.block
    head, after = b.append_basic_block("head"), b.append_basic_block("after")
    b.cbranch(b.icmp_signed("<", start, stop), head, after)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(start, before)
    inner = []
    for value in carried:
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        inner.append(phi)
    results = body(index, inner)
    following = b.add(index, _int(step))
    index.add_incoming(following, b.block)
    for phi, result in zip(inner, results):
        phi.add_incoming(result, b.block)
    keep_rolled(b.cbranch(b.icmp_signed("<", following, stop), head, after))
    end = b.block
    b.position_at_end(after)
    outcomes = []
    for value, result in zip(carried, results):
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(result, end)
        outcomes.append(phi)
    return outcomes
