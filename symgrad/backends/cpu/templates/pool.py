"""Max pooling over NCHW images and its gradient to the input.

Padding holds no candidates. NaN counts as greater than every number. The gradient of an output goes to the
first maximum of its window in row-major order (to the last NaN if there are any), found again from x: no
index tensor is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import Epilogue, Target, TemplateText, Writer, host_target, round_up, sum_text
from .planes import emit_row_copy

__all__ = ["Pool", "max_pool_backward", "max_pool_forward"]

Pair = tuple[int, int]
UNROLLED_WINDOW = 9     # candidates that are compared in one expression


@dataclass(frozen=True)
class Pool:
    """The forward problem: x (n, c, h, w), windows (r, s) -> y (n, c, p, q), all contiguous.

    padding is ((top, bottom), (left, right)). `x` and `g` are the pointers in use; g is the cotangent (n, c,
    p, q).
    """

    dtype: str
    n: int | str
    c: int | str
    h: int
    w: int
    r: int
    s: int
    stride: Pair
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    x: str = "p0"
    g: str = "p1"

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
    def padded(self) -> bool:
        return self.padding != ((0, 0), (0, 0))

    @property
    def tiles(self) -> bool:
        """Whether the windows are 2x2 and do not overlap."""
        return (self.r, self.s, self.stride, self.padded, self.dilation) == (2, 2, (2, 2), False, (1, 1))


def max_pool_forward(problem: Pool, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the pooling; the epilogue gets (n, c, p, q) indices."""
    target = target or host_target()
    out, o = Writer(target.shared), problem
    direct = not o.padded and o.r * o.s <= UNROLLED_WINDOW
    if not direct:
        lines = _Lines.make(out, o, target.lanes(o.dtype))
        line = out.buffer(o.dtype, lines.length)
    with _planes(out, o), out.loop("p", o.p):
        if direct:
            out.add(f"row = image + {sum_text(('p', o.stride[0] * o.w))}")
            cells = [(r * o.dilation[0] * o.w + s * o.dilation[1]) for r in range(o.r) for s in range(o.s)]
            value = _tree(
                f"maximum_{o.dtype}", [f"{o.x}[{sum_text('row', ('q', o.stride[1]), at)}]" for at in cells]
            )
        else:
            with out.loop("q", o.q):
                out.add(f"{line}[q] = lit_{o.dtype}('-inf')")
            with lines.rows(out, o):
                mk = out.micro(f"max_micro({o.dtype!r}, {lines.lanes}, {o.q}, columns={lines.columns(o)})")
                out.add(f"{mk}({lines.phases}, {line})")
            value = f"{line}[q]"
        with out.loop("q", o.q):
            out.add(f"value = {value}", *epilogue(("n", "channel", "p", "q"), "value"))
    return out.text()


