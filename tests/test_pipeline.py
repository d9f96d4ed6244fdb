"""The passes between a user's graph and a backend, and the door they go through."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.graph import spec
from symgrad.graph.inline import inline_blocks
from symgrad.graph.node import ITEM, Node, constant, make, new_input
from symgrad.graph.types import TupleType, Type
from symgrad.ops.row import ROWS
from symgrad.rewrite import books
from symgrad.runtime import pipeline
from symgrad.runtime.pipeline import passes, step
from symgrad.testing.random_graphs import random_graph


@pytest.fixture
def graph():
    x = T.tensor("x", (3, 4))
    y = T.log_softmax(T.relu(x * 1), axis=1)
    return x, sg.grad(T.sum(y * y), x)


def names(*outputs):
    return {n.op.name for n in pipeline.order(outputs)}


# -------------------------------------------------------------------------------------------- what runs
def test_both_roads_agree_and_the_reference_runs_what_was_written(graph, rng):
    x, y = graph
    value = rng.standard_normal((3, 4)).astype("f")
    a, b = (sg.function([x], y, backend=name) for name in ("reference", "cpu"))
    np.testing.assert_allclose(a(value), b(value), rtol=1e-5, atol=1e-6)
    assert "broadcast_to" in names(*a.executable.outputs)


def test_passes_can_be_asked_to_be_unsafe():
    x = T.tensor("x", (3,))
    safe = unsafe = [x / x]
    for transform in passes():
        safe = step(transform, safe)
    for transform in passes(unsafe=True):
        unsafe = step(transform, unsafe)
    assert names(*safe) == {"divide", "input"} and names(*unsafe) == {"broadcast_to", "constant"}


def test_no_pass_leaves_a_block(graph):
    x = T.tensor("x", (2, 3))
    y = T.layer_norm(T.gelu(x), (3,))
    outputs = step(inline_blocks, [y])
    assert not [n for n in pipeline.order(outputs) if spec.block_left(n)]


# ------------------------------------------------------------------------------------------ what is shown
def test_debug_three_shows_sizes_and_times(graph, capfd):
    x, y = graph
    with sg.config(debug=3):
        sg.function([x], y, backend="cpu")
    shown = capfd.readouterr().err.splitlines()
    line = {
        word: next(s for s in shown if word in s)
        for word in ("inline_blocks", "simplify ", "masks_of_results")
    }
    assert "unchanged" in line["inline_blocks"] and " ms" in line["inline_blocks"]
    before, after = (int(w) for w in line["simplify "].split() if w.isdigit())
    assert after < before
    assert any("algebra.py:" in s for s in shown), "rules that fired are counted"


def test_debug_six_shows_each_rewrite_with_its_line(graph, capfd):
    x, y = graph
    with sg.config(debug=6):
        books.simplify([x * 1])
    shown = capfd.readouterr().err
    rule = next(r for r in books.algebra if str(r) == "algebra: (x * 1) -> x")
    assert f"{rule.where}" in shown and "(x * 1) -> x" in shown and "test_pipeline.py" in shown


def test_silent_by_default(graph, capfd):
    x, y = graph
    with sg.config(debug=0):
        sg.function([x], y, backend="cpu")
    assert capfd.readouterr().err == ""


def test_dump_writes_numbered_stages_that_read_back(graph, tmp_path):
    x, y = graph
    with sg.config(dump=str(tmp_path)):
        sg.function([x], y, backend="cpu")
    (folder,) = tmp_path.iterdir()
    files = sorted(f.name for f in folder.iterdir())
    assert files == [
        "00_written.txt",
        "01_inline_blocks.txt",
        "02_loops.txt",
        "03_simplify.txt",
        "04_masks_of_results.txt",
        "05_plan.txt",
        "06_kernels.py",
    ]
    (written,) = sg.parse_graph((folder / "00_written.txt").read_text(), {"x": x})
    assert written is y
    assert (
        "def kernel" in (folder / "06_kernels.py").read_text()
        or "def k" in (folder / "06_kernels.py").read_text()
    )


def test_dump_of_unknown_sizes_has_no_kernels_yet(tmp_path):
    x = T.tensor("x", ("n",))
    with sg.config(dump=str(tmp_path)):
        sg.function([x], T.exp(x), backend="cpu")
    assert not list(tmp_path.glob("*/*.py")) and len(list(tmp_path.glob("*/*.txt"))) == 5


# ----------------------------------------------------------------------------------------- what is checked
def test_passes_keep_graphs_legal():
    with sg.config(check=True):
        for seed in range(60):
            graph = random_graph(seed, steps=15, unknown_sizes=bool(seed % 2))
            outputs = step(inline_blocks, graph.outputs)
            for transform in passes():
                outputs = step(transform, outputs)


def test_gradients_are_legal(graph):
    assert spec.crimes(inline_blocks([graph[1]])) == []


def illegal(crime):
    """The smallest graph with this crime."""
    x = new_input(Type("float32", (3,)))
    n = new_input(Type("int64", ()))
    if crime == "wrong_type":
        return Node(ROWS["exp"], (x,), {}, Type("float32", (4,)))
    if crime == "two_of_a_kind":
        make(ROWS["exp"], [x])
        return Node(ROWS["exp"], (x,), {}, x._type)
    if crime == "mixed_dtypes":
        return make(ROWS["add"], [x, constant(1.0, "float64")])
    if crime == "hidden_operand":
        node = T.arange(n)
        node.deps = ()
        return node
    if crime == "results_read_as_one":
        pair = Node(ROWS["exp"], (x,), {}, TupleType([x._type, x._type]))
        return Node(ITEM, (pair,), {"k": 2}, x._type)
    if crime == "changeable_constant":
        node = constant([1.0, 2.5, 77.0], "float32")
        twin = Node(node.op, (), {}, node._type, payload=node.payload.copy())
        return twin
    if crime == "leaf_with_operands":
        return Node(x.op, (x,), {}, x._type)
    assert crime == "block_left"
    return T.layer_norm(new_input(Type("float32", (2, 3))), (3,))


@pytest.mark.parametrize("crime", [*spec.CRIMES, spec.block_left], ids=lambda c: c.__name__)
def test_each_crime_is_found(crime):
    node = illegal(crime.__name__)
    found = spec.crimes([node], [spec.block_left])
    assert any(line.startswith(crime.__name__ + ":") for line in found), found
    with pytest.raises(sg.CompileError, match=f"(?s)after breaking.*{crime.__name__}.*test_pipeline.py"):
        spec.check([node], "breaking", [spec.block_left])


def test_a_pass_that_changes_a_type_is_stopped(graph):
    x = T.tensor("x", (3,))

    def widen(outputs):
        return [T.cast(y, "float64") for y in outputs]

    def forget(outputs):
        return list(outputs)[1:]

    with sg.config(check=True):
        with pytest.raises(
            sg.CompileError, match="(?s)after widen.*changed_type: output 0 was float32 \\(3,\\), is float64"
        ):
            step(widen, [x + 1])
        with pytest.raises(sg.CompileError, match="lost_output"):
            step(forget, [x + 1, x])


def test_sizes_that_data_decide_may_be_rewritten():
    n = T.scalar("n", dtype="int64")
    with sg.config(check=True):
        f = sg.function([n], T.sum(T.arange((n + 0) * 1)), backend="cpu")
    assert f(np.int64(4)) == 6
