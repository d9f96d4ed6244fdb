"""What is timed: each workload is written once, in terms of what a library offers.

A workload draws its arrays and hands a function to the library, whose `gradients`, `descent`, `guided` or `compiled` make a `Run`
of it. In the function, `m` is the library: NumPy's and neural operations by their usual names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")
CLASS = 3


@dataclass(frozen=True)
class Run:
    """What is timed: `call()` is done when it returns. `outputs(result)` of the first call are NumPy arrays to compare."""

    call: Callable[[], Any]
    outputs: Callable[[Any], list[np.ndarray]]


@dataclass(frozen=True)
class Case:
    """A workload at a size: `build(library, **sizes)` is a Run, `small` are sizes for tests."""

    name: str
    computes: str
    build: Callable[..., Run]
    sizes: dict[str, Any] = field(default_factory=dict)
    small: dict[str, Any] = field(default_factory=dict)
    random: bool = False                # results differ from call to call and between libraries
    beside: str = ""                    # the case whose time it is compared with: the two take turns


class Draw:
    """Arrays from one seed: float32, normal, weights scaled to keep the size of what they multiply."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(2026)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        array = self.rng.standard_normal(shape, np.float32)
        array *= np.float32(scale)              # in place: the peak of memory should be the library's
        return array

    def dense(self, *sizes: int) -> list[np.ndarray]:
        """[weight, bias, weight, bias, ...] of layers between these sizes."""
        return [a for m, n in zip(sizes, sizes[1:]) for a in (self.normal(m, n, scale=(2 / m) ** 0.5), self.normal(n, scale=0.01))]

    def conv(self, c_in: int, c_out: int, kernel: int) -> list[np.ndarray]:
        return [self.normal(c_out, c_in, kernel, kernel, scale=(2 / (c_in * kernel * kernel)) ** 0.5), self.normal(c_out, scale=0.01)]

    def labels(self, *shape: int, classes: int) -> np.ndarray:
        return self.rng.integers(0, classes, shape)


def layers(m: Any, p: Any, h: Any, relu: Any = None) -> Any:
    """Dense layers [w, b, w, b, ...] with ReLUs between them."""
    for k in range(0, len(p), 2):
        h = h @ p[k] + p[k + 1]
        if k + 2 < len(p):
            h = (relu or m.relu)(h)
    return h


# ------------------------------------------------------------------------------------------------ small and elementwise
def call(m: Any, n: int = 8) -> Run:
    draw = Draw()

    def cost(p: Any) -> Any:
        a, x, b = p
        y = a * x + b
        return (y * y).sum(), [y]
    return m.gradients(cost, [draw.normal(n) for _ in range(3)])


def chain(m: Any, n: int = 1_000_000) -> Run:
    def cost(p: Any) -> Any:
        x, a, b = p
        q = x * x
        y = m.tanh(a * x + b) * m.sigmoid(x) + m.exp(-q) * m.sqrt(q + 1) - m.log1p(q)
        value = (y * y).mean()
        return value, [value]
    return m.gradients(cost, [Draw().normal(n), np.array(0.7, "f"), np.array(-0.2, "f")])


def mask(m: Any, n: int = 1_000_000) -> Run:
    draw = Draw()

    def cost(p: Any, w: Any) -> Any:
        y = p[0] * m.bernoulli(n) * w
        return (y * y).sum() / 2, [y]
    return m.gradients(cost, [draw.normal(n)], [draw.normal(n)], draws=True)


# ------------------------------------------------------------------------------------------------------------- training
def mlp(m: Any, sizes: tuple[int, ...] = (784, 512, 512, 10), batch: int = 128) -> Run:
    draw = Draw()
    data = [draw.normal(batch, sizes[0]), draw.labels(batch, classes=sizes[-1])]
    return m.descent(lambda p, x, y: m.cross_entropy(layers(m, p, x), y), draw.dense(*sizes), data, rate=0.01)


