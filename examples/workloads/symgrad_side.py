"""The workloads of benchmark.py in symgrad: each function returns a call without arguments."""

import numpy as np

import symgrad as sg
import symgrad.tensor as T

VGG16 = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool"]


def normal(*shape, scale=1.0):
    return (scale * np.random.default_rng(0).normal(size=shape)).astype("float32")


def call():
    """y = a*x + b and three gradients, on 8 numbers."""
    a, x, b = (T.vector(name, shape=8) for name in "axb")
    y = a * x + b
    f = sg.function([a, x, b], [y, *sg.grad(T.sum(y * y), [a, x, b])])
    arrays = [normal(8) for _ in range(3)]
    return lambda: f(*arrays)


def chain():
    """An elementwise chain of 1M numbers: its mean square and the gradient to all of them."""
    x = T.vector("x", shape=1_000_000)
    q = x * x
    y = T.tanh(0.7 * x - 0.2) * T.sigmoid(x) + T.exp(-q) * T.sqrt(q + 1) - T.log1p(q)
    cost = T.mean(y * y)
    f, array = sg.function([x], [cost, sg.grad(cost, x)]), normal(1_000_000)
    return lambda: f(array)


def mlp():
    """One step of gradient descent, 784-512-512-10, batch 128."""
    sizes = (784, 512, 512, 10)
    model = sg.nn.Sequential([sg.nn.Dense(m, n, activation=T.relu if n > 10 else None) for m, n in zip(sizes, sizes[1:])])
    x, labels = T.matrix("x", shape=(128, 784)), T.vector("labels", dtype="int64", shape=128)
    cost = sg.losses.cross_entropy(model(x), labels)
    f = sg.function([x, labels], cost, updates=sg.optim.sgd(cost, model.params(), lr=0.01))
    arrays = normal(128, 784), np.arange(128) % 10
    return lambda: f(*arrays)


def vgg(side=224, layers=VGG16):
    """Guided backpropagation through the convolutions of VGG-16, 224x224, batch 1."""
    image = x = T.tensor("image", (1, 3, side, side))
    channels = 3
    for n in layers:
        if n == "pool":
            x = T.max_pool2d(x, 2)
        else:
            w = sg.shared(normal(n, channels, 3, 3, scale=(2 / (9 * channels)) ** 0.5))
            x, channels = T.relu(T.conv2d(x, w, padding=1)), n
    score = T.sum(T.mean(x, axis=(2, 3))[:, 3])
    f = sg.function([image], sg.saliency.guided_backprop(score, image))
    array = normal(1, 3, side, side)
    return lambda: f(array)


def small():
    """The same with five layers at 32x32."""
    return vgg(32, [32, 32, "pool", 64, 64, "pool"])
