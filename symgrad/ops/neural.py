"""Neural ops, named as in torch.nn.functional (`axis` for `dim`): activations, softmax, norms, distances.

Laws of one element are rows. What is composed of rows and deserves a name is a block: one node that a
gradient override can select, opened when it is compiled.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import DTypeError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.block import block
from ..graph.node import Node, make
from ..graph.types import Type, shape_text
from ..loops import ir
from ..loops.ir import E, View
from . import reduce
from .create import arange
from .elementwise import (
    absolute,
    erf,
    exp,
    maximum,
    minimum,
    multiply,
    number,
    power,
    rsqrt,
    sigmoid,
    tanh,
    where,
)
from .linear import einsum, matmul
from .pool import avg_pool1d
from .row import Elementwise, Row, as_tensor, cast, normalize_axis, promoted, sample
from .shape import expand_dims, reshape, shape_tuple, swapaxes, transpose
from .sizes import differ

_SHAPES = [sample((3, 4)), sample((0, 2)), sample(())]


# ------------------------------------------------------------------------------------------ activations
class Activation(Elementwise):
    """An elementwise row of one operand with attributes that may also be given by position, as in torch.

    `spelling` is a function whose signature is the public one: operand first, then the attributes with their
    defaults.
    """

    def __init__(self, spelling: Callable[..., Any], law: Callable[..., E], numpy: Callable[..., Any],
                 vjp: Callable[..., Any], *,
                 kinks: Sequence[float] = (), kind: str = "float"):
        signature = inspect.signature(spelling)
        defaults = {k: p.default for k, p in list(signature.parameters.items())[1:]}
        filled = {k: 0.5 if v is inspect.Parameter.empty else v for k, v in defaults.items()}
        object.__setattr__(self, "signature", signature)
        super().__init__(spelling.__name__, law, numpy=numpy, vjp=vjp, kind=kind, kinks=kinks,
                         doc=spelling.__doc__ or "",
                         samples=[sample(*s.args, **filled) for s in _SHAPES])

    def __call__(self, *args: Any, **kwargs: Any) -> Node:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        (_, x), *attrs = bound.arguments.items()
        return make(self, self.operands([as_tensor(x)]), **{k: self.attribute(k, v) for k, v in attrs})

    def attribute(self, name: str, value: Any) -> float | str:
        if isinstance(value, (str, int, float, np.number)):
            return value if isinstance(value, str) else float(value)
        raise DTypeError(four_parts(f"{self.name} with {name}={value!r}",
                                    f"{type(value).__name__}: an attribute is a number", show(user_line()),
                                    "T.where or T.prelu for a slope that is a variable"))


def _activation(law: Callable[..., E], numpy: Callable[..., Any], vjp: Callable[..., Any],
                **more: Any) -> Callable[[Callable], Activation]:
    return lambda spelling: Activation(spelling, law, numpy, vjp, **more)


def _choose(condition: E, a: Any, b: Any) -> E:
    like = a if isinstance(a, E) else b
    return ir.select(condition, *(v if isinstance(v, E) else ir.literal(v, like.dtype) for v in (a, b)))


def _gate(condition: Node, g: Node) -> Node:
    return where(condition, g, number(0, g))


@_activation(lambda x, negative_slope: _choose(x > 0, x, x * negative_slope),
             lambda x, negative_slope: np.where(x > 0, x, x * x.dtype.type(negative_slope)),
             lambda g, y, x, negative_slope: (where(x > 0, g, g * negative_slope),), kinks=(0.0,))
def leaky_relu(x, negative_slope=0.01):
    """x where x > 0, else negative_slope * x."""


@_activation(lambda x, alpha: _choose(x > 0, x, ir.call("expm1", x) * alpha),
             lambda x, alpha: np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(x)),
             lambda g, y, x, alpha: (where(x > 0, g, g * (alpha * exp(minimum(x, 0)))),), kinks=(0.0,))
def elu(x, alpha=1.0):
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016)."""


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


@_activation(lambda x: _choose(x > 0, x * _SELU_SCALE, ir.call("expm1", x) * (_SELU_SCALE * _SELU_ALPHA)),
             lambda x: np.where(x > 0, x * x.dtype.type(_SELU_SCALE),
                                np.expm1(x) * x.dtype.type(_SELU_SCALE * _SELU_ALPHA)),
             lambda g, y, x: (g * where(x > 0, number(_SELU_SCALE, x),
                                        exp(minimum(x, 0)) * (_SELU_SCALE * _SELU_ALPHA)),), kinks=(0.0,))
