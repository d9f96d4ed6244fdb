"""Random loops: random steps with random taps, sequences, branches and results, against the same steps unrolled op by op in NumPy."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T

ROWS, WIDTH = 2, 3
OPS = [
    lambda x, y, w, s: x + y,
    lambda x, y, w, s: x * y,
    lambda x, y, w, s: T.tanh(x - s * y),
    lambda x, y, w, s: x @ w,
    lambda x, y, w, s: x * T.sigmoid(T.sum(y, axis=1, keepdims=True)),
    lambda x, y, w, s: T.where(x > y, x, s * y),
    lambda x, y, w, s: sg.ifelse(T.sum(x) > s, T.relu(x), y * 0.5),
    lambda x, y, w, s: T.concatenate([x[:, 1:], y[:, :1]], axis=1),
    lambda x, y, w, s: T.softmax(x + y, axis=1),
    lambda x, y, w, s: T.sin(x).T[:2].T.sum(axis=1, keepdims=True) + y,
]


def random_step(rng, states, outs):
    """A function of any number of values and a weight; states come first among its results."""
    plan = [(OPS[rng.integers(len(OPS))], *rng.integers(1000, size=2), rng.normal()) for _ in range(rng.integers(2, 7))]
    picks = rng.integers(1000, size=states + outs)

    def step(*args):
        *values, w = args
        for op, a, b, s in plan:
            values.append(op(values[a % len(values)], values[b % len(values)], w, s))
        results = [values[p % len(values)] for p in picks]
        return [T.tanh(y) for y in results[:states]] + results[states:]
    return step


def random_loop(seed):
    """(inputs, their data, the results of the loop, the results of its steps one by one, a loss of either)."""
    rng = np.random.default_rng(seed)
    n, n_sequences, backwards = int(rng.integers(1, 6)), int(rng.integers(3)), bool(rng.integers(2))
    taps = [sorted({-int(t) for t in rng.integers(1, 4, size=rng.integers(1, 3))}) for _ in range(rng.integers(0 if n_sequences else 1, 3))]
    outs = int(rng.integers(0 if taps else 1, 3))
    step = random_step(rng, len(taps), outs)
    xs = [T.tensor(f"x{k}", (n, ROWS, WIDTH)) for k in range(n_sequences)]
    hs = [T.tensor(f"h{j}", (-t[0], ROWS, WIDTH)) for j, t in enumerate(taps)]
    w = T.tensor("w", (WIDTH, WIDTH))
    info = [{"initial": h if t != [-1] else h[0], "taps": t} for h, t in zip(hs, taps)] + [None] * outs
    looped = sg.scan(step, sequences=xs, outputs_info=info, non_sequences=w, n_steps=n, go_backwards=backwards)
    inputs = [*xs, *hs, w]
    kind = rng.integers(3)

    def loss(ys):
        if kind == 0:
            return sum(T.sum(T.sin(y)) for y in ys)
        return sum(T.sum(y[-1] ** 2) for y in ys) if kind == 1 else T.sum(ys[0][0]) + T.sum(ys[-1][-1])

    unrolled = step_by_step(step, xs, hs, taps, outs, w, range(n)[::-1] if backwards else range(n))
    return inputs, [rng.normal(size=x.dims) for x in inputs], looped, unrolled, loss


def step_by_step(step, xs, hs, taps, outs, w, order):
    rows = [[h[k] for k in range(-t[0])] for h, t in zip(hs, taps)]
    collected = [[] for _ in range(outs)]
    for t in order:
        results = step(*[x[t] for x in xs], *[kept[tap] for kept, all_ in zip(rows, taps) for tap in all_], w)
        for kept, y in zip([*rows, *collected], results):
            kept.append(y)
    return [T.stack(kept[-t[0]:]) for kept, t in zip(rows, taps)] + [T.stack(kept) for kept in collected]


def check(seed, backend):
    with sg.config(floatX="float64"):
        inputs, data, looped, unrolled, loss = random_loop(seed)
        values = []
        for results, where in ((looped, backend), (unrolled, "reference")):
            outputs = [*results, *sg.grad(loss(results), inputs, disconnected="zero")]
            values.append(sg.function(inputs, outputs, backend=where, on_unused_input="ignore")(*data))
    for got, want in zip(*values):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("seed", range(40))
def test_loops_equal_their_steps(seed):
    check(seed, "plain")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40, 50))
def test_compiled_loops_equal_their_steps(seed):
    check(seed, "cpu")
