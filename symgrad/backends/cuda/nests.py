"""Nests mapped to threads: one thread per point, or per result of a reduction. Always possible, and what templates are compared with.

A nest may store at every point and reduce along several sets of loops. Each of these is a kernel of its own, so no thread
waits for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from ...base import poly
from ...base.poly import Atom
from ...loops import ir
from ...schedule.lower import Accumulate, Effect, Finish, Nest, Store
from ..text import CHUNK, literal_text
from .launch import Launch
from .printer import CudaPrinter, fits

BLOCK = 256             # threads

Loops = Sequence[tuple[Atom, Any]]


def print_nest(nest: Nest, start: Any) -> Iterator[Launch]:
    """The kernels of a nest. `start()` gives a printer for each, with what all of them begin with."""
    for effects, reduced in parts(nest):
        printer = start()
        kept = [(a, extent) for a, extent in nest.loops if a not in reduced]
        if reduced:
            print_reduction(printer, effects, kept, [(a, extent) for a, extent in nest.loops if a in reduced])
        else:
            print_points(printer, effects, kept)
        yield Launch(printer, [e.node for e in effects], poly.product(extent for _, extent in kept), BLOCK)


def parts(nest: Nest) -> list[tuple[list[Effect], frozenset[Atom]]]:
    """The effects that share a kernel, with the loops they reduce along: those that only store, then each set of loops."""
    found: dict[frozenset[Atom], list[Effect]] = {}
    for e in nest.effects:
        found.setdefault(frozenset() if isinstance(e, Store) else e.reduced, []).append(e)
    return [(effects, reduced) for reduced, effects in found.items()]


def print_points(printer: CudaPrinter, effects: Sequence[Effect], loops: Loops) -> None:
    """One thread per point. Everything is loaded before anything is stored."""
    with printer.grid(loops):
        values = [printer.text(e.value) for e in effects]
        for e, value in zip(effects, values):
            printer.store(e.node, e.at, value)


def print_reduction(printer: CudaPrinter, effects: Sequence[Effect], kept: Loops, reduced: Loops) -> None:
    """One thread per result."""
    sums = [e for e in effects if isinstance(e, Accumulate)]
    with printer.grid(kept):
        totals = accumulate(printer, sums, reduced)
        for e, total in zip(sums, totals):
            printer.store(e.node, e.at, total)
        for e in effects:
            if isinstance(e, Finish):
                printer.store(e.node, e.at, printer.text(e.value))


def accumulate(printer: CudaPrinter, sums: Sequence[Accumulate], loops: Loops) -> list[str]:
    """The names of the results over all points of the loops, of which this thread visits each.

    Long sums add chunks, so that their error grows with the root of their number.
    """
    totals = [start(printer, e) for e in sums]
    inner, extent = loops[-1]
    with ExitStack() as stack:
        for a, n in loops[:-1]:
            stack.enter_context(printer.loop(a, n))
        if isinstance(extent, int) and extent <= 2 * CHUNK:
            stack.enter_context(printer.loop(inner, extent))
            add_values(printer, sums, totals)
            return totals
        name = printer.index_name(inner)
        stack.enter_context(printer.nested(printer.loop_head(f"c{name}", "0", extent, str(CHUNK))))
        partial = [start(printer, e) for e in sums]
        width = "i32" if fits(extent) else "i64"
        with printer.nested(f"for {name} in range(c{name}, {width}(min(c{name} + {CHUNK}, {printer.poly_text(extent)}))):", [inner]):
            add_values(printer, sums, partial)
        for e, total, part in zip(sums, totals, partial):
            printer.add(f"{total} = {printer.accumulate_text(e.operation, total, part, e.value.dtype)}")
    return totals


def add_values(printer: CudaPrinter, sums: Sequence[Accumulate], totals: Sequence[str]) -> None:
    for e, total in zip(sums, totals):
        printer.add(f"{total} = {printer.accumulate_text(e.operation, total, printer.text(e.value), e.value.dtype)}")


def start(printer: CudaPrinter, e: Accumulate) -> str:
    """The name of a new result, which holds the identity of the operation."""
    name = printer.temporary()
    printer.add(f"{name} = {literal_text(ir.literal(ir.IDENTITY[e.operation](e.value.dtype), e.value.dtype))}")
    return name


__all__ = ["BLOCK", "accumulate", "print_nest"]
