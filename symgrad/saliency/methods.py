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
from symgrad.saliency.image import interpolation


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


def smoothgrad(score: Any, image: Any, *, samples: int = 16, noise: float = 0.15, seed: int = 0,
               method: Callable[[Any, Any], Any] = gradient) -> Any:
    """The mean of a method's maps over noisy copies of the image. Smilkov et al. 2017.

    noise: standard deviation of the normal noise, as a part of the image's max - min. Fresh noise at each
    call of the compiled function. samples copies run as one batch. method may be any (score, image) -> map of
    this module.
    """
    draws = sg.random.RandomStream(seed).normal((samples, *image.shape), dtype=image.dtype)
    noisy = image + noise * (T.max(image) - T.min(image)) * draws
    return T.mean(_maps_along(score, image, noisy, method), axis=0)


def integrated_gradients(score: Any, image: Any, *, baseline: Any = 0.0, steps: int = 16,
                         method: Callable[[Any, Any], Any] = gradient) -> Any:
    """(image - baseline) times the mean gradient on the straight line between them.

    The map sums to score(image) - score(baseline), up to quadrature error. steps: points of the
    Gauss-Legendre rule, which run as one batch. baseline: anything that broadcasts to the image.
    Sundararajan, Taly and Yan 2017.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)           # on (-1, 1), weights sum to 2
    column = (steps,) + (1,) * image.ndim
    part = T.constant(((nodes + 1) / 2).reshape(column).astype(image.dtype))
    weight = T.constant((weights / 2).reshape(column).astype(image.dtype))
    difference = image - baseline
    maps = _maps_along(score, image, baseline + part * difference, method)
    return difference * T.sum(weight * maps, axis=0)


def grad_cam(score: Any, image: Any, features: Any, *, resize: bool = True) -> Any:
    """relu of the features weighted by their mean gradients: a map (n, h, w). Selvaraju et al. 2017.

    features (n, c, h', w') is the variable inside the model to look at, mostly its last convolution. The map
    has the image's height and width by bilinear interpolation, or the features' with resize=False.
    """
    weights = T.mean(gradient(score, features), axis=(2, 3), keepdims=True)
    cam = T.maximum(T.sum(weights * features, axis=1), 0)
    return _resized(cam, image.shape[-2:]) if resize else cam


def guided_grad_cam(score: Any, image: Any, features: Any) -> Any:
    """Guided backprop times the Grad-CAM map. Selvaraju et al. 2017, section 3.2."""
    return guided_backprop(score, image) * T.expand_dims(grad_cam(score, image, features), 1)


METHODS = {
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "guided_backprop": guided_backprop,
    "deconvnet": deconvnet,
    "smoothgrad": smoothgrad,
    "integrated_gradients": integrated_gradients,
}


def _maps_along(score: Any, image: Any, points: Any, method: Callable[[Any, Any], Any]) -> Any:
    """The method's map at each of points (k, *image.shape), stacked."""
    model = sg.OpFromGraph([image], [score if score.ndim == 0 else T.sum(score)], name="score")
    return sg.vectorize(lambda point: method(model(point), point))(points)


def _resized(maps: Any, size: tuple[Any, Any]) -> Any:
    """(n, h, w) maps at another size, by bilinear interpolation between pixel centres."""
    sizes = (*maps.shape[-2:], *size)
    if not all(isinstance(n, int) for n in sizes):
        raise sg.ShapeError(f"resizing a map needs known sizes, found {sizes}: declare the image with a "
                            "fixed height and width, or pass resize=False")
    rows, columns = (T.constant(interpolation(n, m).astype(maps.dtype))
                     for n, m in zip(maps.shape[-2:], size))
    return T.matmul(T.matmul(rows, maps), T.transpose(columns))
