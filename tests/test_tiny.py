"""Everything once, in seconds: the first thing to run and the first file to read."""

from __future__ import annotations

import pickle

import numpy as np

import symgrad as sg
import symgrad.tensor as T

V = np.array([1, -1, 2], "float32")


def guided(g, y, x):
    """Guided backpropagation (Springenberg et al. 2015)."""
    return g * (x > 0) * (g > 0)


def test_a_graph_is_built_compiled_and_called():
    x, y = T.vector("x"), T.vector("y")
    z = T.exp(x) * y + 1
    assert z.dtype == "float32" and z.ndim == 1
    for backend in ("reference", "cpu"):
        f = sg.function([x, y], {"z": z, "sum": z.sum()}, backend=backend)
        out = f(V, y=V)
        np.testing.assert_allclose(out["z"], np.exp(V) * V + 1, rtol=1e-6)
        assert out["sum"].shape == ()


def test_a_gradient_is_more_graph():
    x = T.vector("x")
    g = sg.grad((x**3).sum(), x)
    assert sg.grad(g.sum(), x).eval({x: V}).tolist() == (6 * V).tolist()


def test_a_rule_replaces_a_gradient_of_a_finished_model_and_says_so():
    x = T.vector("x")
    y = T.relu(x)
    c = T.constant(np.float32([1, -1, -1]))
    plain, heat = sg.vjp(y, x, c), sg.vjp(y, x, c, overrides={T.relu: guided})
    f = sg.function([x], [y, plain, heat])
    assert [r.tolist() for r in f(V)] == [[1, 0, 2], [1, 0, -1], [1, 0, 0]]
    assert sg.receipt(heat).counts == {"guided": 1} and len(f.receipts) == 1


def test_an_op_brings_its_own_rule():
    @sg.op_from_graph(vjp=guided)
    def guided_relu(x):
        return T.maximum(x, 0)
    x = T.vector("x")
    heat = sg.grad((guided_relu(x) * T.constant(np.float32([1, -1, -1]))).sum(), x)
    assert sg.function([x], heat)(V).tolist() == [1, 0, 0]


def test_parameters_learn():
    x, w = T.matrix("x"), sg.shared(np.zeros(2), "w")
    X = np.random.default_rng(0).standard_normal((50, 2))
    x = T.matrix("x", "float64")
    loss = ((x @ w - x @ T.constant(np.array([1.5, -2.0]))) ** 2).mean()
    step = sg.function([x], loss, updates={w: w - 0.3 * sg.grad(loss, w)})
    losses = [float(step(X)) for _ in range(40)]
    assert losses[-1] < 1e-6 * losses[0]
    np.testing.assert_allclose(w.get_value(), [1.5, -2], atol=1e-3)
    again = pickle.loads(pickle.dumps(step))
    assert float(again(X)) == float(step(X))


def test_mistakes_fail_on_the_line_that_makes_them():
    try:
        T.tensor("x", (3, 4)) @ T.tensor("w", (5, 6))
    except sg.ShapeError as error:
        assert __file__ in str(error)
    else:
        raise AssertionError("sizes that do not fit were accepted")


def test_a_function_shows_what_it_became():
    x = T.tensor("x", (8,))
    f = sg.function([x], T.tanh(x) * 2, backend="cpu")
    assert "def kernel" in f.source() and "1 kernel" in f.explain()
