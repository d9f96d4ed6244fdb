"""Loops are cut where conditions on their index change: the parts are the whole, without the conditions."""

import itertools

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.base import poly
from symgrad.loops import ir
from symgrad.schedule.lower import Nest, Store, atom_of
from symgrad.schedule.split import split

COMPARE = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}


@pytest.mark.parametrize("name, sign, number", list(itertools.product(COMPARE, (1, -1), range(-2, 8))))
def test_every_part_knows_the_condition(name, sign, number):
    i = poly.index("i", 6)
    x = T.vector("x", shape=6)
    difference = sign * i - number
    test = ir.compare(name, difference, 0)
    value = ir.cond(test, ir.load(x, i, "float32"), ir.literal(0, "float32"))
    parts = split(Nest(((atom_of(i), 6),), (Store(x, i, value),)))
    seen = {}
    for part in parts:
        (effect,) = part.effects
        assert effect.value.kind in ("load", "lit"), "a condition is left"
        for k in range(part.loops[0][1] if part.loops else 1):
            here = {part.loops[0][0]: k} if part.loops else {}
            at = poly.substitute(effect.at, here.get)
            assert at not in seen
            seen[at] = effect.value.kind == "load"
            if seen[at]:
                assert poly.substitute(effect.value.args[1], here.get) == at
    assert seen == {k: bool(COMPARE[name](sign * k - number, 0)) for k in range(6)}


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=s).astype("float32") for s in shapes]


def compile_(call, *shapes):
    xs = [T.tensor(f"x{k}", s) for k, s in enumerate(shapes)]
    return sg.function(xs, call(*xs))


@pytest.mark.parametrize("axis, sizes", [(0, (3, 1, 2)), (1, (3, 1, 2)), (2, (1, 5)), (1, (4, 0, 3)), (0, (7,) * 12)])
def test_concatenation_has_no_conditions(axis, sizes):
    shapes = [tuple(n if k == axis else d for k, d in enumerate((2, 3, 4))) for n in sizes]
    f = compile_(lambda *xs: T.relu(T.concatenate(xs, axis)) + 1, *shapes)
    values = arrays(*shapes)
    np.testing.assert_array_equal(f(*values), np.maximum(np.concatenate(values, axis), 0) + 1)
    assert " if " not in f.source()


def test_very_many_parts_keep_their_conditions():
    shapes = [(3,)] * 40
    f = compile_(lambda *xs: T.concatenate(xs), *shapes)
    values = arrays(*shapes)
    np.testing.assert_array_equal(f(*values), np.concatenate(values))
    assert " if " in f.source()


def test_two_axes_are_cut_at_once():
    f = compile_(lambda a, b, c: T.concatenate([T.concatenate([a, b], 1), c], 0), (2, 3), (2, 4), (5, 7))
    a, b, c = arrays((2, 3), (2, 4), (5, 7))
    np.testing.assert_array_equal(f(a, b, c), np.concatenate([np.concatenate([a, b], 1), c], 0))
    assert " if " not in f.source()


def test_a_reduced_axis_stays_whole_and_the_others_are_cut():
    f = compile_(lambda a, b: [T.sum(T.concatenate([a, b], 0), axis=1), T.sum(T.concatenate([a, b], 0), axis=0),
                               T.softmax(T.concatenate([a, b], 0))], (2, 5), (3, 5))
    a, b = arrays((2, 5), (3, 5))
    both = np.concatenate([a, b], 0)
    rows, columns, soft = f(a, b)
    np.testing.assert_allclose(rows, both.sum(1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(columns, both.sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(soft, np.exp(both) / np.exp(both).sum(1, keepdims=True), rtol=1e-5)


def test_gradients_of_slices():
    x = T.matrix("x", shape=(9, 4))
    parts = T.sum(x[:3] ** 2) + T.sum(x[3:5] * 3) - T.sum(T.exp(x[6:, 1:]))
    f = sg.function([x], sg.grad(parts, x))
    (value,) = arrays((9, 4))
    expected = np.zeros_like(value)
    expected[:3], expected[3:5], expected[6:, 1:] = 2 * value[:3], 3, -np.exp(value[6:, 1:])
    np.testing.assert_allclose(f(value), expected, rtol=1e-5)
