"""Random graphs against their NumPy twins, on every road, and their gradients against differences."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import symgrad as sg
from symgrad.testing import assert_close, check_grad, random_graph

SEEDS = range(60)
MORE = range(60, 400)


def agree(graph, backend, factor=64.0):
    f = sg.function(graph.inputs, graph.outputs, backend=backend, on_unused_input="ignore")
    for k, (got, want) in enumerate(zip(f(*graph.arrays), graph.values)):
        assert_close(got, want, f"{graph}, output {k}, on {backend}", factor=factor, scale=1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_value_on_the_reference(seed):
    agree(random_graph(seed), "reference")


@pytest.mark.parametrize("seed", SEEDS[:24])
def test_value_on_the_cpu_backend(seed):
    agree(random_graph(seed, dtype="float32" if seed % 2 else "float64"), "cpu")


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_unknown_sizes(seed):
    agree(random_graph(seed, unknown_sizes=True), "reference")
    agree(random_graph(seed, unknown_sizes=True, steps=6), "cpu")


@pytest.mark.parametrize("seed", SEEDS[:30])
def test_gradient(seed):
    graph = random_graph(seed, smooth=True)
    check_grad(rebuilt(graph), *graph.arrays, rtol=5e-6)


@pytest.mark.parametrize("seed", SEEDS[:8])
def test_gradient_of_the_gradient(seed):
    graph = random_graph(seed, steps=7, smooth=True)
    check_grad(rebuilt(graph), *graph.arrays, order=2, rtol=2e-5)


def rebuilt(graph):
    """The graph as a function of its inputs."""
    from symgrad.graph.walk import substitute

    def fn(*xs):
        return substitute(graph.outputs, dict(zip(graph.inputs, xs)))
    fn.__name__ = repr(graph)
    return fn


def gradients(graph):
    cost = sum((y * y).sum() for y in graph.outputs)
    return sg.grad(cost, graph.inputs, disconnected="zero")


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_gradient_on_the_cpu_backend(seed):
    graph = random_graph(seed)
    gs = gradients(graph)
    want = sg.function(graph.inputs, gs, backend="reference", on_unused_input="ignore")(*graph.arrays)
    got = sg.function(graph.inputs, gs, backend="cpu", on_unused_input="ignore")(*graph.arrays)
    for k, (a, b) in enumerate(zip(got, want)):
        assert_close(a, b, f"{graph}, gradient {k}", factor=256.0)


@pytest.mark.parametrize("seed", SEEDS[:20])
def test_forward_mode_is_the_transpose_of_reverse_mode(seed, rng):
    """<c, J t> = <J' c, t> for random c and t."""
    graph = random_graph(seed, smooth=True)
    ts = [rng.standard_normal(a.shape) for a in graph.arrays]
    cs = [rng.standard_normal(v.shape) for v in graph.values]
    moved = sg.jvp(graph.outputs, graph.inputs, [sg.tensor.constant(t) for t in ts])
    pulled = sg.vjp(graph.outputs, graph.inputs, [sg.tensor.constant(c) for c in cs], disconnected="zero")
    a, b = (sg.function(graph.inputs, ys, backend="reference", on_unused_input="ignore")(*graph.arrays) for ys in (moved, pulled))
    left, right = sum(float((c * m).sum()) for c, m in zip(cs, a)), sum(float((t * p).sum()) for t, p in zip(ts, b))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_pickled_functions_agree(seed):
    graph = random_graph(seed)
    f = sg.function(graph.inputs, [*graph.outputs, *gradients(graph)], backend="reference", on_unused_input="ignore")
    g = pickle.loads(pickle.dumps(f))
    for a, b in zip(f(*graph.arrays), g(*graph.arrays)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("start", MORE[::20])
def test_many_more_seeds(start):
    for seed in range(start, start + 20):
        graph = random_graph(seed, steps=20)
        agree(graph, "reference")
        agree(graph, "cpu")
        smooth = random_graph(seed, smooth=True)
        check_grad(rebuilt(smooth), *smooth.arrays, rtol=2e-5)
