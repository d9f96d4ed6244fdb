"""Winograd convolution F(m x m, 3 x 3), m = 2 or 4: stride 1, forward and gradient to the input.

The padded image is copied into m x m phase planes, so that one pixel of eight neighbouring tiles is one vector. Tiles are
transformed, multiplied by the transformed filters ((m + 2)^2 matrix products) and transformed back, a block of tile rows
at a time; the rows then go to the epilogue. Multiplications per output: 4 for m = 2, 2.25 for m = 4, against 9. The
rounding error is about 2 (m = 2) and 25 (m = 4) times that of the direct method.
Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass

from symgrad.backends.cpu.templates import (ITEM_BYTES, Epilogue, Target, TemplateText, Writer, choose_tile, host_target,
                                            round_up, sum_text)
from symgrad.backends.cpu.templates.conv import Conv, _Axis, _Planes, conv_forward, conv_grad_input

__all__ = ["choose_conv", "winograd_forward", "winograd_grad_input", "winograd_possible"]


def winograd_possible(problem: Conv, *, grad_input: bool = False) -> bool:
    """Whether the Winograd forms apply: 3x3, stride and dilation 1, one group, something to compute."""
    c = problem
    fits = (c.r, c.s, c.stride, c.dilation, c.groups) == (3, 3, (1, 1), (1, 1), 1)
    narrow = all(pad <= 2 for pair in c.padding for pad in pair)
    return fits and 0 not in (c.n, c.c, c.k, c.p, c.q) and (narrow or not grad_input)


def winograd_forward(problem: Conv, epilogue: Epilogue, m: int = 4, *, target: Target | None = None) -> TemplateText:
    """The text of the convolution; the epilogue gets (n, k, p, q) indices. See `winograd_possible`."""
    c = problem
    filters = _Filters(c.weight, c.k, c.c, across=9 * c.c, along=9, taps=tuple(range(9)))
    return _winograd(c.dtype, c.x, c.n, (c.h, c.w), (c.p, c.q), (c.padding[0][0], c.padding[1][0]), filters, m, epilogue,
                     target or host_target())


def winograd_grad_input(problem: Conv, epilogue: Epilogue, m: int = 4, *, target: Target | None = None) -> TemplateText:
    """The text of the gradient to x from `g` and `weight`; the epilogue gets (n, c, h, w) indices."""
    c = problem
    filters = _Filters(c.weight, c.c, c.k, across=9, along=9 * c.c, taps=tuple(reversed(range(9))))
    return _winograd(c.dtype, c.g, c.n, (c.p, c.q), (c.h, c.w), (2 - c.padding[0][0], 2 - c.padding[1][0]), filters, m,
                     epilogue, target or host_target())


@dataclass(frozen=True)
class _Filters:
    """`count` filters of `depth` channels in place: strides across filters and along channels, offsets of the nine taps."""

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


def _choose_block(filters: _Filters, batch: int, high: int, wide: int, m: int, item: int, lanes: int, target: Target
                  ) -> _Block:
    """The block that computes little garbage, keeps its products near the core and uses each filter often."""
    def cost(block: _Block) -> float:
        rounds = -(-high // block.rows) * -(-batch // block.images)
        waste = rounds * block.pitch / (batch * high * wide)
        flight = (m + 2) ** 2 * (filters.count + filters.depth) * block.pitch * item
        far = 1 + 0.25 * max(0.0, flight / (4 * target.l2_bytes) - 1)
        return waste * min(far, 2) * (1 + 24 / block.pitch)

    def block(images: int, rows: int) -> _Block:
        tile = choose_tile(filters.count, images * rows * wide, lanes, target.registers, multiple=2)
        return _Block(images, rows, wide, tile, lanes)
    some = [block(1, rows) for rows in range(1, high + 1)]
    whole = [block(images, high) for images in range(2, min(batch, 64) + 1)]
    return min((b for b in some + whole if b.tiles <= 768 or b.rows * b.images == 1), key=cost)


def _winograd(dtype: str, source: str, batch: int, size: tuple[int, int], shape: tuple[int, int], lead: tuple[int, int],
              filters: _Filters, m: int, epilogue: Epilogue, target: Target) -> TemplateText:
    out, lanes, item, side = Writer(), target.lanes(dtype), ITEM_BYTES[dtype], m + 2
    high, wide = -(-shape[0] // m), -(-shape[1] // m)
    block = _choose_block(filters, batch, high, wide, m, item, lanes, target)
    reach = tuple(range(side))
    planes = _Planes(_Axis(size[0], block.rows, m, lead[0], reach, window=True),
                     _Axis(size[1], wide, m, lead[1], reach), lanes)
    once = -(-batch // block.images) * -(-high // block.rows) == 1          # each filter is used by one block of tiles
    filter_block = _filter_block(filters, block, side, item, once, target)
    u_filters = filter_block if once else round_up(filters.count, block.tile[0])
    surplus = 2 * lanes                     # keeps the products out of each other's cache sets, and takes overruns
    nexts = (u_filters * filters.depth + surplus, filters.depth * block.pitch + surplus,
             filter_block * block.pitch + surplus)
    line_pitch = m * round_up(wide, lanes) + lanes
    channel = out.buffer(dtype, planes.phases * planes.size + round_up(wide, lanes))
    u, v, t = (out.buffer(dtype, side * side * size + lanes) for size in nexts)
    lines = out.buffer(dtype, m * line_pitch)

    border = planes.emit_border(out, dtype)
    if not once:
        _emit_filters(out, dtype, filters, u, m, block.tile[0], "0", filters.count, nexts[0])
    with out.loop("first_image", batch, block.images):
        out.add(f"images = min({block.images}, {batch} - first_image)")
        with out.loop("first_row", high, block.rows):
            out.add(f"rows = min({block.rows}, {high} - first_row)", "lines = images * rows")
            _emit_inputs(out, dtype, planes, source, filters.depth, m, block, (channel, border, v), nexts[1])
            with out.loop("first_k", filters.count, filter_block):
                out.add(f"filters = min({filter_block}, {filters.count} - first_k)")
                if once:
                    _emit_filters(out, dtype, filters, u, m, block.tile[0], "first_k", "filters", nexts[0])
                _emit_products(out, dtype, filters, block, (u, v, t), nexts, "0" if once else "first_k", side)
                with out.loop("k_here", "filters"), out.loop("line", "lines"):
                    out.add("n = first_image + line // rows", "high = first_row + line % rows", "k = first_k + k_here")
                    mk = out.micro(f"winograd_output_micro({dtype!r}, {lanes}, {m}, t_next={nexts[2]}, y_row={line_pitch})")
                    with out.loop("tile", wide, lanes):
                        at = sum_text(("k_here", block.pitch), ("line", wide), "tile")
                        out.add(f"{mk}(advance({t}, {at}), advance({lines}, {sum_text(('tile', m))}))")
                    with out.loop("part", f"min({m}, {shape[0]} - high * {m})"):
                        out.add(f"row = high * {m} + part")
                        with out.loop("column", shape[1]):
                            out.add(f"value = {lines}[part * {line_pitch} + column]",
                                    *epilogue(("n", "k", "row", "column"), "value"))
    return out.text()


def _filter_block(filters: _Filters, block: _Block, side: int, item: int, once: bool, target: Target) -> int:
    """Filters per round: their products stay near the core, and so do the filters if this round is their only use."""
    each = side * side * item * (block.pitch + (filters.depth if once else 0))
    rows, budget = block.tile[0], (4 if once else 1) * target.l2_bytes
    return min(round_up(filters.count, rows), max(round_up(32, rows), budget // each // rows * rows))


def _emit_filters(out: Writer, dtype: str, filters: _Filters, u: str, m: int, rows: int, first: str, count: int | str,
                  u_next: int) -> None:
    """u[q][filter // rows][channel][filter % rows] of `count` filters from `first` on; surplus filters are zero."""
    def transform(exist: int) -> str:
        masked = f", exist={exist}" if exist < rows else ""
        mk = out.micro(f"winograd_weight_micro({dtype!r}, {rows}, {m}, taps={filters.taps}, w_lane={filters.across}, "
                       f"u_next={u_next}{masked})")
        w_at = sum_text((f"({first} + k)" if first != "0" else "k", filters.across), ("channel", filters.along))
        return (f"{mk}(advance({filters.name}, {w_at}), "
                f"advance({u}, {sum_text(('k', filters.depth), ('channel', rows))}))")
    tail = filters.count % rows
    if filters.count >= rows:
        with out.block(f"for k in range(0, {count} - {rows - 1}, {rows}):"), out.loop("channel", filters.depth):
            out.add(transform(rows))
    if tail:
        with out.block(f"if {count} % {rows} != 0:"):
            out.add(f"k = {count} - {tail}")
            with out.loop("channel", filters.depth):
                out.add(transform(tail))


def _emit_inputs(out: Writer, dtype: str, planes: _Planes, source: str, depth: int, m: int, block: _Block,
                 buffers: tuple[str, str, str], v_next: int) -> None:
    """v[q][channel][tile], vectors along the tiles of a row; what overruns a row is overwritten by the next one."""
    taps, (channel, border, v) = range(m + 2), buffers
    mk = out.micro(f"winograd_input_micro({dtype!r}, {block.lanes}, {m}, rows={tuple(map(planes.row_offset, taps))}, "
                   f"columns={tuple(map(planes.column_offset, taps))}, v_next={v_next})")
    pixels = planes.vertical.size * planes.horizontal.size
    with out.loop("depth", depth), out.loop("member", "images" if block.images > 1 else 1):
        out.add(f"image = {sum_text(('(first_image + member)', depth * pixels), ('depth', pixels))}")
        planes.emit_copy(out, dtype, channel, source, 1, "image", first_line="first_row", border=border)
        with out.loop("line", "rows"):
            to = sum_text(("depth", block.pitch), ("(member*rows + line)", block.width))
            out.add(f"to = {to}", f"at = line * {planes.pitch}")
            with out.loop("tile", block.width, block.lanes):
                out.add(f"{mk}(advance({channel}, at + tile), advance({v}, to + tile))")


def _emit_products(out: Writer, dtype: str, filters: _Filters, block: _Block, buffers: tuple[str, str, str],
                   nexts: tuple[int, int, int], first: str, side: int) -> None:
    """t[q] = u[q] @ v[q] for the filters of a round; surplus filters of the last tile are computed and never read."""
    (u, v, t), (u_next, v_next, t_next) = buffers, nexts
    rows, vectors = block.tile
    mk = out.micro(f"tile_micro({dtype!r}, {block.lanes}, {rows}, {vectors}, w_row=1, w_red={rows}, x_red={block.pitch}, "
                   f"y_row={block.pitch})")
    with out.loop("q", side * side), out.loop("start", filters.depth, 256):
        out.add(f"stop = min(start + 256, {filters.depth})")
        with out.block(f"for k in range(0, filters, {rows}):"), out.loop("position", block.pitch, vectors * block.lanes):
            k = f"({first} + k)" if first != "0" else "k"
            out.add(f"{mk}(advance({v}, {sum_text(('q', v_next), 'position')}), "
                    f"advance({u}, {sum_text(('q', u_next), (k, filters.depth))}), "
                    f"advance({t}, {sum_text(('q', t_next), ('k', block.pitch), 'position')}), start, stop)")


# Cycles of one transform of a vector of tiles (inputs, outputs) or of a tile of filters; measured on Zen 3.
_TRANSFORM_CYCLES = {2: (60, 60, 45), 4: (160, 140, 110)}


def choose_conv(problem: Conv, epilogue: Epilogue, *, grad_input: bool = False, allow_winograd: bool = True,
                largest_tile: int = 4, target: Target | None = None) -> TemplateText:
    """The text of the forward convolution, or of its gradient to the input, in the form estimated to be the fastest.

    `largest_tile` is the largest m of F(m x m, 3 x 3) whose rounding error is acceptable.
    """
    target = target or host_target()
    times = {0: _direct_cycles(problem, grad_input, target)}
    if allow_winograd and winograd_possible(problem, grad_input=grad_input):
        times |= {m: _winograd_cycles(problem, grad_input, m, target) for m in (2, 4) if m <= largest_tile}
    m = min(times, key=times.__getitem__)
    if m == 0:
        return (conv_grad_input if grad_input else conv_forward)(problem, epilogue, target=target)
    return (winograd_grad_input if grad_input else winograd_forward)(problem, epilogue, m, target=target)


def _direct_cycles(c: Conv, grad_input: bool, target: Target) -> float:
    depth, count, shape = (c.k, c.c, (c.h, c.w)) if grad_input else (c.c, c.k, (c.p, c.q))
    positions = c.n * shape[0] * round_up(shape[1] + 1, 2)
    return depth / c.groups * count * c.r * c.s * positions / (2 * target.lanes(c.dtype)) / 0.85


def _winograd_cycles(c: Conv, grad_input: bool, m: int, target: Target) -> float:
    depth, count, shape = (c.k, c.c, (c.h, c.w)) if grad_input else (c.c, c.k, (c.p, c.q))
    lanes, high, wide = target.lanes(c.dtype), -(-shape[0] // m), -(-shape[1] // m)
    filters = _Filters("", count, depth, 0, 0, ())
    block = _choose_block(filters, c.n, high, wide, m, ITEM_BYTES[c.dtype], lanes, target)
    rounds = -(-high // block.rows) * -(-c.n // block.images)
    inputs, outputs, weights = _TRANSFORM_CYCLES[m]
    vectors = c.n * high * -(-wide // lanes)
    products = rounds * (m + 2) ** 2 * depth * round_up(count, block.tile[0]) * block.pitch / (2 * lanes)
    far = 1 + depth / 1024              # the deeper, the more the products wait for the outer caches
    return (products * far / 0.9 + vectors * (depth * inputs + count * outputs)
            + -(-count // block.tile[0]) * depth * weights)
