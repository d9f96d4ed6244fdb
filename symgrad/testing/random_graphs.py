"""Random graphs grown together with their NumPy value: one seed decides both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import tensor as T
from ..graph.node import Node, new_input
from ..graph.types import Type

Array = np.ndarray
ROWS_OF_TABLE = (2, 3, 4)       # sizes are few, so that operands often fit


@dataclass
class RandomGraph:
    """Inputs with their arrays, outputs with the values NumPy gives, and the seed that made them."""

    seed: int
    inputs: list[Node] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"random_graph({self.seed})"


Pool = list[tuple[Node, Array]]
Step = Callable[[Pool, np.random.Generator], "tuple[Node, Array] | None"]


def random_graph(seed: int, steps: int = 12, *, dtype: str = "float64", smooth: bool = False, unknown_sizes: bool = False) -> RandomGraph:
    """A graph of about `steps` ops over two or three inputs, with the value of each output as NumPy computes it.

    smooth=True leaves out ops with kinks, for gradient checks. unknown_sizes=True declares the inputs' leading sizes as
    unknown. Values stay below about 10 in size.
    """
    rng = np.random.default_rng(seed)
    graph = RandomGraph(seed)
    shared_size = int(rng.choice(ROWS_OF_TABLE))
    for k in range(int(rng.integers(2, 4))):
        shape = (shared_size, *(int(rng.choice(ROWS_OF_TABLE)) for _ in range(int(rng.integers(0, 2)))))
        array = rng.uniform(-2, 2, shape).astype(dtype)
        declared: tuple[Any, ...] = ("n", *shape[1:]) if unknown_sizes else shape
        node = T.tensor(f"x{k}", declared, dtype) if unknown_sizes else new_input(Type(dtype, shape), f"x{k}")
        graph.inputs.append(node)
        graph.arrays.append(array)
    pool: Pool = list(zip(graph.inputs, graph.arrays))
    menu = [s for s in MENU if not (smooth and s in KINKED) and not (unknown_sizes and s in NEEDS_SIZES)]
    made = 0
    while made < steps:
        result = menu[int(rng.integers(len(menu)))](pool, rng)
        if result is not None and result[1].size:        # the largest of nothing has no value
            pool.append((result[0], np.asarray(result[1], dtype=result[0].dtype)))
            made += 1
    tail = pool[len(graph.inputs):]
    chosen = {len(tail) - 1, *(int(k) for k in rng.integers(0, len(tail), 2))}
    for k in sorted(chosen):
        graph.outputs.append(tail[k][0])
        graph.values.append(tail[k][1])
    return graph


# ---------------------------------------------------------------------------------------------- the menu
def pick(pool: Pool, rng: np.random.Generator, where: Callable[[Array], bool] = lambda a: True) -> tuple[Node, Array] | None:
    fitting = [p for p in pool if where(p[1])]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def unary(symbolic: Callable[[Any], Node], numeric: Callable[[Array], Array]) -> Step:
    def step(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
        found = pick(pool, rng)
        return None if found is None else (symbolic(found[0]), numeric(found[1]))
    return step


def binary(symbolic: Callable[[Any, Any], Node], numeric: Callable[[Array, Array], Array]) -> Step:
    def step(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
        a = pick(pool, rng)
        assert a is not None
        b = pick(pool, rng, lambda v: broadcasts(v, a[1]))
        return None if b is None else (symbolic(a[0], b[0]), numeric(a[1], b[1]))
    return step


def broadcasts(a: Array, b: Array) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(a.shape[::-1], b.shape[::-1]))


def reduction(symbolic: Callable[..., Node], numeric: Callable[..., Array]) -> Step:
    def step(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
        found = pick(pool, rng, lambda v: v.ndim > 0)
        if found is None:
            return None
        axis, keepdims = int(rng.integers(-found[1].ndim, found[1].ndim)), bool(rng.integers(2))
        return symbolic(found[0], axis=axis, keepdims=keepdims), numeric(found[1], axis=axis, keepdims=keepdims)
    return step


def along_axis(symbolic: Callable[..., Node], numeric: Callable[..., Array]) -> Step:
    def step(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
        found = pick(pool, rng, lambda v: v.ndim > 0)
        if found is None:
            return None
        axis = int(rng.integers(-found[1].ndim, found[1].ndim))
        return symbolic(found[0], axis=axis), numeric(found[1], axis=axis)
    return step


def transposed(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
    found = pick(pool, rng, lambda v: v.ndim > 1)
    if found is None:
        return None
    axes = tuple(int(k) for k in rng.permutation(found[1].ndim))
    return T.transpose(found[0], axes), np.transpose(found[1], axes)


def flattened(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
    found = pick(pool, rng, lambda v: v.ndim > 1)
    return None if found is None else (found[0].reshape((-1,)), found[1].reshape(-1))


def sliced(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
    found = pick(pool, rng, lambda v: v.ndim > 0)
    if found is None:
        return None
    index: Any = [slice(None), slice(1, None), slice(None, -1), slice(None, None, -1), slice(None, None, 2), 0, -1, None][int(rng.integers(8))]
    return found[0][index], found[1][index]


def joined(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
    a = pick(pool, rng, lambda v: v.ndim > 0)
    if a is None:
        return None
    b = pick(pool, rng, lambda v: v.ndim == a[1].ndim and v.shape[1:] == a[1].shape[1:])
    return None if b is None else (T.concatenate([a[0], b[0]], axis=0), np.concatenate([a[1], b[1]], axis=0))


def multiplied(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
    """A product with a constant matrix, scaled to keep values small."""
    found = pick(pool, rng, lambda v: v.ndim > 0 and v.shape[-1] > 0)
    if found is None:
        return None
    w = (rng.standard_normal((found[1].shape[-1], 3)) / found[1].shape[-1]).astype(found[1].dtype)
    return found[0] @ w, found[1] @ w


def gathered(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
    found = pick(pool, rng, lambda v: v.ndim > 0 and v.shape[0] > 0)
    if found is None:
        return None
    index = rng.integers(0, found[1].shape[0], 3)
    return found[0][index], found[1][index]


def incremented(pool: Pool, rng: np.random.Generator) -> tuple[Node, Array] | None:
    found = pick(pool, rng, lambda v: v.ndim > 0 and v.shape[0] > 1)
    if found is None:
        return None
    value = found[1].copy()
    value[1:] += 0.5
    return T.inc_subtensor(found[0][1:], 0.5), value


def softmax(v: Array, axis: int) -> Array:
    e = np.exp(v - v.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


maximum = binary(T.maximum, np.maximum)
larger = binary(lambda a, b: T.where(a > b, a * 0.5, b), lambda a, b: np.where(a > b, a * 0.5, b))
relu = unary(T.relu, lambda v: np.maximum(v, 0))
size = unary(abs, np.abs)
largest = reduction(T.max, np.max)
squashed_product = binary(lambda a, b: T.tanh(a * b), lambda a, b: np.tanh(a * b))

MENU: Sequence[Step] = (
    unary(T.tanh, np.tanh), unary(T.sigmoid, lambda v: 1 / (1 + np.exp(-v))), unary(lambda x: T.exp(-x * x), lambda v: np.exp(-v * v)),
    unary(lambda x: 1.5 - x, lambda v: 1.5 - v), unary(T.sin, np.sin), unary(lambda x: x / (1 + x * x), lambda v: v / (1 + v * v)),
    unary(lambda x: T.sqrt(1 + x * x), lambda v: np.sqrt(1 + v * v)), unary(lambda x: T.log1p(x * x), lambda v: np.log1p(v * v)),
    binary(lambda a, b: 0.5 * (a + b), lambda a, b: 0.5 * (a + b)), binary(lambda a, b: a - 0.25 * b, lambda a, b: a - 0.25 * b),
    squashed_product, maximum, larger, relu, size, reduction(T.mean, np.mean), reduction(lambda x, **k: 0.3 * T.sum(x, **k),
    lambda v, **k: 0.3 * np.sum(v, **k)), largest, along_axis(T.softmax, softmax), along_axis(lambda x, axis: 0.3 * T.cumsum(x, axis=axis),
    lambda v, axis: 0.3 * np.cumsum(v, axis=axis)), transposed, flattened, sliced, joined, multiplied, gathered, incremented,
)
KINKED = (maximum, larger, relu, size, largest)
# what needs to know the leading size while the graph is built
NEEDS_SIZES = (gathered, multiplied, sliced, incremented, flattened, transposed)

__all__ = ["RandomGraph", "random_graph"]
