"""Padded copies of an image's channels in scratch, laid out so that every tap reads long vectors.

A plane has rows of one pitch; output (u, v) of a correlation reads position u*pitch + v + offset(tap), so all
positions of many rows form one long vector, of which a few columns between the rows are dropped. Left zeros
double as the right zeros of the row above. A stride splits the padded image into phase planes, one per
remainder of both coordinates: each tap then reads its phase with stride 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import Writer, round_up, sum_text

__all__ = ["Axis", "Planes", "Range", "emit_row_copy"]

Range = tuple[int | str, int | str]         # start, stop


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a correlation: output u reads padded coordinate u*step + reach[tap].

    The padded source starts with `lead` zeros; zeros follow it without end.
    """

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
class Planes:
    """The layout of one image's channels in scratch: phase planes of lines of one pitch."""

    vertical: Axis
    horizontal: Axis
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
    def line_phases(self) -> int:
        """How many phases of lines are held: a 1x1 window reads the first one only."""
        return max((reach % self.vertical.step for reach in self.vertical.reach), default=0) + 1

    @property
    def phases(self) -> int:
        return self.line_phases * self.horizontal.step

    def row_offset(self, tap: int) -> int:
        step, reach = self.vertical.step, self.vertical.reach[tap]
        return reach % step * self.horizontal.step * self.size + reach // step * self.pitch

    def column_offset(self, tap: int) -> int:
        step, reach = self.horizontal.step, self.horizontal.reach[tap]
        return reach % step * self.size + reach // step

    def emit_copy(self, out: Writer, dtype: str, planes: str, source: str, channels: Range, base: str,
                  to: str = "0", first_line: str | int = 0, border: str = "") -> None:
        """Fills planes from those channels of the source; channel 0 is at element `base` there and at `to` here.

        A window starts at line `first_line` of the phases. `border` is what `emit_border` returned.
        """
        high, wide = self.vertical, self.horizontal
        if wide.step > 1 and not border:
            border = self.emit_border(out, dtype)
        with out.loop("channel", channels[1], start=channels[0]), out.loop("phase", self.line_phases):
            sizes = ("channel", self.phases * self.size), ("phase", wide.step * self.size)
            out.add(f"plane = {sum_text(to, *sizes)}")
            with out.loop("line", high.extent):
                out.add(
                    f"row = {sum_text(('line', high.step), (first_line, high.step), 'phase', -high.lead)}",
                    f"at = plane + line * {self.pitch}",
                )
                with out.block(f"if row < 0 or row >= {high.size}:"):
                    out.zero(dtype, planes, "at", self.pitch, wide.step, self.size)
                with out.block("else:"):
                    out.add(
                        f"pixel = {sum_text(base, ('channel', high.size * wide.size), ('row', wide.size))}"
                    )
                    if wide.step == 1:
                        self._emit_row(out, dtype, f"advance({source}, pixel)", planes, "at", self.pitch)
                    else:
                        self._emit_row(out, dtype, f"advance({source}, pixel)", border, "0", 0)
                        split = out.micro(f"split_micro({dtype!r}, {self.lanes}, {wide.step})")
                        out.add(f"{split}({border}, advance({planes}, at), {self.pitch}, {self.size})")
            # what lies behind the last row is read as its right border, and by whole vectors
            end = high.extent * self.pitch
            out.zero(dtype, planes, sum_text("plane", end), self.size - end, wide.step, self.size)

    def emit_border(self, out: Writer, dtype: str) -> str:
        """A buffer for one padded row, its borders filled with zeros."""
        length = round_up(self.pitch, self.lanes) * self.horizontal.step + self.lanes
        border = out.buffer(dtype, max(length, self.horizontal.lead + self.horizontal.size + self.lanes))
        out.zero(dtype, border, "0", length)
        return border

    def _emit_row(self, out: Writer, dtype: str, source: str, to: str, at: str, length: int) -> None:
        """Copies a row to `to[at + lead]`, with zeros around it up to `length` (unless that is zero)."""
        lead = self.horizontal.lead
        if length and lead:
            out.zero(dtype, to, at, lead)
        place = sum_text(*(at, lead) if at != "0" else (lead,))
        written = lead + emit_row_copy(out, dtype, self.lanes, source, to, place, self.horizontal.size)
        if written < length:
            out.zero(dtype, to, sum_text(at, written), length - written)


def emit_row_copy(out: Writer, dtype: str, lanes: int, source: str, to: str, at: str, size: int) -> int:
    """How many elements a copy of `size` contiguous ones to `to[at]` writes: zeros follow the last one."""
    vectors, last = -(-size // lanes), size % lanes
    if vectors <= 32:
        masked = f", last={last}" if last else ""
        copy = out.micro(f"copy_micro({dtype!r}, {lanes}, {vectors}{masked})")
        out.add(f"{copy}({source}, advance({to}, {at}), 1, 0, 0)")
        return vectors * lanes
    copy, rest = out.micro(f"copy_micro({dtype!r}, {lanes}, 1)"), size - lanes
    out.add(f"{copy}({source}, advance({to}, {at}), {size // lanes}, {lanes}, {lanes})")
    if last:                        # the last vector overlaps its neighbour
        out.add(f"{copy}(advance({source}, {rest}), advance({to}, {sum_text(at, rest)}), 1, 0, 0)")
    return size
