"""The text of a graph reads back as the same graph."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.backends.reference import Reference
from symgrad.base import poly
from symgrad.graph.inline import inline_blocks
from symgrad.graph.node import constant, make, new_input
from symgrad.graph.types import Type
from symgrad.graph.walk import leaves, order
from symgrad.ops.row import ROWS
from symgrad.testing.random_graphs import random_graph


def again(*outputs, **options):
    """The outputs, written and read; the text must not change by that."""
    outs = list(outputs)
    text = sg.graph_text(outs, **options)
    found = sg.parse_graph(text)
    assert sg.graph_text(found, **options) == text
    return found


def given_by_name(*outputs):
    """Written and read with the same inputs: interning makes it the very same nodes."""
    own = {x.name: x for x in leaves(outputs)}
    return sg.parse_graph(sg.graph_text(list(outputs)), own)


def test_text_of_a_small_graph():
    x, w = T.tensor("x", ("n", 4)), sg.shared(np.ones(4, "f"), "w")
    y = T.sum(T.relu(x * w + 1), axis=1)
    y.name = "total"
    lines = [line.split("  #")[0] for line in sg.graph_text(y).splitlines()]
    assert lines == [
        '%0 "x" = input : float32 (n, 4)',
        '%1 "w" = shared : float32 (4,)',
        "%2 = multiply(%0, %1) : float32 (n, 4)",
        "%3 = constant 1.0 : float32 ()",
        "%4 = add(%2, %3) : float32 (n, 4)",
        "%5 = relu(%4) : float32 (n, 4)",
        '%6 "total" = sum(%5, axis=(1,), keepdims=False) : float32 (n,)',
        "return %6",
    ]
    assert given_by_name(y)[0] is y


def test_the_same_inputs_give_the_same_nodes():
    x, y = T.tensor("x", ("n", 4)), T.tensor("y", (4,))
    out = T.exp(x * y)[:, ::-1].T
    assert given_by_name(out)[0] is out


def test_lines_are_kept():
    x = T.tensor("x", (3,))
    y = T.exp(x)
    (new,) = again(y)
    assert new.where.rsplit("/", 1)[-1] == y.where.rsplit("/", 1)[-1] != x.where.rsplit("/", 1)[-1]


def test_one_variable_comes_back_bare_and_a_list_as_a_list():
    x = T.tensor("x", (3,))
    assert isinstance(sg.parse_graph(sg.graph_text(T.exp(x))), sg.Variable)
    assert len(sg.parse_graph(sg.graph_text([T.exp(x)]))) == 1
    assert len(sg.parse_graph(sg.graph_text([T.exp(x), x]))) == 2


@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, 0.1, 3.4e38], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_constants_come_back_bit_by_bit(value, dtype):
    c = constant(value, dtype)
    assert again(c)[0] is c


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), "f"),
        np.array([[1, -2], [3, 4]], "int8"),
        np.array([True, False]),
        np.array(2**64 - 1, "uint64"),
        np.array([[-(2**63)]]),
        np.linspace(0, 1, 1000).reshape(10, 100),
        np.array(["7ff8000000000123"], "S16").view("S16"),
        np.ones((1, 1, 1)),
        np.arange(17, dtype="uint8"),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_array_constants_come_back(array):
    if array.dtype.kind == "S":  # a NaN with a payload: no number says that
        array = np.array([int(array[0], 16)], "uint64").view("float64")
    c = constant(array)
    assert again(c)[0] is c


def test_shared_variables_need_a_value_or_themselves():
    w = sg.shared(np.array([[1.5, -2]], "f"), "w")
    y = w * 2
    with pytest.raises(sg.SymgradError, match="value for shared variable w"):
        sg.parse_graph(sg.graph_text(y))
    assert sg.parse_graph(sg.graph_text(y), {"w": w}) is y
    other = sg.parse_graph(sg.graph_text(y, values=True))
    np.testing.assert_array_equal(leaves([other])[0].get_value(), [[1.5, -2]])


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_op_comes_back(name):
    row = ROWS[name]
    for s in row.samples:
        operands = [new_input(Type(s.dtypes[0], a)) if isinstance(a, tuple) else constant(a) for a in s.args]
        try:
            node = make(row, operands, **s.attrs)
        except (TypeError, KeyError, AttributeError):
            continue  # a sample that is spelled for the call of the row, not for its node
        (new,) = again(node)
        assert new.op is node.op and new._type == node._type
        assert repr(new.attrs) == repr(node.attrs)


def test_sizes_come_back():
    x, y = T.tensor("x", ("n", None, "odd name")), T.tensor("y", (None, "max"))
    n, unknown = x.dims[:2]
    sizes = (
        n * 2 + 1,
        poly.floordiv(n + 3, 2),
        poly.maximum(n - unknown, 0),
        poly.mod(n * unknown, 7),
        -n + 4,
        5,
    )
    out = T.reshape(T.broadcast_to(T.scalar("s"), sizes), (-1,))
    result = again(out, x, y)
    assert str(result[0].dims[0]).count("n") == str(out.dims[0]).count("n")
    assert result[1].dims[0] == n and result[1].dims[2] == x.dims[2] and result[2].dims[1] == y.dims[1]
    assert result[1].dims[1] != result[2].dims[0]


def test_sizes_decided_by_data_come_back():
    n = T.scalar("n", dtype="int64")
    f = sg.function(leaves([y := again(T.sum(T.arange(n * n)))[0]]), y, backend="reference")
    assert f(np.int64(3)) == 36


def test_blocks_come_back_without_their_rules():
    @sg.op_from_graph(vjp=lambda g, y, x: g * 0)
    def gate(x):
        return T.relu(x) * outside

    outside = sg.shared(np.array(3.0, "f"), "outside")
    x = T.tensor("x", (4,))
    y = gate(gate(x)) + 1
    text = sg.graph_text(y, values=True)
    assert text.count("block @gate") == 1 and text.count("call @gate") == 2
    new = again(y, values=True)
    value = lambda out: Reference([v for v in leaves(out) if v.name == "x"], inline_blocks(out))(
        [np.arange(-1, 3, dtype="f")]
    )[0]
    np.testing.assert_array_equal(value(new), value([y]))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_come_back(seed):
    graph = random_graph(seed, unknown_sizes=bool(seed % 2))
    for outputs in (graph.outputs, inline_blocks(graph.outputs)):
        assert all(a is b for a, b in zip(given_by_name(*inline_blocks(outputs)), inline_blocks(outputs)))
        again(*outputs)


# ------------------------------------------------------------------------------------------------- repr
def test_repr_is_text_that_reads_back():
    x = T.tensor("x", (3,))
    y = T.exp(x) + 1
    assert sg.parse_graph(repr(y), {"x": x}) is y


def test_repr_of_a_large_graph_is_one_line():
    y = x = T.tensor("x", (3,))
    for _ in range(5000):
        y = y + x
    assert repr(y).startswith("<add(add, x) : float32 (3,), made at ") and "\n" not in repr(y)


def test_repr_inside_sizes_is_short():
    n = T.scalar("n", dtype="int64")
    assert "\n" not in str(T.arange(n * n + 1).dims)


# ------------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%0 = input : float32 (3,)\n%1 = expp(%0) : float32 (3,)", "name of an op.*\n.*expp.*exp"),
        ("%0 = input : float32 (3,)\n%1 = exp(%7) : float32 (3,)", "earlier line.*\n.*%7"),
        ("%0 = input : float32 (3,)\n%1 = exp(%0) : float32 (4,)", "exp of type float32 \\(4,\\)"),
        ("%0 = input : float33 (3,)", "a dtype"),
        ("%0 = constant [1.0, 2.0] : float32 (3,)", "elements for"),
        ("%0 = input : float32 (3,) !", "a word"),
        ("%0 = input float32", "':'"),
        ("", "a graph"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text, message):
    with pytest.raises(sg.SymgradError, match=f"(?s){message}") as error:
        sg.parse_graph(text)
    assert "of the text" in str(error.value)


def test_every_line_of_a_large_graph_is_written():
    y = x = T.tensor("x", (3,))
    for _ in range(3000):
        y = y + x
    new = sg.parse_graph(sg.graph_text(y), {"x": x})
    assert new is y and len(order([y])) == 3001
