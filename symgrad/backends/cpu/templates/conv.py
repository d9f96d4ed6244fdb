"""Convolution (cross-correlation, NCHW by OIHW) and its gradient to the input, as direct flat-pitch kernels.

The image is copied once into planes with zero borders. With row pitch `pitch`, the output at row u and column v reads
plane position u*pitch + v + offset(tap) for every tap, so all positions of many rows form one long vector; the columns
between the rows are computed too and dropped. Left zeros double as the right zeros of the row above. A stride splits the
padded image into phase planes, one per remainder: each tap then reads its phase with stride 1. The gradient to the input
is the same correlation of the cotangent with the flipped taps, one subset of taps per output phase.
A 1x1 convolution of stride 1 without padding is a matrix product per image.
"""

from __future__ import annotations

from dataclasses import dataclass

from symgrad.backends.cpu.templates import (ITEM_BYTES, Epilogue, Target, TemplateText, Writer, choose_tile, emit_row_copy, host_target,
                                            round_up, sum_text)
from symgrad.backends.cpu.templates.gemm import Gemm, Operand, gemm

__all__ = ["Conv", "conv_forward", "conv_grad_input"]

# Of one block: bytes of a channel's positions, outputs (they stay in L2), weights of one filter (a tile's stay in L1).
LINE_BYTES, TILE_ELEMENTS, REDUCED_TAPS = 2048, 32768, 288
Pair = tuple[int, int]


