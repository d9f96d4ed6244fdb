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


def lrp_epsilon(epsilon: float) -> Any:
    """The overrides of the epsilon rule: relevance over activation shrinks by z / (z + epsilon) at every ReLU's input z. Bach et al. 2015, eq. 58."""
    def lrp_relu(g: Any, y: Any, x: Any) -> Any:
        return g * T.relu(x) / stabilised(x, epsilon)
    return on_relu(lrp_relu, "lrp epsilon")


def lrp_gamma(gamma: float | None, epsilon: float) -> Any:
    """The overrides of the gamma rule: weights w + gamma * max(w, 0) divide an output's relevance; None: positive weights alone."""
    def lrp_weights(g: Any, y: Any, x: Any, w: Any, node: Any) -> Any:
        positive = T.relu(w)
        favoured = positive if gamma is None else w + gamma * positive
        z = node.apply(x, favoured)
        return node.vjp(g * y / stabilised(z, epsilon), x, favoured)[0], sg.STOP
    name = "lrp zplus" if gamma is None else "lrp gamma"
    products = sg.on(T.matmul) | sg.on(T.conv1d) | sg.on(T.conv2d) | sg.on(T.conv3d)
    return sg.Overrides([(products, lrp_weights)], name=name)


def stabilised(z: Any, epsilon: float) -> Any:
    """z moved away from zero by epsilon."""
    return z + T.where(z >= 0, epsilon, -epsilon).astype(z.dtype)


def rescaled(g: Any, y: Any, x: Any, ordinary: Rule) -> Any:
    """Change of the output over change of the input, or the ordinary cotangent where there is no change.

    The first half of the first axis belongs to the image, the second to its baseline. Shrikumar, Greenside and Kundaje 2017, 3.5.1.
    """
    (g, _), (now, before), (image, baseline) = halves(g), halves(y), halves(x)
    change = image - baseline
    slope = g * (now - before) / T.where(absent(change), 1, change)
    slope = T.where(absent(change), halves(ordinary(T.concatenate([g, g]), x))[0], slope)
    return T.concatenate([slope, T.zeros_like(slope)])


def rescaled_pool(g: Any, y: Any, x: Any, node: Any) -> Any:
    """The same for max pooling: the rise from the baseline's maximum goes to the image's place, the fall to the baseline's."""
    (g, _), (now, before), (image, baseline) = halves(g), halves(y), halves(x)
    change, top = image - baseline, T.maximum(now, before)
    there, back = halves(node.vjp(T.concatenate([g * (top - before), g * (now - top)]), x))
    ordinary = halves(node.vjp(T.concatenate([g, g]), x))[0]
    slope = T.where(absent(change), ordinary, (there + back) / T.where(absent(change), 1, change))
    return T.concatenate([slope, T.zeros_like(slope)])


def halves(x: Any) -> tuple[Any, Any]:
    """The first and the second half of the first axis."""
    middle = x.shape[0] // 2
    return x[:middle], x[middle:]


def absent(change: Any) -> Any:
    """Where a change is too small to divide by."""
    return T.abs(change) < 1e-7


def rescaled_relu(g: Any, y: Any, x: Any) -> Any:
    return rescaled(g, y, x, lambda g, x: g * (x > 0))


def rescaled_activation(g: Any, y: Any, x: Any, node: Any) -> Any:
    return rescaled(g, y, x, node.vjp)


def is_activation(node: Any) -> bool:
    """One float in, one out, element by element, and not linear."""
    return (getattr(node.op, "elementwise", False) and len(node.inputs) == 1 and node.inputs[0].dtype.startswith("float")
            and node.op.name not in ("cast", "negative", "positive"))


def is_max_pool(node: Any) -> bool:
    """T.max_pool1d, 2d and 3d."""
    return node.op in (T.max_pool1d, T.max_pool2d, T.max_pool3d)


RESCALE = sg.Overrides([(sg.like(sg.patterns.relu, optional=True), rescaled_relu), (sg.matching(is_max_pool, optional=True), rescaled_pool),
                        (sg.matching(is_activation, optional=True), rescaled_activation)], name="deep_lift")

RULE_SETS = {
    "guided_backprop": on_relu(guided, "guided_backprop"),
    "deconvnet": on_relu(deconv, "deconvnet"),
    "straight_through": on_relu(passed, "straight_through"),
    "clipped": on_relu(clipped(), "clipped"),
    "smooth": on_relu(smooth(), "smooth"),
    "rectified": on_relu(rectified(), "rectified"),
}
