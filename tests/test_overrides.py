"""Gradient overrides: every way to say one, and every way one could be lost.

The case used throughout: v = [1, -1, 2], guided backpropagation, cotangent c = [1, -1, -1].
Where the rule ran the answer is [1, 0, 0]; the plain gradient of ReLU gives [1, 0, -1].
"""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.testing import check_grad

V = np.array([1, -1, 2], "float32")
C = np.array([1, -1, -1], "float32")
FIRED = [1, 0, 0]
PLAIN = [1, 0, -1]


def guided(g, y, x):
    return g * (x > 0) * (g > 0)


def triple(g, y, x):
    return 3 * g


def pulled(build, backend="reference", *, point=V, cotangent=C, **options):
    """The cotangent that reaches x through y = build(x)."""
    x = T.vector("x")
    g = sg.vjp(build(x), x, T.constant(cotangent), **options)
    return sg.function([x], g, backend=backend, on_unused_input="ignore")(point).tolist()


# ------------------------------------------------------------------------------- where the op is made
def guided_by_class():
    a = T.vector("a")
    return sg.OpFromGraph([a], [T.maximum(a, 0)], vjp=guided, name="guided_relu")


def guided_by_decorator():
    @sg.op_from_graph(vjp=guided)
    def guided_relu(x):
        return T.relu(x)
    return guided_relu


def guided_by_call():
    return sg.op_from_graph(lambda x: x * (x > 0), vjp=guided, name="guided_relu")


def guided_by_list():
    a = T.vector("a")
    return sg.OpFromGraph([a], [T.relu(a)], vjp=[guided])


MAKERS = [guided_by_class, guided_by_decorator, guided_by_call, guided_by_list]


@pytest.mark.parametrize("maker", MAKERS)
def test_define_time_rule_fires(maker, backend):
    assert pulled(maker(), backend) == FIRED


@pytest.mark.parametrize("maker", MAKERS)
def test_define_time_rule_leaves_the_value_alone(maker, backend):
    x = T.vector("x")
    f = sg.function([x], maker()(x), backend=backend)
    assert f(V).tolist() == [1, 0, 2]


@pytest.mark.parametrize("old", ["grad", "L_op", "R_op", "vjp", "pullback", "lop_overrides", "anything"])
def test_assigning_a_rule_to_an_instance_raises(old):
    for op in (guided_by_class(), guided_by_decorator(), T.relu):
        with pytest.raises(sg.OverrideError, match="overrides="):
            setattr(op, old, guided)


@pytest.mark.parametrize("keyword", ["grad_overrides", "lop_overrides", "rop_overrides", "pullback", "pushforward", "grad", "vjps"])
def test_unknown_keywords_raise(keyword):
    a = T.vector("a")
    with pytest.raises(sg.OverrideError, match=keyword):
        sg.OpFromGraph([a], [T.relu(a)], **{keyword: guided})
    with pytest.raises(sg.OverrideError, match=keyword):
        sg.op_from_graph(**{keyword: guided})
    with pytest.raises(sg.OverrideError, match=keyword):
        sg.grad(a.sum(), a, **{keyword: guided})


@pytest.mark.parametrize("old", ["grad", "L_op", "R_op", "pullback"])
def test_a_subclass_that_defines_an_old_method_raises(old):
    with pytest.raises(sg.OverrideError, match=old):
        type("Guided", (sg.OpFromGraph,), {old: guided})


def test_a_rule_that_is_no_function_raises():
    a = T.vector("a")
    for wrong in (3, "guided", T.vector("g")):
        with pytest.raises(sg.OverrideError, match="not callable"):
            sg.OpFromGraph([a], [T.relu(a)], vjp=wrong)
        with pytest.raises(sg.OverrideError, match="not callable"):
            sg.grad(T.relu(a).sum(), a, overrides={T.relu: wrong})


def test_one_rule_per_input(backend):
    a, b = T.vector("a"), T.vector("b")
    op = sg.OpFromGraph([a, b], [a * b], vjp=[sg.DEFAULT, lambda g, y, a, b: 7 * g])
    x, w = T.vector("x"), T.vector("w")
    gx, gw = sg.grad(op(x, w).sum(), [x, w])
    f = sg.function([x, w], [gx, gw], backend=backend, on_unused_input="ignore")
    got = f(V, np.array([8, 9, 10], "f"))
    assert got[0].tolist() == [8, 9, 10] and got[1].tolist() == [7, 7, 7]


def test_stop_for_one_input_cuts_it_off():
    a, b = T.vector("a"), T.vector("b")
    op = sg.OpFromGraph([a, b], [a * b], vjp=[sg.STOP, sg.DEFAULT])
    x, w = T.vector("x"), T.vector("w")
    ga, gw = sg.grad(op(x, w).sum(), [x, w])
    got = sg.function([x, w], [ga, gw], backend="reference", on_unused_input="ignore")(V, C)
    assert got[0].tolist() == [0, 0, 0] and got[1].tolist() == V.tolist()


def test_a_rule_may_mix_its_own_cotangents_with_default_and_stop():
    a, b, c = T.vector("a"), T.vector("b"), T.vector("c")
    op = sg.OpFromGraph([a, b, c], [a * b * c], vjp=lambda g, y, a, b, c: (sg.DEFAULT, 5 * g, sg.STOP))
    xs = [T.vector(n) for n in "xyz"]
    gs = sg.grad(op(*xs).sum(), xs, disconnected="zero")
    got = sg.function(xs, gs, backend="reference", on_unused_input="ignore")(V, C, 2 * V)
    assert got[0].tolist() == (C * 2 * V).tolist()
    assert got[1].tolist() == [5, 5, 5] and got[2].tolist() == [0, 0, 0]


def test_wrong_number_of_rules_raises():
    a, b = T.vector("a"), T.vector("b")
    with pytest.raises(sg.OverrideError, match="2 in all"):
        sg.OpFromGraph([a, b], [a * b], vjp=[guided])


