"""The workloads of benchmark.py in PyTorch, eager: each function returns a call without arguments."""

import numpy as np
import torch
from torch.nn import functional as F

VGG16 = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool"]


def normal(*shape, scale=1.0):
    return torch.tensor(scale * np.random.default_rng(0).normal(size=shape), dtype=torch.float32)


def call():
    a, x, b = (normal(8).requires_grad_() for _ in range(3))

    def run():
        y = a * x + b
        return y, torch.autograd.grad((y * y).sum(), (a, x, b))
    return run


def chain():
    x = normal(1_000_000).requires_grad_()

    def run():
        q = x * x
        y = torch.tanh(0.7 * x - 0.2) * torch.sigmoid(x) + torch.exp(-q) * torch.sqrt(q + 1) - torch.log1p(q)
        cost = (y * y).mean()
        return cost, torch.autograd.grad(cost, x)
    return run


def mlp():
    sizes = (784, 512, 512, 10)
    layers = [torch.nn.Linear(m, n) for m, n in zip(sizes, sizes[1:])]
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    step = torch.optim.SGD(model.parameters(), lr=0.01)
    x, labels = normal(128, 784), torch.arange(128) % 10

    def run():
        step.zero_grad()
        cost = F.cross_entropy(model(x), labels)
        cost.backward()
        step.step()
        return cost
    return run


class GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(context, g):
        x, = context.saved_tensors
        return g * (x > 0) * (g > 0)


def vgg(side=224, layers=VGG16):
    weights, channels = [], 3
    for n in layers:
        if n != "pool":
            weights.append(normal(n, channels, 3, 3, scale=(2 / (9 * channels)) ** 0.5))
            channels = n
    image = normal(1, 3, side, side).requires_grad_()

    def run():
        x, left = image, iter(weights)
        for n in layers:
            x = F.max_pool2d(x, 2) if n == "pool" else GuidedRelu.apply(F.conv2d(x, next(left), padding=1))
        return torch.autograd.grad(x.mean((2, 3))[:, 3].sum(), image)
    return run
