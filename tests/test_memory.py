"""Memory of compiled functions: what is written over what, nothing outside its place, nothing that somebody still needs."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cpu import build
from symgrad.graph.walk import order, substitute
from symgrad.schedule.memory import Lifetime, most_alive, place, placed_by_size, placed_in_time, rounded
from symgrad.testing import random_graph

CANARY = 0xA5


def plan_of(f):
    return f.executable.latest().plan


def run_steps(targets, updates, inputs, arrays, backend, outputs=(), steps=3):
    """The outputs of every step and the values left behind; the variables get their first values back."""
    first = [s.get_value() for s in targets]
    f = sg.function(inputs, list(outputs), updates=updates, backend=backend, on_unused_input="ignore")
    results = [a for _ in range(steps) for a in f(*arrays)]
    left = [s.get_value() for s in targets]
    for s, value in zip(targets, first):
        s.set_value(value)
    return f, [*results, *left]


def agree(targets, updates, inputs=(), arrays=(), outputs=()):
    """The compiled function, which leaves what the reference leaves."""
    f, got = run_steps(targets, updates, inputs, arrays, "cpu", outputs)
    _, want = run_steps(targets, updates, inputs, arrays, "reference", outputs)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    return f


def shared(rng, *shape):
    return sg.shared(0.3 * rng.normal(size=shape).astype("f"))


# --------------------------------------------------------------------------------- updates over what they replace
@pytest.mark.parametrize("optimiser", [sg.optim.sgd, sg.optim.adam])
def test_a_training_step_writes_every_parameter_in_place(optimiser, rng):
    x, w, v, b = T.matrix("x", shape=(9, 21)), shared(rng, 21, 17), shared(rng, 17, 5), shared(rng, 17)
    cost = T.mean(T.tanh(x @ w + b) @ v)
    updates = optimiser(cost, [w, v, b], lr=0.01)
    f = agree(list(updates), updates, [x], [rng.normal(size=(9, 21)).astype("f")], [cost])
    assert {plan_of(f).taken[y] for y in plan_of(f).outputs if y in plan_of(f).taken} == set(updates)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("side", [6, 7, 13])
def test_convolution_weights_are_updated_once_per_element(kernel, side, rng):
    """Where a kernel computed an element twice, at the edge of a tile, its update would be made twice."""
    x, w, v = T.tensor("x", (3, 5, side, side)), shared(rng, 7, 5, kernel, kernel), shared(rng, 3, 7, kernel, kernel)
    y = T.max_pool2d(T.relu(T.conv2d(x, w, padding=kernel // 2)), 2)
    cost = T.mean(T.conv2d(y, v, padding=kernel // 2) ** 2)
    f = agree([w, v], sg.optim.sgd(cost, [w, v], lr=0.01), [x], [rng.normal(size=(3, 5, side, side)).astype("f")], [cost])
    assert len(plan_of(f).taken) >= 2


def test_an_update_that_reads_other_elements_is_not_written_in_place(rng):
    w = shared(rng, 40)
    f = agree([w], {w: w + 0.5 * w[::-1]})
    assert not plan_of(f).taken


def test_parameters_that_change_places(rng):
    a, b = shared(rng, 30), shared(rng, 30)
    agree([a, b], {a: b, b: a})
    agree([a, b], {a: b * 2, b: T.flip(a, 0)})


def test_an_update_waits_for_the_last_reader_of_the_old_value(rng):
    """The gradient to the input reads the weight after its update could be made."""
    x, w = T.matrix("x", shape=(8, 12)), shared(rng, 12, 12)
    cost = T.sum(T.tanh(T.tanh(x @ w) @ w))
    agree([w], {w: w - 0.01 * sg.grad(cost, w)}, [x], [rng.normal(size=(8, 12)).astype("f")], [sg.grad(cost, x), w])


def test_arrays_that_somebody_holds_keep_their_numbers(rng):
    mine = rng.normal(size=50).astype("f")
    w, kept = sg.shared(mine, borrow=True), mine.copy()
    f = sg.function([], None, updates={w: w + 1})
    f()
    borrowed = w.get_value(borrow=True)
    f()
    np.testing.assert_array_equal(mine, kept)
    np.testing.assert_array_equal(borrowed, kept + 1)
    np.testing.assert_array_equal(w.get_value(), kept + 1 + 1)
    whole = np.zeros((2, 50), "f")
    w.set_value(whole[0], borrow=True)
    f()
    assert not whole.any() and (w.get_value() == 1).all()


def test_memory_of_a_parameter_stays_where_it_is(rng):
    w = shared(rng, 1000)
    f = sg.function([], None, updates={w: w * 0.5})
    f()
    address = lambda: w.get_value(borrow=True).__array_interface__["data"][0]
    before = address()
    f()
    assert address() == before


def test_an_output_that_is_also_an_update_is_not_the_parameter(rng):
    w = shared(rng, 100)
    new = w * 2
    f = sg.function([], new, updates={w: new})
    result = f()
    assert not np.shares_memory(result, w.get_value(borrow=True))
    result[:] = 0
    assert w.get_value().all()


def test_an_index_outside_leaves_the_parameters_alone(rng):
    i, w = T.scalar("i", dtype="int64"), shared(rng, 10)
    f = sg.function([i], None, updates={w: w + w[i]})
    before = w.get_value()
    with pytest.raises(IndexError):
        f(np.int64(10))
    np.testing.assert_array_equal(w.get_value(), before)


def test_looking_at_times_changes_no_parameter(rng):
    w = shared(rng, 10)
    f = sg.function([], None, updates={w: w + 1})
    before = w.get_value()
    f.profile()
    np.testing.assert_array_equal(w.get_value(), before)


@pytest.mark.parametrize("seed", range(40))
def test_random_updates(seed, rng):
    """Variables of a random graph become parameters; each gets the next value from somewhere in the graph."""
    graph = random_graph(seed, dtype="float32")
    targets = [sg.shared(a) for a in graph.arrays]
    outputs = substitute(graph.outputs, dict(zip(graph.inputs, targets)))
    choice = np.random.default_rng(seed)
    updates = {}
    for s in targets:
        fitting = [n for n in order(outputs) if hasattr(n._type, "dims") and n.dims == s.dims and n.dtype == s.dtype]
        if fitting:
            updates[s] = T.tanh(fitting[choice.integers(len(fitting))]) + 0.1 * s
    agree(targets, updates, outputs=outputs)


# ------------------------------------------------------------------------------------------------ the arena
@pytest.mark.parametrize("place", [placed_in_time, placed_by_size, place])
@pytest.mark.parametrize("seed", range(40))
def test_pieces_that_live_at_the_same_time_do_not_overlap(seed, place):
    rng = np.random.default_rng(seed)
    items = []
    for k in range(60):
        first = int(rng.integers(30))
        items.append(Lifetime(k, int(rng.integers(0, 5000)), first, first + int(rng.integers(8))))
    offsets, end = place(items)
    for a, b in itertools.combinations(items, 2):
        if a.first <= b.last and b.first <= a.last:
            assert offsets[a.buffer] + a.nbytes <= offsets[b.buffer] or offsets[b.buffer] + b.nbytes <= offsets[a.buffer]
    assert max(offsets[i.buffer] + i.nbytes for i in items) <= end <= sum(rounded(i.nbytes) for i in items)
    assert end >= most_alive(items) >= max(rounded(i.nbytes) for i in items)


def test_a_long_life_in_the_way_is_put_aside():
    """Placed as they come, the small one that lives on splits the room that two large ones could share."""
    small, large = 64 * 10, 64 * 100
    items = [Lifetime("a", large, 0, 0), Lifetime("b", small, 0, 2), Lifetime("c", large + small, 1, 1), Lifetime("d", small, 1, 2)]
    assert place(items)[1] == most_alive(items) < placed_in_time(items)[1]


def with_canaries(monkeypatch):
    """Every piece of the arena ends in bytes that nobody owns, and every arena is full of them before it is used."""
    from symgrad.schedule import memory
    monkeypatch.setattr(memory, "STAGGER", 192)


@pytest.mark.parametrize("seed", range(30))
def test_kernels_write_inside_their_places_and_read_what_was_written(seed, monkeypatch):
    with_canaries(monkeypatch)
    graph = random_graph(seed, dtype="float32", steps=16)
    cost = sum((y * y).sum() for y in graph.outputs)
    gradients = sg.grad(cost, graph.inputs, disconnected="zero")
    executable = sg.function(graph.inputs, [*graph.outputs, *gradients], backend="cpu", on_unused_input="ignore").executable
    bound = executable.programs[()].bound({})
    want = [a.copy() for a in executable(graph.arrays)]
    pieces = bound.program.plan.lifetimes(bound.size_of)
    offsets, _ = place(pieces)
    base = -bound.arena.ctypes.data % 64
    owned = np.zeros(bound.arena.size, bool)
    for piece in pieces:
        owned[base + offsets[piece.buffer]:base + offsets[piece.buffer] + piece.nbytes] = True
    bound.arena[:] = CANARY
    got = executable(graph.arrays)
    assert (bound.arena[~owned] == CANARY).all()
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)


def test_intermediate_values_are_written_over_those_they_are_made_of():
    """Two softmaxes in a row: the second one's exponentials replace what it reads."""
    x = T.tensor("x", (64, 64))
    y = x
    for _ in range(3):
        y = T.cumsum(T.exp(T.cumsum(y, axis=0)) * 1e-3, axis=1)
        y = T.tanh(y) * T.sum(y)
    f = sg.function([x], T.sum(y @ y))
    plan = plan_of(f)
    assert plan.taken
    point = np.random.default_rng(0).normal(size=(64, 64)).astype("f")
    np.testing.assert_allclose(f(point), sg.function([x], T.sum(y @ y), backend="reference")(point), rtol=1e-3)


