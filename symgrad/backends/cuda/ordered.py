"""Kernels whose elements come one after the other: scatters, running sums, inverse permutations. `at` would take their product.

    index_set, index_add, add_along_axis   updates that may meet in one element keep their order: a thread takes all of those
    running_sum, running_product           a block scans a contiguous line, else a thread goes along it
    inverse_permutation                    a thread per element tells its place

Each kernel is followed by one for the elementwise consumers of its group. No atomics: results do not depend on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...base.poly import Atom, Poly
from ...graph.node import Node, new_input
from ...loops import ir
from ...loops.ir import E
from ...schedule.groups import Group, Grouping
from ...schedule.lower import Store, Values, atom_of, domain_indices, flat_index
from ...schedule.views import Strided, contiguous
from .. import serial
from ..text import literal_text
from .launch import Launch
from .nests import BLOCK, print_points
from .printer import WARP, CudaPrinter, loaded, stored

LONG = 64               # elements of a line that a block shares out

Start = Callable[[], CudaPrinter]
Loops = list[tuple[Atom, Any]]


class Ordered:
    """The templates of the CUDA backend. Everything else goes through the loops that `at` describes."""

    def accepts(self, node: Node) -> bool:
        return node.op.name in _PRINTERS and serial.is_serial(node)

    def operands(self, node: Node) -> list[Strided]:
        """The operands that must lie in memory."""
        return [Strided(x, 0, contiguous(x.dims), x.dims) for x in serial.in_memory(node)]

    def print(self, group: Group, grouping: Grouping, start: Start) -> Iterator[Launch]:
        node = group.template
        assert node is not None
        target = node if any(out is node for out in group.stored) else new_input(node._type, f"{node.op.name} of a group")
        yield from _PRINTERS[node.op.name](start, node, Values(group, grouping), target)
        idx = domain_indices(node.dims)
        values = Values(group, grouping, {node: ir.load(target, flat_index(idx, node.dims), node.dtype)})
        effects = [Store(out, flat_index(idx, out.dims), values.value(out, idx)) for out in group.stored if out is not node]
        if effects:
            yield print_points(start, effects, loops_of(idx, node.dims))


def loops_of(idx: Sequence[Any], dims: Sequence[Any]) -> Loops:
    return [(atom_of(k), d) for k, d in zip(idx, dims) if isinstance(k, Poly)]


def _work(loops: Loops) -> Any:
    total: Any = 1
    for _, extent in loops:
        total = total * extent
    return total


# ------------------------------------------------------------------------------------------ scatters
def _scatter(start: Start, node: Node, values: Values, target: Node) -> Iterator[Launch]:
    idx = domain_indices(node.dims)
    yield print_points(start, [Store(target, flat_index(idx, node.dims), values.value(node.inputs[0], idx))], loops_of(idx, node.dims))
    dims = node.inputs[2 if node.op.name == "add_along_axis" else 1].dims
    j = domain_indices(dims)
    inside, place, value = node.op.update(j, *(values.view(x) for x in node.inputs), **node.attrs)
    # updates that differ in a coordinate of what they change never meet
    apart = {k for k in j if isinstance(k, Poly) and any(isinstance(p, Poly) and p == k for p in place)}
    parallel = [(a, d) for (a, d), k in zip(loops_of(j, dims), (k for k in j if isinstance(k, Poly))) if k in apart]
    in_turn = [(a, d) for a, d in loops_of(j, dims) if not any(a is b for b, _ in parallel)]
    printer = start()
    with printer.grid(parallel, guarded=True):
        _in_turn(printer, in_turn, lambda: _update(printer, node, target, inside, place, value))
    yield Launch(printer, [target], _work(parallel), BLOCK)


def _in_turn(printer: CudaPrinter, loops: Loops, body: Callable[[], None]) -> None:
    if not loops:
        body()
        return
    with printer.loop(*loops[0]):
        _in_turn(printer, loops[1:], body)


def _update(printer: CudaPrinter, node: Node, target: Node, inside: E, place: tuple, value: E) -> None:
    with printer.nested(f"if {printer.text(inside)}:", guarded=True):
        element = f"{printer.pointer(target)}[{printer.poly_text(flat_index(place, node.dims))}]"
        new = printer.text(value)
        if node.op.accumulate:
            new = printer.call_text("add", [loaded(element, node.dtype), new], node.dtype)
        printer.add(f"{element} = {stored(new, node.dtype)}")


# -------------------------------------------------------------------------------------- running sums
def _running(start: Start, node: Node, values: Values, target: Node) -> Iterator[Launch]:
    axis, n = node.attrs["axis"], node.dims[node.attrs["axis"]]
    idx = domain_indices(tuple(1 if k == axis else d for k, d in enumerate(node.dims)))
    lines = loops_of(idx, node.dims)
    function = "add" if node.op.operation == "add" else "mul"
    first = literal_text(ir.literal(-0.0 if function == "add" and node.dtype.startswith("float") else int(function == "mul"), node.dtype))
    step = Poly({(Atom("index", "along", n, extent=n),): 1})
    at = (*idx[:axis], n - 1 - step if node.attrs["reverse"] else step, *idx[axis + 1:])
    value, place = values.value(node.inputs[0], at), flat_index(at, node.dims)
    contiguous_line = axis == len(node.dims) - 1 and not (isinstance(n, int) and n < LONG)
    printer = start()
    if not contiguous_line:
        with printer.grid(lines, guarded=True):
            printer.add(f"total = {first}")
            with printer.loop(atom_of(step), n):
                printer.add(f"total = {printer.call_text(function, ['total', printer.text(value)], node.dtype)}")
                printer.store(target, place, "total")
        yield Launch(printer, [target], _work(lines), BLOCK)
        return
    with printer.rows(lines, BLOCK):
        _scan_line(printer, target, value, place, atom_of(step), function, first)
    yield Launch(printer, [target], 0, BLOCK, blocks=_work(lines))


def _scan_line(printer: CudaPrinter, target: Node, value: E, place: Any, step: Atom, function: str, first: str) -> None:
    """A line in pieces as long as the block: each warp scans its part, adds what the warps before it have, and what came before."""
    dtype, n, add = value.dtype, step.extent, printer.add
    join = lambda a, b: printer.call_text(function, [a, b], dtype)
    choose = lambda test, a, b: f"where_{dtype}({test}, {a}, {b})"
    name = printer.index_name(step)
    width = "i64" if isinstance(n, Poly) else "i32"
    add(f"sums = shared_{dtype}({BLOCK // WARP})")
    add(f"carry = {first}")
    with printer.striding("piece", "0", n, str(BLOCK), guarded=True):
        add(f"own = {width}(piece + lane())")
        with printer.nested(f"if own < {printer.poly_text(n)}:", guarded=True):
            add(f"{name} = own")
            inner = printer.scope
            inner.bound |= {step}
            add(f"x = {printer.text(value)}")
        with printer.nested("else:", guarded=True):
            add(f"x = {first}")
        distance = 1
        while distance < WARP:
            add(f"y = shuffle_up_{dtype}(x, {distance})")
            add(f"x = {choose(f'remainder(lane(), {WARP}) >= {distance}', join('y', 'x'), 'x')}")
            distance *= 2
        with printer.nested(f"if remainder(lane(), {WARP}) == {WARP - 1}:", guarded=True):
            add(f"sums[quotient(lane(), {WARP})] = x")
        add("barrier()")
        add(f"ahead = {first}")
        add(f"whole = {first}")
        for warp in range(BLOCK // WARP):
            add(f"part = sums[{warp}]")
            add(f"ahead = {choose(f'quotient(lane(), {WARP}) > {warp}', join('ahead', 'part'), 'ahead')}")
            add(f"whole = {join('whole', 'part')}")
        with printer.nested(f"if own < {printer.poly_text(n)}:", [step], guarded=True):
            add(f"{name} = own")
            add(f"total = {join('carry', join('ahead', 'x'))}")
            printer.store(target, place, "total")
        add(f"carry = {join('carry', 'whole')}")
        add("barrier()")


# -------------------------------------------------------------------------------------- permutations
def _inverse(start: Start, node: Node, values: Values, target: Node) -> Iterator[Launch]:
    axis, places = node.attrs["axis"], node.inputs[0]
    idx = domain_indices(places.dims)
    loops = loops_of(idx, places.dims)
    found = values.value(places, idx)
    printer = start()
    with printer.grid(loops), printer.nested(f"if {printer.text(ir.compare('lt', ir.as_index(found), node.attrs['size']))}:", guarded=True):
        at = flat_index((*idx[:axis], ir.as_index(found), *idx[axis + 1:]), node.dims)
        printer.store(target, at, printer.text(ir.index(idx[axis])))
    yield Launch(printer, [target], _work(loops), BLOCK)


_PRINTERS: dict[str, Callable[[Start, Node, Values, Node], Iterator[Launch]]] = {
    "index_set": _scatter, "index_add": _scatter, "add_along_axis": _scatter, "running_sum": _running, "running_product": _running,
    "inverse_permutation": _inverse}

__all__ = ["Ordered"]
