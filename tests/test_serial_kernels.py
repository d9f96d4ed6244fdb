"""Kernels that run in order (scatters, running sums, sorting), run by plain Python against the reference."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends import serial
from symgrad.backends.generic import NoTemplates, make_plan
from symgrad.backends.plain import run_text
from symgrad.base import poly
from symgrad.graph.inline import inline_blocks
from symgrad.schedule.views import Strided, contiguous

rng = np.random.default_rng(3)


class SerialOnly(NoTemplates):
    """The templates of this module and no others."""

    def accepts(self, node):
        return serial.is_serial(node)

    def operands(self, node):
        return [Strided(x, 0, contiguous(x.dims), x.dims) for x in serial.in_memory(node)]

    def print(self, group, grouping, printer):
        return (), serial.print_serial(printer, group, grouping), None

    def flops(self, node):
        return 0


def run(inputs, outputs, arrays):
    """The outputs computed by the plan's kernel texts, and the ops that had a kernel of their own."""
    outputs = inline_blocks(outputs)
    plan = make_plan(inputs, outputs, SerialOnly())
    sizes = {
        next(iter(d.terms))[0]: n
        for x, a in zip(inputs, arrays)
        for d, n in zip(x.dims, a.shape)
        if isinstance(d, poly.Poly)
    }
    memory = {x: np.ascontiguousarray(a) for x, a in zip(inputs, arrays)}

    def buffer(node):
        node = plan.memory_of(node)
        if node not in memory:
            constant = node.payload is not None
            shape = [poly.evaluate(d, sizes.__getitem__) for d in node.dims]
            memory[node] = node.payload if constant else np.zeros(shape, node.dtype)
        return memory[node].reshape(-1)

    for kernel in plan.kernels:
        table = []
        for kind, what in kernel.arguments:
            if kind == "buffer":
                table.append(buffer(what))
            elif kind == "scratch":
                table.append(np.zeros(poly.evaluate(what.elements, sizes.__getitem__), what.dtype))
            else:
                table.append(sizes[what])
        with np.errstate(all="ignore"):
            run_text(kernel.text, table)
    return [memory[y] for y in outputs]


X = np.round(rng.normal(size=(6, 5)), 1)
X[2, 3] = X[0, 0] = np.nan
PLACES = np.array([0, -1, 3, 0, 0])
NEW = rng.normal(size=(5, 5))

GRAPHS = {
    "added rows, and what is made of them": lambda x, i, v: [
        T.exp(T.inc_subtensor((x * 2)[i], v * 3)) * x + 1
    ],
    "added and kept": lambda x, i, v: [y := T.inc_subtensor(x[i], v), T.relu(y)],
    "set in part": lambda x, i, v: [T.set_subtensor(x[i, 1:3], v[:, 1:3] * v[0, 0])],
    "set at pairs": lambda x, i, v: [T.set_subtensor(x[i, abs(i)], v[0])],
    "added along an axis": lambda x, i, v: [
        sg.grad(T.sum(T.take_along_axis(x * x, T.expand_dims(i, 1), 0) * v[:, [0]]), x)
    ],
    "summed up": lambda x, i, v: [
        T.cumsum(x, 0),
        T.cumsum(v, 1, reverse=True) * v,
        T.cumprod(v, 0, reverse=True),
    ],
    "sorted": lambda x, i, v: [T.sort(x, 0), T.argsort(x, 1), T.sort(i), T.argsort(x, None, descending=True)],
    "best": lambda x, i, v: [*T.topk(x, 3, 0), T.topk(v, 2, largest=False)[0] * 2],
    "gradient of a sort": lambda x, i, v: [sg.grad(T.sum(T.sort(v, 0) * v[::-1]), v)],
    "nothing there": lambda x, i, v: [
        T.cumsum(x[:0], 0),
        T.sort(x[:, :0], 1),
        T.inc_subtensor(x[i[:0]], 1.0),
    ],
}


@pytest.mark.parametrize("known", [True, False], ids=["known sizes", "unknown sizes"])
@pytest.mark.parametrize("name", GRAPHS)
def test_kernels_in_order_agree_with_the_reference(name, known):
    arrays = [X, PLACES, NEW]
    names = [("m", "n"), ("k",), ("k", "n")]
    inputs = [T.tensor("xiv"[j], a.shape if known else names[j], a.dtype) for j, a in enumerate(arrays)]
    outputs = GRAPHS[name](*inputs)
    wants = sg.function(inputs, outputs, backend="reference", on_unused_input="ignore")(*arrays)
    for got, want in zip(run(inputs, outputs, arrays), wants, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 33, 100])
def test_merge_sort_of_every_length(n):
    x = T.vector("x", "float64")
    a = rng.integers(0, 5, n).astype("float64")
    up, down = run([x], [T.argsort(x), T.argsort(x, descending=True)], [a])
    np.testing.assert_array_equal(up, np.argsort(a, kind="stable"))
    np.testing.assert_array_equal(down, np.argsort(-a, kind="stable"))


def test_slices_alone_are_left_to_fusion():
    x = T.matrix("x")
    assert not serial.is_serial(T.set_subtensor(x[1:, ::2], 0))
    assert serial.is_serial(T.set_subtensor(x[[0, 2]], 0))
