"""Normalisation layers."""

from __future__ import annotations

from dataclasses import KW_ONLY, field
from typing import Any, ClassVar

import numpy as np

import symgrad.tensor as T
from symgrad.nn.layer import Layer, training
from symgrad.nn.layers import parameter, set_field, value_layer


@value_layer
class BatchNorm(Layer):
    """x (n, channels, ...) shifted and scaled per channel to mean 0 and variance 1, then gamma * x + beta.

    In training mode the statistics are the batch's (variance over n, gradients flow through them), and each
    call leaves new running averages, new = (1 - momentum) * old + momentum * batch (variance over n - 1, as
    in PyTorch), in `layer.updates()`. `sg.nn.updates(model)` gathers them from a whole model: give them to
    `sg.function(updates=...)` together with the optimiser's. Otherwise the running averages are used. Source:
    Ioffe and Szegedy 2015.
    """

    channels: int
    _: KW_ONLY
    momentum: float = 0.1
    eps: float = 1e-5
    affine: bool = True
    name: str | None = None
    gamma: Any = field(init=False, repr=False, default=None)
    beta: Any = field(init=False, repr=False, default=None)
    running_mean: Any = field(init=False, repr=False)
    running_var: Any = field(init=False, repr=False)

    buffers: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")

    def __post_init__(self) -> None:
        zeros, ones = np.zeros(self.channels), np.ones(self.channels)
        if self.affine:
            set_field(self, gamma=parameter(ones, "gamma"), beta=parameter(zeros, "beta"))
        set_field(self, running_mean=parameter(zeros, "running_mean"),
                  running_var=parameter(ones, "running_var"))

    def forward(self, x: Any) -> Any:
        if not training():
            return self._scaled(x, self.running_mean, self.running_var)
        axes = (0, *range(2, x.ndim))
        mean, var = T.mean(x, axis=axes), T.var(x, axis=axes)
        self._remember(mean, var, count=_product([x.shape[axis] for axis in axes]))
        return self._scaled(x, mean, var)

    def _scaled(self, x: Any, mean: Any, var: Any) -> Any:
        return T.batch_norm(x, mean, var, self.gamma, self.beta, eps=self.eps)

    def _remember(self, mean: Any, var: Any, count: Any) -> None:
        unbiased = var * (count / T.maximum(count - 1, 1)).astype(var.dtype)
        blend = lambda old, new: (1 - self.momentum) * old + self.momentum * new
        set_field(self, _latest={self.running_mean: blend(self.running_mean, mean),
                                 self.running_var: blend(self.running_var, unbiased)})

    def _own_updates(self) -> dict[Any, Any]:
        latest = vars(self).get("_latest")
        if latest is None:
            raise ValueError(f"updates of {self}: it was not called in training mode; build the loss with "
                             "model(x, training=True) or under sg.nn.train_mode(True)")
        return dict(latest)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_latest"}


@value_layer
class LayerNorm(Layer):
    """x normalised over its last axes `normalized_shape`, then gamma * x + beta. Ba et al. 2016."""

    normalized_shape: int | tuple[int, ...]
    _: KW_ONLY
    eps: float = 1e-5
    affine: bool = True
    name: str | None = None
    gamma: Any = field(init=False, repr=False, default=None)
    beta: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.affine:
            shape = self._shape()
            set_field(self, gamma=parameter(np.ones(shape), "gamma"), beta=parameter(np.zeros(shape), "beta"))

    def forward(self, x: Any) -> Any:
        return T.layer_norm(x, self._shape(), self.gamma, self.beta, eps=self.eps)

    def _shape(self) -> tuple[int, ...]:
        shape = self.normalized_shape
        return (shape,) if isinstance(shape, int) else tuple(shape)


def _product(sizes: list[Any]) -> Any:
    total = sizes[0]
    for size in sizes[1:]:
        total = total * size
    return total
