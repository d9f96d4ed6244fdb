"""Large graphs: no recursion limit anywhere, and time per node that does not grow with the graph."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T

SIZE = 8


@pytest.fixture(autouse=True)
def without_checks_between_passes():
    with sg.config(check=False):
        yield


def additions(x, n):
    """A chain: y = y + x, n times."""
    y = x
    for _ in range(n):
        y = y + x
    return y


def squashed(x, n):
    """A chain of three ops per step, whose gradient needs every intermediate value."""
    y = x
    for _ in range(n // 3):
        y = T.tanh(y) * 1.01 + 0.1
    return y


def fan_out(x, n):
    """One input read by n / 2 products that are added up."""
    return sum((x * (1 + k / n) for k in range(n // 2)), x)


def deep_views(x, n):
    """Movement and arithmetic in turn."""
    y = x
    for k in range(n // 3):
        y = y[::-1].reshape((2, SIZE // 2)).reshape((SIZE,)) + x if k % 2 else y * 1.0001
    return y


def expected(kind, a, n):
    if kind is additions:
        return a * (n + 1)
    if kind is fan_out:
        return a + a * sum(1 + k / n for k in range(n // 2))
    y = a.copy()
    for k in range(n // 3):
        y = np.tanh(y) * 1.01 + 0.1 if kind is squashed else y[::-1] + a if k % 2 else y * 1.0001
    return y


KINDS = [additions, squashed, fan_out, deep_views]
POINT = np.linspace(-0.5, 0.5, SIZE)


def built(kind, n, dtype="float64"):
    x = T.tensor("x", (SIZE,), dtype)
    y = kind(x, n)
    return x, y, sg.grad(y.sum(), x)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_nodes_build_differentiate_and_run_op_by_op(kind):
    limit = sys.getrecursionlimit()
    x, y, g = built(kind, 10_000)
    value, slope = sg.function([x], [y, g], backend="reference")(POINT)
    np.testing.assert_allclose(value, expected(kind, POINT, 10_000), rtol=1e-9)
    assert np.isfinite(slope).all() and sys.getrecursionlimit() == limit


@pytest.mark.parametrize("kind", KINDS)
def test_six_hundred_nodes_compile_and_agree(kind):
    x, y, g = built(kind, 600)
    got = sg.function([x], [y, g], backend="cpu")(POINT)
    want = sg.function([x], [y, g], backend="reference")(POINT)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fifty_thousand_nodes_compile_within_a_minute(kind):
    start = time.process_time()
    x, y, g = built(kind, 50_000)
    f = sg.function([x], [y, g], backend="cpu")
    seconds = time.process_time() - start
    value, slope = f(POINT)
    np.testing.assert_allclose(value, expected(kind, POINT, 50_000), rtol=1e-8)
    assert np.isfinite(slope).all()
    assert seconds < 60, f"{seconds:.0f} s of processor time"


def seconds_per_node(kind, n):
    best = np.inf
    for _ in range(2):
        start = time.process_time()
        x, y, g = built(kind, n)
        sg.function([x], [y, g], backend="reference")
        best = min(best, time.process_time() - start)
    return best / n


@pytest.mark.parametrize("kind", [squashed, *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k is not squashed)])
def test_time_per_node_is_nearly_constant(kind):
    """From 500 to 5000 nodes: building, differentiating, rewriting. A quadratic step would show as a factor of ten."""
    small, large = seconds_per_node(kind, 500), seconds_per_node(kind, 5_000)
    assert large < 4 * small, f"{1e6 * small:.0f} us per node at 500, {1e6 * large:.0f} us at 5000"


@pytest.mark.slow
def test_time_per_node_stays_near_constant_to_fifty_thousand():
    small, large = seconds_per_node(squashed, 5_000), seconds_per_node(squashed, 50_000)
    assert large < 4 * small, f"{1e6 * small:.0f} us per node at 5k, {1e6 * large:.0f} us at 50k"


def test_shared_subexpressions_do_not_explode():
    """y = y * y + y, forty deep: a walk that enters a node once per path would never end."""
    x = T.tensor("x", (SIZE,), "float64")
    y = x
    for _ in range(40):
        y = T.tanh(y * y + y)
    g = sg.grad(y.sum(), x)
    second = sg.grad(g.sum(), x)
    for backend in ("reference", "cpu"):
        value = sg.function([x], [y, second], backend=backend)(POINT)
        assert np.isfinite(value[1]).all()


def test_many_outputs_and_many_inputs():
    xs = [T.tensor(f"x{k}", (3,)) for k in range(100)]
    ys = [a * b for a, b in zip(xs, xs[1:])]
    f = sg.function(xs, [*ys, sum(ys)], backend="cpu")
    results = f(*[np.full(3, k, "f") for k in range(100)])
    assert all((r == k * (k + 1)).all() for k, r in enumerate(results[:-1]))
    assert results[-1].tolist() == [sum(k * (k + 1) for k in range(99))] * 3


def test_deeply_nested_blocks():
    block = lambda x: x
    for _ in range(40):
        inner = block
        block = sg.op_from_graph(lambda x, inner=inner: T.tanh(inner(x)), name="level")
    x = T.vector("x")
    y = block(x)
    f = sg.function([x], [y, sg.grad(y.sum(), x)], backend="reference")
    value = np.float32([0.5])
    for _ in range(40):
        value = np.tanh(value)
    np.testing.assert_allclose(f(np.float32([0.5]))[0], value, rtol=1e-5)
