"""Named gradient rules, and the sets of them that saliency methods hand to `sg.grad(..., overrides=...)`.

A rule is a pure function rule(g, y, x): g the cotangent of the output y of the op on x. The sets find ReLUs
however they were written (`sg.patterns.relu`): T.relu(x), T.maximum(x, 0), x * (x > 0), a where, a clip. A
set that finds none raises `sg.UnusedOverrideError`, so a map is never quietly the plain gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import symgrad as sg
import symgrad.tensor as T

Rule = Callable[..., Any]


def guided(g: Any, y: Any, x: Any) -> Any:
    """g where both the input and the cotangent are positive. Springenberg et al. 2015, section 3.4."""
    return g * (x > 0) * (g > 0)


def deconv(g: Any, y: Any, x: Any) -> Any:
    """relu(g), whatever the input was. Zeiler and Fergus 2014, section 2.1."""
    return T.maximum(g, 0)


def passed(g: Any, y: Any, x: Any) -> Any:
    """g: the straight-through estimator. Bengio, Leonard and Courville 2013."""
    return g


def clipped(low: float = -1.0, high: float = 1.0) -> Rule:
    """A rule: the ReLU's own cotangent cut to [low, high]. After Pascanu et al. 2013."""
    def clipped_relu(g: Any, y: Any, x: Any) -> Any:
        return T.clip(g * (x > 0), low, high)
    return clipped_relu


def smooth(beta: float = 10.0) -> Rule:
    """A rule: g * sigmoid(beta * x), as for a softplus. Dombrowski et al. 2019."""
    def smooth_relu(g: Any, y: Any, x: Any) -> Any:
        return g * T.sigmoid(beta * x)
    return smooth_relu


def rectified(threshold: float = 0.0) -> Rule:
    """A rule: g where x * g exceeds a threshold. Kim et al. 2019, "Why are saliency maps noisy?"."""
    def rectified_relu(g: Any, y: Any, x: Any) -> Any:
        return g * (x * g > threshold)
    return rectified_relu


def on_relu(rule: Rule, name: str) -> Any:
    """The overrides that apply a rule to every ReLU."""
    return sg.Overrides([(sg.like(sg.patterns.relu), rule)], name=name)


RULE_SETS = {
    "guided_backprop": on_relu(guided, "guided_backprop"),
    "deconvnet": on_relu(deconv, "deconvnet"),
    "straight_through": on_relu(passed, "straight_through"),
    "clipped": on_relu(clipped(), "clipped"),
    "smooth": on_relu(smooth(), "smooth"),
    "rectified": on_relu(rectified(), "rectified"),
}
