"""Draws by rejection: log-gamma, Poisson and binomial variates, each a function of a counter as random bits are.

An element has a fixed number of attempts, each with a number of the stream of its own, and takes the first that is accepted.
All of them fail with probability below 1e-12, and then the middle of the distribution stands in. Decisions are made in float64,
so backends that round differently agree on them.

Most elements accept their first attempt by a simple comparison. So a draw is two nodes: `Quick` makes that attempt for all, a
kernel without branches, and a `Draw` goes on where it left MISSING.

The mathematics of an attempt is written once, for `Functions` of kernels and of arrays: `tests/test_random.py` compares what
is drawn with the distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..base.errors import ShapeError, four_parts
from ..graph.node import Node, make
from ..graph.types import Type
from ..loops import ir
from ..loops.ir import View
from .elementwise import _flat, digamma, exp, expm1, maximum, sqrt, where
from .random import Stochastic, counter_at, counters, philox, philox_words, sine_of_half_turn
from .reduce import sum as sum_
from .row import STOP, cast, sample
from .shape import expand_dims

GAMMA_ATTEMPTS = 10     # accepted with probability 0.95 and more each
COUNT_ATTEMPTS = 24     # 0.7 and more
FEW = 10.0              # expected counts below this are found term by term,
TERMS = 48              # among so many: above lies probability 1e-16
MISSING = 1e300         # no draw, and no NaN: check="nan" looks for those
Words = Callable[[Any], tuple]      # number of the stream -> its four words


@dataclass(frozen=True)
class Functions:
    """What formulas need besides operators, of scalar expressions or of arrays."""

    call: Callable[..., Any]
    real: Callable[[Any], Any]                          # to float64
    shift: Callable[[Any, int], Any]
    lazily: Callable[[Any, Callable[[], Any], Any], Any]    # (condition, where it holds, elsewhere): the first computed only there
    where: Callable[[Any, Any, Any], Any]
    count: Callable[[Any], Any]                         # as int64

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *xs: self.call(name, *xs)

    def unit(self, *words: Any) -> Any:
        """Uniform in (0, 1) from one word or two: the middles of 2**32 or 2**52 intervals."""
        first = self.real(words[0])
        if len(words) == 1:
            return (first + 0.5) * 2.0**-32
        return (first * 2.0**20 + self.real(self.shift(words[1], 12)) + 0.5) * 2.0**-52


def _select(condition: Any, a: Any, b: Any) -> Any:
    like = next(e for e in (a, b) if isinstance(e, ir.E))
    return ir.select(condition, *(e if isinstance(e, ir.E) else ir.literal(e, like.dtype) for e in (a, b)))


_NUMPY: dict[str, Callable[..., Any]] = {"gammaln": _flat(math.lgamma), "abs": np.abs}
KERNEL = Functions(ir.call, lambda e: ir.cast(e, "float64"), lambda e, bits: ir.call("shr", e, bits),
                   lambda test, a, b: ir.cond(test, a(), b), _select, lambda e: ir.cast(e, "int64"))
ARRAYS = Functions(lambda name, *xs: _NUMPY.get(name, getattr(np, name, None))(*xs), lambda a: a.astype(np.float64),
                   lambda a, bits: a >> np.uint64(bits), lambda test, a, b: np.where(test, a(), b), np.where, lambda a: a.astype(np.int64))


@dataclass(frozen=True)
class Attempt:
    """A value, whether it is clearly accepted, and the exact test for those that are not clear."""

    value: Any
    clearly: Any
    exactly: Callable[[], Any]


class Drawn(Stochastic):
    """A row of a stream's state and float64 operands of the result's shape.

    Attributes: draw, the first number of the stream that it uses; shared, how many leading axes there are along which the same is
    drawn: those that batching puts in front.
    """

    dtype = "float64"

    def infer(self, state: Type, *operands: Type, draw: int, shared: int = 0) -> Type:
        if any(p.dims != operands[0].dims for p in operands):
            raise ShapeError(four_parts(f"{self.name} with parameters of one shape", [str(p) for p in operands]))
        return Type(self.dtype, operands[0].dims)

    def vjp(self, g: Node, y: Node, *xs: Node, **attrs: Any) -> Any:
        return tuple(STOP for _ in xs)


def words_at(i: tuple, state: View, like: View, shared: int) -> Words:
    """The words that an element draws, in a kernel."""
    return lambda number: philox_words(*counter_at(i[shared:], like.dims[shared:], state, number))


def words_of(state: np.ndarray, like: np.ndarray, shared: int) -> Words:
    """The words that the elements of an array draw; they broadcast along the shared axes."""
    return lambda number: philox(*counters(like.shape[shared:], state, number))


class Quick(Drawn):
    """The values of a draw's first attempts where they are clearly accepted, MISSING elsewhere."""

    def __init__(self, draw: Draw):
        object.__setattr__(self, "of", draw)
        object.__setattr__(self, "samples", [sample(*s.args[:-1], **s.attrs, low=s.low, high=s.high, dtypes=s.dtypes, grad=False) for s in draw.samples])
        super().__init__(f"{draw.name}_quick")

    def at(self, i: tuple, state: View, *parameters: View, draw: int, shared: int = 0) -> Any:
        return self.of.quickly(words_at(i, state, parameters[0], shared)(draw), [p[i] for p in parameters], KERNEL)

    def numpy(self, state: np.ndarray, *parameters: np.ndarray, draw: int, shared: int = 0) -> np.ndarray:
        return self.of.quickly(words_of(state, parameters[0], shared)(draw), parameters, ARRAYS)


