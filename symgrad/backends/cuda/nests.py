"""Nests mapped to threads: one thread per point or result, or one block per row of them where its threads can share the work.

A nest may store at every point and reduce along several sets of loops. Each of these is a kernel of its own, so no block waits for
another. What a whole row needs, such as the maximum and the sum of a softmax, its block computes together, once. A reduction with
more elements than results are threads is done in two stages: parts of fixed sizes first, so the result does not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from ...base import poly
from ...base.poly import Atom, Poly
from ...graph.node import Node, new_input
from ...graph.types import Type
from ...loops import ir
from ...loops.ir import E
from ...schedule.lower import Accumulate, Effect, Finish, Nest, Store, flat_index, replace_indices, subexpressions
from ..text import CHUNK
from . import blas, contract
from .launch import Launch
from .printer import COMMUTATIVE, CudaPrinter, fits

BLOCK = 256             # threads of a block whose threads work alone
SHORT = 32              # elements that a thread adds up by itself
MANY = 1 << 14          # results that keep a device busy with a thread each
PART = 4096             # elements that a block adds up in the first of two stages
PARTS = 512             # blocks of the first stage, about

Loops = Sequence[tuple[Atom, Any]]
Start = Callable[[], CudaPrinter]


def print_nest(nest: Nest, start: Start, library: bool = False) -> Iterator[Any]:
    """The kernels of a nest. `start()` gives a printer for each, with what all of them begin with. library: matrix products may be cuBLAS's."""
    for effects, reduced in parts(nest):
        kept = [(a, extent) for a, extent in nest.loops if a not in reduced]
        if reduced:
            yield from print_reduction(start, effects, kept, [(a, extent) for a, extent in nest.loops if a in reduced], nest.loops[-1][0] in reduced)
        elif (contraction := contract.find(effects, kept)) is not None:
            done = blas.by_library(effects, kept, contraction) if library else None
            if done is None:
                yield from contract.print_contraction(start, effects, kept, contraction)
            else:
                yield done[0]
                if done[1]:
                    yield print_points(start, done[1], kept)
        else:
            yield print_points(start, effects, kept)


def parts(nest: Nest) -> list[tuple[list[Effect], frozenset[Atom]]]:
    """The effects that share a kernel, with the loops they reduce along: those that only store, then each set of loops."""
    found: dict[frozenset[Atom], list[Effect]] = {}
    for e in nest.effects:
        found.setdefault(frozenset() if isinstance(e, Store) else e.reduced, []).append(e)
    return [(effects, reduced) for reduced, effects in found.items()]


# ---------------------------------------------------------------------------------------------------- points
def print_points(start: Start, effects: Sequence[Effect], loops: Loops) -> Launch:
    """One thread per point; or a block per row, if the points of a row share long sums. Everything is loaded before anything is stored."""
    printer, stored = start(), [e.node for e in effects]
    shared = row_loops(effects, loops)
    if shared is not None:
        outer, inner = [(a, n) for a, n in loops if a in shared], [(a, n) for a, n in loops if a not in shared]
        threads = block_size(poly.product(n for _, n in inner) if inner else PART)
        with printer.rows(outer, threads), printer.lanes(inner):
            store_all(printer, effects)
        return Launch(printer, stored, 0, threads, blocks=poly.product(n for _, n in outer))
    with printer.grid(loops):
        store_all(printer, effects)
    return Launch(printer, stored, poly.product(n for _, n in loops), BLOCK)


def store_all(printer: CudaPrinter, effects: Sequence[Effect]) -> None:
    # sums of one term are stored like anything else; what is made of them comes after
    for some in ([e for e in effects if not isinstance(e, Finish)], [e for e in effects if isinstance(e, Finish)]):
        values = [printer.text(e.value) for e in some]
        for e, value in zip(some, values):
            printer.store(e.node, e.at, value)


def row_loops(effects: Sequence[Effect], loops: Loops) -> frozenset[Atom] | None:
    """The loops that long sums inside the values depend on; None where one thread per point does no work twice."""
    found = [fold for e in effects for fold in subexpressions(e.value) if fold.kind == "fold" and fold.args[0] in COMMUTATIVE and is_long(fold)]
    if not found:
        return None
    shared = frozenset().union(*(fold.free for fold in found)) & {a for a, _ in loops}
    points = poly.product(n for _, n in loops)
    few = isinstance(points, int) and points < MANY and any(fold_size(fold) >= 8 * SHORT for fold in found if isinstance(fold_size(fold), int))
    return shared if len(shared) < len(loops) or few else None


def fold_size(fold: E) -> Any:
    return poly.product(next(iter(k.terms))[0].extent for k in fold.args[1])


def is_long(fold: E) -> bool:
    size = fold_size(fold)
    return isinstance(size, Poly) or size > SHORT


def block_size(elements: Any) -> int:
    """Threads of a block that works on so many elements."""
    return 128 if isinstance(elements, Poly) else 32 if elements <= 256 else 128 if elements <= 1024 else 256


# ------------------------------------------------------------------------------------------------ reductions
def print_reduction(start: Start, effects: Sequence[Effect], kept: Loops, reduced: Loops, contiguous: bool) -> Iterator[Launch]:
    """The kernels of reductions along the same loops; `contiguous`: neighbours in memory are added to each other."""
    results, elements = poly.product(n for _, n in kept), poly.product(n for _, n in reduced)
    count = stages(results, elements, contiguous)
    if count > 1:
        effects, reduced = yield from print_stage(start, effects, kept, reduced, count, contiguous)
        results, elements, contiguous = results, count, True
    yield together(start, effects, kept, reduced) if is_shared(results, elements, contiguous) else alone(start, effects, kept, reduced)


