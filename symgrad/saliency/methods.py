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

Method = Callable[[Any, Any], Any]

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


def smoothgrad(score: Any, image: Any, *, samples: int = 16, noise: float = 0.15, stream: Any = None, method: Method = gradient) -> Any:
    """The mean map of noisy copies of the image. Smilkov et al. 2017.

    noise: standard deviation of the normal noise, in units of the image's range. stream: a sg.random.RandomStream; each call draws
    anew. The samples are one batch. method: any (score, image) -> map of this module in place of the gradient.
    """
    stream = sg.random.RandomStream(0) if stream is None else stream
    spread = noise * (T.max(image) - T.min(image))
    points = image + spread * stream.normal((samples, *image.shape), dtype=image.dtype)
    return T.mean(maps_at(points, score, image, method), axis=0)


def integrated_gradients(score: Any, image: Any, *, baseline: Any = 0.0, steps: int = 16, method: Method = gradient) -> Any:
    """(image - baseline) times the mean gradient on the straight line between them.

    The map sums to score(image) - score(baseline), up to quadrature error. Sundararajan, Taly and Yan 2017.
    baseline: what broadcasts to the image. steps: points of the Gauss-Legendre rule, one batch. method: any (score, image) -> map
    of this module in place of the gradient.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)           # on (-1, 1), where weights sum to 2
    column = lambda values: T.constant(values.reshape((-1, *(1,) * image.ndim)).astype(image.dtype))
    difference = image - baseline
    points = baseline + column((nodes + 1) / 2) * difference
    return difference * T.sum(column(weights / 2) * maps_at(points, score, image, method), axis=0)


def deep_lift(score: Any, image: Any, *, baseline: Any = 0.0) -> Any:
    """(image - baseline) times multipliers that take the place of derivatives: the rescale rule. Shrikumar, Greenside and Kundaje 2017.

    At activations (ReLU and other functions of one variable) and max pooling the multiplier is the change of the output over the
    change of the input, from the baseline's activations to the image's; elsewhere it is the derivative. So the map sums to
    score(image) - score(baseline) for models whose other ops are linear.
    """
    reference = T.broadcast_to(T.as_tensor(baseline, image.dtype), image.shape)
    pair = T.stack([image, reference], axis=0)
    scores = sg.vectorize(as_function(score, image))(pair)
    multipliers = sg.grad(scores[0], pair, overrides=rules.RESCALE)
    return (image - reference) * multipliers[0]


def lrp(score: Any, image: Any, *, rule: str = "epsilon", epsilon: float = 1e-6, gamma: float = 0.25) -> Any:
    """Layer-wise relevance propagation: shares of the score that add up to it, but for what biases and epsilon take. Bach et al. 2015.

    rule: "epsilon", "gamma" (favours positive weights) or "zplus" (positive weights only; the alpha-1-beta-0 rule), all of them for
    the whole model (Montavon et al. 2019, sections 10.2 and 10.3). Propagated is relevance over activation, so layers without a rule
    of their own, such as pooling, normalisation by fixed statistics and sums, pass on what their derivative says.
    """
    found = {"epsilon": rules.lrp_epsilon(epsilon), "gamma": rules.lrp_gamma(gamma, epsilon), "zplus": rules.lrp_gamma(None, epsilon)}
    if rule not in found:
        raise ValueError(f"lrp: rule is one of {', '.join(found)}, not {rule!r}")
    return image * gradient(score, image, overrides=found[rule])


def occlusion(score: Any, image: Any, *, window: int | tuple[int, int] = 8, stride: int | tuple[int, int] | None = None, baseline: Any = 0.0,
              batch: int = 32) -> Any:
    """How much the score falls when a window is covered, at each pixel the mean over the windows there. Zeiler and Fergus 2014, 4.2.

    image (n, c, h, w) with known h and w; any layout that ends so for one score. stride: half the window unless given.
    baseline: what covers. batch: windows computed at a time, by a compiled loop over batches.
    """
    (height, width), (rows, columns) = image.shape[-2:], _pair(window)
    if not (isinstance(height, int) and isinstance(width, int)):
        raise sg.ShapeError(f"occlusion of images of known height and width, found {image.type}: declare the sizes")
    steps = _pair(stride) if stride is not None else (max(rows // 2, 1), max(columns // 2, 1))
    corners = np.array([(i, j) for i in _starts(height, rows, steps[0]) for j in _starts(width, columns, steps[1])], "int64")
    padded = np.resize(corners, (-(-len(corners) // batch) * batch, 2)) if len(corners) > batch else corners
    run = sg.OpFromGraph([image], [score], name="score")

    def falls(corner: Any) -> Any:
        masks = _windows(corner, (rows, columns), (height, width))
        return score - sg.vectorize(lambda mask: run(T.where(mask, T.as_tensor(baseline, image.dtype), image)))(masks)

    each = falls(T.constant(corners)) if padded is corners else sg.scan(falls, sequences=T.constant(padded.reshape(-1, batch, 2)))
    each = each.reshape((len(padded), *score.shape))[:len(corners)]
    masks = _windows(T.constant(corners), (rows, columns), (height, width)).astype(image.dtype)
    heat = T.tensordot(T.moveaxis(each, 0, -1), masks, axes=1) / T.sum(masks, axis=0)
    return T.broadcast_to(heat if score.ndim == 0 else T.expand_dims(heat, 1), image.shape)


def grad_cam(score: Any, image: Any, features: Any = None, *, resize: bool = True) -> Any:
    """relu of the features weighted by their mean gradients: a map (n, h, w). Selvaraju et al. 2017.

    features (n, c, h', w') is the variable inside the model to look at; by default the one where the score loses sight of height
    and width (`last_features`). The map has the image's height and width by bilinear interpolation, or the features' with resize=False.
    """
    features = last_features(score, image) if features is None else features
    weights = T.mean(gradient(score, features), axis=(2, 3), keepdims=True)
    cam = T.maximum(T.sum(weights * features, axis=1, keepdims=True), 0)
    return T.squeeze(T.interpolate(cam, size=image.shape[-2:], mode="bilinear") if resize else cam, 1)


def guided_grad_cam(score: Any, image: Any, features: Any = None) -> Any:
    """Guided backprop times the Grad-CAM map. Selvaraju et al. 2017, section 3.2."""
    return guided_backprop(score, image) * T.expand_dims(grad_cam(score, image, features), 1)


# ------------------------------------------------------------------------------------------ building blocks
def as_function(score: Any, image: Any) -> Callable[[Any], Any]:
    """The score as a function of another image of the same type."""
    return sg.OpFromGraph([image], [score if score.ndim == 0 else T.sum(score)], name="score")


def maps_at(points: Any, score: Any, image: Any, method: Method) -> Any:
    """The maps (k, ...) of a method at points (k, ...), computed as one batch."""
    run = as_function(score, image)
    return sg.vectorize(lambda point: method(run(point), point))(points)


def last_features(score: Any, image: Any) -> Any:
    """The last variable (n, c, h, w) on the way from the image to the score that has a height and a width above 1.

    Raises ValueError when there is none.
    """
    depends = {image: True}

    def reaches(node: Any) -> bool:
        stack = [node]
        while stack:
            top = stack[-1]
            waiting = [x for x in top.inputs if x not in depends]
            if top in depends or not waiting:
                depends.setdefault(stack.pop(), any(depends[x] for x in top.inputs))
            else:
                stack.extend(waiting)
        return depends[node]

    todo, seen = [score], set()
    while todo:
        node = max(todo, key=lambda n: n.serial)                      # inputs are older than what is made of them
        todo.remove(node)
        if getattr(node, "ndim", 0) == 4 and node is not image and all(not isinstance(d, int) or d > 1 for d in node.shape[2:]):
            return node
        fresh = [x for x in node.inputs if x not in seen and reaches(x)]
        seen.update(fresh)
        todo.extend(fresh)
    raise ValueError("grad_cam of a model with feature maps (n, c, h, w): none lies between the image and the score; pass features=")


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _starts(length: int, window: int, step: int) -> list[int]:
    """Where windows start so that they cover everything: the last one ends at the edge."""
    last = max(length - window, 0)
    return [*range(0, last, step), last]


def _windows(corners: Any, window: tuple[int, int], size: tuple[int, int]) -> Any:
    """bool (k, h, w): True inside the window at each corner (k, 2)."""
    inside = []
    for axis in (0, 1):
        place, start = T.arange(size[axis]), corners[:, axis:axis + 1]
        inside.append((place >= start) & (place < start + window[axis]))
    return T.expand_dims(inside[0], 2) & T.expand_dims(inside[1], 1)


METHODS: dict[str, Method] = {method.__name__: method for method in (  # type: ignore[attr-defined]
    gradient, input_x_gradient, guided_backprop, deconvnet, smoothgrad, integrated_gradients, grad_cam, guided_grad_cam, lrp, deep_lift, occlusion)}
