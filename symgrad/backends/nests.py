"""Prints a nest: the loops of one group, with stores and reductions at every point."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ..base.poly import Atom
from ..loops import ir
from ..schedule.lower import Accumulate, Finish, Nest, Store
from ..schedule.rows import Rows
from .text import CHUNK, Printer, literal_text


def print_nest(printer: Printer, nest: Nest | Rows) -> None:
    """The lines of the nest. Reductions along the innermost loops live in registers, others accumulate in their buffer."""
    if isinstance(nest, Rows):
        with printer.loop(*nest.loop):
            for stage in nest.stages:
                print_nest(printer, stage)
        return
    plan = [(e, first_inner_reduced(e, nest.loops)) for e in nest.effects if isinstance(e, Accumulate)]
    for e, depth in plan:
        if needs_memory(e, nest.loops, depth):
            _initialise(printer, e, nest.loops)
    _loops(printer, nest, plan, {})
    last = [e for e in nest.effects if isinstance(e, Finish) and _finish_depth(e, nest.loops) is None]
    for reduced, together in itertools.groupby(last, key=lambda e: e.reduced):
        with ExitStack() as stack:
            for a, extent in nest.loops:
                if a not in reduced:
                    stack.enter_context(printer.loop(a, extent))
            for e in together:
                _store(printer, e)


def _finish_depth(e: Finish, loops: Sequence[tuple[Atom, Any]]) -> int | None:
    """The depth at which the results that e reads are complete: right behind their loops, or None, behind the whole nest."""
    depth = first_inner_reduced(e, loops)
    return None if needs_memory(e, loops, depth) or depth == len(loops) else depth


def _store(printer: Printer, e: Store | Finish) -> None:
    printer.store(e.node, e.at, printer.text(e.value))


def first_inner_reduced(e: Accumulate | Finish, loops: Sequence[tuple[Atom, Any]]) -> int:
    """The depth from which on every loop is reduced."""
    depth = len(loops)
    while depth and loops[depth - 1][0] in e.reduced:
        depth -= 1
    return depth


def needs_memory(e: Accumulate | Finish, loops: Sequence[tuple[Atom, Any]], depth: int) -> bool:
    return any(a in e.reduced for a, _ in loops[:depth])


def _initialise(printer: Printer, e: Accumulate, loops: Sequence[tuple[Atom, Any]]) -> None:
    identity = literal_text(ir.literal(ir.IDENTITY[e.operation](e.value.dtype), e.value.dtype))
    with ExitStack() as stack:
        for a, extent in loops:
            if a not in e.reduced:
                stack.enter_context(printer.loop(a, extent))
        printer.add(f"{printer.pointer(e.node)}[{printer.poly_text(e.at)}] = {identity}")


def _loops(printer: Printer, nest: Nest, plan: list[tuple[Accumulate, int]], registers: dict[int, str], depth: int = 0) -> None:
    loops = nest.loops
    starting = [e for e, d in plan if d == depth and depth < len(loops)]
    for e in starting:
        registers[id(e)] = printer.temporary()
        printer.add(f"{registers[id(e)]} = {literal_text(ir.literal(ir.IDENTITY[e.operation](e.value.dtype), e.value.dtype))}")
    if depth == len(loops):
        _point(printer, nest, plan, registers)
        return
    a, extent = loops[depth]
    if depth == len(loops) - 1 and starting and _is_long(extent):
        _chunked(printer, nest, plan, registers, a, extent)
    else:
        with printer.loop(a, extent):
            _loops(printer, nest, plan, registers, depth + 1)
    for e in starting:
        _finish(printer, e, registers[id(e)], needs_memory(e, loops, depth))
    for f in nest.effects:
        if isinstance(f, Finish) and _finish_depth(f, loops) == depth:
            _store(printer, f)


def _is_long(extent: Any) -> bool:
    return not isinstance(extent, int) or extent > 2 * CHUNK


def _chunked(printer: Printer, nest: Nest, plan: list[tuple[Accumulate, int]], registers: dict[int, str], a: Atom, extent: Any) -> None:
    """The innermost loop in chunks: each has its own partial results, so that long float sums stay accurate."""
    whole = dict(registers)
    start, stop = f"c{printer.index_name(a)}", printer.poly_text(extent)
    with printer.nested(f"for {start} in range(0, {stop}, {CHUNK}):"):
        running = [e for e, _ in plan if id(e) in whole]
        for e in running:
            registers[id(e)] = printer.temporary()
            printer.add(f"{registers[id(e)]} = {literal_text(ir.literal(ir.IDENTITY[e.operation](e.value.dtype), e.value.dtype))}")
        head = f"for {printer.index_name(a)} in range({start}, min({start} + {CHUNK}, {stop})):"
        with printer.nested(head, [a]):
            _loops(printer, nest, plan, registers, len(nest.loops))
        for e in running:
            total = whole[id(e)]
            printer.add(f"{total} = {printer.accumulate_text(e.operation, total, registers[id(e)], e.value.dtype)}")
    registers.update(whole)


def _point(printer: Printer, nest: Nest, plan: list[tuple[Accumulate, int]], registers: dict[int, str]) -> None:
    """What happens at one point of the domain."""
    depth = len(nest.loops)
    for e in nest.effects:
        if isinstance(e, Store):
            _store(printer, e)
        elif isinstance(e, Accumulate) and id(e) in registers:
            name = registers[id(e)]
            printer.add(f"{name} = {printer.accumulate_text(e.operation, name, printer.text(e.value), e.value.dtype)}")
        elif isinstance(e, Accumulate):
            _finish(printer, e, printer.text(e.value), memory=depth > 0)


def _finish(printer: Printer, e: Accumulate, value: str, memory: bool) -> None:
    target = f"{printer.pointer(e.node)}[{printer.poly_text(e.at)}]"
    printer.add(f"{target} = {printer.accumulate_text(e.operation, target, value, e.value.dtype) if memory else value}")


__all__ = ["print_nest"]
