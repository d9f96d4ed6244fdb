"""Random streams: draws that forward and backward see alike.

A draw is a node. Whatever uses the node, forward or backward, in any block or rule, sees the same numbers within one call of a
compiled function; the stream moves on by itself at each call, and only there. The numbers are a function of (seed, step of the
stream, number of the draw, position), by Philox4x32-10: the same on every backend. Two functions that share a stream never
repeat each other.

Draws with a location and a scale are differentiable in both. Discrete draws are not: `straight_through` passes a gradient all
the same, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import tensor as T
from .base.dtypes import as_float, dtype_name, is_float, is_integer
from .base.errors import DTypeError, ShapeError, SymgradError, four_parts
from .base.origin import show, user_line
from .graph.block import BlockFunction
from .graph.node import CONSTANT, Node
from .graph.shared import Shared
from .ops.control import stop_gradient
from .ops.draws import Draw, binomial_draw, log_gamma_draw, poisson_draw
from .ops.expected import expected
from .ops.random import random_bits, sine_of_half_turn
from .ops.row import STOP
from .ops.shape import as_shape

Size = int | Sequence[Any] | None


class RandomStream:
    """A source of draws. `seed` is an int from 0 to 2**64 - 1.

    `stream.seed(s)` starts again, `stream.state` and `set_state` save and restore where it stands.
    """

    def __init__(self, seed: int = 0):
        self.variable = Shared(_start(seed), "random state", advance=_next_step)
        self._draws = 0

    def seed(self, seed: int) -> None:
        """Start again from the beginning of another stream."""
        self.variable.replace(_start(seed))

    @property
    def state(self) -> np.ndarray:
        """Where the stream stands: uint64 (seed, calls so far)."""
        return self.variable.get_value()

    def set_state(self, state: Any) -> None:
        """Return to a state saved before."""
        self.variable.set_value(np.asarray(state, np.uint64))

    def bits(self, size: Size = (), words: int = 1) -> list[Node]:
        """Independent uint32 draws of this shape, up to four at a time from one number of the stream."""
        draw = self._reserved(1)
        shape = as_shape(() if size is None else size, "the size of a draw")
        return [random_bits(self.variable, draw=draw, word=w, shape=shape) for w in range(words)]

    def _reserved(self, numbers: int) -> int:
        """The first of so many numbers of the stream that no other draw uses."""
        first, self._draws = self._draws, self._draws + numbers
        return first

    # ---- continuous
    def uniform(self, size: Size = (), low: Any = 0.0, high: Any = 1.0, *, dtype: Any = None) -> Node:
        """Uniform in [low, high): 24 random bits in float32, 53 in float64."""
        return _placed(self._unit(_shape(size, low, high), dtype), low, T.as_tensor(high, _dtype(dtype)) - low, dtype)

    def normal(self, size: Size = (), loc: Any = 0.0, scale: Any = 1.0, *, dtype: Any = None) -> Node:
        """Normal with mean loc and standard deviation scale (Box and Muller 1958)."""
        shape = _shape(size, loc, scale)
        u, v = self._units(shape, dtype, 2)
        return _placed(T.sqrt(-2.0 * T.log(1.0 - u)) * sine_of_half_turn(v, 7 if u.dtype == "float32" else 11), loc, scale, dtype)

    def truncated_normal(self, size: Size = (), low: float = -2.0, high: float = 2.0, loc: Any = 0.0, scale: Any = 1.0, *, dtype: Any = None) -> Node:
        """loc + scale * z with z standard normal given low <= z <= high, by inversion of the distribution function."""
        below, above = (0.5 * (1 + math.erf(z / math.sqrt(2))) for z in (low, high))
        u = below + (above - below) * self._unit(_shape(size, loc, scale), dtype)
        return _placed(T.clip(math.sqrt(2) * T.erfinv(2.0 * u - 1.0), low, high), loc, scale, dtype)

    def exponential(self, size: Size = (), scale: Any = 1.0, *, dtype: Any = None) -> Node:
        """Exponential with mean scale."""
        return _placed(-T.log1p(-self._unit(_shape(size, scale), dtype)), 0.0, scale, dtype)

    def gumbel(self, size: Size = (), loc: Any = 0.0, scale: Any = 1.0, *, dtype: Any = None) -> Node:
        """Gumbel: loc - scale * log(-log u). The argmax of logits plus Gumbel draws is a categorical draw."""
        return _placed(-T.log(-T.log(self._open_unit(_shape(size, loc, scale), dtype))), loc, scale, dtype)

    def laplace(self, size: Size = (), loc: Any = 0.0, scale: Any = 1.0, *, dtype: Any = None) -> Node:
        """Laplace with median loc: a sign times an exponential draw."""
        centred = self._open_unit(_shape(size, loc, scale), dtype) - 0.5
        return _placed(-T.sign(centred) * T.log1p(-2.0 * T.abs(centred)), loc, scale, dtype)

    def gamma(self, shape: Any, scale: Any = 1.0, size: Size = (), *, dtype: Any = None) -> Node:
        """Gamma with this shape, mean shape * scale. Differentiable in the shape too, by implicit reparameterisation."""
        dtype = _dtype(dtype)
        return _placed(T.exp(self._log_gamma(shape, _shape(size, shape, scale))).astype(dtype), 0.0, scale, dtype)

    def beta(self, a: Any, b: Any, size: Size = (), *, dtype: Any = None) -> Node:
        """Beta on (0, 1) with mean a / (a + b): x / (x + y) of two gamma draws. Differentiable in both."""
        shape = _shape(size, a, b)
        return T.sigmoid(self._log_gamma(a, shape) - self._log_gamma(b, shape)).astype(_dtype(dtype))

    def dirichlet(self, alpha: Any, size: Size = None, *, dtype: Any = None) -> Node:
        """Rows (..., k) on the simplex, with mean alpha / alpha.sum(-1); size is the shape of the draws, without k. Differentiable."""
        alpha = _rows(alpha, "concentrations")
        shape = alpha.dims if size is None or size == () else (*as_shape(size), alpha.dims[-1])
        return T.softmax(self._log_gamma(alpha, shape), axis=-1).astype(_dtype(dtype))

    def chisquare(self, df: Any, size: Size = (), *, dtype: Any = None) -> Node:
        """The sum of df squared standard normal variates: twice a gamma draw of shape df / 2."""
        return self.gamma(0.5 * _real(df), 2.0, size, dtype=dtype)

    def student_t(self, df: Any, size: Size = (), loc: Any = 0.0, scale: Any = 1.0, *, dtype: Any = None) -> Node:
        """Student's t with df degrees of freedom, shifted and scaled: a normal draw over the root of chisquare / df."""
        df, shape = _real(df), _shape(size, df, loc, scale)
        spread = T.exp(0.5 * (T.log(0.5 * df).astype("float64") - self._log_gamma(0.5 * df, shape)))
        return _placed(self.normal(shape, dtype=dtype) * spread.astype(_dtype(dtype)), loc, scale, dtype)

    # ---- discrete
    def bernoulli(self, p: Any = 0.5, size: Size = None, *, dtype: Any = "bool") -> Node:
        """True with probability p. Not differentiable in p."""
        p = expected(p, "probabilities")
        shape = p.dims if size is None else as_shape(size)
        return T.cast(self._unit(shape, p.dtype if is_float(p.dtype) else None) < stop_gradient(p), dtype)

    def binomial(self, n: Any, p: Any = 0.5, size: Size = (), *, dtype: Any = "int64") -> Node:
        """Successes among n trials of probability p. Not differentiable."""
        parameters = expected(_real(n), "not negative"), expected(_real(p), "probabilities")
        return T.cast(self._drawn(binomial_draw, _shape(size, *parameters), *parameters), dtype)

    def geometric(self, p: Any, size: Size = (), *, dtype: Any = "int64") -> Node:
        """Trials of probability p up to the first success, 1 or more: NumPy's convention. Not differentiable."""
        p = stop_gradient(expected(expected(_real(p), "probabilities"), "positive"))
        u = self._unit(_shape(size, p), "float64")
        return T.cast(1 + T.floor(T.log1p(-u) / T.log1p(-T.cast(p, "float64"))), dtype)

    def poisson(self, lam: Any = 1.0, size: Size = (), *, dtype: Any = "int64") -> Node:
        """Counts with mean lam. Not differentiable."""
        lam = expected(_real(lam), "not negative")
        return T.cast(self._drawn(poisson_draw, _shape(size, lam), lam), dtype)

    def multinomial(self, n: Any, pvals: Any, size: Size = None, *, dtype: Any = "int64") -> Node:
        """Counts (..., k) of n draws from rows of probabilities (..., k), k known; size is the shape of the draws, without k.

        The n draws are split between the halves of the classes, and again within each half. Not differentiable.
        """
        n, pvals = expected(n, "not negative"), _distribution(pvals)
        k = pvals.dims[-1]
        if not isinstance(k, int):
            raise ShapeError(four_parts("multinomial over a known number of classes", f"{pvals._type}", show(user_line()),
                                        "declare the size of the last axis"))
        rows = _shape(size, n, pvals[..., 0])
        return T.cast(self._split(T.broadcast_to(n, rows), T.broadcast_to(pvals, (*rows, k)), k), dtype)

    def integers(self, low: int, high: int | None = None, size: Size = (), *, dtype: Any = "int64") -> Node:
        """Integers in [low, high), or [0, low) when only one bound is given; at most 2**32 of them."""
        low, high = (0, low) if high is None else (low, high)
        count = high - low
        if not 0 < count <= 2**32:
            raise ShapeError(four_parts(f"integers in [{low}, {high})", f"{count} values", show(user_line()), "1 to 2**32 values"))
        word, = self.bits(size)
        # the high half of word * count: uniform up to count / 2**32
        scaled = T.right_shift(T.cast(word, "uint64") * T.constant(count, "uint64"), T.constant(32, "uint64"))
        return T.cast(T.cast(scaled, "int64") + low, dtype)

    def categorical(self, probs: Any, size: Size = None, *, dtype: Any = "int64") -> Node:
        """A class per row of probabilities: probs (..., k) gives (...); size is the shape of the draws when it is larger."""
        probs = _distribution(probs)
        shape = probs.dims[:-1] if size is None else as_shape(size)
        u = T.expand_dims(self._unit(shape, probs.dtype), -1)
        below = T.cumsum(stop_gradient(probs), axis=-1)[..., :-1]
        return T.sum(u >= below, axis=-1, dtype="int64").astype(dtype)

    def permutation(self, n: int | Node) -> Node:
        """The numbers 0 to n - 1 in random order; of an array, its rows."""
        if isinstance(n, Node) and n.ndim:
            return n[self.permutation(n.shape[0])]
        return T.argsort(self._unit((n,), "float64"))

    def choice(self, a: Any, size: Size = (), replace: bool = True, p: Any = None) -> Node:
        """Elements of a (or of 0 to a - 1): with replacement uniformly or by probabilities p, without it uniformly."""
        count = a if isinstance(a, int) else T.as_tensor(a).dims[0]
        if p is not None and not replace:
            raise SymgradError(four_parts("choice without replacement by probabilities", "replace=False with p", show(user_line()),
                                          "the first of T.argsort(-(T.log(p) + stream.gumbel((n,))))"))
        if replace:
            places = self.integers(count, size=size) if p is None else self.categorical(p, as_shape(size))
        else:
            shape = as_shape(size)
            total = math.prod(shape)
            if isinstance(count, int) and total > count:
                raise ShapeError(four_parts(f"{total} different elements of {count}", "replace=False", show(user_line()), "replace=True"))
            places = T.reshape(self.permutation(count)[:total], shape)
        return places if isinstance(a, int) else T.as_tensor(a)[places]

    # ---- building blocks
    def _drawn(self, row: Draw, shape: Any, *parameters: Any) -> Node:
        """A draw of a row, by its number of the stream; parameters broadcast to the shape."""
        return row(self.variable, *(T.broadcast_to(_real(p), shape) for p in parameters), draw=self._reserved(row.numbers))

    def _log_gamma(self, shape: Any, size: Any) -> Node:
        """The logarithm of standard gamma draws, float64: the draws of small shapes are too small for numbers."""
        return self._drawn(log_gamma_draw, as_shape(size), expected(_real(shape), "positive"))

    def _split(self, n: Node, pvals: Node, k: int) -> Node:
        """Counts of k classes that add up to n (...): halved until the halves are single classes, a level at a time."""
        levels = (k - 1).bit_length()
        masses = [T.pad(pvals, [(0, 0)] * (pvals.ndim - 1) + [(0, 2**levels - k)])]
        for _ in range(levels):
            last = masses[-1]
            masses.append(last[..., 0::2] + last[..., 1::2])
        counts = T.expand_dims(n, -1)
        for total, parts in zip(masses[:0:-1], masses[-2::-1]):
            share = T.where(total > 0, T.minimum(parts[..., 0::2] / total, 1), 0.0)
            left = self._drawn(binomial_draw, counts.dims, counts, share)
            counts = T.stack([left, counts.astype("int64") - left], axis=-1).reshape((*n.dims, -1))
        return counts[..., :k]

    def _unit(self, shape: Any, dtype: Any) -> Node:
        """Uniform in [0, 1)."""
        return self._units(shape, dtype, 1)[0]

    def _units(self, shape: Any, dtype: Any, count: int) -> list[Node]:
        """One or two independent variables, uniform in [0, 1), from one number of the stream."""
        name = _dtype(dtype)
        if name == "float32":
            return [_top_bits(w, 24, name) * T.constant(2.0**-24, name) for w in self.bits(shape, count)]
        words = self.bits(shape, 2 * count)
        return [(_top_bits(high, 27, name) * 2.0**26 + _top_bits(low, 26, name)) * 2.0**-53 for high, low in zip(words[::2], words[1::2])]

    def _open_unit(self, shape: Any, dtype: Any) -> Node:
        """Uniform in (0, 1): the middles of the intervals of `_unit`."""
        name = _dtype(dtype)
        return self._unit(shape, name) * (1 - 2.0**-24) + 2.0**-25


