"""Layers, optimisers and losses against NumPy written from the papers, and against torch where installed."""

import os
import pickle

import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T
from symgrad.nn import safetensors_file

# formulas are checked op by op, which compiles nothing; SYMGRAD_BACKEND=cpu checks the kernels as well
CHOSEN = dict(backend=os.environ.get("SYMGRAD_BACKEND", "reference"))


@pytest.fixture
def rng():
    return np.random.default_rng(0xC0FFEE)


def value(output, *pairs, **options):
    """The value of a variable; pairs are input, array, input, array ..."""
    inputs, arrays = pairs[::2], pairs[1::2]
    return sg.function(list(inputs), output, **{**CHOSEN, **options})(*arrays)


def plain_conv(x, w, b, stride, padding, dilation, groups):
    """Cross-correlation by its definition, one output pixel at a time."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, _, height, width = x.shape
    c_out, c_group, kh, kw = w.shape
    rows, columns = ((size - dilation * (k - 1) - 1) // stride + 1 for size, k in ((height, kh), (width, kw)))
    y = np.zeros((n, c_out, rows, columns))
    for o in range(c_out):
        first = o // (c_out // groups) * c_group
        for i in range(rows):
            for j in range(columns):
                window = x[:, first:first + c_group, i * stride:i * stride + dilation * (kh - 1) + 1:dilation,
                           j * stride:j * stride + dilation * (kw - 1) + 1:dilation]
                y[:, o, i, j] = (window * w[o]).sum(axis=(1, 2, 3)) + b[o]
    return y


# layers

def test_dense_is_x_w_plus_b(rng):
    layer = sg.nn.Dense(3, 2, activation=T.tanh, bias_init=sg.nn.init.normal(1.0), rng=rng)
    x, data = T.matrix("x"), rng.normal(size=(5, 3)).astype("float32")
    expected = np.tanh(data @ layer.w.get_value() + layer.b.get_value())
    np.testing.assert_allclose(value(layer(x), x, data), expected, rtol=1e-5)


def test_dense_without_bias_has_one_parameter():
    assert list(sg.nn.Dense(3, 2, bias=False).params()) == ["w"]


@pytest.mark.parametrize("stride, padding, dilation, groups", [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1)])
def test_conv_is_its_definition(rng, stride, padding, dilation, groups):
    layer = sg.nn.Conv2D(4, 6, (3, 2), stride=stride, padding=padding, dilation=dilation, groups=groups,
                         bias_init=sg.nn.init.normal(1.0), rng=rng)
    data = rng.normal(size=(2, 4, 9, 8)).astype("float32")
    x = T.tensor("x", data.shape)
    expected = plain_conv(data, layer.w.get_value(), layer.b.get_value(), stride, padding, dilation, groups)
    np.testing.assert_allclose(value(layer(x), x, data), expected, rtol=1e-4, atol=1e-5)


def test_conv_rejects_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="groups=3"):
        sg.nn.Conv2D(4, 6, 3, groups=3)


def test_pools_flatten_and_embedding(rng):
    data = rng.normal(size=(2, 3, 4, 6)).astype("float32")
    x = T.tensor("x", ("n", 3, 4, 6))
    windows = data.reshape(2, 3, 2, 2, 3, 2)
    np.testing.assert_array_equal(value(sg.nn.MaxPool2D(2)(x), x, data), windows.max(axis=(3, 5)))
    np.testing.assert_allclose(value(sg.nn.AvgPool2D(2)(x), x, data), windows.mean(axis=(3, 5)), rtol=1e-5)
    means = value(sg.nn.GlobalAvgPool()(x), x, data)
    np.testing.assert_allclose(means, data.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(value(sg.nn.Flatten()(x), x, data), data.reshape(2, 72))
    table, index = sg.nn.Embedding(7, 4, rng=rng), T.matrix("index", dtype="int64")
    places = rng.integers(0, 7, size=(2, 5))
    np.testing.assert_array_equal(value(table(index), index, places), table.w.get_value()[places])


def test_layer_norm_normalises_the_last_axes(rng):
    layer, data = sg.nn.LayerNorm(6), rng.normal(2, 3, size=(4, 6)).astype("float32")
    layer.gamma.set_value(np.arange(6, dtype="float32"))
    x = T.matrix("x", shape=(4, 6))
    scaled = (data - data.mean(1, keepdims=True)) / np.sqrt(data.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(value(layer(x), x, data), scaled * np.arange(6), rtol=1e-4, atol=1e-5)


def test_residual_adds_its_input(rng):
    layer = sg.nn.Residual(sg.nn.Dense(3, 3, rng=rng), activation=T.relu)
    x, data = T.matrix("x"), rng.normal(size=(2, 3)).astype("float32")
    expected = np.maximum(data @ layer.body.w.get_value() + data, 0)
    np.testing.assert_allclose(value(layer(x), x, data), expected, rtol=1e-5, atol=1e-6)


def test_activation_layers_are_their_functions(rng):
    data = rng.normal(size=(3, 4)).astype("float32")
    x = T.matrix("x")
    exp = np.exp(data)
    expected = {sg.nn.ReLU(): np.maximum(data, 0), sg.nn.LeakyReLU(0.2): np.where(data > 0, data, 0.2 * data),
                sg.nn.ELU(): np.where(data > 0, data, exp - 1), sg.nn.SiLU(): data / (1 + 1 / exp),
                sg.nn.Tanh(): np.tanh(data), sg.nn.Sigmoid(): exp / (1 + exp),
                sg.nn.Softplus(): np.log1p(exp),
                sg.nn.Softmax(): exp / exp.sum(-1, keepdims=True)}
    for layer, y in expected.items():
        np.testing.assert_allclose(value(layer(x), x, data), y, rtol=1e-5, atol=1e-6, err_msg=layer.label)


# batch norm and training mode

def test_batch_norm_uses_the_batch_in_training_and_averages_otherwise(rng):
    layer, data = sg.nn.BatchNorm(3), rng.normal(2, 3, size=(8, 3, 2, 2)).astype("float32")
    x = T.tensor("x", data.shape)
    mean, var = data.mean((0, 2, 3)), data.var((0, 2, 3))
    step = sg.function([x], layer(x, training=True), updates=layer.updates(), **CHOSEN)
    per_channel = lambda v: v[:, None, None]
    normalised = (data - per_channel(mean)) / per_channel(np.sqrt(var + 1e-5))
    np.testing.assert_allclose(step(data), normalised, rtol=1e-4, atol=1e-5)
    running_mean, running_var = 0.1 * mean, 0.9 + 0.1 * var * 32 / 31         # 32 values per channel
    np.testing.assert_allclose(layer.running_mean.get_value(), running_mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.get_value(), running_var, rtol=1e-5)
    expected = (data - per_channel(running_mean)) / per_channel(np.sqrt(running_var + 1e-5))
    np.testing.assert_allclose(value(layer(x), x, data), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_of_unknown_batch_size(rng):
    layer, data = sg.nn.BatchNorm(3), rng.normal(size=(5, 3)).astype("float32")
    x = T.matrix("x", shape=(None, 3))
    sg.function([x], layer(x, training=True), updates=sg.nn.updates(layer), **CHOSEN)(data)
    np.testing.assert_allclose(layer.running_var.get_value(), 0.9 + 0.1 * data.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_gradient_flows_through_the_statistics(rng):
    layer, data = sg.nn.BatchNorm(2), rng.normal(size=(4, 2)).astype("float32")
    x = T.matrix("x", shape=(4, 2))
    slope = sg.grad(T.sum(layer(x, training=True)), x)                         # the sum is 0 whatever x is
    np.testing.assert_allclose(value(slope, x, data), np.zeros((4, 2)), atol=1e-5)


def test_updates_of_a_model_that_never_trained_raise():
    with pytest.raises(ValueError, match="training mode"):
        sg.nn.Sequential([sg.nn.Dense(2, 2), sg.nn.BatchNorm(2)]).updates()
    assert sg.nn.updates(sg.nn.Dense(2, 2)) == {}


class Mode(sg.nn.Layer):
    def forward(self, x):
        return x + float(sg.nn.training())


def test_training_mode_nests_and_ends(rng):
    x = T.vector("x")
    deep = sg.nn.Sequential([sg.nn.Residual(Mode(), shortcut=lambda x: 0 * x)])
    at = lambda y: float(value(y, x, np.zeros(1, "float32"))[0])
    assert at(deep(x)) == 0 and at(deep(x, training=True)) == 1
    with sg.nn.train_mode(True):
        assert at(deep(x)) == 1 and at(deep(x, training=False)) == 0
    assert at(deep(x)) == 0
    sg.nn.train_mode(True)
    try:
        assert at(deep(x)) == 1
    finally:
        sg.nn.train_mode(False)


# names, sharing, files

def small_net(rng=None):
    return sg.nn.Sequential([
        sg.nn.Conv2D(1, 2, 3, name="stem", rng=rng), sg.nn.BatchNorm(2), sg.nn.ReLU(), T.tanh, sg.nn.ReLU(),
        sg.nn.Residual(sg.nn.Conv2D(2, 2, 1, bias=False, rng=rng)),
        sg.nn.Flatten(), sg.nn.Dense(8, 3, rng=rng),
    ], name="net")


def test_parameter_names_follow_the_structure():
    net = small_net()
    assert list(net.params()) == ["stem.w", "stem.b", "batchnorm1.gamma", "batchnorm1.beta",
                                  "residual5.body.w", "dense7.w", "dense7.b"]
    assert set(net.state()) - set(net.params()) == {"batchnorm1.running_mean", "batchnorm1.running_var"}
    assert sg.nn.count(net) == 18 + 2 + 4 + 4 + 24 + 3


def test_names_must_differ():
    with pytest.raises(ValueError, match="two layers named 'a'"):
        sg.nn.Sequential([sg.nn.Dense(2, 2, name="a"), sg.nn.Dense(2, 2, name="a")])


def test_a_layer_used_twice_shares_its_weights(rng):
    dense = sg.nn.Dense(2, 2, bias=False, rng=rng)
    net, x = sg.nn.Sequential([dense, dense]), T.matrix("x")
    assert list(net.params()) == ["dense0.w"]
    data = rng.normal(size=(1, 2)).astype("float32")
    w = dense.w.get_value()
    expected = data.T @ (np.ones((1, 2)) @ w.T) + (data @ w).T @ np.ones((1, 2))
    slope = value(sg.grad(T.sum(net(x)), dense.w), x, data)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)


def test_layers_open_scopes_that_overrides_can_name(rng):
    net, x = small_net(rng), T.tensor("x", (1, 1, 4, 4))
    net2 = sg.nn.Sequential([net, sg.nn.ReLU(name="last")], name="outer")
    stopped = lambda scope: sg.Overrides([(sg.on(T.relu) & sg.within(scope), lambda g, y, x: g * 0)])
    data = rng.normal(size=(1, 1, 4, 4)).astype("float32")
    for scope in ("outer/net/relu2*", "outer/last*"):
        heat = sg.grad(T.sum(net2(x)), x, overrides=stopped(scope))
        assert not value(heat, x, data).any()
    with pytest.raises(sg.UnusedOverrideError):
        sg.grad(T.sum(net2(x)), x, overrides=stopped("net/relu7*"))


def test_own_layers_find_their_parts():
    class Two(sg.nn.Layer):
        def __init__(self):
            self.scale = sg.shared(np.float32(2))
            self.shifts = [sg.shared(np.float32(0)), sg.shared(np.float32(1))]
            self.parts = [sg.nn.Dense(2, 2, bias=False), sg.nn.Dense(2, 2, bias=False)]
            self.heads = {"left": sg.nn.Dense(2, 1, bias=False)}

        def forward(self, x):
            return self.scale * self.heads["left"](self.parts[1](self.parts[0](x)))

    assert list(Two().params()) == ["scale", "shifts0", "shifts1", "parts0.w", "parts1.w", "left.w"]


def test_layers_print_what_was_chosen():
    net = sg.nn.Sequential([sg.nn.Conv2D(1, 2, 3, padding=1, name="stem"), T.relu,
                            sg.nn.Residual(sg.nn.Sequential([sg.nn.Dense(2, 2)]))], name="net")
    assert repr(net) == ("Sequential net\n  stem: Conv2D(1, 2, 3, padding=1, name='stem')\n  relu\n"
                         "  residual2: Residual(Sequential\n    dense0: Dense(2, 2))")


def test_frozen_layers_cannot_be_changed():
    with pytest.raises(AttributeError):
        sg.nn.Dense(2, 2).activation = T.relu


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_save_and_load_keep_every_value(tmp_path, suffix):
    net, other = small_net(), small_net()
    net.layers[1].running_mean.set_value(np.array([3, 4], "float32"))
    sg.nn.save(net, tmp_path / f"net{suffix}")
    assert sg.nn.load(other, tmp_path / f"net{suffix}") is other
    for name, shared in net.state().items():
        np.testing.assert_array_equal(other.state()[name].get_value(), shared.get_value())


def test_load_lists_what_differs_and_changes_nothing(tmp_path):
    sg.nn.save(sg.nn.Dense(3, 2, bias=False), tmp_path / "dense.npz")
    dense = sg.nn.Dense(2, 2)
    before = dense.w.get_value()
    differences = r"b: not in the file\n.*w: the model has \(2, 2\), the file \(3, 2\)"
    with pytest.raises(sg.ShapeError, match=differences):
        sg.nn.load(dense, tmp_path / "dense.npz")
    np.testing.assert_array_equal(dense.w.get_value(), before)


ARRAYS = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.array(3, "int64"),
          "c": np.zeros((0, 2), "bool")}


def test_own_safetensors_format_round_trips_and_notices_damage():
    data = safetensors_file.encode(ARRAYS)
    for name, array in safetensors_file.decode(data, "file").items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
    with pytest.raises(ValueError, match="cut off"):
        safetensors_file.decode(data[:20], "file")
    with pytest.raises(ValueError, match="do not hold"):
        safetensors_file.decode(data[:-5], "file")


def test_own_safetensors_format_is_the_package_s():
    package = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    for name, array in package.load(safetensors_file.encode(ARRAYS)).items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
    for name, array in safetensors_file.decode(package.save(ARRAYS), "file").items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


def test_layers_pickle_with_their_sharing():
    dense = sg.nn.Dense(2, 2)
    net = sg.nn.Sequential([dense, sg.nn.BatchNorm(2), dense])
    net(T.matrix("x"), training=True)
    copy = pickle.loads(pickle.dumps(net))
    assert list(copy.params()) == list(net.params())
    np.testing.assert_array_equal(copy.layers[2].w.get_value(), dense.w.get_value())


# initialisers

@pytest.mark.parametrize("init, variance", [
    ("he_normal", 2 / 300), ("he_uniform", 2 / 300), ("glorot_normal", 2 / 500), ("glorot_uniform", 2 / 500),
    ("lecun_normal", 1 / 300)])
def test_initialisers_have_their_variance(init, variance, rng):
    w = sg.nn.Dense(300, 200, init=getattr(sg.nn.init, init), rng=rng).w.get_value()
    assert abs(w.var() / variance - 1) < 0.03          # 60,000 values: three standard errors are about 2 %
    assert abs(w.mean()) < 4 * np.sqrt(variance / w.size)


def test_orthogonal_rows_are_orthonormal(rng):
    w = sg.nn.init.orthogonal((4, 2, 3), 6, 4, rng).reshape(4, 6)
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-12)


def test_seed_repeats_the_common_generator():
    sg.nn.seed(3)
    first = sg.nn.Dense(4, 4).w.get_value()
    sg.nn.seed(3)
    np.testing.assert_array_equal(sg.nn.Dense(4, 4).w.get_value(), first)


# optimisers: five steps of each, with gradients that are given

def numpy_sgd(p, g, t, s, lr):
    return p - lr * g


def numpy_momentum(p, g, t, s, lr):
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - lr * s["v"]


def numpy_nesterov(p, g, t, s, lr):
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - lr * (g + 0.9 * s["v"])


def numpy_adagrad(p, g, t, s, lr):
    s["n"] = s.get("n", 0) + g**2
    return p - lr * g / (np.sqrt(s["n"]) + 1e-10)


def numpy_rmsprop(p, g, t, s, lr):
    s["n"] = 0.99 * s.get("n", 0) + 0.01 * g**2
    return p - lr * g / (np.sqrt(s["n"]) + 1e-8)


def numpy_adadelta(p, g, t, s, lr):
    s["n"] = 0.9 * s.get("n", 0) + 0.1 * g**2
    d = np.sqrt(s.get("u", 0) + 1e-6) / np.sqrt(s["n"] + 1e-6) * g
    s["u"] = 0.9 * s.get("u", 0) + 0.1 * d**2
    return p - lr * d


def numpy_adam(p, g, t, s, lr, decay=0.0, largest=False):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["n"] = 0.999 * s.get("n", 0) + 0.001 * g**2
    s["top"] = np.maximum(s.get("top", 0), s["n"]) if largest else s["n"]
    m, n = s["m"] / (1 - 0.9**t), s["top"] / (1 - 0.999**t)
    return p * (1 - lr * decay) - lr * m / (np.sqrt(n) + 1e-8)


def numpy_adamw(p, g, t, s, lr):
    return numpy_adam(p, g, t, s, lr, decay=0.01)


def numpy_amsgrad(p, g, t, s, lr):
    return numpy_adam(p, g, t, s, lr, largest=True)


def numpy_adamax(p, g, t, s, lr):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["u"] = np.maximum(0.999 * s.get("u", 0), np.abs(g) + 1e-8)
    return p - lr / (1 - 0.9**t) * s["m"] / s["u"]


OPTIMISERS = {"sgd": 0.1, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.1, "rmsprop": 0.02, "adadelta": 0.5,
              "adam": 0.05, "adamw": 0.05, "amsgrad": 0.05, "adamax": 0.05}


def five_steps(name, lr, start, gradients):
    """The parameter after each of the steps."""
    p, g = sg.shared(start), T.matrix("g")
    step = sg.function([g], None, updates=getattr(sg.optim, name)([g], [p], lr=lr), **CHOSEN)
    points = []
    for gradient in gradients:
        step(gradient)
        points.append(p.get_value())
    return points


@pytest.fixture
def walk(rng):
    start = rng.normal(size=(2, 3)).astype("float32")
    scales = np.array([1, 1, 3, 0.1, 0.1])[:, None, None]           # falling: AMSGrad then differs from Adam
    return start, list((rng.normal(size=(5, 2, 3)) * scales).astype("float32"))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_is_its_formula(name, walk):
    start, gradients = walk
    p, state = start.astype("float64"), {}
    for t, (g, found) in enumerate(zip(gradients, five_steps(name, OPTIMISERS[name], start, gradients)), 1):
        p = globals()[f"numpy_{name}"](p, g.astype("float64"), t, state, OPTIMISERS[name])
        np.testing.assert_allclose(found, p, rtol=1e-5, atol=1e-6)
        assert found.dtype == np.float32


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_is_torch_s(name, walk):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    start, gradients = walk
    cls, extra = {"sgd": ("SGD", {}), "momentum": ("SGD", dict(momentum=0.9)),
                  "nesterov": ("SGD", dict(momentum=0.9, nesterov=True)), "rmsprop": ("RMSprop", {}),
                  "amsgrad": ("Adam", dict(amsgrad=True)),
                  "adamw": ("AdamW", {})}.get(name, (name.capitalize(), {}))
    p = torch.tensor(start, requires_grad=True)
    optimiser = getattr(torch.optim, cls)([p], lr=OPTIMISERS[name], **extra)
    for g, found in zip(gradients, five_steps(name, OPTIMISERS[name], start, gradients)):
        p.grad = torch.tensor(g)
        optimiser.step()
        np.testing.assert_allclose(found, p.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_optimisers_take_a_loss_and_a_dict_of_params(rng):
    layer, x = sg.nn.Dense(3, 1, rng=rng), T.matrix("x")
    data = rng.normal(size=(4, 3)).astype("float32")
    w = layer.w.get_value()
    sg.function([x], None, updates=sg.optim.sgd(T.sum(layer(x)), layer.params(), lr=0.5), **CHOSEN)(data)
    np.testing.assert_allclose(layer.w.get_value(), w - 0.5 * data.sum(0)[:, None], rtol=1e-5, atol=1e-6)


def test_learning_rate_may_be_shared():
    rate, p = sg.shared(np.float32(0.5)), sg.shared(np.ones(2, "float32"))
    updates = sg.optim.sgd([T.constant(np.ones(2, "float32"))], [p], lr=rate)
    step = sg.function([], None, updates=updates, **CHOSEN)
    step()
    rate.set_value(np.float32(0.25))
    step()
    np.testing.assert_array_equal(p.get_value(), [0.25, 0.25])


def test_params_that_are_names_are_refused():
    with pytest.raises(TypeError, match="shared variables"):
        sg.optim.sgd(T.scalar("loss"), list(sg.nn.Dense(2, 2).params()))


@pytest.mark.parametrize("limit", [1.0, 100.0])
def test_clip_by_norm_limits_the_norm_of_all(limit, rng):
    a, b = rng.normal(size=(3, 4)).astype("float32"), rng.normal(size=5).astype("float32")
    norm = np.sqrt((a**2).sum() + (b**2).sum())
    x, y = T.matrix("x"), T.vector("y")
    clipped, found = sg.optim.clip_by_norm([x, y], limit, return_norm=True)
    outputs = value([*clipped, found], x, a, y, b)
    for output, expected in zip(outputs, [a * min(1, limit / norm), b * min(1, limit / norm), norm]):
        np.testing.assert_allclose(output, expected, rtol=1e-5)


SCHEDULES = {
    "exponential": (sg.optim.exponential_decay(0.5, 0.9, every=2), lambda t: 0.5 * 0.9 ** (t / 2)),
    "step": (sg.optim.step_decay(0.5, 0.1, every=3), lambda t: 0.5 * 0.1 ** (t // 3)),
    "linear": (sg.optim.linear_decay(0.5, steps=4, end=0.1), lambda t: max(0.5 - 0.1 * t, 0.1)),
    "cosine": (sg.optim.cosine_decay(0.5, steps=4), lambda t: 0.25 * (1 + np.cos(np.pi * min(t, 4) / 4))),
    "warmup": (sg.optim.warmup(0.5, steps=3), lambda t: 0.5 * min((t + 1) / 3, 1)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_its_formula(name):
    schedule, formula = SCHEDULES[name]
    p = sg.shared(np.float32(0))
    updates = sg.optim.sgd([T.constant(np.float32(-1))], [p], lr=schedule)
    step = sg.function([], None, updates=updates, **CHOSEN)
    for t in range(7):
        before = p.get_value()
        step()
        np.testing.assert_allclose(p.get_value() - before, formula(t), rtol=1e-4, atol=1e-6)


# losses

@pytest.fixture
def scores(rng):
    return rng.normal(size=(6, 4)).astype("float32"), rng.integers(0, 4, size=6)


def log_softmax(x, axis=-1):
    x = x.astype("float64") - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def test_cross_entropy_of_labels_and_of_probabilities(scores):
    logits, labels = scores
    x, k, p = T.matrix("x"), T.vector("k", dtype="int64"), T.matrix("p")
    expected = -log_softmax(logits)[np.arange(6), labels]
    found = value(sg.losses.cross_entropy(x, k, reduction="none"), x, logits, k, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    rows = np.eye(4, dtype="float32")[labels]
    found = value(sg.losses.cross_entropy(x, p), x, logits, p, rows)
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(value(sg.losses.cross_entropy(x, k, reduction="sum"), x, logits, k, labels),
                               expected.sum(), rtol=1e-5)


def test_cross_entropy_gradient_is_softmax_minus_one_hot(scores):
    logits, labels = scores
    x, k = T.matrix("x"), T.vector("k", dtype="int64")
    slope = sg.grad(sg.losses.cross_entropy(x, k), x)
    expected = (np.exp(log_softmax(logits)) - np.eye(4)[labels]) / 6
    np.testing.assert_allclose(value(slope, x, logits, k, labels), expected, rtol=1e-4, atol=1e-6)


def test_cross_entropy_along_another_axis(rng):
    logits, labels = rng.normal(size=(2, 4, 3)).astype("float32"), rng.integers(0, 4, size=(2, 3))
    x, k = T.tensor3("x"), T.matrix("k", dtype="int64")
    expected = -np.take_along_axis(log_softmax(logits, 1), labels[:, None], axis=1)[:, 0]
    found = value(sg.losses.cross_entropy(x, k, axis=1, reduction="none"), x, logits, k, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cross_entropy_of_huge_logits_is_finite_and_of_wrong_labels_nan():
    x, k = T.matrix("x"), T.vector("k", dtype="int64")
    loss = sg.losses.cross_entropy(x, k, reduction="none")
    found = value(loss, x, np.array([[1e30, 0], [0, 0]], "float32"), k, np.array([0, 2]))
    assert found[0] == 0 and np.isnan(found[1])


def test_binary_cross_entropy_with_and_without_logits(rng):
    logits = np.array([-2, 0.5, 3, 80, -80], "float32")
    targets = np.array([0, 1, 0, 1, 0], "float32")
    x, t = T.vector("x"), T.vector("t")
    log1pexp = np.logaddexp(0, logits.astype("float64"))
    expected = log1pexp - logits * targets
    found = value(sg.losses.binary_cross_entropy_with_logits(x, t, reduction="none"), x, logits, t, targets)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-30)
    p = np.array([0.1, 0.9, 0.0, 1.0], "float32")
    t_value = np.array([0, 1, 1, 0], "float32")
    found = value(sg.losses.binary_cross_entropy(x, t, reduction="none"), x, p, t, t_value)
    np.testing.assert_allclose(found, [-np.log(0.9), -np.log(0.9), 100, 100], rtol=1e-5)
    slope = value(sg.grad(sg.losses.binary_cross_entropy(x, t), x), x, p, t, t_value)
    assert np.isfinite(slope).all()


ERRORS = np.array([-3, -0.5, 0, 0.5, 3.0])
TARGETS = np.array([1, -1, 1, -1, 1.0])


@pytest.mark.parametrize("name, expected", [
    ("mse", ERRORS**2), ("mae", np.abs(ERRORS)),
    ("huber", np.where(np.abs(ERRORS) < 1, ERRORS**2 / 2, np.abs(ERRORS) - 0.5)),
    ("hinge", np.maximum(0, 1 - TARGETS * (ERRORS + TARGETS)))])
def test_regression_losses(name, expected):
    x, t = T.vector("x"), T.vector("t")
    loss = getattr(sg.losses, name)
    arrays = x, (ERRORS + TARGETS).astype("float32"), t, TARGETS.astype("float32")
    np.testing.assert_allclose(value(loss(x, t, reduction="none"), *arrays), expected, rtol=1e-5)
    np.testing.assert_allclose(value(loss(x, t), *arrays), expected.mean(), rtol=1e-5)


def test_kl_div_counts_zero_probability_as_zero():
    q, p = np.array([[0.5, 0.25, 0.25]], "float32"), np.array([[0.5, 0.5, 0]], "float32")
    x, t = T.matrix("x"), T.matrix("t")
    loss = sg.losses.kl_div(x, t, reduction="batchmean")
    np.testing.assert_allclose(value(loss, x, np.log(q), t, p), 0.5 * np.log(2), rtol=1e-5)


def test_losses_of_unlike_ranks_are_refused():
    with pytest.raises(ValueError, match="axes"):
        sg.losses.mse(T.matrix("x"), T.vector("t"))
    with pytest.raises(ValueError, match="labels"):
        sg.losses.cross_entropy(T.matrix("x"), T.matrix("k", dtype="int64"))
    with pytest.raises(ValueError, match="reduction"):
        sg.losses.mse(T.vector("x"), T.vector("t"), reduction="avg")


# everything together

def trained(backend, optimiser):
    """The state of a small network, by name, after three training steps, and the losses on the way."""
    rng, data = np.random.default_rng(1), np.random.default_rng(2)
    # no bias before batch norm, which takes it away: its gradient is rounding noise that Adam makes steps of
    net = sg.nn.Sequential([sg.nn.Conv2D(1, 4, 3, bias=False, rng=rng), sg.nn.BatchNorm(4), sg.nn.ReLU(),
                            sg.nn.MaxPool2D(2), sg.nn.Flatten(), sg.nn.Dense(4, 3, rng=rng)])
    x, k = T.tensor("x", (4, 1, 4, 4)), T.tensor("k", (4,), dtype="int64")
    loss = sg.losses.cross_entropy(net(x, training=True), k)
    updates = {**optimiser(loss, net.params(), lr=0.01), **net.updates()}
    step = sg.function([x, k], loss, updates=updates, backend=backend)
    images, labels = data.normal(size=(4, 1, 4, 4)).astype("float32"), np.array([0, 1, 2, 1])
    losses = [float(step(images, labels)) for _ in range(3)]
    return {name: shared.get_value() for name, shared in net.state().items()}, losses


@pytest.mark.parametrize("optimiser", [sg.optim.nesterov, sg.optim.adamw])
def test_training_on_the_cpu_backend_is_training_on_the_reference(optimiser):
    (state, losses), (expected, expected_losses) = trained("cpu", optimiser), trained("reference", optimiser)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    assert losses[2] < losses[0]
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