def test_several_outputs_give_tuples(backend):
    seen = {}

    def rule(g, y, x):
        seen["g"], seen["y"] = g, y
        return g[0] + 10 * g[1] + 0 * y[0] * y[1]

    a = T.vector("a")
    op = sg.OpFromGraph([a], [a * 2, a * 3], vjp=rule, name="two")
    x = T.vector("x")
    p, q = op(x)
    f = sg.function([x], sg.grad((p + q).sum(), x), backend=backend)
    assert f(V).tolist() == [11, 11, 11]
    assert isinstance(seen["g"], tuple) and isinstance(seen["y"], tuple) and len(seen["g"]) == len(seen["y"]) == 2


def test_an_unused_output_has_a_zero_cotangent():
    a = T.vector("a")
    op = sg.OpFromGraph([a], [a * 2, a * 3], vjp=lambda g, y, x: g[0] + 10 * g[1])
    x = T.vector("x")
    assert sg.function([x], sg.grad(op(x)[1].sum(), x), backend="reference", on_unused_input="ignore")(V).tolist() == [10, 10, 10]


def test_a_captured_shared_variable_keeps_its_ordinary_gradient(backend):
    w = sg.shared(np.array([2, 3, 4], "f"), "w")
    a = T.vector("a")
    op = sg.OpFromGraph([a], [a * w], vjp=lambda g, y, a: 100 * g)
    x = T.vector("x")
    gx, gw = sg.grad(op(x).sum(), [x, w])
    got = sg.function([x], [gx, gw], backend=backend)(V)
    assert got[0].tolist() == [100] * 3 and got[1].tolist() == V.tolist()


