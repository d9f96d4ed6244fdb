"""Every rewrite rule proves itself: both sides have the same value, the right one is nearer the end, and
the driver finds it.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter

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
from symgrad.ops.row import ROWS, Row
from symgrad.rewrite import books, pattern
from symgrad.rewrite.engine import rewrite, table_of_hits
from symgrad.rewrite.measure import goes_down, measure
from symgrad.rewrite.pattern import anything, build, op
from symgrad.rewrite.rule import RuleBook, when
from symgrad.runtime import assumptions
from symgrad.testing.random_graphs import random_graph

RULES = list(books.every_rule())
FLOATS, INTEGERS = ["float32", "float64"], ["int8", "int32", "uint8"]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3e38, -3e38, 1e-40, np.inf, -np.inf, np.nan]
SHAPES = {
    "equal": [(40, 6)] * 5,
    "broadcast": [(3, 4), (4,), (3, 1), (), (1, 4)],
    "scalar": [()] * 5,
    "empty": [(0, 3)] * 5,
}
CONSTANTS = {"f": [2.0, 0.5, -3.0, 4.0], "i": [2, 3, 1], "u": [2, 3, 1], "b": [True]}


# ------------------------------------------------------------------------------------ left sides to try
def parts(p):
    yield p
    for a in getattr(p, "arguments", ()):
        yield from parts(a)


def dtypes_for(rule):
    """The dtypes that every op of the left side takes."""
    kinds = {getattr(ROWS[q.name], "kind", None) for q in parts(rule.left) if isinstance(q, pattern.Apply)}
    kinds |= {q.kind for q in parts(rule.left) if isinstance(q, pattern.Variable)}
    names = {q.name for q in parts(rule.left) if isinstance(q, pattern.Apply)}
    if "float" in kinds or rule.book in ("stable", "unsafe") or names & {"softmax", "logsumexp"}:
        return FLOATS
    if "integer" in kinds or "bits" in kinds:
        return INTEGERS
    return FLOATS + INTEGERS


def left_sides(rule):
    """(left side, its inputs), for shapes that are equal, broadcast, scalar and empty, and for every dtype."""
    if rule.law is not None:
        for node in rule.samples():
            yield node, leaves([node])
        return
    variables = {q.name: q for q in parts(rule.left) if isinstance(q, pattern.Variable)}
    for case, dtype, (_, shapes) in itertools.product(rule.cases or ({},), dtypes_for(rule), SHAPES.items()):
        given = dict(case)
        for values in constants_for(variables.values(), dtype):
            found = {k: v for k, v in given.items() if k not in variables}
            for k, (name, v) in enumerate(variables.items()):
                found[name] = values[name] if name in values else leaf(v, given.get(name), dtype, shapes[k])
            try:
                node = build(rule.left, found, dtype)
            except (sg.ShapeError, OverflowError):
                continue
            yield node, leaves([node])


def constants_for(variables, dtype):
    names = [v.name for v in variables if v.kind == "constant"]
    for chosen in itertools.product(CONSTANTS[np.dtype(dtype).kind], repeat=len(names)):
        yield {n: constant(v, dtype) for n, v in zip(names, chosen)}


def leaf(variable, given, dtype, shape):
    if isinstance(given, tuple):
        shape = given
    if isinstance(given, str):
        dtype = given
    node = new_input(Type("bool" if variable.kind == "boolean" else dtype, shape), variable.name)
    return make(given, [node]) if isinstance(given, Row) else node


def fill(x, rng, rule):
    """Values for one input: special ones among ordinary ones where the rule claims to hold for them."""
    shape = x.dims
    if x.dtype == "bool":
        return rng.random(shape) < 0.5
    if x.dtype in INTEGERS:
        info = np.iinfo(x.dtype)
        return rng.integers(info.min, info.max + 1, shape).astype(x.dtype)
    if rule.book == "unsafe":
        return rng.uniform(0.5, 2, shape).astype(x.dtype)
    ordinary = rng.uniform(-3, 3, shape)
    if rule.claims_word("true"):
        return ordinary.astype(x.dtype)
    excluded = [v for c in rule.claims if c.word == "except" for v in c.values]
    same = lambda a, b: np.float64(a).tobytes() == np.float64(b).tobytes()
    allowed = [v for v in SPECIAL if not any(same(v, e) for e in excluded)]
    if rule.claims_word("rounding"):
        allowed = [v for v in allowed if not 1e-30 > abs(v) > 0 and not 1e30 < abs(v) < np.inf]
    return np.where(rng.random(shape) < 0.5, rng.choice(allowed, shape), ordinary).astype(x.dtype)


def applied(rule):
    """(left, right, inputs) for the left sides where the rule fires."""
    for node, inputs in left_sides(rule):
        right = rule.apply(node)
        if right is not None:
            yield node, right, inputs


def values_of(nodes, inputs, arrays):
    return Reference(inputs, nodes)(arrays)


def same_bits(left, right, signed=True):
    np.testing.assert_array_equal(left, right)
    if signed and left.dtype.kind == "f":
        number = ~np.isnan(left)
        np.testing.assert_array_equal(np.signbit(left)[number], np.signbit(right)[number])


# ---------------------------------------------------------------------------------------- every rule
@pytest.mark.parametrize("rule", [r for r in RULES if r.book not in ("stable", "unsafe")], ids=str)
def test_rule_keeps_the_value(rule, rng):
    tried = 0
    for left, right, inputs in applied(rule):
        assert (right.dtype, right.dims) == (left.dtype, left.dims)
        a, b = values_of([left, right], inputs, [fill(x, rng, rule) for x in inputs])
        if rule.claims_word("rounding") and a.dtype.kind == "f":
            scale = np.abs(a[np.isfinite(a)]).max(initial=1.0)
            np.testing.assert_allclose(
                a, b, rtol=16 * np.finfo(a.dtype).eps, atol=16 * np.finfo(a.dtype).eps * scale
            )
        else:
            same_bits(a, b, signed=not rule.claims_word("zero sign"))
        tried += 1
    assert tried, "the rule never fires on its own left side"


@pytest.mark.parametrize("rule", books.stable.rules, ids=str)
def test_stable_rule_is_nearer_the_truth(rule, rng):
    """The right side in float32 is about as near the true value (the left side in float64) as rounding allows."""
    tried = 0
    for left, right, inputs in applied(rule):
        if left.dtype != "float32":
            continue
        arrays = [fill(x, rng, rule) for x in inputs]
        rough, fine = values_of([left, right], inputs, arrays)
        true = twin(left, inputs, arrays)
        np.testing.assert_allclose(fine, true, rtol=1e-5, atol=1e-6)
        worse = np.abs(fine - true) > 2 * np.abs(rough - true) + 8e-7 * (np.abs(true) + 1)
        assert not worse.any()
        tried += 1
    assert tried, "the rule never fires on its own left side"


def twin(node, inputs, arrays):
    """The value of the same graph in float64."""
    wide = {x: new_input(Type("float64" if x.dtype == "float32" else x.dtype, x.dims)) for x in inputs}
    new = dict(wide)
    for n in order([node]):
        if n in new:
            continue
        attrs = {k: "float64" if v == "float32" else v for k, v in n.attrs.items()}
        new[n] = (
            constant(n.payload, "float64")
            if n.op.name == "constant"
            else make(n.op, [new[x] for x in n.inputs], **attrs)
        )
    return Reference(list(wide.values()), [new[node]])(
        [a.astype("float64") if a.dtype == np.float32 else a for a in arrays]
    )[0]


@pytest.mark.parametrize("rule", books.unsafe.rules, ids=str)
def test_unsafe_rule_holds_for_ordinary_numbers(rule, rng):
    tried = 0
    for left, right, inputs in applied(rule):
        a, b = values_of([left, right], inputs, [fill(x, rng, rule) for x in inputs])
        np.testing.assert_allclose(a, b, rtol=1e-4)
        tried += 1
    assert tried


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rule_brings_the_end_nearer(rule):
    for left, right, inputs in applied(rule):
        for weight in (1, 7, 1000):
            assert goes_down(left, right, dict.fromkeys(inputs, weight)), (
                f"{measure(left)} to {measure(right)} for {left._type}"
            )


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_driver_applies_the_rule_until_it_no_longer_fits(rule):
    alone = RuleBook("alone")
    alone.rules.append(rule)
    left = next(left for left, right, _ in applied(rule) if right is not left)
    hits = Counter()
    (result,) = rewrite([left], [alone], hits)
    assert hits[rule] >= 1 and f"{rule}" in table_of_hits(hits)
    assert all(rule.apply(n) in (None, n) for n in order([result]) if rule.looks_at(n.op, *(x.op for x in n.inputs)))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rule_says_where_it_is_written(rule):
    file, number = rule.line
    assert file.endswith(f"{rule.book}.py")
    text = open(file).read().split("\n")[number - 1]
    assert ("@" in text) if rule.law is not None else ("(" in text and "," in text)


# ------------------------------------------------------------------------------------- what users write
def simplified(*outputs):
    return books.simplify(list(outputs))


def names(*outputs):
    return Counter(n.op.name for n in order(outputs) if n.inputs)


def test_log_of_softmax_and_its_gradient_are_stable():
    x = T.tensor("x", (2, 3))
    labels = np.array([0, 2])
    p = T.softmax(x, axis=1)
    loss = -T.mean(T.log(p)[np.arange(2), labels])
    f = sg.function([x], [loss, sg.grad(loss, x)])
    big = np.array([[0, 200, 0], [200, 0, -200]], "float32")
    value, gradient = f(big)
    # -log softmax is 200 in the first row and 400 in the second; the gradient is (softmax - one hot) / 2
    np.testing.assert_allclose(value, 300)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5, 0], [0.5, 0, -0.5]], atol=1e-6)


def test_binary_cross_entropy_of_a_sigmoid_is_stable():
    x, t = T.tensor("x", (4,)), T.tensor("t", (4,))
    p = T.sigmoid(x)
    loss = -T.sum(t * T.log(p) + (1 - t) * T.log(1 - p))
    f = sg.function([x, t], [loss, sg.grad(loss, x)])
    value, gradient = f(np.array([200, -200, 200, -200], "f"), np.array([1, 0, 0, 1], "f"))
    np.testing.assert_allclose(value, 400)
    np.testing.assert_allclose(gradient, [0, 0, 1, -1], atol=1e-6)


def test_a_sigmoid_written_out_is_as_stable():
    x, t = T.tensor("x", (4,)), T.tensor("t", (4,))
    p = 1 / (1 + T.exp(-x))
    loss = -T.sum(t * T.log(p) + (1 - t) * T.log(1 - p))
    f = sg.function([x, t], [loss, sg.grad(loss, x), p, sg.grad(T.sum(p), x)])
    value, gradient, probability, slope = f(np.array([200, -200, 200, -200], "f"), np.array([1, 0, 0, 1], "f"))
    np.testing.assert_allclose(value, 400)
    np.testing.assert_allclose(gradient, [0, 0, 1, -1], atol=1e-6)
    np.testing.assert_array_equal(probability, [1, 0, 1, 0])
    np.testing.assert_array_equal(slope, [0, 0, 0, 0])


def test_softmax_written_out_is_softmax():
    x = T.tensor("x", (3, 5))
    e = T.exp(x - T.max(x, axis=1, keepdims=True))
    (y,) = simplified(T.log(e / T.sum(e, axis=1, keepdims=True)))
    assert names(y) == {"log_softmax": 1}


def test_broadcasts_of_a_gradient_disappear():
    x, w = T.tensor("x", ("n", 4)), T.tensor("w", (4,))
    cost = T.sum(T.relu(x * w))
    found = names(*simplified(*sg.grad(cost, [x, w])))
    assert "broadcast_to" not in found and found["sum"] == 1


def test_what_only_grad_looks_at_disappears():
    x = T.tensor("x", (3,))
    y = sg.grad_scale(sg.grad_clip(sg.stop_gradient(x), -1, 1), -1)
    assert simplified(y) == [x]


def test_sum_of_ones_is_a_constant():
    (y,) = simplified(T.sum(T.ones((3, 4))))
    assert y.op.name == "constant" and y.payload == 12


def test_unknown_number_of_repeats_is_left_alone():
    x, s = T.tensor("x", ("n",)), T.scalar("s")
    total = T.sum(T.broadcast_to(s, x.shape))
    f = sg.function([x, s], total)
    # inf * 0 would be NaN, the sum of nothing is 0
    assert f(np.zeros(0, "f"), np.float32(np.inf)) == 0


def test_shapes_known_only_at_the_call_keep_their_checks():
    x, z = T.tensor("x", ("n",)), T.tensor("z", ("m",))
    f = sg.function([x, z], x + 0 * T.zeros_like(z))
    with pytest.raises(sg.ShapeError):
        f(np.zeros(3, "f"), np.zeros(4, "f"))


def test_large_results_are_not_folded():
    column = T.constant(np.arange(100, dtype="f").reshape(100, 1))
    row = T.constant(np.arange(101, dtype="f"))
    (y,) = simplified(column + row)
    assert y.op.name == "add"


def test_what_fails_when_folded_is_left_to_the_run():
    (y,) = simplified(
        make(ROWS["reshape"], [make(ROWS["power"], [T.constant(2), T.constant(-1)])], shape=(1,)) * 3
    )
    assert "power" in names(y)  # NumPy has no negative integer powers


def test_zero_times_anything_stays():
    x = T.tensor("x", (3,))
    f = sg.function([x], x * 0)
    np.testing.assert_array_equal(np.isnan(f(np.array([1, np.nan, np.inf], "f"))), [False, True, True])


def test_float_constants_are_not_merged_unless_asked():
    x = T.tensor("x", (3,))
    y = (x * 0.1) * 0.7
    assert names(*simplified(y))["multiply"] == 2
    assert names(*books.simplify_unsafely([y]))["multiply"] == 1


def test_lines_and_labels_survive():
    x = T.tensor("x", (3,))
    with sg.scope("block1"):
        y = T.log(T.sigmoid(x) * 1)
    y.name = "score"
    (new,) = simplified(y)
    assert new.op.name == "logsigmoid"
    assert new.where == y.where and new.name == "score" and "block1" in new.notes.scopes


def test_inputs_keep_their_own_notes():
    x = T.tensor("x", (3,))
    before = x.where
    y = x * 1
    y.name = "y"
    assert simplified(y) == [x] and x.where == before and x.name == "x"


def test_sizes_decided_by_data_follow_the_rewriting():
    n = T.scalar("n", dtype="int64")
    f = sg.function([n], T.sum(T.arange((n + 0) * 1)))
    assert f(np.int64(5)) == 10


# --------------------------------------------------------------------------------------------- the driver
def test_rules_that_undo_each_other_are_reported():
    x, y = anything("x"), anything("y")
    there, back = op("add"), op("multiply")
    book = RuleBook("circle", [(there(x, y), back(x, y)), (back(x, y), there(x, y))])
    a, b = T.tensor("a", (2,)), T.tensor("b", (2,))
    with pytest.raises(sg.CompileError, match="come.* to an end|undo each other"):
        rewrite([a + b], [book])


def test_rules_that_grow_without_end_are_reported():
    x = anything("x")
    book = RuleBook("growing", [(op("exp")(x), op("exp")(op("exp")(x)), when(lambda x: True))])
    with pytest.raises(sg.CompileError, match="end"):
        rewrite([T.exp(T.tensor("a", (2,)))], [book])


@pytest.mark.parametrize(
    "step",
    [
        lambda y, x: y + x,
        lambda y, x: T.tanh(y) * 1.01 + 0.1,
        lambda y, x: -(y * 1) + 0,
        lambda y, x: T.broadcast_to(T.reshape(y, (1, 4)), (3, 4))[0] * x,
    ],
    ids=["sum", "tanh", "signs", "movement"],
)
def test_time_grows_with_the_number_of_nodes(step):
    def seconds(n):
        x = T.tensor("x", (4,))
        y = x
        for _ in range(n):
            y = step(y, x)
        start = time.process_time()
        books.simplify([y])
        return time.process_time() - start

    seconds(100)
    short, long = seconds(300), seconds(2400)
    assert long < 8 * 3 * short + 0.5


@pytest.mark.slow
def test_chain_of_fifty_thousand_nodes():
    x = T.tensor("x", (4,))
    y = x
    for _ in range(25_000):
        y = T.tanh(y) + x
    start = time.process_time()
    books.simplify([y])
    assert time.process_time() - start < 20


# ------------------------------------------------------------------------------------------- random graphs
@pytest.mark.parametrize("unknown", [False, True], ids=["known sizes", "unknown sizes"])
def test_random_graphs_keep_their_values(unknown):
    hits = Counter()
    for seed in range(150):
        graph = random_graph(seed, steps=20, unknown_sizes=unknown)
        new = rewrite(inline_blocks(graph.outputs), books.SAFE, hits)
        for y, z in zip(graph.outputs, new):
            assert y._type == z._type, graph
        got = Reference(graph.inputs, new)(graph.arrays)
        for a, b in zip(got, graph.values):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=f"{graph}\n{table_of_hits(hits)}")
    assert sum(hits.values()) > 100


def test_random_gradients_keep_their_values():
    hits = Counter()
    for seed in range(100):
        graph = random_graph(seed, steps=12, smooth=True)
        cost = T.sum(sum(T.sum(y) for y in graph.outputs if y.dtype == "float64"))
        grads = inline_blocks(sg.grad(cost, graph.inputs, disconnected="zero"))
        want = Reference(graph.inputs, grads)(graph.arrays)
        got = Reference(graph.inputs, rewrite(grads, books.SAFE, hits))(graph.arrays)
        for a, b in zip(got, want):
            np.testing.assert_allclose(
                a, b, rtol=1e-7, atol=1e-7 * np.abs(b[np.isfinite(b)]).max(initial=1), err_msg=f"{graph}"
            )
    assert sum(hits.values()) > 100


def test_gradients_of_slices_are_put_side_by_side():
    x = T.tensor("x", (3, 8))
    a, b, c, d = T.split(x, 4, axis=1)
    (g,) = simplified(*inline_blocks([sg.grad(T.sum(T.sigmoid(a) * T.tanh(c) + b * d), x)]))
    assert g.op.name == "concatenate" and len(g.inputs) == 4
    assert not {"index_set", "add", "pad"} & set(names(g))


def test_parts_that_overlap_are_added():
    x = T.tensor("x", (6,))
    g = sg.grad(T.sum(x[:4] * x[2:]), x)
    f = sg.function([x], g)
    value = np.arange(6, dtype="f")
    want = np.zeros(6, "f")
    want[:4] += value[2:]
    want[2:] += value[:4]
    np.testing.assert_array_equal(f(value), want)


def test_parts_of_unknown_size_are_added():
    x = T.tensor("x", ("n",))
    g = sg.grad(T.sum(x[:2] * x[2:4]), x)
    f = sg.function([x], g)
    np.testing.assert_array_equal(f(np.array([1, 2, 3, 4, 5], "f")), [3, 4, 1, 2, 0])


# ------------------------------------------------------------------------- expressions made to be rewritten
def _positive(v):
    return T.exp(T.tanh(v))


def _axis(v, rng):
    return int(rng.integers(v.ndim))


def _slice(v, rng):
    axis = _axis(v, rng)
    whole = slice(None, None, int(rng.choice([1, 1, 2, -1])))
    return v[(slice(None),) * axis + (whole if rng.random() < 0.5 else slice(0, 2),)]


ONE = [
    T.negative,
    T.absolute,
    T.relu,
    T.tanh,
    T.square,
    T.floor,
    T.sign,
    T.positive,
    T.sigmoid,
    lambda v: T.log(_positive(v)),
    lambda v: v**2,
    lambda v: v**3,
    lambda v: _positive(v) ** 0.5,
    lambda v: _positive(v) ** -1,
    lambda v: v * 1,
    lambda v: v + 0,
    lambda v: 0 - v,
    lambda v: v * -1,
    lambda v: v * 0.25,
    lambda v: v / 4,
    lambda v: v / 3,
    lambda v: 1 - T.sigmoid(v),
    lambda v: T.log(1 + _positive(v)),
    lambda v: sg.grad_scale(v, 2),
    lambda v: T.cast(T.cast(v > 0, "int32"), v.dtype),
    lambda v: T.where(T.logical_not(v > 0), v, -v),
    lambda v: T.where(v > 1, v, v),
    lambda v: T.cast(~(v > 0) | (v > 0), v.dtype),
    lambda v: T.exp(-T.square(v)),
]
TWO = [
    T.add,
    T.subtract,
    T.multiply,
    T.maximum,
    T.minimum,
    lambda a, b: a / _positive(b),
    lambda a, b: T.where(a > b, a, b),
    lambda a, b: a * (b > 0),
    lambda a, b: a * (b > 0) * (a > 0),
    lambda a, b: (a / T.sigmoid(b)) * T.sigmoid(b),
    lambda a, b: T.where(a > b, T.where(a > b, a, b), b),
]
MOVE = [
    lambda v, r: T.sum(v, axis=_axis(v, r), keepdims=bool(r.integers(2))),
    lambda v, r: T.sum(v),
    lambda v, r: T.max(v, axis=_axis(v, r), keepdims=True),
    lambda v, r: T.transpose(v),
    lambda v, r: T.reshape(v, (-1,)),
    lambda v, r: T.expand_dims(v, 0),
    lambda v, r: T.squeeze(v),
    lambda v, r: T.broadcast_to(v, (2, *v.dims)),
    _slice,
    lambda v, r: T.concatenate([v, v * 0 + 1], axis=_axis(v, r)),
    lambda v, r: T.flip(v),
    lambda v, r: T.broadcast_to(T.sum(v, axis=_axis(v, r), keepdims=True), v.dims),
    lambda v, r: T.reshape(v, tuple(reversed(v.dims))),
    lambda v, r: T.softmax(v, axis=_axis(v, r)),
    lambda v, r: T.log(T.softmax(v, axis=_axis(v, r))),
    lambda v, r: T.ones_like(v) * 2,
    lambda v, r: T.set_subtensor(T.zeros_like(v)[:1], v[:1]),
    lambda v, r: T.pad(v, ((1, 0),) * v.ndim),
]


def expression(rng, rows=2):
    """Inputs and some outputs of a random expression out of what the rules look at; `rows` may be an unknown size."""
    inputs = [new_input(Type("float64", d), f"x{k}") for k, d in enumerate([(rows, 3), (3,), (rows, 1)])]
    pool = list(inputs)
    for _ in range(16):
        kind = rng.random()
        v, w = (pool[int(rng.integers(len(pool)))] for _ in range(2))
        try:
            if kind < 0.4:
                new = ONE[int(rng.integers(len(ONE)))](v)
            elif kind < 0.65:
                new = TWO[int(rng.integers(len(TWO)))](v, w)
            elif v.ndim:
                new = MOVE[int(rng.integers(len(MOVE)))](v, rng)
        except sg.ShapeError:
            continue            # shapes that do not fit
        if new.ndim < 5:
            pool.append(new)
    return inputs, pool[-3:]


def agree(inputs, outputs, arrays, hits, what):
    new = rewrite(outputs, books.SAFE, hits)
    for a, b, y in zip(Reference(inputs, new)(arrays), Reference(inputs, outputs)(arrays), outputs):
        scale = np.abs(b[np.isfinite(b)]).max(initial=1)
        np.testing.assert_allclose(
            a, b, rtol=1e-9, atol=1e-11 * scale, err_msg=f"{what}\n{sg.graph_text(y)}\n{table_of_hits(hits)}"
        )


def test_rules_work_together(rng):
    hits = Counter()
    for seed in range(400):
        inputs, outputs = expression(np.random.default_rng(seed))
        arrays = [rng.uniform(-2, 2, x.dims) for x in inputs]
        agree(inputs, inline_blocks(outputs), arrays, hits, f"seed {seed}")
    assert len(hits) > 45, f"only {len(hits)} rules fired"


@pytest.mark.parametrize("n", [0, 1, 3])
def test_rules_work_together_on_unknown_sizes(n, rng):
    hits, compared = Counter(), 0
    for seed in range(150):
        inputs, outputs = expression(np.random.default_rng(seed), poly.symbol("n"))
        outputs = inline_blocks(outputs)
        arrays = [rng.uniform(-2, 2, [n if isinstance(d, poly.Poly) else d for d in x.dims]) for x in inputs]
        try:
            assumptions.verify(assumptions.collect(outputs), inputs, arrays)
            Reference(inputs, outputs)(arrays)
        except sg.ShapeError:
            continue            # sizes taken to be equal are not, or the largest of no elements is asked for
        agree(inputs, outputs, arrays, hits, f"seed {seed}")
        compared += 1
    assert compared > 50 and len(hits) > 35


def test_rules_work_together_on_gradients(rng):
    hits = Counter()
    for seed in range(200):
        inputs, outputs = expression(np.random.default_rng(seed))
        arrays = [rng.uniform(-2, 2, x.dims) for x in inputs]
        grads = sg.grad(sum(T.sum(y) for y in outputs), inputs, disconnected="zero")
        agree(inputs, inline_blocks(grads), arrays, hits, f"gradient, seed {seed}")
    assert len(hits) > 45, f"only {len(hits)} rules fired"


# --------------------------------------------------------------------------------- through the whole compiler
def test_outputs_that_become_leaves_are_still_the_callers_own():
    x, n = T.tensor("x", (3,)), T.tensor("n", (2,), "int64")
    w = sg.shared(np.ones(3, "f"), "w")
    f = sg.function(
        [x, n],
        [
            x * 1,
            x * 1,
            T.negative(-w),
            n * 0,
            T.ones((2, 2)) * 3,
            T.reshape(x * 1, (3, 1)),
            T.sum(T.ones((4,))),
        ],
    )
    value, whole = np.arange(3, dtype="f"), np.array([5, 7])
    a, b, c, d, e, r, s = f(value, whole)
    for got, want in zip(
        (a, b, c, d, e, r, s), (value, value, np.ones(3), [0, 0], np.full((2, 2), 3), value[:, None], 4)
    ):
        np.testing.assert_array_equal(got, want)
    a += 1
    c += 1
    assert value[0] == 0 and b[0] == 0 and w.get_value()[0] == 1 and r.shape == (3, 1)


def test_rewritten_graphs_run_on_the_cpu_as_written_ones_on_the_reference(rng):
    chosen = [expression(np.random.default_rng(seed)) for seed in range(12)]
    inputs = [x for xs, _ in chosen for x in xs]
    outputs = [y for _, ys in chosen for y in ys]
    arrays = [rng.uniform(-2, 2, x.dims) for x in inputs]
    made = [
        sg.function(inputs, outputs, backend=name, on_unused_input="ignore") for name in ("cpu", "reference")
    ]
    for a, b, y in zip(*(f(*arrays) for f in made), outputs):
        np.testing.assert_allclose(
            a, b, rtol=1e-8, atol=1e-10 * np.abs(b[np.isfinite(b)]).max(initial=1), err_msg=sg.graph_text(y)
        )
