"""Identity ops that change the backward pass only."""

from __future__ import annotations

import numpy as np

from ..graph.node import Node, make
from ..graph.types import Type
from ..loops.ir import E, View
from .elementwise import clip
from .row import STOP, Row, Sample, as_tensor, sample


class Identity(Row):
    """x itself. Derived rows say what the gradient becomes."""

    public = False

    def infer(self, x: Type, **attrs) -> Type:
        return x

    def at(self, i: tuple, x: View, **attrs) -> E:
        return x[i]

    def numpy(self, x: np.ndarray, **attrs) -> np.ndarray:
        return x.copy()


class StopGradient(Identity):
    """x, through which no gradient flows: what lies behind it counts as a constant."""

    samples = [sample((3, 4), grad=False)]

    def vjp(self, g, y, x):
        return (STOP,)


class GradClip(Identity):
    """x, with the gradient clipped to [low, high] on the way back (Theano's grad_clip)."""

    samples = [Sample(((3, 4),), {"low": -0.5, "high": 0.5}, grad=False)]

    def vjp(self, g: Node, y, x, *, low: float, high: float):
        return (clip(g, low, high),)

    def __call__(self, x, lo, hi):
        return make(self, [as_tensor(x)], low=float(lo), high=float(hi))


class GradScale(Identity):
    """x, with the gradient multiplied by a number on the way back; -1 reverses it (Ganin and Lempitsky 2015)."""

    samples = [sample((3, 4), scale=-1.0, grad=False)]

    def vjp(self, g: Node, y, x, *, scale: float):
        return (g * scale,)

    def __call__(self, x, s):
        return make(self, [as_tensor(x)], scale=float(s))


class Again(Identity):
    """x, but not before `when` is known: what is computed from it is computed anew, on the way back."""

    samples = [sample((3, 4), (2,), grad=False)]

    def infer(self, x, when):
        return x

    def at(self, i, x, when):
        return x[i]

    def numpy(self, x, when):
        return x.copy()

    def vjp(self, g, y, x, when):
        return g, STOP


stop_gradient = StopGradient("stop_gradient")
grad_clip = GradClip("grad_clip")
grad_scale = GradScale("grad_scale")
again = Again("again")
