"""Kernels shared out among threads: the same results to the bit, for any number of them, whoever else is running."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cpu import sharing
from symgrad.backends.cpu.driver import Parallel
from symgrad.backends.cpu.pool import pool
from symgrad.testing import assert_close, random_graph

COUNTS = (1, 2, 3)


@pytest.fixture
def share_everything(monkeypatch):
    """Threads share every kernel that can be shared, however small."""
    monkeypatch.setattr(sharing, "WORTH", 0)
    monkeypatch.setattr(sharing, "VECTORS", 1)


def shared_kernels(f, *args) -> int:
    """How many kernels of a compiled function are shared out for these arguments."""
    bound = f.executable._bound([np.asarray(a) for a in args])
    return sum(isinstance(item, Parallel) for _, items in bound.frame.items for item in items)


def with_threads(f, *args):
    """The results for each number of threads."""
    for count in COUNTS:
        with sg.config(num_threads=count):
            yield [np.array(y) for y in f(*args)]


def assert_same(f, *args):
    first, *others = with_threads(f, *args)
    for count, results in zip(COUNTS[1:], others):
        for k, (a, b) in enumerate(zip(first, results)):
            assert a.tobytes() == b.tobytes(), f"output {k} differs between 1 and {count} threads"
    return first


@pytest.mark.parametrize("seed", range(16))
def test_random_graphs(share_everything, seed):
    graph = random_graph(seed, dtype="float32" if seed % 2 else "float64", unknown_sizes=seed % 3 == 0, steps=8)
    f = sg.function(graph.inputs, graph.outputs, on_unused_input="ignore")
    assert shared_kernels(f, *graph.arrays)
    for got, want in zip(assert_same(f, *graph.arrays), graph.values):
        assert_close(got, want, repr(graph), factor=64.0, scale=1.0)


def cnn_step():
    """(a training step of a small network, its arguments)"""
    rng = np.random.default_rng(0)
    x, labels = T.tensor("x", (24, 3, 16, 16), "float32"), T.tensor("labels", (24,), "int64")
    weights = [sg.shared(rng.standard_normal(s).astype("float32") / 9) for s in ((24, 3, 3, 3), (24,), (32, 24, 3, 3), (512, 10), (10,))]
    h = T.max_pool2d(T.relu(T.conv2d(x, weights[0], padding=1) + weights[1].reshape((1, 24, 1, 1))), 2)
    h = T.max_pool2d(T.relu(T.conv2d(h, weights[2], padding=1)), 2).reshape((24, 512))
    loss = sg.losses.cross_entropy(h @ weights[3] + weights[4], labels)
    step = sg.function([x, labels], [loss, *sg.grad(loss, weights)], updates={w: w - 0.1 * g for w, g in zip(weights, sg.grad(loss, weights))})
    return step, weights, [rng.standard_normal((24, 3, 16, 16)).astype("float32"), rng.integers(0, 10, 24)]


def test_a_training_step_and_what_it_leaves_behind(share_everything):
    step, weights, args = cnn_step()
    assert shared_kernels(step, *args, *[]) >= 10
    start = [w.get_value() for w in weights]

    def three_steps(*args):
        for w, value in zip(weights, start):
            w.set_value(value)
        results = [y for _ in range(3) for y in step(*args)]
        return [*results, *(w.get_value() for w in weights)]
    assert_same(three_steps, *args)


def test_the_number_of_threads_is_read_at_each_call(share_everything):
    x = T.vector("x", shape=1000)
    f = sg.function([x], T.exp(x))
    for count in (1, 4, 2):
        with sg.config(num_threads=count):
            f(np.ones(1000, "float32"))
            assert pool()["wanted"] == count - 1 <= pool()["workers"]
    assert pool()["wanted"] == sg.config.num_threads - 1


def large():
    """(function, argument, result): enough work for threads to share."""
    x = T.vector("x", shape=300_000)
    f = sg.function([x], T.tanh(x) * 2)
    a = np.random.default_rng(1).standard_normal(300_000).astype("float32")
    assert shared_kernels(f, a) == 1
    return f, a, 2 * np.tanh(a)


def test_several_callers_at_once():
    f, a, want = large()
    step, _, args = cnn_step()
    loss = float(step(*args)[0])
    wrong = []

    def call_function():
        for _ in range(40):
            if np.abs(f(a) - want).max() > 1e-5:
                wrong.append("f")

    def train():
        for _ in range(10):
            if not float(step(*args)[0]) < loss + 1:
                wrong.append("step")
    with sg.config(num_threads=2):
        callers = [threading.Thread(target=t) for t in (call_function, call_function, train, train)]
        for t in callers:
            t.start()
        for t in callers:
            t.join()
    assert not wrong
    assert pool()["callers"] == pool()["taken"] == 0


def test_other_callers_take_the_places_of_workers():
    f, a, _ = large()
    with sg.config(num_threads=2):
        f(a)
        published = pool()["ticket"] >> 32
        pool()["callers"] += 1                      # somebody else is inside a function
        try:
            f(a)
            assert pool()["ticket"] >> 32 == published
        finally:
            pool()["callers"] -= 1
        f(a)
        assert pool()["ticket"] >> 32 == published + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_the_child_of_a_fork_makes_its_own_workers():
    f, a, want = large()
    with sg.config(num_threads=2):
        f(a)
        child = os.fork()
        if child == 0:
            good = pool()["workers"] == 0 and np.allclose(f(a), want, atol=1e-5) and pool()["workers"] == 1
            os._exit(0 if good else 1)
        deadline = time.monotonic() + 60
        while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert done == (child, 0)
        np.testing.assert_allclose(f(a), want, atol=1e-5)


RUN = """
import numpy as np, symgrad as sg, symgrad.tensor as T
x = T.vector("x", shape=300_000)
f = sg.function([x], T.tanh(x) * 2)
"""


def run_python(text: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", RUN + text], capture_output=True, text=True, timeout=120)


def test_a_process_ends_with_its_workers():
    done = run_python("sg.config.num_threads = 4\nfor _ in range(20): f(np.ones(300_000, 'float32'))")
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_the_system_refuses_are_an_error():
    done = run_python("""
