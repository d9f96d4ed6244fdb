"""Kernels whose threads work together, and all others, with every access watched: bounds, races, barriers; and watchers that watch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cuda import emulated, launch, simt
from symgrad.backends.cuda.device import Memory
from symgrad.testing import assert_close


@pytest.fixture
def watched(monkeypatch):
    """Every kernel runs in lockstep, not only those with barriers."""
    monkeypatch.setattr(emulated.EmulatedDevice, "checks", True)


def compared(inputs, outputs, *arrays, factor=16.0):
    got = sg.function(inputs, outputs, backend="cuda-emulated", on_unused_input="ignore")(*arrays)
    want = sg.function(inputs, outputs, backend="reference", on_unused_input="ignore")(*arrays)
    for k, (a, b) in enumerate(zip(got, want)):
        assert_close(a, b, f"output {k}", factor=factor)


REDUCTIONS = {
    "rows": ((40, 500), 1), "short rows": ((700, 20), 1), "columns": ((500, 40), 0), "few columns": ((3000, 3), 0), "all": ((90, 91), None),
    "all of many": ((70000,), None), "outer and inner": ((30, 5, 40), (0, 2)), "middle": ((4, 300, 5), 1), "one": ((1, 1), None), "none": ((0, 5), 0),
    "long columns": ((20000, 2), 0),
}


@pytest.mark.parametrize("shape, axis", REDUCTIONS.values(), ids=REDUCTIONS)
def test_reductions(shape, axis, watched, rng):
    x = T.tensor("x", shape)
    outputs = [T.sum(x * x, axis), T.sum(x, axis, keepdims=True) * 2]
    if 0 not in shape:
        outputs += [T.max(x, axis), T.min(x + 1, axis), T.any(x > 2, axis), T.prod(1 + x * 1e-3, axis), T.mean(x.astype("float64"), axis)]
    compared([x], outputs, rng.standard_normal(shape).astype("float32"))


@pytest.mark.parametrize("shape", [(7, 300), (3, 5, 70), (2000,), (5, 33)], ids=str)
def test_what_a_row_shares_is_computed_by_its_block(shape, watched, rng):
    x = T.tensor("x", shape)
    y = T.softmax(x)
    outputs = [y, T.log_softmax(x), T.logsumexp(x, -1), T.layer_norm(x, shape[-1:]), *sg.grad(T.sum(y ** 3), [x])]
    compared([x], outputs, rng.standard_normal(shape).astype("float32"))


def test_sizes_known_at_the_call(watched, rng):
    x = T.matrix("x")
    f = sg.function([x], [T.softmax(x), T.sum(x, 0), T.sum(x)], backend="cuda-emulated")
    g = sg.function([x], [T.softmax(x), T.sum(x, 0), T.sum(x)], backend="reference")
    for n in (1, 2, 3, 4, 5, 90):
        a = rng.standard_normal((n, 50)).astype("float32")
        for got, want in zip(f(a), g(a)):
            assert_close(got, want)


def test_conditions_are_looked_at_on_the_device(watched, rng):
    x, c = T.tensor("x", (300,)), T.tensor("c", (), "bool")
    y = sg.ifelse(c, T.sum(T.exp(x)), T.max(x))
    f = sg.function([x, c], [y, *sg.grad(y, [x])], backend="cuda-emulated")
    a = rng.standard_normal(300).astype("float32")
    for side, want in ((True, np.exp(a).sum()), (False, a.max())):
        value, gradient = f(a, side)
        assert_close(value, np.float32(want), factor=16)
        assert_close(gradient, np.exp(a) if side else (a == a.max()).astype("float32"), factor=16)
    assert "if truth(" in f.source() and "if not truth(" in f.source()


def test_results_do_not_depend_on_the_number_of_blocks(monkeypatch, rng):
    """A device that takes fewer blocks at once computes the same bits."""
    x = T.tensor("x", (70000,))
    a = rng.standard_normal(70000).astype("float32")
    f = lambda: sg.function([x], [T.sum(x), T.exp(x), T.softmax(x)], backend="cuda-emulated")(a)
    many = f()
    monkeypatch.setattr(launch, "MOST_BLOCKS", 3)
    for one, other in zip(many, f()):
        assert np.array_equal(one, other)


# ---- the watchers, on kernels made wrong
def arguments(kernel, rng):
    """Memory for a kernel of static sizes, filled at random. The arrays keep it alive."""
    arrays = [rng.standard_normal(int(what._type.size)).astype(what.dtype) for _, what in kernel.arguments]
    return arrays, [Memory(a.ctypes.data, a.dtype.name, a.size) for a in arrays]


def fault_of(kernel, text, rng):
    assert text != kernel.text, "the change changed nothing"
    wrong = dataclasses.replace(kernel, text=text)
    arrays, memory = arguments(kernel, rng)
    simt.run(kernel.text, memory, kernel.grid(None), kernel.block)          # as it is printed, nothing is wrong
    with pytest.raises(simt.KernelFault) as raised:
        simt.run(wrong.text, memory, kernel.grid(None), kernel.block)
    del arrays
    return str(raised.value)


@pytest.fixture
def row_sum(kernels_of):
    x = T.tensor("x", (3, 2000))
    kernel, = kernels_of([x], [T.sum(x, 1)])
    return kernel


def test_a_removed_barrier_is_a_race(row_sum, rng):
    assert "shared" in fault_of(row_sum, row_sum.text.replace("    barrier()\n", ""), rng)


def test_an_index_off_by_one_is_out_of_bounds(row_sum, rng):
    assert "of 6000 elements" in fault_of(row_sum, row_sum.text.replace("< 2000:", "< 2001:"), rng)


def test_a_barrier_that_some_threads_do_not_reach(row_sum, rng):
    assert "do not reach" in fault_of(row_sum, row_sum.text.replace("    barrier()", "    if lane() < 7:\n        barrier()"), rng)


def test_threads_that_store_to_one_element(row_sum, rng):
    assert "write the same element" in fault_of(row_sum, row_sum.text.replace("if lane() == 0:", "if lane() < 2:"), rng)


def test_blocks_that_store_to_one_element(row_sum, rng):
    assert "write the same element" in fault_of(row_sum, row_sum.text.replace("i0 = block()", "i0 = quotient(block(), 2)"), rng)


def test_an_index_too_large_for_its_width(row_sum, rng):
    assert "32 bits" in fault_of(row_sum, row_sum.text.replace("i32(2000*i0", "i32(4000000000*i0"), rng)
