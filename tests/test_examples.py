"""Every example runs; the ResNet's maps are also computed independently, in NumPy and in torch."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import symgrad as sg

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SYMGRAD_DATA", ROOT.parent / "shared" / "data"))
FILES = "cifar10_resnet32.npz", "cat.png"
needs_data = pytest.mark.skipif(not all((DATA / name).exists() for name in FILES),
                                reason="needs cifar10_resnet32.npz and cat.png where SYMGRAD_DATA says")


def example(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["guided_backprop", "custom_op", "custom_rule"])
def test_example_runs(name, capsys):
    example(name).main()
    assert capsys.readouterr().out


def test_guided_maps_of_sequences_are_numpy_s():
    module = example("guided_backprop")
    x, flag = sg.tensor.tensor("x", (64, 20, 32)), sg.tensor.scalar("flag", dtype="bool")
    maps = module.sequence_maps(module.GuidedReLU(), x, flag)
    data = np.random.default_rng(5).normal(size=(64, 20, 32)).astype("float32")
    f = sg.function([x, flag], [maps["scan"], maps["ifelse"]], backend="reference")
    rng = np.random.default_rng(0)
    w, u, v = (rng.normal(size=shape) / 6 for shape in ((32, 16), (16, 16), (16, 5)))
    sums, state = [], np.zeros((64, 16))
    for t in range(20):
        sums.append(data[:, t] @ w + state @ u)
        state = np.maximum(sums[-1], 0)

    def back(last):
        g, heat = last, np.zeros(data.shape)
        for t in range(19, -1, -1):
            g = g * (sums[t] > 0) * (g > 0)
            heat[:, t], g = g @ w.T, g @ u.T
        return heat

    start = np.broadcast_to(v[:, 0], (64, 16))
    scan, then = f(data, True)
    np.testing.assert_allclose(scan, back(start), atol=1e-5)
    np.testing.assert_allclose(then, back(start), atol=1e-5)
    slope = 1 - np.tanh(state @ v[:, :1]) ** 2
    np.testing.assert_allclose(f(data, False)[1], back(start * slope), atol=1e-5)


def test_gated_cnn_skips_the_closed_circuit(capsys):
    example("gated_cnn").main(["--steps", "3", "--batch", "4"])
    printed = capsys.readouterr().out
    assert "keeps its weights: True" in printed
    assert int(re.search(r"(\d+) kernels did not run", printed).group(1)) >= 8      # 2 convolutions and 2 pools, there and back


def test_split_models_agree_with_the_joined_one(capsys):
    example("split_models").main([])
    assert capsys.readouterr().out.count("valid: True") == 3


def test_mixture_of_experts_learns():
    pytest.importorskip("sklearn")
    assert example("mixture_of_experts").main([]) > 0.93


def test_char_rnn_learns_the_licence_and_writes(capsys):
    assert example("char_rnn").main(["--letters", "60"]) < 0.2
    *_, cool, warm = re.split(r"\n--- temperature .*\n", capsys.readouterr().out)
    letters = set((ROOT / "LICENSE").read_text())
    assert cool != warm and all(set(text.rstrip("\n")) <= letters and 55 <= len(text) <= 62 for text in (cool, warm))


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) < 90 for path in (ROOT / "examples").glob("*.py"))


@needs_data
def test_resnet_says_cat_and_saves_the_maps(tmp_path, capsys, monkeypatch):
    output = tmp_path / "maps.png"
    monkeypatch.setattr(sys, "argv", ["cifar_resnet.py", "--weights", str(DATA / "cifar10_resnet32.npz"),
                                      "--image", str(DATA / "cat.png"), "--output", str(output)])
    example("cifar_resnet").main()
    assert float(re.match(r"cat +(\d\.\d+)", capsys.readouterr().out)[1]) > 0.99
    assert sg.saliency.png.decode_png(output.read_bytes()).ndim == 3


RULES = {"gradient": lambda g, x: g * (x > 0),
         "guided_backprop": lambda g, x: g * (x > 0) * (g > 0),
         "deconvnet": lambda g, x: g * (g > 0)}


@needs_data
def test_resnet_maps_are_numpy_s():
    resnet = example("cifar_resnet")
    arrays = resnet.load_weights(DATA / "cifar10_resnet32.npz")
    value = resnet.prepared(sg.saliency.read_image(DATA / "cat.png"))
    result = resnet.build(arrays)(value)
    network = PlainResNet([array.astype("float64") for array in arrays])
    logits = network.forward(value[0].astype("float64"))
    probabilities = np.exp(logits - logits.max())
    np.testing.assert_allclose(result["probabilities"], probabilities / probabilities.sum(), atol=1e-5)
    for method, rule in RULES.items():
        expected = network.backward(int(np.argmax(logits)), rule)
        close(result[method][0], expected, method)


@needs_data
def test_resnet_maps_are_torch_s():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    resnet = example("cifar_resnet")
    arrays = resnet.load_weights(DATA / "cifar10_resnet32.npz")
    value = resnet.prepared(sg.saliency.read_image(DATA / "cat.png"))
    result = resnet.build(arrays)(value)
    for method, rule in RULES.items():
        expected = torch_map(torch, arrays, value, rule)
        close(result[method], expected, method)


def close(found, expected, what):
    """Equal to a ten-thousandth of the largest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=what)