def gated(m: Any, batch: int, second: bool, side: int = 32) -> Run:
    """Two small convolutional circuits that a gate each can close; the dense layers read both."""
    draw, end = Draw(), ((side - 4) // 2 - 4) // 2
    params = [a for _ in range(2) for a in (*draw.conv(3, 6, 5), *draw.conv(6, 16, 5))] + draw.dense(32 * end * end, 120, 84, 10)

    def circuit(p: Any, x: Any) -> Any:
        h = m.max_pool2d(m.relu(m.conv2d(x, p[0], p[1])))
        return m.max_pool2d(m.relu(m.conv2d(h, p[2], p[3])))

    def cost(p: Any, x: Any, y: Any, *gates: Any) -> Any:
        parts = [m.choose(gate, circuit, p[4 * k:4 * k + 4], x, (batch, 16, end, end)) for k, gate in enumerate(gates)]
        return m.cross_entropy(layers(m, p[8:], m.concatenate(parts, 1).reshape((batch, 32 * end * end))), y)
    data = [draw.normal(batch, 3, side, side), draw.labels(batch, classes=10), np.array(True), np.array(second)]
    return m.descent(cost, params, data, rate=1e-3)


def recurrent(m: Any, kind: str, steps: int = 100, batch: int = 32, inputs: int = 64, width: int = 128) -> Run:
    draw, wide = Draw(), width * (4 if kind == "lstm" else 1)
    params = [draw.normal(inputs, wide, scale=inputs ** -0.5), draw.normal(width, wide, scale=0.7 * width ** -0.5), draw.normal(wide, scale=0.1)]

    def rnn(x: Any, h: Any, wx: Any, wh: Any, b: Any) -> Any:
        return (m.tanh(x @ wx + h @ wh + b),)

    def lstm(x: Any, h: Any, c: Any, wx: Any, wh: Any, b: Any) -> Any:
        z = x @ wx + h @ wh + b
        i, f, g, o = (z[:, k * width:(k + 1) * width] for k in range(4))
        c = m.sigmoid(f) * c + m.sigmoid(i) * m.tanh(g)
        return m.sigmoid(o) * m.tanh(c), c

    def cost(p: Any, xs: Any, target: Any) -> Any:
        last = m.scan(lstm if kind == "lstm" else rnn, xs, [(batch, width)] * (2 if kind == "lstm" else 1), p)
        value = ((last - target) ** 2).mean()
        return value, [value]
    return m.gradients(cost, params, [draw.normal(steps, batch, inputs), draw.normal(batch, width, scale=0.5)])


def attention(m: Any, batch: int = 4, length: int = 128, width: int = 256, heads: int = 4, words: int = 64) -> Run:
    """A transformer block, a classifier of every position, cross-entropy: value and gradients."""
    draw, each = Draw(), width // heads
    norm = [np.ones(width, "f"), np.zeros(width, "f")]
    params = [*norm, *draw.dense(width, 3 * width), *draw.dense(width, width), *norm, *draw.dense(width, 4 * width, width), *norm,
              *draw.dense(width, words)]

    def cost(p: Any, x: Any, y: Any) -> Any:
        z = m.layer_norm(x, p[0], p[1]) @ p[2] + p[3]
        q, k, v = (m.transpose(z[:, :, j * width:(j + 1) * width].reshape((batch, length, heads, each)), (0, 2, 1, 3)) for j in range(3))
        weights = m.softmax(q @ m.transpose(k, (0, 1, 3, 2)) * each ** -0.5)
        x = x + m.transpose(weights @ v, (0, 2, 1, 3)).reshape((batch, length, width)) @ p[4] + p[5]
        x = x + layers(m, p[8:12], m.layer_norm(x, p[6], p[7]))
        logits = m.layer_norm(x, p[12], p[13]) @ p[14] + p[15]
        value = m.cross_entropy(logits.reshape((batch * length, words)), y)
        return value, [value]
    return m.gradients(cost, params, [draw.normal(batch, length, width), draw.labels(batch * length, classes=words)])


# ------------------------------------------------------------------------------------------------- saliency and Jacobians
def vgg(m: Any, side: int, batch: int, dense: tuple[int, ...], stack: tuple = VGG16, plain: bool = False) -> Run:
    """From one logit back to the image, every ReLU by the guided rule g * (x > 0) * (g > 0)."""
    draw, channels, params = Draw(), 3, []
    for item in stack:
        if item != "pool":
            params += draw.conv(channels, item, 3)
            channels = item
    width = channels * (side >> stack.count("pool")) ** 2
    convolutions, params = len(params), params + draw.dense(width, *dense)

    def score(p: Any, x: Any, relu: Any) -> Any:
        k = 0
        for item in stack:
            if item == "pool":
                x = m.max_pool2d(x)
            else:
                x, k = relu(m.conv2d(x, p[k], p[k + 1], 1)), k + 2
        return layers(m, p[convolutions:], x.reshape((batch, width)), relu)[:, CLASS].sum()
    return m.guided(score, params, draw.normal(batch, 3, side, side), plain)


def jacobian(m: Any, length: int = 20, channels: int = 32, results: int = 64) -> Run:
    """A network of two one-dimensional convolutions, as products of shifted rows: its results by its input."""
    draw = Draw()
    w0, w1 = (draw.normal(3 * channels, channels, scale=0.14) for _ in range(2))
    b0, b1 = (draw.normal(channels, scale=0.01) for _ in range(2))
    params = [w0, b0, w1, b1, *draw.dense((length - 4) * channels, results)]

    def rows(h: Any, n: int) -> Any:
        return m.concatenate([h[0:n], h[1:n + 1], h[2:n + 2]], 1)

    def both(p: Any, x: Any) -> Any:
        def network(x: Any) -> Any:
            h = m.relu(rows(m.relu(rows(x, length - 2) @ p[0] + p[1]), length - 4) @ p[2] + p[3])
            return h.reshape((-1,)) @ p[4] + p[5]
        return [m.jacobian(network, x)]
    return m.compiled(both, params, [draw.normal(length, channels)])


def split(m: Any, images: int = 3, side: int = 10, channels: int = 6) -> Run:
    """A model cut in three, to be trained by its Jacobians: of each layer by its input, or by its weights."""
    draw, end = Draw(), side - 2
    params = draw.conv(1, channels, 2) + draw.conv(channels, channels, 2) + draw.dense(channels * end * end, 1)

    def layer(x: Any, w: Any, b: Any) -> Any:
        return m.relu(m.conv2d(x, w, b))

    def four(p: Any, x: Any) -> Any:
        out0 = layer(x, p[0], p[1])
        out1 = layer(out0, p[2], p[3])
        last = lambda h: m.sigmoid(h.reshape((-1, channels * end * end)) @ p[4] + p[5])
        return [m.batch_jacobian(lambda h: layer(h, p[2], p[3]), out0), m.batch_jacobian(last, out1),
                m.jacobian(lambda w: layer(out0, w, p[3]), p[2]), m.jacobian(lambda w: layer(x, w, p[1]), p[0])]
    return m.compiled(four, params, [draw.normal(images, 1, side, side)])


def _gated(batch: int, second: bool) -> Case:
    name = f"gated{batch}{'' if second else ' off'}"
    return Case(name, f"training step of two convolutional circuits, batch {batch}, {'both on' if second else 'one off'}", gated,
                {"batch": batch, "second": second}, {"batch": 2, "second": second}, beside="" if second else f"gated{batch}")


_SMALL_VGG = {"side": 8, "batch": 2, "dense": (6, 5), "stack": (4, "pool", 5, "pool")}
_SMALL_LOOP = {"steps": 4, "batch": 2, "inputs": 3, "width": 4}

CASES = {case.name: case for case in (
    Case("call", "`a*x + b` of 8 numbers, three gradients: the cost of calling", call),
    Case("chain", "ten elementwise functions of 1M numbers, mean square, gradients", chain, {}, {"n": 50}),
    Case("mlp", "training step 784-512-512-10, batch 128", mlp, {}, {"sizes": (7, 6, 5), "batch": 4}),
    *(_gated(batch, second) for batch in (4, 128) for second in (True, False)),
    Case("vgg", "guided backpropagation through VGG-16, 224x224, batch 1", vgg, {"side": 224, "batch": 1, "dense": (4096, 4096, 1000)}, _SMALL_VGG),
    Case("vgg plain", "the same with the ordinary gradient", vgg, {"side": 224, "batch": 1, "dense": (4096, 4096, 1000), "plain": True},
         {**_SMALL_VGG, "plain": True}, beside="vgg"),
    Case("vgg32", "guided backpropagation through its shape at 32x32, batch 32", vgg, {"side": 32, "batch": 32, "dense": (512, 10)}, _SMALL_VGG),
    Case("rnn", "simple recurrence, 100 steps, value and gradients", recurrent, {"kind": "rnn"}, {"kind": "rnn", **_SMALL_LOOP}),
    Case("lstm", "LSTM, 100 steps, value and gradients", recurrent, {"kind": "lstm"}, {"kind": "lstm", **_SMALL_LOOP}),
    Case("jacobian", "Jacobian of 64 results of a small network", jacobian, {}, {"length": 8, "channels": 3, "results": 4}),
    Case("split", "four Jacobians of a network cut in three", split, {}, {"images": 2, "side": 6, "channels": 3}),
    Case("attention", "transformer block, 4 x 128 x 256, value and gradients", attention, {}, {"batch": 2, "length": 6, "width": 8, "heads": 2, "words": 5}),
    Case("mask", "random mask on 1M numbers, product and gradient", mask, {}, {"n": 50}, random=True),
)}
