"""What values are expected to be: constants are looked at when the graph is built, others at the call under `check="nan"`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..base.errors import SymgradError, four_parts
from ..base.origin import show, user_line
from ..graph.node import CONSTANT, Node, make
from .control import Identity
from .row import as_tensor, sample

# kind -> (what is asked, whether an array is that, what to try); written so that NaN is refused
KINDS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "probabilities": ("probabilities in [0, 1]", lambda a: (a >= 0) & (a <= 1), "T.sigmoid(x), or T.clip(p, 0, 1)"),
    "distribution": ("probabilities that sum to 1", lambda a: np.abs(a.sum(-1) - 1) <= 1e-4, "T.softmax(logits), or p / p.sum(-1, keepdims=True)"),
    "positive": ("values above 0", lambda a: a > 0, "T.softplus(x), or T.exp(x)"),
    "not negative": ("values of 0 or more", lambda a: a >= 0, "T.softplus(x), or T.exp(x)"),
}


class Expected(Identity):
    """x, of a kind. Costs nothing: rewriting removes it, and only the reference looks."""

    samples = [sample((3, 4), kind="not negative", low=0.1)]

    def vjp(self, g: Node, y: Node, x: Node, *, kind: str) -> Any:
        return (g,)

    def refusal(self, x: np.ndarray, *, kind: str) -> tuple[str, str, str] | None:
        """(asked, found, what to try) where x is not of the kind."""
        asked, test, attempt = KINDS[kind]
        wrong = ~test(x)
        if not wrong.any():
            return None
        index = tuple(int(k) for k in np.argwhere(wrong)[0])
        value = x[index] if wrong.ndim == x.ndim else x.sum(-1)[index]
        return asked, f"{value}{f' at index {index} of {wrong.shape}' if index else ''}, {wrong.sum()} of {wrong.size} in all", attempt

    def __call__(self, x: Any, kind: str) -> Node:
        """x; raises SymgradError at the user's line for a constant that is not of the kind."""
        x = as_tensor(x)
        if x.op is not CONSTANT:
            return make(self, [x], kind=kind)
        refused = self.refusal(x.payload, kind=kind)
        if refused is not None:
            raise SymgradError(four_parts(refused[0], refused[1], show(user_line()), refused[2]))
        return x


expected = Expected("expected")

__all__: list[str] = []
