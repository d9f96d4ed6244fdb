"""The gradient of a convolution to its filters: dot products of cotangent and image along flat positions.

Both are copied into planes of one pitch (see `planes`), the cotangent with zeros between its rows, so that
gw[k, c, r, s] is one long dot product of plane k of the cotangent with plane c of the image, shifted by the
tap. A register tile holds several filters times the taps of one kernel row; small images are chained so that
the horizontal sums at the end of a dot product stay rare. For one image and a 1x1 kernel it is a matrix
product.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from . import FEW_PARTS, Epilogue, Target, TemplateText, Writer, host_target, nothing, round_up, sum_text
from .conv import UNROLLED_COLUMNS, Conv
from .conv_weight_outer import conv_grad_weight_outer, outer_possible
from .gemm import Gemm, Operand, gemm
from .planes import Axis, Planes, Range

__all__ = ["conv_grad_weight"]

POSITIONS = 1024        # of one block: a tile's rows of the cotangent stay in L1
SHARES = 16             # of the images, at most, that are summed up by themselves


def conv_grad_weight(problem: Conv, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the gradient to the weight from `x` and `g`; the epilogue gets (k, c in its group, r,
    s)."""
    c, target = problem, target or host_target()
    if c.pointwise and c.n == 1 and 0 not in (c.k, c.c):
        area = c.h * c.w
        product = Gemm(c.dtype, 1, c.k, c.c, area, Operand(c.g, (0, area, 1)), Operand(c.x, (0, 1, area)))
        return gemm(product, lambda ij, value: epilogue((*ij[1:], "0", "0"), value), target=target)
    if outer_possible(c) and _mostly_borders(c, target):
        return conv_grad_weight_outer(c, epilogue, target=target)
    out, lanes = Writer(target.shared), target.lanes(c.dtype)
    depth, filters, area = c.c // c.groups, c.k // c.groups, c.r * c.s
    if 0 in (depth, filters, area):
        return nothing(target)
    image = Planes(
        Axis(c.h, c.p, c.stride[0], c.padding[0][0], tuple(r * c.dilation[0] for r in range(c.r))),
        Axis(c.w, c.q, c.stride[1], c.padding[1][0], tuple(s * c.dilation[1] for s in range(c.s))),
        lanes,
    )
    cotangent = Planes(
        Axis(c.p, c.p, 1, 0, (0,)), Axis(c.q, c.q, 1, 0, (0,)), lanes, fixed_pitch=image.pitch
    )
    positions = round_up(max((c.p - 1) * image.pitch + c.q, 0), lanes) if c.p and c.q else 0
    chain = max(1, POSITIONS // max(positions, 1))
    chain = min(chain, max(c.n, 1)) if isinstance(c.n, int) else chain
    image_size, cotangent_size = depth * image.phases * image.size, filters * cotangent.size
    size, tile_rows = filters * depth * area + lanes, _tile_rows(c, target)
    shares = _shares(c, -(-filters // tile_rows)) if out.shared else 1
    sums = out.buffer(c.dtype, shares * size, common=shares > 1)
    x, g = (
        out.buffer(c.dtype, chain * image_size + lanes),
        out.buffer(c.dtype, chain * cotangent_size + lanes),
    )

    def emit_sums(images: Range, rows: Range, own: str = "0") -> None:
        """The sums over some images for some filters, to `own` and what follows."""
        first, past = rows
        out.zero(c.dtype, sums, sum_text(own, (first, depth * area)),
                 sum_text((f"({past} - {first})", depth * area), lanes) if rows != (0, filters) else size)
        if not (c.n and positions):
            return
        with out.block(f"for first_image in range({images[0]}, {images[1]}, {chain}):"):
            out.add(f"count = min({chain}, {images[1]} - first_image)")
            with out.loop("m", "count"):
                whose = f"(first_image + m) * {c.groups} + group" if c.groups > 1 else "first_image + m"
                out.add(f"member = {whose}")
                image.emit_copy(out, c.dtype, x, c.x, (0, depth), sum_text(("member", depth * c.h * c.w)), sum_text(("m", image_size)))
                cotangent.emit_copy(out, c.dtype, g, c.g, rows, sum_text(("member", filters * c.p * c.q)), sum_text(("m", cotangent_size)))
            with out.loop("start", positions, POSITIONS):
                out.add(f"stop = min(start + {POSITIONS}, {positions})")
                _emit_tiles(out, c, image, cotangent, (x, g, sums), (image_size, cotangent_size), target, rows, own)

    def emit_results(rows: Range) -> None:
        """The sums of those filters, of all shares of the images, to the epilogue."""
        with out.loop("row", rows[1], start=rows[0]):
            out.add(f"k = {sum_text(('group', filters), 'row')}")
            with out.loop("c", depth), out.loop("r", c.r), out.loop("s", c.s):
                out.add(f"at = {sum_text(('row', depth * area), ('c', area), ('r', c.s), 's')}", f"value = {sums}[at]")
                if shares > 1:
                    with out.loop("share", shares, start=1):
                        out.add(f"value = value + {sums}[share * {size} + at]")
                out.add(*epilogue(("k", "c", "r", "s"), "value"))

    if shares > 1:
        step = -(-int(c.n) // shares)
        with out.rounds("group", c.groups, stages=2):
            with out.stage(), out.parts("share", shares):
                out.add(f"own = share * {size}", f"images_start = share * {step}", f"images_stop = min(images_start + {step}, {c.n})")
                emit_sums(("images_start", "images_stop"), (0, filters), "own")
            with out.stage():
                emit_results(out.span("row", filters))
        return out.text()
    by_groups = c.groups >= FEW_PARTS
    groups = out.span("group", c.groups) if by_groups else (0, c.groups)
    rows: Range = (0, filters) if by_groups else out.span("row", filters, tile_rows)
    out.pieces = 4 if by_groups else 1      # every call copies the images
    with out.loop("group", groups[1], start=groups[0]):
        emit_sums((0, c.n), rows)
        emit_results(rows)
    return out.text()


def _mostly_borders(c: Conv, target: Target) -> bool:
    """Whether vectors along channels beat those along positions; measured on Zen 3."""
    many = min(c.c, c.k) >= 2 * target.lanes(c.dtype)
    return many and (c.stride != (1, 1) or (c.q <= 16 and (c.r, c.s) != (1, 1)))


def _shares(c: Conv, tiles: int) -> int:
    """How many shares of the images have sums of their own: 1 where there are filters enough to share out instead."""
    if c.groups >= FEW_PARTS or tiles >= FEW_PARTS or not isinstance(c.n, int) or c.n < FEW_PARTS:
        return 1
    return -(-c.n // -(-c.n // SHARES))


def _emit_tiles(out: Writer, c: Conv, image: Planes, cotangent: Planes, buffers: tuple[str, str, str],
                sizes: tuple[int, int], target: Target, filter_rows: Range, own: str) -> None:
    """The dot products of some filters, the positions start ... stop and the chained images."""
    (x, g, sums), lanes = buffers, target.lanes(c.dtype)
    depth, filters, area = c.c // c.groups, c.k // c.groups, c.r * c.s
    channel = image.phases * image.size
    members, groups, rows = _members(c), _column_groups(c, lanes), _tile_rows(c, target)

    def emit_dots(tile_rows: int, offsets: tuple[int, ...], s: str | int, across: str | int) -> None:
        """The sums of the filters from `row` on, for window columns from s on, which start at `across`."""
        mk = out.micro(f"dot_micro({c.dtype!r}, {lanes}, {tile_rows}, {offsets}, a_row={cotangent.size}, "
                       f"y_row={depth * area})")
        x_at = sum_text(("c", channel), "reach", across, "start")
        y_at = sum_text(own if own != "0" else 0, ("row", depth * area), ("c", area), ("r", c.s), s)
        out.add(f"{mk}(advance({g}, {sum_text(('row', cotangent.size), 'start')}), advance({x}, {x_at}), "
                f"advance({sums}, {y_at}), 0, stop - start, count, {sizes[1]}, {sizes[0]})")

    def emit_sums(tile_rows: int, count: int) -> None:
        if c.s > UNROLLED_COLUMNS:
            emit_many_columns(tile_rows)
            return
        for group in groups:
            offsets = tuple(m * channel + image.column_offset(s) for m in range(count) for s in group)
            emit_dots(tile_rows, offsets, group[0], 0)

    def emit_many_columns(tile_rows: int) -> None:
        width, step, spacing = len(groups[0]), c.stride[1], c.dilation[1]
        across = f"s*{spacing} % {step} * {image.size} + s*{spacing} // {step}" if step > 1 else f"s*{spacing}"
        for first, past in ((0, c.s - c.s % width), (c.s - c.s % width, c.s)):
            count = min(width, past - first)
            if count:
                with out.block(f"for s in range({first}, {past}, {count}):"):
                    out.add(f"across = {across}")
                    emit_dots(tile_rows, tuple(t * spacing for t in range(count)), "s", "across")

    def emit_kernel_rows(tile_rows: int, count: int) -> None:
        step = c.stride[0]
        with out.loop("r", c.r):
            plane = f"r*{c.dilation[0]} % {step} * {c.stride[1] * image.size} + " if step > 1 else ""
            out.add(f"reach = {plane}r*{c.dilation[0]} // {step} * {image.pitch}")
            emit_sums(tile_rows, count)

    def emit_channels(tile_rows: int) -> None:
        with out.block(f"for c in range(0, {depth - members + 1}, {members}):"):
            emit_kernel_rows(tile_rows, members)
        if depth % members:
            out.add(f"c = {depth - depth % members}")
            emit_kernel_rows(tile_rows, depth % members)

    # the cotangent's rows of a tile stay in L1 while all channels of the image pass by
    first, past = filter_rows
    tail = filters % rows
    if filters >= rows:
        with out.block(f"for row in range({first}, {sum_text(past, 1 - rows) if tail else past}, {rows}):"):
            emit_channels(rows)
    if tail:
        with out.block(f"if {past} == {filters}:") if isinstance(past, str) else nullcontext():
            out.add(f"row = {filters - tail}")
            emit_channels(tail)


def _members(c: Conv) -> int:
    """How many channels are in one tile: several if their sums are neighbours."""
    return min(c.c // c.groups, max(1, 3 // c.s)) if c.r == 1 else 1


def _column_groups(c: Conv, lanes: int) -> Sequence[Sequence[int]]:
    """The window columns that share a tile."""
    return _split(c.s, min(5, lanes)) if c.s <= UNROLLED_COLUMNS else [range(4 if c.stride[1] == 1 else 1)]


def _tile_rows(c: Conv, target: Target) -> int:
    width = max(map(len, _column_groups(c, target.lanes(c.dtype))))
    return _rows_of_tile(c.k // c.groups, width * _members(c), target.registers)


def _split(count: int, most: int) -> list[tuple[int, ...]]:
    """range(count) in as few consecutive groups of at most `most` as possible, of nearly equal size."""
    pieces = -(-count // most)
    bounds = [count * i // pieces for i in range(pieces + 1)]
    return [tuple(range(a, b)) for a, b in zip(bounds, bounds[1:])]


def _rows_of_tile(filters: int, width: int, registers: int) -> int:
    most = max(r for r in range(1, registers) if r * width + min(r, width) + 1 <= registers)
    exact = [r for r in range(-(-3 * most // 4), most + 1) if filters % r == 0]
    return min(filters, max(exact, default=most))
