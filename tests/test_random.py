"""Random streams: known answers, one node one draw, distributions, gradients, state."""

import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.ops.random import philox, random_bits, sine_of_half_turn

# Salmon et al. 2011, the known answers published with Random123: counter and key words -> result words
KNOWN = [((0,) * 6, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
         ((0xFFFFFFFF,) * 6, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
         ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1")]
DRAWS = 20_000


@pytest.mark.parametrize("words, expected", KNOWN)
def test_philox_gives_the_published_answers(words, expected):
    arrays = [np.array([w], np.uint64) for w in words]
    with np.errstate(over="ignore"):
        assert " ".join(f"{int(r[0]):08x}" for r in philox(tuple(arrays[:4]), tuple(arrays[4:]))) == expected


@pytest.mark.parametrize("terms, dtype, error", [(7, "float32", 2e-7), (11, "float64", 4e-16)])
def test_the_sine_of_a_half_turn(terms, dtype, error):
    u = np.linspace(0, 1, 10_001)
    np.testing.assert_allclose(sine_of_half_turn(u.astype(dtype), terms), np.sin(np.pi * (u.astype(dtype).astype("f8") - 0.5)), rtol=0, atol=error)


def test_known_answer_from_a_kernel():
    # counter (0, 0, 0, 0) and key (0, 0): position 0 of draw 0 at step 0 of seed 0
    state = sg.shared(np.zeros(2, np.uint64))
    words = [random_bits(state, draw=0, word=w, shape=(3,))[0] for w in range(4)]
    assert " ".join(f"{int(r):08x}" for r in sg.function([], words)()) == KNOWN[0][1]


def test_backends_draw_the_same_bits():
    stream = sg.random.RandomStream(2**40 + 17)
    draws = [stream.bits((7, 5))[0], stream.uniform((31,)), stream.uniform((4,), dtype="float64"), stream.integers(-3, 9, (50,)),
             stream.bernoulli(0.3, (9, 9)), stream.permutation(17)]
    state, results = stream.state, []
    for backend in ("cpu", "plain", "reference"):
        stream.set_state(state)
        results.append(sg.function([], draws, backend=backend)())
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_array_equal(a, b)


def test_one_node_is_one_draw_forward_and_backward():
    stream = sg.random.RandomStream(1)
    x = T.tensor("x", (1000,))
    mask = stream.bernoulli(0.5, (1000,))
    y = x * mask
    f = sg.function([x], [y, sg.grad(y.sum(), x), mask])
    ones = np.ones(1000, "float32")
    first, second = f(ones), f(ones)
    for value, gradient, m in (first, second):
        np.testing.assert_array_equal(value, m)
        np.testing.assert_array_equal(gradient, m)
    assert not np.array_equal(first[0], second[0])


def test_a_draw_inside_a_block_with_a_rule_is_the_same_draw_outside():
    stream = sg.random.RandomStream(1)
    x = T.tensor("x", (100,))
    mask = stream.bernoulli(0.5, (100,)).astype("float32")

    @sg.op_from_graph(vjp=lambda g, y, x: g * mask * 2)
    def drop(x):
        return x * mask

    value, gradient = sg.function([x], [drop(x), sg.grad(drop(x).sum(), x)])(np.ones(100, "float32"))
    np.testing.assert_array_equal(gradient, 2 * value)


def test_two_draws_differ_and_two_functions_do_not_repeat_each_other():
    stream = sg.random.RandomStream(3)
    a, b = stream.uniform((500,)), stream.uniform((500,))
    f, g = sg.function([], [a, b]), sg.function([], a)
    (first, other), second = f(), g()
    assert not np.array_equal(first, other) and not np.array_equal(first, second)
    assert stream.state.tolist() == [3, 2]


def test_state_saves_and_restores():
    stream = sg.random.RandomStream(5)
    f = sg.function([], stream.normal((10,)))
    f()
    state = stream.state
    later = f()
    stream.set_state(state)
    np.testing.assert_array_equal(f(), later)
    stream.seed(5)
    f()
    np.testing.assert_array_equal(f(), later)


def test_a_pickled_function_and_a_copy_go_on_drawing():
    stream = sg.random.RandomStream(5)
    f = sg.function([], stream.uniform((10,)))
    twin, copy = pickle.loads(pickle.dumps(f)), f.copy()
    a = f()
    np.testing.assert_array_equal(twin(), a)
    np.testing.assert_array_equal(copy(), a)
    assert not np.array_equal(twin(), a) and not np.array_equal(copy(), a)


def test_a_pickled_function_draws_in_a_new_process(tmp_path):
    f = sg.function([], sg.random.RandomStream(5).gamma(2.0, 1.0, (4,)), backend="reference")
    (tmp_path / "f.pickle").write_bytes(pickle.dumps(f))
    script = "import pickle, sys, symgrad; print(pickle.load(open(sys.argv[1], 'rb'))().tolist())"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "f.pickle"], capture_output=True, text=True, cwd=Path(sg.__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(f().tolist())


def _largest_gap(draws, distribution):
    """The Kolmogorov-Smirnov statistic against a distribution function."""
    ordered = distribution(np.sort(draws.ravel().astype("float64")))
    n = len(ordered)
    return max(np.max(np.arange(1, n + 1) / n - ordered), np.max(ordered - np.arange(n) / n))


def _gamma_below(a, x):
    """The distribution function of the gamma distribution, by its power series."""
    x = np.asarray(x, "float64")
    term = total = np.exp(a * np.log(x) - x - math.lgamma(a + 1))
    for n in range(1, 600):
        term = term * x / (a + n)
        total = total + term
    return total


_phi = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))
_student_3 = lambda t: 0.5 + (t / math.sqrt(3) / (1 + t * t / 3) + np.arctan(t / math.sqrt(3))) / np.pi
CONTINUOUS = {
    "uniform": (lambda s, n, d: s.uniform(n, -1.0, 3.0, dtype=d), lambda x: (x + 1) / 4),
    "normal": (lambda s, n, d: s.normal(n, 2.0, 0.5, dtype=d), lambda x: _phi((x - 2) / 0.5)),
    "truncated_normal": (lambda s, n, d: s.truncated_normal(n, -1.0, 2.0, dtype=d), lambda x: (_phi(x) - _phi(-1.0)) / (_phi(2.0) - _phi(-1.0))),
    "exponential": (lambda s, n, d: s.exponential(n, 2.0, dtype=d), lambda x: 1 - np.exp(-x / 2)),
    "gumbel": (lambda s, n, d: s.gumbel(n, 1.0, 2.0, dtype=d), lambda x: np.exp(-np.exp(-(x - 1) / 2))),
    "gamma": (lambda s, n, d: s.gamma(2.5, 2.0, n, dtype=d), lambda x: _gamma_below(2.5, x / 2)),
    "gamma of shape 1/4": (lambda s, n, d: s.gamma(0.25, 1.0, n, dtype=d), lambda x: _gamma_below(0.25, x)),
    "gamma of shape 1": (lambda s, n, d: s.gamma(1, 1.0, n, dtype=d), lambda x: 1 - np.exp(-x)),
    "gamma of shape 60": (lambda s, n, d: s.gamma(60.0, 1.0, n, dtype=d), lambda x: _gamma_below(60.0, x)),
    "beta": (lambda s, n, d: s.beta(2.0, 3.0, n, dtype=d), lambda x: 6 * x**2 - 8 * x**3 + 3 * x**4),
    "beta at the ends": (lambda s, n, d: s.beta(0.5, 0.5, n, dtype=d), lambda x: 2 / np.pi * np.arcsin(np.sqrt(x))),
    "dirichlet": (lambda s, n, d: s.dirichlet([0.5, 0.2, 0.3], n, dtype=d)[:, 0], lambda x: 2 / np.pi * np.arcsin(np.sqrt(x))),
    "chisquare": (lambda s, n, d: s.chisquare(3, n, dtype=d), lambda x: _gamma_below(1.5, x / 2)),
    "student_t": (lambda s, n, d: s.student_t(3.0, n, 1.0, 2.0, dtype=d), lambda x: _student_3((x - 1) / 2)),
    "laplace": (lambda s, n, d: s.laplace(n, 1.0, 2.0, dtype=d), lambda x: 0.5 - 0.5 * np.sign(1 - x) * (1 - np.exp(-np.abs(x - 1) / 2))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_continuous_draws_have_their_distribution(dtype):
    stream = sg.random.RandomStream(1)
    results = sg.function([], [make(stream, (DRAWS,), dtype) for make, _ in CONTINUOUS.values()])()
    for (name, (_, distribution)), draws in zip(CONTINUOUS.items(), results):
        assert draws.dtype == dtype and np.isfinite(draws).all()
        # exceeded with probability 0.001 for a true sample; the seed is fixed
        assert _largest_gap(draws, distribution) < 1.95 / math.sqrt(DRAWS), name


def test_discrete_draws_have_their_frequencies():
    stream = sg.random.RandomStream(13)
    probs = np.array([0.1, 0.2, 0.0, 0.7])
    flips, dice, classes, order, some = sg.function([], [
        stream.bernoulli(0.3, (DRAWS,)), stream.integers(2, 8, (DRAWS,)), stream.categorical(probs, (DRAWS,)), stream.permutation(1000),
        stream.choice(np.array([10.0, 20.0, 30.0]), (2,), replace=False)])()
    assert flips.dtype == bool and dice.dtype == classes.dtype == order.dtype == "int64"
    deviations = lambda p: 4 * math.sqrt(p * (1 - p) / DRAWS) + 1e-12       # four standard deviations
    assert abs(flips.mean() - 0.3) < deviations(0.3)
    assert set(dice) == set(range(2, 8)) and all(abs((dice == k).mean() - 1 / 6) < deviations(1 / 6) for k in range(2, 8))
    assert all(abs((classes == k).mean() - p) <= deviations(p) for k, p in enumerate(probs))
    assert sorted(order) == list(range(1000)) and not np.array_equal(order, np.arange(1000))
    assert len(set(some)) == 2 and set(some) <= {10.0, 20.0, 30.0}


def _poisson(mean):
    return lambda k: math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))


def _binomial(n, p):
    return lambda k: math.comb(n, k) * p**k * (1 - p) ** (n - k) if k <= n else 0.0


COUNTS = {
    "few": (lambda s, n: s.poisson(0.7, n), _poisson(0.7)), "just few": (lambda s, n: s.poisson(9.99, n), _poisson(9.99)),
    "just many": (lambda s, n: s.poisson(10.0, n), _poisson(10.0)), "many": (lambda s, n: s.poisson(250.0, n), _poisson(250.0)),
    "small trials": (lambda s, n: s.binomial(7, 0.3, n), _binomial(7, 0.3)), "likely": (lambda s, n: s.binomial(12, 0.9, n), _binomial(12, 0.9)),
    "many trials": (lambda s, n: s.binomial(60, 0.4, n), _binomial(60, 0.4)),
    "many likely": (lambda s, n: s.binomial(1000, 0.97, n), lambda k: _binomial(1000, 0.03)(1000 - k) if k <= 1000 else 0.0),
    "geometric": (lambda s, n: s.geometric(0.15, n), lambda k: 0.15 * 0.85 ** (k - 1) if k else 0.0),
    "multinomial": (lambda s, n: s.multinomial(9, [0.1, 0.2, 0.3, 0.0, 0.4], n)[:, 2], _binomial(9, 0.3)),
}


def _surprise(draws, mass):
    """Pearson's statistic over its quantile of 0.999 (Wilson and Hilferty 1931); cells are joined until ten draws are expected."""
    observed = np.bincount(draws)
    expected = np.array([len(draws) * mass(k) for k in range(len(observed))])
    expected[-1] += len(draws) - expected.sum()
    seen, wanted = [0.0], [0.0]
    for o, e in zip(observed, expected):
        if wanted[-1] >= 10:
            seen.append(0.0)
            wanted.append(0.0)
        seen[-1] += o
        wanted[-1] += e
    cells, free = np.array(wanted), len(wanted) - 1
    return np.sum((np.array(seen) - cells) ** 2 / cells) / (free * (1 - 2 / (9 * free) + 3.09 * math.sqrt(2 / (9 * free))) ** 3)


def test_counts_have_their_distribution():
    stream = sg.random.RandomStream(2)
    for (name, (_, mass)), draws in zip(COUNTS.items(), sg.function([], [make(stream, (200_000,)) for make, _ in COUNTS.values()])()):
        assert draws.dtype == "int64" and draws.min() >= 0
        assert _surprise(draws, mass) < 1, name


def test_counts_at_the_edges_are_exact():
    stream = sg.random.RandomStream(2)
    n = (500,)
    edges = [stream.poisson(0.0, n), stream.binomial(0, 0.5, n), stream.binomial(30, 0.0, n), stream.binomial(300, 0.0, n), stream.binomial(300, 1.0, n),
             stream.geometric(1.0, n)]
    for draws, value in zip(sg.function([], edges)(), [0, 0, 0, 0, 300, 1]):
        assert (draws == value).all()
    large = sg.function([], [stream.poisson(1e9, (2000,)), stream.binomial(2**40, 0.25, (2000,))])()
    for draws, mean, deviation in zip(large, (1e9, 2.0**38), (math.sqrt(1e9), math.sqrt(2.0**40 * 3 / 16))):
        scaled = (draws - mean) / deviation
        assert abs(scaled.mean()) < 4 / math.sqrt(2000) and abs(scaled.std() - 1) < 4 / math.sqrt(4000)


def test_multinomial_counts_add_up_and_are_correlated_as_they_should_be():
    stream = sg.random.RandomStream(3)
    n, p = T.tensor("n", ("rows",), "int64"), T.tensor("p", ("rows", 3))
    f = sg.function([n, p], stream.multinomial(n, p))
    probs = np.tile(np.float32([0.2, 0.3, 0.5]), (DRAWS, 1))
    counts = f(np.full(DRAWS, 40), probs)
    assert counts.shape == (DRAWS, 3) and (counts.sum(1) == 40).all() and counts.min() >= 0
    expected = 40 * (np.diag(probs[0]) - np.outer(probs[0], probs[0]))
    np.testing.assert_allclose(np.cov(counts.T), expected, atol=4 * 10 * math.sqrt(2 / DRAWS))
    assert f(np.array([3, 0, 7]), probs[:3]).sum(1).tolist() == [3, 0, 7]


def test_backends_make_the_same_decisions():
    """Rejection is decided in float64, so draws are equal, not just close."""
    stream = sg.random.RandomStream(5)
    shape = np.array([0.02, 0.4, 1.0, 7.0, 300.0])
    draws = [stream.gamma(shape, 1.0, (6, 5)), stream.beta(shape, 2.0), stream.dirichlet(shape, (3,)), stream.poisson(shape * 3, (6, 5)),
             stream.binomial(50, shape / 400, (6, 5)), stream.multinomial(20, [0.5, 0.25, 0.25], (4,)), stream.geometric(0.3, (9,))]
    state, results = stream.state, []
    for backend in ("cpu", "plain", "reference"):
        stream.set_state(state)
        results.append(sg.function([], draws, backend=backend)())
    for other in results[1:]:
        for a, b in zip(results[0], other):
            np.testing.assert_array_equal(a, b)


def test_every_number_of_threads_draws_the_same():
    stream = sg.random.RandomStream(5)
    f, state, results = sg.function([], [stream.gamma(0.7, 1.0, (300, 300)), stream.poisson(20.0, (300, 300))]), stream.state, []
    for threads in (1, 2):
        stream.set_state(state)
        with sg.config(num_threads=threads):
            results.append(f())
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


def test_draws_by_rejection_differ_from_step_to_step_of_a_loop():
    stream = sg.random.RandomStream(6)
    rates = T.vector("rates")
    draws = sg.scan(lambda r: [stream.poisson(r, (500,)), stream.gamma(2.0, r, (500,))], sequences=[rates], outputs_info=[None, None])
    f = sg.function([rates], [*draws, sg.grad(draws[1].sum(), rates)])
    counts, values, slope = f(np.float32([50, 50, 200]))
    for rows, deviation in ((counts, np.sqrt([50, 50, 200])), (values / 2, np.array([50, 50, 200]) / math.sqrt(2))):
        assert (np.abs(rows.mean(1) - [50, 50, 200]) < 4 * deviation / math.sqrt(500)).all()
        assert not np.array_equal(rows[0], rows[1])
    np.testing.assert_allclose(slope, values.sum(1) / [50, 50, 200], rtol=1e-4)


def test_examples_of_a_batch_draw_the_same_with_their_own_parameters():
    stream, rates = sg.random.RandomStream(6), T.tensor("rates", ("n",))
    counts = sg.vectorize(lambda r: stream.poisson(r * 10, (400,)))(rates)
    values = sg.vectorize(lambda r: stream.gamma(r, 1.0, (400,)))(rates)
    outputs = [counts, values, sg.grad(values.sum(), rates)]
    state, results = stream.state, []
    for backend in ("cpu", "reference"):
        stream.set_state(state)
        results.append(sg.function([rates], outputs, backend=backend)(np.float32([0.5, 2, 2])))
    for got, want in zip(*results):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    counts, values, slope = results[0]
    np.testing.assert_array_equal(counts[1], counts[2])
    np.testing.assert_array_equal(values[1], values[2])
    assert slope[1] == slope[2] and abs(slope[1] / 400 - 1) < 0.2       # the mean of the draws is the shape
    for rows, scale in ((counts, 10), (values, 1)):
        assert (np.abs(rows.mean(1) - scale * np.array([0.5, 2, 2])) < 4 * np.sqrt(scale * np.array([0.5, 2, 2]) / 400)).all()


def test_a_mask_drawn_in_a_loop_is_the_same_on_the_way_back_and_kept_as_a_byte():
    stream, x = sg.random.RandomStream(6), T.tensor("x", (4, 100))

    def step(row, h):
        mask = stream.bernoulli(0.5, (100,))
        return [T.where(mask, h * 2, 0.0) + T.sin(row), mask]

    h, masks = sg.scan(step, sequences=x, outputs_info=[T.zeros((100,)), None])
    slope = sg.grad(h[-1].sum(), x)
    data = np.random.default_rng(1).normal(size=(4, 100)).astype("float32")
    drawn, got = sg.function([x], [masks, slope])(data)
    later = np.stack([np.prod(2.0 * drawn[k + 1:], axis=0) for k in range(4)])
    np.testing.assert_allclose(got, later * np.cos(data), rtol=1e-4, atol=1e-6)
    assert 0.3 < drawn.mean() < 0.7 and len({tuple(row) for row in drawn}) == 4
    f = sg.function([x], slope)
    f(data)
    kept = [n.dtype for k in f.executable.programs[()].plan.kernels for n in k.stored if n.dims == (4, 100)]
    assert "bool" in kept and "uint32" not in kept


def test_parameters_broadcast_and_sizes_may_be_unknown():
    stream = sg.random.RandomStream(6)
    a, scale = T.tensor("a", ("n", 1)), T.tensor("scale", ("m",))
    draws = stream.gamma(a, scale)
    counts = stream.poisson(a[:, 0], (4, a.shape[0]))
    f = sg.function([a, scale], [draws, counts, sg.grad(draws.sum(), scale)])
    for n, m in ((2000, 3), (7, 5)):
        x, y, g = f(np.full((n, 1), 4, "float32"), np.arange(1, m + 1, dtype="float32"))
        assert x.shape == (n, m) and y.shape == (4, n)
        np.testing.assert_allclose(g, (x / np.arange(1, m + 1)).sum(0), rtol=1e-4)
    deviation = 2 * np.arange(1, 4) / math.sqrt(2000)
    x, _, _ = f(np.full((2000, 1), 4, "float32"), np.float32([1, 2, 3]))
    assert (np.abs(x.mean(0) - 4 * np.arange(1, 4)) < 4 * deviation).all()


@pytest.mark.parametrize("shape", [0.03, 0.5, 1.0, 2.0, 5.0, 40.0])
def test_the_gradient_of_gamma_draws_in_the_shape_keeps_their_quantile(shape):
    """dx/da = -(dF/da) / (dF/dx), by central differences of the distribution function's series."""
    stream = sg.random.RandomStream(8)
    a = T.tensor("a", (400,), "float64")
    draws = stream.gamma(a, 1.0, dtype="float64")
    x, slope = sg.function([a], [draws, sg.grad(draws.sum(), a)])(np.full(400, shape))
    seen = x > 1e-200                                   # others are too small for the series
    x, slope, h = x[seen], slope[seen], 1e-4 * shape
    below = lambda b: _gamma_below(b, x)
    by_shape = (8 * (below(shape + h) - below(shape - h)) - (below(shape + 2 * h) - below(shape - 2 * h))) / (12 * h)
    density = np.exp((shape - 1) * np.log(x) - x - math.lgamma(shape))
    np.testing.assert_allclose(slope, -by_shape / density, rtol=2e-5)
    assert len(x) > 20


def test_gradients_of_beta_dirichlet_and_second_ones_of_gamma_are_those_of_the_mean():
    stream, n = sg.random.RandomStream(10), 100_000
    a, b = T.scalar("a", dtype="float64"), T.scalar("b", dtype="float64")
    beta = stream.beta(a, b, (n,), dtype="float64")
    rows = stream.dirichlet(T.stack([a, b, a + b]), (n,), dtype="float64")
    square = stream.gamma(a, 1.0, (n,), dtype="float64") ** 2
    f = sg.function([a, b], [*sg.grad(T.mean(beta), [a, b]), sg.grad(T.mean(rows[:, 1] ** 2), b), sg.hessian(T.mean(square), a)])
    p, q = 0.8, 2.5
    got = f(p, q)
    moment = lambda q: q * (q + 1) / (2 * (p + q) * (2 * (p + q) + 1))              # of the second coordinate, squared
    expected = [q / (p + q) ** 2, -p / (p + q) ** 2, (moment(q + 1e-5) - moment(q - 1e-5)) / 2e-5, 2.0]
    np.testing.assert_allclose(got, expected, rtol=0.02)


def test_location_and_scale_are_differentiable():
    stream = sg.random.RandomStream(7)
    mu, sigma = T.scalar("mu"), T.scalar("sigma")
    draws = stream.normal((50,), mu, sigma)
    z, dmu, dsigma = sg.function([mu, sigma], [draws, *sg.grad(draws.sum(), [mu, sigma])])(1.0, 2.0)
    np.testing.assert_allclose(dmu, 50)
    np.testing.assert_allclose(dsigma, ((z - 1) / 2).sum(), rtol=1e-4)


def test_a_discrete_draw_passes_no_gradient_but_straight_through_does():
    stream = sg.random.RandomStream(7)
    p = T.tensor("p", (20,))
    hard = stream.bernoulli(p).astype("float32")
    with pytest.raises(sg.DisconnectedError):
        sg.grad(hard.sum(), p)
    through = sg.straight_through(hard, p)
    value, plain, gradient = sg.function([p], [through, hard, sg.grad((through * 3).sum(), p)])(np.full(20, 0.5, "float32"))
    np.testing.assert_array_equal(value, plain)
    np.testing.assert_array_equal(gradient, np.full(20, 3, "float32"))


def test_gumbel_softmax_rows_are_distributions_and_hard_ones_one_hot():
    stream = sg.random.RandomStream(9)
    logits = T.matrix("logits", shape=(6, 4))
    soft = sg.random.gumbel_softmax(stream, logits, 0.5)
    hard = sg.random.gumbel_softmax(stream, logits, 0.5, hard=True)
    a, b = sg.function([logits], [soft, hard])(np.zeros((6, 4), "float32"))
    np.testing.assert_allclose(a.sum(1), 1, rtol=1e-5)
    assert set(np.unique(b)) == {0.0, 1.0} and (b.sum(1) == 1).all()


def test_the_score_function_is_an_unbiased_gradient():
    # d/dlogit E[b] = p (1 - p) for a Bernoulli draw b with p = sigmoid(logit)
    stream = sg.random.RandomStream(21)
    logit = T.scalar("logit")
    p = T.sigmoid(logit)
    b = stream.bernoulli(p, (DRAWS,)).astype("float32")
    log_probability = b * T.log(p) + (1 - b) * T.log(1 - p)
    estimate = sg.grad(T.mean(sg.random.score_function(log_probability, b)), logit)
    got = sg.function([logit], estimate)(0.4)
    expected = 1 / (1 + math.exp(-0.4)) * (1 - 1 / (1 + math.exp(-0.4)))
    assert abs(got - expected) < 0.01


@pytest.mark.parametrize("draw", [lambda s, p: s.poisson(p), lambda s, p: s.binomial(5, T.sigmoid(p)), lambda s, p: s.geometric(T.sigmoid(p)),
                                  lambda s, p: s.multinomial(5, T.softmax(p)), lambda s, p: s.categorical(T.softmax(p), (3,))])
def test_counts_pass_no_gradient(draw):
    p = T.tensor("p", (4,))
    with pytest.raises(sg.DisconnectedError):
        sg.grad(draw(sg.random.RandomStream(0), p).astype("float32").sum(), p)


@pytest.mark.parametrize("draw, value", [
    (lambda s, x: s.bernoulli(x), [0.5, 1.5]), (lambda s, x: s.categorical(x), [0.5, 0.6]), (lambda s, x: s.categorical(x), [1.2, -0.2]),
    (lambda s, x: s.poisson(x), [2.0, -1.0]), (lambda s, x: s.gamma(x), [1.0, -2.0]), (lambda s, x: s.gamma(2.0, x), [1.0, -2.0]),
    (lambda s, x: s.beta(x, 1.0), [1.0, 0.0]), (lambda s, x: s.dirichlet(x), [1.0, np.nan]), (lambda s, x: s.binomial(3, x), [0.5, -0.5]),
    (lambda s, x: s.normal((), 0.0, x), [1.0, -1.0]), (lambda s, x: s.exponential((), x), [1.0, -1.0]),
    (lambda s, x: s.multinomial(3, x), [0.5, 0.1])])
def test_parameters_are_looked_at_when_asked_to(draw, value):
    """Constants when the graph is built; values of a call under check="nan"."""
    x, value = T.tensor("x", (2,)), np.float32(value)
    y = draw(sg.random.RandomStream(0), x)
    with pytest.raises(sg.NanError, match=r"(?s)found: .*where: .*test_random\.py:\d+.*try: "):
        sg.function([x], y, check="nan")(value)
    with pytest.raises(sg.SymgradError, match=r"(?s)found: .*where: .*test_random\.py:\d+.*try: "):
        draw(sg.random.RandomStream(0), value)
    good = np.float32([0.5, 0.5])
    np.testing.assert_array_equal(sg.function([x], draw(sg.random.RandomStream(0), x), check="nan")(good),
                                  sg.function([x], draw(sg.random.RandomStream(0), x))(good))


@pytest.mark.parametrize("mistake", [
    lambda s: s.gamma(-1.0), lambda s: s.poisson([1.0, -2.0]), lambda s: s.multinomial(3, [0.5, 0.6]), lambda s: s.dirichlet(2.0),
    lambda s: s.bernoulli(1.5, (3,)), lambda s: s.categorical([0.5, 0.6]), lambda s: s.integers(3, 3), lambda s: sg.random.RandomStream(-1),
    lambda s: s.uniform((3,), dtype="int32"), lambda s: s.choice(3, (4,), replace=False)])
def test_mistakes_are_refused_at_the_user_s_line(mistake):
    with pytest.raises(sg.SymgradError, match=r"test_random\.py:\d+"):
        mistake(sg.random.RandomStream(0))
