"""The operations of workloads in PyTensor's default mode. It has no convolution of several channels with a gradient, and no pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from .workloads import Run

pytensor.config.floatX = "float32"
tanh, sigmoid, exp, sqrt, log1p = pt.tanh, pt.sigmoid, pt.exp, pt.sqrt, pt.log1p


def relu(x: Any) -> Any:
    return pt.maximum(x, 0)


def softmax(x: Any) -> Any:
    return pt.special.softmax(x, axis=-1)


def transpose(x: Any, axes: tuple[int, ...]) -> Any:
    return x.transpose(*axes)


def concatenate(parts: Sequence[Any], axis: int) -> Any:
    return pt.concatenate(list(parts), axis=axis)


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / pt.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-5)) * scale + shift


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -pt.special.log_softmax(logits, axis=-1)[pt.arange(labels.shape[0]), labels].mean()


def scan(step: Callable[..., Any], xs: Any, states: Sequence[tuple[int, ...]], constants: Sequence[Any]) -> Any:
    begin = [pt.zeros(shape, dtype="float32") for shape in states]
    results = pytensor.scan(lambda *a: list(step(*a)), sequences=[xs], outputs_info=begin, non_sequences=list(constants), return_updates=False)
    return (results if len(states) == 1 else results[0])[-1]


def jacobian(fn: Callable[[Any], Any], x: Any) -> Any:
    return pytensor.gradient.jacobian(fn(x), x, vectorize=True)


def symbols(arrays: Sequence[np.ndarray]) -> list[Any]:
    return [pt.tensor(dtype=a.dtype.name, shape=a.shape) for a in arrays]


def shared(arrays: Sequence[np.ndarray]) -> list[Any]:
    return [pytensor.shared(a, borrow=True, shape=a.shape) for a in arrays]


def bernoulli(n: int) -> Any:
    rng = pytensor.shared(np.random.default_rng(0))
    rng.default_update, draws = pt.random.bernoulli(0.5, size=(n,), rng=rng, return_next_rng=True)
    return draws.astype("float32")


def gradients(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray] = (), draws: bool = False) -> Run:
    own, xs = shared(params), symbols(data)
    value, extra = cost(own, *xs)
    f = pytensor.function(xs, [*extra, *pytensor.grad(value, own)])
    return Run(lambda: f(*data), copies)


def descent(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray], rate: float) -> Run:
    own, xs = shared([a.copy() for a in params]), symbols(data)
    value = cost(own, *xs)
    f = pytensor.function(xs, value, updates=[(p, p - np.float32(rate) * g) for p, g in zip(own, pytensor.grad(value, own))])
    return Run(lambda: f(*data), lambda result: copies([result, *(p.get_value() for p in own)]))


def compiled(fn: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray]) -> Run:
    xs = symbols(data)
    f = pytensor.function(xs, fn(shared(params), *xs))
    return Run(lambda: f(*data), copies)


def copies(results: Any) -> list[np.ndarray]:
    return [np.array(a) for a in results]
