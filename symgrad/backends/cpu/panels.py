"""Matrices that every step of a loop multiplies with are laid out once, before the loop, as the products read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...graph.node import Node, new_input
from ...graph.scan import make_scan, opened, parts
from ...graph.walk import copy_notes, depends_on, order, substitute
from ...ops.linear import matmul
from ...ops.panels import panels_of, product_in_panels
from ...rewrite.loops import each_loop, results_of
from .templates import host_target
from .templates.gemm import panel_width


def in_panels(outputs: Sequence[Node]) -> list[Node]:
    """The outputs, with such products in all loops replaced."""
    return each_loop(outputs, _laid_out)


def _laid_out(node: Node, wanted: set[int]) -> list[Node]:
    body, p = opened(node), parts(node)
    inner = in_panels(body.outputs)
    moving = depends_on(inner, body.varying)
    widths = {y: width for y in order(inner) if (width := _width(y, moving)) is not None}
    if not widths:
        return results_of(node)
    laid_out: dict[tuple[Node, int], Node] = {}
    for y, width in widths.items():
        w = y.inputs[1]
        laid_out.setdefault((w, width), new_input(panels_of(w, width)._type))
    products = {y: product_in_panels(y.inputs[0], laid_out[y.inputs[1], width], y.dims[1]) for y, width in widths.items()}
    before = substitute([panels_of(w, width) for w, width in laid_out], dict(zip(body.constants, p.constants)))
    new = replace(body, constants=(*body.constants, *laid_out.values()))
    loop = make_scan(new.on(new.inputs, substitute(inner, products)), p.sequences, p.initials, [*p.constants, *before], node.attrs["n"])
    copy_notes(loop, node)
    return results_of(loop)


def _width(y: Node, moving: set[Node]) -> int | None:
    """The width of the panels for a product with a matrix that does not change; None if it is something else, or stays as it is."""
    if y.op is not matmul or y.ndim != 2 or not all(x._type.is_static for x in y.inputs) or not y.dtype.startswith("float"):
        return None
    x, w = y.inputs
    if x not in moving or any(n in moving for n in order([w])):
        return None
    return panel_width(y.dtype, *x.dims, y.dims[1], host_target())


__all__ = ["in_panels"]