def selu(x):
    """The self-normalising elu (Klambauer et al. 2017)."""


@_activation(lambda x, alpha: _choose(x > 0, x, ir.call("expm1", x / alpha) * alpha),
             lambda x, alpha: np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(x / x.dtype.type(alpha))),
             lambda g, y, x, alpha: (where(x > 0, g, g * exp(minimum(x, 0) / alpha)),))
def celu(x, alpha=1.0):
    """x where x > 0, else alpha * (exp(x / alpha) - 1): continuously differentiable (Barron 2017)."""


_ROOT_HALF, _ROOT_2_OVER_PI, _CUBE = math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715


def _gelu_law(x: E, approximate: str) -> E:
    if approximate == "tanh":
        return x * 0.5 * (1 + ir.call("tanh", (x + x * x * x * _CUBE) * _ROOT_2_OVER_PI))
    return x * 0.5 * (1 + ir.call("erf", x * _ROOT_HALF))


def _gelu_numpy(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return (0.5 * x * (1 + np.tanh(_ROOT_2_OVER_PI * (x + _CUBE * x**3)))).astype(x.dtype)
    return (0.5 * x * (1 + erf.numpy(_ROOT_HALF * x))).astype(x.dtype)


def _gelu_vjp(g: Node, y: Node, x: Node, approximate: str):
    if approximate == "tanh":
        t = tanh((x + x * x * x * _CUBE) * _ROOT_2_OVER_PI)
        slope = (1 + x * x * (3 * _CUBE)) * _ROOT_2_OVER_PI
        return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope),)
    density = exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return (g * (0.5 * (1 + erf(x * _ROOT_HALF)) + x * density),)


class _Gelu(Activation):
    def attribute(self, name: str, value: Any) -> str:
        if value not in ("none", "tanh"):
            raise DTypeError(four_parts(f"gelu with approximate={value!r}", "it names the formula",
                                        show(user_line()), "'none' (exact) or 'tanh'"))
        return value


def gelu(x, approximate="none"):
    """x times the normal distribution function at x, or the "tanh" formula (Hendrycks and Gimpel 2016)."""


gelu = _Gelu(gelu, _gelu_law, _gelu_numpy, _gelu_vjp)


def _np_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(x.dtype.type(0), -x))


def _silu_vjp(g: Node, y: Node, x: Node):
    s = sigmoid(x)
    return (g * (s + y * (1 - s)),)


@_activation(lambda x: x * ir.call("sigmoid", x), lambda x: x * _np_sigmoid(x), _silu_vjp)
def silu(x):
    """x * sigmoid(x), also called swish (Elfwing et al. 2018)."""


swish = silu


_MISH_LINEAR = 20.0         # from here on tanh(softplus(x)) is 1 in float64


def _mish_law(x: E) -> E:
    # tanh(log(1 + e)) = n / (n + 2) with n = e * (e + 2): one exponential instead of three functions
    e = ir.call("exp", ir.call("minimum", x, _MISH_LINEAR))
    n = e * (e + 2)
    return x * (n / (n + 2))


def _mish_vjp(g: Node, y: Node, x: Node):
    e = exp(minimum(x, _MISH_LINEAR))
    n = e * (e + 2)
    t = n / (n + 2)
    return (g * (t + x * (1 - t * t) * e / (1 + e)),)


@_activation(_mish_law,
             lambda x: x * np.tanh(np.logaddexp(x, x.dtype.type(0))), _mish_vjp)
def mish(x):
    """x * tanh(softplus(x)) (Misra 2019)."""


def _limited(x: E, low: float, high: float) -> E:
    return ir.call("minimum", ir.call("maximum", x, low), high)


@_activation(lambda x, min_val, max_val: _limited(x, min_val, max_val),
             lambda x, min_val, max_val: np.clip(x, x.dtype.type(min_val), x.dtype.type(max_val)),
             lambda g, y, x, min_val, max_val: (_gate((x > min_val) & (x < max_val), g),), kinks=(-1.0, 1.0),
             kind="same")
def hardtanh(x, min_val=-1.0, max_val=1.0):
    """x limited to [min_val, max_val]; no gradient at the bounds and beyond."""


