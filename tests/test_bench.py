"""`symgrad bench`: every library computes the same, takes its turns, and only generated parts of a page change."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

from symgrad.bench import in_symgrad, report, scaling, turns
from symgrad.bench.turns import Cell, Plan
from symgrad.bench.workloads import CASES
from symgrad.cli.main import app

COMPARED = [name for name, case in CASES.items() if not case.random]


def outputs(library, case):
    run = case.build(library, **case.sizes | case.small)
    return run.outputs(run.call())


def agree(ours, theirs, rtol=1e-5):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(float(np.abs(b).max()), 1e-30))


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_libraries_compute_the_same(name, peer):
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    agree(outputs(in_symgrad, CASES[name]), outputs(import_module(f"symgrad.bench.in_{peer}"), CASES[name]))


@pytest.mark.parametrize("name", ["call", "chain", "mlp"])
def test_pytensor_computes_the_same(name):
    pytest.importorskip("pytensor", reason="pytensor is not installed")
    agree(outputs(in_symgrad, CASES[name]), outputs(import_module("symgrad.bench.in_pytensor"), CASES[name]))


def test_the_gradient_of_a_mask_is_masked():
    case = CASES["mask"]
    x, w = (np.float32(a) for a in np.random.default_rng(2026).standard_normal((2, case.small["n"]), np.float32))
    y, g = outputs(in_symgrad, case)
    assert 0 < (y != 0).mean() < 1
    np.testing.assert_allclose(g, (y != 0) * x * w * w, rtol=1e-5)


def test_a_training_workload_goes_on_training():
    run = CASES["mlp"].build(in_symgrad, **CASES["mlp"].small)
    first = run.call()
    assert [run.call() for _ in range(20)][-1] < first


@pytest.fixture(scope="module")
def cells():
    libraries = ["symgrad", *(["torch"] if find_spec("torch") else [])]
    return turns.measure(["call", "mlp"], libraries, 1, Plan(rounds=2, seconds=0.0, small=True))


def test_processes_report_times_starts_and_memory(cells):
    for cell in cells:
        assert not cell.error and 0 < cell.seconds < cell.cold and cell.warm > 0 and cell.importing > 0
        assert 10 < cell.warm_mib < 4096 and cell.cold_mib > 10
        assert cell.difference is None or cell.difference < 1e-5


def test_processes_take_turns_and_stop_in_time():
    order = []

    class Process:
        def __init__(self, name):
            self.name = name

        def ask(self, line):
            order.append(self.name)
            return {"seconds": 1.0}
    a, b = Process("a"), Process("b")
    assert turns.take_turns([a, b], Plan(rounds=5)) == {a: [1.0] * 5, b: [1.0] * 5} and order == ["a", "b"] * 5
    assert turns.take_turns([a], Plan(rounds=5, budget=0.0)) == {a: [1.0] * 3}


def test_cases_that_are_compared_take_turns_together(monkeypatch):
    groups = []
    monkeypatch.setattr(turns, "in_turns", lambda cases, *rest: groups.append(cases) or [])
    turns.measure(["call", "gated4", "mlp", "gated4 off"], ["symgrad"], 1, Plan())
    assert groups == [["call"], ["gated4", "gated4 off"], ["mlp"]]


def test_a_failing_library_is_a_cell_with_its_error():
    (cell,) = turns.measure(["gated4"], ["nothing"], 1, Plan(rounds=1, seconds=0.0, cold=False, small=True))
    assert "in_nothing" in cell.error
    assert report.time_table([cell])[1][1:] == ["-"]
    assert report.failures([cell])


def test_a_library_that_takes_too_long_is_stopped():
    (cell,) = turns.measure(["mlp"], ["symgrad"], 1, Plan(rounds=1, cold=False, limit=0.01, small=True))
    assert cell.error == "no result within 0 s"


MADE = [Cell(library, case, threads, seconds=s, cold=2.0, warm=0.5, cold_mib=200, warm_mib=100, difference=2e-7)
        for library, case, threads, s in (("symgrad", "vgg", 1, 0.3), ("torch", "vgg", 1, 0.6), ("symgrad", "vgg plain", 1, 0.25),
                                          ("torch", "vgg plain", 1, 0.5), ("symgrad", "vgg", 2, 0.2), ("torch", "vgg", 2, 0.5))]


def test_tables_hold_the_ratios():
    assert report.time_table(MADE[:2]) == [["workload", "symgrad", "PyTorch", "best peer / symgrad", "difference"],
                                           ["vgg", "300 ms", "600 ms", "2.00", "2e-07"]]
    assert report.ratios(MADE)[1] == ["guided gradient / ordinary gradient", "1.20", "1.20"]
    assert report.starts(MADE[:4])[1] == ["vgg", "2.00 / 0.50", "2.00 / 0.50"]
    assert report.memory(MADE[:4])[1] == ["vgg", "200 / 100", "200 / 100"]
    assert "2 threads" in report.times(MADE) and "2.50" in report.times(MADE)


def test_only_generated_parts_of_a_page_change(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench times 1, generated -->\nold\n<!-- end -->\nbetween\n<!-- bench memory, generated -->\n<!-- end -->\nafter\n")
    assert report.write(page, report.pages(MADE)) == ["times 1", "memory"]
    text = page.read_text()
    assert text.startswith("before\n<!--") and "-->\nbetween\n<!--" in text and text.endswith("-->\nafter\n")
    assert "old" not in text and "200 / 100" in text
    report.write(page, report.pages(MADE))
    assert page.read_text() == text
    report.write(page, report.pages([Cell("symgrad", "mlp", 2, seconds=1.0)]))
    assert page.read_text() == text, "what was not measured stays"


def test_the_page_of_the_documentation_has_a_place_for_every_table():
    page = report.Path(__file__).parents[1] / "docs" / "performance.md"
    text = page.read_text()
    for name in (*report.pages(MADE), "scaling"):
        assert f"<!-- bench {name}, generated -->" in text


def test_chains_have_a_row_each():
    assert [row[0] for row in scaling.table((30, 60))[1:]] == ["30", "60"]


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", *arguments])


def test_the_command_prints_a_table():
    result = invoke("call", "--quick", "--seconds", "0", "--peer", "")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].startswith("| call")


@pytest.mark.parametrize("arguments, said", [(("cal",), "call"), (("call", "--peer", "nothing"), "torch"),
                                             (("call", "--peer", "jax", "--python", f"jax={sys.executable}x"), "jax")])
def test_mistakes_are_explained(arguments, said):
    result = invoke(*arguments)
    assert result.exit_code and said in str(result.exception)