class Draw(Drawn):
    """The values of a draw, from its parameters and what `Quick` found. A derived row has `attempt` and what becomes of its value."""

    attempts = COUNT_ATTEMPTS
    numbers = COUNT_ATTEMPTS            # of the stream, from `draw` on

    def __init__(self, name: str):
        super().__init__(name)
        object.__setattr__(self, "quick", Quick(self))

    def __call__(self, state: Node, *parameters: Node, draw: int) -> Node:
        operands = [state, *(cast(p, "float64") for p in parameters)]
        return make(self, [*operands, make(self.quick, operands, draw=draw)], draw=draw)

    def at(self, i: tuple, state: View, *operands: View, draw: int, shared: int = 0) -> Any:
        words, (*parameters, quick) = words_at(i, state, operands[0], shared), (x[i] for x in operands)

        def one(k: Any) -> Any:
            found = self.attempt(words(draw + k), parameters, KERNEL)
            return _select(ir.cond(found.clearly, found.clearly, found.exactly()), found.value, math.nan)

        slow = ir.fold("first", [self.attempts], one)
        slow = _select(ir.call("isnan", slow), self.middle(parameters, KERNEL), slow)
        return self.finished(ir.cond(ir.call("eq", quick, MISSING), slow, quick), words, draw, parameters, KERNEL)

    def numpy(self, state: np.ndarray, *operands: np.ndarray, draw: int, shared: int = 0) -> np.ndarray:
        words, (*parameters, quick) = words_of(state, operands[0], shared), operands
        value = np.where(quick == MISSING, np.nan, quick)
        for k in range(self.attempts):
            found = self.attempt(words(draw + k), parameters, ARRAYS)
            value = np.where(np.isnan(value) & (found.clearly | found.exactly()), found.value, value)
        value = np.where(np.isnan(value), self.middle(parameters, ARRAYS), value)
        return self.finished(value, words, draw, parameters, ARRAYS)

    def quickly(self, words: tuple, parameters: Any, f: Functions) -> Any:
        """The first attempt, or MISSING."""
        found = self.attempt(words, parameters, f)
        return f.where(found.clearly, found.value, MISSING)

    def attempt(self, words: tuple, parameters: Any, f: Functions) -> Attempt:
        raise NotImplementedError

    def middle(self, parameters: Any, f: Functions) -> Any:
        """What stands in where all attempts fail."""
        raise NotImplementedError

    def finished(self, value: Any, words: Words, draw: int, parameters: Any, f: Functions) -> Any:
        """The result from the value accepted."""
        raise NotImplementedError