@_activation(lambda x: _limited(x, 0, 6), lambda x: np.clip(x, x.dtype.type(0), x.dtype.type(6)),
             lambda g, y, x: (_gate((x > 0) & (x < 6), g),), kinks=(0.0, 6.0), kind="same")
def relu6(x):
    """x limited to [0, 6]."""


@_activation(lambda x: _limited(x + 3, 0, 6) / 6, lambda x: np.clip(x + 3, 0, 6) / x.dtype.type(6),
             lambda g, y, x: (_gate((x > -3) & (x < 3), g * (1 / 6)),), kinks=(-3.0, 3.0))
def hardsigmoid(x):
    """relu6(x + 3) / 6 (Howard et al. 2019)."""


@_activation(lambda x: x * _limited(x + 3, 0, 6) / 6, lambda x: x * np.clip(x + 3, 0, 6) / x.dtype.type(6),
             lambda g, y, x: (g * where(x < -3, number(0, x), where(x <= 3, x / 3 + 0.5, number(1, x))),),
             kinks=(-3.0, 3.0))
def hardswish(x):
    """x * relu6(x + 3) / 6 (Howard et al. 2019)."""


def _softsign_vjp(g: Node, y: Node, x: Node):
    d = 1 + absolute(x)
    return (g / (d * d),)


@_activation(lambda x: x / (1 + ir.call("abs", x)), lambda x: x / (1 + np.abs(x)), _softsign_vjp)
def softsign(x):
    """x / (1 + |x|)."""


@_activation(lambda x: x - ir.call("tanh", x), lambda x: x - np.tanh(x),
             lambda g, y, x: (g * tanh(x) * tanh(x),))
def tanhshrink(x):
    """x - tanh(x)."""


@_activation(lambda x, lambd: _choose((x > lambd) | (x < -lambd), x, 0.0),
             lambda x, lambd: np.where(np.abs(x) > lambd, x, x.dtype.type(0)),
             lambda g, y, x, lambd: (_gate(absolute(x) > lambd, g),), kinks=(-0.5, 0.5))
def hardshrink(x, lambd=0.5):
    """x where |x| > lambd, else 0."""


@_activation(lambda x, lambd: _choose(x > lambd, x - lambd, _choose(x < -lambd, x + lambd, 0 * x)),
             lambda x, lambd: np.sign(x) * np.maximum(np.abs(x) - x.dtype.type(lambd), 0),
             lambda g, y, x, lambd: (_gate(absolute(x) > lambd, g),), kinks=(-0.5, 0.5))
def softshrink(x, lambd=0.5):
    """x moved towards 0 by lambd, as far as 0."""


@_activation(lambda x, threshold, value: _choose(x > threshold, x, value),
             lambda x, threshold, value: np.where(x > threshold, x, x.dtype.type(value)),
             lambda g, y, x, threshold, value: (_gate(x > threshold, g),), kinks=(0.5,), kind="same")
def threshold(x, threshold, value):
    """x where x > threshold, else value."""


def _channel_shape(values: Node, x: Node) -> Node:
    """values (c,) shaped to multiply x (n, c, ...)."""
    return reshape(values,
                   (values.dims[0], *(1,) * (x.ndim - 2))) if values.ndim == 1 and x.ndim > 1 else values


@block
def prelu(x, weight):
    """x where x > 0, else weight * x, with one weight or one per channel (axis 1) (He et al. 2015)."""
    x, weight = promoted(x, weight)
    if weight.ndim == 1 and x.ndim > 1 and differ(weight.dims[0], x.dims[1]) and weight.dims[0] != 1:
        raise ShapeError(four_parts(f"prelu with {weight.dims[0]} weights",
                                    f"{x.dims[1]} channels in {shape_text(x.dims)}", show(user_line())))
    return where(x > 0, x, _channel_shape(weight, x) * x)


def _halves(x: Any, axis: int, what: str) -> list[Node]:
    x = as_tensor(x)
    axis = normalize_axis(axis, x.ndim, what)
    size = x.dims[axis]
    if isinstance(size, int) and size % 2:
        raise ShapeError(four_parts(f"{what} along axis {axis}", f"its size {size} is odd", show(user_line()),
                                    "an even size: half gates the other half"))
    half = poly.floordiv(size, 2)
    wide = reshape(x, (*x.dims[:axis], 2, half, *x.dims[axis + 1:]))
    return [wide[(slice(None),) * axis + (k,)] for k in (0, 1)]


