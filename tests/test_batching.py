"""vectorize, jacobian, batch_jacobian, hessian, hvp: every row batches as a loop over examples would."""

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.graph.node import make, new_input
from symgrad.graph.types import Type
from symgrad.ops.batching import batched
from symgrad.ops.row import ROWS

EXAMPLES = 3


def arrays_of(sample, rng, dtype):
    """The arrays of a sample; shapes become random values."""
    result = []
    for a in sample.args:
        if isinstance(a, tuple):
            values = rng.uniform(sample.low, sample.high, a)
            result.append(values.astype(dtype) if dtype != "bool" else values > (sample.low + sample.high) / 2)
        else:
            result.append(np.asarray(a))
    return result


@pytest.mark.parametrize("name", sorted(n for n, row in ROWS.items() if row.samples))
def test_every_row_batches_like_a_loop(name):
    row, rng = ROWS[name], np.random.default_rng(0)
    for sample in row.samples:
        arrays = arrays_of(sample, rng, sample.dtypes[0])
        floats = [k for k, a in enumerate(sample.args) if isinstance(a, tuple) and (k > 0 or name != "condition")]
        for chosen in [[k] for k in floats] + ([floats] if len(floats) > 1 else []):
            inputs = [new_input(Type(a.dtype.name, a.shape)) for a in arrays]
            try:
                node = make(row, inputs, **sample.attrs)
            except TypeError:
                return              # sizes as attributes only: nothing to batch
            many = {k: np.stack([rng.permutation(arrays[k].ravel()).reshape(arrays[k].shape) for _ in range(EXAMPLES)]) for k in chosen}
            sources = {inputs[k]: new_input(Type(many[k].dtype.name, many[k].shape)) for k in chosen}
            out, = batched([node], sources, EXAMPLES)
            used = [sources.get(x, x) for x in inputs]
            got = sg.function(used, out, backend="reference", on_unused_input="ignore")(*(many.get(k, a) for k, a in enumerate(arrays)))
            with np.errstate(all="ignore"):
                want = np.stack([np.asarray(row.numpy(*(many[k][e] if k in many else a for k, a in enumerate(arrays)), **sample.attrs))
                                 for e in range(EXAMPLES)])
            np.testing.assert_allclose(got, want.astype(got.dtype), rtol=2e-4, atol=1e-5, err_msg=f"{name} {sample.attrs} over {chosen}")


def _numerical_jacobian(f, a, eps=1e-6):
    columns = []
    for k in range(a.size):
        step = np.zeros(a.size)
        step[k] = eps
        columns.append((f(a + step.reshape(a.shape)) - f(a - step.reshape(a.shape))) / (2 * eps))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *a.shape)


def test_jacobian_of_a_small_cnn():
    rng = np.random.default_rng(1)
    w, x = sg.shared(rng.standard_normal((3, 2, 3, 3))), T.tensor("x", (2, 2, 5, 5), "float64")
    y = T.max_pool2d(T.tanh(T.conv2d(x, w, padding=1)), 2)
    f, jx, jw = sg.function([x], y), sg.function([x], sg.jacobian(y, x)), sg.function([x], sg.jacobian(y, w))
    a = rng.standard_normal((2, 2, 5, 5))
    np.testing.assert_allclose(jx(a), _numerical_jacobian(f, a), atol=1e-7)
    value = w.get_value()

    def at(v):
        w.set_value(v)
        return f(a)
    numerical = _numerical_jacobian(at, value)
    w.set_value(value)
    np.testing.assert_allclose(jw(a), numerical, atol=1e-7)


def test_batch_jacobian_is_the_diagonal_of_the_jacobian():
    rng = np.random.default_rng(2)
    x, w = T.tensor("x", (4, 3), "float64"), sg.shared(rng.standard_normal((3, 5)))
    y = T.softmax(x @ w)
    each, whole = sg.function([x], [sg.batch_jacobian(y, x), sg.jacobian(y, x)])(rng.standard_normal((4, 3)))
    assert each.shape == (4, 5, 3) and whole.shape == (4, 5, 4, 3)
    np.testing.assert_allclose(each, np.stack([whole[n, :, n] for n in range(4)]), atol=1e-12)


def test_two_models_chained_by_their_jacobians():
    # d cost / d w of the first model = (d cost / d h) . (d h / d w), h the values handed over
    rng = np.random.default_rng(3)
    x, h = T.tensor("x", (3, 1, 6, 6), "float64"), T.tensor("h", (3, 2, 4, 4), "float64")
    w, v = sg.shared(rng.standard_normal((2, 1, 3, 3))), sg.shared(rng.standard_normal((32, 1)))
    first = lambda x: T.relu(T.conv2d(x, w))
    second = lambda h: T.sum(T.sigmoid(T.reshape(h, (3, 32)) @ v))
    handed = sg.function([x], [first(x), sg.jacobian(first(x), w)])
    rest = sg.function([h], sg.grad(second(h), h))
    a = rng.standard_normal((3, 1, 6, 6))
    values, dh_dw = handed(a)
    chained = np.tensordot(rest(values), dh_dw, axes=4)
    np.testing.assert_allclose(chained, sg.function([x], sg.grad(second(first(x)), w))(a), atol=1e-12)


