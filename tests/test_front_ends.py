"""Numba says what kernel text means; the dialect's own reader, which is what compiles kernels by default, must agree with it.

Both read every kernel of the op table's sweep. Results are compared bit by bit, but for sums: LLVM may add in another order.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from test_ops_sweep import ELEMENTWISE, SMOOTH, SWEPT, applied, cases, inputs_for, run

import symgrad as sg
from symgrad.backends.cpu import toolchain
from symgrad.base.dtypes import TOLERANCE
from symgrad.ops.row import ROWS

CONTROL = """
def kernel(args):
    p0 = ptr_int64(args, 0)
    n = size(args, 1)
    k = 0
    for i in range(20, n, -4):
        p0[k] = i
        k = k + 1
    for i in range(0, 9, n):
        p0[k] = i
        k = k + 1
    for i in range(9, 0, 0 - n):
        p0[k] = i
        k = k + 1
    width = 1
    while width < 100:
        p0[k] = width
        width = n * width
        k = k + 1
"""


FRONT_ENDS = ("numba", "reader")


def under(front_end, build):
    """What `build` returns while that front end reads the kernels."""
    with sg.config(front_end=front_end):
        return build()


def same_bits(graphs, label):
    one, other = (list(under(front_end, lambda: run(graphs, "cpu"))) for front_end in FRONT_ENDS)
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        assert a.dtype == b.dtype and a.shape == b.shape
        if label in ELEMENTWISE or a.dtype.kind != "f":
            assert a.tobytes() == b.tobytes(), f"{label}: {FRONT_ENDS} differ by {np.abs(a.astype(float) - b).max()}"
        else:
            finite = np.abs(b[np.isfinite(b)])
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[a.dtype.name] * max(finite.max(initial=0), 1), err_msg=label)


def value_graphs(name, limit=None):
    for case, _, arrays in cases(name, limit):
        xs = inputs_for(arrays)
        yield xs, [applied(ROWS[name], xs, case.attrs)], arrays


def gradient_graphs(name):
    for case, dtype, arrays in cases(name):
        xs = inputs_for(arrays)
        wrt = [x for x in xs if x.dtype == dtype == "float32"]
        if case.grad and wrt:
            y = applied(ROWS[name], xs, case.attrs)
            yield xs, sg.grad((y * y).sum(), wrt, disconnected="zero"), arrays


@pytest.mark.parametrize("name", SWEPT[::9])
def test_some_kernels_are_read_alike(name):
    same_bits(list(value_graphs(name, 1)), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_kernels_of_values_are_read_alike(name):
    same_bits(list(value_graphs(name)), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_kernels_of_gradients_are_read_alike(name):
    graphs = list(gradient_graphs(name))
    if graphs:
        same_bits(graphs, name)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_loops_go_down_and_by_steps_known_late(front_end):
    out = np.zeros(20, np.int64)
    table = np.array([out.ctypes.data, 3])
    kernel = under(front_end, lambda: toolchain.compile_text(CONTROL))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel.address)(table.ctypes.data)
    expected = [*range(20, 3, -4), *range(0, 9, 3), *range(9, 0, -3), 1, 3, 9, 27, 81]
    assert out.tolist() == expected + [0] * (20 - len(expected))
