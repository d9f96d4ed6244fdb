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
        rows = _Rows.make(out, o, target.lanes(o.dtype))
        line = out.buffer(o.dtype, round_up(o.q, rows.lanes))
    with _planes(out, o):
        if not direct:
            rows.emit_copy(out, o)
        with out.loop("p", o.p):
            if direct:
                out.add(f"row = image + {sum_text(('p', o.stride[0] * o.w))}")
                cells = [(r * o.dilation[0] * o.w + s * o.dilation[1]) for r in range(o.r) for s in range(o.s)]
                value = _tree(
                    f"maximum_{o.dtype}", [f"{o.x}[{sum_text('row', ('q', o.stride[1]), at)}]" for at in cells]
                )
            else:
                with out.loop("q", o.q):
                    out.add(f"{line}[q] = lit_{o.dtype}('-inf')")
                with _window_rows(out, o):
                    mk = out.micro(f"max_micro({o.dtype!r}, {rows.lanes}, {o.q}, columns={rows.columns(o)})")
                    out.add(f"{mk}(advance({rows.name}, row * {rows.pitch}), {line})")
                value = f"{line}[q]"
            with out.loop("q", o.q):
                out.add(f"value = {value}", *epilogue(("n", "channel", "p", "q"), "value"))
    return out.text()


