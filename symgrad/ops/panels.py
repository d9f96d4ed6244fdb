"""Products with a matrix that was laid out for them: made by backends, where one matrix serves many products."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base import poly
from ..graph.node import Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import E, View
from .index import pad
from .row import Row, sample
from .shape import reshape, transpose


class MatmulPanels(Row):
    """x (m, k) times a matrix (k, n) in panels of a few columns: column j is panels[j // width, :, j % width]. Attribute: n."""

    public = False
    samples = [sample((3, 4), (2, 4, 8), n=13, grad=False), sample((1, 5), (1, 5, 8), n=8, grad=False)]

    def infer(self, x: Type, panels: Type, *, n: int) -> Type:
        return Type(x.dtype, (x.dims[0], n))

    def at(self, i: tuple, x: View, panels: View, *, n: int) -> E:
        row, column = i
        width = panels.dims[2]
        place, within = poly.floordiv(column, width), poly.mod(column, width)
        return ir.fold("add", [x.dims[1]], lambda k: x[(row, k)] * panels[(place, k, within)])

    def numpy(self, x: np.ndarray, panels: np.ndarray, *, n: int) -> np.ndarray:
        return x @ np.concatenate(panels, axis=1)[:, :n]


matmul_panels = MatmulPanels("matmul_panels")


def panels_of(w: Node, width: int) -> Node:
    """A matrix (k, n) as panels (ceil(n / width), k, width), zeros behind its last column."""
    k, n = w.dims
    count = -(-n // width)
    wide = pad(w, ((0, 0), (0, count * width - n))) if n % width else w
    return transpose(reshape(wide, (k, count, width)), (1, 0, 2))


def product_in_panels(x: Node, panels: Node, n: int) -> Node:
    return make(matmul_panels, [x, panels], n=n)


__all__: list[Any] = []
