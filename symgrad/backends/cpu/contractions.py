"""Which ops the CPU has templates for, and how a node becomes a template's problem.

Each entry says which operands must lie in memory, in what layout, and which generator prints the kernel. What it declines is
lowered by the op's `at` like everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...base import poly
from ...base.config import config
from ...base.dtypes import FLOATS
from ...base.poly import Poly
from ...graph.node import Node
from ...graph.types import is_one
from ...loops import ir
from ...schedule.groups import Group, Grouping
from ...schedule.lower import Nest, Values, atom_of, flat_index
from ...schedule.plan import Access, Scratch, Sharing
from ...schedule.rows import Rows
from ...schedule.views import Strided, contiguous, strided
from .. import serial
from ..generic import Shared
from ..text import Printer, Scope
from . import sharing
from .templates import Stage, Target, TemplateText, host_target
from .templates.conv import Conv
from .templates.conv_weight import conv_grad_weight
from .templates.gemm import Gemm, Operand, gemm, panel_width
from .templates.pool import Pool, max_pool_backward, max_pool_forward
from .templates.winograd import choose_conv


class Templates:
    """The contractions of the CPU backend."""

    def accepts(self, node: Node) -> bool:
        if serial.is_serial(node):
            return True
        entry = ENTRIES.get(node.op.name)
        return entry is not None and node.dtype in FLOATS and entry.accepts(node)

    def operands(self, node: Node) -> list[Strided]:
        """The operands as the template reads them; the base of each must lie in memory."""
        if serial.is_serial(node):
            return [in_memory(x) for x in serial.in_memory(node)]
        entry = ENTRIES[node.op.name]
        return [entry.layout(node, node.inputs[k]) for k in entry.reads or range(len(node.inputs))]

    def share(self, nests: Sequence[Nest | Rows]) -> Shared | None:
        """The nests as threads share them, if they do."""
        return sharing.share(nests)

    def print(self, group: Group, grouping: Grouping, printer: Printer) -> tuple[tuple[str, ...], list[Scratch], Sharing | None]:
        """The template's text into the printer, with the group's elementwise results in its epilogue."""
        node = group.template
        assert node is not None
        if serial.is_serial(node):
            return (), serial.print_serial(printer, group, grouping), None
        hole = Epilogue(group, grouping, printer)
        entry, operands = ENTRIES[node.op.name], self.operands(node)
        work = sharing.FLOP * entry.flops(node) + sharing.BYTE * (node._type.nbytes + sum((v.base._type.nbytes for v in operands), 0))
        target = replace(host_target(), shared=sharing.is_worth_sharing(work))
        text = entry.generate(node, operands, printer, hole, target)
        printer.scope.lines.extend(line.removeprefix("    ") for line in text.body)
        scratch = [Scratch(f"s{k}", dtype, size, k in text.common) for k, (dtype, size) in enumerate(text.scratch)]
        shared = Sharing(tuple(number_of_parts(stage, printer) for stage in text.stages), text.pieces, work)
        return text.header, scratch, shared if text.stages else None

    def flops(self, node: Node) -> Any:
        return 0 if serial.is_serial(node) else ENTRIES[node.op.name].flops(node)


def number_of_parts(stage: Stage, printer: Printer) -> Any:
    """The parts of a stage of a template, for sizes that may be named in the kernel."""
    size = lambda x: printer.named[x] if isinstance(x, str) else x
    return poly.product(poly.ceildiv(size(x), step) for x, step in stage)


class Epilogue:
    """Prints what happens to one finished element: the elementwise nodes of the group, inlined, and their stores."""

    def __init__(self, group: Group, grouping: Grouping, printer: Printer):
        self.group, self.grouping, self.printer = group, grouping, printer
        self.accesses: set[tuple[Access, ...]] = set()
        # how the template's indices become those of the node, when they are not the same
        self.extents: tuple = group.template.dims if group.template is not None else ()
        self.unfold: Callable[[Sequence[Any]], Sequence[Any]] = lambda idx: idx

    def __call__(self, indices: tuple[str, ...], value: str) -> list[str]:
        node, printer = self.group.template, self.printer
        assert node is not None
        names = [poly.index(f"at {name}", d) if not is_one(d) else 0 for name, d in zip(indices, self.extents)]
        scope = Scope(None, frozenset(atom_of(k) for k in names if isinstance(k, Poly)))
        for name, k in zip(indices, names):
            if isinstance(k, Poly):
                printer.index_names[atom_of(k)] = name if name.isidentifier() else f"({name})"
        idx = tuple(self.unfold(names))
        values = Values(self.group, self.grouping, {node: ir.given(value, node.dtype, scope.bound)})
        outer, printer.scope = printer.scope, scope
        before = len(printer.accesses)
        for out in self.group.stored:
            printer.store(out, flat_index(idx, out.dims), printer.text(values.value(out, idx)))
        printer.scope = outer
        own = tuple(printer.accesses[before:])
        if own in self.accesses:            # printed again for another part of the result: nothing that was not said
            del printer.accesses[before:]
        self.accesses.add(own)
        return scope.lines


@dataclass(frozen=True)
class Entry:
    """What the backend knows about one contraction. `reads`: the inputs the template reads, all of them unless told."""

    accepts: Callable[[Node], bool]
    layout: Callable[[Node, Node], Strided]
    generate: Callable[..., TemplateText]
    flops: Callable[[Node], Any] = lambda node: 0
    reads: tuple[int, ...] = ()


def in_memory(x: Node) -> Strided:
    """The operand computed into a buffer of its own."""
    return Strided(x, 0, contiguous(x.dims), x.dims)


def dense(node: Node, x: Node) -> Strided:
    """The operand as one contiguous block from the start of its base, copied there if need be."""
    view = strided(x)
    return view if view is not None and view.is_contiguous and is_zero(view.offset) else in_memory(x)


def is_zero(value: Any) -> bool:
    return isinstance(value, int) and value == 0


# ------------------------------------------------------------------------------------------------- matmul
def matrix(node: Node, x: Node) -> Strided:
    """The operand by strides if its batch axes are one axis, else copied."""
    view = strided(x)
    if view is None or batch_stride(view.dims, view.strides) is None:
        return in_memory(x)
    return view


def batch_stride(dims: Sequence[Any], strides: Sequence[Any]) -> Any:
    """The stride of the batch axes taken as one; None when they are not evenly spaced."""
    axes = [(d, s) for d, s in zip(dims[:-2], strides[:-2]) if not is_one(d)]
    for (_, outer), (size, inner) in zip(axes, axes[1:]):
        if outer != inner * size:
            return None
    return axes[-1][1] if axes else 0


def accepts_matmul(node: Node) -> bool:
    """Batch axes are those of the result, or all of size 1."""
    batch = [d for d in node.dims[:-2] if not is_one(d)]
    return all(not own or own == batch for own in ([d for d in x.dims[:-2] if not is_one(d)] for x in node.inputs))


def generate_matmul(node: Node, operands: list[Strided], printer: Printer, hole: Epilogue, target: Target) -> TemplateText:
    a = operands[0]
    name = Names(printer)
    batch = poly.product(node.dims[:-2])
    problem = Gemm(node.dtype, name(batch), name(node.dims[-2]), name(node.dims[-1]), name(a.dims[-1]),
                   *(Operand(printer.pointer(v.base), (name(batch_stride(v.dims, v.strides)), name(v.strides[-2]), name(v.strides[-1])), name(v.offset))
                     for v in operands))
    hole.extents = (batch, *node.dims[-2:])
    hole.unfold = lambda idx: (*split_batch(idx[0], node.dims[:-2]), *idx[1:])
    return gemm(problem, hole, target=target)


def accepts_panels(node: Node) -> bool:
    """Panels as wide as the tile that is best here."""
    x, panels = node.inputs
    static = all(a._type.is_static for a in (x, panels, node))
    return static and panels.dims[2] == panel_width(node.dtype, *x.dims, node.dims[1], host_target())


def matrix_or_panels(node: Node, x: Node) -> Strided:
    return dense(node, x) if x is node.inputs[1] else matrix(node, x)


def generate_panels(node: Node, operands: list[Strided], printer: Printer, hole: Epilogue, target: Target) -> TemplateText:
    a, b = operands
    name = Names(printer)
    count, k, width = b.dims
    x = Operand(printer.pointer(a.base), (0, name(a.strides[0]), name(a.strides[1])), name(a.offset))
    w = Operand(printer.pointer(b.base), (0, width, 1), name(b.offset))
    hole.extents = (1, *node.dims)
    hole.unfold = lambda idx: idx[1:]
    return gemm(Gemm(node.dtype, 1, *node.dims, k, x, w, width), hole, target=target)


def split_batch(flat: Any, dims: Sequence[Any]) -> list[Any]:
    """The batch indices from the flat one."""
    out: list[Any] = []
    for k in range(len(dims) - 1, -1, -1):
        last = all(is_one(d) for d in dims[:k])
        out.append(0 if is_one(dims[k]) else flat if last else poly.mod(flat, dims[k]))
        flat = flat if is_one(dims[k]) else poly.floordiv(flat, dims[k])
    return out[::-1]


class Names:
    """Sizes as template numbers: ints stay, polynomials become named variables of the kernel."""

    def __init__(self, printer: Printer):
        self.printer = printer
        self.known: dict[Any, str] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Poly):
            return value
        if value not in self.known:
            text = self.printer.poly_text(value)
            if not text.isidentifier():
                name = f"v{len(self.known)}"
                self.printer.add(f"{name} = {text}")
                text = name
            self.known[value] = text
            self.printer.named[text] = value
        return self.known[value]


def matmul_flops(node: Node) -> Any:
    return 2 * poly.product(node.dims) * node.inputs[0].dims[-1]


# ------------------------------------------------------------------------------------------- convolutions
def accepts_conv(node: Node) -> bool:
    """One or two spatial axes, all sizes known but the number of images."""
    return node.ndim in (3, 4) and all(known_but_first(x.dims) for x in (node, *node.inputs)) and filters_of(node)._type.is_static


def known_but_first(dims: Sequence[Any]) -> bool:
    return all(isinstance(d, int) for d in dims[1:])


def filters_of(node: Node) -> Node:
    return node if node.op.name == "convolution_weight_grad" else node.inputs[1]


def conv_problem(node: Node, x_dims: Sequence[Any], w_dims: Sequence[int], printer: Printer, **pointers: str) -> Conv:
    """The two-dimensional problem; one spatial axis is a height of 1."""
    flat = node.ndim == 3
    lift = lambda pair, neutral: (neutral, pair[0]) if flat else tuple(pair)
    h, w = (1, x_dims[2]) if flat else x_dims[2:]
    r, s = (1, w_dims[2]) if flat else w_dims[2:]
    attrs = node.attrs
    return Conv(node.dtype, Names(printer)(x_dims[0]), x_dims[1], h, w, w_dims[0], r, s, lift(attrs["stride"], 1), lift(attrs["padding"], (0, 0)),
                lift(attrs["dilation"], 1), attrs["groups"], **pointers)


def spatial(node: Node, hole: Epilogue) -> Epilogue:
    """Four indices of the template for the three of a one-dimensional convolution."""
    if node.ndim == 3:
        hole.extents = (*node.dims[:2], 1, node.dims[2])
        hole.unfold = lambda idx: (*idx[:2], idx[3])
    return hole


def generate_forward(node: Node, operands: list[Strided], printer: Printer, hole: Epilogue, target: Target) -> TemplateText:
    x, w = (printer.pointer(v.base) for v in operands)
    problem = conv_problem(node, node.inputs[0].dims, node.inputs[1].dims, printer, x=x, weight=w)
    return conv_text(False, problem, spatial(node, hole), target)


def generate_input_grad(node: Node, operands: list[Strided], printer: Printer, hole: Epilogue, target: Target) -> TemplateText:
    g, w = (printer.pointer(v.base) for v in operands)
    problem = conv_problem(node, node.dims, node.inputs[1].dims, printer, g=g, weight=w)
    return conv_text(True, problem, spatial(node, hole), target)


def generate_weight_grad(node: Node, operands: list[Strided], printer: Printer, hole: Epilogue, target: Target) -> TemplateText:
    x, g = (printer.pointer(v.base) for v in operands)
    problem = conv_problem(node, node.inputs[0].dims, node.dims, printer, x=x, g=g)
    return conv_grad_weight(problem, spatial(node, hole), target=target)


def conv_text(grad_input: bool, problem: Conv, hole: Epilogue, target: Target) -> TemplateText:
    """The form of the convolution that is estimated to be the fastest."""
    return choose_conv(problem, hole, grad_input=grad_input, allow_winograd=config.allow_winograd, target=target)


def conv_flops(node: Node) -> Any:
    """2 * outputs * (channels per group * taps) of the forward problem."""
    name = node.op.name
    if name == "convolution_input_grad":
        y, w = node.inputs[0].dims, node.inputs[1].dims
    elif name == "convolution_weight_grad":
        y, w = node.inputs[1].dims, node.dims
    else:
        y, w = node.dims, node.inputs[1].dims
    return 2 * poly.product(y) * poly.product(w[1:])


# ------------------------------------------------------------------------------------------------ pooling
def accepts_pool(node: Node) -> bool:
    """One or two spatial axes, all sizes known, windows that end inside the padded image."""
    image = node.inputs[0]
    rank = len(node.attrs["kernel_size"])
    if rank > 2 or not (known_but_first(image.dims) if image.ndim == rank + 2 else image._type.is_static):
        return False
    windows = node.dims if node.op.name != "max_pool_grad" else node.inputs[1].dims
    problem = pool_problem(node, image.dims, lambda size: 1)
    return (problem.p, problem.q)[2 - rank:] == tuple(windows[-rank:])


def pool_problem(node: Node, dims: Sequence[Any], name: Callable[[Any], Any], **pointers: str) -> Pool:
    """The axes before the spatial ones are channels of one image, unless there are two of them."""
    attrs, rank = node.attrs, len(node.attrs["kernel_size"])
    lift = lambda pair, neutral: (neutral, pair[0]) if rank == 1 else tuple(pair)
    lead, (h, w) = dims[:-rank], lift(dims[-rank:], 1)
    n, c = lead if len(lead) == 2 else (1, poly.product(lead))
    return Pool(node.dtype, name(n), c, h, w, *lift(attrs["kernel_size"], 1), lift(attrs["stride"], 1), lift(attrs["padding"], (0, 0)),
                lift(attrs["dilation"], 1), **pointers)


def pool_hole(node: Node, hole: Epilogue) -> Epilogue:
    """The four indices of the template for those of the node."""
    rank = len(node.attrs["kernel_size"])
    lead, sizes = node.dims[:-rank], (node.dims[-rank:] if rank == 2 else (1, node.dims[-1]))
    hole.extents = (*(lead if len(lead) == 2 else (1, poly.product(lead))), *sizes)
    hole.unfold = lambda idx: (*(idx[:2] if len(lead) == 2 else split_batch(idx[1], lead)), *idx[4 - rank:])
    return hole


def generate_pool(node: Node, operands: list[Strided], printer: Printer, hole: Epilogue, target: Target) -> TemplateText:
    problem = pool_problem(node, node.inputs[0].dims, Names(printer), x=printer.pointer(operands[0].base))
    return max_pool_forward(problem, pool_hole(node, hole), target=target)


def generate_pool_grad(node: Node, operands: list[Strided], printer: Printer, hole: Epilogue, target: Target) -> TemplateText:
    x, g = (printer.pointer(v.base) for v in operands)
    return max_pool_backward(pool_problem(node, node.dims, Names(printer), x=x, g=g), pool_hole(node, hole), target=target)


_POOL = Entry(accepts_pool, dense, generate_pool)
_FORWARD = Entry(accepts_conv, dense, generate_forward, conv_flops)
ENTRIES: dict[str, Entry] = {
    "matmul": Entry(accepts_matmul, matrix, generate_matmul, matmul_flops),
    "matmul_panels": Entry(accepts_panels, matrix_or_panels, generate_panels, matmul_flops),
    "conv1d": _FORWARD,
    "conv2d": _FORWARD,
    "convolution_input_grad": Entry(accepts_conv, dense, generate_input_grad, conv_flops),
    "convolution_weight_grad": Entry(accepts_conv, dense, generate_weight_grad, conv_flops),
    "max_pool1d": _POOL,
    "max_pool2d": _POOL,
    "max_pool_grad": Entry(accepts_pool, dense, generate_pool_grad, reads=(0, 2)),
}
