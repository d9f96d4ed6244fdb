"""The operations of workloads in symgrad. Parameters are borrowed, as PyTorch's are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import symgrad as sg
import symgrad.tensor as T

from .workloads import Run

tanh, sigmoid, exp, sqrt, log1p, relu, transpose, softmax = T.tanh, T.sigmoid, T.exp, T.sqrt, T.log1p, T.relu, T.transpose, T.softmax
cross_entropy, jacobian = sg.losses.cross_entropy, lambda fn, x: sg.jacobian(fn(x), x)


def conv2d(x: Any, w: Any, b: Any, padding: int = 0) -> Any:
    return T.conv2d(x, w, b, padding=padding)


def max_pool2d(x: Any) -> Any:
    return T.max_pool2d(x, 2)


def concatenate(parts: Sequence[Any], axis: int) -> Any:
    return T.concatenate(parts, axis=axis)


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    return T.layer_norm(x, x.shape[-1:], scale, shift)


def choose(gate: Any, branch: Callable[..., Any], p: Any, x: Any, shape: tuple[int, ...]) -> Any:
    return sg.ifelse(gate, branch(p, x), T.zeros(shape))


def scan(step: Callable[..., Any], xs: Any, states: Sequence[tuple[int, ...]], constants: Sequence[Any]) -> Any:
    """The first state after the last step."""
    results = sg.scan(lambda *a: list(step(*a)), sequences=[xs], outputs_info=[T.zeros(shape) for shape in states], non_sequences=list(constants))
    return results[0][-1]


def bernoulli(n: int) -> Any:
    return sg.random.RandomStream(0).bernoulli(0.5, (n,)).astype("float32")


def batch_jacobian(fn: Callable[[Any], Any], x: Any) -> Any:
    return sg.batch_jacobian(fn(x), x)


def symbols(arrays: Sequence[np.ndarray]) -> list[Any]:
    return [T.tensor(shape=a.shape, dtype=a.dtype.name) for a in arrays]


def shared(arrays: Sequence[np.ndarray]) -> list[Any]:
    return [sg.shared(a, borrow=True) for a in arrays]


def gradients(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray] = (), draws: bool = False) -> Run:
    own, xs = shared(params), symbols(data)
    value, extra = cost(own, *xs)
    f = sg.function(xs, [*extra, *sg.grad(value, own)])
    return Run(lambda: f(*data), copies)


def descent(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray], rate: float) -> Run:
    own, xs = shared(params), symbols(data)
    value = cost(own, *xs)
    f = sg.function(xs, value, updates={p: p - rate * g for p, g in zip(own, sg.grad(value, own))})
    return Run(lambda: f(*data), lambda result: [result, *(p.get_value() for p in own)])


def guided(score: Callable[..., Any], params: Sequence[np.ndarray], image: np.ndarray, plain: bool) -> Run:
    (x,) = symbols([image])
    overrides = None if plain else {T.relu: lambda g, y, x: g * (x > 0) * (g > 0)}
    f = sg.function([x], [sg.grad(score(shared(params), x, T.relu), x, overrides=overrides)])
    return Run(lambda: f(image), copies)


def compiled(fn: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray]) -> Run:
    xs = symbols(data)
    f = sg.function(xs, fn(shared(params), *xs))
    return Run(lambda: f(*data), copies)


def copies(results: Any) -> list[np.ndarray]:
    return [np.array(a) for a in results]
