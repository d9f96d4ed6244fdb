"""Random bits: Philox4x32-10 (Salmon et al. 2011), a function of a counter, so every backend and thread count draws the same.

The counter of an element is (position low, position high, number of the draw, step of the stream), the key is the seed; each
gives four words of 32 bits. `symgrad.random` makes distributions of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..base.errors import DTypeError, four_parts
from ..graph.node import Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import E, View
from .row import STOP, Row, sample
from .shape import flatten

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF
ROUNDS = 10


def philox(counter: tuple, key: tuple) -> tuple:
    """The four words of Philox4x32-10 for four counter words and two key words: uint64 arrays that hold 32 bits each."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    u = np.uint64
    for _ in range(ROUNDS):
        p0, p1 = u(MULTIPLIERS[0]) * c0, u(MULTIPLIERS[1]) * c2
        c0, c1, c2, c3 = (p1 >> u(32)) ^ c1 ^ k0, p1 & u(MASK), (p0 >> u(32)) ^ c3 ^ k1, p0 & u(MASK)
        k0, k1 = (k0 + u(WEYL[0])) & u(MASK), (k1 + u(WEYL[1])) & u(MASK)
    return c0, c1, c2, c3


def philox_words(counter: tuple[E, ...], key: tuple[E, E]) -> tuple[E, ...]:
    """The same in a kernel, in uint64 arithmetic."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    low = lambda e: ir.call("bitand", e, MASK)
    high = lambda e: ir.call("shr", e, 32)
    xor = lambda a, b, c: ir.call("bitxor", ir.call("bitxor", a, b), c)
    for _ in range(ROUNDS):
        p0, p1 = ir.call("mul", c0, MULTIPLIERS[0]), ir.call("mul", c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = xor(high(p1), c1, k0), low(p1), xor(high(p0), c3, k1), low(p0)
        k0, k1 = low(ir.call("add", k0, WEYL[0])), low(ir.call("add", k1, WEYL[1]))
    return c0, c1, c2, c3


def counter_at(i: tuple, shape: tuple, state: View, draw: Any) -> tuple:
    """The counter and the key, in a kernel, of the element at index i; `draw` is a number of the stream, or an index."""
    low = lambda e: ir.call("bitand", e, MASK)
    high = lambda e: ir.call("shr", e, 32)
    position = ir.cast(ir.index(flatten(i, shape)), "uint64")
    seed, step = state[(0,)], state[(1,)]
    counter = (low(position), ir.call("bitxor", high(position), high(step)), ir.cast(ir.index(draw), "uint64"), low(step))
    return counter, (low(seed), high(seed))


def counters(shape: tuple, state: np.ndarray, draw: int) -> tuple:
    """The same of arrays, for all elements of the shape."""
    u = np.uint64
    position = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    seed, step = (np.full(shape, s, np.uint64) for s in state)
    low, high = (lambda a: a & u(MASK)), (lambda a: a >> u(32))
    return (low(position), high(position) ^ high(step), np.full(shape, draw, np.uint64), low(step)), (low(seed), high(seed))


def sine_of_half_turn(u: Any, terms: int) -> Any:
    """sin(pi * (u - 1/2)) for u in [0, 1], by its power series; of variables, expressions or arrays.

    For u uniform it has the distribution of the cosine of a uniform angle, and costs a third of a cosine. 7 terms serve float32, 11 float64.
    """
    angle = (u - 0.5) * math.pi
    square = angle * angle
    coefficients = [(-1) ** k / math.factorial(2 * k + 1) for k in range(terms)]
    total = square * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        total = total * square + c
    return angle * total


class Stochastic(Row):
    """A row whose first input is the state of a stream; loops give each step a state of its own."""

    public = False


class RandomBits(Stochastic):
    """uint32 of the given shape from a state (seed, step), uint64 (2,). Attributes: draw, which draw of the stream; word, 0 to 3."""

    samples = [sample(np.array([7, 3], "uint64"), draw=1, word=0, shape=(2, 3), grad=False),
               sample(np.array([2**40 + 5, 2**33 + 1], "uint64"), draw=0, word=3, shape=(0, 3), grad=False)]

    def infer(self, state: Type, *, draw: int, word: int, shape: tuple) -> Type:
        if state.dtype != "uint64" or state.dims != (2,):
            raise DTypeError(four_parts("random bits from a stream's state", f"{state}", attempt="sg.random.RandomStream(seed)"))
        return Type("uint32", shape)

    def at(self, i: tuple, state: View, *, draw: int, word: int, shape: tuple) -> E:
        return ir.cast(philox_words(*counter_at(i, shape, state, draw))[word], "uint32")

    def numpy(self, state: np.ndarray, *, draw: int, word: int, shape: tuple) -> np.ndarray:
        return philox(*counters(shape, state, draw))[word].astype(np.uint32)

    def vjp(self, g: Node, y: Node, state: Node, **attrs: Any) -> Any:
        return (STOP,)

    def __call__(self, state: Node, *, draw: int, word: int, shape: tuple) -> Node:
        return make(self, [state], draw=draw, word=word, shape=shape)


random_bits = RandomBits("random_bits")

__all__: list[str] = []