def test_a_rule_fires_in_jacobians_both_ways():
    guided = lambda g, y, x: g * (x > 0) * (g > 0)
    v = T.tensor("v", (3,))
    op = sg.OpFromGraph([v], [T.relu(v)], vjp=guided)
    matrix = np.array([[1.0, -1, -1], [-1, 1, -2], [1, 2, 1]], "float32")
    a = np.array([1.0, -1, 2], "float32")
    # row i: the cotangent of relu is row i of the matrix, guided by v > 0 and its own sign
    expected = matrix * (a > 0) * (matrix > 0)
    by_op = sg.jacobian(T.constant(matrix) @ op(v), v)
    by_override = sg.jacobian(T.constant(matrix) @ T.relu(v), v, overrides={T.relu: guided})
    for got in sg.function([v], [by_op, by_override])(a):
        np.testing.assert_array_equal(got, expected)


def test_a_rule_fires_under_vectorize():
    op = sg.op_from_graph(lambda x: T.relu(x), vjp=lambda g, y, x: g * (x > 0) * (g > 0))
    slope = sg.vectorize(lambda x, c: sg.grad(T.sum(op(x) * c), x))
    x, c = T.matrix("x", shape=(2, 3)), T.matrix("c", shape=(2, 3))
    got = sg.function([x, c], slope(x, c))(np.array([[1, -1, 2], [1, 1, 1]], "float32"), np.array([[1, -1, -1], [2, -3, 1]], "float32"))
    np.testing.assert_array_equal(got, [[1, 0, 0], [2, 0, 1]])


def test_hessian_and_its_product_with_a_vector():
    x = T.tensor("x", (3,), "float64")
    cost = T.sum(x ** 3) + x[0] * x[1] * x[2]
    a, v = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0, 2.0])
    expected = np.diag(6 * a) + np.array([[0, 3, 2], [3, 0, 1], [2, 1, 0]])
    h, hv = sg.function([x], [sg.hessian(cost, x), sg.hvp(cost, x, T.constant(v))])(a)
    np.testing.assert_allclose(h, expected)
    np.testing.assert_allclose(hv, expected @ v)


def test_vectorize_with_axes_shared_arguments_and_several_results():
    per_example = lambda x, w: [T.softmax(x @ w), T.sum(x)]
    x, w = T.matrix("x", shape=(4, 6)), T.matrix("w", shape=(4, 5))
    probabilities, sums = sg.vectorize(per_example, in_axes=(1, None))(x, w)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 6)).astype("float32"), rng.standard_normal((4, 5)).astype("float32")
    p, s = sg.function([x, w], [probabilities, sums])(a, b)
    e = np.exp(a.T @ b)
    np.testing.assert_allclose(p, e / e.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(s, a.sum(0), rtol=1e-5)


def test_vectorize_over_a_batch_of_unknown_size():
    x = T.tensor("x", ("n", 3))
    f = sg.function([x], sg.vectorize(lambda v: T.tanh(v) * T.max(v))(x))
    for n in (1, 2, 5):
        a = np.random.default_rng(n).standard_normal((n, 3)).astype("float32")
        np.testing.assert_allclose(f(a), np.tanh(a) * a.max(1, keepdims=True), rtol=1e-5)


def test_jacobian_of_one_matrix_product_batches_into_one_product():
    x, w = T.tensor("x", (8,)), sg.shared(np.ones((16, 8), "float32"))
    f = sg.function([x], sg.jacobian(T.tanh(w @ x), x))
    assert len(f.executable.programs[()].plan.kernels) <= 4


@pytest.mark.parametrize("build, kind", [
    (lambda x: sg.jacobian(T.argmax(x, axis=1), x), sg.DTypeError), (lambda x: sg.jacobian(x, T.vector("q")), sg.DisconnectedError),
    (lambda x: sg.batch_jacobian(x.T, x), sg.ShapeError), (lambda x: sg.vectorize(lambda a: a, in_axes=(0, 0))(x), sg.ShapeError)])
def test_mistakes_are_refused_at_the_user_s_line(build, kind):
    with pytest.raises(kind, match=r"test_batching\.py:\d+"):
        build(T.matrix("x", shape=(2, 3)))