# ----------------------------------------------------------------------------------------------- gamma
class LogGammaDraw(Draw):
    """The logarithm of a standard gamma draw. Marsaglia and Tsang 2000; below shape 1 by G(a) = G(a + 1) * U**(1/a), their section 6.

    Its derivative in the shape keeps the draw's quantile: implicit reparameterisation (Figurnov, Mohamed and Mnih 2018).
    """

    attempts, numbers = GAMMA_ATTEMPTS, GAMMA_ATTEMPTS + 1
    samples = [sample(np.array([7, 3], "uint64"), (3, 4), np.full((3, 4), MISSING), draw=5, low=0.05, high=4.0, dtypes=("float64",), grad=False)]

    def attempt(self, words: tuple, parameters: Any, f: Functions) -> Attempt:
        """d * t**3, of which the value is 3 * log(t)."""
        d = _boosted(parameters[0], f)
        x = f.sqrt(f.log(f.unit(words[0], words[1])) * -2) * sine_of_half_turn(f.unit(words[2]), 11)
        t, u, x2 = x / f.sqrt(d * 9) + 1, f.unit(words[3]), x * x
        log3 = 3 * f.log(t)                             # NaN below 0, which is refused
        return Attempt(log3, u < 1 - 0.0331 * x2 * x2, lambda: f.log(u) < 0.5 * x2 + d * (1 - t * t * t + log3))

    def middle(self, parameters: Any, f: Functions) -> Any:
        return 0.0

    def finished(self, value: Any, words: Words, draw: int, parameters: Any, f: Functions) -> Any:
        a, = parameters
        y = f.log(_boosted(a, f)) + value
        y = f.lazily(a < 1, lambda: y + f.log(f.unit(*words(draw + self.attempts)[:2])) / a, y)
        return f.where(a < 0, math.nan, y)

    def vjp(self, g: Node, y: Node, state: Node, shape: Node, quick: Node, **attrs: Any) -> Any:
        return STOP, g * log_gamma_slope(y, shape), STOP


def _boosted(a: Any, f: Functions) -> Any:
    """d of Marsaglia and Tsang, for a shape of 1 or more."""
    return f.where(a < 1, a + 1, a) - 1 / 3


NODES, DEPTH = 24, 24.0


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's points and weights on (0, 1)."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    return (points + 1) / 2, weights / 2


def log_gamma_slope(y: Node, a: Node) -> Node:
    """d y / d a along a quantile, for y the logarithm of a gamma variate x of shape a; relative error below 1e-7.

    It is minus the derivative of the distribution function in a over its density, and so, with t = log of the variable and D the
    digamma function, either of

        integral over t > y of (t - D(a)) * exp(a * (t - y) - (exp(t) - x)) dt
        integral over t < y of (D(a) - t) * exp(a * (t - y) - (exp(t) - x)) dt

    The one is taken whose integrand has one sign: nothing cancels. It falls by exp(-DEPTH) within `span`. The lower one is taken
    for a + 1 and brought back by P(a, x) = P(a + 1, x) + x**a * exp(-x) / Gamma(a + 1), for a small a makes its tail long.
    """
    x, above = exp(y), digamma(a + 1)
    upper = y > maximum(above - 1 / a, 0)
    b, centre = where(upper, a, a + 1), where(upper, above - 1 / a, above)
    side = where(upper, 1.0, -1.0).astype("float64")
    slope = side * (x - b)
    span = 2 * DEPTH / (slope + sqrt(slope * slope + where(upper, 2.0, 4 / 3).astype("float64") * DEPTH * x))
    # on the lower side that bound on the exponent holds up to distance 1; beyond, a line does
    span = where(upper | (span <= 1), span, (DEPTH + x) / b)
    points, weights = _quadrature()
    column = lambda v: expand_dims(v, -1)
    t = column(span) * points
    signed = column(side) * t
    total = span * sum_((column(side * (y - centre)) + t) * exp(column(b) * signed - column(x) * expm1(signed)) * weights, axis=-1)
    return where(upper, total, (above - y + x * total) / a)


# ---------------------------------------------------------------------------------------------- counts
@dataclass(frozen=True)
class Rejection:
    """Transformed rejection (Hoermann 1993): floor((2a / us + b) u + centre), with u uniform in (-1/2, 1/2) and us its distance
    from the ends, accepted by v, uniform in (0, 1): at once where v <= quick and us >= 0.07, else by `log_mass`.
    """

    a: Any
    b: Any
    centre: Any
    quick: Any
    scale: Any
    log_mass: Callable[[Any], Any]

    def attempt(self, w: tuple, f: Functions) -> Attempt:
        u, v = f.unit(w[0], w[1]) - 0.5, f.unit(w[2], w[3])
        us = 0.5 - f.abs(u)
        n = f.floor((2 * self.a / us + self.b) * u + self.centre)
        exactly = lambda: (n >= 0) & (f.log(v * self.scale / (self.a / (us * us) + self.b)) <= self.log_mass(n))
        return Attempt(n, (us >= 0.07) & (v <= self.quick), exactly)


@dataclass(frozen=True)
class Terms:
    """Probabilities of 0, 1, 2 ...: the first, and each as `ratio(k)` times the one before it."""

    first: Any
    ratio: Callable[[int], Any]

    def inverted(self, u: Any, f: Functions) -> Any:
        """How many of their partial sums are at most u."""
        term = total = self.first
        count = f.count(u >= total)
        for k in range(TERMS - 1):
            term = term * self.ratio(k)
            total = total + term
            count = count + f.count(u >= total)
        return f.real(count)


