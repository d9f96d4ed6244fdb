"""Losses: (prediction, target) -> a scalar, the mean over all entries, or as `reduction` says.

reduction: "mean", "sum" or "none" (one loss per entry). Names and formulas follow torch.nn.functional.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import symgrad.tensor as T


def cross_entropy(logits: Any, labels: Any, *, axis: int = -1, reduction: str = "mean") -> Any:
    """-log softmax(logits)[label]: one loss per example, then reduced.

    Classes lie along `axis` of logits. labels are integers, of the shape of logits without that axis, or rows
    of probabilities of the shape of logits. An integer outside the classes makes its loss NaN.
    """
    return nll(T.log_softmax(T.as_tensor(logits), axis=axis), labels, axis=axis, reduction=reduction)


def nll(log_probs: Any, labels: Any, *, axis: int = -1, reduction: str = "mean") -> Any:
    """-log_probs[label]: negative log likelihood; labels as in cross_entropy."""
    log_probs, labels = T.as_tensor(log_probs), T.as_tensor(labels)
    if _is_integer(labels) and labels.ndim == log_probs.ndim - 1:
        return _reduced(-_picked(log_probs, labels, axis % log_probs.ndim), reduction)
    if _is_integer(labels) or labels.ndim != log_probs.ndim:
        raise ValueError(f"labels are integers of {log_probs.ndim - 1} axes or probabilities of "
                         f"{log_probs.ndim}, found {labels.dtype} of {labels.ndim} axes")
    terms = T.where(labels == 0, 0, labels * log_probs)             # 0 * log 0 counts as 0
    return _reduced(-T.sum(terms, axis=axis), reduction)


def binary_cross_entropy(probabilities: Any, targets: Any, *, reduction: str = "mean") -> Any:
    """-t log p - (1 - t) log(1 - p), with logarithms cut off at -100 so that a sure mistake stays finite.

    Where a logarithm is cut off at p = 0 or 1 no gradient flows through it; prefer the version with logits.
    """
    p, t = T.as_tensor(probabilities), T.as_tensor(targets)
    t = t.astype(p.dtype)
    return _reduced(-t * _safe_log(p) - (1 - t) * _safe_log(1 - p), reduction)


def binary_cross_entropy_with_logits(logits: Any, targets: Any, *, reduction: str = "mean") -> Any:
    """binary_cross_entropy(sigmoid(logits), targets), exact for logits of any size."""
    x = T.as_tensor(logits)
    return _reduced(T.softplus(x) - x * T.as_tensor(targets).astype(x.dtype), reduction)


def mse(prediction: Any, target: Any, *, reduction: str = "mean") -> Any:
    """(prediction - target) ** 2."""
    error = _error(prediction, target)
    return _reduced(error * error, reduction)


def mae(prediction: Any, target: Any, *, reduction: str = "mean") -> Any:
    """|prediction - target|."""
    return _reduced(abs(_error(prediction, target)), reduction)


def huber(prediction: Any, target: Any, *, delta: float = 1.0, reduction: str = "mean") -> Any:
    """error ** 2 / 2 up to delta, then delta * (|error| - delta / 2). Huber 1964."""
    size = abs(_error(prediction, target))
    near = T.minimum(size, delta)
    return _reduced(near * (size - near / 2), reduction)


def hinge(prediction: Any, target: Any, *, margin: float = 1.0, reduction: str = "mean") -> Any:
    """max(0, margin - target * prediction), target -1 or 1. Cortes and Vapnik 1995."""
    prediction = T.as_tensor(prediction)
    target = T.as_tensor(target).astype(prediction.dtype)
    return _reduced(T.maximum(margin - target * prediction, 0), reduction)


def kl_div(log_probs: Any, target: Any, *, reduction: str = "mean") -> Any:
    """target * (log target - log_probs): how far the target distribution is from exp(log_probs).

    Also reduction="batchmean": the sum over everything divided by the first axis, which is the divergence per
    row.
    """
    log_probs, target = T.as_tensor(log_probs), T.as_tensor(target)
    log_target = T.log(T.where(target > 0, target, 1))
    return _reduced(T.where(target > 0, target * (log_target - log_probs), 0), reduction)


def _picked(log_probs: Any, labels: Any, axis: int) -> Any:
    """log_probs at the label along axis: by comparing, which fuses and needs no scatter backward."""
    classes = T.arange(log_probs.shape[axis])
    classes = classes.reshape((-1,) + (1,) * (log_probs.ndim - 1 - axis))
    label = T.expand_dims(labels, axis)
    found = T.sum(T.where(classes == label, log_probs, 0), axis=axis)
    return T.where((labels >= 0) & (labels < log_probs.shape[axis]), found, np.nan)


def _safe_log(p: Any) -> Any:
    # two wheres: log(0) would send 0 * inf = NaN through the branch that was not taken
    return T.where(p > 0, T.maximum(T.log(T.where(p > 0, p, 1)), -100), -100)


def _error(prediction: Any, target: Any) -> Any:
    """prediction - target. Shapes must agree: (n, 1) minus (n,) would quietly be (n, n)."""
    prediction, target = T.as_tensor(prediction), T.as_tensor(target)
    if prediction.ndim != target.ndim and target.ndim:
        raise ValueError(f"prediction has {prediction.ndim} axes and target {target.ndim}: reshape one")
    return prediction - target


def _is_integer(labels: Any) -> bool:
    return np.dtype(labels.dtype).kind in "iu"


def _reduced(loss: Any, reduction: str) -> Any:
    if reduction == "none":
        return loss
    if reduction == "mean":
        return T.mean(loss)
    if reduction == "sum":
        return T.sum(loss)
    if reduction == "batchmean":
        return T.sum(loss) / T.as_tensor(loss.shape[0]).astype(loss.dtype)
    raise ValueError(f"reduction is 'mean', 'sum' or 'none', found {reduction!r}")