@block
def glu(x, axis=-1):
    """a * sigmoid(b) for the two halves a, b of x along `axis` (Dauphin et al. 2017)."""
    a, b = _halves(x, axis, "glu")
    return a * sigmoid(b)


# ---------------------------------------------------------------------------------------------- softmax
class _Normalized(Row):
    """Rows over one axis with attribute `axis`."""

    samples = [sample((3, 4), axis=1), sample((2, 3, 4), axis=0), sample((3, 0), axis=0),
               sample((0, 3), axis=1), sample((1,), axis=0),
               sample((2, 5), axis=1, low=-300, high=300, grad=False)]

    def infer(self, x: Type, *, axis: int) -> Type:
        return x

    def shifted(self, i: tuple, x: View, axis: int) -> tuple[E, E]:
        """x[i] minus the maximum along the axis, and the sum of exponentials of such differences."""
        there = lambda k: x[(*i[:axis], k, *i[axis + 1:])]
        top = ir.fold("maximum", [x.dims[axis]], there)
        return x[i] - top, ir.fold("add", [x.dims[axis]], lambda k: ir.call("exp", there(k) - top))

    def __call__(self, x, axis=-1, dtype=None):
        x = as_tensor(x)
        if not x.ndim:
            raise ShapeError(four_parts(f"{self.name} along an axis", "a scalar", show(user_line()),
                                        "x of at least one axis"))
        return make(self, [cast(x, dtype or dtypes.as_float(x.dtype))],
                    axis=normalize_axis(axis, x.ndim, self.name))


class Softmax(_Normalized):
    """exp(x) / sum(exp(x)) along an axis, without overflow. Sums to 1."""

    def at(self, i, x, *, axis):
        difference, total = self.shifted(i, x, axis)
        return ir.call("exp", difference) / total

    def numpy(self, x, *, axis):
        with np.errstate(all="ignore"):
            e = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
            return e / e.sum(axis=axis, keepdims=True)

    def vjp(self, g, y, x, *, axis):
        return (y * (g - reduce.sum(g * y, axis=axis, keepdims=True)),)


class LogSoftmax(_Normalized):
    """log(softmax(x)) along an axis, without overflow or log(0)."""

    def at(self, i, x, *, axis):
        difference, total = self.shifted(i, x, axis)
        return difference - ir.call("log", total)

    def numpy(self, x, *, axis):
        with np.errstate(all="ignore"):
            d = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
            return d - np.log(np.exp(d).sum(axis=axis, keepdims=True))

    def vjp(self, g, y, x, *, axis):
        return (g - exp(y) * reduce.sum(g, axis=axis, keepdims=True),)


softmax, log_softmax = Softmax("softmax"), LogSoftmax("log_softmax")
logsoftmax = log_softmax


def softmin(x, axis=-1):
    """softmax(-x) along an axis."""
    return softmax(-as_tensor(x), axis)


# --------------------------------------------------------------------------------------- normalisations
def _float(x: Any) -> Node:
    x = as_tensor(x)
    return cast(x, dtypes.as_float(x.dtype))


def _mean(x: Node, axes: tuple[int, ...]) -> Node:
    return reduce.mean(x, axis=axes, keepdims=True)


def _standardized(x: Node, axes: tuple[int, ...], eps: float) -> Node:
    """x minus its mean over axes, divided by sqrt(variance + eps); the variance is the biased one."""
    centred = x - _mean(x, axes)
    return centred * rsqrt(_mean(centred * centred, axes) + eps)


def _check_size(what: str, name: str, values: Node, dims: Sequence[Any]) -> None:
    if values.ndim != len(dims) or any(map(differ, values.dims, dims)):
        raise ShapeError(four_parts(f"{what} with {name} of shape {shape_text(tuple(dims))}",
                                    shape_text(values.dims), show(user_line())))


def _per_channel(what: str, x: Node, **values: Any) -> list[Node | None]:
    """Vectors (c,) as (c, 1, ...), checked; None stays None."""
    result: list[Node | None] = []
    for name, v in values.items():
        if v is not None:
            v = as_tensor(v)
            _check_size(what, name, v, (x.dims[1],))
            v = reshape(v, (v.dims[0], *(1,) * (x.ndim - 2)))
        result.append(v)
    return result


