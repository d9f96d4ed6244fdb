"""Short rows are reduced as columns, block by block: with the values that rows have."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T


def compile_(call, shape):
    x = T.tensor("x", shape)
    return sg.function([x], call(x)), np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("rows", [63, 64, 255, 256, 257, 520, 1000])
@pytest.mark.parametrize("length", [2, 10, 16, 17])
def test_sums_and_extremes(rows, length):
    f, x = compile_(lambda x: [T.sum(x * x, axis=1), T.max(x, axis=1), T.argmax(x, 1), T.log(T.sum(T.exp(x), axis=1))], (rows, length))
    total, top, place, log = f(x)
    np.testing.assert_allclose(total, (x * x).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(top, x.max(1))
    np.testing.assert_array_equal(place, x.argmax(1))
    np.testing.assert_allclose(log, np.log(np.exp(x).sum(1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [100, 600, 20_000])
def test_softmax_and_layer_norm(rows, threads):
    with sg.config(num_threads=threads):
        f, x = compile_(lambda x: [T.softmax(x, -1), T.layer_norm(x, (10,)), sg.grad(T.sum(T.log_softmax(x, -1)[:, 3]), x)], (rows, 10))
        soft, norm, gradient = f(x)
    e = np.exp(x - x.max(1, keepdims=True))
    expected = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(soft, expected, rtol=1e-5)
    centred = x - x.mean(1, keepdims=True)
    np.testing.assert_allclose(norm, centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradient, (np.arange(10) == 3) - expected, rtol=1e-4, atol=1e-5)


def test_the_rows_run_inside():
    source = compile_(lambda x: T.sum(x, axis=1), (600, 10))[0].source()
    loops = [line.strip() for line in source.splitlines() if line.strip().startswith("for ") and "range(10)" in line]
    assert loops and "range(256)" in source[source.index(loops[0]):]
    assert "range(256)" not in compile_(lambda x: T.sum(x, axis=1), (600, 17))[0].source()
