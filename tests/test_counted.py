"""Sizes that are only known while a function runs: what masks select, forward and backward, on every backend."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.base import poly
from symgrad.graph.walk import substitute
from symgrad.ops.counted import counted
from symgrad.rewrite.books import simplify

rng = np.random.default_rng(11)
BACKENDS = ("cpu", "plain", "reference")
MASKS = [np.array(m, bool) for m in ([1, 0, 1, 1, 0, 0], [0] * 6, [1] * 6, [0, 0, 0, 0, 0, 1])]
x, m = T.tensor("x", (6, 3), "float64"), T.tensor("m", (6,), "bool")
X = rng.normal(size=(6, 3))


# ------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_mask_selects(backend):
    f = sg.function([x, m], [T.flatnonzero(m), x[m] * 2, T.exp(x[m]).sum(0), x[m].shape[0], x[m, 1], x[x > 0], x[~m] @ np.ones((3, 2))],
                    backend=backend)
    for mask in MASKS:
        want = [np.flatnonzero(mask), X[mask] * 2, np.exp(X[mask]).sum(0), mask.sum(), X[mask, 1], X[X > 0], X[~mask] @ np.ones((3, 2))]
        for got, value in zip(f(X, mask), want):
            assert got.shape == value.shape
            np.testing.assert_allclose(got, value, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_of_several_axes(backend):
    f = sg.function([x], [*T.nonzero(x > 0), T.argwhere(x > 0)], backend=backend)
    for values in (X, -np.abs(X), np.abs(X)):
        rows, columns, pairs = f(values)
        np.testing.assert_array_equal(pairs, np.argwhere(values > 0))
        np.testing.assert_array_equal([rows, columns], np.nonzero(values > 0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_open_too(backend):
    y, mask = T.tensor("y", ("n", 3), "float64"), T.tensor("m", ("n",), "bool")
    f = sg.function([y, mask], [y[mask] + 1, T.concatenate([y[mask], y])[-2:]], backend=backend)
    for n in range(1, 9):       # more sizes than programs are made for by themselves
        values, chosen = rng.normal(size=(n, 3)), rng.random(n) < 0.5
        for got, want in zip(f(values, chosen), [values[chosen] + 1, np.concatenate([values[chosen], values])[-2:]]):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_what_a_mask_selects(backend):
    w = T.tensor("w", (3, 2), "float64")
    cost = (T.tanh(x[m] @ w) ** 2).mean() + x[x > 0].sum()
    f = sg.function([x, w, m], sg.grad(cost, [x, w]), backend=backend)
    torch = pytest.importorskip("torch")
    W = rng.normal(size=(3, 2))
    for mask in MASKS[:1] + MASKS[2:]:
        a, b = (torch.tensor(v, requires_grad=True) for v in (X, W))
        ((torch.tanh(a[torch.tensor(mask)] @ b) ** 2).mean() + a[a > 0].sum()).backward()
        for got, want in zip(f(X, W, mask), (a.grad, b.grad)):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_writing_to_what_a_mask_selects(backend):
    f = sg.function([x, m], [T.set_subtensor(x[m], 0.0), T.inc_subtensor(x[m], x[m] * 2)], backend=backend)
    for mask in MASKS:
        zeroed, tripled = f(X, mask)
        np.testing.assert_array_equal(zeroed, np.where(mask[:, None], 0, X))
        np.testing.assert_array_equal(tripled, np.where(mask[:, None], 3 * X, X))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_selected_reduces_like_numpy(backend):
    part = x[m]
    f = sg.function([x, m], [part.sum(0), part.prod(), part.mean(0), T.all(part > 0), part.T @ part, T.max(T.concatenate([part, x]), 0)],
                    backend=backend)
    got = f(X, MASKS[1])
    for value, want in zip(got, [np.zeros(3), 1.0, np.full(3, np.nan), True, np.zeros((3, 3)), X.max(0)]):
        np.testing.assert_array_equal(value, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_counting_in_a_branch(backend):
    """Only the side that is taken counts; the sizes of the other keep out of the way."""
    c = T.scalar("c", "bool")
    cost = sg.ifelse(c, (x[m] ** 2).sum(), (x[~m][:, 0] * 3).sum())
    f = sg.function([x, m, c], [cost, sg.grad(cost, x)], backend=backend)
    for mask in MASKS:
        for taken in (True, False, True):
            got, gradient = f(X, mask, taken)
            np.testing.assert_allclose(got, (X[mask] ** 2).sum() if taken else X[~mask][:, 0].sum() * 3, rtol=1e-12)
            want = 2 * X * mask[:, None] if taken else np.where(mask[:, None] | [False, True, True], 0, 3.0)
            np.testing.assert_allclose(gradient, want, rtol=1e-12)


# ------------------------------------------------------------------------------------------ mechanism
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_outside_its_bound_counts_as_the_end(backend):
    n = T.scalar("n", "int64")
    f = sg.function([n], T.arange(counted(n, 5)) * 2, backend=backend)
    for value, want in ((3, 3), (-4, 0), (9, 5)):
        np.testing.assert_array_equal(f(value), 2 * np.arange(want))


def test_a_known_number_is_an_ordinary_size():
    assert counted(T.constant(3), 5) == 3
    n = T.scalar("n", "int64")
    y = T.ones((counted(n, 5),))
    assert simplify(substitute([y], {n: T.constant(2)}))[0].dims == (2,)


def test_memory_is_for_the_most_that_a_size_can_be():
    n = T.scalar("n", "int64")
    size = counted(n, 5)
    known = {}.__getitem__
    assert poly.largest(size, known) == 5
    assert poly.largest(5 - size, known) == 5
    assert poly.largest(2 * size + 1, known) == 11
    assert poly.largest(poly.floordiv(size, 2), known) == 2
    f = sg.function([n], [T.arange(5 - size), T.zeros((size, 2)), T.arange(10)[size:]])
    for value in range(6):
        assert [a.shape for a in f(value)] == [(5 - value,), (value, 2), (10 - value,)]


def test_results_are_the_callers_own():
    f = sg.function([x, m], x[m])
    first = f(X, MASKS[2])
    kept = first.copy()
    f(-X, MASKS[2])
    np.testing.assert_array_equal(first, kept)


def test_counted_sizes_survive_text_and_pickle():
    y = x[m] * T.ones((x[m].shape[0], 3), dtype="float64")
    again = sg.parse_graph(sg.graph_text(y))
    assert sg.graph_text(again) == sg.graph_text(y)
    f = pickle.loads(pickle.dumps(sg.function([x, m], y)))
    np.testing.assert_array_equal(f(X, MASKS[0]), X[MASKS[0]])


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(IndexError, match="mask"):
        x[T.tensor("short", (5,), "bool")]
    with pytest.raises(TypeError, match="0-d"):
        x[T.scalar("c", "bool")]


@pytest.mark.parametrize("backend", ("cpu", "plain"))
def test_sizes_that_turn_out_to_differ_are_refused(backend):
    other = T.tensor("other", (6,), "bool")
    f = sg.function([x, m, other], x[m] + x[other], backend=backend)
    np.testing.assert_array_equal(f(X, MASKS[0], MASKS[0][::-1]), X[MASKS[0]] + X[MASKS[0][::-1]])
    with pytest.raises(ValueError, match="size"):
        f(X, MASKS[0], MASKS[3])


def test_a_block_keeps_its_counting_inside():
    """Blocks over operands of counted sizes follow when those are replaced; a result of a size counted inside is refused."""
    part = T.softmax(x[m], 1)
    f = sg.function([x], part, givens={m: x[:, 0] > 0})
    from_numpy = np.exp(X[X[:, 0] > 0])
    np.testing.assert_allclose(f(X), from_numpy / from_numpy.sum(1, keepdims=True), rtol=1e-12)
    layer = T.layer_norm(x[m], (3,))
    g = sg.function([x], sg.grad((layer ** 3).sum(), x), givens={m: x[:, 0] > 0})
    want = sg.function([x], sg.grad((T.layer_norm(x, (3,)) ** 3).sum(1)[0], x))
    row = int(np.flatnonzero(X[:, 0] > 0)[0])
    np.testing.assert_allclose(g(X)[row], want(np.roll(X, -row, 0))[0], rtol=1e-9)
    a = T.tensor("a", (4,))
    with pytest.raises(ValueError, match="block"):
        sg.OpFromGraph([a], [a[a > 0]])


def test_examples_of_different_sizes_do_not_batch():
    with pytest.raises(ValueError, match="count"):
        sg.vectorize(lambda row: row[row > 0])(x)


# ---------------------------------------------------------------------------------- chosen by their values
@pytest.mark.parametrize("backend", BACKENDS)
def test_compress_and_extract(backend):
    c = T.tensor("c", (2,), "bool")
    f = sg.function([x, m, c], [T.compress(m, x, 0), x.compress(c, 1), T.compress(m, x), T.extract(x > 0.3, x), *x.T.nonzero()], backend=backend)
    for mask in MASKS:
        for columns in (np.array([True, False]), np.array([False, False])):
            want = [np.compress(mask, X, 0), X.compress(columns, 1), np.compress(mask, X), np.extract(X > 0.3, X), *X.T.nonzero()]
            for got, value in zip(f(X, mask, columns), want):
                np.testing.assert_array_equal(got, value)
    with pytest.raises(ValueError, match="vector"):
        T.compress(x > 0, x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_sums_of_nothing(backend):
    v = T.tensor("v", ("n",), "float64")
    f = sg.function([v], [T.cumsum(v), T.cumprod(v, reverse=True), sg.grad((T.cumsum(v) ** 2).sum(), v)], backend=backend)
    assert [a.shape for a in f(np.zeros(0))] == [(0,)] * 3
    np.testing.assert_array_equal(f(np.ones(70))[0], np.arange(1, 71))


@pytest.mark.parametrize("backend", BACKENDS)
def test_unique_elements(backend):
    v = T.tensor("v", ("n",), "float64")
    f = sg.function([v], T.unique(v, return_index=True, return_inverse=True, return_counts=True), backend=backend)
    for n in (0, 1, 2, 7, 30):
        values = rng.integers(-3, 4, n).astype("float64")
        values[values == 3] = np.nan
        values[values == -2] = -0.0
        for got, want in zip(f(values), np.unique(values, return_index=True, return_inverse=True, return_counts=True)):
            np.testing.assert_array_equal(got, want)
    i = T.tensor("i", (2, 3), "int64")
    whole = np.array([[5, -1, 5], [5, 2, -1]])
    for got, want in zip(sg.function([i], T.unique(i, return_inverse=True), backend=backend)(whole), np.unique(whole, return_inverse=True)):
        np.testing.assert_array_equal(got, want)


def test_sides_of_a_choice_have_one_size():
    c = T.scalar("c", "bool")
    with pytest.raises(ValueError, match="choose the mask"):
        sg.ifelse(c, x[m], x[~m])
    with pytest.raises(ValueError, match="choose the mask"):
        sg.ifelse(c, T.tensor("y", ("k", 3), "float64"), x[~m])
    f = sg.function([x, m, c], [x[sg.ifelse(c, m, ~m)], sg.ifelse(c, x[m], x[m] * 2)])
    for taken in (True, False):
        chosen, doubled = f(X, MASKS[0], taken)
        np.testing.assert_array_equal(chosen, X[MASKS[0] if taken else ~MASKS[0]])
        np.testing.assert_array_equal(doubled, X[MASKS[0]] * (1 if taken else 2))
