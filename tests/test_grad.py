"""sg.grad, vjp, jvp and their options; gradients of ordinary code against formulas, differences and known traps."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.testing import check_grad

V = np.array([1, -1, 2], "float32")


def value(inputs, outputs, *args, backend="reference"):
    return sg.function(inputs, outputs, backend=backend, on_unused_input="ignore")(*args)


# ------------------------------------------------------------------------------------------- what grad takes
def test_gradient_has_the_structure_of_wrt():
    x, y = T.vector("x"), T.vector("y")
    s = (x * y).sum()
    assert isinstance(sg.grad(s, x), sg.Variable)
    assert isinstance(sg.grad(s, [x, y]), list) and isinstance(sg.grad(s, (x,)), tuple)
    named = sg.grad(s, {"a": x, "b": y})
    assert list(named) == ["a", "b"]
    assert value([x, y], named["a"], V, 2 * V).tolist() == (2 * V).tolist()


def test_wrt_inputs_shared_and_intermediate(backend):
    x, w = T.vector("x"), sg.shared(np.array([2, 3, 4], "f"))
    h = x * w
    s = (h * h).sum()
    gh, gw, gx = sg.grad(s, [h, w, x])
    got = value([x], [gh, gw, gx], V, backend=backend)
    hv = V * w.get_value()
    np.testing.assert_allclose(got, [2 * hv, 2 * hv * V, 2 * hv * w.get_value()])


def test_wrt_the_cost_itself_is_one():
    x = T.vector("x")
    s = x.sum()
    assert value([x], sg.grad(s, s), V) == 1


def test_wrt_listed_twice_gives_it_twice():
    x = T.vector("x")
    a, b = sg.grad((x * x).sum(), [x, x])
    assert [r.tolist() for r in value([x], [a, b], V)] == [(2 * V).tolist()] * 2


def test_gradient_dtypes_follow_the_variables():
    a, b = T.vector("a", "float32"), T.vector("b", "float64")
    ga, gb = sg.grad((a * b).sum(), [a, b])
    assert ga.dtype == "float32" and gb.dtype == "float64"
    assert sg.grad((a.astype("float64") * 2).sum(), a).dtype == "float32"


@pytest.mark.parametrize("scalar", [2, 2.0, True, np.float32(2), np.float64(2), np.int8(2), np.int64(2), np.array(2.0), np.float32([2]), np.bool_(1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint8", "bool"])
def test_promotion_with_numbers_is_that_of_numpy(scalar, dtype):
    x, a = T.vector("x", dtype), np.ones(2, dtype)
    for mine in (lambda v: v + scalar, lambda v: scalar * v, lambda v: v / scalar):
        want = mine(a).dtype
        if want != np.float16:      # which symgrad does not have
            assert mine(x).dtype == want.name, (mine(a).dtype, scalar)


def test_a_variable_used_many_times_adds_up(backend):
    x = T.vector("x")
    y = x * x + 3 * x - x / 2 + T.exp(x)
    got = value([x], sg.grad(y.sum(), x), V, backend=backend)
    np.testing.assert_allclose(got, 2 * V + 3 - 0.5 + np.exp(V), rtol=1e-6)


def test_seed_layer_used_twice(backend):
    """One layer applied twice: the gradient of its weights sums both uses."""
    w = sg.shared(np.eye(2, dtype="f"))
    x = T.vector("x")
    g = sg.grad(((x @ w) @ w).sum(), w)
    assert value([x], g, np.float32([2, 2]), backend=backend).tolist() == [[4, 4], [4, 4]]


def test_broadcasting_is_undone(backend):
    a, b, c, d = T.tensor("a", (2, 3)), T.tensor("b", (3,)), T.tensor("c", (2, 1)), T.scalar("d")
    gs = sg.grad((a * b + c * d - a / d).sum(), [a, b, c, d])
    A, B, C, D = np.arange(1, 7, dtype="f").reshape(2, 3), V, np.float32([[2], [5]]), np.float32(4)
    got = value([a, b, c, d], gs, A, B, C, D, backend=backend)
    want = [np.broadcast_to(B - 1 / D, (2, 3)), A.sum(axis=0), np.full((2, 1), 3 * D), 3 * C.sum() + A.sum() / D**2]
    for g, w in zip(got, want):
        assert g.shape == np.shape(w)
        np.testing.assert_allclose(g, w, rtol=1e-5)


def test_broadcast_with_a_size_known_only_at_the_call(backend):
    a, b = T.matrix("a"), T.tensor("b", (1, None))
    gb = sg.grad((a * b).sum(), b)
    got = value([a, b], gb, np.ones((3, 2), "f"), np.ones((1, 2), "f"), backend=backend)
    assert got.tolist() == [[3, 3]]


# -------------------------------------------------------------------------------------------- known_grads
def test_known_grads_start_from_the_middle(backend):
    x, dh = T.vector("x"), T.vector("dh")
    h = T.tanh(x)
    got = value([x, dh], sg.grad(None, x, known_grads={h: dh}), V, 3 * V, backend=backend)
    np.testing.assert_allclose(got, 3 * V * (1 - np.tanh(V) ** 2), rtol=1e-5)


def test_known_grads_add_to_a_cost_and_replace_what_would_be_derived():
    x = T.vector("x")
    h, k = x * 2, x * 5
    cost = (h * h).sum()
    both = sg.grad(cost, x, known_grads={k: T.constant(V)})
    np.testing.assert_allclose(value([x], both, V), 8 * V + 5 * V)
    replaced = sg.grad(cost, x, known_grads={h: T.constant(V)})
    np.testing.assert_allclose(value([x], replaced, V), 2 * V)


def test_known_grads_of_several_heads():
    x = T.vector("x")
    heads = {x * 2: T.constant(V), T.exp(x): T.constant(np.ones(3, "f"))}
    np.testing.assert_allclose(value([x], sg.grad(None, x, known_grads=heads), V), 2 * V + np.exp(V), rtol=1e-6)


def test_known_grads_must_fit():
    x = T.tensor("x", (3,))
    h = x * 2
    with pytest.raises(sg.ShapeError, match="cotangent"):
        sg.grad(None, x, known_grads={h: T.constant(np.ones(4, "f"))})
    with pytest.raises(sg.DTypeError, match="cotangent"):
        sg.grad(None, x, known_grads={h: T.vector("d", "float64")})
    with pytest.raises(sg.SymgradError, match="known_grads"):
        sg.grad(None, x)


# ------------------------------------------------------------------------------------------ constants, cuts
def test_consider_constant_and_stop_gradient_agree(backend):
    x = T.vector("x")
    h = T.exp(x)
    by_option = sg.grad((h * x).sum(), x, consider_constant=[h])
    by_op = sg.grad((sg.stop_gradient(h) * x).sum(), x)
    a, b = value([x], [by_option, by_op], V, backend=backend)
    np.testing.assert_allclose(a, np.exp(V), rtol=1e-6)
    np.testing.assert_array_equal(a, b)


def test_consider_constant_takes_one_variable_too():
    x = T.vector("x")
    h = T.exp(x)
    assert value([x], sg.grad((h * x).sum(), x, consider_constant=h), V).tolist() == value([x], h, V).tolist()


def test_grad_clip_and_grad_scale(backend):
    x = T.vector("x")
    c = T.constant(np.float32([5, -0.2, -7]))
    clipped, scaled, reversed_ = (sg.vjp(y, x, c) for y in (sg.grad_clip(x, -1, 1), sg.grad_scale(x, 0.5), sg.grad_scale(x, -1)))
    got = value([x], [clipped, scaled, reversed_, sg.grad_clip(x, -1, 1), sg.grad_scale(x, 3)], V, backend=backend)
    np.testing.assert_allclose(got[0], [1, -0.2, -1])
    np.testing.assert_allclose(got[1], [2.5, -0.1, -3.5])
    np.testing.assert_allclose(got[2], [-5, 0.2, 7])
    assert got[3].tolist() == V.tolist() and got[4].tolist() == V.tolist()


def test_disconnected_raises_and_names_what_the_cost_depends_on():
    x, z = T.vector("x"), T.vector("lonely")
    with pytest.raises(sg.DisconnectedError, match="it depends on: x"):
        sg.grad(x.sum(), z)


@pytest.mark.parametrize("cut", [lambda x: T.argmax(x).astype("float32"), lambda x: (x > 0).astype("float32").sum(),
                                 lambda x: sg.stop_gradient(x).sum(), lambda x: x.astype("int64").astype("float32").sum(),
                                 lambda x: T.cast(x.shape[0], "float32")])
def test_paths_through_integers_and_cuts_are_disconnected(cut):
    x = T.vector("x")
    with pytest.raises(sg.DisconnectedError):
        sg.grad(cut(x), x)
    assert value([x], sg.grad(cut(x), x, disconnected="zero"), V).tolist() == [0, 0, 0]


@pytest.mark.parametrize("flat", [T.sign, T.floor, T.ceil, T.rint, T.trunc])
def test_piecewise_constant_functions_have_a_zero_gradient(flat):
    x = T.vector("x")
    assert value([x], sg.grad(flat(x).sum(), x), V).tolist() == [0, 0, 0]


# --------------------------------------------------------------------------------------------- higher order
def test_third_derivative(backend):
    x = T.scalar("x", "float64")
    y = x**4 + T.sin(x)
    d = y
    for _ in range(3):
        d = sg.grad(d, x)
    assert value([x], d, 0.7, backend=backend) == pytest.approx(24 * 0.7 - np.cos(0.7), rel=1e-12)


def test_gradient_penalty(backend):
    """A cost that contains a gradient (Gulrajani et al. 2017), differentiated with respect to the weights."""
    w = sg.shared(np.array([[1.0, -2], [0.5, 1], [2, 0.3]]), "w")
    x = T.matrix("x", "float64")
    score = T.tanh(x @ w).sum()
    penalty = ((T.sqrt((sg.grad(score, x) ** 2).sum(axis=1)) - 1) ** 2).sum()
    X = np.array([[0.3, -1, 0.2], [1, 0.1, -0.4]])
    g = value([x], sg.grad(penalty, w), X, backend=backend)
    f = sg.function([x], penalty, backend="reference")
    base, h = w.get_value(), 1e-6
    for index in np.ndindex(3, 2):
        sides = []
        for s in (h, -h):
            moved = base.copy()
            moved[index] += s
            w.set_value(moved)
            sides.append(f(X))
        w.set_value(base)
        assert g[index] == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-5, abs=1e-8)


def test_hessian_of_a_quadratic_form_by_double_gradient():
    A = np.array([[2.0, 1, 0], [1, 3, -1], [0, -1, 4]])
    x, v = T.tensor("x", (3,), "float64"), T.tensor("v", (3,), "float64")
    g = sg.grad(0.5 * (x @ T.constant(A)) @ x, x)
    hv = sg.grad((g * v).sum(), x)
    np.testing.assert_allclose(value([x, v], hv, V.astype("f8"), np.array([1.0, 2, 3])), A @ [1, 2, 3])


# ------------------------------------------------------------------------------------------- vjp and jvp
def test_vjp_of_several_outputs(backend):
    x = T.vector("x")
    g = sg.vjp([x * 2, T.exp(x)], x, [T.constant(V), T.constant(np.ones(3, "f"))])
    np.testing.assert_allclose(value([x], g, V, backend=backend), 2 * V + np.exp(V), rtol=1e-6)
    with pytest.raises(sg.ShapeError, match="2 outputs, 1 cotangents"):
        sg.vjp([x, x * 2], x, [T.constant(V)])


def test_jvp_keeps_the_structure_of_the_outputs(backend):
    x, y, tx, ty = (T.vector(n) for n in ("x", "y", "tx", "ty"))
    one = sg.jvp(x * y, [x, y], [tx, ty])
    assert isinstance(one, sg.Variable)
    several = sg.jvp({"p": x * y, "q": T.sin(x)}, [x, y], [tx, ty])
    got = value([x, y, tx, ty], [one, several["p"], several["q"]], V, 2 * V, V + 1, V - 1, backend=backend)
    want = (V + 1) * 2 * V + V * (V - 1)
    np.testing.assert_allclose(got[0], want, rtol=1e-6)
    np.testing.assert_allclose(got[1], want, rtol=1e-6)
    np.testing.assert_allclose(got[2], np.cos(V) * (V + 1), rtol=1e-5)


def test_jvp_of_what_does_not_depend_is_zero_or_raises():
    x, z = T.vector("x"), T.vector("z")
    assert value([x, z], sg.jvp(z * 2, x, T.ones_like(x)), V, V).tolist() == [0, 0, 0]
    with pytest.raises(sg.SymgradError):
        sg.jvp(z * 2, x, T.ones_like(x), disconnected="raise")


FORWARD = {
    "relu": lambda x: T.relu(x - 0.1), "max": lambda x: T.max(x, axis=1), "softmax": T.softmax, "matmul": lambda x: x @ x.T,
    "gather": lambda x: x[np.array([0, 2, 2])], "set": lambda x: T.set_subtensor(x[0], x[1] * x[2]), "sort": lambda x: T.sort(x, axis=1),
    "conv": lambda x: T.conv1d(x.reshape((1, 3, 4)), T.constant(np.linspace(-1, 1, 12).reshape(2, 3, 2))),
    "pool": lambda x: T.max_pool1d(x.reshape((1, 3, 4)), 2), "cumsum": lambda x: T.cumsum(x * x, axis=0), "where": lambda x: T.where(x > 0, x * x, T.exp(x)),
    "layer_norm": lambda x: T.layer_norm(x, (4,)), "logsumexp": lambda x: T.logsumexp(x, axis=0), "prod": lambda x: T.prod(x, axis=1),
    "concatenate": lambda x: T.concatenate([x, x * 2], axis=1), "einsum": lambda x: T.einsum("ij,kj->ik", x, T.exp(x)), "std": lambda x: x.std(axis=0),
}


@pytest.mark.parametrize("kind", FORWARD)
def test_forward_mode_through_many_ops_agrees_with_differences(kind, rng):
    x, t = T.tensor("x", (3, 4), "float64"), rng.standard_normal((3, 4))
    y = FORWARD[kind](x)
    f = sg.function([x], [y, sg.jvp(y, x, T.constant(t))], backend="reference")
    X, h = rng.standard_normal((3, 4)), 1e-6
    want = (f(X + h * t)[0] - f(X - h * t)[0]) / (2 * h)
    np.testing.assert_allclose(f(X)[1], want, rtol=1e-5, atol=1e-7)


def test_hessian_vector_product_forward_over_reverse():
    x, v = T.tensor("x", (3,), "float64"), T.tensor("v", (3,), "float64")
    y = (T.tanh(x) * x[0]).sum()
    forward_over_reverse = sg.jvp(sg.grad(y, x), x, v)
    reverse_over_reverse = sg.grad((sg.grad(y, x) * v).sum(), x)
    a, b = value([x, v], [forward_over_reverse, reverse_over_reverse], np.array([0.3, -1, 0.8]), np.array([1.0, -2, 0.5]))
    np.testing.assert_allclose(a, b, rtol=1e-12)


# ----------------------------------------------------------------------------------------- known traps
def test_gradients_at_kinks_are_finite_and_those_of_the_documentation():
    x = T.vector("x")
    at_zero = np.zeros(1, "f")
    for fn, want in ((T.relu, 0), (abs, 0), (lambda x: T.maximum(x, 0), None), (lambda x: T.clip(x, 0, 1), 1), (T.sqrt, np.inf)):
        g = value([x], sg.grad(fn(x).sum(), x), at_zero)[0]
        assert g in (0, 0.5, 1) if want is None else g == want


def test_where_hides_values_but_not_nan_gradients_unless_guarded():
    """The documented way to be safe: make the operand safe, not only the result."""
    x = T.vector("x")
    safe = T.where(x > 0, T.log(T.where(x > 0, x, 1.0)), 0.0)
    assert value([x], sg.grad(safe.sum(), x), np.float32([0, 2])).tolist() == [0, 0.5]


def test_power_at_zero():
    x = T.vector("x")
    assert value([x], sg.grad((x**2).sum(), x), np.float32([0, 3])).tolist() == [0, 6]
    assert value([x], sg.grad((x**1).sum(), x), np.float32([0, 3])).tolist() == [1, 1]
    assert value([x], sg.grad((x**0).sum(), x), np.float32([0, 3])).tolist() == [0, 0]


def test_softmax_cross_entropy_stays_finite_far_out(backend):
    x = T.matrix("x")
    loss = -T.log_softmax(x, axis=1)[:, 0].mean()
    got = value([x], [loss, sg.grad(loss, x)], np.float32([[1000, -1000], [-1000, 1000]]), backend=backend)
    assert got[0] == 1000 and np.isfinite(got[1]).all()
    np.testing.assert_allclose(got[1], [[0, 0], [-0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("stable", [lambda x: T.logaddexp(x, 0), T.softplus, T.logsigmoid, T.log1p, lambda x: T.logsumexp(x, axis=0)])
def test_stable_functions_have_stable_gradients(stable):
    x = T.vector("x")
    for point in (100.0, 1e-6, 700.0):
        g = value([x], sg.grad(stable(x).sum(), x), np.float32([point]))
        assert np.isfinite(g).all()


def test_max_shares_among_ties_and_prod_survives_zeros(backend):
    x = T.vector("x")
    tie = np.float32([2, 2, 1])
    assert value([x], sg.grad(x.max(), x), tie, backend=backend).tolist() == [0.5, 0.5, 0]
    for point, want in (([0, 3, 4], [12, 0, 0]), ([0, 0, 4], [0, 0, 0]), ([2, 3, 4], [12, 8, 6])):
        assert value([x], sg.grad(x.prod(), x), np.float32(point), backend=backend).tolist() == want


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [5, 33])
def test_a_maximum_is_found_again_by_the_kernel_of_its_gradient(dtype, n, rng):
    """The gradient compares x with max(x). Both are computed twice, in kernels that read other things too: they must come
    out equal to the last bit, or there is no maximum and the gradient is 0 / 0."""
    x = T.tensor("x", (n, 17), dtype)
    square = x * x
    y = x / (1 + square)
    largest = y.max(axis=0, keepdims=True)
    cost = (T.log1p(square) * T.sigmoid(x) * (largest - 0.25 * y)).sum() + ((y - y.min(axis=0)) * square).sum()
    outputs = [square.sum(axis=1), sg.grad(cost, x), (y == largest).sum(axis=0)]
    point = rng.uniform(-2, 2, (n, 17)).astype(dtype)
    got, want = value([x], outputs, point, backend="cpu"), value([x], outputs, point)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-3, atol=1e-3)
    assert got[2].tolist() == [1] * 17


def test_repeated_indices_accumulate(backend):
    x = T.vector("x")
    g = sg.grad((x[np.array([0, 0, 2])] * T.constant(np.float32([1, 10, 100]))).sum(), x)
    assert value([x], g, V, backend=backend).tolist() == [11, 0, 100]


def test_empty_arrays_have_empty_gradients(backend):
    x = T.matrix("x")
    g = sg.grad((T.tanh(x).sum(axis=1) ** 2).sum(), x)
    assert value([x], g, np.zeros((0, 3), "f"), backend=backend).shape == (0, 3)


MODELS = {
    "mlp": lambda x: T.softmax(T.tanh(x @ T.constant(np.linspace(-1, 1, 12).reshape(4, 3))), axis=-1),
    "norms": lambda x: T.layer_norm(T.gelu(x), (4,)) * x.mean(axis=0),
    "attention": lambda x: T.softmax(x @ x.T / 2, axis=-1) @ x,
    "conv": lambda x: T.avg_pool2d(T.silu(T.conv2d(x.reshape((1, 1, 3, 4)), T.constant(np.linspace(-1, 1, 8).reshape(2, 1, 2, 2)), padding=1)), 2),
    "indexing": lambda x: T.inc_subtensor(x[1:, ::2], x[:2, 1::2])[np.array([0, 2]), :] ** 2,
    "reductions": lambda x: x.var(axis=1) + T.logsumexp(x, axis=1) * x.prod(axis=1),
    "powers": lambda x: (x * x + 1) ** 1.5 / T.sqrt(x * x + 2),
    "linear algebra": lambda x: T.einsum("ij,ij->i", x, x @ T.constant(np.ones((4, 4)))) + T.tensordot(x, x[0], axes=1),
}


@pytest.mark.parametrize("model", MODELS)
def test_models_pass_the_gradient_check_twice(model, rng):
    fn = MODELS[model]
    check_grad(fn, rng.uniform(-1, 1, (3, 4)), order=2, rtol=1e-5)


torch = pytest.importorskip("torch") if __import__("importlib.util").util.find_spec("torch") else None


@pytest.mark.skipif(torch is None, reason="needs torch to compare with")
def test_a_small_network_agrees_with_torch(backend, rng):
    data = [rng.standard_normal(s).astype("f") for s in ((2, 3, 8, 8), (4, 3, 3, 3), (4,), (4 * 16, 5), (5,))]
    labels = np.array([1, 3])
    xs = [T.tensor(f"a{k}", a.shape) for k, a in enumerate(data)]
    x, k, b, w, c = xs
    h = T.max_pool2d(T.relu(T.conv2d(x, k, b, padding=1)), 2)
    logits = h.reshape((2, -1)) @ w + c
    loss = -T.log_softmax(logits, axis=1)[np.arange(2), labels].mean()
    got = value(xs, [loss, *sg.grad(loss, xs)], *data, backend=backend)
    ts = [torch.tensor(a, requires_grad=True) for a in data]
    F = torch.nn.functional
    theirs = F.cross_entropy(F.max_pool2d(F.relu(F.conv2d(ts[0], ts[1], ts[2], padding=1)), 2).reshape(2, -1) @ ts[3] + ts[4], torch.tensor(labels))
    theirs.backward()
    np.testing.assert_allclose(got[0], theirs.item(), rtol=1e-5)
    for mine, t in zip(got[1:], ts):
        np.testing.assert_allclose(mine, t.grad.numpy(), rtol=1e-3, atol=1e-5)
