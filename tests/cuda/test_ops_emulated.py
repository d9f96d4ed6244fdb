"""Every row of the op table on the CUDA backend without a GPU: the same kernels and launches, threads one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from test_ops_sweep import LIBM_ACCURACY, SMOOTH, SWEPT, WITHOUT_SECOND, applied, cases, inputs_for, position, run

import symgrad as sg
import symgrad.tensor as T
from symgrad.ops.row import ROWS
from symgrad.testing import assert_close


@pytest.mark.parametrize("name", SWEPT)
def test_value(name):
    row = ROWS[name]
    graphs, labels = [], []
    for case, dtype, arrays in cases(name):
        if position(row, case) == 0 or (position(row, case) < 4 and dtype == case.dtypes[0]):
            xs = inputs_for(arrays)
            graphs.append((xs, [applied(row, xs, case.attrs)], arrays))
            labels.append(f"{name} {[a.shape for a in arrays]} {dtype} {case.attrs}")
    for label, got, want, (_, (y,), _) in zip(labels, run(graphs, "cuda-emulated"), run(graphs, "reference"), graphs):
        assert_close(got, want, label, factor=LIBM_ACCURACY)
        assert got.dtype == y.dtype and got.shape == y.dims, label


@pytest.mark.parametrize("name", [n for n in SMOOTH if n not in WITHOUT_SECOND])
def test_gradient_is_that_of_the_reference(name):
    row, graphs = ROWS[name], []
    for case, dtype, arrays in cases(name):
        if case.grad and dtype == "float64" and arrays and len(graphs) < 2:
            xs = inputs_for(arrays)
            y = applied(row, xs, case.attrs)
            weights = np.cos(np.arange(np.prod(y.dims, dtype=int), dtype="float64")).reshape(y.dims)
            wrt = [x for x in xs if x.dtype == "float64"]
            graphs.append((xs, list(sg.grad(T.sum(y * weights), wrt, disconnected="zero")), arrays))
    for got, want in zip(run(graphs, "cuda-emulated"), run(graphs, "reference")):
        assert_close(got, want, name, factor=LIBM_ACCURACY)