def _top_bits(word: Node, bits: int, dtype: str) -> Node:
    """The highest bits of uint32 words, as numbers."""
    return T.cast(T.right_shift(word, T.constant(32 - bits, "uint32")), dtype)


def straight_through(hard: Node, soft: Node) -> Node:
    """The value of `hard` with the gradient of `soft` (Bengio, Leonard and Courville 2013): for gates that are drawn or rounded.

    Raises ShapeError when their shapes differ.
    """
    hard, soft = T.as_tensor(hard), T.as_tensor(soft)
    if hard.ndim != soft.ndim or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(hard.dims, soft.dims)):
        raise ShapeError(four_parts("straight_through of two variables of one shape", f"{hard._type} and {soft._type}", show(user_line())))
    return _straight_through(hard.astype(soft.dtype), soft)


def gumbel_softmax(stream: RandomStream, logits: Node, temperature: Any = 1.0, axis: int = -1, hard: bool = False) -> Node:
    """A relaxed categorical draw (Jang, Gu and Poole 2017): softmax((logits + Gumbel) / temperature).

    hard=True gives one-hot draws with the gradient of the relaxed ones.
    """
    logits = T.as_tensor(logits)
    soft = T.softmax((logits + stream.gumbel(logits.dims, dtype=logits.dtype)) / temperature, axis=axis)
    if not hard:
        return soft
    return straight_through(T.equal(soft, T.max(soft, axis=axis, keepdims=True)), soft)