import resource
f(np.ones(300_000, 'float32'))
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
sg.config.num_threads = 1000
try:
    f(np.ones(300_000, 'float32'))
except sg.BackendError as error:
    print(error)
sg.config.num_threads = 2
assert abs(f(np.ones(300_000, 'float32'))[0] - np.tanh(1) * 2) < 1e-6
""")
    assert done.returncode == 0, done.stderr
    assert "1000 threads" in done.stdout and "the system gave" in done.stdout and "sg.config.num_threads = " in done.stdout


@pytest.mark.parametrize("count", [0, -1, 5000])
def test_numbers_that_are_no_number_of_threads(count):
    with pytest.raises(sg.SymgradError, match="at least 1 and at most"):
        sg.config.num_threads = count


REDUCTIONS = [((1_000_003,), None), ((100_000, 3), 0), ((50_001, 2), None), ((7, 30_000), None), ((2, 3, 100_001), (0, 2)),
              ((40_960, 5, 7), 0), ((3000, 128), 0), ((64, 3000), 1)]


@pytest.mark.parametrize(("shape", "axis"), REDUCTIONS, ids=str)
def test_long_reductions(shape, axis):
    """In parts of fixed size, beside elements stored on the way and what waits for the results."""
    a = np.random.default_rng(0).standard_normal(shape)
    x = T.tensor("x", shape, "float64")
    y = T.exp(x) * x
    f = sg.function([x], [y.sum(axis=axis), y.max(axis=axis), (x * x).mean(axis=axis) ** 0.5, T.any(x > 4.0, axis=axis), y])
    assert shared_kernels(f, a)
    e = np.exp(a) * a
    wanted = [e.sum(axis=axis), e.max(axis=axis), np.sqrt((a * a).mean(axis=axis)), (a > 4).any(axis=axis), e]
    for got, want in zip(assert_same(f, a), wanted):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def test_what_is_shared_can_be_seen():
    f, a, _ = large()
    assert "shared by threads: k0\n" in f.explain()
    with sg.config(num_threads=2):
        profile = f.profile(a)
        assert profile[0].threads == 2 and "threads" in str(profile)
    x = T.vector("x", shape=10)
    small = sg.function([x], T.tanh(x))
    assert "threads" not in small.explain() + str(small.profile(a[:10]))


def test_a_turn_left_over_from_a_long_reduction_is_stored_not_added_to_what_was_there():
    from symgrad.base import poly
    from symgrad.loops import ir
    from symgrad.schedule.lower import Accumulate, Nest, Store, atom_of
    from symgrad.schedule.partial import reduce_in_parts
    x, y = T.matrix("x", shape=(5, 3)), T.vector("y", shape=3)
    i, j = poly.index("i", 5), poly.index("j", 3)
    nest = Nest(((atom_of(i), 5), (atom_of(j), 3)), (Accumulate(y, j, ir.load(x, 3 * i + j, "float32"), "add", frozenset({atom_of(i)})),))
    whole, rest, _ = reduce_in_parts(nest, atom_of(i), 2)
    assert isinstance(whole.effects[0], Accumulate) and isinstance(rest.effects[0], Store)
    assert rest.effects[0].at == 2 * 3 + j


def test_kernels_for_any_size_are_shared_where_there_is_enough_to_do():
    n = T.tensor("x", ("n", 64), "float32")
    f = sg.function([n], T.concatenate([T.exp(n), n.sum(1, keepdims=True) + n], axis=1))
    rng = np.random.default_rng(2)
    for rows in (1, 2, 3, 4, 5, 6, 0, 5000):             # the first four get kernels of their own
        a = rng.standard_normal((rows, 64)).astype("float32")
        (got,) = assert_same(lambda a: [f(a)], a)
        np.testing.assert_allclose(got, np.concatenate([np.exp(a), a.sum(1, keepdims=True) + a], axis=1), rtol=1e-4, atol=1e-4)
    assert not shared_kernels(f, np.ones((5, 64), "float32")) and shared_kernels(f, np.ones((5000, 64), "float32"))
