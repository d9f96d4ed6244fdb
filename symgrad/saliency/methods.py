"""Attribution methods: (score, image) -> a symbolic map of the image's shape, to compile like anything else.

`score` is the scalar to explain. A score per image, (n,), is summed: each image then gets the map of its own
score, as long as the model treats images apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import symgrad as sg
import symgrad.tensor as T
from symgrad.saliency import rules


def gradient(score: Any, image: Any, *, overrides: Any = None) -> Any:
    """d score / d image, with gradient overrides if given. Simonyan, Vedaldi and Zisserman 2014."""
    return sg.grad(score if score.ndim == 0 else T.sum(score), image, overrides=overrides)


def input_x_gradient(score: Any, image: Any) -> Any:
    """image * d score / d image. Shrikumar et al. 2016."""
    return image * gradient(score, image)


def guided_backprop(score: Any, image: Any) -> Any:
    """The gradient with negative cotangents stopped at every ReLU. Springenberg et al. 2015."""
    return gradient(score, image, overrides=rules.RULE_SETS["guided_backprop"])


def deconvnet(score: Any, image: Any) -> Any:
    """The gradient with the cotangent's ReLU in place of every ReLU's derivative. Zeiler and Fergus 2014."""
    return gradient(score, image, overrides=rules.RULE_SETS["deconvnet"])


def integrated_gradients(score: Any, image: Any, *, baseline: Any = 0.0, steps: int = 16,
                         method: Callable[[Any, Any], Any] = gradient) -> Any:
    """(image - baseline) times the mean gradient on the straight line between them.

    The map sums to score(image) - score(baseline), up to quadrature error. Sundararajan, Taly and Yan 2017.
    baseline: what broadcasts to the image. steps: points of the Gauss-Legendre rule, each a copy of the
    model in the graph. method: any (score, image) -> map of this module in place of the gradient.
    """
    model = sg.OpFromGraph([image], [score if score.ndim == 0 else T.sum(score)], name="score")
    nodes, weights = np.polynomial.legendre.leggauss(steps)           # on (-1, 1), where weights sum to 2
    difference = image - baseline
    points = [baseline + float(node + 1) / 2 * difference for node in nodes]
    maps = [float(weight) / 2 * method(model(point), point) for point, weight in zip(points, weights)]
    return difference * sum(maps[1:], maps[0])


def grad_cam(score: Any, image: Any, features: Any, *, resize: bool = True) -> Any:
    """relu of the features weighted by their mean gradients: a map (n, h, w). Selvaraju et al. 2017.

    features (n, c, h', w') is the variable inside the model to look at, mostly its last convolution. The map
    has the image's height and width by bilinear interpolation, or the features' with resize=False.
    """
    weights = T.mean(gradient(score, features), axis=(2, 3), keepdims=True)
    cam = T.maximum(T.sum(weights * features, axis=1, keepdims=True), 0)
    return T.squeeze(T.interpolate(cam, size=image.shape[-2:], mode="bilinear") if resize else cam, 1)


def guided_grad_cam(score: Any, image: Any, features: Any) -> Any:
    """Guided backprop times the Grad-CAM map. Selvaraju et al. 2017, section 3.2."""
    return guided_backprop(score, image) * T.expand_dims(grad_cam(score, image, features), 1)


METHODS = {
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "guided_backprop": guided_backprop,
    "deconvnet": deconvnet,
    "integrated_gradients": integrated_gradients,
}
