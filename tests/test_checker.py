"""The tester, tested: the gradient checker and the comparisons catch small lies and accept the truth."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.testing import GradientError, assert_close, assert_same, check_grad, random_graph

X = np.linspace(-1.3, 1.7, 12).reshape(3, 4)


def test_accepts_true_gradients_of_first_and_second_order():
    check_grad(lambda x, y: T.tanh(x * y) / (1 + x * x), X, X[:1] + 0.2, order=2)


@pytest.mark.parametrize("factor", [1.001, 1.0005, 0.9999])
def test_catches_a_small_lie_and_names_the_op(factor):
    with pytest.raises(GradientError, match="the rule of tanh is off"):
        check_grad(lambda x: T.tanh(x) * x, X, overrides={T.tanh: lambda g, y, x: factor * g * (1 - y * y)})


def test_catches_one_wrong_element_and_names_it():
    wrong = np.ones_like(X)
    wrong[2, 1] = 1.01
    with pytest.raises(GradientError, match=r"worst element \(2, 1\)"):
        check_grad(T.sin, X, overrides={T.sin: lambda g, y, x: g * T.cos(x) * wrong})


def test_names_the_argument():
    lie = [sg.DEFAULT, lambda g, y, a, b: 1.01 * g * a]
    with pytest.raises(GradientError, match="argument 1"):
        check_grad(lambda a, b: a * b, X, X + 0.1, overrides={T.multiply: lie})


def test_catches_a_missing_gradient():
    with pytest.raises(GradientError, match="exp"):
        check_grad(T.exp, X, overrides={T.exp: sg.STOP})


def test_catches_nan_in_a_gradient():
    with pytest.raises(GradientError, match="nan"):
        check_grad(T.exp, X, overrides={T.exp: lambda g, y, x: g * np.nan})


def test_catches_a_wrong_second_derivative():
    # first derivative right, but written so that its own derivative is lost
    frozen = sg.op_from_graph(lambda x: T.sin(x), vjp=lambda g, y, x: g * sg.stop_gradient(T.cos(x)), name="frozen_sin")
    check_grad(frozen, X)
    with pytest.raises(GradientError, match="gradient of frozen_sin"):
        check_grad(frozen, X, order=2)


def test_a_deliberate_rule_fails_as_it_must():
    with pytest.raises(GradientError, match="overridden by guided"):
        def guided(g, y, x):
            return g * (x > 0) * (g > 0)
        check_grad(T.relu, X, overrides={T.relu: guided})


def test_integer_arguments_are_passed_as_they_are():
    check_grad(lambda x, k: x[k] * 2, X, np.array([0, 2, 2]))


def test_refuses_a_point_without_floats():
    with pytest.raises(sg.SymgradError, match="no argument is a float"):
        check_grad(lambda k: k * 2, np.array([1, 2]))


def test_assert_close_catches_one_element_dtype_and_shape():
    a = np.ones((2, 3), np.float32)
    b = a.copy()
    b[1, 2] = 1.0001
    assert_close(a, a.copy())
    for other, message in ((b, r"\(1, 2\)"), (a.astype("f8"), "float64"), (a[:1], r"\(1, 3\)")):
        with pytest.raises(AssertionError, match=message):
            assert_close(a, other)


def test_assert_close_tells_nan_and_infinities_apart():
    special = np.array([np.nan, np.inf, -np.inf, 0.0])
    assert_close(special, special.copy())
    for k in range(3):
        changed = special.copy()
        changed[k] = -changed[k] if k else 0.0
        with pytest.raises(AssertionError):
            assert_close(changed, special)


def test_assert_same_runs_every_backend_it_is_given():
    assert_same(lambda x: T.exp(x) @ x.T, X)
    with pytest.raises(sg.BackendError, match="nowhere"):
        assert_same(T.exp, X, backends=("reference", "nowhere"))


def test_random_graphs_depend_on_the_seed_alone():
    a, b, c = random_graph(3), random_graph(3), random_graph(4)
    assert [v.tolist() for v in a.values] == [v.tolist() for v in b.values]
    assert [v.tolist() for v in a.values] != [v.tolist() for v in c.values]