def score_function(log_probability: Node, reward: Node) -> Node:
    """A surrogate whose gradient is that of the expected reward of discrete draws: log p(draw) * reward, reward held constant.

    Source: Williams 1992 (REINFORCE). Subtract a baseline from the reward for less variance.
    """
    return log_probability * stop_gradient(T.as_tensor(reward))


def _straight_through_rule(g: Node, y: Node, hard: Node, soft: Node) -> tuple:
    return STOP, g


def _start(seed: int) -> np.ndarray:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise SymgradError(four_parts("a seed", f"{seed!r}", show(user_line()), "an int from 0 to 2**64 - 1"))
    return np.array([seed, 0], np.uint64)


def _next_step(state: Node) -> Node:
    return state + T.constant(np.array([0, 1], np.uint64))


def _dtype(dtype: Any) -> str:
    name = dtype_name(dtype)
    if not is_float(name):
        raise DTypeError(four_parts("continuous draws", f"dtype {name}", show(user_line()), "float32 or float64"))
    return name


def _shape(size: Size, *parameters: Any) -> Any:
    """The shape asked for; (), the default, means that of the parameters."""
    if size is None or size == ():
        return T.broadcast_arrays(*map(T.as_tensor, parameters))[0].dims
    return size


def _placed(z: Node, loc: Any, scale: Any, dtype: Any) -> Node:
    """loc + scale * z in the dtype of z: differentiable in both."""
    for parameter in (loc, scale):
        if isinstance(parameter, Node) and is_integer(parameter.dtype):
            raise DTypeError(four_parts("a float location or scale", f"{parameter._type}, made at {parameter.where}", show(user_line()),
                                        f"x.astype({as_float(parameter.dtype)!r})"))
    moved = z if _is_number(scale, 1.0) else z * expected(T.as_tensor(scale, z.dtype), "not negative")
    return moved if _is_number(loc, 0.0) else moved + T.as_tensor(loc, z.dtype)


def _is_number(value: Any, number: float) -> bool:
    if isinstance(value, Node):
        return value.op is CONSTANT and value.ndim == 0 and float(value.payload) == number
    return isinstance(value, (int, float)) and value == number


def _real(x: Any) -> Node:
    """x as a float variable; numbers keep all their digits."""
    if not isinstance(x, Node):
        return T.as_tensor(x, "float64")
    return x if is_float(x.dtype) else x.astype("float64")


def _rows(x: Any, what: str) -> Node:
    x = T.as_tensor(x)
    if not x.ndim or not is_float(x.dtype):
        raise ShapeError(four_parts(f"rows of {what}, (..., k)", f"{x._type}", show(user_line()), "floats with at least one axis"))
    return x


def _distribution(probs: Any) -> Node:
    return expected(expected(_rows(probs, "probabilities"), "probabilities"), "distribution")


_straight_through = BlockFunction(lambda hard, soft: hard, vjp=_straight_through_rule, name="straight_through")

__all__ = ["RandomStream", "gumbel_softmax", "score_function", "straight_through"]
