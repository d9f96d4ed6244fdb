"""The operations of workloads in PyTorch, eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .workloads import Run

tanh, sigmoid, exp, sqrt, log1p, relu, cross_entropy = (
    torch.tanh, torch.sigmoid, torch.exp, torch.sqrt, torch.log1p, torch.relu, F.cross_entropy)
compile = lambda fn: fn             # in_torch_compile has another


def conv2d(x: Any, w: Any, b: Any, padding: int = 0) -> Any:
    return F.conv2d(x, w, b, padding=padding)


def max_pool2d(x: Any) -> Any:
    return F.max_pool2d(x, 2)


def softmax(x: Any) -> Any:
    return torch.softmax(x, -1)


def transpose(x: Any, axes: tuple[int, ...]) -> Any:
    return x.permute(axes)


def concatenate(parts: Sequence[Any], axis: int) -> Any:
    return torch.cat(list(parts), axis)


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    return F.layer_norm(x, x.shape[-1:], scale, shift)


def choose(gate: Any, branch: Callable[..., Any], p: Any, x: Any, shape: tuple[int, ...]) -> Any:
    return branch(p, x) if gate else torch.zeros(shape)


def scan(step: Callable[..., Any], xs: Any, states: Sequence[tuple[int, ...]], constants: Sequence[Any]) -> Any:
    now = tuple(torch.zeros(shape) for shape in states)
    for x in xs:
        now = step(x, *now, *constants)
    return now[0]


def bernoulli(n: int) -> Any:
    return torch.empty(n).bernoulli_(0.5)


def jacobian(fn: Callable[[Any], Any], x: Any) -> Any:
    return torch.func.jacrev(fn)(x)


def batch_jacobian(fn: Callable[[Any], Any], x: Any) -> Any:
    return torch.func.vmap(torch.func.jacrev(lambda one: fn(one[None])[0]))(x)


def tensors(arrays: Sequence[np.ndarray]) -> list[Any]:
    return [torch.from_numpy(a) for a in arrays]


def gradients(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray] = (), draws: bool = False) -> Run:
    own, xs, fn = [p.requires_grad_() for p in tensors(params)], tensors(data), compile(cost)

    def call() -> Any:
        value, extra = fn(own, *xs)
        return [*extra, *torch.autograd.grad(value, own)]
    return Run(call, copies)


def descent(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray], rate: float) -> Run:
    own, fn = [p.requires_grad_() for p in tensors([a.copy() for a in params])], compile(cost)
    xs = [bool(a) if a.dtype == bool else torch.from_numpy(a) for a in data]

    def call() -> Any:
        value = fn(own, *xs)
        slopes = torch.autograd.grad(value, own, allow_unused=True)
        with torch.no_grad():
            used = [(p, g) for p, g in zip(own, slopes) if g is not None]
            torch._foreach_add_([p for p, _ in used], [g for _, g in used], alpha=-rate)
        return value
    return Run(call, lambda value: copies([value, *own]))


class GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        context.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(context: Any, g: Any) -> Any:
        (x,) = context.saved_tensors
        return g * (x > 0) * (g > 0)


def guided(score: Callable[..., Any], params: Sequence[np.ndarray], image: np.ndarray, plain: bool) -> Run:
    own, x = tensors(params), torch.from_numpy(image).requires_grad_()
    fn = compile(lambda x: score(own, x, torch.relu if plain else GuidedRelu.apply))
    return Run(lambda: torch.autograd.grad(fn(x), x), copies)


def compiled(fn: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray]) -> Run:
    own, xs, ready = tensors(params), tensors(data), compile(fn)
    return Run(lambda: ready(own, *xs), copies)


def copies(results: Any) -> list[np.ndarray]:
    return [a.detach().numpy().copy() for a in results]
