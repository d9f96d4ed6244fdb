"""Scatters, running sums, sorting: every access watched, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.cuda import emulated
from symgrad.testing import assert_close


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    monkeypatch.setattr(emulated.EmulatedDevice, "checks", True)


def both(inputs, outputs, *arrays):
    results = [sg.function(inputs, outputs, backend=backend)(*arrays) for backend in ("cuda-emulated", "reference")]
    for k, (got, want) in enumerate(zip(*results)):
        assert_close(got, want, f"output {k}", factor=32.0)


@pytest.mark.parametrize("shape, axis", [((1000,), 0), ((3, 300), 1), ((300, 3), 0), ((2, 70, 5), 1), ((5,), 0), ((4, 0), 1), ((256,), 0), ((257,), 0)],
                         ids=str)
def test_running_sums(shape, axis, rng):
    x = T.tensor("x", shape)
    weights = np.cos(np.arange(np.prod(shape, dtype=int)), dtype="f").reshape(shape)
    y = T.cumsum(x, axis)
    both([x], [y, T.exp(-y ** 2), T.cumsum((x > 0).astype("int32"), axis), *sg.grad(T.sum(y * weights), [x])], rng.standard_normal(shape).astype("f"))
    both([x], [T.cumprod(1 + x * 0.01, axis)], rng.standard_normal(shape).astype("f"))


def test_running_sums_of_open_length(rng):
    x = T.vector("x")
    f = sg.function([x], T.cumsum(x), backend="cuda-emulated")
    for n in (1, 2, 3, 4, 300, 700):
        a = rng.standard_normal(n).astype("f")
        assert_close(f(a), np.cumsum(a), factor=64.0)


def test_rows_gathered_twice_receive_both_gradients(rng):
    table, rows = T.tensor("table", (50, 7)), T.tensor("rows", (40,), "int64")
    picked = table[rows]
    both([table, rows], [picked, *sg.grad(T.sum(picked ** 3), [table])], rng.standard_normal((50, 7)).astype("f"), rng.integers(0, 9, 40))


def test_the_last_of_several_updates_stays(rng):
    x, at, v = T.tensor("x", (20, 3)), T.tensor("at", (30,), "int64"), T.tensor("v", (30, 3))
    changed = T.set_subtensor(x[at], v)
    both([x, at, v], [changed, T.exp(changed)], *[rng.standard_normal(s).astype("f") if s else rng.integers(0, 20, 30) for s in ((20, 3), (), (30, 3))])
    f = sg.function([x, at, v], changed, backend="cuda-emulated")
    assert "while point < 3" in f.source() or "< 3:" in f.source()          # columns never meet: a thread each


@pytest.mark.parametrize("axis", [0, 1])
def test_sorting_and_what_follows(axis, rng):
    x = T.tensor("x", (30, 40))
    y = T.sort(x, axis)
    weights = np.arange(1200, dtype="f").reshape(30, 40)
    both([x], [y, T.argsort(x, axis), *sg.grad(T.sum(y * weights), [x])], rng.integers(0, 9, (30, 40)).astype("f"))
