"""The benchmark compares equal things, and runs."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = str(Path(__file__).resolve().parents[1] / "examples")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return import_module("benchmark")


def arrays(results):
    """All numbers of nested results as one list."""
    if isinstance(results, (list, tuple)):
        return [a for r in results for a in arrays(r)]
    return [results.detach().numpy() if hasattr(results, "detach") else results]


@pytest.mark.parametrize("name, arguments", [("call", ()), ("chain", ()), ("vgg", (16, [8, "pool", 8, "pool"]))])
def test_both_sides_compute_the_same(benchmark, name, arguments):
    pytest.importorskip("torch", reason="torch is not installed")
    ours, theirs = (arrays(getattr(import_module(f"workloads.{side}_side"), name)(*arguments)()) for side in ("symgrad", "torch"))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(b).max(), 1e-30))


def test_calls_take_turns(benchmark):
    order = []
    times = benchmark.median_times([lambda: order.append("a"), lambda: order.append("b")], 0)
    assert order == ["a", "b"] * 3 and len(times) == 2


def test_scaling_and_workloads_print_a_row_each(benchmark, capsys, monkeypatch):
    benchmark.scaling((30, 60))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["nodes", "30", "60"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "call", "--seconds", "0"])
    for name in ("OMP_NUM_THREADS", "SYMGRAD_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    benchmark.main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["workload", "call"]


def test_unknown_workload_is_refused(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "vggg"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "vggg" in capsys.readouterr().err
