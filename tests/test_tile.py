"""Transposed reads are walked in tiles: every element is written once, whatever the sizes."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T


def same(call, expected, *shapes, tiled=True):
    xs = [T.tensor(f"x{k}", s) for k, s in enumerate(shapes)]
    f = sg.function(xs, call(*xs))
    values = [np.random.default_rng(k).normal(size=s).astype("float32") for k, s in enumerate(shapes)]
    np.testing.assert_array_equal(f(*values), expected(*values))
    assert ("in range(16):" in f.source()) == tiled, f.source()


@pytest.mark.parametrize("rows, columns", [(512, 512), (1024, 64), (300, 700), (519, 37), (1030, 16), (2048, 9)])
def test_transposes_of_any_size(rows, columns):
    same(lambda x: T.relu(x.T) * 2, lambda x: np.maximum(x.T, 0) * 2, (rows, columns), tiled=columns >= 16)


def test_small_ones_are_left_alone():
    same(lambda x: x.T + 1, lambda x: x.T + 1, (40, 50), tiled=False)


def test_the_axes_need_not_be_neighbours():
    same(lambda x, y: T.transpose(x, (2, 1, 0)) + y, lambda x, y: x.transpose(2, 1, 0) + y, (513, 3, 35), (35, 3, 513))


def test_images_to_channels_last():
    same(lambda x: T.transpose(x, (0, 2, 3, 1)), lambda x: x.transpose(0, 2, 3, 1), (2, 70, 16, 16))


def test_two_results_of_one_kernel():
    x = T.matrix("x", shape=(600, 520))
    f = sg.function([x], [T.exp(x.T), -T.exp(x.T)])
    value = np.random.default_rng(0).normal(size=(600, 520)).astype("float32")
    for result, sign in zip(f(value), (1, -1)):
        np.testing.assert_allclose(result, sign * np.exp(value.T), rtol=1e-6)
    assert "in range(16):" in f.source()