def max_pool_backward(problem: Pool, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the gradient to x from `x` and `g`; the epilogue gets (n, c, h, w) indices."""
    target = target or host_target()
    out = Writer(target.shared)
    (_emit_tiles if problem.tiles else _emit_scatter)(out, problem, epilogue, target.lanes(problem.dtype))
    return out.text()


@contextmanager
def _planes(out: Writer, o: Pool) -> Iterator[None]:
    """Loops over n and channel; `image` and `pooled` are where the image and its outputs start."""
    with out.pairs("n", o.n, "channel", o.c):
        out.add(
            f"image = (n * {o.c} + channel) * {o.h * o.w}", f"pooled = (n * {o.c} + channel) * {o.p * o.q}"
        )
        yield


@dataclass(frozen=True)
class _Lines:
    """One image row at a time, padded with -inf and split by the stride: window columns are contiguous."""

    border: str
    phases: str         # the border itself if the stride is 1
    length: int         # of a phase
    lanes: int

    @staticmethod
    def make(out: Writer, o: Pool, lanes: int) -> _Lines:
        step = o.stride[1]
        length = round_up(o.q + (o.s - 1) * o.dilation[1] // step, lanes)
        size = max(length * step, o.padding[1][0] + round_up(o.w, lanes)) + lanes
        border = out.buffer(o.dtype, size)
        with out.loop("q", size):
            out.add(f"{border}[q] = lit_{o.dtype}('-inf')")
        return _Lines(border, out.buffer(o.dtype, length * step) if step > 1 else border, length, lanes)

    def columns(self, o: Pool) -> tuple[int, ...]:
        """Where the candidates of each window column start."""
        step, reaches = o.stride[1], [s * o.dilation[1] for s in range(o.s)]
        return tuple(reach % step * self.length + reach // step for reach in reaches)

    @contextmanager
    def rows(self, out: Writer, o: Pool) -> Iterator[None]:
        """Loops over the window rows of line p that lie in the image, each prepared in the phases."""
        (top, _), (left, _) = o.padding
        with out.loop("r", o.r):
            out.add(f"row = {sum_text(('p', o.stride[0]), ('r', o.dilation[0]), -top)}")
            with out.block(f"if row >= 0 and row < {o.h}:"):
                written = emit_row_copy(
                    out,
                    o.dtype,
                    self.lanes,
                    f"advance({o.x}, image + row * {o.w})",
                    self.border,
                    str(left),
                    o.w,
                )
                if written > o.w:
                    with out.block(f"for q in range({left + o.w}, {left + written}):"):
                        out.add(f"{self.border}[q] = lit_{o.dtype}('-inf')")
                if o.stride[1] > 1:
                    split = out.micro(f"split_micro({o.dtype!r}, {self.lanes}, {o.stride[1]})")
                    out.add(f"{split}({self.border}, {self.phases}, {self.length}, {self.length})")
                yield


def _tree(function: str, values: list[str]) -> str:
    """The values combined in pairs, then pairs of pairs, so that the calls do not wait for one another."""
    while len(values) > 1:
        values = [f"{function}({', '.join(values[k:k + 2])})" if k + 1 < len(values) else values[k]
                  for k in range(0, len(values), 2)]
    return values[0]


def _emit_tiles(out: Writer, o: Pool, epilogue: Epilogue, lanes: int) -> None:
    """Non-overlapping 2x2 windows: the two rows under a line of windows at a time, by selection alone."""
    pitch = o.w + 2 * lanes                         # the last vectors overrun
    lines = out.buffer(o.dtype, 2 * pitch)
    with _planes(out, o), out.loop("p", -(-o.h // 2)):
        if o.p and o.q:
            mk = out.micro(f"unpool_micro({o.dtype!r}, {lanes}, {o.q}, x_row={o.w}, y_row={pitch})")
            with out.block(f"if p < {o.p}:"):
                x, g = f"advance({o.x}, image + p * {2 * o.w})", f"advance({o.g}, pooled + p * {o.q})"
                out.add(f"{mk}({x}, {g}, {lines})")
        if o.h % 2 or not o.q:  # an odd last row is in no window, nor is an odd last column
            with out.block(f"if p == {o.p}:" if o.q else "if True:"), out.loop("w", o.w):
                out.add(f"{lines}[w] = lit_{o.dtype}(0.0)", f"{lines}[{pitch} + w] = lit_{o.dtype}(0.0)")
        if o.w % 2:
            out.add(
                f"{lines}[{o.w - 1}] = lit_{o.dtype}(0.0)", f"{lines}[{pitch + o.w - 1}] = lit_{o.dtype}(0.0)"
            )
        with out.block(f"for half in range(min(2, {o.h} - 2*p)):"):
            out.add("h = 2*p + half")
            with out.loop("w", o.w):
                out.add(f"value = {lines}[half*{pitch} + w]", *epilogue(("n", "channel", "h", "w"), "value"))


def _emit_scatter(out: Writer, o: Pool, epilogue: Epilogue, lanes: int) -> None:
    """Any windows: finds the winners of a line of outputs, then adds their cotangents into a plane."""
    lines = _Lines.make(out, o, lanes)
    plane, best = out.buffer(o.dtype, o.h * o.w), out.buffer(o.dtype, lines.length)
    first, winner = out.buffer("int32", o.q), out.buffer("int32", lines.length)
    top, left = o.padding[0][0], o.padding[1][0]
    with out.loop("q", o.q):                # the first column of each window that lies in the image, or -1
        out.add(
            f"column = {sum_text(('q', o.stride[1]), -left)}",
            f"column = column + (max(-column, 0) + {o.dilation[1] - 1}) // {o.dilation[1]} * {o.dilation[1]}",
        )
        last = sum_text(("q", o.stride[1]), (o.s - 1) * o.dilation[1] - left)
        with out.block(f"if column < {o.w} and column <= {last}:"):
            out.add(f"{first}[q] = index_to_int32(column)")
        with out.block("else:"):
            out.add(f"{first}[q] = lit_int32(-1)")
    with _planes(out, o):
        out.zero(o.dtype, plane, "0", o.h * o.w)
        with out.loop("p", o.p):
            last = sum_text(("p", o.stride[0]), (o.r - 1) * o.dilation[0] - top)
            out.add(
                f"row = {sum_text(('p', o.stride[0]), -top)}",
                f"row = row + (max(-row, 0) + {o.dilation[0] - 1}) // {o.dilation[0]} * {o.dilation[0]}",
                f"inside = row < {o.h} and row <= {last}",
            )
            with out.loop("q", o.q):
                out.add(f"{best}[q] = lit_{o.dtype}('-inf')",
                        f"{winner}[q] = add_int32({first}[q], index_to_int32(row * {o.w}))")
            with lines.rows(out, o):
                mk = out.micro(
                    f"argmax_micro({o.dtype!r}, {lanes}, {o.q}, columns={lines.columns(o)}, "
                    f"places={tuple(s * o.dilation[1] - left for s in range(o.s))}, stride={o.stride[1]})"
                )
                out.add(f"{mk}({lines.phases}, {best}, {winner}, row * {o.w})")
            with out.block("if inside:"), out.loop("q", o.q):  # a window may lie in the padding as a whole
                with out.block(f"if ge_int32({first}[q], lit_int32(0)):"):
                    out.add(f"pixel = cast_int32_int64({winner}[q])",
                            f"{plane}[pixel] = {plane}[pixel] + {o.g}[pooled + p * {o.q} + q]")
        with out.loop("h", o.h), out.loop("w", o.w):
            out.add(f"value = {plane}[h * {o.w} + w]", *epilogue(("n", "channel", "h", "w"), "value"))