def _scaled(y: Node, weight: Node | None, bias: Node | None) -> Node:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _last_axes(what: str, x: Node, normalized_shape: Any) -> tuple[int, ...]:
    dims = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not dims or len(dims) > x.ndim or any(map(differ, dims, x.dims[x.ndim - len(dims):])):
        raise ShapeError(four_parts(f"{what} over the last axes {dims}", f"x has shape {shape_text(x.dims)}",
                                    show(user_line()),
                                    "normalized_shape is the end of x.shape"))
    return tuple(range(x.ndim - len(dims), x.ndim))


@block
def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """x standardised over its last axes (normalized_shape), times weight plus bias (Ba et al. 2016)."""
    x = _float(x)
    axes = _last_axes("layer_norm", x, normalized_shape)
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None:
            _check_size("layer_norm", name, v, x.dims[axes[0]:])
    return _scaled(_standardized(x, axes, eps), weight, bias)


@block
def rms_norm(x, normalized_shape, weight=None, eps=None):
    """x divided by its root mean square over the last axes, times weight (Zhang and Sennrich 2019).

    eps: by default that of the dtype, as in torch.
    """
    x = _float(x)
    axes = _last_axes("rms_norm", x, normalized_shape)
    if weight is not None:
        _check_size("rms_norm", "weight", weight, x.dims[axes[0]:])
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    return _scaled(x * rsqrt(_mean(x * x, axes) + eps), weight, None)


@block
def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """x (n, c, ...) standardised per channel, times weight plus bias (Ioffe and Szegedy 2015).

    With training=True the statistics are those of the batch, otherwise running_mean and running_var. A graph
    changes nothing, so the running statistics stay as they are and `momentum` is unused: sg.nn.BatchNorm has
    the updates.
    """
    x = _float(x)
    if x.ndim < 2:
        raise ShapeError(four_parts("batch_norm of x (n, c, ...)", shape_text(x.dims), show(user_line())))
    mean, var, weight, bias = _per_channel("batch_norm", x, running_mean=running_mean,
                                           running_var=running_var, weight=weight, bias=bias)
    if training:
        return _scaled(_standardized(x, (0, *range(2, x.ndim)), eps), weight, bias)
    if mean is None or var is None:
        raise ShapeError(four_parts("batch_norm with training=False", "no running statistics",
                                    show(user_line()), "running_mean and running_var, or training=True"))
    scale = rsqrt(var + eps)
    return _scaled((x - mean) * (scale if weight is None else scale * weight), None, bias)


@block
def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """x (n, c, ...) standardised per group of channels, times weight plus bias (Wu and He 2018)."""
    x = _float(x)
    channels = x.dims[1] if x.ndim > 1 else None
    if channels is None or num_groups < 1 or (isinstance(channels, int) and channels % num_groups):
        raise ShapeError(four_parts(f"group_norm with {num_groups} groups", f"x {shape_text(x.dims)}",
                                    show(user_line()), "groups that divide the channels (axis 1)"))
    weight, bias = _per_channel("group_norm", x, weight=weight, bias=bias)
    wide = reshape(x, (x.dims[0], num_groups, poly.floordiv(channels, num_groups), *x.dims[2:]))
    return _scaled(reshape(_standardized(wide, tuple(range(2, wide.ndim)), eps), x.dims), weight, bias)


@block
def instance_norm(x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
                  momentum=0.1, eps=1e-5):
    """x (n, c, *s) standardised per image and channel, times weight plus bias (Ulyanov et al. 2016).

    With use_input_stats=False running_mean and running_var are used; `momentum` is unused, as in batch_norm.
    """
    x = _float(x)
    if x.ndim < 3:
        raise ShapeError(four_parts("instance_norm of x (n, c, *spatial)", shape_text(x.dims),
                                    show(user_line())))
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
    weight, bias = _per_channel("instance_norm", x, weight=weight, bias=bias)
    return _scaled(_standardized(x, tuple(range(2, x.ndim)), eps), weight, bias)


