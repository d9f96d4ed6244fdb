"""Dropout: a mask per call, the same forward and backward; nothing at inference."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T


def test_dropout_zeroes_and_rescales_while_training_only():
    layer, x = sg.nn.Dropout(0.25), T.matrix("x")
    assert layer(x) is x
    y = layer(x, training=True)
    f = sg.function([x], [y, sg.grad(y.sum(), x)])
    ones = np.ones((100, 200), "float32")
    value, gradient = f(ones)
    assert set(np.unique(value)) == {0.0, np.float32(1 / 0.75)}
    assert abs((value == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 20_000)
    np.testing.assert_array_equal(value, gradient)
    assert not np.array_equal(f(ones)[0], value)


def test_seeded_dropout_repeats():
    def run():
        sg.nn.seed(3)
        layer, x = sg.nn.Dropout(0.5), T.vector("x", shape=(50,))
        return sg.function([x], layer(x, training=True))(np.ones(50, "float32"))
    np.testing.assert_array_equal(run(), run())


def test_dropout_holds_no_parameters_and_refuses_other_probabilities():
    model = sg.nn.Sequential([sg.nn.Dense(4, 4), sg.nn.Dropout(0.5)])
    assert len(model.params()) == 2
    with pytest.raises(ValueError, match="probability"):
        sg.nn.Dropout(1.0)
