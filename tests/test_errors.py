"""One mistake per test: the right type, at the earliest moment, with the user's line. Whole messages for the common ones."""

from __future__ import annotations

import re

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T

HERE = __file__
F = lambda *shape: np.zeros(shape, "float32")


def guided(g, y, x):
    return g * (x > 0) * (g > 0)


def message(error, call):
    """The text of the error a call raises, without this folder and without line numbers (they move with every edit)."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert re.search(r"test_errors\.py:\d+", text), "the message names the user's line"
    return re.sub(r"[^\s(]*test_errors\.py:\d+", "test_errors.py:LINE", text)


# ----------------------------------------------------------------------------------------- golden messages
def shapes_that_do_not_broadcast():
    return T.tensor("x", (3, 4)) + T.tensor("y", (5,))


def matmul_of_sizes_that_differ():
    return T.tensor("x", (32, 784)) @ T.tensor("w", (512, 784))


def gradient_of_an_array():
    x = T.vector("x")
    return sg.grad(x * 2, x)


def gradient_of_something_unrelated():
    x, mask = T.vector("x"), T.vector("mask")
    score = (x * 2).sum()
    score.name = "score"
    return sg.grad(score, mask)


def gradient_through_a_cut():
    x = T.vector("x")
    return sg.grad((sg.stop_gradient(T.exp(x)) + 1).sum(), x)


def gradient_of_integers():
    k = T.vector("k", dtype="int64")
    return sg.grad((k * 1.5).sum(), k)


def unused_override():
    x = T.vector("x")
    return sg.grad(T.maximum(x, 0).sum(), x, overrides={T.relu: guided})


def rule_of_the_wrong_shape():
    def careless(g, y, x):
        return g[:1]
    x = T.tensor("x", (3,))
    return sg.grad(T.relu(x).sum(), x, overrides={T.relu: careless})


def old_keyword():
    a = T.vector("a")
    return sg.OpFromGraph([a], [T.relu(a)], grad_overrides=guided)


def assigned_rule():
    a = T.vector("a")
    op = sg.OpFromGraph([a], [T.relu(a)], name="my_relu")
    op.grad = guided


def missing_input():
    x, temperature = T.vector("x"), T.scalar("temperature")
    return sg.function([x], x / temperature)


def unused_input():
    x, y = T.vector("x"), T.vector("y")
    return sg.function([x, y], x * 2)


def wrong_size_at_the_call():
    x = T.tensor("x", ("n", 4))
    return sg.function([x], x * 2, backend="reference")(F(2, 5))


def lossy_argument():
    x = T.vector("x")
    return sg.function([x], x * 2, backend="reference")(np.zeros(3))


def sizes_that_differ_at_the_call():
    x, y = T.vector("x"), T.vector("y")
    return sg.function([x, y], x + y, backend="reference")(F(3), F(4))


def nonlinear_rule_in_forward_mode():
    x = T.vector("x")
    return sg.jvp(T.relu(x), x, T.ones_like(x), overrides={T.relu: guided})


def nan_found():
    x = T.vector("x")
    return sg.function([x], T.log(x).sum(), check="nan", backend="reference")(np.float32([1, -1]))


def index_out_of_range():
    x, k = T.tensor("x", (3,)), T.vector("k", dtype="int64")
    return sg.function([x, k], x[k], backend="reference")(F(3), [5])


GOLDEN = {f.__name__: (error, f) for error, f in [
    (sg.ShapeError, shapes_that_do_not_broadcast), (sg.ShapeError, matmul_of_sizes_that_differ), (sg.ShapeError, gradient_of_an_array),
    (sg.DisconnectedError, gradient_of_something_unrelated), (sg.DisconnectedError, gradient_through_a_cut), (sg.DTypeError, gradient_of_integers),
    (sg.UnusedOverrideError, unused_override), (sg.OverrideError, rule_of_the_wrong_shape), (sg.OverrideError, old_keyword),
    (sg.OverrideError, assigned_rule), (sg.MissingInputError, missing_input), (sg.UnusedInputError, unused_input),
    (sg.ShapeError, wrong_size_at_the_call), (sg.DTypeError, lossy_argument), (sg.ShapeError, sizes_that_differ_at_the_call),
    (sg.OverrideError, nonlinear_rule_in_forward_mode), (sg.NanError, nan_found), (IndexError, index_out_of_range)]}


@pytest.mark.parametrize("name", GOLDEN)
def test_whole_message(name, golden):
    golden(f"error_{name}", message(*GOLDEN[name]))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_message_has_four_parts(name):
    lines = message(*GOLDEN[name]).split("\n")
    assert not lines[0].startswith(" "), "what was asked"
    assert lines[1].startswith("  found: "), "what was found"
    assert any("test_errors.py:LINE" in line for line in lines), "where"
    assert any(line.startswith("  try:   ") for line in lines) or name in ("nothing",), "what to try"
    assert all(len(line) < 220 for line in lines)


# ------------------------------------------------------------------------------------------- the hierarchy
@pytest.mark.parametrize("error, builtin", [
    ("ShapeError", ValueError), ("DTypeError", TypeError), ("DisconnectedError", ValueError), ("MissingInputError", ValueError),
    ("UnusedInputError", ValueError), ("OverrideError", ValueError), ("UnusedOverrideError", sg.OverrideError),
    ("NanError", FloatingPointError), ("CompileError", RuntimeError), ("BackendError", RuntimeError)])
def test_errors_derive_from_symgrad_error_and_the_builtin(error, builtin):
    assert issubclass(getattr(sg, error), builtin) and issubclass(getattr(sg, error), sg.SymgradError)


# ---------------------------------------------------------------------- at the user's line, when it is made
def x34():
    return T.tensor("x", (3, 4))


SHAPE_MISTAKES = {
    "add": lambda: x34() + F(3),
    "where": lambda: T.where(x34() > 0, x34(), F(5)),
    "matmul 1d": lambda: x34() @ F(3),
    "matmul scalar": lambda: x34() @ T.scalar(),
    "sum axis": lambda: x34().sum(axis=2),
    "sum axis twice": lambda: x34().sum(axis=(0, 0)),
    "max of nothing": lambda: T.tensor("e", (0,)).max(),
    "reshape": lambda: x34().reshape((5, 3)),
    "reshape two unknown": lambda: x34().reshape((-1, -1)),
    "transpose": lambda: x34().transpose((0, 0)),
    "squeeze": lambda: x34().squeeze(0),
    "concatenate": lambda: T.concatenate([x34(), T.tensor("y", (3, 5))], axis=0),
    "concatenate rank": lambda: T.concatenate([x34(), T.vector()], axis=0),
    "stack": lambda: T.stack([x34(), T.tensor("y", (3, 5))]),
    "split": lambda: T.split(x34(), 3, axis=1),
    "too many indices": lambda: x34()[0, 0, 0],
    "broadcast_to": lambda: T.broadcast_to(x34(), (3, 5)),
    "conv channels": lambda: T.conv2d(T.tensor("i", (1, 3, 8, 8)), T.tensor("w", (4, 2, 3, 3))),
    "conv rank": lambda: T.conv2d(T.tensor("i", (8, 8)), T.tensor("w", (4, 3, 3, 3))),
    "conv kernel too large": lambda: T.conv2d(T.tensor("i", (1, 3, 2, 2)), T.tensor("w", (4, 3, 3, 3))),
    "pool too large": lambda: T.max_pool2d(T.tensor("i", (1, 3, 2, 2)), 3),
    "softmax axis": lambda: T.softmax(x34(), axis=2),
    "einsum": lambda: T.einsum("ij,jk->ik", x34(), x34()),
    "tensordot": lambda: T.tensordot(x34(), x34(), axes=1),
    "outer indices of set": lambda: T.set_subtensor(x34()[0], F(3)),
    "layer_norm": lambda: T.layer_norm(x34(), (3,)),
    "negative size": lambda: T.tensor("x", (-1,)),
    "zeros": lambda: T.zeros((-2, 3)),
    "rank word": lambda: T.matrix("x", shape=(3,)),
    "grad": lambda: sg.grad(x34(), x34()),
    "cotangent": lambda: (lambda x: sg.vjp(x * 2, x, F(4)))(T.tensor("x", (3,))),
    "tangents": lambda: (lambda x: sg.jvp(x * 2, [x], []))(T.tensor("x", (3,))),
}


@pytest.mark.parametrize("mistake", SHAPE_MISTAKES)
def test_shape_mistakes_fail_where_they_are_made(mistake):
    with pytest.raises(sg.ShapeError) as caught:
        SHAPE_MISTAKES[mistake]()
    assert f"{HERE}:" in str(caught.value) and "found" in str(caught.value)


DTYPE_MISTAKES = {
    "unknown dtype": lambda: T.vector("x", "float16"),
    "misspelt dtype": lambda: T.vector("x", "flaot32"),
    "complex constant": lambda: T.constant(1j),
    "object constant": lambda: T.constant([object()]),
    "string": lambda: T.exp("a"),
    "bits of floats": lambda: x34() & 1,
    "invert of floats": lambda: ~x34(),
    "shift of floats": lambda: x34() << 1,
    "float index": lambda: x34()[T.vector("k")],
    "python integer too large": lambda: T.vector("k", "uint8") + 300,
    "gradient of an integer cost": lambda: (lambda k: sg.grad(k.sum(), k))(T.vector("k", "int64")),
    "gradient with respect to a number": lambda: sg.grad(x34().sum(), 3),
    "astype": lambda: x34().astype("complex64"),
    "too many operands": lambda: T.exp(x34(), x34()),
}


@pytest.mark.parametrize("mistake", DTYPE_MISTAKES)
def test_dtype_mistakes_fail_where_they_are_made(mistake):
    with pytest.raises(sg.DTypeError) as caught:
        DTYPE_MISTAKES[mistake]()
    assert f"{HERE}:" in str(caught.value)


def test_the_line_is_that_of_the_mistake_not_of_its_use():
    x = T.tensor("x", (3,))
    with pytest.raises(sg.ShapeError) as caught:
        y = x * 2
        y = T.exp(y)
        y + F(4)
    line = test_the_line_is_that_of_the_mistake_not_of_its_use.__code__.co_firstlineno + 5
    assert f"{HERE}:{line}" in str(caught.value)
    assert f"exp: float32 (3,), made at {HERE}:{line - 1}" in str(caught.value)


@pytest.mark.parametrize("mistake", [lambda x: bool(x > 0), lambda x: len(T.vector()), lambda x: iter(T.vector()),
                                     lambda x: 1 if x.sum() > 0 else 2])
def test_python_control_flow_on_variables_says_what_to_use(mistake):
    with pytest.raises(sg.SymgradError, match="sg.ifelse|sg.scan|x.shape"):
        mistake(x34())


def test_index_out_of_a_known_axis_fails_when_it_is_made():
    for wrong in (lambda: x34()[3], lambda: x34()[-4], lambda: x34()[:, 4], lambda: x34()[np.array([0, 3])]):
        with pytest.raises(IndexError) as caught:
            wrong()
        assert isinstance(caught.value, sg.SymgradError) and HERE in str(caught.value)


def test_in_place_assignment_says_what_to_write():
    x = x34()
    with pytest.raises(sg.SymgradError, match="set_subtensor"):
        x[0] = 1.0


def test_disconnected_zero_gives_zeros():
    x, z = T.vector("x"), T.tensor("z", (2, 2))
    g = sg.grad((x * 2).sum(), [x, z], disconnected="zero")
    got = sg.function([x], g, backend="reference", on_unused_input="ignore")(F(3))
    assert got[0].tolist() == [2, 2, 2] and got[1].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(sg.SymgradError, match="disconnected="):
        sg.grad(x.sum(), x, disconnected="ignore")


def test_an_op_without_a_derivative_says_so_and_how_to_go_on():
    x = T.vector("x")
    with pytest.raises(sg.SymgradError, match="overrides="):
        sg.grad(T.trigamma(x).sum(), x)


def test_error_inside_a_block_names_the_line_inside_the_function():
    @sg.op_from_graph
    def broken(x):
        return x + F(7)
    with pytest.raises(sg.ShapeError) as caught:
        broken(T.tensor("x", (3,)))
    assert f"{HERE}:{broken.function.__code__.co_firstlineno + 2}" in str(caught.value)


def test_errors_survive_the_default_verbosity_of_a_traceback():
    """The message alone says it: nothing has to be set to see the line."""
    x, y = T.vector("x"), T.vector("y")
    z = x + y
    f = sg.function([x, y], T.exp(z).sum(), backend="cpu")
    line = test_errors_survive_the_default_verbosity_of_a_traceback.__code__.co_firstlineno + 3
    with pytest.raises(sg.ShapeError, match=rf"add made at .*test_errors\.py:{line}"):
        f(F(3), F(4))
