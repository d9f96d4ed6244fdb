"""The operations of workloads in JAX, jitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .workloads import Run

tanh, sigmoid, exp, sqrt, log1p, relu, softmax, transpose = (
    jnp.tanh, jax.nn.sigmoid, jnp.exp, jnp.sqrt, jnp.log1p, jax.nn.relu, jax.nn.softmax, jnp.transpose)
keys: list[Any] = []                    # while a function with draws is traced: the key of this call


def conv2d(x: Any, w: Any, b: Any, padding: int = 0) -> Any:
    names = ("NCHW", "OIHW", "NCHW")
    return jax.lax.conv_general_dilated(x, w, (1, 1), [(padding, padding)] * 2, dimension_numbers=names) + b[None, :, None, None]


def max_pool2d(x: Any) -> Any:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def concatenate(parts: Sequence[Any], axis: int) -> Any:
    return jnp.concatenate(parts, axis)


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * scale + shift


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def choose(gate: Any, branch: Callable[..., Any], p: Any, x: Any, shape: tuple[int, ...]) -> Any:
    return jax.lax.cond(gate, branch, lambda p, x: jnp.zeros(shape), p, x)


def scan(step: Callable[..., Any], xs: Any, states: Sequence[tuple[int, ...]], constants: Sequence[Any]) -> Any:
    begin = tuple(jnp.zeros(shape) for shape in states)
    return jax.lax.scan(lambda now, x: (tuple(step(x, *now, *constants)), None), begin, xs)[0][0]


def bernoulli(n: int) -> Any:
    return jax.random.bernoulli(keys[-1], 0.5, (n,))


def jacobian(fn: Callable[[Any], Any], x: Any) -> Any:
    return jax.jacrev(fn)(x)


def batch_jacobian(fn: Callable[[Any], Any], x: Any) -> Any:
    return jax.vmap(jax.jacrev(lambda one: fn(one[None])[0]))(x)


def arrays(values: Sequence[np.ndarray]) -> list[Any]:
    return [jnp.asarray(a) for a in values]


def gradients(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray] = (), draws: bool = False) -> Run:
    own, xs, state = arrays(params), arrays(data), [jax.random.key(0)]

    def both(p: Any, *xs: Any) -> Any:
        slopes, extra = jax.grad(cost, has_aux=True)(p, *xs)
        return [*extra, *slopes]

    def drawing(key: Any, p: Any, *xs: Any) -> Any:
        after, now = jax.random.split(key)
        keys.append(now)
        return after, both(p, *xs)
    fn = jax.jit(drawing if draws else both)

    def call() -> Any:
        if not draws:
            return jax.block_until_ready(fn(own, *xs))
        state[0], results = jax.block_until_ready(fn(state[0], own, *xs))
        return results
    return Run(call, copies)


def descent(cost: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray], rate: float) -> Run:
    state, xs = arrays(params), arrays(data)

    def step(p: Any, *xs: Any) -> Any:
        value, slopes = jax.value_and_grad(cost)(p, *xs)
        return value, [w - rate * g for w, g in zip(p, slopes)]
    fn = jax.jit(step, donate_argnums=0)

    def call() -> Any:
        value, state[:] = jax.block_until_ready(fn(list(state), *xs))
        return value
    return Run(call, lambda value: copies([value, *state]))


@jax.custom_vjp
def guided_relu(x: Any) -> Any:
    return jax.nn.relu(x)


guided_relu.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, g: (g * (x > 0) * (g > 0),))


def guided(score: Callable[..., Any], params: Sequence[np.ndarray], image: np.ndarray, plain: bool) -> Run:
    own, x = arrays(params), jnp.asarray(image)
    fn = jax.jit(jax.grad(lambda x, p: score(p, x, jax.nn.relu if plain else guided_relu)))
    return Run(lambda: [jax.block_until_ready(fn(x, own))], copies)


def compiled(fn: Callable[..., Any], params: Sequence[np.ndarray], data: Sequence[np.ndarray]) -> Run:
    own, xs, ready = arrays(params), arrays(data), jax.jit(fn)
    return Run(lambda: jax.block_until_ready(ready(own, *xs)), copies)


def copies(results: Any) -> list[np.ndarray]:
    return [np.array(a) for a in results]