def max_pool_backward(problem: Pool, epilogue: Epilogue, *, target: Target | None = None) -> TemplateText:
    """The text of the gradient to x from `x` and `g`; the epilogue gets (n, c, h, w) indices."""
    target = target or host_target()
    out = Writer(target.shared)
    (_emit_tiles if problem.tiles else _emit_windows)(out, problem, epilogue, target.lanes(problem.dtype))
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
class _Rows:
    """The rows of one image, padded with -inf at both sides and split by the stride: window columns are contiguous."""

    name: str
    border: str         # one row before it is split; the rows themselves if the stride is 1
    length: int         # of a phase
    pitch: int          # of a row
    lanes: int

    @staticmethod
    def make(out: Writer, o: Pool, lanes: int) -> _Rows:
        step, left = o.stride[1], o.padding[1][0]
        length = round_up(o.q + (o.s - 1) * o.dilation[1] // step, lanes)
        row = max(length * step, left + round_up(o.w, lanes))
        pitch = length * step if step > 1 else row
        name = out.buffer(o.dtype, o.h * pitch + lanes)
        border, size = (out.buffer(o.dtype, row + lanes), row + lanes) if step > 1 else (name, o.h * pitch + lanes)
        with out.loop("q", size):
            out.add(f"{border}[q] = lit_{o.dtype}('-inf')")
        return _Rows(name, border, length, pitch, lanes)

    def columns(self, o: Pool) -> tuple[int, ...]:
        """Where the candidates of each window column start."""
        step, reaches = o.stride[1], [s * o.dilation[1] for s in range(o.s)]
        return tuple(reach % step * self.length + reach // step for reach in reaches)

    def emit_copy(self, out: Writer, o: Pool) -> None:
        """Fills the rows from the image."""
        left, step = o.padding[1][0], o.stride[1]
        with out.loop("row", o.h):
            out.add(f"at = {sum_text(('row', self.pitch) if step == 1 else 0, left)}")
            written = emit_row_copy(out, o.dtype, self.lanes, f"advance({o.x}, image + row * {o.w})", self.border, "at", o.w)
            if written > o.w:
                with out.block(f"for q in range(at + {o.w}, at + {written}):"):
                    out.add(f"{self.border}[q] = lit_{o.dtype}('-inf')")
            if step > 1:
                split = out.micro(f"split_micro({o.dtype!r}, {self.lanes}, {step})")
                out.add(f"{split}({self.border}, advance({self.name}, row * {self.pitch}), {self.length}, {self.length})")


@contextmanager
def _window_rows(out: Writer, o: Pool) -> Iterator[None]:
    """A loop over the taps r of line p whose `row` lies in the image."""
    with out.loop("r", o.r):
        out.add(f"row = {sum_text(('p', o.stride[0]), ('r', o.dilation[0]), -o.padding[0][0])}")
        with out.block(f"if row >= 0 and row < {o.h}:"):
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


def _emit_windows(out: Writer, o: Pool, epilogue: Epilogue, lanes: int) -> None:
    """Any windows: finds which tap wins in each of them, then every pixel collects from the windows that it won."""
    rows, step, left = _Rows.make(out, o, lanes), o.stride[1], o.padding[1][0]
    reaches = [s * o.dilation[1] for s in range(o.s)]
    front, count = round_up(max(reaches) // step, lanes), round_up((o.w - 1 + left) // step + 1, lanes)
    pitch = front + max(count, round_up(o.q, lanes)) + lanes            # of a line of windows: zeros, its cotangent, zeros
    first, winner = out.buffer("int32", o.q), out.buffer("int32", o.p * pitch)
    cotangent, best = out.buffer(o.dtype, o.p * pitch), out.buffer(o.dtype, round_up(o.q, lanes))
    phases, line = out.buffer(o.dtype, step * count), out.buffer(o.dtype, step * count)
    out.zero(o.dtype, cotangent, "0", o.p * pitch)
    with out.loop("q", o.q):                # the first column of each window that lies in the image, or -1
        inside = _first_inside(out, "s", "q", o.stride[1], o.dilation[1], left, o.w, o.s)
        out.add(f"{first}[q] = where_int32({inside}, index_to_int32(s), lit_int32(-1))")
    with _planes(out, o):
        rows.emit_copy(out, o)
        with out.loop("p", o.p):
            out.add(f"at = {sum_text(('p', pitch), front)}")
            emit_row_copy(out, o.dtype, lanes, f"advance({o.g}, pooled + p * {o.q})", cotangent, "at", o.q)
            inside = _first_inside(out, "r", "p", o.stride[0], o.dilation[0], o.padding[0][0], o.h, o.r)
            out.add(f"inside = {inside}", f"start = index_to_int32(r * {o.s})")
            with out.loop("q", o.q):        # a window may lie in the padding as a whole
                out.add(f"{best}[q] = lit_{o.dtype}('-inf')",
                        f"{winner}[at + q] = where_int32(logand_bool(inside, ge_int32({first}[q], lit_int32(0))), add_int32({first}[q], start), lit_int32(-1))")
            with _window_rows(out, o):
                mk = out.micro(f"argmax_micro({o.dtype!r}, {lanes}, {o.q}, columns={rows.columns(o)})")
                out.add(f"{mk}(advance({rows.name}, row * {rows.pitch}), {best}, advance({winner}, at), r * {o.s})")
        with out.loop("h", o.h):
            out.zero(o.dtype, phases, "0", step * count)
            with out.loop("r", o.r):
                out.add(f"above = {sum_text('h', ('r', -o.dilation[0]), o.padding[0][0])}", f"p = above // {o.stride[0]}")
                with out.block(f"if above >= 0 and p * {o.stride[0]} == above and p < {o.p}:"):
                    out.add(f"at = {sum_text(('p', pitch))}")
                    for phase in range(step):
                        taps = tuple(s for s, reach in enumerate(reaches) if reach % step == phase)
                        if taps:
                            columns = tuple(front - reaches[s] // step for s in taps)
                            mk = out.micro(f"claim_micro({o.dtype!r}, {lanes}, {count}, columns={columns}, taps={taps})")
                            out.add(f"{mk}(advance({winner}, at), advance({cotangent}, at), advance({phases}, {phase * count}), r * {o.s})")
            with out.loop("q", count):
                out.add(*(f"{line}[{sum_text(('q', step), phase)}] = {phases}[{sum_text('q', phase * count)}]" for phase in range(step)))
            with out.loop("w", o.w):
                out.add(f"value = {line}[{sum_text('w', left)}]", *epilogue(("n", "channel", "h", "w"), "value"))


def _first_inside(out: Writer, tap: str, window: str, stride: int, dilation: int, lead: int, size: int, taps: int) -> str:
    """Prints the first tap of a window that lies behind the leading padding; the condition that it exists and lies in the image."""
    out.add(f"{tap} = (max({sum_text(lead, (window, -stride))}, 0) + {dilation - 1}) // {dilation}")
    return f"{tap} < {taps} and {sum_text((window, stride), (tap, dilation), -lead)} < {size}"
