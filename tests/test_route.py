"""sg.route: each row through the branch its gate names, each branch once, on just its rows."""

from __future__ import annotations

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T

rng = np.random.default_rng(5)
BACKENDS = ("cpu", "plain", "reference")
D = 3
WEIGHTS = [rng.normal(size=(D, D)) for _ in range(3)]
GATES = [np.array(g) for g in ([2, 0, 1, 0, 2], [1, 1, 1, 1, 1], [0, 2, 2, 0, 2], [-1, 0, -3, 1, 2])]
X = rng.normal(size=(5, D))


def experts(weights=WEIGHTS):
    return [sg.shared(w) for w in weights]


def each(gates, weights, x):
    """The rows one by one."""
    return np.stack([np.tanh(row @ weights[g]) for g, row in zip(gates, x)]) if len(x) else x


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [5, "n"])
def test_rows_go_through_their_branches(backend, rows):
    g, x = T.tensor("g", (rows,), "int64"), T.tensor("x", (rows, D), "float64")
    f = sg.function([g, x], sg.route(g, [lambda r, w=w: T.tanh(r @ w) for w in experts()], x), backend=backend)
    for gates in GATES:
        np.testing.assert_allclose(f(gates, X), each(gates, WEIGHTS, X), rtol=1e-12)
    for n in (1, 2, 9, 0, 4, 7) if rows == "n" else ():      # more sizes than there are programs for sizes of their own
        gates, values = rng.integers(0, 3, n), rng.normal(size=(n, D))
        np.testing.assert_allclose(f(gates, values), each(gates, WEIGHTS, values), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_go_back_the_same_way(backend):
    torch = pytest.importorskip("torch")
    g, x = T.tensor("g", (5,), "int64"), T.tensor("x", (5, D), "float64")
    shared = experts()
    y = sg.route(g, [lambda r, w=w: T.tanh(r @ w) for w in shared], x)
    f = sg.function([g, x], sg.grad((y ** 3).sum(), [x, *shared]), backend=backend)
    for gates in GATES:
        tx, *tw = (torch.tensor(v, requires_grad=True) for v in (X, *WEIGHTS))
        (torch.stack([torch.tanh(tx[i] @ tw[k]) for i, k in enumerate(gates)]) ** 3).sum().backward()
        for got, want in zip(f(gates, X), (tx, *tw)):
            np.testing.assert_allclose(got, np.zeros(want.shape) if want.grad is None else want.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_branches_of_images_with_norms_and_pools(backend):
    """A branch without rows runs through convolutions, pooling, reductions and means, forward and backward, and gives zeros."""
    g, x = T.tensor("g", (4,), "int64"), T.tensor("x", (4, 2, 6, 6))
    filters = [sg.shared(rng.normal(size=(3, 2, 3, 3)).astype("float32")) for _ in range(3)]
    dense = sg.shared(rng.normal(size=(3, 2)).astype("float32"))

    def pooled(r):
        y = T.relu(T.conv2d(r, filters[0], padding=1))
        return T.max_pool2d(y, 2).mean(axis=(2, 3)) @ dense

    def normed(r):
        y = T.conv2d(r, filters[1], stride=2)
        return T.layer_norm(y, y.shape[1:]).sum((2, 3)) @ dense

    def averaged(r):
        y = T.avg_pool2d(T.conv2d(r, filters[2]), 2)
        return T.log_softmax((y - y.mean(0)).max((2, 3)) @ dense)

    def alone(branch, values):      # the branch on these rows and no others
        given = T.tensor("r", values.shape)
        out = branch(given)
        return sg.function([given], [out, *sg.grad((out ** 2).sum(), [given, *filters, dense], disconnected="zero")])(values)

    y = sg.route(g, [pooled, normed, averaged], x)
    f = sg.function([g, x], [y, *sg.grad((y ** 2).sum(), [x, *filters, dense])], backend=backend)
    values = rng.normal(size=(4, 2, 6, 6)).astype("float32")
    for gates in (np.array([0, 1, 0, 1]), np.array([2, 2, 2, 2]), np.array([1, 2, 0, 2])):
        out, gx, *gw = f(gates, values)
        total = [np.zeros_like(w) for w in gw]
        for k, branch in enumerate([pooled, normed, averaged]):
            if (gates == k).any():
                want, want_x, *want_w = alone(branch, values[gates == k])
                np.testing.assert_allclose(out[gates == k], want, rtol=1e-3, atol=1e-4)
                np.testing.assert_allclose(gx[gates == k], want_x, rtol=1e-3, atol=1e-3)
                total = [a + b for a, b in zip(total, want_w)]
        for got, want in zip(gw, total):
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_structures_of_rows_and_results(backend):
    g, x, label = T.tensor("g", (4,), "bool"), T.tensor("x", (4, 2)), T.tensor("label", (4,), "int64")
    both = sg.route(g, [lambda r: {"sum": r["x"].sum(1), "label": r["label"]}, lambda r: {"sum": r["x"].max(1), "label": -r["label"]}],
                    {"x": x, "label": label})
    values, gates, labels = rng.normal(size=(4, 2)).astype("float32"), np.array([True, False, False, True]), np.arange(4)
    got = sg.function([g, x, label], both, backend=backend)(gates, values, labels)
    np.testing.assert_allclose(got["sum"], np.where(gates, values.max(1), values.sum(1)), rtol=1e-6)
    np.testing.assert_array_equal(got["label"], np.where(gates, -labels, labels))


@pytest.mark.parametrize("backend", BACKENDS)
def test_routes_within_routes_and_branches(backend):
    g, h, c, x = T.tensor("g", ("n",), "int64"), T.tensor("h", ("n",), "int64"), T.scalar("c", "bool"), T.tensor("x", ("n", D), "float64")

    def inner(rows):
        return sg.route(rows[1], [lambda r: r * 2, lambda r: T.exp(r), lambda r: r - r.sum(1, keepdims=True)], rows[0])

    y = sg.ifelse(c, sg.route(g, [inner, lambda rows: rows[0] ** 2], (x, h)), x * 0)
    f = sg.function([g, h, c, x], [y, sg.grad(y.sum(), x)], backend=backend)
    for n in (6, 1, 3):
        gates, inside, values = rng.integers(0, 2, n), rng.integers(0, 3, n), rng.normal(size=(n, D))
        functions = [lambda r: r * 2, np.exp, lambda r: r - r.sum()]
        slopes = [lambda r: r * 0 + 2, np.exp, lambda r: r * 0 + 1 - D]
        want = np.stack([r ** 2 if k else functions[j](r) for k, j, r in zip(gates, inside, values)])
        slope = np.stack([2 * r if k else slopes[j](r) for k, j, r in zip(gates, inside, values)])
        for taken in (True, False):
            out, gradient = f(gates, inside, taken, values)
            np.testing.assert_allclose(out, want * taken, rtol=1e-12)
            np.testing.assert_allclose(gradient, slope * taken, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_drawn_gates_and_draws_inside(backend):
    stream = sg.random.RandomStream(3)
    x = T.tensor("x", (50, D), "float64")
    g = stream.integers(0, 3, (50,))
    y = sg.route(g, [lambda r: r * 0, lambda r: r, lambda r: r * 2], x)
    f = sg.function([x], [g, y, sg.grad(y.sum(), x)], backend=backend)
    seen = []
    for _ in range(2):
        values = rng.normal(size=(50, D))
        gates, out, gradient = f(values)
        np.testing.assert_allclose(out, values * gates[:, None])
        np.testing.assert_allclose(gradient, np.ones((50, D)) * gates[:, None])
        seen.append(gates)
    assert (seen[0] != seen[1]).any() and set(seen[0]) == {0, 1, 2}


def test_overrides_reach_inside_branches():
    g, x = T.tensor("g", (5,), "int64"), T.tensor("x", (5, D), "float64")
    y = sg.route(g, [lambda r: T.relu(r) * 2, lambda r: T.relu(r) - 1, lambda r: r * 3], x)
    guided = sg.function([g, x], sg.grad(-y.sum(), x, overrides={T.relu: lambda g, y, x: g * (x > 0) * (g > 0)}))
    np.testing.assert_array_equal(guided(GATES[0], X), np.where((GATES[0] == 2)[:, None], -3.0, 0.0) * np.ones((5, D)))


def test_forward_mode_and_second_derivatives():
    g, x, v = T.tensor("g", (5,), "int64"), T.tensor("x", (5, D), "float64"), T.tensor("v", (5, D), "float64")
    y = sg.route(g, [lambda r: T.sin(r), lambda r: r ** 3, lambda r: r * 2], x)
    f = sg.function([g, x, v], [sg.jvp(y, x, v), sg.hvp(y.sum(), x, v)])
    V = rng.normal(size=(5, D))
    first, second = f(GATES[0], X, V)
    pick = lambda *values: np.choose(GATES[0][:, None], values)
    np.testing.assert_allclose(first, V * pick(np.cos(X), 3 * X ** 2, 2 * np.ones_like(X)), rtol=1e-12)
    np.testing.assert_allclose(second, V * pick(-np.sin(X), 6 * X, 0 * X), rtol=1e-12)


def test_kernels_of_a_branch_run_on_its_rows_alone():
    """Work goes with the rows: of 3 experts, the one with all rows does all of it."""
    g, x = T.tensor("g", (64,), "int64"), T.tensor("x", (64, 32))
    weights = experts([rng.normal(size=(32, 32)).astype("float32") for _ in range(3)])
    f = sg.function([g, x], sg.route(g, [lambda r, w=w: T.tanh(r @ w) for w in weights], x))
    values = rng.normal(size=(64, 32)).astype("float32")
    for gates in (np.full(64, 1), rng.integers(0, 3, 64)):
        work = [row.flops for row in f.profile(gates, values) if "matmul" in row.what]
        assert work == [2 * 32 * 32 * int((gates == k).sum()) for k in range(3)]


# -------------------------------------------------------------------------------------------- mistakes
def test_gates_that_name_no_branch_are_refused_at_the_call():
    g, x = T.tensor("g", (5,), "int64"), T.tensor("x", (5, D))
    values = X.astype("float32")
    for backend in BACKENDS:
        f = sg.function([g, x], sg.route(g, [lambda r: r, lambda r: r * 2], x), backend=backend)
        f(np.array([0, 1, -1, -2, 0]), values)
        for wrong in (2, -3):
            with pytest.raises(IndexError, match="test_route.py"):
                f(np.array([0, 1, wrong, 1, 0]), values)


x5 = T.tensor("x", (5, D))
one = lambda r: r
MISTAKES = [
    (lambda: sg.route(T.tensor("g", (5,)), [one, one], x5), TypeError, "astype"),
    (lambda: sg.route(T.tensor("g", (5, 1), "int64"), [one, one], x5), ValueError, "one gate per row"),
    (lambda: sg.route(T.tensor("g", (4,), "int64"), [one, one], x5), ValueError, "as many gates"),
    (lambda: sg.route(np.array([0, 1, 2, 0, 0]), [one, one], x5), IndexError, "gate 2 of row 2"),
    (lambda: sg.route(T.tensor("g", (5,), "int64"), [], x5), sg.SymgradError, "functions"),
    (lambda: sg.route(T.tensor("g", (5,), "int64"), [one, x5], x5), sg.SymgradError, "functions"),
    (lambda: sg.route(T.tensor("g", (5,), "int64"), [one, lambda r: r[:, :2]], x5), ValueError, "branch 1: rows"),
    (lambda: sg.route(T.tensor("g", (5,), "int64"), [one, lambda r: r > 0], x5), TypeError, "branch 1: rows"),
    (lambda: sg.route(T.tensor("g", (5,), "int64"), [one, lambda r: r.sum(0)], x5), ValueError, "a row for each row"),
    (lambda: sg.route(T.tensor("g", (5,), "int64"), [one, lambda r: (r, r)], x5), ValueError, "structure"),
]


@pytest.mark.parametrize("mistake, kind, says", MISTAKES)
def test_mistakes_fail_on_the_users_line(mistake, kind, says):
    with pytest.raises(kind, match=says) as error:
        mistake()
    assert "test_route.py" in str(error.value) and "try:" in str(error.value)


# ----------------------------------------------------------------------------- choices under vectorize
class Program:
    """A random function of a row r and a number c with nested choices, as graph and as NumPy; values are used again on both sides."""

    def __init__(self, seed, weights):
        self.rng, self.shared, self.weights = np.random.default_rng(seed), experts(weights), weights
        self.made = []

    def grow(self, depth):
        """A function of an environment (graph or NumPy)."""
        kind = self.rng.integers(0, 7)
        if self.made and kind == 0:
            return self.made[self.rng.integers(len(self.made))]
        if depth == 0 or kind == 1:
            leaf = self.rng.integers(0, 3)
            return lambda e: (e.r, e.r * e.c, e.r - e.r.sum())[leaf]
        a = self.grow(depth - 1)
        if kind in (2, 3):
            k = self.rng.integers(0, 3)
            new = lambda e: e.tanh(a(e) @ e.weights[k])
        else:
            b, test, level = self.grow(depth - 1), self.grow(0), float(self.rng.normal())
            new = (lambda e: e.ifelse(test(e).sum() > level, lambda: a(e), lambda: b(e))) if kind > 4 else (lambda e: a(e) * 0.5 + b(e))
        self.made.append(new)
        return new


class Graph:
    tanh = staticmethod(T.tanh)

    def __init__(self, program, r, c):
        self.weights, self.r, self.c = program.shared, r, c

    def ifelse(self, test, then, otherwise):
        return sg.ifelse(test, then(), otherwise())


class Numpy(Graph):
    tanh = staticmethod(np.tanh)

    def __init__(self, program, r, c):
        self.weights, self.r, self.c = program.weights, r, c

    def ifelse(self, test, then, otherwise):
        return then() if test else otherwise()


@pytest.mark.parametrize("seed", range(8))
def test_random_choices_of_each_example(seed):
    program = Program(seed, WEIGHTS)
    made = program.grow(4)
    x, c = T.tensor("x", ("n", D), "float64"), T.tensor("c", ("n",), "float64")
    y = sg.vectorize(lambda r, k: made(Graph(program, r, k)))(x, c)
    cost = (y ** 2).sum()
    wanted = [y, *sg.grad(cost, [x, c, *program.shared], disconnected="zero")]
    functions = [sg.function([x, c], wanted, backend=backend, on_unused_input="ignore") for backend in BACKENDS]
    total = lambda values, numbers: sum((made(Numpy(program, r, k)) ** 2).sum() for r, k in zip(values, numbers))
    for n in (5, 1):
        values, numbers = np.random.default_rng(seed).normal(size=(n, D)), np.random.default_rng(seed + 1).normal(size=n)
        results = [f(values, numbers) for f in functions]
        np.testing.assert_allclose(results[0][0], np.stack([made(Numpy(program, r, k)) for r, k in zip(values, numbers)]), rtol=1e-9, atol=1e-12)
        h = 1e-6
        for i in range(n):          # away from the points where a choice changes, with probability one
            step = np.zeros((n, D))
            step[i, 0] = h
            slope = (total(values + step, numbers) - total(values - step, numbers)) / (2 * h)
            np.testing.assert_allclose(results[0][1][i, 0], slope, rtol=1e-4, atol=1e-6)
        for other in results[1:]:
            for a, b in zip(results[0], other):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_choices_of_each_example_compute_one_side_each():
    """The work of both sides together is that of one side for all examples."""
    x, c = T.tensor("x", (64, 32)), T.tensor("c", (64,))
    left, right = (sg.shared(rng.normal(size=(32, 32)).astype("float32")) for _ in range(2))
    f = sg.function([x, c], sg.vectorize(lambda r, k: sg.ifelse(k > 0, T.tanh(r @ left), r @ right))(x, c))
    values, numbers = rng.normal(size=(64, 32)).astype("float32"), rng.normal(size=64).astype("float32")
    work = [row.flops for row in f.profile(values, numbers) if "matmul" in row.what]
    assert sorted(work) == sorted([2 * 32 * 32 * int((numbers > 0).sum()), 2 * 32 * 32 * int((numbers <= 0).sum())])


def test_a_choice_keeps_its_gradient_finite():
    """The side that an example does not take is not differentiated for it: no 0 * inf."""
    x = T.tensor("x", (4,), "float64")
    y = sg.vectorize(lambda v: sg.ifelse(v > 0, T.sqrt(v), v * 0))(x)
    got = sg.function([x], sg.grad(y.sum(), x))(np.array([0.0, 4.0, -1.0, 1.0]))
    np.testing.assert_array_equal(got, [0.0, 0.25, 0.0, 0.5])


def test_overrides_and_ops_without_a_batching_rule_inside_choices():
    x = T.tensor("x", (5, D), "float64")
    one = lambda r: sg.ifelse(r.sum() > 0, T.relu(r) * 2, T.cumprod(r))
    y = sg.vectorize(one)(x)
    plain = sg.function([x], y)(X)
    want = np.stack([np.maximum(r, 0) * 2 if r.sum() > 0 else np.cumprod(r) for r in X])
    np.testing.assert_allclose(plain, want, rtol=1e-12)
    heat = sg.function([x], sg.grad(y.sum(), x, overrides={T.relu: lambda g, y, x: g * 7}))(X)
    np.testing.assert_array_equal(heat[X.sum(1) > 0], 14.0)


def test_a_loop_inside_a_choice():
    x = T.tensor("x", (5, D), "float64")
    one = lambda r: sg.ifelse(r[0] > 0, sg.scan(lambda s: s * 0.5 + r, outputs_info=[r], n_steps=3)[-1], r)
    got = sg.function([x], sg.vectorize(one)(x))(X)
    halved = X
    for _ in range(3):
        halved = halved * 0.5 + X
    np.testing.assert_allclose(got, np.where(X[:, :1] > 0, halved, X), rtol=1e-12)


# ------------------------------------------------------------------------------ together with the rest
@pytest.mark.parametrize("backend", BACKENDS)
def test_routes_at_every_step_of_a_loop(backend):
    """Gates differ from step to step; the loop, its counting included, runs without Python on the CPU."""
    steps, x = T.tensor("steps", (4, 5), "int64"), T.tensor("x", (5, D), "float64")
    shared = experts()
    y = sg.scan(lambda g, s: sg.route(g, [lambda r, w=w: T.tanh(r @ w) for w in shared], s), [steps], [x])
    cost = (y[-1] ** 2).sum()
    f = sg.function([steps, x], [y, *sg.grad(cost, [x, *shared])], backend=backend)
    torch = pytest.importorskip("torch")
    gates = rng.integers(0, 3, (4, 5))
    tx, *tw = (torch.tensor(v, requires_grad=True) for v in (X, *WEIGHTS))
    state, states = tx, []
    for row in gates:
        state = torch.stack([torch.tanh(state[i] @ tw[k]) for i, k in enumerate(row)])
        states.append(state)
    (state ** 2).sum().backward()
    got = f(gates, X)
    for value, want in zip(got, [torch.stack(states), tx.grad, *(w.grad for w in tw)]):
        np.testing.assert_allclose(value, want.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_jacobians_of_routed_rows():
    g, x = T.tensor("g", (5,), "int64"), T.tensor("x", (5, D), "float64")
    y = sg.route(g, [lambda r: T.sin(r), lambda r: r @ WEIGHTS[1], lambda r: r ** 2], x)
    whole, rows = sg.function([g, x], [sg.jacobian(y, x), sg.batch_jacobian(y, x)])(GATES[0], X)
    one = {0: lambda r: np.diag(np.cos(r)), 1: lambda r: WEIGHTS[1].T, 2: lambda r: np.diag(2 * r)}
    want = np.stack([one[k](r) for k, r in zip(GATES[0], X)])
    np.testing.assert_allclose(rows, want, rtol=1e-12)
    np.testing.assert_allclose(whole, np.einsum("iab,ij->iajb", want, np.eye(5)), rtol=1e-12, atol=1e-15)


def test_routed_training_saves_checks_and_copies():
    import pickle
    g, x, target = T.tensor("g", ("n",), "int64"), T.tensor("x", ("n", D), "float64"), T.tensor("target", ("n", D), "float64")
    gates = rng.integers(0, 3, 40)
    values = rng.normal(size=(40, D))
    wanted = each(gates, WEIGHTS, values)
    made = []
    for check in (None, "nan", "reference"):
        shared = experts([w * 0.5 for w in WEIGHTS])
        loss = ((sg.route(g, [lambda r, w=w: T.tanh(r @ w) for w in shared], x) - target) ** 2).mean()
        step = sg.function([g, x, target], loss, updates=sg.optim.sgd(loss, shared, lr=0.5), check=check)
        made.append([float(step(gates, values, wanted)) for _ in range(6)])
    np.testing.assert_allclose(made[1:], [made[0]] * 2, rtol=1e-9)
    assert made[0] == sorted(made[0], reverse=True)
    for twin in (step.copy(), pickle.loads(pickle.dumps(step))):
        assert float(twin(gates, values, wanted)) < made[0][-1]
    before = [w.get_value() for w in shared]
    with pytest.raises(IndexError):
        step(np.where(gates == 2, 3, gates), values, wanted)
    for w, old in zip(shared, before):
        np.testing.assert_array_equal(w.get_value(), old)       # all updates or none
