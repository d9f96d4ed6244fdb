"""Winograd convolution F(m x m, 3 x 3), m = 2 or 4: stride 1, forward and gradient to the input.

The padded image is copied into m x m phase planes, so that one pixel of eight neighbouring tiles is one
vector. Tiles are transformed, multiplied by the transformed filters ((m + 2)^2 matrix products) and
transformed back, a block of tile rows at a time; the rows then go to the epilogue. Multiplications per
output: 4 for m = 2, 2.25 for m = 4, against 9. The rounding error is about 2 (m = 2) and 25 (m = 4) times
that of the direct method. Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from . import (
    FEW_PARTS,
    ITEM_BYTES,
    Epilogue,
    Target,
    TemplateText,
    Writer,
    choose_tile,
    host_target,
    round_up,
    sum_text,
)
from .conv import Conv, conv_forward, conv_grad_input
from .planes import Axis, Planes, Range

__all__ = ["choose_conv", "winograd_forward", "winograd_grad_input", "winograd_possible"]


def winograd_possible(problem: Conv, *, grad_input: bool = False) -> bool:
    """Whether the Winograd forms apply: 3x3, stride and dilation 1, one group, something to compute."""
    c = problem
    fits = (c.r, c.s, c.stride, c.dilation, c.groups) == (3, 3, (1, 1), (1, 1), 1)
    narrow = all(pad <= 2 for pair in c.padding for pad in pair)
    return fits and 0 not in (c.n, c.c, c.k, c.p, c.q) and (narrow or not grad_input)


def winograd_forward(
    problem: Conv, epilogue: Epilogue, m: int = 4, *, target: Target | None = None
) -> TemplateText:
    """The text of the convolution; the epilogue gets (n, k, p, q) indices. See `winograd_possible`."""
    return _Kernel(problem.dtype, *_forward(problem), m, target or host_target()).emit(epilogue)


def winograd_grad_input(
    problem: Conv, epilogue: Epilogue, m: int = 4, *, target: Target | None = None
) -> TemplateText:
    """The text of the gradient to x from `g` and `weight`; the epilogue gets (n, c, h, w) indices."""
    return _Kernel(problem.dtype, *_grad_input(problem), m, target or host_target()).emit(epilogue)


@dataclass(frozen=True)
class _Images:
    """The images that are filtered: pointer, count, and per axis size, outputs and leading zeros."""

    name: str
    count: int | str
    size: tuple[int, int]
    outputs: tuple[int, int]
    lead: tuple[int, int]

    @property
    def expected(self) -> int:
        """How many there are, or a guess, for estimates."""
        return self.count if isinstance(self.count, int) else 8


@dataclass(frozen=True)
class _Filters:
    """`count` filters of `depth` channels in place: strides across filters and along channels, nine taps."""

    name: str
    count: int
    depth: int
    across: int
    along: int
    taps: tuple[int, ...]


@dataclass(frozen=True)
class _Block:
    """How many tiles are in flight: `images` whole images, or `rows` tile rows of one image."""

    images: int
    rows: int                   # per image
    width: int                  # tiles per row
    tile: tuple[int, int]       # of the matrix product: filters, vectors
    lanes: int

    @property
    def tiles(self) -> int:
        return self.images * self.rows * self.width

    @property
    def pitch(self) -> int:
        return round_up(self.tiles, self.tile[1] * self.lanes)

    def rounds(self, images: int, high: int) -> int:
        """How many blocks there are in that many images of `high` tile rows."""
        return -(-images // self.images) * -(-high // self.rows)


def _forward(c: Conv) -> tuple[_Images, _Filters]:
    images = _Images(c.x, c.n, (c.h, c.w), (c.p, c.q), (c.padding[0][0], c.padding[1][0]))
    return images, _Filters(c.weight, c.k, c.c, across=9 * c.c, along=9, taps=tuple(range(9)))


def _grad_input(c: Conv) -> tuple[_Images, _Filters]:
    images = _Images(c.g, c.n, (c.p, c.q), (c.h, c.w), (2 - c.padding[0][0], 2 - c.padding[1][0]))
    return images, _Filters(c.weight, c.c, c.k, across=9, along=9 * c.c, taps=tuple(reversed(range(9))))


@cache
def _choose_block(
    filters: _Filters, images: _Images, m: int, item: int, lanes: int, target: Target
) -> _Block:
    """The block that computes little garbage, keeps its products near the core and uses each filter often."""
    high, wide = (-(-outputs // m) for outputs in images.outputs)

    def cost(block: _Block) -> float:
        waste = block.rounds(images.expected, high) * block.pitch / (images.expected * high * wide)
        flight = (m + 2) ** 2 * (filters.count + filters.depth) * block.pitch * item
        far = 1 + 0.25 * max(0.0, flight / (4 * target.l2_bytes) - 1)
        return waste * min(far, 2) * (1 + 24 / block.pitch)

    def block(images: int, rows: int) -> _Block:
        tile = choose_tile(filters.count, images * rows * wide, lanes, target.registers, multiple=2)
        return _Block(images, rows, wide, tile, lanes)

    some = [block(1, rows) for rows in range(1, high + 1)]
    whole = [block(count, high) for count in range(2, min(images.expected, 64) + 1)]
    return min((b for b in some + whole if b.tiles <= 768 or b.rows * b.images == 1), key=cost)


class _Kernel:
    """One kernel being written. Buffers: u transformed filters, v transformed tiles, t their products."""

    def __init__(self, dtype: str, images: _Images, filters: _Filters, m: int, target: Target):
        self.out, self.dtype, self.images, self.filters, self.m = Writer(target.shared), dtype, images, filters, m
        self.lanes, self.side = target.lanes(dtype), m + 2
        self.high, self.wide = (-(-outputs // m) for outputs in images.outputs)
        self.block = _choose_block(filters, images, m, ITEM_BYTES[dtype], self.lanes, target)
        # filters that only one block of tiles uses are transformed a few at a time, just before
        self.once = isinstance(images.count, int) and self.block.rounds(images.count, self.high) == 1
        # few blocks: threads share each of them
        self.together = (target.shared and isinstance(images.count, int)
                         and self.block.rounds(images.count, self.high) < FEW_PARTS)
        self.filter_block = self._filter_block(target)
        reach = tuple(range(self.side))
        self.planes = Planes(Axis(images.size[0], self.block.rows, m, images.lead[0], reach, window=True),
                              Axis(images.size[1], self.wide, m, images.lead[1], reach), self.lanes)
        self._allocate()

    def _filter_block(self, target: Target) -> int:
        """Filters per round: their products stay near the core, and so do filters of a single use."""
        each = self.block.pitch + (self.filters.depth if self.once else 0)
        rows, budget = self.block.tile[0], (4 if self.once else 1) * target.l2_bytes
        most = budget // (self.side**2 * ITEM_BYTES[self.dtype] * each)
        return min(round_up(self.filters.count, rows), max(round_up(32, rows), most // rows * rows))

    def _allocate(self) -> None:
        out, block, depth = self.out, self.block, self.filters.depth
        held = self.filter_block if self.once else round_up(self.filters.count, block.tile[0])
        surplus = 2 * self.lanes    # keeps the products out of each other's cache sets, and takes overruns
        self.u_next = held * depth + surplus
        # the last vector of a channel's tiles must not run into the next channel if that may be another thread's
        written = (block.images * block.rows - 1) * block.width + round_up(block.width, self.lanes)
        self.v_pitch = block.pitch + (self.lanes if self.together and written > block.pitch else 0)
        self.v_next = depth * self.v_pitch + surplus
        self.t_next = self.filter_block * block.pitch + surplus
        common = (not self.once, self.together, False)
        self.u, self.v, self.t = (out.buffer(self.dtype, self.side**2 * size + self.lanes, shared)
                                  for size, shared in zip((self.u_next, self.v_next, self.t_next), common))
        self.channel = out.buffer(
            self.dtype, self.planes.phases * self.planes.size + round_up(self.wide, self.lanes)
        )
        self.line_pitch = self.m * round_up(self.wide, self.lanes) + self.lanes
        self.lines = out.buffer(self.dtype, self.m * self.line_pitch)

    def emit(self, epilogue: Epilogue) -> TemplateText:
        out, block, count = self.out, self.block, self.filters.count
        self.border = self.planes.emit_border(out, self.dtype)
        if not self.once:
            with out.stage():
                self.emit_filters(out.span("k", count, block.tile[0]))
        if self.together:
            with out.rounds("here", block.rounds(int(self.images.count), self.high), stages=2):
                across = -(-self.high // block.rows)
                out.add(f"first_image = here // {across} * {block.images}", f"first_row = here % {across} * {block.rows}")
                self.emit_extent()
                with out.stage():
                    self.emit_tiles(out.span("depth", self.filters.depth))
                with out.stage():
                    self.emit_results(out.span("k", count, block.tile[0]), epilogue)
            return out.text()
        with out.stage(), out.pairs("first_image", self.images.count, "first_row", self.high, (block.images, block.rows)):
            self.emit_extent()
            self.emit_tiles((0, self.filters.depth))
            self.emit_results((0, count), epilogue)
        return out.text()

    def emit_extent(self) -> None:
        """How much of a block there is."""
        block = self.block
        self.out.add(f"images = min({block.images}, {self.images.count} - first_image)",
                     f"rows = min({block.rows}, {self.high} - first_row)", "lines = images * rows")

    def emit_results(self, filters: Range, epilogue: Epilogue) -> None:
        """The outputs of filters for the tiles in v."""
        with self.out.loop("first_k", filters[1], self.filter_block, filters[0]):
            self.out.add(f"filters = min({self.filter_block}, {filters[1]} - first_k)")
            if self.once:
                self.emit_filters((0, "filters"), "first_k")
            self.emit_products("0" if self.once else "first_k")
            self.emit_outputs(epilogue)

    def emit_filters(self, those: Range, first: str = "0") -> None:
        """u[q][k // rows][channel][k % rows] of filters, counted from `first`; surplus filters are zero."""
        out, filters, rows = self.out, self.filters, self.block.tile[0]
        (start, stop), k = those, "k" if first == "0" else f"({first} + k)"

        def transform(exist: int) -> None:
            masked = f", exist={exist}" if exist < rows else ""
            mk = out.micro(f"winograd_weight_micro({self.dtype!r}, {rows}, {self.m}, taps={filters.taps}{masked})")
            with out.loop("channel", filters.depth):
                w_at = sum_text((k, filters.across), ("channel", filters.along))
                u_at = sum_text(("k", filters.depth), ("channel", rows))
                out.add(f"{mk}(advance({filters.name}, {w_at}), advance({self.u}, {u_at}), {filters.across}, {self.u_next})")
        tail = filters.count % rows
        if filters.count >= rows:
            with out.block(f"for k in range({start}, {stop} - {rows - 1}, {rows}):"):
                transform(rows)
        if tail:
            with out.block(f"if {stop} % {rows} != 0:"):
                out.add(f"k = {stop} - {tail}")
                transform(tail)

    def emit_tiles(self, channels: Range) -> None:
        """v[q][channel][tile], vectors along a row's tiles; the next row overwrites what overran."""
        out, block, planes = self.out, self.block, self.planes
        mk = out.micro(f"winograd_input_micro({self.dtype!r}, {self.lanes}, {self.m})")
        pixels = self.images.size[0] * self.images.size[1]
        with out.loop("depth", channels[1], start=channels[0]), out.loop("member", "images" if block.images > 1 else 1):
            out.add(f"image = {sum_text(('(first_image + member)', self.filters.depth * pixels), ('depth', pixels))}")
            planes.emit_copy(
                out,
                self.dtype,
                self.channel,
                self.images.name,
                (0, 1),
                "image",
                first_line="first_row",
                border=self.border,
            )
            with out.loop("line", "rows"):
                out.add(f"to = {sum_text(('depth', self.v_pitch), ('(member*rows + line)', block.width))}",
                        f"at = line * {planes.pitch}")
                with out.loop("tile", block.width, self.lanes):
                    out.add(f"{mk}(advance({self.channel}, at + tile), advance({self.v}, to + tile), "
                            f"{self.v_next}, {planes.size}, {planes.pitch})")

    def emit_products(self, first: str) -> None:
        """t[q] = u[q] @ v[q] for a round of filters; surplus filters of the last tile are never read."""
        out, block, depth = self.out, self.block, self.filters.depth
        rows, vectors = block.tile
        k = "k" if first == "0" else f"({first} + k)"
        mk = out.micro(f"tile_micro({self.dtype!r}, {self.lanes}, {rows}, {vectors}, w_row=1, w_red={rows}, "
                       f"x_red={self.v_pitch}, y_row={block.pitch})")
        with out.loop("q", self.side**2), out.loop("start", depth, 256):
            out.add(f"stop = min(start + 256, {depth})")
            with out.block(f"for k in range(0, filters, {rows}):"):
                with out.loop("position", block.pitch, vectors * self.lanes):
                    out.add(
                        f"{mk}(advance({self.v}, {sum_text(('q', self.v_next), 'position')}), "
                        f"advance({self.u}, {sum_text(('q', self.u_next), (k, depth))}), "
                        f"advance({self.t}, {sum_text(('q', self.t_next), ('k', block.pitch), 'position')}), "
                        "start, stop, start)"
                    )

    def emit_outputs(self, epilogue: Epilogue) -> None:
        out, m, (rows, columns) = self.out, self.m, self.images.outputs
        mk = out.micro(f"winograd_output_micro({self.dtype!r}, {self.lanes}, {m})")
        with out.loop("k_here", "filters"), out.loop("line", "lines"):
            out.add(
                "n = first_image + line // rows", "high = first_row + line % rows", "k = first_k + k_here"
            )
            with out.loop("tile", self.wide, self.lanes):
                at = sum_text(("k_here", self.block.pitch), ("line", self.wide), "tile")
                out.add(f"{mk}(advance({self.t}, {at}), advance({self.lines}, {sum_text(('tile', m))}), "
                        f"{self.t_next}, {self.line_pitch})")
            with out.loop("part", f"min({m}, {rows} - high * {m})"):
                out.add(f"row = high * {m} + part")
                with out.loop("column", columns):
                    out.add(f"value = {self.lines}[part * {self.line_pitch} + column]",
                            *epilogue(("n", "k", "row", "column"), "value"))


# Cycles of one transform of a vector of tiles (inputs, outputs) or of a tile of filters; measured on Zen 3.
_TRANSFORM_CYCLES = {2: (60, 60, 45), 4: (200, 180, 120)}
# Near a tie the smaller tile is taken, whose rounding error is ten times smaller.
_ADVANTAGE_WANTED = {2: 1.0, 4: 1.15}


def choose_conv(problem: Conv, epilogue: Epilogue, *, grad_input: bool = False, allow_winograd: bool = True,
                largest_tile: int = 4, target: Target | None = None) -> TemplateText:
    """The text of the convolution, or of its gradient to the input, in the form estimated to be the fastest.

    `largest_tile` is the largest m of F(m x m, 3 x 3) whose rounding error is acceptable.
    """
    target = target or host_target()
    images, filters = (_grad_input if grad_input else _forward)(problem)
    times = {0: _direct_cycles(images, filters, problem, target)}
    if allow_winograd and winograd_possible(problem, grad_input=grad_input):
        for m in (m for m in (2, 4) if m <= largest_tile):
            times[m] = _ADVANTAGE_WANTED[m] * _winograd_cycles(images, filters, problem.dtype, m, target)
    m = min(times, key=times.__getitem__)
    if m == 0:
        return (conv_grad_input if grad_input else conv_forward)(problem, epilogue, target=target)
    return (winograd_grad_input if grad_input else winograd_forward)(problem, epilogue, m, target=target)


def _direct_cycles(images: _Images, filters: _Filters, c: Conv, target: Target) -> float:
    positions = images.expected * images.outputs[0] * round_up(images.outputs[1] + 1, 2)
    products = filters.depth / c.groups * filters.count * c.r * c.s * positions
    return products / (2 * target.lanes(c.dtype)) / 0.85


def _winograd_cycles(images: _Images, filters: _Filters, dtype: str, m: int, target: Target) -> float:
    lanes, (high, wide) = target.lanes(dtype), (-(-outputs // m) for outputs in images.outputs)
    block = _choose_block(filters, images, m, ITEM_BYTES[dtype], lanes, target)
    rows, (inputs, outputs, weights) = block.tile[0], _TRANSFORM_CYCLES[m]
    vectors = images.expected * high * -(-wide // lanes)
    tiles = block.rounds(images.expected, high) * block.pitch
    products = (m + 2) ** 2 * filters.depth * round_up(filters.count, rows) * tiles / (2 * lanes)
    copies = images.expected * high * (m + 2) * filters.depth * (40 + images.size[1] / 3)
    far = 1 + filters.depth / 1024              # the deeper, the more the products wait for the outer caches
    return (
        products * far / 0.9
        + copies
        + vectors * (filters.depth * inputs + filters.count * outputs)
        + -(-filters.count // rows) * filters.depth * weights
    )
