"""Matrix products, convolutions and their adjoints in tiles: every access watched, at sizes that fit tiles and at sizes that do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cuda import emulated, simt
from symgrad.backends.cuda.device import Memory
from symgrad.testing import assert_close


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    monkeypatch.setattr(emulated.EmulatedDevice, "checks", True)


def tiled(f):
    """The kernels of a function that use tiles."""
    return [k for k in f.executable.latest().kernels if "sa = shared_" in k.text]


def compared(inputs, outputs, arrays, tiles, factor=32.0):
    f = sg.function(inputs, outputs, backend="cuda-emulated")
    want = sg.function(inputs, outputs, backend="reference")(*arrays)
    for k, (got, wanted) in enumerate(zip(f(*arrays), want)):
        assert_close(got, wanted, f"output {k}", factor=factor)
    assert len(tiled(f)) == tiles, f.source()


@pytest.mark.parametrize("m, n, k", [(64, 64, 64), (33, 70, 17), (8, 8, 8), (100, 9, 40), (9, 130, 600), (65, 129, 31)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matrix_products_with_what_follows(m, n, k, dtype, rng):
    a, b, c = T.tensor("a", (m, k), dtype), T.tensor("b", (k, n), dtype), T.tensor("c", (n,), dtype)
    arrays = [rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n,))]
    compared([a, b, c], [T.relu(a @ b + c)], arrays, 1)


@pytest.mark.parametrize("ta, tb", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_transposed_operands_in_batches(ta, tb, rng):
    shapes = (3, 20, 30)[:1] + ((30, 20) if ta else (20, 30)), (3,) + ((25, 30) if tb else (30, 25))
    a, b = (T.tensor(name, s) for name, s in zip("ab", shapes))
    product = (T.transpose(a, (0, 2, 1)) if ta else a) @ (T.transpose(b, (0, 2, 1)) if tb else b)
    compared([a, b], [product, *sg.grad(T.sum(T.sin(product)), [a, b])], [rng.standard_normal(s).astype("f") for s in shapes], 3)


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 2, "dilation": 2}, {"padding": (0, 1)}], ids=str)
def test_convolutions_and_their_adjoints(options, rng):
    x, w = T.tensor("x", (2, 9, 10, 11)), T.tensor("w", (12, 9, 3, 3))
    y = T.relu(T.conv2d(x, w, **options))
    arrays = [rng.standard_normal(s).astype("f") for s in ((2, 9, 10, 11), (12, 9, 3, 3))]
    compared([x, w], [y, *sg.grad(T.sum(y * T.cos(y)), [x, w])], arrays, 3)


def test_strides_groups_and_one_axis(rng):
    x, w = T.tensor("x", (2, 16, 12, 12)), T.tensor("w", (8, 16, 3, 3))
    y = T.conv2d(x, w, stride=2, padding=1)
    arrays = [rng.standard_normal(s).astype("f") for s in ((2, 16, 12, 12), (8, 16, 3, 3))]
    compared([x, w], [y, sg.grad(T.sum(y ** 2), w)], arrays, 2)
    x, w = T.tensor("x", (2, 8, 40)), T.tensor("w", (8, 1, 3))
    compared([x, w], [T.conv1d(x, w, groups=8)], [rng.standard_normal(s).astype("f") for s in ((2, 8, 40), (8, 1, 3))], 0)


def test_long_sums_of_few_results_are_divided(rng):
    a, b = T.tensor("a", (10, 6000)), T.tensor("b", (6000, 12))
    arrays = rng.standard_normal((10, 6000)).astype("f"), rng.standard_normal((6000, 12)).astype("f")
    f = sg.function([a, b], T.tanh(a @ b * 0.01), backend="cuda-emulated")
    kernel, second = f.executable.latest().kernels
    assert kernel.blocks == 6000 // 256 and "sa = " not in second.text
    assert_close(f(*arrays), np.tanh(arrays[0] @ arrays[1] * np.float32(0.01)), factor=64.0)


# ---- the watchers, on tiles made wrong
@pytest.mark.parametrize("old, new, message", [
    ("        barrier()\n        k0", "        k0", "no barrier between"),
    ("ty * 4))", "ty * 3))", "no multiple of four"),
    ("row < 20", "row < 21", "of 500 elements"),
], ids=["a barrier", "an alignment", "an edge"])
def test_mistakes_in_tiles_are_found(old, new, message, rng, kernels_of):
    a, b = T.tensor("a", (20, 40)), T.tensor("b", (40, 25))
    kernel, = kernels_of([a, b], [a @ b])
    wrong = dataclasses.replace(kernel, text=kernel.text.replace(old, new, 1))
    assert wrong.text != kernel.text
    arrays = [np.ones(what._type.size, what.dtype) for _, what in kernel.arguments]
    memory = [Memory(x.ctypes.data, x.dtype.name, x.size) for x in arrays]
    simt.run(kernel.text, memory, kernel.grid(None), kernel.block)
    with pytest.raises(simt.KernelFault, match=message):
        simt.run(wrong.text, memory, kernel.grid(None), kernel.block)
