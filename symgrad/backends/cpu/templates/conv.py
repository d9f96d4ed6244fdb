"""Convolution (cross-correlation, NCHW by OIHW) and its gradient to the input, on flat positions.

The image is copied once into padded planes (see `planes`); a register tile holds a few filters times a few
vectors of positions, and the sums go to a tile in cache, from which the epilogue takes whole rows. The
gradient to the input is the same correlation of the cotangent with the flipped taps, one subset of taps per
output phase of a stride. A 1x1 convolution of stride 1 without padding is a matrix product per image.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from .gemm import Gemm, Operand, gemm
from .planes import Axis, Planes, Range

__all__ = ["Conv", "conv_forward", "conv_grad_input"]

Pair = tuple[int, int]

LINE_BYTES = 2048           # of one channel's positions in a block
TILE_ELEMENTS = 32768       # outputs of a block: they stay in L2
REDUCED_TAPS = 288          # weights of one filter in a block: those of a register tile stay in L1
UNROLLED_TAPS = 9           # beyond these, the micro-kernel loops over kernel rows ...
UNROLLED_COLUMNS = 16       # ... and, if these are longer than this, over single taps


@dataclass(frozen=True)
class Conv:
    """The forward problem: x (n, c, h, w), weight (k, c // groups, r, s) -> y (n, k, p, q).

    All arrays are contiguous.

    padding is ((top, bottom), (left, right)). `x`, `weight` and `g` are the pointers of the two operands in
    use; g is the cotangent (n, k, p, q). n may be the name of an int64 variable. n may be the name of an
    int64 variable.
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
        return max(
            (self.h + sum(self.padding[0]) - self.dilation[0] * (self.r - 1) - 1) // self.stride[0] + 1, 0
        )

    @property
    def q(self) -> int:
        return max(
            (self.w + sum(self.padding[1]) - self.dilation[1] * (self.s - 1) - 1) // self.stride[1] + 1, 0
        )

    @property
    def pointwise(self) -> bool:
        """Whether this is a matrix product per image."""
        return (self.r, self.s, self.stride, self.padding, self.groups) == (1, 1, (1, 1), ((0, 0), (0, 0)), 1)


def conv_forward(problem: Conv, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the convolution; the epilogue gets (n, k, p, q) indices."""
    c, target = problem, target or host_target()
    if c.pointwise:
        weight, image = Operand(c.weight, (0, c.c, 1)), Operand(c.x, (c.c * c.h * c.w, c.h * c.w, 1))
        product = Gemm(c.dtype, c.n, c.k, c.h * c.w, c.c, weight, image)
        return gemm(product, epilogue, width=c.w, target=target)
    if 0 in (c.n, c.k, c.p, c.q):
        return nothing(target)
    depth, filters, area = c.c // c.groups, c.k // c.groups, c.r * c.s
    rows = Axis(c.h, c.p, c.stride[0], c.padding[0][0], tuple(r * c.dilation[0] for r in range(c.r)))
    columns = Axis(c.w, c.q, c.stride[1], c.padding[1][0], tuple(s * c.dilation[1] for s in range(c.s)))
    taps = _Taps(tuple(range(c.r)), tuple(range(c.s)), row_step=c.s)
    weights = _Weights(c.weight, row=depth * area, reduce=area, group=filters * depth * area)
    return _Correlation(
        c.dtype, c.x, c.n, c.groups, depth, filters, rows, columns, weights, ((0, 0, taps),),
        spread=(1, 1), first=(0, 0), shape=(c.p, c.q), target=target,
    ).emit(epilogue)


def conv_grad_input(problem: Conv, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the gradient to x from `g` and `weight`; the epilogue gets (n, c, h, w) indices."""
    c, target = problem, target or host_target()
    if c.pointwise:
        weight, image = Operand(c.weight, (0, 1, c.c)), Operand(c.g, (c.k * c.h * c.w, c.h * c.w, 1))
        product = Gemm(c.dtype, c.n, c.c, c.h * c.w, c.k, weight, image)
        return gemm(product, epilogue, width=c.w, target=target)
    if 0 in (c.n, c.c, c.h, c.w):
        return nothing(target)
    depth, filters, area = c.c // c.groups, c.k // c.groups, c.r * c.s
    rows, row_taps = _transposed_axis(c.h, c.p, c.stride[0], c.padding[0][0], c.r, c.dilation[0])
    columns, column_taps = _transposed_axis(c.w, c.q, c.stride[1], c.padding[1][0], c.s, c.dilation[1])
    phases = tuple((a, b, _Taps(row_taps[a], column_taps[b], row_step=c.s))
                   for a in range(c.stride[0]) for b in range(c.stride[1]))
    weights = _Weights(c.weight, row=area, reduce=depth * area, group=filters * depth * area)
    first = (c.padding[0][0] % c.stride[0], c.padding[1][0] % c.stride[1])
    return _Correlation(
        c.dtype, c.g, c.n, c.groups, filters, depth, rows, columns, weights, phases,
        spread=c.stride, first=first, shape=(c.h, c.w), target=target,
    ).emit(epilogue)


@dataclass(frozen=True)
class _Taps:
    """Taps by rows and columns, as indices into the axes' reaches; the weight offset is row*row_step + column."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    row_step: int


_Phase = tuple[int, int, _Taps]        # output row and column modulo the stride, and the taps that reach them


@dataclass(frozen=True)
class _Weights:
    """How the filters are addressed in place: strides of output channel, reduced channel and group."""

    name: str
    row: int
    reduce: int
    group: int


def _transposed_axis(size: int, outputs: int, stride: int, lead: int, taps: int, dilation: int
                     ) -> tuple[Axis, tuple[tuple[int, ...], ...]]:
    """The axis of the gradient's correlation over g, and which taps each output phase uses.

    Padded input coordinate i + lead = stride*q + a gets w[tap] * g[q + (a - tap*dilation) / stride] from
    every tap for which the division is exact.
    """
    first, last = lead // stride, (lead + size - 1) // stride
    phases = [tuple(t for t in range(taps) if (a - t * dilation) % stride == 0) for a in range(stride)]
    shift = {t: first + (a - t * dilation) // stride for a, used in enumerate(phases) for t in used}
    zeros = max(0, -min(shift.values(), default=0))
    reach = tuple(shift.get(t, -zeros) + zeros for t in range(taps))
    return Axis(outputs, last - first + 1, 1, zeros, reach), tuple(phases)


class _Correlation:
    """y[n, k, u*spread + phase - first] = sum over reduced channels and the phase's taps of weight * plane.

    `depth` channels are reduced to `filters` in each group; `shape` is that of an output channel.
    """

    def __init__(self, dtype: str, source: str, batch: int | str, groups: int, depth: int, filters: int,
                 vertical: Axis, horizontal: Axis, weights: _Weights, phases: tuple[_Phase, ...], *,
                 spread: Pair, first: Pair, shape: Pair, target: Target):
        self.out, self.dtype, self.lanes = Writer(target.shared), dtype, target.lanes(dtype)
        self.source, self.batch, self.groups, self.depth, self.filters = source, batch, groups, depth, filters
        self.weights, self.spread, self.first, self.shape = weights, spread, first, shape
        self.phases = [phase for phase in phases if phase[2].rows and phase[2].columns and depth]
        self.planes = Planes(vertical, horizontal, self.lanes)
        self._choose_blocks(target)
        planes, phase_size = self.planes, self.filter_block * self.tile_pitch
        reach = max((planes.row_offset(r) for *_, taps in self.phases for r in taps.rows), default=0)
        size = depth * planes.phases * planes.size + self.positions + reach + 2 * planes.size
        # few images: threads share each of them
        self.together = target.shared and isinstance(batch, int) and batch * groups < FEW_PARTS
        self.image = self.out.buffer(dtype, size, common=self.together)
        self.tile = self.out.buffer(dtype, max(len(self.phases), 1) * phase_size)

    def _choose_blocks(self, target: Target) -> None:
        """Rows of output per block, the register tile, filters per block and reduced channels per block."""
        item, lines, pitch = ITEM_BYTES[self.dtype], self.planes.vertical.outputs, self.planes.pitch
        rows = max(1, min(lines, round(LINE_BYTES // item / pitch)))
        self.rows = -(
            -lines // -(-lines // rows)
        )  # a ragged last block would compute a whole block of garbage
        positions = (self.rows - 1) * pitch + self.planes.horizontal.outputs
        self.tile_rows, self.vectors = choose_tile(self.filters, positions, self.lanes, target.registers)
        self.positions = round_up(positions, self.vectors * self.lanes)
        self.tile_pitch = self.positions + (self.lanes if self.positions * item % 1024 == 0 else 0)
        most = max(self.tile_rows, round_up(TILE_ELEMENTS // self.tile_pitch, self.tile_rows))
        self.filter_block = min(round_up(self.filters, self.tile_rows), most)
        taps = max((len(taps.rows) * len(taps.columns) for *_, taps in self.phases), default=1)
        self.depth_block = max(1, min(self.depth, REDUCED_TAPS // taps))

    def emit(self, epilogue: Epilogue) -> TemplateText:
        out, groups = self.out, self.groups
        if not self.together:
            with out.pairs("n", self.batch, "group", groups):
                self.emit_copy((0, self.depth))
                self.emit_blocks((0, self.planes.vertical.outputs), (0, self.filters), epilogue)
            return out.text()
        with out.rounds("member", int(self.batch) * groups, stages=2):
            out.add(f"n = member // {groups}", f"group = member % {groups}")
            with out.stage():
                self.emit_copy(out.span("channel", self.depth))
            with out.stage():
                lines, filters = (0, self.planes.vertical.outputs), (0, self.filters)
                if lines[1] >= FEW_PARTS * self.rows:
                    lines = out.span("line", lines[1], self.rows)
                else:
                    filters = out.span("filter", self.filters, self.tile_rows)
                self.emit_blocks(lines, filters, epilogue)
        return out.text()

    def emit_copy(self, channels: Range) -> None:
        """The planes of channels of image `n`, group `group`."""
        pixels = self.planes.vertical.size * self.planes.horizontal.size
        member = f"n * {self.groups} + group" if self.groups > 1 else "n"
        self.planes.emit_copy(self.out, self.dtype, self.image, self.source, channels, sum_text((member, self.depth * pixels)))

    def emit_blocks(self, lines: Range, filters: Range, epilogue: Epilogue) -> None:
        """Output lines of filters, block by block."""
        out = self.out
        with out.loop("u0", lines[1], self.rows, lines[0]), out.loop("k0", filters[1], self.filter_block, filters[0]):
            out.add(f"filters = min({self.filter_block}, {filters[1]} - k0)")
            for index, (*_, taps) in enumerate(self.phases):
                self.emit_sums(index, taps)
            with out.loop("row", "filters"):
                out.add(f"k = {sum_text(('group', self.filters), 'k0', 'row')}")
                (self.emit_lines if self.spread == (1, 1) else self.emit_spread_lines)(epilogue)

    def emit_sums(self, index: int, taps: _Taps) -> None:
        """The tile of phase `index`: all filters of a block times all positions of a block of rows."""
        out, step = self.out, self.tile_rows
        with out.loop("c0", self.depth, self.depth_block):
            out.add(f"c1 = min(c0 + {self.depth_block}, {self.depth})")
            if self.filters >= step:
                with out.block(f"for row in range(0, filters - {step - 1}, {step}):"):
                    self.emit_positions(index, taps, step)
            if self.filters % step:
                with out.block(f"if filters % {step} != 0:"):
                    out.add(f"row = filters - {self.filters % step}")
                    self.emit_positions(index, taps, self.filters % step)

    def emit_positions(self, index: int, taps: _Taps, rows: int) -> None:
        weights = sum_text(("group", self.weights.group), ("k0 + row", self.weights.row))
        sums = sum_text(index * self.filter_block * self.tile_pitch, ("row", self.tile_pitch), "position")
        with self.out.loop("position", self.positions, self.vectors * self.lanes):
            self.out.add(f"{self.kernel(rows, taps)}("
                         f"advance({self.image}, {sum_text(('u0', self.planes.pitch), 'position')}), "
                         f"advance({self.weights.name}, {weights}), advance({self.tile}, {sums}), c0, c1, c0)")

    def kernel(self, rows: int, taps: _Taps) -> str:
        planes = self.planes
        steps = tuple((planes.row_offset(r), r * taps.row_step) for r in taps.rows)
        cells = tuple((planes.column_offset(s), s) for s in taps.columns)
        everything = tuple((xr + xs, wr + ws) for xr, wr in steps for xs, ws in cells)
        if len(everything) <= UNROLLED_TAPS:
            steps, cells = ((0, 0),), everything
        elif len(cells) > UNROLLED_COLUMNS:
            steps, cells = everything, ((0, 0),)
        return self.out.micro(
            f"tile_micro({self.dtype!r}, {self.lanes}, {rows}, {self.vectors}, w_row={self.weights.row}, "
            f"w_red={self.weights.reduce}, x_red={planes.phases * planes.size}, y_row={self.tile_pitch}, "
            f"taps={cells}, steps={steps})"
        )

    def emit_lines(self, epilogue: Epilogue) -> None:
        out, outputs = self.out, self.planes.vertical.outputs
        with out.block(f"for u in range(u0, min(u0 + {self.rows}, {outputs})):"):
            out.add(f"at = {sum_text(('row', self.tile_pitch))} + (u - u0) * {self.planes.pitch}")
            with out.loop("v", self.shape[1]):
                value = f"{self.tile}[at + v]" if self.phases else f"lit_{self.dtype}(0.0)"
                out.add(f"value = {value}", *epilogue(("n", "k", "u", "v"), "value"))

    def emit_spread_lines(self, epilogue: Epilogue) -> None:
        """Interleaves the phases of one output row in a line buffer, then hands the row to the epilogue."""
        out, (rise, run), (top, left), (height, width) = self.out, self.spread, self.first, self.shape
        columns = -(-(width + left) // run)
        line = out.buffer(self.dtype, rise * columns * run)
        with out.block(f"for u in range(u0, min(u0 + {self.rows}, {-(-(height + top) // rise)})):"):
            for a in range(rise):
                for b in range(run):
                    self._emit_phase_line(line, (a, b), columns)
            with out.loop("part", rise):
                out.add(f"h = {sum_text(('u', rise), 'part', -top)}")
                with out.block(f"if h >= 0 and h < {height}:"), out.loop("w", width):
                    out.add(f"value = {line}[{sum_text(('part', columns * run), 'w', left)}]",
                            *epilogue(("n", "k", "h", "w"), "value"))

    def _emit_phase_line(self, line: str, phase: Pair, columns: int) -> None:
        index = next((k for k, (a, b, _) in enumerate(self.phases) if (a, b) == phase), None)
        at = sum_text((index or 0) * self.filter_block * self.tile_pitch, ("row", self.tile_pitch))
        run = self.spread[1]
        with self.out.loop("v", columns):
            value = f"lit_{self.dtype}(0.0)"
            if index is not None:
                value = f"{self.tile}[{at} + (u - u0) * {self.planes.pitch} + v]"
            self.out.add(f"{line}[{sum_text(phase[0] * columns * run, ('v', run), phase[1])}] = {value}")
