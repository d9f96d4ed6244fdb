"""ifelse: only the taken side is computed, forward and backward, on every backend."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T

BACKENDS = ["cpu", "plain", "reference"]


def _branches():
    rng = np.random.default_rng(0)
    gate, x = T.scalar("gate", dtype="bool"), T.tensor("x", (4, 5))
    w, v = (sg.shared(rng.standard_normal((5, 5)).astype("float32")) for _ in range(2))
    return gate, x, w, v, T.tanh(x @ w), T.relu(x @ v) * 2


ARRAY = np.random.default_rng(1).standard_normal((4, 5)).astype("float32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_value_and_gradients_are_those_of_the_taken_side(backend):
    gate, x, w, v, a, b = _branches()
    cost = lambda y: (y ** 2).sum()
    y = cost(sg.ifelse(gate, a, b))
    f = sg.function([gate, x], [y, *sg.grad(y, [w, v, x])], backend=backend)
    for taken, side, used, unused in ((True, a, 0, 1), (False, b, 1, 0)):
        value, *gradients = f(taken, ARRAY)
        alone = sg.function([x], [cost(side), *sg.grad(cost(side), [(w, v)[used], x])], backend="reference")(ARRAY)
        np.testing.assert_allclose(value, alone[0], rtol=1e-5)
        np.testing.assert_allclose(gradients[used], alone[1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradients[2], alone[2], rtol=1e-4, atol=1e-5)
        assert not gradients[unused].any()


def test_the_other_side_runs_no_kernel_forward_or_backward():
    gate, x, w, v, a, b = _branches()
    y = (sg.ifelse(gate, a, b) ** 2).sum()
    f = sg.function([gate, x], [y, *sg.grad(y, [w, v])])
    for taken in (True, False):
        rows = [r for r in f.profile(taken, ARRAY) if "matmul" in r.what]
        # forward product and weight gradient of one side
        assert [r.calls for r in rows].count(1) == 2 and [r.calls for r in rows].count(0) == 2


def test_a_mask_outside_does_not_make_a_side_needed():
    gate, x, w = T.scalar("gate", dtype="bool"), T.tensor("x", (4, 5)), sg.shared(np.ones((5, 5), "float32"))
    h = x @ w
    f = sg.function([gate, x], [sg.ifelse(gate, T.relu(h) @ w, h), T.sum(h > 0)])
    relus = [r.calls for r in f.profile(False, ARRAY) if "relu" in r.what and "greater" not in r.what]
    assert relus and not any(relus)


def test_what_the_other_side_would_make_of_its_values_does_not_matter():
    gate, x = T.scalar("gate", dtype="bool"), T.vector("x", shape=(3,))
    y = sg.ifelse(gate, T.log(x), x).sum()
    f = sg.function([gate, x], [y, sg.grad(y, x)])
    value, gradient = f(False, np.array([-1.0, 0.0, 2.0], "float32"))
    assert value == 1.0
    np.testing.assert_array_equal(gradient, [1, 1, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nested_choices_with_several_results(backend):
    p, q = T.scalar("p", dtype="int64"), T.scalar("q", dtype="int64")
    x = T.vector("x", shape=(4,))
    inner = sg.ifelse(q, [x * 2, x.sum()], [T.exp(x), x.max()])
    y, s = sg.ifelse(p, inner, [x, x.sum() * 0])
    f = sg.function([p, q, x], [y, s, sg.grad((y ** 2).sum() + s, x)], backend=backend)
    a = np.array([0.1, -0.2, 0.3, 0.5], "float32")
    last = np.array([0, 0, 0, 1])
    expected = {(1, 1): (2 * a, a.sum(), 8 * a + 1), (1, 0): (np.exp(a), a.max(), 2 * np.exp(2 * a) + last),
                (0, 1): (a, 0, 2 * a), (0, 0): (a, 0, 2 * a)}
    for (i, j), wanted in expected.items():
        for got, want in zip(f(i, j, a), wanted):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_used_on_both_sides_and_outside(backend):
    gate, x = T.scalar("gate", dtype="bool"), T.vector("x", shape=(3,))
    h = T.tanh(x)
    y = (sg.ifelse(gate, h * 3, h * h) + h).sum()
    f = sg.function([gate, x], [y, sg.grad(y, x), sg.grad(y, h)], backend=backend)
    a = np.array([0.3, -0.5, 1.0])
    t = np.tanh(a)
    for taken, value, slope in ((True, 4 * t, np.full(3, 4.0)), (False, t * t + t, 2 * t + 1)):
        got = f(taken, a.astype("float32"))
        np.testing.assert_allclose(got[0], value.sum(), rtol=1e-5)
        np.testing.assert_allclose(got[1], slope * (1 - t * t), rtol=1e-4)
        np.testing.assert_allclose(got[2], slope, rtol=1e-5)


def test_the_condition_may_be_computed_or_drawn():
    x = T.vector("x", shape=(3,))
    computed = sg.function([x], sg.ifelse(x.sum() > 0, x, -x))
    np.testing.assert_array_equal(computed(np.array([1, 2, -9], "float32")), [-1, -2, 9])
    stream = sg.random.RandomStream(4)
    gate = stream.bernoulli(0.5, ())
    w = sg.shared(np.ones(3, "float32"))
    y = sg.ifelse(gate, x * w, x).sum()
    f = sg.function([x], [gate, y, sg.grad(y, w)])
    seen = set()
    for _ in range(20):
        drawn, _, gradient = f(np.ones(3, "float32"))
        assert gradient.any() == drawn
        seen.add(bool(drawn))
    assert seen == {True, False}


def test_overrides_and_second_derivatives_reach_both_sides():
    gate, x = T.scalar("gate", dtype="bool"), T.vector("x", shape=(3,))
    y = sg.ifelse(gate, T.relu(x) * 2, T.relu(x) ** 2).sum()
    ones = sg.grad(y, x, overrides={T.relu: lambda g, y, x: g * 0 + 5})
    assert sg.receipt(ones).counts == {"<lambda>": 1}
    second = sg.grad(sg.grad(y, x).sum(), x)
    f = sg.function([gate, x], [ones, second])
    a = np.array([-1.0, 1.0, 2.0], "float32")
    np.testing.assert_array_equal(f(True, a)[0], [5, 5, 5])
    np.testing.assert_array_equal(f(True, a)[1], [0, 0, 0])
    np.testing.assert_array_equal(f(False, a)[1], [0, 2, 2])


def test_forward_mode_moves_along_the_taken_side():
    gate, x = T.scalar("gate", dtype="bool"), T.vector("x", shape=(3,))
    y = sg.ifelse(gate, x * 2, x ** 2)
    f = sg.function([gate, x], sg.jvp(y, x, T.ones((3,))))
    a = np.array([1.0, 2.0, 3.0], "float32")
    np.testing.assert_allclose(f(True, a), [2, 2, 2])
    np.testing.assert_allclose(f(False, a), 2 * a)


def test_updates_of_an_untaken_side_leave_its_parameters_alone():
    gate, x, w, v, a, b = _branches()
    y = (sg.ifelse(gate, a, b) ** 2).sum()
    dw, dv = sg.grad(y, [w, v])
    f = sg.function([gate, x], y, updates={w: w - dw, v: v - dv})
    before = v.get_value()
    f(True, ARRAY)
    np.testing.assert_array_equal(v.get_value(), before)
    f(False, ARRAY)
    assert not np.array_equal(v.get_value(), before)


@pytest.mark.parametrize("build, kind", [
    (lambda x: sg.ifelse(x > 0, x, x), sg.ShapeError), (lambda x: sg.ifelse(x.sum(), x, x), sg.DTypeError),
    (lambda x: sg.ifelse(x.sum() > 0, x, x[:2]), sg.ShapeError), (lambda x: sg.ifelse(x.sum() > 0, x, x.astype("float64")), sg.DTypeError),
    (lambda x: sg.ifelse(x.sum() > 0, [x, x], [x]), sg.ShapeError)])
def test_sides_that_do_not_match_are_refused_at_the_user_s_line(build, kind):
    with pytest.raises(kind, match=r"test_branches\.py:\d+"):
        build(T.vector("x", shape=(3,)))


@pytest.mark.parametrize("backend", ["cpu", "plain", "reference"])
def test_an_index_of_the_side_not_taken_is_not_checked(backend):
    x, i = T.tensor("x", (4,)), T.scalar("i", "int64")
    f = sg.function([x, i], sg.ifelse(i < 4, T.take(x, i), x.sum()), backend=backend)
    values = np.arange(4, dtype="float32")
    assert f(values, 2) == 2 and f(values, 9) == 6
    with pytest.raises(IndexError):
        f(values, -5)


def test_a_value_of_one_condition_read_under_two():
    """Conditions are told apart without comparing variables, which would make a new variable."""
    x = T.tensor("x", (3,))
    first, second = T.sum(x) > 0, T.sum(x) > 1
    h = T.exp(x)
    nested = sg.ifelse(first, sg.ifelse(second, T.sin(h), x), x)
    y = nested + sg.ifelse(second, h, x)
    f = sg.function([x], [y, sg.grad(T.sum(y), x)], backend="plain")
    for value in ([1, 1, 1], [0.5, 0, 0], [-1, 0, 0]):
        a = np.array(value, "float32")
        both = a.sum() > 1
        want = (np.sin(np.exp(a)) + np.exp(a), (np.cos(np.exp(a)) + 1) * np.exp(a)) if both else (2 * a, np.full(3, 2))
        for got, expected in zip(f(a), want):
            np.testing.assert_allclose(got, expected, rtol=1e-5)