def is_shared(results: Any, elements: Any, contiguous: bool) -> bool:
    """Whether a block adds up one result, rather than a thread."""
    if isinstance(elements, int) and elements <= SHORT:
        return False
    return contiguous or (isinstance(results, int) and results < PARTS)


def stages(results: Any, elements: Any, contiguous: bool) -> int:
    """Into how many parts the elements of every result are divided; 1: none."""
    if not isinstance(results, int) or not isinstance(elements, int) or results == 0:
        return 1
    share = PART if contiguous else 2 * SHORT
    enough = PARTS if contiguous else MANY
    return max(1, min(elements // share, enough // results))


def print_stage(start: Start, effects: Sequence[Effect], kept: Loops, reduced: Loops, count: int, contiguous: bool) -> Any:
    """The first of two stages: parts of the results. Returns what the second one adds up, and along which loop."""
    flat = kept_index(kept)
    results, elements = poly.product(n for _, n in kept), poly.product(n for _, n in reduced)
    part, place = poly.index("part", count), poly.index("place", -(-elements // count))
    at = place + part * atom(place).extent
    inside = ir.compare("lt", at, elements)
    changes = dict(zip((a for a, _ in reduced), split(at, [n for _, n in reduced])))
    sums, later = [], []
    for e in effects:
        if isinstance(e, Accumulate):
            buffer = partial(e, count, results)
            identity = ir.literal(ir.IDENTITY[e.operation](e.value.dtype), e.value.dtype)
            value = ir.cond(inside, replace_indices(e.value, changes), identity)
            sums.append(Accumulate(buffer, part * results + flat, value, e.operation, frozenset({atom(place)})))
            later.append(Accumulate(e.node, e.at, ir.load(buffer, part * results + flat, buffer.dtype), e.operation, frozenset({atom(part)})))
        else:
            later.append(e)
    each = [(atom(part), count), *kept]
    yield (together if contiguous else alone)(start, sums, each, [(atom(place), atom(place).extent)])
    return later, [(atom(part), count)]


def partial(e: Accumulate, count: int, results: int) -> Node:
    """Memory for the parts of every result, from one stage to the next."""
    return new_input(Type(e.value.dtype, (count, results)), f"parts of {e.node.op.name}")


def kept_index(kept: Loops) -> Any:
    return flat_index([Poly({(a,): 1}) for a, _ in kept], [n for _, n in kept])


def atom(k: Poly) -> Atom:
    return next(iter(k.terms))[0]


def split(flat: Any, extents: Sequence[Any]) -> list[Any]:
    """The indices of nested loops from one that runs over all of them."""
    found: list[Any] = []
    for k, extent in reversed(list(enumerate(extents))):
        found.append(flat if k == 0 else poly.mod(flat, extent))
        flat = poly.floordiv(flat, extent)
    return found[::-1]


def together(start: Start, effects: Sequence[Effect], kept: Loops, reduced: Loops) -> Launch:
    """One block per result: its threads take turns along the elements, then add what they have in a fixed order."""
    printer = start()
    sums = [e for e in effects if isinstance(e, Accumulate)]
    threads = block_size(poly.product(n for _, n in reduced))
    with printer.rows(kept, threads):
        totals = [identity(printer, e) for e in sums]
        with printer.lanes(reduced):
            add_values(printer, sums, totals)
        for e, total in zip(sums, totals):
            printer.combine(total, e.operation, e.value.dtype)
        with printer.nested("if lane() == 0:", guarded=True):
            finish(printer, effects, totals)
    return Launch(printer, [e.node for e in effects], 0, threads, blocks=poly.product(n for _, n in kept))


def alone(start: Start, effects: Sequence[Effect], kept: Loops, reduced: Loops) -> Launch:
    """One thread per result."""
    printer = start()
    sums = [e for e in effects if isinstance(e, Accumulate)]
    # what is computed from the results must not move before them
    with printer.grid(kept, guarded=True):
        finish(printer, effects, accumulate(printer, sums, reduced))
    return Launch(printer, [e.node for e in effects], poly.product(n for _, n in kept), BLOCK)


def finish(printer: CudaPrinter, effects: Sequence[Effect], totals: Sequence[str]) -> None:
    """Store the results, and what is computed from them."""
    for e, total in zip([e for e in effects if isinstance(e, Accumulate)], totals):
        printer.store(e.node, e.at, total)
    for e in effects:
        if isinstance(e, Finish):
            printer.store(e.node, e.at, printer.text(e.value))


def accumulate(printer: CudaPrinter, sums: Sequence[Accumulate], loops: Loops) -> list[str]:
    """The names of the results over all points of the loops, of which this thread visits each.

    Long sums add chunks, so that their error grows with the root of their number.
    """
    totals = [identity(printer, e) for e in sums]
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
        partials = [identity(printer, e) for e in sums]
        width = "i32" if fits(extent) else "i64"
        with printer.nested(f"for {name} in range(c{name}, {width}(min(c{name} + {CHUNK}, {printer.poly_text(extent)}))):", [inner]):
            add_values(printer, sums, partials)
        for e, total, part in zip(sums, totals, partials):
            printer.add(f"{total} = {printer.accumulate_text(e.operation, total, part, e.value.dtype)}")
    return totals


def add_values(printer: CudaPrinter, sums: Sequence[Accumulate], totals: Sequence[str]) -> None:
    for e, total in zip(sums, totals):
        printer.add(f"{total} = {printer.accumulate_text(e.operation, total, printer.text(e.value), e.value.dtype)}")


def identity(printer: CudaPrinter, e: Accumulate) -> str:
    """The name of a new result, which holds the identity of the operation."""
    return printer.identity(e.operation, e.value.dtype)


__all__ = ["BLOCK", "print_nest"]
