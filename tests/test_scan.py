"""scan: loops against the same graphs unrolled, NumPy loops and finite differences."""

import pickle

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.graph.node import ITEM
from symgrad.graph.scan import is_scan
from symgrad.graph.walk import order
from symgrad.runtime.pipeline import passes

BACKENDS = ["reference", "plain", pytest.param("cpu", marks=pytest.mark.slow)]
rng = np.random.default_rng(20)


@pytest.fixture(autouse=True)
def doubles():
    with sg.config(floatX="float64"):
        yield


def normal(*shape, scale=1.0):
    return rng.normal(size=shape) * scale


def compiled(inputs, outputs, backend="reference"):
    return sg.function(inputs, outputs, backend=backend, on_unused_input="ignore")


def loops(outputs):
    return [n for n in order(outputs) if is_scan(n)]


def arranged(outputs):
    from symgrad.graph.inline import inline_blocks
    outputs = inline_blocks(outputs)
    for transform in passes():
        outputs = transform(outputs)
    return outputs


# ------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_a_sequence_and_a_constant(backend):
    x, w = T.tensor("x", (6, 3)), T.tensor("w", (3, 3))
    h = sg.scan(lambda xt, h, w: T.tanh(xt + h @ w), sequences=x, outputs_info=T.zeros((3,)), non_sequences=w)
    data, weight, state, want = normal(6, 3), normal(3, 3), np.zeros(3), []
    for row in data:
        state = np.tanh(row + state @ weight)
        want.append(state)
    np.testing.assert_allclose(compiled([x, w], h, backend)(data, weight), want, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_taps_of_results_and_of_sequences(backend):
    """y[t] = y[t-1] + 2 y[t-3] + x[t-1] x[t+1]; the sequence loses one row at both ends."""
    x, y0 = T.tensor("x", (8,)), T.tensor("y0", (3,))
    y = sg.scan(lambda before, after, old, last: last + 2 * old + before * after,
                sequences={"input": x, "taps": [-1, 1]}, outputs_info={"initial": y0, "taps": [-3, -1]})
    data, first = normal(8), normal(3)
    want = list(first)
    for t in range(1, 7):
        want.append(want[-1] + 2 * want[-3] + data[t - 1] * data[t + 1])
    np.testing.assert_allclose(compiled([x, y0], y, backend)(data, first), want[3:], rtol=1e-12)


@pytest.mark.parametrize("taps, want", [([0], range(8)), ([-2], range(6)), ([3], range(3, 8)), ([-1, 0], range(1, 8)), ([0, 2], range(2, 8))])
def test_where_taps_of_a_sequence_begin_and_end(taps, want):
    """Theano's rule: step 0 is where all taps exist, and tap 0 counts as read. Shown: what the last tap reads."""
    x = T.tensor("x", (8,))
    y = sg.scan(lambda *rows: rows[-1] * 1, sequences={"input": x, "taps": taps})
    np.testing.assert_array_equal(compiled([x], y)(np.arange(8.0)), list(want))


@pytest.mark.parametrize("backend", BACKENDS)
def test_backwards_reads_sequences_from_their_end(backend):
    x = T.tensor("x", (5, 2))
    total = sg.scan(lambda xt, s: 2 * s + xt, sequences=x, outputs_info=T.zeros((2,)), go_backwards=True)
    data, s, want = normal(5, 2), np.zeros(2), []
    for row in data[::-1]:
        s = 2 * s + row
        want.append(s)
    np.testing.assert_allclose(compiled([x], total, backend)(data), want, rtol=1e-12)


def test_fewer_steps_than_rows():
    x = T.tensor("x", (9,))
    f = lambda **how: compiled([x], sg.scan(lambda xt: xt * 10, sequences=x, n_steps=4, **how))(np.arange(9.0))
    np.testing.assert_array_equal(f(), [0, 10, 20, 30])
    np.testing.assert_array_equal(f(go_backwards=True), [80, 70, 60, 50])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_number_of_steps_may_be_an_input(backend):
    x, n = T.scalar("x"), T.scalar("n", "int64")
    y = sg.scan(lambda p, x: p * x, outputs_info=1.0, non_sequences=x, n_steps=n)
    f = compiled([x, n], [y, sg.grad(y[-1], x)], backend)
    for steps in (5, 3, 1):
        powers, slope = f(2.0, np.int64(steps))
        np.testing.assert_allclose(powers, 2.0 ** np.arange(1, steps + 1))
        np.testing.assert_allclose(slope, steps * 2.0 ** (steps - 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequences_of_unknown_length(backend):
    x = T.tensor("x", ("n", 2))
    h = sg.scan(lambda xt, h: T.sin(h + xt), sequences=x, outputs_info=T.zeros((2,)))
    f = compiled([x], [h, sg.grad(T.sum(h[-1]), x)], backend)
    for n in (4, 7, 4):
        data = normal(n, 2)
        state, want = np.zeros(2), []
        for row in data:
            state = np.sin(state + row)
            want.append(state)
        value, slope = f(data)
        np.testing.assert_allclose(value, want, rtol=1e-12)
        inner = np.concatenate([np.zeros((1, 2)), want[:-1]]) + data
        np.testing.assert_allclose(slope, np.cumprod(np.cos(inner)[::-1], axis=0)[::-1], rtol=1e-10)


def test_strict_steps_use_only_what_they_are_passed():
    w = sg.shared(np.ones(3), "w")
    x = T.tensor("x", (4, 3))
    raised(sg.SymgradError, lambda: sg.scan(lambda xt: xt * w, sequences=x, strict=True), "w: float64 (3,)", "non_sequences")
    f = compiled([x], sg.scan(lambda xt, w: xt * w, sequences=x, non_sequences=w, strict=True))
    np.testing.assert_array_equal(f(np.ones((4, 3))), np.ones((4, 3)))


def test_a_loop_inside_a_block_with_a_rule():
    """OpFromGraph over a loop: its own rule, or the gradient of the loop."""
    x = T.tensor("x", (4,))
    total = sg.scan(lambda v, s: s + v * v, sequences=x, outputs_info=0.0)[-1]
    ordinary, ruled = sg.OpFromGraph([x], [total]), sg.OpFromGraph([x], [total], vjp=lambda g, y, x: g * x * 100)
    y = T.tensor("y", (4,))
    f = compiled([y], [ordinary(y), sg.grad(ordinary(y), y), sg.grad(ruled(y), y)])
    value, slope, by_rule = f(np.arange(4.0))
    assert value == 14
    np.testing.assert_array_equal(slope, 2 * np.arange(4.0))
    np.testing.assert_array_equal(by_rule, 100 * np.arange(4.0))


def test_results_are_a_variable_or_a_list():
    one = sg.scan(lambda a: a + 1, outputs_info=0.0, n_steps=3)
    two = sg.scan(lambda a: (a + 1, a * a), outputs_info=[0.0, None], n_steps=3)
    assert isinstance(one, sg.Variable) and isinstance(two, list)
    np.testing.assert_array_equal(compiled([], two)()[1], [0, 1, 4])
    assert isinstance(sg.scan(lambda: [T.constant(2.0)], n_steps=2), list)
    assert isinstance(sg.scan(lambda: T.constant(2.0), n_steps=2, return_list=True), list)


def test_a_map_over_two_sequences_needs_no_outputs_info():
    a, b = T.tensor("a", (4,)), T.tensor("b", (4,))
    np.testing.assert_array_equal(compiled([a, b], sg.scan(lambda x, y: x * y, sequences=[a, b]))(np.arange(4.0), np.arange(4.0)), [0, 1, 4, 9])


# ---------------------------------------------------------------------------------------- gradients
def two_ways(unrolled):
    """Loss, gradients and gradients of gradients of a loop with everything in it, as scan or step by step."""
    x, u, w, h0 = T.tensor("x", (5, 3)), T.tensor("u", (3, 4)), T.tensor("w", (4, 4)), T.tensor("h0", (2, 4))

    def step(xt, older, old):
        h = T.tanh(xt @ u + old @ w + 0.3 * older * older)
        return h, T.sum(T.exp(h) * xt[0])

    if unrolled:
        hs, sums = [h0[0], h0[1]], []
        for t in range(5):
            h, s = step(x[t], hs[-2], hs[-1])
            hs.append(h)
            sums.append(s)
        hs, sums = T.stack(hs[2:]), T.stack(sums)
    else:
        hs, sums = sg.scan(step, sequences=x, outputs_info=[{"initial": h0, "taps": [-2, -1]}, None])
    loss = T.sum(hs[-1] ** 2) + T.sum(sums * T.arange(5)) + T.sum(T.sin(hs[1:3]))
    inputs = [x, u, w, h0]
    first = sg.grad(loss, inputs)
    return inputs, [loss, *first, *sg.grad(sum(T.sum(T.sin(g)) for g in first), inputs)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_and_second_gradients_equal_those_of_the_unrolled_graph(backend):
    data = [normal(5, 3), normal(3, 4), normal(4, 4, scale=0.5), normal(2, 4)]
    got = compiled(*two_ways(False), backend)(*data)
    want = compiled(*two_ways(True))(*data)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_gradients_against_finite_differences():
    def model(x, h, w):
        hs = sg.scan(lambda xt, h: T.tanh(xt + h @ w) * T.sigmoid(xt), sequences=x, outputs_info=h)
        return T.sum(hs * hs) + T.sum(T.exp(hs[-1]))
    sg.testing.check_grad(model, normal(4, 3), normal(3), normal(3, 3, scale=0.5), order=2)


def test_gradients_of_a_loop_over_matrices():
    """Batched rows, bias, and a weight used twice per step: the contributions of all steps and uses add up."""
    def model(x, w, b):
        h = sg.scan(lambda xt, h: T.tanh((xt @ w + b) @ w + h), sequences=x, outputs_info=T.zeros((2, 3)))
        return T.sum(T.sin(h[-1]))
    sg.testing.check_grad(model, normal(4, 2, 3), normal(3, 3, scale=0.5), normal(3))


def test_gradients_of_a_convolution_in_a_loop():
    def model(x, w):
        h = sg.scan(lambda xt, h: T.tanh(T.conv2d(xt, w, padding=1) + h), sequences=x, outputs_info=T.zeros((1, 2, 4, 4)))
        return T.sum(h[-1] ** 2)
    sg.testing.check_grad(model, normal(3, 1, 2, 4, 4), normal(2, 2, 3, 3, scale=0.3))


def test_truncation_stops_the_walk_back():
    x = T.tensor("x", (6,))
    whole = sg.scan(lambda xt, h: 2 * h + xt, sequences=x, outputs_info=0.0)
    cut = sg.scan(lambda xt, h: 2 * h + xt, sequences=x, outputs_info=0.0, truncate_gradient=2)
    f = compiled([x], [sg.grad(whole[-1], x), sg.grad(cut[-1], x)])
    a, b = f(normal(6))
    np.testing.assert_array_equal(a, 2.0 ** np.arange(5, -1, -1))
    np.testing.assert_array_equal(b, [0, 0, 0, 0, 2, 1])
    theano = sg.scan(lambda xt, h: 2 * h + xt, sequences=x, outputs_info=0.0, truncate_gradient=-1)
    np.testing.assert_array_equal(compiled([x], sg.grad(theano[-1], x))(normal(6)), a)


def test_a_state_that_only_integers_pass_through_gives_no_gradient():
    x = T.tensor("x", (4,))
    y, count = sg.scan(lambda xt, s, k: (s + xt * k, k + 1), sequences=x, outputs_info=[0.0, T.constant(1)])
    np.testing.assert_array_equal(compiled([x], sg.grad(y[-1], x))(normal(4)), [1, 2, 3, 4])
    assert count.dtype == "int64"


def test_parameters_of_all_kinds_get_their_gradients():
    """Shared variables that the step closes over, and variables computed from inputs outside."""
    w, x, s = sg.shared(normal(3, 3), "w"), T.tensor("x", (4, 3)), T.scalar("s")
    scale = T.exp(s)
    h = sg.scan(lambda xt, h: T.tanh(xt @ w * scale + h), sequences=x, outputs_info=T.zeros((3,)))
    unrolled = T.zeros((3,))
    for t in range(4):
        unrolled = T.tanh(x[t] @ w * scale + unrolled)
    ours, theirs = (sg.grad(T.sum(y ** 2), [w, s, x]) for y in (h[-1], unrolled))
    data = normal(4, 3), 0.3
    for a, b in zip(compiled([x, s], ours)(*data), compiled([x, s], theirs)(*data)):
        np.testing.assert_allclose(a, b, rtol=1e-10)


# -------------------------------------------------------------------------- loops that end by themselves
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spelling", ["returned", "argument"])
def test_until_ends_the_loop_and_its_last_step_counts(backend, spelling):
    """Powers of x up to the first above 50: their sum, the last one, and both slopes."""
    x = T.scalar("x")
    if spelling == "returned":
        y = sg.scan(lambda p, x: (p * x, sg.until(p * x > 50)), outputs_info=1.0, non_sequences=x, n_steps=20)
    else:
        y = sg.scan(lambda p, x: p * x, outputs_info=1.0, non_sequences=x, n_steps=20, until=lambda p: p > 50)
    f = compiled([x], [y, T.sum(y), sg.grad(T.sum(y), x), sg.grad(y[-1], x)], backend)
    for base, steps in ((2.0, 6), (1.5, 10), (60.0, 1), (1.0, 20)):
        k = np.arange(1, steps + 1)
        powers, total, slope, last = f(base)
        np.testing.assert_allclose(powers, base ** k, rtol=1e-12)
        np.testing.assert_allclose([total, slope, last], [np.sum(base ** k), np.sum(k * base ** (k - 1)), steps * base ** (steps - 1)], rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_loops_over_rows_that_a_mask_picks(backend):
    x, mask = T.tensor("x", (6,)), T.tensor("mask", (6,))
    running = sg.scan(lambda v, s: v + 2 * s, sequences=x[mask > 0], outputs_info=0.0)
    pairs = sg.scan(lambda a, b: a * b, sequences={"input": x[mask > 0], "taps": [0, 1]})
    f = compiled([x, mask], [running, sg.grad(T.sum(running), x), pairs, sg.grad(T.sum(pairs), x)], backend)
    rows, slopes, products, product_slopes = f(np.arange(6.0), np.array([1, -1, 1, 1, -1, 0.0]))
    np.testing.assert_array_equal(rows, [0, 2, 7])
    np.testing.assert_array_equal(slopes, [7, 0, 3, 1, 0, 0])
    np.testing.assert_array_equal(products, [0, 6])
    np.testing.assert_array_equal(product_slopes, [2, 0, 3, 2, 0, 0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_counted_within_a_step(backend):
    x = T.tensor("x", (6,))
    above = sg.scan(lambda v: T.sum(x[x > v] ** 2), sequences=x)
    value, slope = compiled([x], [above, sg.grad(T.sum(above), x)], backend)(np.arange(6.0))
    np.testing.assert_array_equal(value, [55, 54, 50, 41, 25, 0])
    np.testing.assert_array_equal(slope, 2 * np.arange(6.0) * np.arange(6.0))


# ---------------------------------------------------------------------------------------- overrides
def guided(g, y, x):
    return g * (x > 0) * (g > 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_overrides_reach_into_loops(backend):
    x, w = T.tensor("x", (5, 3)), T.constant(normal(3, 3))
    h = sg.scan(lambda xt, h: T.relu(xt @ w + h), sequences=x, outputs_info=T.zeros((3,)))
    state = T.zeros((3,))
    for t in range(5):
        state = T.relu(x[t] @ w + state)
    mix = T.constant(np.array([1.0, -1.0, 0.5]))
    ours, theirs = (sg.grad(T.sum(y * mix), x, overrides={T.relu: guided}) for y in (h[-1], state))
    data = normal(5, 3)
    np.testing.assert_allclose(compiled([x], ours, backend)(data), compiled([x], theirs)(data), rtol=1e-12)
    assert "relu" in str(sg.receipt(ours))


def test_blocks_with_rules_fire_in_loops():
    @sg.op_from_graph(vjp=guided)
    def guided_relu(x):
        return T.relu(x)

    x = T.tensor("x", (4, 3))
    signs = T.constant(np.array([1.0, -1.0, 1.0]))
    score = lambda relu: T.sum(sg.scan(lambda xt, h: relu(xt + h), sequences=x, outputs_info=T.zeros((3,)))[-1] * signs)
    by_block = sg.grad(score(guided_relu), x)
    by_override = sg.grad(score(T.relu), x, overrides={T.relu: guided})
    a, b, plain = compiled([x], [by_block, by_override, sg.grad(score(T.relu), x)])(np.abs(normal(4, 3)))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, plain)


def test_an_override_that_matches_nothing_inside_is_refused():
    x = T.tensor("x", (4, 3))
    h = sg.scan(lambda xt, h: T.tanh(xt + h), sequences=x, outputs_info=T.zeros((3,)))
    with pytest.raises(sg.UnusedOverrideError):
        sg.grad(T.sum(h), x, overrides={T.relu: guided})


def test_only_the_taken_branch_of_a_step_runs():
    x = T.tensor("x", (6, 3))
    h = sg.scan(lambda xt, h: sg.ifelse(T.sum(xt) > 0, T.tanh(xt + h), h * 0.5), sequences=x, outputs_info=T.zeros((3,)))
    data, state, want = normal(6, 3), np.zeros(3), []
    for row in data:
        state = np.tanh(row + state) if row.sum() > 0 else state * 0.5
        want.append(state)
    for backend in ("reference", "plain"):
        np.testing.assert_allclose(compiled([x], h, backend)(data), want, rtol=1e-12)
    log = T.tensor("log", (4,))
    guarded = sg.scan(lambda v: sg.ifelse(v > 0, T.log(v), v * 0), sequences=log)
    value, slope = compiled([log], [guarded, sg.grad(T.sum(guarded), log)], "plain")(np.array([1.0, -1.0, 0.0, 2.0]))
    np.testing.assert_allclose(value, [0, 0, 0, np.log(2)])
    np.testing.assert_allclose(slope, [1, 0, 0, 0.5])


# ----------------------------------------------------------------------------------------- the draws
@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_differ_from_step_to_step_and_from_call_to_call(backend):
    stream = sg.random.RandomStream(7)
    f = compiled([], sg.scan(lambda: stream.uniform((3,)), n_steps=5), backend)
    draws = np.concatenate([f(), f()])
    assert len(np.unique(draws)) == 30


def test_draws_are_equal_on_all_backends_and_across_a_restart():
    stream = sg.random.RandomStream(7)
    y = sg.scan(lambda: stream.normal((3,)), n_steps=4)
    state = stream.state
    values = []
    for backend in ("reference", "plain"):
        stream.set_state(state)
        values.append(compiled([], y, backend)())
    np.testing.assert_allclose(values[0], values[1], rtol=1e-12)


def test_draws_of_nested_loops_all_differ():
    stream = sg.random.RandomStream(8)
    inner = lambda c: sg.scan(lambda a: a + stream.uniform(()), outputs_info=c, n_steps=3)[-1]
    sums = compiled([], sg.scan(inner, outputs_info=0.0, n_steps=6))()
    steps = np.diff(np.concatenate([[0.0], sums]))
    assert len(np.unique(steps.round(12))) == 6


def test_a_draw_outside_the_step_is_the_same_at_every_step():
    stream = sg.random.RandomStream(9)
    noise = stream.uniform((3,))
    rows = compiled([], sg.scan(lambda: noise * 1, n_steps=4))()
    assert (rows == rows[0]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_way_back_sees_the_draws_of_the_way_forward(backend):
    stream, x = sg.random.RandomStream(11), T.tensor("x", (6, 3))
    h = sg.scan(lambda xt, h: h + xt * stream.bernoulli(0.5, (3,)), sequences=x, outputs_info=T.zeros((3,)))
    f = compiled([x], [h[-1], sg.grad(T.sum(h[-1]), x)], backend)
    data = normal(6, 3)
    for _ in range(2):
        value, mask = f(data)
        assert set(np.unique(mask)) == {0.0, 1.0}
        np.testing.assert_allclose(value, (data * mask).sum(0), rtol=1e-12)


# --------------------------------------------------------------------------------------- checkpoints
def long_loop(n, **how):
    x, w, h0, stream = T.tensor("x", (n, 3)), T.tensor("w", (3, 3)), T.tensor("h0", (2, 3)), sg.random.RandomStream(5)

    def step(xt, older, old):
        h = T.tanh(xt * stream.bernoulli(0.7, (3,)) + old @ w) + 0.1 * older
        return h, T.sum(h * xt)

    hs, sums = sg.scan(step, sequences=x, outputs_info=[{"initial": h0, "taps": [-2, -1]}, None], **how)
    loss = T.sum(hs[-1] ** 2) + T.sum(T.sin(sums))
    return [x, w, h0], [hs, sums, *sg.grad(loss, [x, w, h0])]


@pytest.mark.parametrize("n, every", [(12, 4), (11, 3), (5, 1), (4, 9)])
def test_checkpoints_change_no_value(n, every):
    data = [normal(n, 3), normal(3, 3), normal(2, 3)]
    got = compiled(*long_loop(n, checkpoint_every=every), "plain")(*data)
    for a, b in zip(got, compiled(*long_loop(n))(*data)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_checkpoints_save_memory():
    """400 steps of a wide state: what is kept for the way back falls to less than half; the cotangents of all rows remain."""
    def arena(**how):
        x, w = T.tensor("x", (400, 64)), T.tensor("w", (64, 64))
        h = sg.scan(lambda xt, h: T.tanh(T.sigmoid(h @ w) * xt), sequences=x, outputs_info=T.zeros((64,)), **how)
        f = compiled([x, w], sg.grad(T.sum(h[-1]), w), "cpu")
        return f.executable.programs[()].bound({}).arena_bytes
    assert arena(checkpoint_every=20) < arena() / 2


# -------------------------------------------------------------------------------- other derivatives
def rnn():
    x, w, h0 = T.tensor("x", (4, 3)), T.tensor("w", (3, 3)), T.tensor("h0", (3,))
    return x, w, h0, sg.scan(lambda xt, h: T.tanh(xt + h @ w), sequences=x, outputs_info=h0)


def test_forward_mode_equals_columns_of_the_jacobian():
    x, w, h0, h = rnn()
    tangent = T.tensor("tangent", (3, 3))
    f = compiled([x, w, h0, tangent], [sg.jacobian(h[-1], w), sg.jvp(h, w, tangent)])
    point = normal(4, 3), normal(3, 3), normal(3)
    direction = normal(3, 3)
    jacobian, moved = f(*point, direction)
    np.testing.assert_allclose(moved[-1], np.tensordot(jacobian, direction, 2), rtol=1e-10)
    step = 1e-6
    g = compiled([x, w, h0], h)
    slope = (g(point[0], point[1] + step * direction, point[2]) - g(point[0], point[1] - step * direction, point[2])) / (2 * step)
    np.testing.assert_allclose(moved, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batched", ["x", "w", "h0"])
def test_vectorize_runs_one_loop_for_all_examples(batched):
    point = {"x": normal(4, 3), "w": normal(3, 3), "h0": normal(3)}
    many = {**point, batched: np.stack([point[batched], 2 * point[batched]])}
    inputs = {k: T.tensor(k, v.shape) for k, v in many.items()}

    def model(value):
        given = {**inputs, batched: value}
        return sg.scan(lambda xt, h: T.tanh(xt + h @ given["w"]), sequences=given["x"], outputs_info=given["h0"])

    y = sg.vectorize(model)(inputs[batched])
    assert len(loops([y])) == 1
    x, w, h0, h = rnn()
    one = compiled([x, w, h0], h)
    want = [one(**{**point, batched: v}) for v in many[batched]]
    np.testing.assert_allclose(compiled(list(inputs.values()), y)(**many), want, rtol=1e-12)


def test_hessian_through_a_loop_is_symmetric():
    x, w, h0, h = rnn()
    value = compiled([x, w, h0], sg.hessian(T.sum(T.sin(h)), h0))(normal(4, 3), normal(3, 3), normal(3))
    np.testing.assert_allclose(value, value.T, atol=1e-14)


def test_checkpoint_around_a_loop():
    x, w, h0, _ = rnn()
    run = lambda x, w, h0: sg.scan(lambda xt, h: T.tanh(xt + h @ w), sequences=x, outputs_info=h0)
    a, b = (sg.grad(T.sum(f(x, w, h0)[-1] ** 2), [x, w, h0]) for f in (run, sg.checkpoint(run)))
    point = normal(4, 3), normal(3, 3), normal(3)
    for got, want in zip(compiled([x, w, h0], b, "plain")(*point), compiled([x, w, h0], a)(*point)):
        np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_loop_in_a_loop_with_gradients():
    def model(x, c):
        inner = lambda row, start: sg.scan(lambda v, s: T.sin(s + v), sequences=row, outputs_info=start)[-1]
        return T.sum(sg.scan(lambda row, s: inner(row, s) * 0.9, sequences=x, outputs_info=c) ** 2)
    sg.testing.check_grad(model, normal(3, 4), np.array(0.2), order=2)


# ----------------------------------------------------------------------------- what the passes make
def lstm():
    x, w, u, b = T.tensor("x", (7, 2, 3)), T.tensor("w", (3, 8)), T.tensor("u", (2, 8)), T.tensor("b", (8,))

    def step(xt, h, c):
        i, f, g, o = T.split(xt @ w + h @ u + b, 4, axis=1)
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return T.sigmoid(o) * T.tanh(c), c

    h, _ = sg.scan(step, sequences=x, outputs_info=[T.zeros((2, 2)), T.zeros((2, 2))])
    return [x, w, u, b], h


def products(nodes):
    return [n for n in order(nodes) if n.op.name == "matmul"]


def test_products_of_sequences_and_of_weights_leave_the_loops():
    """An LSTM and its gradient: one loop each way with one product in it; three products over all steps outside."""
    inputs, h = lstm()
    outputs = arranged([T.sum(h[-1] ** 2), *sg.grad(T.sum(h[-1] ** 2), inputs[1:])])
    found = loops(outputs)
    assert len(found) == 2
    assert [len(products(n.op.body.outputs)) for n in found] == [1, 1]
    assert len(products(outputs)) == 3


def test_results_nobody_reads_are_not_kept():
    x = T.tensor("x", (5, 3))
    a, b = sg.scan(lambda xt, h: (h + xt, T.exp(xt)), sequences=x, outputs_info=[T.zeros((3,)), None])
    loop, = loops(arranged([b]))
    assert not loop.op.body.states and len(loop.inputs) == 1
    loop, = loops(arranged([a]))
    assert not loop.op.body.outs


def test_work_that_does_not_change_is_done_once():
    x, w = T.tensor("x", (5, 3)), T.tensor("w", (3,))
    h = sg.scan(lambda xt, h, w: h * T.exp(w) + xt, sequences=x, outputs_info=T.zeros((3,)), non_sequences=w)
    loop, = loops(arranged([h]))
    assert "exp" not in {n.op.name for n in order(loop.op.body.outputs)}


def test_the_loop_forward_is_not_run_again_for_the_way_back():
    inputs, h = lstm()
    outputs = arranged([h, *sg.grad(T.sum(T.sin(h)), inputs)])
    assert len(loops(outputs)) == 2


def test_only_the_last_state_is_kept_when_only_it_is_read():
    x = T.tensor("x", (50, 3))
    total = sg.scan(lambda xt, s: s + T.sin(xt) * s, sequences=x, outputs_info=T.ones((3,)))[-1]
    f = compiled([x], total, "plain")
    data = normal(50, 3)
    np.testing.assert_allclose(f(data), np.prod(1 + np.sin(data), axis=0), rtol=1e-10)
    loop, = loops(arranged([total]))
    read = {n.attrs["k"] for n in order(arranged([total])) if n.op is ITEM}
    assert read == {1} and len(loop.op.body.states) == 1


def test_equal_loops_are_one():
    x = T.tensor("x", (5, 3))
    one, two = (sg.scan(lambda xt, h: T.tanh(xt + h), sequences=x, outputs_info=T.zeros((3,))) for _ in range(2))
    assert one is two


# ------------------------------------------------------------------------- gates in loops, row by row
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_loops_with_a_gate_in_every_step(backend):
    """Every example has its own gate at every step; each side runs on the rows that take it."""
    w = sg.shared(normal(3, 3), "w")

    def model(x):
        side = lambda xt, h: sg.ifelse(T.sum(xt + h) > 0, T.tanh(xt @ w + h), h * 0.5 - xt)
        return sg.scan(side, sequences=x, outputs_info=T.zeros((3,)))

    many, one = T.tensor("many", (4, 5, 3)), T.tensor("one", (5, 3))
    batch, single = sg.vectorize(model)(many), model(one)
    f = compiled([many], [batch, *sg.grad(T.sum(T.sin(batch)), [many, w])], backend)
    g = compiled([one], [single, *sg.grad(T.sum(T.sin(single)), [one, w])])
    data = normal(4, 5, 3)
    value, slope, weight = f(data)
    parts = [g(x) for x in data]
    np.testing.assert_allclose(value, [p[0] for p in parts], rtol=1e-10)
    np.testing.assert_allclose(slope, [p[1] for p in parts], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(weight, sum(p[2] for p in parts), rtol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_are_routed_to_experts_at_every_step(backend):
    experts = [sg.shared(normal(3, 3), f"expert{k}") for k in range(3)]
    x = T.tensor("x", (6, 4, 3))
    branches = [lambda z, e=e: T.tanh(z @ e) for e in experts]
    routed = sg.scan(lambda xt, h: sg.route(T.argmax(xt, axis=1), branches, xt + h), sequences=x, outputs_info=T.zeros((4, 3)))[-1]
    chosen = T.zeros((4, 3))
    for t in range(6):
        gate, sides = T.argmax(x[t], axis=1)[:, None], [b(x[t] + chosen) for b in branches]
        chosen = T.where(gate == 0, sides[0], T.where(gate == 1, sides[1], sides[2]))
    data = normal(6, 4, 3)
    ours, theirs = ([y, *sg.grad(T.sum(y ** 2), [x, *experts])] for y in (routed, chosen))
    for got, want in zip(compiled([x], ours, backend)(data), compiled([x], theirs)(data)):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------------------------ other services
def test_a_function_with_a_loop_pickles():
    x, w, h0, h = rnn()
    f = compiled([x, w, h0], [h, *sg.grad(T.sum(h[-1]), [x, w, h0])])
    point = normal(4, 3), normal(3, 3), normal(3)
    for a, b in zip(f(*point), pickle.loads(pickle.dumps(f))(*point)):
        np.testing.assert_array_equal(a, b)


def test_the_text_of_a_graph_with_a_loop_reads_back():
    x, w, h0, h = rnn()
    text = sg.graph_text(sg.grad(T.sum(h[-1]), [x, w, h0]), values=True)
    assert sg.graph_text(sg.parse_graph(text), values=True) == text
    assert "loop @scan" in text


def test_a_nan_is_found_in_the_step_that_makes_it():
    x = T.tensor("x", (4,))
    f = sg.function([x], sg.scan(lambda xt, s: s + T.log(xt), sequences=x, outputs_info=0.0), check="nan", backend="reference")
    with pytest.raises(sg.NanError, match="log"):
        f(np.array([1.0, 2.0, 0.0, 1.0]))


def test_the_plan_shows_what_a_step_runs():
    x, w, h0, h = rnn()
    text = compiled([x, w, h0], h, "plain").explain()
    assert "scan(" in text and "each of 4 steps" in text


# --------------------------------------------------------------------------------------- bad input
def raised(kind, call, *words):
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "test_scan.py:" in text, text
    for word in words:
        assert word in text, text


def test_states_that_change_their_type_are_refused_at_the_users_line():
    x = T.tensor("x", (4, 3))
    raised(sg.ShapeError, lambda: sg.scan(lambda xt, h: T.concatenate([h, xt]), sequences=x, outputs_info=T.zeros((3,))), "(3,)", "(6,)")
    raised(sg.DTypeError, lambda: sg.scan(lambda xt, h: (h + xt).astype("float32"), sequences=x, outputs_info=T.zeros((3,))), "float32", "float64")


def test_loops_without_a_length_are_refused():
    x, y = T.tensor("x", (4, 3)), T.tensor("y", (5, 3))
    raised(sg.ShapeError, lambda: sg.scan(lambda a, b: a + b, sequences=[x, y]), "x: 4 steps", "y: 5 steps")
    raised(sg.ShapeError, lambda: sg.scan(lambda a: a, outputs_info=1.0), "n_steps")
    raised(sg.ShapeError, lambda: sg.scan(lambda a: a, outputs_info=1.0, n_steps=0), "at least one step")
    raised(sg.ShapeError, lambda: sg.scan(lambda a: a, sequences=x, n_steps=5), "at least 5 steps")
    raised(sg.ShapeError, lambda: sg.scan(lambda a: a, sequences=T.scalar("s")), "first axis")


def test_lengths_that_turn_out_to_differ_are_refused_at_the_call():
    x, y = T.tensor("x", ("n",)), T.tensor("y", ("m",))
    f = compiled([x, y], sg.scan(lambda a, b: a * b, sequences=[x, y]), "plain")
    np.testing.assert_array_equal(f(np.arange(3.0), np.arange(3.0)), [0, 1, 4])
    with pytest.raises(sg.ShapeError):
        f(np.arange(3.0), np.arange(4.0))


def test_other_misuse_is_refused():
    x = T.tensor("x", (4, 3))
    raised(sg.SymgradError, lambda: sg.scan(lambda a: (a, {x: x}), outputs_info=1.0, n_steps=2), "updates")
    raised(sg.DTypeError, lambda: sg.scan(lambda a: (a, sg.until(a)), outputs_info=1.0, n_steps=2), "0-d bool")
    raised(sg.ShapeError, lambda: sg.scan(lambda a: (a, sg.until(T.arange(3) > 1)), outputs_info=1.0, n_steps=2), "0-d bool")
    raised(sg.ShapeError, lambda: sg.scan(lambda a: (a, a), outputs_info=[1.0], n_steps=2), "2 results")
    raised(sg.SymgradError, lambda: sg.scan(lambda a: a, outputs_info={"initial": 1.0, "taps": [0]}, n_steps=2), "taps")
    raised(sg.ShapeError, lambda: sg.scan(lambda a, b: a, outputs_info={"initial": T.zeros((1, 3)), "taps": [-2, -1]}, n_steps=2), "2 rows")
    raised(sg.SymgradError, lambda: sg.scan(lambda a: a, outputs_info=1.0, n_steps=2, truncate_gradient=0), "truncate_gradient")
    raised(sg.OverrideError, lambda: sg.scan(lambda a: a, outputs_info=1.0, steps=2), "n_steps")
    raised(sg.ShapeError, lambda: sg.scan(lambda xt: xt[:T.sum(xt).astype("int64")], sequences=x), "before a loop starts")
