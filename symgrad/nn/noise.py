"""Layers that draw random numbers while they train."""

from __future__ import annotations

from dataclasses import KW_ONLY, field
from typing import Any

import symgrad as sg
import symgrad.tensor as T
from symgrad.nn.layer import Layer, training
from symgrad.nn.layers import value_layer


def _new_stream() -> Any:
    return sg.random.RandomStream(int(sg.nn.init.generator(None).integers(2**63)))


@value_layer
class Dropout(Layer):
    """While training, x with each element zeroed with probability p and the others divided by 1 - p; else x.

    The mask of one call is drawn once: the gradient sees the one that the value saw. stream: a
    sg.random.RandomStream; by default one of its own, seeded by `sg.nn.seed`.
    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    """

    p: float = 0.5
    _: KW_ONLY
    stream: Any = field(default_factory=_new_stream, repr=False)
    name: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"Dropout: p is a probability below 1, not {self.p!r}")

    def forward(self, x: Any) -> Any:
        if not training() or self.p == 0:
            return x
        kept = self.stream.bernoulli(1 - self.p, x.shape)
        return T.where(kept, x * (1 / (1 - self.p)), 0.0)
