"""Ops over an axis become reductions, and kernels over the same rows one loop: with the values they had."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T


def compile_(call, *shapes):
    xs = [T.tensor(f"x{k}", s) for k, s in enumerate(shapes)]
    f = sg.function(xs, call(*xs))
    values = [np.random.default_rng(k).normal(size=s).astype("float32") for k, s in enumerate(shapes)]
    return f, values


def kernels(f):
    return f.source().count("def kernel")


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("shape, axis", [((7, 300), 1), ((300, 7), 0), ((3, 5, 300), 1), ((3, 5, 300), 2), ((2, 3, 4, 5), 1), ((6,), 0), ((5, 1), 1)])
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_ops_over_any_axis(op, shape, axis):
    f, (x,) = compile_(lambda x: getattr(T, op)(x, axis), shape)
    wide = x.astype("float64")
    expected = {"softmax": softmax(wide, axis), "log_softmax": np.log(softmax(wide, axis)), "logsumexp": np.log(np.exp(wide).sum(axis))}[op]
    np.testing.assert_allclose(f(x), expected, rtol=2e-6, atol=2e-6)
    assert f(x).shape == expected.shape


def test_work_grows_with_the_array_not_with_its_square():
    f, _ = compile_(lambda x: T.softmax(x, 0), (20, 30))
    depth = max(len(line) - len(line.lstrip()) for line in f.source().splitlines() if "exp_float32" in line)
    assert depth == 4 * 3, "exp is inside two loops and the function"


def test_edges_of_softmax():
    f, _ = compile_(lambda x: [T.softmax(x, 1), T.log_softmax(x, 1), T.logsumexp(x, 1)], (4, 300))
    x = np.zeros((4, 300), "float32")
    x[0, 3], x[1] = 3e38, -np.inf
    x[2, 5], x[3, :] = np.nan, -2e38
    soft, log, total = f(x)
    assert soft[0, 3] == 1 and soft[0].sum() == 1 and log[0, 3] == 0 and total[0] == x[0, 3]
    assert np.isnan(soft[1]).all() and np.isnan(log[1]).all() and total[1] == -np.inf
    assert np.isnan(soft[2]).all() and np.isnan(total[2])
    np.testing.assert_allclose(soft[3], 1 / 300, rtol=1e-6)


def test_a_softmax_of_long_rows_is_one_loop_over_them():
    f, (x,) = compile_(lambda x: T.softmax(x, -1), (30, 500))
    np.testing.assert_allclose(f(x), softmax(x, 1), rtol=2e-6)
    assert kernels(f) == 1 and "0 stored intermediates" in f.explain()
    assert f.source().count("for i0 in range(") == 1


def test_what_others_read_stays_in_memory():
    f, (x, y) = compile_(lambda x, y: [T.softmax(x, -1), T.max(x, axis=1, keepdims=True), T.matmul(T.exp(x - T.max(x, axis=1, keepdims=True)), y)],
                         (30, 500), (500, 3))
    soft, top, product = f(x, y)
    np.testing.assert_allclose(soft, softmax(x, 1), rtol=2e-6)
    np.testing.assert_array_equal(top, x.max(1, keepdims=True))
    np.testing.assert_allclose(product, np.exp(x - x.max(1, keepdims=True)) @ y, rtol=1e-4, atol=1e-5)


def test_rows_that_need_each_other_stay_apart():
    f, (x,) = compile_(lambda x: T.exp(x) / T.sum(T.exp(x), axis=0, keepdims=True), (300, 300))
    np.testing.assert_allclose(f(x), np.exp(x) / np.exp(x).sum(0), rtol=2e-6)
    f, (x,) = compile_(lambda x: T.tanh(x) - T.sum(T.tanh(x), axis=1), (300, 300))       # row i needs the sums of all rows
    np.testing.assert_allclose(f(x), np.tanh(x) - np.tanh(x).sum(1), rtol=1e-4, atol=1e-4)
    assert kernels(f) == 2
    f, (x,) = compile_(lambda x: T.max(x, axis=1, keepdims=True) + T.exp(x) * T.sum(T.exp(x), axis=1, keepdims=True)[::-1], (300, 300))
    np.testing.assert_allclose(f(x), x.max(1, keepdims=True) + np.exp(x) * np.exp(x).sum(1, keepdims=True)[::-1], rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 500), (3, 7, 300)])
def test_layer_norm_and_its_gradients(shape):
    def norm(x, w, b):
        y = T.layer_norm(x, (shape[-1],), w, b)
        return [y, *sg.grad(T.sum(T.sin(y)), [x, w, b])]
    f, values = compile_(norm, shape, shape[-1:], shape[-1:])
    x, w, b = (v.astype("float64") for v in values)
    centred = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    hat = centred * scale
    y = hat * w + b
    g = np.cos(y)
    gx = (g * w - (g * w).mean(-1, keepdims=True) - hat * (g * w * hat).mean(-1, keepdims=True)) * scale
    lead = tuple(range(len(shape) - 1))
    for found, expected in zip(f(*values), (y, gx, (g * hat).sum(lead), g.sum(lead))):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_square_shapes_do_not_mix_up_rows_and_columns():
    f, (x,) = compile_(lambda x: T.softmax(x.T, -1) + T.softmax(x, -1), (300, 300))
    np.testing.assert_allclose(f(x), softmax(x.T, 1) + softmax(x, 1), rtol=3e-6)


def test_sizes_counted_from_a_softmax():
    x = T.vector("x", shape=5)
    y = T.softmax(x)
    f = sg.function([x], y[y > 0.15])
    value = np.array([1, 2, 3, 4, 0], "float32")
    np.testing.assert_allclose(f(value), softmax(value, 0)[softmax(value, 0) > 0.15], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, None])
@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_places_of_extremes(op, axis):
    f, (x,) = compile_(lambda x: getattr(T, op)(x, axis), (5, 70, 6))
    x = np.round(x)                                    # ties: the first one counts
    np.testing.assert_array_equal(f(x), getattr(np, op)(x, axis=axis))
    x[2, 3, 4], x[4, 3, 4], x[2, 60, 4] = np.nan, np.nan, -np.inf
    np.testing.assert_array_equal(f(x), getattr(np, op)(x, axis=axis))
    assert f(x).dtype == "int64"


def test_a_row_without_a_largest_element():
    f, _ = compile_(lambda x: T.argmax(x, 1), (2, 9))
    np.testing.assert_array_equal(f(np.full((2, 9), -np.inf, "float32")), [0, 0])
