"""`symgrad bench --kernels`: every case is a graph, and what is measured is what was asked."""

from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

import symgrad as sg
import symgrad.tensor as T
from symgrad.cli.main import app
from symgrad.testing import kernel_cases
from symgrad.testing.kernel_cases import Case
from symgrad.testing.kernel_times import compiled, drawn, in_torch, measure, median_times, multiply_add_peak, variables

PRODUCT = Case("gemm", "32x48x16", ((32, 48), (48, 16)), lambda t, x, y: t.matmul(x, y), 2 * 32 * 48 * 16)
ROWS = Case("softmax g", "3x5", ((3, 5),), lambda t, x: t.softmax(x, -1), wrt=(0,), forward=True)


@pytest.mark.parametrize("case", kernel_cases.cases(), ids=lambda case: f"{case.kind} {case.name}")
def test_every_case_is_a_graph(case):
    xs = [T.tensor(f"x{k}", shape, case.dtype(k)) for k, shape in enumerate(case.shapes)]
    y = case.call(T, *xs)
    if case.wrt:
        gradients = sg.vjp(y, [xs[k] for k in case.wrt], T.tensor("g", y.dims, y.dtype))
        assert [g.dims for g in gradients] == [case.shapes[k] for k in case.wrt]


def test_flops_are_those_of_the_profile():
    arrays = drawn(PRODUCT)
    xs = variables(arrays)
    (row,) = sg.function(xs, PRODUCT.call(T, *xs)).profile(*arrays)
    assert row.flops == PRODUCT.flops


def test_a_gradient_is_that_of_the_cotangent():
    arrays = drawn(ROWS)
    run, (found,) = compiled(ROWS, arrays)
    x, g = (a.astype("float64") for a in arrays)
    y = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(found, y * (g - (g * y).sum(1, keepdims=True)), atol=1e-6)
    np.testing.assert_array_equal(run()[0], found)


def test_rates_and_limits():
    product, rows = measure([PRODUCT, ROWS], seconds=0)
    assert product.unit == "GFLOP/s" and product.rate == pytest.approx(PRODUCT.flops / product.seconds / 1e9)
    assert rows.unit == "GB/s" and rows.nbytes == 3 * 3 * 5 * 4
    assert 0 < product.share < 1.2 and rows.limit > 0 and rows.peer is None


def test_the_peak_is_above_every_product():
    with sg.config(num_threads=1):
        (product,) = measure([Case("gemm", "", ((192, 192), (192, 192)), lambda t, x, y: t.matmul(x, y), 2 * 192**3)], seconds=0.05)
    assert product.case.flops / product.seconds < 1.1 * max(multiply_add_peak("float32") for _ in range(3))


def test_calls_take_turns(monkeypatch):
    monkeypatch.setattr("symgrad.testing.kernel_times.TURN", 0)
    order = []
    assert len(median_times([lambda: order.append("a"), lambda: order.append("b")], 0)) == 2
    assert "".join(order) == "aaabbb" + 5 * "ab"


@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
def test_the_peer_is_timed_and_its_results_compared():
    (row,) = measure([ROWS], seconds=0, peer="torch")
    assert row.peer > 0
    arrays = drawn(ROWS)
    with pytest.raises(AssertionError, match="softmax g 3x5"):
        in_torch(ROWS, arrays, [np.zeros((3, 5), "float32") + 7])


def test_the_command_prints_a_line_per_case(monkeypatch):
    monkeypatch.setattr("symgrad.cli.bench.cases", lambda: [PRODUCT, ROWS])
    result = CliRunner().invoke(app, ["bench", "--kernels", "--only", "gem*", "--seconds", "0"])
    assert result.exit_code == 0, result.output
    head, line = result.output.splitlines()
    assert head.split()[:3] == ["class", "case", "us"]
    assert line.split()[:2] == ["gemm", "32x48x16"] and "GFLOP/s" in line


@pytest.mark.parametrize("arguments, said", [(("--kernels", "--only", "nothing"), "no class fits 'nothing'"),
                                             (("--kernels", "--peer", "mine"), "known are torch")])
def test_mistakes_are_explained(arguments, said):
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code
    assert said in result.output + str(result.exception)
