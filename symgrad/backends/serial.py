"""Kernels that say where elements go, one after the other.

An op's `at` says where elements come from, which is slow for these:

    index_set, index_add, add_along_axis   a copy of x, then every update; size + updates, not their product
    running_sum, running_product           each element from the one before it; n, not n * n
    rank                                   merge sort; n log n, not n * n
    partition                              counting sort; n, not n * n
    inverse_permutation                    one store per element; n, not n * n

Each takes the elementwise consumers of its group along, in loops of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from ..base import poly
from ..base.poly import Poly
from ..graph.node import Node
from ..loops import ir
from ..ops.sort import before
from ..schedule.groups import Group, Grouping
from ..schedule.lower import Values, atom_of, domain_indices, flat_index
from ..schedule.plan import Scratch
from .text import Printer


def is_serial(node: Node) -> bool:
    """Whether this module has a kernel for the node.

    Writing to slices is left to `at`: there it costs nothing extra.
    """
    return node.op.name in _PRINTERS and (not hasattr(node.op, "update") or len(node.inputs) > 2)


def in_memory(node: Node) -> list[Node]:
    """The operands that the kernel reads at places which depend on data."""
    return list(node.inputs) if node.op.name == "inverse_permutation" else []


def print_serial(printer: Printer, group: Group, grouping: Grouping) -> list[Scratch]:
    """The lines of a group whose template is such a node. Returns the scratch buffers they use."""
    node = group.template
    assert node is not None
    kernel = _Serial(printer, node, Values(group, grouping))
    if any(out is node for out in group.stored):
        kernel.target = printer.pointer(node)
    else:
        kernel.target = kernel.buffer(node.dtype, node._type.size)
    _PRINTERS[node.op.name](kernel)
    consumers = [out for out in group.stored if out is not node]
    if consumers:
        kernel.loops(node.dims, lambda idx: kernel.consume(idx, consumers, group, grouping))
    return kernel.scratch


class _Serial:
    """What the printers of this module share."""

    def __init__(self, printer: Printer, node: Node, values: Values):
        self.printer, self.node, self.values = printer, node, values
        self.scratch: list[Scratch] = []
        self.target = ""

    def buffer(self, dtype: str, elements: Any) -> str:
        """The name of a new scratch buffer."""
        self.scratch.append(Scratch(f"s{len(self.scratch)}", dtype, elements))
        return self.scratch[-1].name

    def loops(self, dims: Sequence[Any], body: Callable[[tuple], None], skip: int | None = None) -> None:
        """Loops over all axes but `skip` around what body(index) prints; the index is 0 there."""
        idx = domain_indices(tuple(1 if k == skip else d for k, d in enumerate(dims)))
        with ExitStack() as stack:
            for k, d in zip(idx, dims):
                if isinstance(k, Poly):
                    stack.enter_context(self.printer.loop(atom_of(k), d))
            body(idx)

    def over(self, name: str, extent: Any, body: Callable[[Any], None]) -> None:
        """A loop over one index around what body(index) prints."""
        k = poly.index(name, extent)
        with self.printer.loop(atom_of(k), extent):
            body(k)

    def element(self, idx: Sequence[Any]) -> str:
        """Text for an element of the result."""
        return f"{self.target}[{self.printer.poly_text(flat_index(idx, self.node.dims))}]"

    def value(self, k: int, idx: Sequence[Any]) -> str:
        """Text for an element of operand k."""
        return self.printer.text(self.values.value(self.node.inputs[k], tuple(idx)))

    def consume(self, idx: tuple, consumers: Sequence[Node], group: Group, grouping: Grouping) -> None:
        own = ir.given(self.element(idx), self.node.dtype, self.printer.scope.bound)
        values = Values(group, grouping, {self.node: own})
        for out in consumers:
            place = self.printer.poly_text(flat_index(idx, out.dims))
            self.printer.add(
                f"{self.printer.pointer(out)}[{place}] = {self.printer.text(values.value(out, idx))}"
            )


# ------------------------------------------------------------------------------------------ scatters
def _print_scatter(k: _Serial) -> None:
    k.loops(k.node.dims, lambda idx: k.printer.add(f"{k.element(idx)} = {k.value(0, idx)}"))
    updates = k.node.inputs[2 if k.node.op.name == "add_along_axis" else 1].dims
    k.loops(updates, lambda idx: _print_update(k, idx))


def _print_update(k: _Serial, idx: tuple) -> None:
    inside, place, value = k.node.op.update(idx, *(k.values.view(x) for x in k.node.inputs), **k.node.attrs)
    with ExitStack() as stack:
        if inside.kind != "lit":
            stack.enter_context(k.printer.nested(f"if {k.printer.text(inside)}:", guarded=True))
        new, element = k.printer.text(value), k.element(place)
        sum_ = k.printer.call_text("add", [element, new], k.node.dtype) if k.node.op.accumulate else new
        k.printer.add(f"{element} = {sum_}")


# -------------------------------------------------------------------------------------- running sums
def _print_running(k: _Serial) -> None:
    axis, dtype = k.node.attrs["axis"], k.node.dtype
    n, function = k.node.dims[axis], "add" if k.node.op.operation == "add" else "mul"
    inner = tuple(1 if j <= axis else d for j, d in enumerate(k.node.dims))
    outer = tuple(d if j < axis else 1 for j, d in enumerate(k.node.dims))
    backward = k.node.attrs["reverse"]

    def line(before_: tuple, step: Any, first: bool) -> None:
        at = n - 1 - step if backward else step

        def one(after: tuple) -> None:
            idx = (*before_[:axis], at, *after[axis + 1 :])
            value = k.value(0, idx)
            if not first:
                previous = k.element((*before_[:axis], at + 1 if backward else at - 1, *after[axis + 1 :]))
                value = k.printer.call_text(function, [previous, value], dtype)
            k.printer.add(f"{k.element(idx)} = {value}")

        k.loops(inner, one)

    def axis_loop(before_: tuple) -> None:
        with ExitStack() as stack:
            if not isinstance(n, int):
                stack.enter_context(k.printer.nested(f"if {k.printer.poly_text(n)} > 0:", guarded=True))
            elif n == 0:
                return
            line(before_, 0, True)
            k.over("step", n - 1, lambda step: line(before_, step + 1, False))

    k.loops(outer, axis_loop)


# ------------------------------------------------------------------------------------------- sorting
FIRST_RUN = 16  # elements sorted by counting before runs are merged


def _print_rank(k: _Serial) -> None:
    """Merge sort, bottom up, of (element, index) pairs; then each index is told its place.

    The first runs are sorted by counting who stands before whom, which has no branches.
    """
    axis, x = k.node.attrs["axis"], k.node.inputs[0]
    n = x.dims[axis]
    keys, order = k.buffer(x.dtype, 2 * n + 1), k.buffer("int64", 2 * n + 1)
    add, size = k.printer.add, k.printer.poly_text(n)

    def line(idx: tuple) -> None:
        def load(j: Any) -> None:
            add(f"{keys}[{k.printer.poly_text(n + j)}] = {k.value(0, (*idx[:axis], j, *idx[axis + 1 :]))}")

        k.over("place", n, load)
        with k.printer.nested(f"for left in range(0, {size}, {FIRST_RUN}):", guarded=True):
            _print_first_run(k, keys, order, size, x.dtype)
        for text in ("source = 0", f"other = {size}", f"width = {FIRST_RUN}"):
            add(text)
        with k.printer.nested(f"while width < {size}:", guarded=True):
            with k.printer.nested(f"for left in range(0, {size}, 2 * width):", guarded=True):
                _print_merge(k, keys, order, size, x.dtype)
            for text in ("swapped = source", "source = other", "other = swapped", "width = 2 * width"):
                add(text)

        def tell(j: Any) -> None:
            at = k.printer.poly_text(j)
            add(f"found = {order}[source + {at}]")
            place = ir.as_index(ir.given("found", "int64", k.printer.scope.bound))
            add(f"{k.element((*idx[:axis], place, *idx[axis + 1 :]))} = {at}")

        k.over("place", n, tell)

    k.loops(k.node.dims, line, skip=axis)


def _print_first_run(k: _Serial, keys: str, order: str, size: str, dtype: str) -> None:
    """Up to FIRST_RUN elements from `left` on, sorted from the second half of the buffers into the first."""
    add, descending = k.printer.add, k.node.attrs["descending"]
    add(f"end = min(left + {FIRST_RUN}, {size})")
    with k.printer.nested("for i in range(left, end):", guarded=True):
        add(f"a = {keys}[{size} + i]")
        add("place = left")
        for span in ("left, i", "i + 1, end"):
            with k.printer.nested(f"for j in range({span}):", guarded=True):
                add(f"b = {keys}[{size} + j]")
                mine, other = (ir.given(v, dtype, k.printer.scope.bound) for v in "ab")
                # equal elements keep their order
                first = (
                    ~before(mine, other, descending) if span == "left, i" else before(other, mine, descending)
                )
                add(f"place = place + where_int64({k.printer.text(first)}, lit_int64(1), lit_int64(0))")
        add(f"{keys}[place] = a")
        add(f"{order}[place] = i")


def _print_merge(k: _Serial, keys: str, order: str, size: str, dtype: str) -> None:
    """Two neighbouring runs of `width`, from the half of the buffers at `source` to that at `other`."""
    add = k.printer.add
    for text in (
        f"middle = min(left + width, {size})",
        f"end = min(left + 2 * width, {size})",
        "i = left",
        "j = middle",
    ):
        add(text)
    with k.printer.nested("for p in range(left, end):", guarded=True):
        add(f"a = {keys}[source + i]")  # one element behind the buffer may be read, and is not used
        add(f"b = {keys}[source + j]")
        bound = k.printer.scope.bound
        first = before(ir.given("b", dtype, bound), ir.given("a", dtype, bound), k.node.attrs["descending"])
        add(f"right = logor_bool(i >= middle, logand_bool(j < end, {k.printer.text(first)}))")
        add(f"{keys}[other + p] = where_{dtype}(right, b, a)")
        add(f"{order}[other + p] = where_int64(right, {order}[source + j], {order}[source + i])")
        add("step = where_int64(right, lit_int64(1), lit_int64(0))")
        add("i = i + 1 - step")
        add("j = j + step")


def _print_partition(k: _Serial) -> None:
    """Counting sort: how many there are of each label, where each label starts, then the places in order."""
    labels, (n,) = k.node.attrs["labels"], k.node.dims
    label = lambda j: k.printer.text(k.node.op.label(k.values.value(k.node.inputs[0], (j,)), labels))
    if labels == 2:
        return _print_two_labels(k, n, label)
    following, add = k.buffer("int64", labels + 1), k.printer.add        # the next free place of each label
    with k.printer.nested(f"for c in range({labels + 1}):", guarded=True):
        add(f"{following}[c] = lit_int64(0)")

    def tally(j: Any) -> None:
        add(f"c = {label(j)} + 1")
        add(f"{following}[c] = {following}[c] + 1")

    def place(j: Any) -> None:
        add(f"c = {label(j)}")
        add(f"place = {following}[c]")
        add(f"{k.element((j,))} = place")
        add(f"{following}[c] = place + 1")

    k.over("tally", n, tally)
    with k.printer.nested(f"for c in range({labels}):", guarded=True):
        add(f"{following}[c + 1] = {following}[c + 1] + {following}[c]")
    k.over("place", n, place)


def _print_two_labels(k: _Serial, n: Any, label: Callable[[Any], str]) -> None:
    """The same with counters in registers."""
    add = k.printer.add

    def place(j: Any) -> None:
        add(f"c = {label(j)}")
        add(f"{k.element((j,))} = where_int64(c > 0, high, low)")
        add("high = high + c")
        add("low = low + 1 - c")

    add("ones = lit_int64(0)")
    k.over("tally", n, lambda j: add(f"ones = ones + {label(j)}"))
    add(f"high = {k.printer.poly_text(n)} - ones")
    add("low = lit_int64(0)")
    k.over("place", n, place)


def _print_inverse(k: _Serial) -> None:
    axis, size = k.node.attrs["axis"], k.node.attrs["size"]
    places = k.node.inputs[0]
    a = poly.the_atom(size)
    # a counted size has memory up to its bound: what lies behind is written there, which is cheaper than asking
    has_room = places.ndim == 1 and (size == places.dims[0] or (a is not None and a.kind == "counted" and a.args[1] == places.dims[0]))

    def line(idx: tuple) -> None:
        def store(j: Any) -> None:
            k.printer.add(f"found = {k.value(0, (*idx[:axis], j, *idx[axis + 1 :]))}")
            place = ir.as_index(ir.given("found", "int64", k.printer.scope.bound))
            with nullcontext() if has_room else k.printer.nested(f"if found < {k.printer.poly_text(size)}:", guarded=True):
                k.printer.add(
                    f"{k.element((*idx[:axis], place, *idx[axis + 1 :]))} = {k.printer.poly_text(j)}"
                )

        k.over("place", places.dims[axis], store)

    k.loops(places.dims, line, skip=axis)


_PRINTERS: dict[str, Callable[[_Serial], None]] = {
    "index_set": _print_scatter,
    "index_add": _print_scatter,
    "add_along_axis": _print_scatter,
    "running_sum": _print_running,
    "running_product": _print_running,
    "rank": _print_rank,
    "partition": _print_partition,
    "inverse_permutation": _print_inverse,
}

__all__ = ["in_memory", "is_serial", "print_serial"]
