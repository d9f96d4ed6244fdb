"""checkpoint: the same values and gradients, with what lies between computed again instead of kept."""

import numpy as np

import symgrad as sg
import symgrad.tensor as T

RNG = np.random.default_rng(0)
WEIGHTS = [sg.shared((RNG.standard_normal((64, 64)) / 8).astype("float32")) for _ in range(12)]


def _layers(weights):
    def run(x):
        for w in weights:
            x = T.tanh(x @ w)
        return x
    return run


def _function(wrap):
    x = T.tensor("x", (256, 64))
    h = x
    for k in range(0, 12, 4):
        h = wrap(_layers(WEIGHTS[k:k + 4]))(h)
    cost = (h * h).sum()
    return sg.function([x], [cost, *sg.grad(cost, [x, *WEIGHTS])])


def test_values_and_gradients_stay_and_memory_shrinks():
    plain, saving = _function(lambda f: f), _function(sg.checkpoint)
    a = RNG.standard_normal((256, 64)).astype("float32")
    for got, want in zip(saving(a), plain(a)):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    bytes_of = lambda f: f.executable.programs[()].bound({}).arena_bytes
    assert bytes_of(saving) < 0.75 * bytes_of(plain)


def test_inner_values_are_computed_twice():
    products = lambda f: sum("matmul" in k.what for k in f.executable.programs[()].plan.kernels)
    # forward again for all but the last product of each block, which only the next block reads
    assert products(_function(sg.checkpoint)) >= products(_function(lambda f: f)) + 9


def test_overrides_reach_inside_and_second_derivatives_work():
    x = T.vector("x", shape=(3,))
    y = sg.checkpoint(lambda v: T.relu(v) * v)(x).sum()
    guided = sg.grad(y, x, overrides={T.relu: lambda g, y, x: g * 0 + 7})
    second = sg.grad(sg.grad(y, x).sum(), x)
    a = np.array([-1.0, 1.0, 2.0], "float32")
    got = sg.function([x], [guided, second])(a)
    np.testing.assert_array_equal(got[0], 7 + np.maximum(a, 0))
    np.testing.assert_array_equal(got[1], [0, 2, 2])


def test_several_arguments_results_and_integers():
    x, i = T.vector("x", shape=(4,)), T.vector("i", shape=(2,), dtype="int64")
    a, b = sg.checkpoint(lambda v, k: [v[k] * 2, T.exp(v)])(x, i)
    f = sg.function([x, i], [a, sg.grad(a.sum() + b.sum(), x)])
    array = np.array([0.0, 1, 2, 3], "float32")
    value, gradient = f(array, np.array([1, 3]))
    np.testing.assert_array_equal(value, [2, 6])
    np.testing.assert_allclose(gradient, np.exp(array) + [0, 2, 0, 2], rtol=1e-6)


def test_nothing_counts_as_overridden_and_forward_mode_passes():
    x = T.vector("x", shape=(3,))
    y = sg.checkpoint(lambda v: v ** 3)(x)
    assert len(sg.receipt(sg.grad(y.sum(), x))) == 0
    moved = sg.function([x], sg.jvp(y, x, T.ones((3,))))(np.array([1.0, 2.0, 3.0], "float32"))
    np.testing.assert_allclose(moved, [3, 12, 27], rtol=1e-5)


def test_a_mask_drawn_inside_is_drawn_again_and_not_kept():
    x = T.tensor("x", (256, 64))

    def run(wrap):
        sg.nn.seed(4)
        dropouts = [sg.nn.Dropout(0.5) for _ in range(2)]
        h = x
        for w, dropout in zip(WEIGHTS, dropouts):
            h = wrap(lambda v, w=w, dropout=dropout: T.tanh(dropout(v, training=True) @ w))(h)
        f = sg.function([x], [h, sg.grad((h * h).sum(), x)])
        a = np.ones((256, 64), "float32")
        return f, [f(a), f(a)]

    (plain, want), (saving, got) = run(lambda f: f), run(sg.checkpoint)
    for (value, gradient), (wanted_value, wanted_gradient) in zip(got, want):
        np.testing.assert_array_equal(value, wanted_value)
        np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(got[0][0], got[1][0])
    assert "random_bits again" in saving.explain() and "random_bits again" not in plain.explain()


def test_a_mask_used_by_several_kernels_is_kept_as_a_byte():
    """Not as the random bits it was made of, nor as the float it is multiplied with."""
    x, w = T.tensor("x", (64, 64)), sg.shared(np.eye(64, dtype="float32"))
    mask = sg.random.RandomStream(3).bernoulli(0.5, (64, 64)).astype("float32")
    y = T.tanh(x * mask) @ w
    f = sg.function([x], sg.grad((y * y).sum(), x))
    f(np.ones((64, 64), "float32"))
    stored = [n.dtype for k in f.executable.programs[()].plan.kernels for n in k.stored if n.op.name in ("random_bits", "less", "cast")]
    assert stored == ["bool"]
