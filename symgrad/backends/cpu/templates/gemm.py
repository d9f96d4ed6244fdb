"""Matrix products C[b, i, j] = sum over k of A[b, i, k] * B[b, k, j].

Sizes and strides known as integers give the *static* forms, which read the operands in place where that is
fast: - outer form: a register tile of C; one operand is broadcast, the other is read in vectors along j; -
skinny outer form (very few rows): few k at a time over many columns, so that B streams at memory speed; -
inner form (rows of A and columns of B both contiguous along k): dot products, no packing. A size or stride
given as a name gives the *any-size* form: both operands are packed block by block, zeros filling the edges
(the scheme of Goto and van de Geijn 2008, as arranged in BLIS, Van Zee and van de Geijn 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from . import (
    FEW_PARTS,
    ITEM_BYTES,
    Epilogue,
    Target,
    TemplateText,
    Writer,
    choose_tile,
    host_target,
    nothing,
    round_up,
    sum_text,
)

__all__ = ["Gemm", "Operand", "gemm"]

Size = int | str
FEW = 3         # rows for which packing the other operand starts to pay


@dataclass(frozen=True)
class Operand:
    """A strided matrix per batch: element (b, r, c) is name[offset + (b, r, c) . strides]."""

    name: str
    strides: tuple[Size, Size, Size]
    offset: Size = 0

    def at(self, batch: str, row: Size, column: Size) -> str:
        return sum_text(self.offset, *zip((batch, row, column), self.strides))

    def transposed(self) -> Operand:
        return replace(self, strides=(self.strides[0], self.strides[2], self.strides[1]))


@dataclass(frozen=True)
class Gemm:
    """C (batch, m, n) = A (batch, m, k) times B (batch, k, n); sizes are ints or names of int64 variables.

    panel: B lies in panels of so many columns, each of k rows, one after the other; 0 if it lies by its strides.
    """

    dtype: str
    batch: Size
    m: Size
    n: Size
    k: Size
    a: Operand
    b: Operand
    panel: int = 0

    def transposed(self) -> Gemm:
        return replace(self, m=self.n, n=self.m, a=self.b.transposed(), b=self.a.transposed())

    @property
    def numbers(self) -> tuple[Size, ...]:
        return self.m, self.n, self.k, *self.a.strides[1:], *self.b.strides[1:]


@dataclass(frozen=True)
class _Output:
    """How a finished tile is handed to the epilogue: maybe transposed, maybe with columns seen as a grid."""

    epilogue: Epilogue
    swapped: bool = False
    one_row: bool = False
    width: int | None = None

    def emit(self, out: Writer, tile: str, pitch: int, rows: Size, columns: Size) -> None:
        """Loops over `rows` x `columns` elements of the tile whose first element is (row0, column0)."""
        if self.swapped:
            # the output is contiguous along our rows, or along our columns if there is one row
            loops = (out.loop("row", rows), out.loop("column", columns))
            outer, inner = loops if self.one_row else loops[::-1]
            with outer, inner:
                out.add("i = column0 + column", "j = row0 + row", f"value = {tile}[{sum_text(('row', pitch), 'column')}]",
                        *self.epilogue(("batch", "i", "j"), "value"))
        elif self.width:
            with out.loop("row", rows):
                out.add("i = row0 + row")
                with out.block(
                    f"for high in range(column0 // {self.width}, (column0 + {columns} - 1) // {self.width} + 1):"
                ):
                    out.add(f"line = high * {self.width}")
                    with out.block(
                        f"for low in range(max(column0 - line, 0), min(column0 + {columns} - line, {self.width})):"
                    ):
                        out.add(f"value = {tile}[{sum_text(('row', pitch))} + line + low - column0]",
                                *self.epilogue(("batch", "i", "high", "low"), "value"))
        else:
            with out.loop("row", rows):
                out.add("i = row0 + row")
                with out.loop("column", columns):
                    out.add("j = column0 + column", f"value = {tile}[{sum_text(('row', pitch), 'column')}]",
                            *self.epilogue(("batch", "i", "j"), "value"))


def gemm(
    problem: Gemm, epilogue: Epilogue, *, width: int | None = None, target: Target | None = None
) -> TemplateText:
    """The text of the product; the epilogue gets (batch, i, j).

    With `width`, columns are a grid and the epilogue gets (batch, i, j // width, j % width).
    """
    target = target or host_target()
    out, result = Writer(target.shared), _Output(epilogue, width=width)
    if 0 in (problem.batch, problem.m, problem.n):
        return nothing(target)
    if problem.k == 0:
        _emit_zeros(out, problem, result)
        return out.text()
    if not width and not problem.panel and _better_transposed(problem):
        problem, result = problem.transposed(), replace(result, swapped=True, one_row=problem.n == 1)
    if _is_inner(problem):
        _emit_inner(out, problem, result, target)
    elif _rows_alone_vary(problem):
        _emit_outer(out, problem, result, target)
    else:
        _emit_any_size(out, problem, result, target)
    return out.text()


def panel_width(dtype: str, m: int, k: int, n: int, target: Target) -> int | None:
    """The columns of the panels in which B is best laid out when it serves many products; None where it makes no difference."""
    lanes = target.lanes(dtype)
    if m == 1 or k < 2 or n < 2 * lanes:
        return None
    return choose_tile(m, n, lanes, target.registers)[1] * lanes


def _better_transposed(p: Gemm) -> bool:
    if isinstance(p.n, str) and isinstance(p.m, int):
        return True
    if p.n == 1 and isinstance(p.m, int):
        return p.m != 1
    along_k = p.b.strides[1] == 1 and p.b.strides[2] != 1
    return p.m != 1 and along_k and p.a.strides[1] == 1 and p.a.strides[2] != 1


def _is_inner(p: Gemm) -> bool:
    contiguous = p.a.strides[2] == 1 and p.b.strides[1] == 1 and p.b.strides[2] != 1
    return contiguous and _all_known(p.numbers) and int(p.k) >= 16 and min(int(p.m), int(p.n)) <= 16


def _rows_alone_vary(p: Gemm) -> bool:
    """Whether the outer form applies: everything is known but perhaps the number of rows of a row-major A."""
    return _all_known(p.numbers[1:]) and (isinstance(p.m, int) or p.a.strides[2] == 1)


def _shared_axis(p: Gemm, rows: int, columns: int) -> str:
    """The axis that threads share, given the rows and columns of a register tile: batch if there are many, else the longer one.

    Columns rather than rows: a packed B is then cut as well.
    """
    if isinstance(p.batch, str) or p.batch >= FEW_PARTS:
        return "batch"
    high = 2 * FEW_PARTS if isinstance(p.m, str) else -(-p.m // rows)
    wide = 2 * FEW_PARTS if isinstance(p.n, str) else -(-p.n // columns)
    return "columns" if wide >= min(high, FEW_PARTS) else "rows"


@dataclass(frozen=True)
class _Ranges:
    """(start, stop) of batch, rows and columns in one call."""

    batch: tuple[Size, Size]
    rows: tuple[Size, Size]
    columns: tuple[Size, Size]

    @staticmethod
    def of(out: Writer, p: Gemm, rows: int, columns: int) -> _Ranges:
        """All of two axes and, if threads share the kernel, the caller's share of the third, in whole tiles."""
        axis = _shared_axis(p, rows, columns)
        if axis != "batch":
            out.pieces = 2              # every call reads the whole of one operand
        spans = {"batch": (p.batch, 1), "rows": (p.m, rows), "columns": (p.n, columns)}
        return _Ranges(*(out.span(name, *span) if name == axis else (0, span[0]) for name, span in spans.items()))

    def loop_batch(self, out: Writer) -> AbstractContextManager[None]:
        return out.loop("batch", self.batch[1], start=self.batch[0])

    def loop_rows(self, out: Writer, block: int) -> AbstractContextManager[None]:
        return _blocks(out, "row0", "rows", self.rows, block)

    def loop_columns(self, out: Writer, block: int) -> AbstractContextManager[None]:
        return _blocks(out, "column0", "columns", self.columns, block)


@contextmanager
def _blocks(out: Writer, first: str, count: str, limits: tuple[Size, Size], block: int) -> Iterator[None]:
    """A loop over blocks, the last one maybe shorter: where each starts, how long it is."""
    with out.loop(first, limits[1], block, limits[0]):
        out.add(f"{count} = min({block}, {limits[1]} - {first})")
        yield


def _all_known(numbers: tuple[Size, ...]) -> bool:
    return all(isinstance(number, int) for number in numbers)


def _emit_zeros(out: Writer, p: Gemm, result: _Output) -> None:
    """The empty sum: zero everywhere."""
    tile = out.buffer(p.dtype, 1)
    out.add(f"{tile}[0] = lit_{p.dtype}(0.0)", "row0 = 0", "column0 = 0")
    with out.parts("batch", p.batch):
        with out.loop("row0", p.m), out.loop("column0", p.n):      # a tile of one element
            result.emit(out, tile, 0, 1, 1)


def _emit_outer(out: Writer, p: Gemm, result: _Output, target: Target) -> None:
    lanes, item = target.lanes(p.dtype), ITEM_BYTES[p.dtype]
    n, k, (w_row, w_red), (b_row, b_column) = int(p.n), int(p.k), map(int, p.a.strides[1:]), map(int, p.b.strides[1:])
    m = p.m if isinstance(p.m, int) else 96             # a guess
    rows, vectors = choose_tile(m, n, lanes, target.registers)
    tile_columns = vectors * lanes
    assert p.panel in (0, tile_columns), "panels are as wide as the tile"
    skinny = not p.panel and m <= 8 and k * n * item > target.l2_bytes
    k_block = 8 if skinny else k if k <= 384 else 256
    n_block = min(round_up(n, tile_columns), round_up(16384 // m if skinny else 256, tile_columns))
    # blocks of about 128 rows and of one size: a last one of few rows would walk through all of B for them
    blocks = 1 if isinstance(p.m, str) else -(-p.m // 128)
    m_block = rows * max(1, 128 // rows) if isinstance(p.m, str) else min(p.m, round_up(-(-p.m // blocks), rows))
    pack_b = not p.panel and (b_column != 1 or (not skinny and m >= 4 * rows and b_row * item >= 512))
    pack_a = n >= 4 * tile_columns and w_red * item >= 256
    pitch = n_block + (lanes if n_block * item % 1024 == 0 else 0)
    tile = out.buffer(p.dtype, round_up(m_block, rows) * pitch)
    # packed as a whole, B serves all blocks of rows; packed for each block of k, it is still in cache when used
    whole_b = b_column != 1 or (m > m_block and k * n_block * item <= 4 << 20)
    panel_depth = k if whole_b else k_block
    packed_b = out.buffer(p.dtype, panel_depth * n_block) if pack_b else ""
    packed_a = out.buffer(p.dtype, round_up(m_block, rows) * k_block) if pack_a else ""
    share = _Ranges.of(out, p, rows, tile_columns)
    if (pack_b and share.rows[0] != 0) or (pack_a and share.columns[0] != 0):
        out.pieces = 1

    def kernel(tile_rows: int, columns: int, packed: bool) -> str:
        width, last = -(-columns // lanes), f", last={columns % lanes}" if columns % lanes else ""
        across, along = (1, rows) if pack_a else (w_row, w_red)
        x_red = tile_columns if packed else b_row
        return out.micro(f"tile_micro({p.dtype!r}, {lanes}, {tile_rows}, {width}, w_row={across}, w_red={along}, "
                         f"x_red={x_red}, y_row={pitch}{last})")

    def emit_strip(columns: int, packed: bool, few: bool) -> None:
        x = f"advance({p.b.name}, {p.b.at('batch', 'k0', 'column0 + column')})"
        if p.panel:
            x = f"advance({p.b.name}, {sum_text(p.b.offset, f'(column0 + column)*{k}', ('k0', tile_columns))})"
        elif packed:
            x = f"advance({packed_b}, {sum_text(('column', panel_depth), ('k0', tile_columns if whole_b else 0))})"
        w_at = f"row*{k_block}" if pack_a else p.a.at("batch", "row0 + row", "k0")

        def call(tile_rows: int) -> str:
            return (f"{kernel(tile_rows, columns, packed)}({x}, advance({packed_a or p.a.name}, {w_at}), "
                    f"advance({tile}, row*{pitch} + column), 0, k1 - k0, k0)")
        if few:
            with out.loop("row", "rows"):
                out.add(call(1))
        else:
            _emit_row_tiles(out, p.m, rows, call)

    def emit_strips(packed: bool, few: bool = False) -> None:
        tail = 0 if packed else n % tile_columns
        if n >= tile_columns or not tail:
            limit = f"columns - {tile_columns - 1}" if tail else "columns"
            with out.block(f"for column in range(0, {limit}, {tile_columns}):"):
                emit_strip(tile_columns, packed, few)
        if tail:
            with out.block(f"if columns % {tile_columns} != 0:"):
                out.add(f"column = columns - {tail}")
                emit_strip(tail, packed, few)

    # an unknown number of rows may be too small to be worth packing for
    may_be_few = pack_b and isinstance(p.m, str) and b_column == 1

    def pack(first_k: str, depth: Size) -> None:
        with out.block(f"if {p.m} >= {FEW}:") if may_be_few else nullcontext():
            _Lines.of_b(p, first_k).emit_pack(out, p.dtype, lanes, packed_b, tile_columns, depth, panel_depth)

    with share.loop_batch(out), share.loop_columns(out, n_block):
        if pack_b and whole_b:
            pack("0", k)
        with share.loop_rows(out, m_block):
            with out.loop("k0", k, k_block):
                out.add(f"k1 = min(k0 + {k_block}, {k})")
                if pack_b and not whole_b:
                    pack("k0", "k1 - k0")
                if pack_a:
                    _Lines.of_a(p, "k0").emit_pack(out, p.dtype, rows, packed_a, rows, "k1 - k0", k_block)
                if may_be_few:
                    with out.block(f"if {p.m} >= {FEW}:"):
                        emit_strips(packed=True)
                    with out.block("else:"):
                        emit_strips(packed=False, few=True)
                else:
                    emit_strips(packed=pack_b or p.panel > 0)
            result.emit(out, tile, pitch, "rows", "columns")


def _emit_row_tiles(out: Writer, m: Size, rows: int, call: Callable[[int], str]) -> None:
    """Calls for all full tiles of rows of a block, then for the rest: one ragged tile, or row by row if unknown."""
    if isinstance(m, str) or m >= rows:
        with out.block(f"for row in range(0, rows - {rows - 1}, {rows}):"):
            out.add(call(rows))
    if isinstance(m, str):
        with out.block(f"for row in range(rows - rows % {rows}, rows):"):
            out.add(call(1))
    elif m % rows:
        with out.block(f"if rows % {rows} != 0:"):
            out.add(f"row = rows - {m % rows}", call(m % rows))


@dataclass(frozen=True)
class _Lines:
    """The rows of A or columns of B in a block, `count` of `total`, to be packed into panels of a few lines.

    packed[line // panel, k, line % panel]: the micro-kernel then reads a panel from end to end. Whatever surplus
    lines hold only reaches surplus elements of the tile, which nobody reads.
    """

    name: str
    first: str              # the address of line `first` at the first k
    strides: tuple[Size, Size]      # to the next line, to the next k
    count: str
    total: Size

    @staticmethod
    def of_a(p: Gemm, first_k: str) -> _Lines:
        return _Lines(p.a.name, p.a.at("batch", "row0 + first", first_k), p.a.strides[1:], "rows", p.m)

    @staticmethod
    def of_b(p: Gemm, first_k: str) -> _Lines:
        return _Lines(p.b.name, p.b.at("batch", first_k, "column0 + first"), p.b.strides[:0:-1], "columns", p.n)

    def emit_pack(self, out: Writer, dtype: str, lanes: int, packed: str, panel: int, depth: Size,
                  panel_depth: int) -> None:
        """Packs `depth` values of every line; panels are `panel_depth` apart."""
        known = isinstance(self.total, int) and _all_known(self.strides)
        if known and self.strides[0] == 1:
            self._emit_copies(out, dtype, min(lanes, panel), packed, panel, depth, panel_depth)
        elif known and self.strides[1] == 1 and isinstance(depth, int) and panel % lanes == 0:
            self._emit_transpositions(out, dtype, lanes, packed, panel, depth, panel_depth)
        else:
            self._emit_elements(out, dtype, packed, panel, depth, panel_depth)

    def _emit_copies(self, out: Writer, dtype: str, width: int, packed: str, panel: int, depth: Size,
                     panel_depth: int) -> None:
        def copy(lines: int) -> str:
            last = f", last={lines % width}" if lines % width else ""
            mk = out.micro(f"copy_micro({dtype!r}, {width}, {-(-lines // width)}{last})")
            return (f"{mk}(advance({self.name}, {sum_text(self.first, ('k', self.strides[1]))}), "
                    f"advance({packed}, {sum_text(('first', panel_depth), ('k', panel))}), 1, 0, 0)")
        with out.loop("k", depth):              # k outside: the source is read in the order of memory
            self._emit_panels(out, panel, copy)

    def _emit_transpositions(self, out: Writer, dtype: str, lanes: int, packed: str, panel: int, depth: int,
                             panel_depth: int) -> None:
        end = depth - depth % lanes

        def transpose(lines: int) -> str:
            mk = out.micro(f"transpose_micro({dtype!r}, {lanes}, {lines}, end={end}, last={depth - end})")
            to = sum_text(("first", panel_depth))
            return f"{mk}(advance({self.name}, {self.first}), advance({packed}, {to}), {self.strides[0]}, {panel})"
        self._emit_panels(out, panel, transpose)

    def _emit_panels(self, out: Writer, panel: int, call: Callable[[int], str]) -> None:
        total = int(self.total)
        if total >= panel:
            with out.block(f"for first in range(0, {self.count} - {panel - 1}, {panel}):"):
                out.add(call(panel))
        if total % panel:
            with out.block(f"if {self.count} % {panel} != 0:"):
                out.add(f"first = {self.count} - {total % panel}", call(total % panel))

    def _emit_elements(self, out: Writer, dtype: str, packed: str, panel: int, depth: Size, panel_depth: int) -> None:
        store = f"{packed}[{sum_text(('first', panel_depth))} + k*{panel} + line]"
        loops = [("k", depth), ("line", "lines")]
        (outer, outer_stop), (inner, inner_stop) = loops if self.strides[0] == 1 else loops[::-1]
        with out.block(f"for first in range(0, {self.count}, {panel}):"):
            out.add(f"lines = min({panel}, {self.count} - first)")
            with out.loop(outer, outer_stop), out.loop(inner, inner_stop):
                at = sum_text(self.first, ("line", self.strides[0]), ("k", self.strides[1]))
                out.add(f"{store} = {self.name}[{at}]")
            with out.loop("k", depth), out.block(f"for line in range(lines, {panel}):"):
                out.add(f"{store} = lit_{dtype}(0.0)")


def _emit_inner(out: Writer, p: Gemm, result: _Output, target: Target) -> None:
    """Dot products of contiguous rows, for operands that both run along k."""
    lanes, m, n, k, b_column = target.lanes(p.dtype), int(p.m), int(p.n), int(p.k), int(p.b.strides[2])
    columns = min(8 if m == 1 else 4, lanes, 1 << (n.bit_length() - 1))
    rows = min(m, (target.registers - 1) // (columns + 1), 4)
    while m % rows and m > rows and m % rows < rows // 2:
        rows -= 1
    k_end = k - k % lanes
    k_block = max(k_end, 1) if m * k * ITEM_BYTES[p.dtype] <= target.l2_bytes // 2 else 2048
    m_block, n_block = min(m, rows * 32), min(n, max(columns, 1024 // columns * columns))
    pitch = n_block + lanes
    tile = out.buffer(p.dtype, m_block * pitch)

    def kernel(tile_rows: int, width: int) -> str:
        offsets = tuple(t * b_column for t in range(width))
        last = f", end={k_end}, last={k - k_end}" if k > k_end else ""
        return out.micro(f"dot_micro({p.dtype!r}, {lanes}, {tile_rows}, {offsets}, a_row={p.a.strides[1]}, "
                         f"y_row={pitch}{last})")

    def emit_strip(width: int) -> None:
        a, b = p.a.at("batch", "row0 + row", 0), p.b.at("batch", 0, "column0 + column")
        _emit_row_tiles(out, m, rows, lambda tile_rows: (
            f"{kernel(tile_rows, width)}(advance({p.a.name}, {a}), advance({p.b.name}, {b}), "
            f"advance({tile}, row*{pitch} + column), k0, k1, 1, 0, 0)"
        ))

    share = _Ranges.of(out, p, rows, columns)
    with share.loop_batch(out), share.loop_columns(out, n_block):
        with share.loop_rows(out, m_block):
            out.zero(p.dtype, tile, "0", m_block * pitch)
            with out.loop("k0", max(k_end, 1), k_block):
                out.add(f"k1 = min(k0 + {k_block}, {k_end})")
                with out.block(f"for column in range(0, columns - {columns - 1}, {columns}):"):
                    emit_strip(columns)
                if n % columns:
                    with out.block(f"if columns % {columns} != 0:"):
                        out.add(f"column = columns - {n % columns}")
                        emit_strip(n % columns)
            result.emit(out, tile, pitch, "rows", "columns")


def _emit_any_size(out: Writer, p: Gemm, result: _Output, target: Target) -> None:
    """Blocks of fixed size, packed with zeros at the edges, so that one micro-kernel serves every size."""
    lanes, item = target.lanes(p.dtype), ITEM_BYTES[p.dtype]
    rows, vectors = choose_tile(96, 96 * lanes, lanes, target.registers)
    tile_columns = vectors * lanes
    k_block = 256 if isinstance(p.k, str) else min(p.k, 256)
    n_block = round_up(256 if isinstance(p.n, str) else min(p.n, 256), tile_columns)
    m_block = round_up(128 if isinstance(p.m, str) else min(p.m, 128), rows)
    pitch = n_block + (lanes if n_block * item % 1024 == 0 else 0)
    tile = out.buffer(p.dtype, m_block * pitch)
    packed_a, packed_b = out.buffer(p.dtype, m_block * k_block), out.buffer(p.dtype, n_block * k_block)
    kernel = out.micro(f"tile_micro({p.dtype!r}, {lanes}, {rows}, {vectors}, w_row=1, w_red={rows}, "
                       f"x_red={tile_columns}, y_row={pitch})")
    share = _Ranges.of(out, p, rows, tile_columns)
    out.pieces = 1
    with share.loop_batch(out), share.loop_columns(out, n_block):
        with share.loop_rows(out, m_block):
            if isinstance(p.k, str):
                with out.block(f"if {p.k} == 0:"):
                    out.zero(p.dtype, tile, "0", m_block * pitch)
            with out.block(f"for k0 in range(0, {p.k}, {k_block}):"):
                out.add(f"k1 = min(k0 + {k_block}, {p.k})")
                _Lines.of_b(p, "k0").emit_pack(out, p.dtype, lanes, packed_b, tile_columns, "k1 - k0", k_block)
                _Lines.of_a(p, "k0").emit_pack(out, p.dtype, rows, packed_a, rows, "k1 - k0", k_block)
                with out.block(f"for column in range(0, columns, {tile_columns}):"):
                    with out.block(f"for row in range(0, rows, {rows}):"):
                        out.add(f"{kernel}(advance({packed_b}, column*{k_block}), "
                                f"advance({packed_a}, row*{k_block}), "
                                f"advance({tile}, row*{pitch} + column), 0, k1 - k0, k0)")
            result.emit(out, tile, pitch, "rows", "columns")
