"""Layers with weights, pooling, and activations as layers. Images are (batch, channels, height, width)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar, dataclass, field
from functools import partial
from typing import Any

import numpy as np

import symgrad as sg
import symgrad.tensor as T
from symgrad.nn import init as inits
from symgrad.nn.init import Initialiser, RngLike
from symgrad.nn.layer import Layer

Pair = int | tuple[int, int]
# compared by identity: two layers of equal sizes are two layers
value_layer = dataclass(frozen=True, eq=False, repr=False)


def parameter(value: np.ndarray, name: str) -> Any:
    """A shared variable of the default float type."""
    return sg.shared(np.asarray(value, dtype=sg.config.floatX), name=name)


def set_field(layer: Layer, **values: Any) -> None:
    """Fills fields of a frozen layer while it is being made."""
    for key, value in values.items():
        object.__setattr__(layer, key, value)


@value_layer
class Dense(Layer):
    """x (..., n_in) -> activation(x @ w + b) (..., n_out), with w (n_in, n_out) and b (n_out,)."""

    n_in: int
    n_out: int
    _: KW_ONLY
    activation: Callable[[Any], Any] | None = None
    bias: bool = True
    name: str | None = None
    init: InitVar[Initialiser] = inits.he_normal
    bias_init: InitVar[Initialiser] = inits.zeros
    rng: InitVar[RngLike] = None
    w: Any = field(init=False, repr=False)
    b: Any = field(init=False, repr=False, default=None)

    def __post_init__(self, init: Initialiser, bias_init: Initialiser, rng: RngLike) -> None:
        fans, rng = (self.n_in, self.n_out), inits.generator(rng)
        set_field(self, w=parameter(init((self.n_in, self.n_out), *fans, rng), "w"))
        if self.bias:
            set_field(self, b=parameter(bias_init((self.n_out,), *fans, rng), "b"))

    def forward(self, x: Any) -> Any:
        y = T.matmul(x, self.w)
        return _activated(y if self.b is None else y + self.b, self.activation)


@value_layer
class Conv2D(Layer):
    """x (n, c_in, h, w) -> activation(conv2d(x, w) + b) (n, c_out, h', w').

    Cross-correlation, as in T.conv2d. w (c_out, c_in / groups, kh, kw), b (c_out,). padding: pixels, a
    pair, "same" (stride 1) or "valid".
    """

    c_in: int
    c_out: int
    kernel_size: Pair
    _: KW_ONLY
    stride: Pair = 1
    padding: Pair | str = 0
    dilation: Pair = 1
    groups: int = 1
    bias: bool = True
    activation: Callable[[Any], Any] | None = None
    name: str | None = None
    init: InitVar[Initialiser] = inits.he_normal
    bias_init: InitVar[Initialiser] = inits.zeros
    rng: InitVar[RngLike] = None
    w: Any = field(init=False, repr=False)
    b: Any = field(init=False, repr=False, default=None)

    def __post_init__(self, init: Initialiser, bias_init: Initialiser, rng: RngLike) -> None:
        if self.c_in % self.groups or self.c_out % self.groups:
            raise ValueError(f"Conv2D: groups={self.groups} must divide {self.c_in} and {self.c_out}")
        shape = (self.c_out, self.c_in // self.groups, *_pair(self.kernel_size))
        window = shape[2] * shape[3]
        fans, rng = (shape[1] * window, shape[0] * window), inits.generator(rng)
        set_field(self, w=parameter(init(shape, *fans, rng), "w"))
        if self.bias:
            set_field(self, b=parameter(bias_init((self.c_out,), *fans, rng), "b"))

    def forward(self, x: Any) -> Any:
        y = T.conv2d(x, self.w, self.b, stride=self.stride, padding=self.padding, dilation=self.dilation,
                     groups=self.groups)
        return _activated(y, self.activation)


@value_layer
class MaxPool2D(Layer):
    """The largest value of each window; stride defaults to the window."""

    kernel_size: Pair
    stride: Pair | None = None
    _: KW_ONLY
    padding: Pair = 0
    dilation: Pair = 1
    ceil_mode: bool = False
    name: str | None = None

    def forward(self, x: Any) -> Any:
        return T.max_pool2d(x, self.kernel_size, self.stride, padding=self.padding, dilation=self.dilation,
                            ceil_mode=self.ceil_mode)


@value_layer
class AvgPool2D(Layer):
    """The mean of each window, padding counted as zeros; stride defaults to the window."""

    kernel_size: Pair
    stride: Pair | None = None
    _: KW_ONLY
    padding: Pair = 0
    ceil_mode: bool = False
    name: str | None = None

    def forward(self, x: Any) -> Any:
        return T.avg_pool2d(x, self.kernel_size, self.stride, padding=self.padding, ceil_mode=self.ceil_mode)


@value_layer
class GlobalAvgPool(Layer):
    """x (n, c, ...) -> the mean over everything but batch and channels, (n, c)."""

    _: KW_ONLY
    name: str | None = None

    def forward(self, x: Any) -> Any:
        return T.mean(x, axis=tuple(range(2, x.ndim)))


@value_layer
class Flatten(Layer):
    """x (n, ...) -> (n, product of the rest)."""

    _: KW_ONLY
    name: str | None = None

    def forward(self, x: Any) -> Any:
        return x.reshape((x.shape[0], -1))


@value_layer
class Embedding(Layer):
    """Integer array (...) -> the rows of a table (n_rows, width) it names, (..., width).

    padding_idx: a row that starts as zeros and gets no gradient, for places that hold nothing; negative ones count from the end.
    """

    n_rows: int
    width: int
    _: KW_ONLY
    padding_idx: int | None = None
    name: str | None = None
    init: InitVar[Initialiser] = inits.normal(1.0)
    rng: InitVar[RngLike] = None
    w: Any = field(init=False, repr=False)

    def __post_init__(self, init: Initialiser, rng: RngLike) -> None:
        value = init((self.n_rows, self.width), self.n_rows, self.width, inits.generator(rng))
        if self.padding_idx is not None:
            if not -self.n_rows <= self.padding_idx < self.n_rows:
                raise ValueError(f"Embedding: padding_idx={self.padding_idx} is none of {self.n_rows} rows")
            value[self.padding_idx] = 0
        set_field(self, w=parameter(value, "w"))

    def forward(self, index: Any) -> Any:
        rows = self.w[index]
        if self.padding_idx is None:
            return rows
        padding = T.expand_dims(T.equal(index % self.n_rows, self.padding_idx % self.n_rows), -1)
        return T.where(padding, sg.stop_gradient(rows), rows)


@value_layer
class Activation(Layer):
    """Any function of one variable as a layer: Activation(T.tanh, label="tanh")."""

    function: Callable[[Any], Any]
    _: KW_ONLY
    label: str = "activation"
    name: str | None = None

    def forward(self, x: Any) -> Any:
        return self.function(x)

    def kind(self) -> str:
        return self.label


def ReLU(*, name: str | None = None) -> Activation:
    """max(x, 0)."""
    return Activation(T.relu, label="relu", name=name)


def LeakyReLU(negative_slope: float = 0.01, *, name: str | None = None) -> Activation:
    """x where positive, negative_slope * x elsewhere. Maas et al. 2013."""
    return Activation(partial(T.leaky_relu, negative_slope=negative_slope), label="leaky_relu", name=name)


def ELU(alpha: float = 1.0, *, name: str | None = None) -> Activation:
    """x where positive, alpha * (exp(x) - 1) elsewhere. Clevert et al. 2016."""
    return Activation(partial(T.elu, alpha=alpha), label="elu", name=name)


def GELU(*, name: str | None = None) -> Activation:
    """x times the normal distribution function of x. Hendrycks and Gimpel 2016."""
    return Activation(T.gelu, label="gelu", name=name)


def SiLU(*, name: str | None = None) -> Activation:
    """x * sigmoid(x). Elfwing et al. 2018."""
    return Activation(T.silu, label="silu", name=name)


def Tanh(*, name: str | None = None) -> Activation:
    """Hyperbolic tangent."""
    return Activation(T.tanh, label="tanh", name=name)


def Sigmoid(*, name: str | None = None) -> Activation:
    """1 / (1 + exp(-x))."""
    return Activation(T.sigmoid, label="sigmoid", name=name)


def Softplus(*, name: str | None = None) -> Activation:
    """log(1 + exp(x))."""
    return Activation(T.softplus, label="softplus", name=name)


def Softmax(axis: int = -1, *, name: str | None = None) -> Activation:
    """exp(x) scaled to sum to one along an axis."""
    return Activation(partial(T.softmax, axis=axis), label="softmax", name=name)


def _activated(y: Any, activation: Callable[[Any], Any] | None) -> Any:
    return y if activation is None else activation(y)


def _pair(size: Pair) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