def test_conditions_are_kept_until_the_end():
    """A condition is asked for after everything that is computed from it, by kernels that only one side needs."""
    a, x = T.scalar("a"), T.matrix("x", shape=(20, 20))
    test = a > 0
    y = sg.ifelse(test, T.tanh(x @ x), x)
    for _ in range(3):
        y = T.tanh(y @ x)
    f = sg.function([a, x], [y, sg.grad(T.sum(y), x)])
    plan = plan_of(f)
    pieces = {p.buffer: p for p in plan.lifetimes(lambda atom: 1)}
    tests = {plan.memory_of(t) for kernel in plan.kernels for t, _ in kernel.guard}
    assert tests and all(pieces[t].last >= len(plan.kernels) for t in tests)


def test_a_recurrent_network_trains_in_place(rng):
    """Loops hold memory of their own inside a plan, and rows of what lies outside."""
    xs, wx, wh, b = T.tensor("xs", (7, 3, 5)), shared(rng, 5, 16), shared(rng, 4, 16), shared(rng, 16)

    def step(x, h, c, wx, wh, b):
        i, f, g, o = T.split(x @ wx + h @ wh + b, 4, axis=1)
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return T.sigmoid(o) * T.tanh(c), c
    start = T.zeros((3, 4))
    hs, _ = sg.scan(step, sequences=[xs], outputs_info=[start, start], non_sequences=[wx, wh, b])
    cost = T.mean(hs[-1] ** 2)
    f = agree([wx, wh, b], sg.optim.sgd(cost, [wx, wh, b], lr=0.1), [xs], [rng.normal(size=(7, 3, 5)).astype("f")], [cost])
    assert {plan_of(f).taken[y] for y in plan_of(f).outputs if y in plan_of(f).taken} == {wx, wh, b}