class PlainResNet:
    """ResNet-32 on one image (3, 32, 32) in NumPy, with its own backward pass and a rule for ReLUs."""

    def __init__(self, arrays):
        self.arrays = arrays

    def forward(self, x):
        self.weights, self.tape = iter(self.arrays), []
        x = self.relu(self.conv_norm(x, 1))
        for stage in range(3):
            for block in range(5):
                stride = 2 if stage and not block else 1
                self.tape.append(("fork", stride))
                y = self.conv_norm(self.relu(self.conv_norm(x, stride)), 1)
                skipped = x if stride == 1 else np.pad(x[:, ::2, ::2], ((len(x) // 2,) * 2, (0, 0), (0, 0)))
                self.tape.append(("join", stride))
                x = self.relu(y + skipped)
        self.w, b = self.weights
        self.pixels = x.shape[1] * x.shape[2]
        return x.mean(axis=(1, 2)) @ self.w + b

    def backward(self, target, rule):
        """d logits[target] / d image. Walks the tape back; `skips` holds the cotangents of open shortcuts."""
        side = int(np.sqrt(self.pixels))
        g, skips = np.broadcast_to(self.w[:, target, None, None] / self.pixels, (64, side, side)), []
        for kind, *saved in reversed(self.tape):
            if kind == "relu":
                g = rule(g, saved[0])
            elif kind == "conv":
                g = self.conv_back(g, *saved)
            elif kind == "join":
                skips.append(g)
            elif kind == "fork":
                skip = skips.pop()
                if saved[0] == 2:
                    quarter = len(skip) // 4
                    g = g.copy()
                    g[:, ::2, ::2] += skip[quarter:-quarter]
                else:
                    g = g + skip
        return g

    def relu(self, x):
        self.tape.append(("relu", x))
        return np.maximum(x, 0)

    def conv_norm(self, x, stride):
        w, beta, gamma, mean, inverse_std = (next(self.weights) for _ in range(5))
        scale = (gamma * inverse_std)[:, None, None]
        self.tape.append(("conv", w, scale, stride, x.shape))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
        y = np.einsum("chwij,ocij->ohw", windows, w, optimize=True)
        return (y - mean[:, None, None]) * scale + beta[:, None, None]

    @staticmethod
    def conv_back(g, w, scale, stride, shape):
        g = g * scale
        padded = np.zeros((shape[0], shape[1] + 2, shape[2] + 2))
        height, width = g.shape[1:]
        for i in range(3):
            for j in range(3):
                part = padded[:, i:i + stride * height:stride, j:j + stride * width:stride]
                part += np.einsum("ohw,oc->chw", g, w[:, :, i, j], optimize=True)
        return padded[:, 1:-1, 1:-1]


def torch_map(torch, arrays, value, rule):
    """The map of the winning logit by torch's autograd, with the rule as a custom function for ReLUs."""
    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(context, g):
            return rule(g, *context.saved_tensors)

    functional, weights = torch.nn.functional, iter(torch.tensor(a) for a in arrays)

    def conv_norm(x, stride=1):
        w, beta, gamma, mean, inverse_std = (next(weights) for _ in range(5))
        y = functional.conv2d(x, w, stride=stride, padding=1)
        return (y - mean[:, None, None]) * (gamma * inverse_std)[:, None, None] + beta[:, None, None]

    image = torch.tensor(value, requires_grad=True)
    x = Relu.apply(conv_norm(image))
    for stage in range(3):
        for block in range(5):
            stride = 2 if stage and not block else 1
            y = conv_norm(Relu.apply(conv_norm(x, stride)))
            quarter = x.shape[1] // 2
            x = x if stride == 1 else functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            x = Relu.apply(y + x)
    w, b = weights
    (x.mean((2, 3)) @ w + b).max().backward()
    return image.grad.numpy()