@dataclass(frozen=True)
class Conv:
    """The forward problem: x (n, c, h, w), weight (k, c // groups, r, s) -> y (n, k, p, q); all arrays contiguous.

    padding is ((top, bottom), (left, right)). `x`, `weight` and `g` are the pointers of the two operands in use; g is
    the cotangent (n, k, p, q). n may be the name of an int64 variable.
    """

    dtype: str
    n: int | str
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    x: str = "p0"
    weight: str = "p1"
    g: str = "p0"

    @property
    def p(self) -> int:
        return max((self.h + sum(self.padding[0]) - self.dilation[0] * (self.r - 1) - 1) // self.stride[0] + 1, 0)

    @property
    def q(self) -> int:
        return max((self.w + sum(self.padding[1]) - self.dilation[1] * (self.s - 1) - 1) // self.stride[1] + 1, 0)

    @property
    def pointwise(self) -> bool:
        """Whether this is a matrix product per image."""
        return (self.r, self.s, self.stride, self.padding, self.groups) == (1, 1, (1, 1), ((0, 0), (0, 0)), 1)


def conv_forward(problem: Conv, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the convolution; the epilogue gets (n, k, p, q) indices."""
    c = problem
    if c.pointwise:
        weight = Operand(c.weight, (0, c.c, 1))
        image = Operand(c.x, (c.c * c.h * c.w, c.h * c.w, 1))
        return gemm(Gemm(c.dtype, c.n, c.k, c.h * c.w, c.c, weight, image), epilogue, width=c.w, target=target)
    if 0 in (c.n, c.k, c.p, c.q):
        return _nothing()
    depth, filters, area = c.c // c.groups, c.k // c.groups, c.r * c.s
    rows = _Axis(c.h, c.p, c.stride[0], c.padding[0][0], tuple(r * c.dilation[0] for r in range(c.r)))
    columns = _Axis(c.w, c.q, c.stride[1], c.padding[1][0], tuple(s * c.dilation[1] for s in range(c.s)))
    taps = _Taps(tuple(range(c.r)), tuple(range(c.s)), row_step=c.s)
    weights = _Weights(c.weight, row=depth * area, reduce=area, group=filters * depth * area)
    return _correlate(c.dtype, c.x, c.n, c.groups, depth, filters, rows, columns, ((0, 0, taps),), weights, (1, 1),
                      (0, 0), (c.p, c.q), epilogue, target or host_target())


def conv_grad_input(problem: Conv, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the gradient to x from `g` and `weight`; the epilogue gets (n, c, h, w) indices."""
    c = problem
    if c.pointwise:
        weight = Operand(c.weight, (0, 1, c.c))
        image = Operand(c.g, (c.k * c.h * c.w, c.h * c.w, 1))
        return gemm(Gemm(c.dtype, c.n, c.c, c.h * c.w, c.k, weight, image), epilogue, width=c.w, target=target)
    if 0 in (c.n, c.c, c.h, c.w):
        return _nothing()
    depth, filters, area = c.c // c.groups, c.k // c.groups, c.r * c.s
    rows, row_taps = _transposed_axis(c.h, c.p, c.stride[0], c.padding[0][0], c.r, c.dilation[0])
    columns, column_taps = _transposed_axis(c.w, c.q, c.stride[1], c.padding[1][0], c.s, c.dilation[1])
    phases = tuple((a, b, _Taps(row_taps[a], column_taps[b], row_step=c.s))
                   for a in range(c.stride[0]) for b in range(c.stride[1]))
    weights = _Weights(c.weight, row=area, reduce=depth * area, group=filters * depth * area)
    first = tuple(pad[0] % step for pad, step in zip(c.padding, c.stride))
    return _correlate(c.dtype, c.g, c.n, c.groups, filters, depth, rows, columns, phases, weights, c.stride, first,
                      (c.h, c.w), epilogue, target or host_target())


def _nothing() -> TemplateText:
    return TemplateText((), ("    pass",), ())


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a correlation: output u reads padded coordinate u*step + reach[tap]; `lead` zeros come first."""

    size: int                     # of the source
    outputs: int                  # positions computed
    step: int                     # phases of the padded source
    lead: int
    reach: tuple[int, ...]        # of each tap, never negative
    window: bool = False          # hold only what `outputs` read, not the whole source

    @property
    def extent(self) -> int:
        """How many coordinates of a phase plane are read or written."""
        read = self.outputs + max((reach // self.step for reach in self.reach), default=0)
        return read if self.window else max(read, -(-(self.lead + self.size) // self.step))


@dataclass(frozen=True)
class _Taps:
    """A product set of taps: indices into the reaches of both axes, and the weight offset row*row_step + column."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    row_step: int


@dataclass(frozen=True)
class _Weights:
    """How the filters are addressed in place: strides of output channel, reduced channel and group."""

    name: str
    row: int
    reduce: int
    group: int


def _transposed_axis(size: int, outputs: int, stride: int, lead: int, taps: int, dilation: int
                     ) -> tuple[_Axis, tuple[tuple[int, ...], ...]]:
    """The axis of the gradient's correlation over g, and which taps each output phase uses.

    Padded input coordinate i + lead = stride*q + a gets w[tap] * g[q + (a - tap*dilation) / stride] from every tap for
    which the division is exact.
    """
    first, last = lead // stride, (lead + size - 1) // stride
    phases = [tuple(t for t in range(taps) if (a - t * dilation) % stride == 0) for a in range(stride)]
    shift = {t: first + (a - t * dilation) // stride for a, used in enumerate(phases) for t in used}
    zeros = max(0, -min(shift.values(), default=0))
    reach = tuple(shift.get(t, -zeros) + zeros for t in range(taps))
    return _Axis(outputs, last - first + 1, 1, zeros, reach), tuple(phases)


@dataclass(frozen=True)
class _Planes:
    """The layout of one image's channels in scratch: phase planes of `rows` x `pitch`, each `size` elements long."""

    vertical: _Axis
    horizontal: _Axis
    lanes: int
    fixed_pitch: int = 0

    @property
    def pitch(self) -> int:
        axis = self.horizontal
        if self.fixed_pitch:
            return self.fixed_pitch
        shared = axis.lead // axis.step        # zeros at the left of every row end the row above as well
        return max(axis.outputs, -(-(axis.lead + axis.size) // axis.step), axis.extent - shared)

    @property
    def size(self) -> int:
        size = round_up((self.vertical.extent + 1) * self.pitch + self.lanes, 16)
        return size + 16 if size % 512 == 0 else size       # keeps the planes out of each other's cache sets

    @property
    def phases(self) -> int:
        return self.vertical.step * self.horizontal.step

    def row_offset(self, tap: int) -> int:
        step, reach = self.vertical.step, self.vertical.reach[tap]
        return reach % step * self.horizontal.step * self.size + reach // step * self.pitch

    def column_offset(self, tap: int) -> int:
        step, reach = self.horizontal.step, self.horizontal.reach[tap]
        return reach % step * self.size + reach // step

    def emit_copy(self, out: Writer, dtype: str, planes: str, source: str, channels: int, base: str,
                  to: str = "0", first_line: str | int = 0, border: str = "") -> None:
        """Fills the planes at `to` from `channels` images of the source, the first one at element `base`.

        A window starts at line `first_line` of the phases. `border` is what `emit_border` returned.
        """
        high, wide = self.vertical, self.horizontal
        zero = f"lit_{dtype}(0.0)"
        if wide.step > 1 and not border:
            border = self.emit_border(out, dtype)
        with out.loop("channel", channels), out.loop("phase", high.step):
            out.add(f"plane = {sum_text(to, ('channel', self.phases * self.size), ('phase', wide.step * self.size))}")
            with out.loop("line", high.extent):
                out.add(f"row = {sum_text(('line', high.step), (first_line, high.step), 'phase', -high.lead)}",
                        f"at = plane + line * {self.pitch}")
                with out.block(f"if row < 0 or row >= {high.size}:"):
                    with out.loop("part", wide.step), out.loop("column", self.pitch):
                        out.add(f"{planes}[{sum_text('at', ('part', self.size), 'column')}] = {zero}")
                with out.block("else:"):
                    out.add(f"pixel = {sum_text(base, ('channel', high.size * wide.size), ('row', wide.size))}")
                    if wide.step == 1:
                        self._emit_row(out, dtype, f"advance({source}, pixel)", planes, "at + ", self.pitch, zero)
                    else:
                        self._emit_row(out, dtype, f"advance({source}, pixel)", border, "", 0, zero)
                        split = out.micro(f"split_micro({dtype!r}, {self.lanes}, {wide.step})")
                        out.add(f"{split}({border}, advance({planes}, at), {self.pitch}, {self.size})")
            # what lies behind the last row is read as its right border, and by whole vectors
            with out.loop("part", wide.step), out.loop("column", self.size - high.extent * self.pitch):
                at = sum_text("plane", ("part", self.size), high.extent * self.pitch, "column")
                out.add(f"{planes}[{at}] = {zero}")

    def emit_border(self, out: Writer, dtype: str) -> str:
        """A buffer for one padded row, its borders filled with zeros."""
        length = round_up(self.pitch, self.lanes) * self.horizontal.step + self.lanes
        border = out.buffer(dtype, max(length, self.horizontal.lead + self.horizontal.size + self.lanes))
        with out.loop("column", length):
            out.add(f"{border}[column] = lit_{dtype}(0.0)")
        return border

    def _emit_row(self, out: Writer, dtype: str, source: str, to: str, at: str, length: int, zero: str) -> None:
        """Copies a row to `to[at + lead]`, zeros before it and after it up to `length` (if that is not zero)."""
        lead = self.horizontal.lead
        if length:
            with out.loop("column", lead):
                out.add(f"{to}[{at}column] = {zero}")
        written = lead + emit_row_copy(out, dtype, self.lanes, source, to, f"{at}{lead}", self.horizontal.size)
        if written < length:
            with out.block(f"for column in range({written}, {length}):"):
                out.add(f"{to}[{at}column] = {zero}")


def _correlate(dtype: str, source: str, batch: int | str, groups: int, depth: int, filters: int, vertical: _Axis,
               horizontal: _Axis, phases: tuple[tuple[int, int, _Taps], ...], weights: _Weights, spread: Pair,
               first: Pair, shape: Pair, epilogue: Epilogue, target: Target) -> TemplateText:
    """y[n, k, u*spread + phase - first] = sum over the reduced channels and the phase's taps of weight * plane."""
    out, lanes, item = Writer(), target.lanes(dtype), ITEM_BYTES[dtype]
    planes = _Planes(vertical, horizontal, lanes)
    pitch, lines = planes.pitch, vertical.outputs
    block = max(1, min(lines, round(LINE_BYTES // item / pitch)))
    block = -(-lines // -(-lines // block))             # a ragged last block would compute a whole block of garbage
    positions = (block - 1) * pitch + horizontal.outputs
    rows, vectors = choose_tile(filters, positions, lanes, target.registers)
    positions = round_up(positions, vectors * lanes)
    tile_pitch = positions + (lanes if positions * item % 1024 == 0 else 0)
    filter_block = min(round_up(filters, rows), max(rows, round_up(TILE_ELEMENTS // tile_pitch, rows)))
    most_taps = max(len(taps.rows) * len(taps.columns) for *_, taps in phases)
    depth_block = max(1, min(depth, REDUCED_TAPS // max(most_taps, 1)))
    live = [phase for phase in phases if phase[2].rows and phase[2].columns and depth]
    image = out.buffer(dtype, depth * planes.phases * planes.size + positions + max(
        (planes.row_offset(t) for *_, taps in live for t in taps.rows), default=0) + 2 * planes.size)
    tile = out.buffer(dtype, max(len(live), 1) * filter_block * tile_pitch)

    def kernel(tile_rows: int, taps: _Taps) -> str:
        steps = tuple((planes.row_offset(r), r * taps.row_step) for r in taps.rows)
        cells = tuple((planes.column_offset(s), s) for s in taps.columns)
        if len(steps) * len(cells) <= 9:                # unrolled as a whole
            steps, cells = ((0, 0),), tuple((xr + xs, wr + ws) for xr, wr in steps for xs, ws in cells)
        return out.micro(f"tile_micro({dtype!r}, {lanes}, {tile_rows}, {vectors}, w_row={weights.row}, "
                         f"w_red={weights.reduce}, x_red={planes.phases * planes.size}, y_row={tile_pitch}, "
                         f"taps={cells}, steps={steps})")

    def emit_tiles(index: int, taps: _Taps) -> None:
        def call(tile_rows: int, row: str) -> str:
            w_at = sum_text(("group", weights.group), (f"k0 + {row}", weights.row))
            y_at = sum_text(index * filter_block * tile_pitch, (row, tile_pitch), "position")
            return (f"{kernel(tile_rows, taps)}(advance({image}, {sum_text(('u0', pitch), 'position')}), "
                    f"advance({weights.name}, {w_at}), advance({tile}, {y_at}), c0, c1)")

        def emit_positions(tile_rows: int, row: str) -> None:
            with out.loop("position", positions, vectors * lanes):
                out.add(call(tile_rows, row))
        with out.loop("c0", depth, depth_block):
            out.add(f"c1 = min(c0 + {depth_block}, {depth})")
            if filters >= rows:
                with out.block(f"for row in range(0, filters - {rows - 1}, {rows}):"):
                    emit_positions(rows, "row")
            if filters % rows:
                with out.block(f"if filters % {rows} != 0:"):
                    out.add(f"row = filters - {filters % rows}")
                    emit_positions(filters % rows, "row")

    with out.loop("n", batch), out.loop("group", groups):
        planes.emit_copy(out, dtype, image, source, depth, sum_text(
            (f"n * {groups} + group" if groups > 1 else "n", depth * vertical.size * horizontal.size)))
        with out.loop("u0", lines, block), out.loop("k0", filters, filter_block):
            out.add(f"filters = min({filter_block}, {filters} - k0)")
            for index, (*_, taps) in enumerate(live):
                emit_tiles(index, taps)
            with out.loop("row", "filters"):
                out.add(f"k = {sum_text(('group', filters), 'k0', 'row')}")
                if spread == (1, 1):
                    _emit_lines(out, dtype, tile, tile_pitch, pitch, block, lines, shape[1], bool(live), epilogue)
                else:
                    _emit_spread_lines(out, dtype, tile, tile_pitch, pitch, block, filter_block, live, spread, first, shape, epilogue)
    return out.text()


def _emit_lines(out: Writer, dtype: str, tile: str, tile_pitch: int, pitch: int, block: int, lines: int, width: int,
                live: bool, epilogue: Epilogue) -> None:
    with out.block(f"for u in range(u0, min(u0 + {block}, {lines})):"):
        out.add(f"at = {sum_text(('row', tile_pitch))} + (u - u0) * {pitch}")
        with out.loop("v", width):
            value = f"{tile}[at + v]" if live else f"lit_{dtype}(0.0)"
            out.add(f"value = {value}", *epilogue(("n", "k", "u", "v"), "value"))


def _emit_spread_lines(out: Writer, dtype: str, tile: str, tile_pitch: int, pitch: int, block: int, filter_block: int,
                       live: list, spread: Pair, first: Pair, shape: Pair, epilogue: Epilogue) -> None:
    """Interleaves the phases of one output row in a line buffer, then hands the row to the epilogue."""
    outputs = -(-(shape[1] + first[1]) // spread[1])
    line = out.buffer(dtype, outputs * spread[1])
    by_row = {a: [(b, index) for index, (row, b, _) in enumerate(live) if row == a] for a in range(spread[0])}
    with out.block(f"for u in range(u0, min(u0 + {block}, {-(-(shape[0] + first[0]) // spread[0])})):"):
        for a, members in by_row.items():
            out.add(f"h = {sum_text(('u', spread[0]), a - first[0])}")
            with out.block(f"if h >= 0 and h < {shape[0]}:"):
                for b in range(spread[1]):
                    index = dict(members).get(b)
                    at = "" if index is None else sum_text(index * filter_block * tile_pitch, ("row", tile_pitch))
                    with out.loop("v", outputs):
                        value = f"{tile}[{at} + (u - u0) * {pitch} + v]" if at else f"lit_{dtype}(0.0)"
                        out.add(f"{line}[{sum_text(('v', spread[1]), b)}] = {value}")
                with out.loop("w", shape[1]):
                    out.add(f"value = {line}[{sum_text('w', first[1])}]", *epilogue(("n", "k", "h", "w"), "value"))