class CountDraw(Draw):
    """A count: term by term where few are expected, else by rejection. A derived row says how, from the expected count and more."""

    dtype = "int64"

    def quickly(self, words: tuple, parameters: Any, f: Functions) -> Any:
        expected, more, _ = self.normal_form(*parameters, f)
        few = self.terms(expected, more, f).inverted(f.unit(words[0], words[1]), f)
        return f.where(expected < FEW, few, super().quickly(words, parameters, f))

    def attempt(self, words: tuple, parameters: Any, f: Functions) -> Attempt:
        expected, more, _ = self.normal_form(*parameters, f)
        return self.rejection(expected, more, f).attempt(words, f)

    def middle(self, parameters: Any, f: Functions) -> Any:
        return f.floor(self.normal_form(*parameters, f)[0])

    def finished(self, value: Any, words: Words, draw: int, parameters: Any, f: Functions) -> Any:
        return f.count(self.normal_form(*parameters, f)[2](value))

    def normal_form(self, *parameters: Any) -> tuple:
        """The expected count, what else the formulas need, and what becomes of the count."""
        raise NotImplementedError

    def terms(self, expected: Any, more: Any, f: Functions) -> Terms:
        raise NotImplementedError

    def rejection(self, expected: Any, more: Any, f: Functions) -> Rejection:
        raise NotImplementedError


class PoissonDraw(CountDraw):
    """Counts with this mean (0 to about 1e12). By rejection: Hoermann 1993, "The transformed rejection method for generating
    Poisson random variables", algorithm PTRS.
    """

    samples = [sample(np.array([7, 3], "uint64"), (3, 4), np.full((3, 4), MISSING), draw=5, low=10.0, high=40.0, dtypes=("float64",), grad=False)]

    def normal_form(self, mean: Any, f: Functions) -> tuple:
        return mean, None, lambda count: count

    def terms(self, mean: Any, p: None, f: Functions) -> Terms:
        return Terms(f.exp(-mean), lambda k: mean * (1 / (k + 1)))

    def rejection(self, mean: Any, p: None, f: Functions) -> Rejection:
        b = 0.931 + 2.53 * f.sqrt(mean)
        log_mean = f.log(mean)
        return Rejection(-0.059 + 0.02483 * b, b, mean + 0.43, 0.9277 - 3.6224 / (b - 2), 1.1239 + 1.1328 / (b - 3.4),
                         lambda n: n * log_mean - mean - f.gammaln(n + 1))


class BinomialDraw(CountDraw):
    """Successes among n trials of probability p. By rejection: Hoermann 1993, "The generation of binomial random variates",
    algorithm BTRS. For p above 1/2 the failures are drawn.
    """

    samples = [sample(np.array([7, 3], "uint64"), np.array([30.0, 40.0, 100.0]), np.array([0.4, 0.7, 0.4]), np.full(3, MISSING), draw=5,
                      dtypes=("float64",), grad=False)]

    def normal_form(self, n: Any, p: Any, f: Functions) -> tuple:
        rare = f.where(p <= 0.5, p, 1 - p)
        return n * rare, (n, rare), lambda count: f.where(p <= 0.5, count, n - count)

    def terms(self, expected: Any, parameters: tuple, f: Functions) -> Terms:
        n, p = parameters
        odds = p / (1 - p)
        return Terms(f.exp(n * f.log1p(-p)), lambda k: (n - k) * odds * (1 / (k + 1)))

    def rejection(self, expected: Any, parameters: tuple, f: Functions) -> Rejection:
        n, p = parameters
        deviation = f.sqrt(expected * (1 - p))
        b = 1.15 + 2.53 * deviation
        mode, log_odds = f.floor((n + 1) * p), f.log(p / (1 - p))
        log_ways = lambda k: -f.gammaln(k + 1) - f.gammaln(n - k + 1)
        inside = lambda k: f.where(k <= n, log_ways(k) - log_ways(mode) + (k - mode) * log_odds, -math.inf)
        return Rejection(-0.0873 + 0.0248 * b + 0.01 * p, b, expected + 0.5, 0.92 - 4.2 / b, (2.83 + 5.1 / b) * deviation, inside)


log_gamma_draw = LogGammaDraw("log_gamma_draw")
poisson_draw = PoissonDraw("poisson_draw")
binomial_draw = BinomialDraw("binomial_draw")

__all__: list[str] = []