def test_captured_shared_and_other_free_variables_together(backend):
    w, t = sg.shared(np.array([2, 3, 4], "f"), "w"), T.vector("t")
    a = T.vector("a")
    op = sg.OpFromGraph([a], [T.tanh(a * w) + t * t])
    x = T.vector("x")
    got = sg.function([x, t], sg.grad(op(x).sum(), [x, w, t]), backend=backend)(V, C)
    slope = 1 - np.tanh(V * w.get_value()) ** 2
    np.testing.assert_allclose(got[0], slope * w.get_value(), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(got[1], slope * V, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(got[2], 2 * C)


def test_a_rule_closes_over_a_symbol(backend):
    temperature = T.scalar("temperature")
    op = sg.op_from_graph(T.relu, vjp=lambda g, y, x: g * temperature, name="tempered")
    x = T.vector("x")
    h = sg.vjp(op(x), x, T.constant(C))
    f = sg.function([x, temperature], h, backend=backend, on_unused_input="ignore")
    assert f(V, 2.0).tolist() == [2, -2, -2]
    assert f(V, -1.0).tolist() == [-1, 1, 1]


def test_a_gradient_reaches_what_a_rule_closes_over():
    temperature, x = T.scalar("temperature"), T.vector("x")
    h = sg.vjp(T.relu(x), x, T.constant(C), overrides={T.relu: lambda g, y, x: g * temperature * x})
    d = sg.grad(h.sum(), temperature)
    assert sg.function([x], d, backend="reference")(V) == np.sum(C * V)


def test_blocks_take_sizes_of_the_call_and_check_rank_and_dtype():
    op = guided_by_class()
    assert op(T.tensor("x", (5,))).shape == (5,)
    with pytest.raises(sg.ShapeError, match="guided_relu"):
        op(T.matrix("m"))
    with pytest.raises(sg.DTypeError, match="float64"):
        op(T.vector("d", "float64"))
    with pytest.raises(sg.ShapeError, match="takes 1"):
        op(T.vector("a"), T.vector("b"))


def test_one_output_is_bare_and_several_are_a_list():
    a = T.vector("a")
    assert isinstance(sg.OpFromGraph([a], [a * 2])(a), sg.Variable)
    assert isinstance(sg.OpFromGraph([a], [a * 2, a * 3])(a), list)


def test_same_op_twice_is_one_node_and_different_rules_stay_apart():
    a = T.vector("a")
    first = sg.OpFromGraph([a], [T.relu(a)], vjp=guided)
    second = sg.OpFromGraph([a], [T.relu(a)], vjp=triple)
    x = T.vector("x")
    assert first(x) is first(x) and first(x) is not second(x)
    assert pulled(lambda x: first(x) + second(x)) == [1 + 3, 0 - 3, 0 - 3]


# ------------------------------------------------------------------------- where the gradient is taken
SPELLINGS = {
    "dict": {T.relu: guided},
    "pairs": [(T.relu, guided)],
    "on": [(sg.on(T.relu), guided)],
    "Overrides": sg.Overrides([(sg.on(T.relu), guided)], name="mine"),
    "Overrides of a dict": sg.Overrides({T.relu: guided}),
    "named": [(sg.named("rel*"), guided)],
    "name glob": {"relu": guided},
    "matching": [(sg.matching(lambda n: n.op is T.relu), guided)],
    "like": [(sg.like(sg.patterns.relu), guided)],
    "pattern": {sg.patterns.relu: guided},
}


@pytest.mark.parametrize("how", SPELLINGS)
def test_grad_time_rule_fires(how, backend):
    assert pulled(T.relu, backend, overrides=SPELLINGS[how]) == FIRED
    assert pulled(T.relu, backend) == PLAIN


RELUS = {
    "relu": T.relu,
    "maximum(x, 0)": lambda x: T.maximum(x, 0),
    "maximum(0, x)": lambda x: T.maximum(0.0, x),
    "maximum(x, zeros)": lambda x: T.maximum(x, T.zeros_like(x)),
    "fmax": lambda x: T.fmax(x, 0),
    "x * (x > 0)": lambda x: x * (x > 0),
    "(x > 0) * x": lambda x: (x > 0) * x,
    "x * (0 < x)": lambda x: x * (0 < x),
    "x * (x >= 0)": lambda x: x * (x >= 0),
    "x * cast(x > 0)": lambda x: x * (x > 0).astype("float32"),
    "where(x > 0, x, 0)": lambda x: T.where(x > 0, x, 0),
    "where(x < 0, 0, x)": lambda x: T.where(x < 0, 0.0, x),
    "where(x <= 0, zeros, x)": lambda x: T.where(x <= 0, T.zeros_like(x), x),
    "clip(x, 0, inf)": lambda x: T.clip(x, 0, np.inf),
    "clip(x, 0, None)": lambda x: T.clip(x, 0, None),
    "clip(x, min=0)": lambda x: x.clip(0),
    "(x + |x|) / 2": lambda x: (x + abs(x)) / 2,
    "0.5 * (x + |x|)": lambda x: 0.5 * (abs(x) + x),
    "np.maximum": lambda x: np.maximum(x, 0),
    "ufunc with an array": lambda x: np.maximum(np.zeros(3, "f"), x),
}


@pytest.mark.parametrize("spelling", RELUS)
def test_like_finds_every_spelling_of_relu(spelling):
    assert pulled(RELUS[spelling], overrides={sg.patterns.relu: guided}) == FIRED


@pytest.mark.parametrize("other", [lambda x: T.maximum(x, 1), lambda x: T.minimum(x, 0), lambda x: x * (x > 1), T.abs, T.sigmoid,
                                   lambda x: T.where(x > 0, 0.0, x), lambda x: T.clip(x, 0, 6), lambda x: x * (x < 0)])
def test_like_finds_nothing_else(other):
    x = T.vector("x")
    with pytest.raises(sg.UnusedOverrideError):
        sg.grad(other(x).sum(), x, overrides={sg.patterns.relu: guided})


def test_within_selects_by_scope(backend):
    def net(x):
        with sg.scope("block1"):
            h = T.relu(x * 1.5)
        with sg.scope("block2"):
            return T.relu(h - 0.5)
    x = T.vector("x")
    s = net(x).sum()
    for glob, expected in (("block1/*", [3 * 1.5, 0, 3 * 1.5]), ("block2", [3 * 1.5, 0, 3 * 1.5]), ("block*", [9 * 1.5, 0, 9 * 1.5])):
        h = sg.grad(s, x, overrides=[(sg.on(T.relu) & sg.within(glob), lambda g, y, x: 3 * g * (x > 0))])
        assert sg.function([x], h, backend=backend)(V).tolist() == expected, glob


def test_within_matches_nested_paths():
    x = T.vector("x")
    with sg.scope("net"), sg.scope("conv1"):
        y = T.relu(x)
    for glob in ("net", "net/conv1", "net/*", "*/conv1", "net/conv1/relu", "*/relu"):
        assert len(sg.receipt(sg.grad(y.sum(), x, overrides=[(sg.on(T.relu) & sg.within(glob), guided)]))) == 1, glob
    for glob in ("conv1", "net/conv2", "other/*"):
        with pytest.raises(sg.UnusedOverrideError, match="net/conv1"):
            sg.grad(y.sum(), x, overrides=[(sg.within(glob), guided)])


def test_named_matches_the_name_of_the_variable():
    x = T.vector("x")
    first = T.relu(x)
    first.name = "first"
    s = T.relu(first * 2 - 1).sum()
    h = sg.grad(s, x, overrides={"fir*": triple})
    # only the inner one is replaced: 3 * 2 where the outer one is positive
    assert sg.function([x], h, backend="reference")(V).tolist() == [6, 0, 6]


def test_selectors_combine():
    def count(selector):
        x = T.vector("x")
        with sg.scope("a"):
            h = T.relu(x) + T.tanh(x)
        with sg.scope("b"):
            y = T.relu(h)
        try:
            return len(sg.receipt(sg.grad(y.sum(), x, overrides=[(selector, lambda g, y, x: g)])))
        except sg.UnusedOverrideError:
            return 0
    relu, tanh, a = sg.on(T.relu), sg.on(T.tanh), sg.within("a")
    assert count(relu) == 2 and count(tanh) == 1
    assert count(relu & a) == 1 and count(relu & ~a) == 1 and count(relu | tanh) == 3
    assert count((relu | tanh) & a) == 2 and count(tanh & ~a) == 0
    assert count(sg.like(sg.patterns.relu) & a) == 1 and count(a & sg.like(sg.patterns.relu)) == 1


def test_first_match_wins_and_order_matters():
    specific, general = (sg.on(T.relu) & sg.within("a"), lambda g, y, x: 100 * g), (sg.on(T.relu), triple)

    def answer(rules):
        x = T.vector("x")
        with sg.scope("a"):
            h = T.relu(x)
        return sg.function([x], sg.grad(T.relu(h).sum(), x, overrides=rules), backend="reference", on_unused_input="ignore")(V).tolist()
    assert answer([specific, general]) == [300] * 3
    with pytest.raises(sg.UnusedOverrideError, match="an earlier rule took them"):
        answer([general, specific])


def test_overrides_compose_by_addition():
    a = sg.Overrides([(sg.on(T.relu, optional=True), triple)], name="a")
    b = sg.Overrides([(sg.on(T.relu, optional=True), guided), (sg.on(T.tanh), lambda g, y, x: 5 * g)], name="b")
    x = T.vector("x")
    h = sg.grad(T.tanh(T.relu(x)).sum(), x, overrides=a + b)
    assert sg.function([x], h, backend="reference", on_unused_input="ignore")(V).tolist() == [15] * 3
    assert sg.receipt(h).name == "a+b"
    h = sg.grad(T.tanh(T.relu(x)).sum(), x, overrides=b + a)
    assert sg.function([x], h, backend="reference")(V).tolist() == [5, 0, 5]


def test_grad_time_rule_replaces_the_rule_of_a_block():
    assert pulled(guided_by_class(), overrides=[(sg.named("guided_relu"), triple)]) == [3, -3, -3]
    op = guided_by_decorator()
    assert pulled(op, overrides={op: triple}) == [3, -3, -3]


def test_default_restores_the_ordinary_rule_and_shields_from_later_ones():
    x = T.vector("x")
    with sg.scope("head"):
        h = T.relu(x)
    s = T.relu(h * 2)
    rules = [(sg.on(T.relu) & sg.within("head"), sg.DEFAULT), (sg.on(T.relu), triple)]
    g = sg.vjp(s, x, T.constant(C), overrides=rules)
    assert sg.function([x], g, backend="reference")(V).tolist() == [6, 0, -6]


def test_default_on_a_block_with_a_rule_gives_its_body():
    op = guided_by_class()
    assert pulled(op, overrides=[(sg.on(op), sg.DEFAULT)]) == PLAIN


def test_stop_as_a_rule_lets_nothing_flow():
    x = T.vector("x")
    assert pulled(T.relu, overrides={T.relu: sg.STOP}) == [0, 0, 0]
    h = sg.grad((T.relu(x) + 2 * x).sum(), x, overrides={T.relu: sg.STOP})
    assert sg.function([x], h, backend="reference", on_unused_input="ignore")(V).tolist() == [2, 2, 2]


def test_two_rule_sets_on_one_graph_at_once(backend):
    x = T.vector("x")
    y = T.relu(x)
    both = [sg.vjp(y, x, T.constant(C), overrides={T.relu: guided}), sg.vjp(y, x, T.constant(C))]
    assert [r.tolist() for r in sg.function([x], both, backend=backend)(V)] == [FIRED, PLAIN]


def test_the_model_is_untouched_by_an_override():
    x = T.vector("x")
    y = T.relu(x)
    sg.grad(y.sum(), x, overrides={T.relu: triple})
    assert sg.function([x], sg.vjp(y, x, T.constant(C)), backend="reference")(V).tolist() == PLAIN
    assert T.relu(x) is y


# --------------------------------------------------------------------------------------- unused rules
def test_a_rule_that_matches_nothing_raises_with_near_misses():
    x = T.vector("x")
    with pytest.raises(sg.UnusedOverrideError) as caught:
        sg.grad(T.maximum(x, 0).sum(), x, overrides={T.relu: guided})
    message = str(caught.value)
    assert "guided" in message and "on(relu)" in message and "1 maximum" in message
    assert "sg.like(sg.patterns.relu)" in message and __file__ in message
    assert issubclass(sg.UnusedOverrideError, sg.OverrideError) and isinstance(caught.value, ValueError)


DERIVATIVES = {
    "grad": lambda y, x, **k: sg.grad(y.sum(), x, **k), "vjp": lambda y, x, **k: sg.vjp(y, x, T.constant(C), **k),
    "jvp": lambda y, x, **k: sg.jvp(y, x, T.constant(C), **k), "jacobian": lambda y, x, **k: sg.jacobian(y, x, **k),
    "batch_jacobian": lambda y, x, **k: sg.batch_jacobian(y, x, **k),
    "hessian": lambda y, x, **k: sg.hessian(y.sum(), x, **k), "hvp": lambda y, x, **k: sg.hvp(y.sum(), x, T.constant(C), **k),
    "known_grads": lambda y, x, **k: sg.grad(None, x, known_grads={y: T.constant(C)}, **k)}


@pytest.mark.parametrize("kind", DERIVATIVES)
def test_every_derivative_takes_overrides_and_refuses_what_never_fires(kind):
    x = T.tensor("x", (3,))
    derivative = DERIVATIVES[kind]
    assert derivative(T.relu(x) * x, x, overrides={T.relu: triple}) is not None
    with pytest.raises(sg.UnusedOverrideError, match="triple"):
        derivative(T.tanh(x) * x, x, overrides={T.relu: triple})
    with pytest.raises(sg.SymgradError, match="grad_overrides"):
        derivative(T.relu(x) * x, x, grad_overrides={T.relu: triple})


def test_optional_allows_no_match():
    x = T.vector("x")
    h = sg.grad((x * 2).sum(), x, overrides=[(sg.on(T.relu, optional=True), guided)])
    assert len(sg.receipt(h)) == 0


def test_a_relu_beside_the_path_does_not_count():
    x, z = T.vector("x"), T.vector("z")
    with pytest.raises(sg.UnusedOverrideError):
        sg.grad((x * 2 + T.relu(z)).sum(), x, overrides={T.relu: guided})


def test_near_misses_of_a_name_suggest_the_closest():
    x = T.vector("x")
    with pytest.raises(sg.UnusedOverrideError, match="did you mean 'tanh'"):
        sg.grad(T.tanh(x).sum(), x, overrides={"tahn": guided})


def test_near_misses_name_blocks_that_are_not_entered():
    x = T.vector("x")
    with pytest.raises(sg.UnusedOverrideError, match="not entered: guided_relu"):
        sg.grad(guided_by_decorator()(x).sum(), x, overrides={T.relu: triple})


def test_selecting_by_something_no_node_is_made_of_raises():
    x = T.vector("x")
    for wrong in (3, np.maximum, guided):
        with pytest.raises(sg.OverrideError, match="what an override applies to"):
            sg.grad(T.relu(x).sum(), x, overrides={wrong: guided})


# --------------------------------------------------------------------------- what a rule returns is checked
def bad(answer):
    def careless(g, y, x):
        return answer(g)
    return careless


MISTAKES = {
    "two for one": (lambda g: (g, g), "2 cotangents for 1 inputs"),
    "a list of two": (lambda g: [g, g], "2 cotangents for 1 inputs"),
    "nothing": (lambda g: None, "None for input 0"),
    "an empty tuple": (lambda g: (), "0 cotangents"),
    "wrong rank": (lambda g: g.sum(), r"shape \(\)"),
    "rank too high": (lambda g: g.reshape((1, 3)), r"shape \(1, 3\)"),
    "wrong size": (lambda g: g[:1], r"shape \(1,\)"),
    "integers": (lambda g: g.astype("int64"), "dtype int64"),
    "float64": (lambda g: g.astype("float64"), "dtype float64"),
    "a string": (lambda g: "g", "str"),
}


@pytest.mark.parametrize("where", ["at the op", "at grad"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_answers_of_a_rule_raise(mistake, where):
    answer, message = MISTAKES[mistake]
    x = T.tensor("x", (3,))
    with pytest.raises(sg.OverrideError, match=message) as caught:
        if where == "at grad":
            sg.grad(T.relu(x).sum(), x, overrides={T.relu: bad(answer)})
        else:
            sg.grad(sg.op_from_graph(T.relu, vjp=bad(answer), name="relu")(x).sum(), x)
    text = str(caught.value)
    assert "careless" in text and "relu" in text
    line = bad.__code__.co_firstlineno + 1
    assert f"{__file__}:{line}" in text, "the line of the rule"
    assert text.count(__file__) >= 2, "the line of the node"


def test_a_rule_with_too_few_parameters_raises():
    x = T.vector("x")
    with pytest.raises(TypeError, match="lambda"):
        sg.grad(T.relu(x).sum(), x, overrides={T.relu: lambda g: g})


def test_a_bare_number_fills_the_cotangent():
    assert pulled(T.relu, overrides={T.relu: lambda g, y, x: 2.0}) == [2, 2, 2]


def test_an_elementwise_rule_may_answer_in_the_shape_of_the_output(backend):
    # broadcasting is undone for rules, as it is for ordinary ones
    x, w = T.tensor("x", (2, 3)), T.tensor("w", (3,))
    gx, gw = sg.grad((x + w).sum(), [x, w], overrides={T.add: lambda g, y, a, b: (2 * g, 3 * g)})
    got = sg.function([x, w], [gx, gw], backend=backend, on_unused_input="ignore")(np.ones((2, 3), "f"), V)
    assert got[0].tolist() == [[2] * 3] * 2 and got[1].tolist() == [6] * 3


# ------------------------------------------------------------------------------------------- node access
def test_a_rule_that_names_node_receives_it():
    seen = {}

    def rule(g, y, x, node):
        seen.update(op=node.op, attrs=node.attrs, name=node.name)
        return g

    x = T.matrix("x")
    y = T.softmax(x, axis=1)
    y.name = "probabilities"
    sg.grad(y.sum(), x, overrides={T.softmax: rule})
    assert seen["op"] is T.softmax and seen["attrs"]["axis"] in (1, -1) and seen["name"] == "probabilities"


def test_keyword_only_node_and_no_node_both_work():
    def keyword_only(g, y, x, *, node):
        return node.vjp(g)
    assert pulled(T.relu, overrides={T.relu: keyword_only}) == PLAIN


def test_node_vjp_is_the_ordinary_rule(backend):
    def doubled(g, y, a, b, *, node):
        da, db = node.vjp(g)
        return 2 * da, db
    x, w = T.tensor("x", (2, 3)), T.tensor("w", (3, 4))
    gx, gw = sg.grad((x @ w).sum(), [x, w], overrides={T.matmul: doubled})
    a, b = np.arange(6, dtype="f").reshape(2, 3), np.arange(12, dtype="f").reshape(3, 4)
    got = sg.function([x, w], [gx, gw], backend=backend)(a, b)
    np.testing.assert_allclose(got[0], 2 * np.ones((2, 4)) @ b.T)
    np.testing.assert_allclose(got[1], a.T @ np.ones((2, 4)))


def test_node_apply_runs_the_same_op_elsewhere(backend):
    """The epsilon rule of LRP for a linear layer, which needs the layer on other inputs, against its formula."""
    def epsilon(g, y, a, w, *, node):
        z = node.apply(a, w)
        s = g / (z + 1e-3 * T.sign(z))
        return a * node.vjp(s, a, w)[0], sg.STOP
    x, w = T.tensor("x", (2, 3)), sg.shared(np.array([[1, -2], [3, 1], [-1, 2]], "f"))
    relevance = sg.grad((x @ w).sum(), x, overrides={T.matmul: epsilon})
    a = np.array([[1, 2, 3], [-1, 0.5, 2]], "f")
    z = a @ w.get_value()
    expected = a * ((1 / (z + 1e-3 * np.sign(z))) @ w.get_value().T)
    np.testing.assert_allclose(sg.function([x], relevance, backend=backend)(a), expected, rtol=1e-5)


def test_node_vjp_of_a_block_is_its_body():
    def halved(g, y, x, *, node):
        return node.vjp(g) / 2
    block = sg.op_from_graph(lambda x: T.relu(x) * 4, name="block")
    assert pulled(block, overrides={block: halved}) == [2, 0, -2]


def test_node_of_a_block_shows_its_attributes():
    seen = {}

    @sg.op_from_graph
    def scaled(x, factor, kind="a"):
        return x * factor

    def rule(g, y, x, *, node):
        seen.update(node.attrs, op=node.op)
        return g
    x = T.vector("x")
    sg.grad(scaled(x, 3.0, kind="b").sum(), x, overrides={scaled: rule})
    assert seen == {"factor": 3.0, "kind": "b", "op": scaled}


def test_functions_in_front_of_a_row_select_it():
    x = T.vector("x")
    h = sg.grad(T.clip(x, 0, 1).sum(), x, overrides={T.clip: lambda g, y, x, low, high: (5 * g, sg.STOP, sg.STOP)})
    assert sg.function([x], h, backend="reference", on_unused_input="ignore")(V).tolist() == [5, 5, 5]


def test_blocks_of_the_library_are_selected_by_name():
    x = T.matrix("x")
    for fn, call in ((T.gelu, T.gelu), (T.layer_norm, lambda x: T.layer_norm(x, (3,))), (T.softmax, T.softmax), (T.silu, T.silu)):
        x = T.tensor("x", (2, 3))
        h = sg.grad(call(x).sum(), x, overrides={fn: lambda g, y, *xs: (7 * g, *[sg.STOP] * (len(xs) - 1))})
        got = sg.function([x], h, backend="reference", on_unused_input="ignore")(np.ones((2, 3), "f"))
        assert got.tolist() == [[7] * 3] * 2, fn


# --------------------------------------------------------------------------------------------- receipts
def test_a_receipt_says_which_rule_hit_which_node():
    x = T.vector("x")
    y = T.relu(T.relu(x) * 2)
    h = sg.grad(y.sum(), x, overrides=sg.Overrides({T.relu: guided}, name="mine"))
    receipt = sg.receipt(h)
    assert len(receipt) == 2 and receipt.counts == {"guided": 2} and receipt.name == "mine"
    assert all(__file__ in hit.node_line and __file__ in hit.rule_line for hit in receipt)
    assert "mine" in str(receipt) and "guided: 2 nodes" in str(receipt)


def test_receipts_survive_what_is_computed_from_the_gradient_and_reach_the_function(backend):
    x = T.vector("x")
    h = sg.grad(T.relu(x).sum(), x, overrides={T.relu: guided})
    assert sg.receipt(abs(h) * 2).counts == {"guided": 1}
    f = sg.function([x], abs(h).max(), backend=backend)
    assert [r.counts for r in f.receipts] == [{"guided": 1}]
    assert [r.counts for r in f.copy().receipts] == [{"guided": 1}]
    assert [r.counts for r in pickle.loads(pickle.dumps(f)).receipts] == [{"guided": 1}]


def test_the_receipt_of_a_plain_gradient_is_empty():
    x = T.vector("x")
    assert len(sg.receipt(sg.grad((x * x).sum(), x))) == 0


def test_rules_of_blocks_are_in_the_receipt():
    x = T.vector("x")
    h = sg.grad(guided_by_decorator()(x).sum(), x)
    assert sg.receipt(h).counts == {"guided": 1}


def test_receipts_count_each_gradient_by_itself():
    x = T.vector("x")
    y = T.relu(x).sum()
    first = sg.grad(y, x, overrides={T.relu: guided})
    second = sg.grad(y, x, overrides={T.relu: triple})
    assert sg.receipt(first).counts == {"guided": 1} and sg.receipt(second).counts == {"triple": 1}
    assert len(sg.receipt(sg.grad(y, x))) == 0


def test_receipts_reach_second_gradients_jacobians_and_batches():
    x, m = T.tensor("x", (3,)), T.matrix("m")
    rules = {T.relu: lambda g, y, x: 2 * g * x}
    once = sg.grad(T.relu(x).sum(), x, overrides=rules)
    per_row = sg.vectorize(lambda v: sg.grad(T.relu(v).sum(), v, overrides=rules))(m)
    for value in (sg.grad((once ** 2).sum(), x), sg.jacobian(T.relu(x), x, overrides=rules), sg.hessian(T.relu(x).sum(), x, overrides=rules), per_row,
                  {"a": once}):
        assert sg.receipt(value).counts == {"<lambda>": 1}
    assert sg.function([m], per_row, backend="cpu")(np.stack([V, 2 * V])).tolist() == [(2 * V).tolist(), (4 * V).tolist()]


# --------------------------------------------------------------------------------- jacobians and batches
def test_rules_fire_in_jacobians_row_by_row(backend):
    """A row with negative cotangents is zero; the constant matrix stays as it is."""
    x = T.tensor("x", (3,))
    y = T.constant(np.float32([[1, 0, 3], [-1, 0, -3], [1, 0, 1]])) @ T.relu(x)
    f = sg.function([x], [sg.jacobian(y, x, overrides={T.relu: guided}), sg.jacobian(y, x)], backend=backend)
    ruled, plain = f(V)
    assert ruled.tolist() == [[1, 0, 3], [0, 0, 0], [1, 0, 1]] and plain.tolist() == [[1, 0, 3], [-1, 0, -3], [1, 0, 1]]


def test_rules_fire_under_vectorize(backend):
    c = T.constant(C)
    per_row = sg.vectorize(lambda v: sg.vjp(T.relu(v), v, c, overrides={T.relu: guided}))
    m = T.matrix("m")
    assert sg.function([m], per_row(m), backend=backend)(np.stack([V, -V])).tolist() == [FIRED, [0, 0, 0]]


# ------------------------------------------------------------------------------------------ reach and depth
def test_a_layer_used_twice_is_overridden_twice(backend):
    w = sg.shared(np.eye(3, dtype="f") * 2, "w")
    layer = lambda x: T.relu(x @ w)
    x = T.vector("x")
    y = layer(layer(x))
    gx = sg.vjp(y, x, T.constant(C), overrides={T.relu: guided})
    assert sg.receipt(gx).counts == {"guided": 2}
    assert sg.function([x], gx, backend=backend)(V).tolist() == [4, 0, 0]


def test_weight_gradients_of_a_shared_layer_add_up(backend):
    w = sg.shared(np.eye(2, dtype="f"), "w")
    x = T.vector("x")
    g = sg.grad(((x @ w) @ w).sum(), w)
    # d/dw (x w w) . 1 = outer(x, w 1) + outer(x w, 1)
    assert sg.function([x], g, backend=backend)(np.array([2, 2], "f")).tolist() == [[4, 4], [4, 4]]


def test_overrides_reach_inside_blocks_at_any_depth():
    inner = sg.op_from_graph(lambda x: T.relu(x) + 0, name="inner")
    outer = sg.op_from_graph(lambda x: inner(x) * 1, name="outer")
    assert pulled(outer, overrides={T.relu: guided}) == FIRED
    assert pulled(outer) == PLAIN


def test_an_inner_rule_fires_through_a_default_outer_block():
    outer = sg.op_from_graph(lambda x: guided_by_class()(x) * 1, name="outer")
    assert pulled(outer) == FIRED


def test_an_outer_rule_replaces_the_inner_one():
    outer = sg.op_from_graph(lambda x: guided_by_class()(x) * 1, vjp=triple, name="outer")
    assert pulled(outer) == [3, -3, -3]


def test_a_rule_on_a_block_leaves_its_inside_alone():
    inner = sg.op_from_graph(lambda x: T.relu(T.relu(x)), name="inner")
    h = []
    pulled(lambda x: h.append(inner(x)) or h[0], overrides=[(sg.on(inner), triple), (sg.on(T.relu, optional=True), guided)])
    x = T.vector("x")
    g = sg.grad(inner(x).sum(), x, overrides=[(sg.on(inner), triple), (sg.on(T.relu, optional=True), guided)])
    assert sg.receipt(g).counts == {"triple": 1}


def test_scopes_inside_a_block_are_those_of_the_call_and_its_own():
    def body(x):
        with sg.scope("inside"):
            return T.relu(x)
    op = sg.op_from_graph(body, name="op")
    x = T.vector("x")
    with sg.scope("outside"):
        y = op(x)
    g = sg.grad(y.sum(), x, overrides=[(sg.on(T.relu) & sg.within("outside/inside"), guided)])
    assert len(sg.receipt(g)) == 1


def test_second_order_goes_through_the_rule(backend):
    """The rule 3g on x**2: the gradient is 3, and its own derivative follows the rule as written."""
    square = sg.op_from_graph(lambda x: x * x, vjp=lambda g, y, x: 3 * g * x, name="square")
    x = T.vector("x")
    once = sg.grad(square(x).sum(), x)
    twice = sg.grad(once.sum(), x)
    got = sg.function([x], [once, twice], backend=backend)(V)
    assert got[0].tolist() == (3 * V).tolist() and got[1].tolist() == [3] * 3


def test_a_rule_that_uses_the_output_can_be_differentiated_again():
    exp = sg.op_from_graph(T.exp, vjp=lambda g, y, x: g * y, name="exp")
    check_grad(exp, np.array([0.3, -1.2]), order=2)


def test_overrides_apply_to_the_gradient_they_were_given_to_only():
    x = T.vector("x")
    h = sg.grad((T.relu(x) ** 2).sum() * 0.5, x, overrides={T.relu: lambda g, y, x: g})
    # h = relu(x); the outer gradient is an ordinary one
    assert sg.function([x], sg.grad(h.sum(), x), backend="reference")(V).tolist() == [1, 0, 1]


def test_overrides_reach_into_the_branches_of_ifelse(backend):
    x, c = T.tensor("x", (3,)), T.scalar("c", dtype="bool")
    with sg.scope("gate"):
        y = sg.ifelse(c, T.relu(x) * 2, x * 5)
    rules = [(sg.on(T.relu) & sg.within("gate"), guided)]
    h = sg.vjp(y, x, T.constant(C), overrides=rules)
    assert sg.receipt(h).counts == {"guided": 1}
    f = sg.function([x, c], h, backend=backend)
    assert f(V, True).tolist() == [2, 0, 0] and f(V, False).tolist() == [5, -5, -5]
    again = pickle.loads(pickle.dumps(f))
    assert again(V, True).tolist() == [2, 0, 0]


def test_a_rule_on_ifelse_blocks_and_rules_built_in_fire(backend):
    x, c = T.tensor("x", (3,)), T.scalar("c", dtype="bool")
    y = sg.ifelse(c, guided_by_decorator()(x), x)
    f = sg.function([x, c], sg.vjp(y, x, T.constant(C)), backend=backend)
    assert f(V, True).tolist() == FIRED and f(V, False).tolist() == C.tolist()


@pytest.mark.parametrize("cut", [sg.stop_gradient, T.sign])
def test_a_rule_behind_a_cut_has_not_fired(cut):
    x = T.vector("x")
    with pytest.raises(sg.UnusedOverrideError, match="no gradient reaches them"):
        sg.grad((cut(T.relu(x)) + x).sum(), x, overrides={T.relu: guided})


def test_the_receipt_of_one_gradient_does_not_reach_an_equal_expression():
    """A rule that happens to give the plain gradient leaves the plain gradient without a receipt."""
    x = T.vector("x")
    with_rule = sg.grad(T.relu(x).sum(), x, overrides={T.relu: lambda g, y, x: g})
    plain = sg.grad(x.sum(), x)
    assert len(sg.receipt(with_rule)) == 1 and len(sg.receipt(plain)) == 0
    f = sg.function([x], [with_rule, plain], backend="cpu", on_unused_input="ignore")
    assert [r.tolist() for r in f(V)] == [[1, 1, 1]] * 2 and len(f.receipts) == 1


# ---------------------------------------------------------------------------------------------- randomness
def test_a_rule_may_draw_random_numbers(backend):
    rng = sg.random.RandomStream(3)
    x = T.vector("x")
    h = sg.grad(T.relu(x).sum(), x, overrides={T.relu: lambda g, y, x: g * rng.uniform(x.shape)})
    f = sg.function([x], h, backend=backend, on_unused_input="ignore")
    first, second = f(V), f(V)
    assert ((0 <= first) & (first < 1)).all() and first.tolist() != second.tolist()


def test_a_stochastic_block_draws_once_and_replays_in_the_backward_pass(backend):
    """Inside a block, with the draw captured or made in the body; the gradient of x * mask is the mask."""
    rng = sg.random.RandomStream(3)
    dropped = sg.op_from_graph(lambda x: x * rng.bernoulli(0.5, x.shape), name="dropped")
    a = T.tensor("a", (64,))
    mask = rng.bernoulli(0.5, (64,))
    captured = sg.OpFromGraph([a], [a * mask, mask])
    x = T.tensor("x", (64,))
    y, (z, m) = dropped(x), captured(x)
    gy, gz = sg.grad(y.sum(), x), sg.grad(z.sum(), x)
    f = sg.function([x], [y, gy, z, m, gz], backend=backend)
    ones = np.ones(64, "f")
    draws = []
    for _ in range(3):
        y_, gy_, z_, m_, gz_ = f(ones)
        np.testing.assert_array_equal(y_, gy_)
        np.testing.assert_array_equal(z_, gz_)
        np.testing.assert_array_equal(z_, m_.astype("f"))
        assert 0 < y_.sum() < 64 and set(y_.tolist()) == {0, 1}
        draws.append((*y_, *z_))
    assert len(set(draws)) == 3


# ------------------------------------------------------------------------------------------- forward mode
def test_forward_mode_refuses_a_rule_that_is_not_linear():
    x = T.vector("x")
    with pytest.raises(sg.OverrideError, match="not linear") as caught:
        sg.jvp(T.relu(x), x, T.constant(V), overrides={T.relu: guided})
    assert "guided" in str(caught.value) and __file__ in str(caught.value) and "jvp=" in str(caught.value)
    with pytest.raises(sg.OverrideError, match="not linear"):
        sg.jvp(guided_by_class()(x), x, T.constant(V))


@pytest.mark.parametrize("rule", [lambda g, y, x: g + 1, lambda g, y, x: g * g, lambda g, y, x: abs(g), lambda g, y, x: T.where(g > 0, g, 0.0)])
def test_forward_mode_refuses_affine_and_nonlinear_rules(rule):
    x = T.vector("x")
    with pytest.raises(sg.OverrideError, match="not linear"):
        sg.jvp(T.relu(x), x, T.constant(V), overrides={T.relu: rule})


def test_forward_mode_transposes_a_linear_rule(backend):
    x, t = T.vector("x"), T.vector("t")
    moved = sg.jvp(T.relu(x), x, t, overrides={T.relu: triple})
    f = sg.function([x, t], moved, backend=backend, on_unused_input="ignore")
    assert f(V, C).tolist() == [3, -3, -3]


def test_forward_mode_uses_the_jvp_of_a_block(backend):
    a = T.vector("a")
    op = sg.OpFromGraph([a], [T.relu(a)], vjp=guided, jvp=lambda y, xs, ts: 11 * ts[0] * (xs[0] > 0))
    x, t = T.vector("x"), T.vector("t")
    assert sg.function([x, t], sg.jvp(op(x), x, t), backend=backend)(V, C).tolist() == [11, 0, -11]


def test_plain_forward_mode_agrees_with_reverse_mode():
    x = T.tensor("x", (3,), "float64")
    y = T.tanh(x * x) + T.cumsum(x)
    t, c = np.array([0.3, -1, 2.0]), np.array([1.0, 0.5, -2])
    moved, pulled_back = sg.jvp(y, x, T.constant(t)), sg.vjp(y, x, T.constant(c))
    a, b = sg.function([x], [moved, pulled_back], backend="reference")(V.astype("f8"))
    np.testing.assert_allclose(c @ a, t @ b, rtol=1e-12)


# ------------------------------------------------------------------------- split models, pickling, life
def test_split_models_with_known_grads_equal_the_whole(backend):
    w1, w2 = sg.shared(np.array([[1, -2, 0.5], [0.3, 1, -1], [2, 0, 1]], "f")), sg.shared(np.array([1, -0.5, 2], "f"))
    x = T.tensor("x", (3,))
    h = T.relu(x @ w1)
    cost = T.tanh(h @ w2)
    rules = {T.relu: guided}
    whole = sg.grad(cost, [x, w1, w2], overrides=rules)
    dh, dw2 = sg.grad(cost, [h, w2])
    dx, dw1 = sg.grad(None, [x, w1], known_grads={h: dh}, overrides=rules)
    got = sg.function([x], [*whole, dx, dw1, dw2], backend=backend)(V)
    for a, b in zip(got[:3], got[3:]):
        np.testing.assert_array_equal(a, b)


def test_two_compiled_halves_exchange_cotangents(backend):
    x, h = T.tensor("x", (3,)), T.tensor("h", (3,))
    w1, w2 = sg.shared(np.array([2, -1, 1], "f")), sg.shared(np.array([1, 3, -2], "f"))
    first = T.relu(x * w1)
    cost = (T.tanh(h) * w2).sum()
    dh = T.tensor("dh", (3,))
    forward = sg.function([x], first, backend=backend)
    middle = sg.function([h], sg.grad(cost, h), backend=backend)
    backward = sg.function([x, dh], sg.grad(None, x, known_grads={first: dh}, overrides={T.relu: guided}), backend=backend)
    through = backward(V, middle(forward(V)))
    whole = sg.grad((T.tanh(first) * w2).sum(), x, overrides={T.relu: guided})
    np.testing.assert_allclose(through, sg.function([x], whole, backend=backend)(V), rtol=1e-6)


def test_rules_survive_pickling_of_the_compiled_function(backend):
    local = 2.0
    x = T.vector("x")
    h = sg.vjp(guided_by_decorator()(x), x, T.constant(C), overrides={"guided_relu": lambda g, y, x: local * g})
    f = pickle.loads(pickle.dumps(sg.function([x], h, backend=backend, on_unused_input="ignore")))
    assert f(V).tolist() == [2, -2, -2]


def test_rules_survive_pickling_into_a_new_process(tmp_path):
    x = T.vector("x")
    h = sg.vjp(guided_by_class()(x), x, T.constant(C))
    file = tmp_path / "heat.pickle"
    file.write_bytes(pickle.dumps(sg.function([x], h, backend="cpu")))
    code = f"import pickle, numpy as np; f = pickle.load(open({str(file)!r}, 'rb')); print(f(np.array([1, -1, 2], 'f')).astype(int).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1, 0, 0]"


def test_overrides_cost_nothing_at_run_time():
    """After grad they are ordinary graph: no block is left, and the override adds no kernel."""
    x = T.tensor("x", (64,))
    w = T.constant(np.linspace(-1, 1, 64, dtype="f"))

    def kernels(**options):
        return sg.function([x], sg.vjp(T.relu(x * 2) * 3, x, w, **options), backend="cpu").source().count("def kernel")
    assert kernels(overrides={T.relu: guided}) <= kernels()


def test_randomly_nested_models_agree_with_numpy_replicas(rng):
    """Guided backpropagation through three layers against the twenty plain lines of the paper."""
    ws = [rng.standard_normal((5, 5)) for _ in range(3)]
    x = T.tensor("x", (5,), "float64")
    h = x
    for w in ws:
        h = T.maximum(h @ w, 0)
    f = sg.function([x], sg.grad(h.sum(), x, overrides={sg.patterns.relu: guided}), backend="reference")
    for _ in range(5):
        point = rng.standard_normal(5)
        zs, a = [], point
        for w in ws:
            zs.append(a @ w)
            a = np.maximum(zs[-1], 0)
        r = np.ones(5)
        for w, z in zip(ws[::-1], zs[::-1]):
            r = (r * (z > 0) * (r > 0)) @ w.T
        np.testing.assert_allclose(f(point), r, rtol=1e-12, atol=1e-12)