def test_arenas_of_sizes_seen_before_do_not_pile_up(monkeypatch):
    """A function of open sizes keeps some of what it laid out, not all of it."""
    monkeypatch.setattr(build, "KEPT_BYTES", 1 << 20)
    monkeypatch.setattr(build, "SPECIALISED", 0)
    x = T.tensor("x", (None, 100))
    f = sg.function([x], T.sum(T.cumsum(T.tanh(T.cumsum(x, axis=0)), axis=1)), backend="cpu")
    for n in range(200, 1200, 100):
        point = np.full((n, 100), 1e-3, "f")
        np.testing.assert_allclose(f(point), np.cumsum(np.tanh(np.cumsum(point, axis=0)), axis=1).sum(), rtol=1e-4)
        kept = [b.arena_bytes for b in f.executable.generic.bindings.values()]
        assert sum(kept) <= 1 << 20 or len(kept) == 1


def test_explain_says_what_memory_is_for(rng):
    x, w = T.matrix("x", shape=(8, 12)), sg.shared(rng.normal(size=(12, 12)).astype("f"), "w")
    mask = T.relu(x @ w) > 0
    cost = T.sum(T.where(mask, x @ w, 0) @ w) + T.sum(T.where(mask, T.tanh(x @ w), 1), axis=0).max()
    f = sg.function([x], cost, updates={w: w - 0.01 * sg.grad(cost, w)}, backend="cpu")
    text = f.explain()
    assert re.search(r"arena [\d.]+ KiB for [\d.]+ KiB of values and scratch", text)
    assert re.search(r"written in place: .*over w", text)
    plan, bound = plan_of(f), f.executable.programs[()].bound({})
    alone = sum(p.nbytes for p in plan.lifetimes(bound.size_of, shared=False))
    assert f"arena {bound.arena_bytes / 1024:.1f} KiB for {alone / 1024:.1f} KiB" in text
    several = [n for n in {n for k in plan.kernels for n in k.nodes} if sum(n in set(k.nodes) for k in plan.kernels) > 1 and n.op.name == "greater"]
    assert bool(several) == ("computed again" in text and "greater" in text.split("computed again")[-1])