@block
def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """x / (k + alpha * mean of squares of `size` channels around) ** beta (Krizhevsky et al. 2012)."""
    x = _float(x)
    if x.ndim < 3:
        raise ShapeError(four_parts("local_response_norm of x (n, c, *spatial)", shape_text(x.dims),
                                    show(user_line())))
    last = (0, *range(2, x.ndim), 1)
    back = (0, x.ndim - 1, *range(1, x.ndim - 1))
    around = avg_pool1d(transpose(x * x, last), size, 1, ((size // 2, (size - 1) // 2),))
    return x / power(transpose(around, back) * alpha + k, beta)


@block
def normalize(x, p=2.0, axis=1, eps=1e-12):
    """x divided by its p-norm along an axis, which counts as at least eps."""
    x = _float(x)
    return x / maximum(reduce.norm(x, p, axis, keepdims=True), eps)


# -------------------------------------------------------------------------------- distances and lookups
@block
def cosine_similarity(x1, x2, axis=1, eps=1e-8):
    """The cosine of the angle between x1 and x2 along an axis; each norm counts as at least eps."""
    x1, x2 = (_float(x) for x in promoted(x1, x2))
    lengths = multiply(*(maximum(reduce.norm(x, 2, axis), eps) for x in (x1, x2)))
    return reduce.sum(x1 * x2, axis=axis) / lengths


@block
def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdims=False):
    """The p-norm of x1 - x2 + eps along the last axis."""
    x1, x2 = (_float(x) for x in promoted(x1, x2))
    return reduce.norm(x1 - x2 + eps, p, -1, keepdims)


def cdist(x1, x2, p=2.0):
    """Distances between rows: (*batch, m, k) and (*batch, n, k) give (*batch, m, n)."""
    return reduce.norm(expand_dims(_float(x1), -2) - expand_dims(_float(x2), -3), p, -1)


@block
def bilinear(x1, x2, weight, bias=None):
    """x1 W x2 for each W (i, j) of weight (out, i, j), plus bias: (..., i) and (..., j) give (..., out)."""
    return _scaled(einsum("...i,oij,...j->...o", x1, weight, x2), None, bias)


@block
def scaled_dot_product_attention(query, key, value, attn_mask=None, is_causal=False, scale=None):
    """softmax(query key^T * scale) value over the last two axes (Vaswani et al. 2017).

    query (..., l, e), key (..., s, e) and value (..., s, v) give (..., l, v). In attn_mask, (..., l, s), False
    hides a key and numbers are added. is_causal hides keys behind the query. scale is 1 / sqrt(e) by default.
    """
    query, key, value = promoted(query, key, value)
    if query.ndim < 2 or key.ndim < 2 or differ(query.dims[-1], key.dims[-1]):
        raise ShapeError(four_parts("attention of queries (..., l, e) to keys (..., s, e)",
                                    f"{shape_text(query.dims)} and {shape_text(key.dims)}",
                                    show(user_line())))
    if scale is None:
        features = shape_tuple(query)[-1]
        scale = features ** -0.5 if isinstance(features, int) else rsqrt(cast(features, query.dtype))
    scores = matmul(query * scale, swapaxes(key, -1, -2))
    for mask in ([attn_mask] if attn_mask is not None else []) + ([_causal(scores)] if is_causal else []):
        mask = as_tensor(mask)
        scores = where(mask, scores, number(-math.inf, scores)) if mask.dtype == "bool" else scores + mask
    return matmul(softmax(scores), value)


def _causal(scores: Node) -> Node:
    """(l, s): the key's position is at most the query's."""
    rows, columns = (arange(d) for d in shape_tuple(scores)[-2:])
    return expand_dims(rows, 1) >= expand_dims(columns, 0)


def embedding(ids, weight):
    """torch.nn.functional.embedding: the rows of weight (words, features) at integer ids of any shape."""
    ids, weight = as_tensor(ids), as_tensor(weight)
    if not dtypes.is_integer(ids.dtype) or weight.ndim != 2:
        raise DTypeError(four_parts("embedding of integer ids (any shape) in a matrix with one row per word",
                                    f"ids {ids._type}, weight {weight._type}", show(user_line()),
                                    "ids.astype('int64')"))
    return weight[ids]


__all__ = ["batch_norm", "bilinear", "cdist", "celu", "cosine_similarity", "elu", "embedding", "gelu", "glu",
           "group_norm", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "instance_norm", "layer_norm",
           "leaky_relu", "local_response_norm", "log_softmax", "logsoftmax", "mish", "normalize",
           "pairwise_distance",
           "prelu", "relu6", "rms_norm", "scaled_dot_product_attention", "selu", "silu", "softmax", "softmin",
           "softshrink", "softsign", "swish", "tanhshrink", "threshold"]
