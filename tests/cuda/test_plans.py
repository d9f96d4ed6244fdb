"""Whole functions as launches: parameters, updates, branches, loops, draws, sizes, memory."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cuda.emulated import EmulatedDevice
from symgrad.testing import assert_close


def both(inputs, outputs, *arrays, **options):
    results = [sg.function(inputs, outputs, backend=backend, **options)(*arrays) for backend in ("cuda-emulated", "reference")]
    for got, want in zip(*results):
        assert_close(got, want, factor=16.0)


def test_a_training_step_moves_the_parameters(rng):
    x, t = T.tensor("x", (20, 8)), T.tensor("t", (20, 3))
    a, b = rng.standard_normal((20, 8)).astype("f"), rng.standard_normal((20, 3)).astype("f")
    values = []
    for backend in ("cuda-emulated", "reference"):
        w = sg.shared(np.full((8, 3), 0.1, "f"), "w")
        loss = T.mean((x @ w - t) ** 2)
        step = sg.function([x, t], loss, updates={w: w - 0.1 * sg.grad(loss, w)}, backend=backend)
        losses = [step(a, b) for _ in range(4)]
        assert losses[3] < losses[0]
        values.append(w.get_value())
        w.set_value(w.get_value() * 0)
        assert_close(step(a, b), np.mean(b ** 2, dtype="f"), factor=16.0)
    assert_close(*values, factor=16.0)


def test_scan_and_its_gradient(rng):
    xs, h0, w = T.tensor("xs", (6, 4, 3)), T.tensor("h0", (4, 3)), T.tensor("w", (3, 3))
    states = sg.scan(lambda x, h: T.tanh(x + h @ w), sequences=[xs], outputs_info=[h0])
    loss = T.sum(states[-1] ** 2)
    arrays = [rng.standard_normal(s).astype("f") for s in ((6, 4, 3), (4, 3), (3, 3))]
    both([xs, h0, w], [states, loss, *sg.grad(loss, [xs, h0, w])], *arrays)


def test_scan_with_deep_taps_and_an_end():
    first = T.tensor("first", (3, 2))
    last = sg.scan(lambda a, b, c: a + 0.5 * c - 0.1 * b, outputs_info=[{"initial": first, "taps": [-3, -2, -1]}], n_steps=7)[-1]
    both([first], [last], np.arange(6, dtype="f").reshape(3, 2))
    x = T.scalar("x")
    doubled = sg.scan(lambda y: y * 2, outputs_info=[x], n_steps=20, until=lambda y: y > 100)
    got = sg.function([x], doubled, backend="cuda-emulated")(3)
    assert np.array_equal(got[:6], [6, 12, 24, 48, 96, 192])


def test_scan_on_one_side_of_a_branch(rng):
    x, c = T.tensor("x", (5,)), T.tensor("c", (), "bool")
    looped = sg.scan(lambda e, s: s + e * e, sequences=[x], outputs_info=[T.constant(np.float32(0))])[-1]
    y = sg.ifelse(c, looped, T.sum(x))
    for side in (True, False):
        both([x, c], [y, *sg.grad(y, [x])], rng.standard_normal(5).astype("f"), side)


def test_draws_are_the_same_bits_on_every_backend():
    draws = []
    for backend in ("cuda-emulated", "cpu"):
        stream = sg.random.RandomStream(7)
        f = sg.function([], [stream.uniform((5, 40)), stream.integers(0, 100, (9,))], backend=backend)
        draws.append([f() for _ in range(2)])
    for one, other in zip(*draws):
        for a, b in zip(one, other):
            assert np.array_equal(a, b)


def test_a_network_of_open_batch(rng):
    x, t = T.tensor("x", (None, 3, 8, 8)), T.tensor("t", (None,), "int64")
    w, v = sg.shared(rng.standard_normal((4, 3, 3, 3)).astype("f") * 0.3), sg.shared(rng.standard_normal((64, 5)).astype("f") * 0.3)
    h = T.max_pool2d(T.relu(T.conv2d(x, w, padding=1)), 2)
    loss = sg.losses.cross_entropy(T.reshape(h, (-1, 64)) @ v, t)
    outputs = [loss, *sg.grad(loss, [x, w, v], overrides={T.relu: lambda g, y, x: T.relu(g) * (x > 0)})]
    f, g = (sg.function([x, t], outputs, backend=backend) for backend in ("cuda-emulated", "reference"))
    for n in (1, 2, 3, 4, 5, 6):
        arrays = rng.standard_normal((n, 3, 8, 8)).astype("f"), rng.integers(0, 5, n)
        for got, want in zip(f(*arrays), g(*arrays)):
            assert_close(got, want, factor=16.0)


def test_copies_never_overlap():
    device = EmulatedDevice()
    region = device.allocate(64, "a test")
    with pytest.raises(ValueError, match="overlap"):
        device.copy(region.address, region.address + 8, 16)


def test_the_profile_has_a_row_per_kernel(rng):
    x = T.tensor("x", (30, 40))
    f = sg.function([x], T.softmax(x @ x.T), backend="cuda-emulated")
    rows = f.profile(rng.standard_normal((30, 40)).astype("f"))
    assert len(rows) == len(f.executable.latest().kernels) and all(r.seconds > 0 for r in rows)
    assert "blocks of" in f.source() and "kernel" in f.explain()


def test_sizes_counted_on_the_device(rng):
    x = T.tensor("x", (50, 4))
    rows = x[T.sum(x, 1) > 0]
    outputs = [rows, T.softmax(rows), T.sum(T.exp(rows)), *sg.grad(T.sum(rows ** 3), [x])]
    for a in (rng.standard_normal((50, 4)), np.full((50, 4), -1.0), np.full((50, 4), 1.0)):
        both([x], outputs, a.astype("f"))


def test_parameters_live_on_the_device(rng, monkeypatch):
    """A step moves no parameter between device and host, until somebody looks."""
    w, x = sg.shared(np.zeros((30, 20), "f"), "w"), T.tensor("x", (30, 20))
    step = sg.function([x], T.sum(w), updates={w: w + x}, backend="cuda-emulated")
    step(np.ones((30, 20), "f"))
    moved = []
    for name in ("read", "write"):
        plain = getattr(EmulatedDevice, name)
        monkeypatch.setattr(EmulatedDevice, name, lambda self, memory, *a, plain=plain: (moved.append(memory.elements), plain(self, memory, *a))[1])
    for k in range(3):
        assert step(np.ones((30, 20), "f")) == 600 * (k + 1)
    assert moved == [600, 1] * 3                        # the argument there, the result back
    assert np.array_equal(w.get_value(), np.full((30, 20), 4, "f"))
    w.get_value(borrow=True)[...] = 7                   # an array that is handed out may be written to at any time
    assert step(np.ones((30, 20), "f")) == 4200
    other = sg.function([], T.sum(w), backend="cpu")
    assert other() == 4800


def test_results_stay_on_the_device(rng):
    x = T.tensor("x", (4, 5))
    f = sg.function([x], [x * 2, T.sum(x)], backend="cuda-emulated", outputs_on_device=True)
    a = rng.standard_normal((4, 5)).astype("f")
    doubled, total = f(a)
    f(a * 0)                                            # later calls do not write over earlier results
    assert doubled.shape == (4, 5) and doubled.dtype == np.float32 and len(doubled) == 4
    assert np.array_equal(np.asarray(doubled), 2 * a) and np.isclose(float(total), a.sum())
    with pytest.raises(sg.BackendError, match="outputs_on_device"):
        sg.function([x], x, backend="cpu", outputs_on_device=True)
