"""First values of parameters. An initialiser is a function (shape, fan_in, fan_out, rng) -> array.

fan_in and fan_out count the inputs that reach one output and the outputs one input reaches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Initialiser = Callable[[tuple[int, ...], int, int, np.random.Generator], np.ndarray]
RngLike = np.random.Generator | int | None

_default = [np.random.default_rng()]


def seed(value: int) -> None:
    """Restarts the generator of all layers that are made without `rng=`."""
    _default[0] = np.random.default_rng(value)


def generator(rng: RngLike) -> np.random.Generator:
    """A NumPy generator from a generator, a seed, or None for the common one (see `seed`)."""
    if rng is None:
        return _default[0]
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)


def he_normal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Normal values of variance 2 / fan_in, which keeps the size of signals through ReLUs. He et al. 2015."""
    return rng.normal(0.0, np.sqrt(2.0 / max(fan_in, 1)), shape)


def he_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform values of variance 2 / fan_in. He et al. 2015."""
    return _uniform(shape, 2.0 / max(fan_in, 1), rng)


def glorot_normal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Normal values of variance 2 / (fan_in + fan_out), for layers near linear. Glorot and Bengio 2010."""
    return rng.normal(0.0, np.sqrt(2.0 / max(fan_in + fan_out, 1)), shape)


def glorot_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform values of variance 2 / (fan_in + fan_out). Glorot and Bengio 2010, equation 16."""
    return _uniform(shape, 2.0 / max(fan_in + fan_out, 1), rng)


def lecun_normal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Normal values of variance 1 / fan_in. LeCun et al. 1998, Efficient BackProp, section 4.6."""
    return rng.normal(0.0, np.sqrt(1.0 / max(fan_in, 1)), shape)


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform values up to 1 / sqrt(fan_in), as PyTorch starts its linear layers."""
    return _uniform(shape, 1.0 / (3 * max(fan_in, 1)), rng)


def orthogonal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer, seen as (first axis, rest). Saxe et al. 2014."""
    rows, columns = shape[0], int(np.prod(shape[1:]))
    tall = rng.normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))                       # uniform over orthogonal matrices: Mezzadri 2007
    return (q if rows >= columns else q.T).reshape(shape)


def normal(std: float = 0.01, mean: float = 0.0) -> Initialiser:
    """An initialiser of normal values."""
    return lambda shape, fan_in, fan_out, rng: rng.normal(mean, std, shape)


def uniform(low: float = -0.01, high: float = 0.01) -> Initialiser:
    """An initialiser of uniform values."""
    return lambda shape, fan_in, fan_out, rng: rng.uniform(low, high, shape)


def constant(value: float) -> Initialiser:
    """An initialiser of equal values."""
    return lambda shape, fan_in, fan_out, rng: np.full(shape, value)


def zeros(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> np.ndarray:
    """Zeros."""
    return np.zeros(shape)


def _uniform(shape: tuple[int, ...], variance: float, rng: np.random.Generator) -> np.ndarray:
    half_width = np.sqrt(3.0 * variance)              # a uniform on (-a, a) has variance a**2 / 3
    return rng.uniform(-half_width, half_width, shape)
