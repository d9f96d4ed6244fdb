"""The gradient of a convolution to its filters, for small images and many channels: vectors along the channels.

A few channels of a few images are copied with the channel innermost. Then gw[k, :, r, s] is a sum of such vectors, over all images and
outputs, each times one number of the cotangent: matrix products with outputs as the reduced index, one for each tap. Dot products along
positions (see `conv_weight`) spend most of a small image on its borders.
"""

from __future__ import annotations

from . import Epilogue, Target, TemplateText, Writer, host_target, round_up, sum_text
from .conv import Conv

__all__ = ["conv_grad_weight_outer", "outer_possible"]

REDUCED = 512           # outputs in flight: the vectors of a tap for them stay in L1


def outer_possible(c: Conv) -> bool:
    """Whether the form applies: one group, a number of images that is known, something to compute."""
    return c.groups == 1 and isinstance(c.n, int) and 0 not in (c.n, c.c, c.k, c.r, c.s, c.p, c.q)


def conv_grad_weight_outer(problem: Conv, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the gradient to the weight from `x` and `g`; the epilogue gets (k, c, r, s). See `outer_possible`."""
    return _Kernel(problem, target or host_target()).emit(epilogue)


class _Kernel:
    """One kernel being written. Buffers: images, channels innermost; the vectors of a tap; the cotangent by filters; sums."""

    def __init__(self, c: Conv, target: Target):
        assert isinstance(c.n, int)
        self.c, self.out, self.lanes = c, Writer(target.shared), target.lanes(c.dtype)
        self.width = 2 * self.lanes                                 # channels at once
        self.rows = min(c.k, 6 if target.registers < 32 else 14)    # filters of a register tile
        self.area = c.p * c.q
        self.count = min(c.n, max(1, REDUCED // self.area))         # images at once
        self.high = max(c.padding[0][0] + c.h, (c.p - 1) * c.stride[0] + (c.r - 1) * c.dilation[0] + 1)
        self.wide = max(c.padding[1][0] + c.w, (c.q - 1) * c.stride[1] + (c.s - 1) * c.dilation[1] + 1)
        self.pitch = round_up(self.count * self.area + self.lanes, 16) + 16         # of a filter's cotangent
        buffer = lambda elements: self.out.buffer(c.dtype, elements)
        self.images = buffer(self.count * self.high * self.wide * self.width + self.width * self.lanes)
        self.vectors, self.cotangent = buffer(self.count * self.area * self.width), buffer(c.k * self.pitch)
        self.sums = buffer(c.r * c.s * c.k * self.width)

    def emit(self, epilogue: Epilogue) -> TemplateText:
        c, out, width = self.c, self.out, self.width
        with out.parts("c0", c.c, width):
            out.add(f"channels = min({width}, {c.c} - c0)")
            out.zero(c.dtype, self.images, "0", self.count * self.high * self.wide * width)
            with out.loop("first_image", c.n, self.count):
                out.add(f"images = min({self.count}, {c.n} - first_image)")
                self.emit_cotangent()
                self.emit_images()
                with out.loop("r", c.r), out.loop("s", c.s):
                    self.emit_vectors()
                    self.emit_products()
            with out.loop("k", c.k), out.loop("channel", "channels"):
                out.add("c = c0 + channel")
                with out.loop("r", c.r), out.loop("s", c.s):
                    at = sum_text(("r", c.s * c.k * width), ("s", c.k * width), ("k", width), "channel")
                    out.add(f"value = {self.sums}[{at}]", *epilogue(("k", "c", "r", "s"), "value"))
        return out.text()

    def emit_cotangent(self) -> None:
        """cotangent[k][image, output]."""
        c, out, area, lanes = self.c, self.out, self.area, self.lanes
        copy = out.micro(f"copy_micro({c.dtype!r}, {lanes}, {-(-area // lanes)}{f', last={area % lanes}' if area % lanes else ''})")
        with out.loop("m", "images"):       # a copy may run into the place of the next image
            out.add(f"{copy}(advance({c.g}, {sum_text(('(first_image + m)', c.k * area))}), advance({self.cotangent}, m * {area}), "
                    f"{c.k}, {area}, {self.pitch})")

    def emit_images(self) -> None:
        """images[image][row][column][channel], inside a border of zeros."""
        c, out, lanes, width = self.c, self.out, self.lanes, self.width
        together = self.wide == c.w and c.padding[1] == (0, 0)      # rows follow each other in both
        rows, length = (1, c.h * c.w) if together else (c.h, c.w)
        end = length - length % lanes
        with out.loop("m", "images"), out.loop("row", rows):
            x = sum_text(("(first_image + m)", c.c * c.h * c.w), ("c0", c.h * c.w), ("row", c.w))
            pixel = sum_text(("m", self.high * self.wide), ("row", self.wide), c.padding[0][0] * self.wide + c.padding[1][0])
            for lines, condition in ((width, f"if channels == {width}:"), (c.c % width, f"if channels < {width}:")):
                if 0 < lines <= c.c:
                    transpose = out.micro(f"transpose_micro({c.dtype!r}, {lanes}, {lines}, end={end}, last={length - end})")
                    with out.block(condition):
                        out.add(f"{transpose}(advance({c.x}, {x}), advance({self.images}, ({pixel}) * {width}), {c.h * c.w}, {width})")

    def emit_vectors(self) -> None:
        """vectors[image, output][channel]: what the tap (r, s) reads."""
        c, out, width = self.c, self.out, self.width
        copy = out.micro(f"copy_micro({c.dtype!r}, {self.lanes}, 2)")
        with out.loop("m", "images"), out.loop("p", c.p):
            pixel = sum_text(("m", self.high * self.wide), ("p", c.stride[0] * self.wide), ("r", c.dilation[0] * self.wide), ("s", c.dilation[1]))
            to = sum_text(("m", self.area * width), ("p", c.q * width))
            out.add(f"{copy}(advance({self.images}, ({pixel}) * {width}), advance({self.vectors}, {to}), {c.q}, {c.stride[1] * width}, {width})")

    def emit_products(self) -> None:
        """sums[r][s][k][channel] += cotangent @ vectors."""
        c, out, rows, width = self.c, self.out, self.rows, self.width

        def product(count: int) -> None:
            mk = out.micro(f"tile_micro({c.dtype!r}, {self.lanes}, {count}, 2, w_row={self.pitch}, w_red=1, x_red={width}, y_row={width})")
            to = sum_text(("r", c.s * c.k * width), ("s", c.k * width), ("k", width))
            out.add(f"{mk}({self.vectors}, advance({self.cotangent}, k * {self.pitch}), advance({self.sums}, {to}), 0, images * {self.area}, first_image)")
        with out.block(f"for k in range(0, {c.k - rows + 1}, {rows}):"):
            product(rows)
        if c.k % rows:
            out.add(f"k = {c.k - c.k % rows}")
            product(c.k % rows)
