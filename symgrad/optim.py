"""Optimisers: (loss_or_grads, params, lr=...) -> updates for `sg.function`, a dict shared -> new value.

`loss_or_grads` is a scalar loss, or the gradients themselves in the order of params (a list, or a dict from
parameter). `params` is a list of shared variables or the dict of `layer.params()`. `lr` is a number, a shared
variable to change between calls, any scalar variable, or a schedule. The state of an optimiser (velocities,
step counter) lives in shared variables that it makes and that appear in the updates; calling it again starts
afresh.

Formulas, defaults and the place of epsilon follow torch.optim, which differs from Lasagne in the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import symgrad as sg
import symgrad.tensor as T

Updates = dict[Any, Any]
Schedule = Callable[[Any], Any]
Rate = Any                                            # number, variable or Schedule


def sgd(loss_or_grads: Any, params: Any, lr: Rate = 0.01) -> Updates:
    """p - lr * g: stochastic gradient descent. Robbins and Monro 1951."""
    step = _Steps(lr)
    return step.finish({p: p - step.lr(p) * g for p, g in _pairs(loss_or_grads, params)})


def momentum(loss_or_grads: Any, params: Any, lr: Rate = 0.01, momentum: float = 0.9) -> Updates:
    """v = momentum * v + g; p - lr * v. Polyak 1964."""
    step, updates = _Steps(lr), {}
    for p, g in _pairs(loss_or_grads, params):
        velocity = _slot(p, "velocity")
        updates[velocity] = v = momentum * velocity + g
        updates[p] = p - step.lr(p) * v
    return step.finish(updates)


def nesterov(loss_or_grads: Any, params: Any, lr: Rate = 0.01, momentum: float = 0.9) -> Updates:
    """v = momentum * v + g; p - lr * (g + momentum * v). Nesterov 1983; Sutskever et al. 2013."""
    step, updates = _Steps(lr), {}
    for p, g in _pairs(loss_or_grads, params):
        velocity = _slot(p, "velocity")
        updates[velocity] = v = momentum * velocity + g
        updates[p] = p - step.lr(p) * (g + momentum * v)
    return step.finish(updates)


def adagrad(loss_or_grads: Any, params: Any, lr: Rate = 0.01, eps: float = 1e-10) -> Updates:
    """s = s + g**2; p - lr * g / (sqrt(s) + eps). Duchi, Hazan and Singer 2011."""
    step, updates = _Steps(lr), {}
    for p, g in _pairs(loss_or_grads, params):
        total = _slot(p, "total")
        updates[total] = s = total + g * g
        updates[p] = p - step.lr(p) * g / (T.sqrt(s) + eps)
    return step.finish(updates)


def rmsprop(loss_or_grads: Any, params: Any, lr: Rate = 0.01, alpha: float = 0.99,
            eps: float = 1e-8) -> Updates:
    """s = alpha * s + (1 - alpha) * g**2; p - lr * g / (sqrt(s) + eps). Tieleman and Hinton 2012."""
    step, updates = _Steps(lr), {}
    for p, g in _pairs(loss_or_grads, params):
        average = _slot(p, "average")
        updates[average] = s = _blend(alpha, average, g * g)
        updates[p] = p - step.lr(p) * g / (T.sqrt(s) + eps)
    return step.finish(updates)


def adadelta(loss_or_grads: Any, params: Any, lr: Rate = 1.0, rho: float = 0.9, eps: float = 1e-6) -> Updates:
    """p - lr * d, d = g * sqrt(u + eps) / sqrt(s + eps), s, u the means of g**2, d**2. Zeiler 2012."""
    step, updates = _Steps(lr), {}
    for p, g in _pairs(loss_or_grads, params):
        average, moved = _slot(p, "average"), _slot(p, "moved")
        updates[average] = s = _blend(rho, average, g * g)
        d = g * T.sqrt(moved + eps) / T.sqrt(s + eps)
        updates[moved] = _blend(rho, moved, d * d)
        updates[p] = p - step.lr(p) * d
    return step.finish(updates)


def adam(loss_or_grads: Any, params: Any, lr: Rate = 0.001, beta1: float = 0.9, beta2: float = 0.999,
         eps: float = 1e-8) -> Updates:
    """p - lr * m / (sqrt(s) + eps), m and s bias-corrected means of g and g**2. Kingma and Ba 2015."""
    return _adam(loss_or_grads, params, lr, beta1, beta2, eps)


def adamw(loss_or_grads: Any, params: Any, lr: Rate = 0.001, beta1: float = 0.9, beta2: float = 0.999,
          eps: float = 1e-8, weight_decay: float = 0.01) -> Updates:
    """Adam on (1 - lr * weight_decay) * p: decay apart from the gradient. Loshchilov and Hutter 2019."""
    return _adam(loss_or_grads, params, lr, beta1, beta2, eps, weight_decay=weight_decay)


def amsgrad(loss_or_grads: Any, params: Any, lr: Rate = 0.001, beta1: float = 0.9, beta2: float = 0.999,
            eps: float = 1e-8) -> Updates:
    """Adam with the largest second moment so far in place of the current one. Reddi, Kale and Kumar 2018."""
    return _adam(loss_or_grads, params, lr, beta1, beta2, eps, keep_largest=True)


def adamax(loss_or_grads: Any, params: Any, lr: Rate = 0.002, beta1: float = 0.9, beta2: float = 0.999,
           eps: float = 1e-8) -> Updates:
    """p - lr * m / u with m as in Adam and u = max(beta2 * u, |g| + eps). Kingma and Ba 2015, section 7.1."""
    step, updates = _Steps(lr, counted=True), {}
    for p, g in _pairs(loss_or_grads, params):
        mean, largest = _slot(p, "mean"), _slot(p, "largest")
        updates[mean] = m = _blend(beta1, mean, g)
        updates[largest] = u = T.maximum(beta2 * largest, abs(g) + eps)
        updates[p] = p - (step.lr(p) / step.correction(beta1, p)) * m / u
    return step.finish(updates)


def _adam(loss_or_grads: Any, params: Any, lr: Rate, beta1: float, beta2: float, eps: float,
          weight_decay: float = 0.0, keep_largest: bool = False) -> Updates:
    step, updates = _Steps(lr, counted=True), {}
    for p, g in _pairs(loss_or_grads, params):
        mean, square = _slot(p, "mean"), _slot(p, "square")
        updates[mean] = m = _blend(beta1, mean, g)
        updates[square] = s = _blend(beta2, square, g * g)
        if keep_largest:
            largest = _slot(p, "largest")
            updates[largest] = s = T.maximum(largest, s)
        scale = step.lr(p) / step.correction(beta1, p)
        spread = T.sqrt(s) / T.sqrt(step.correction(beta2, p)) + eps
        kept = p * (1 - step.lr(p) * weight_decay) if weight_decay else p
        updates[p] = kept - scale * m / spread
    return step.finish(updates)


def clip_by_norm(grads: Any, max_norm: float, *, return_norm: bool = False) -> Any:
    """The gradients scaled down together so that the norm of all of them is at most max_norm.

    A list in, a list out; a dict in, a dict out. Gradients of smaller norm are unchanged. With return_norm,
    also the norm before clipping. Source: Pascanu, Mikolov and Bengio 2013.
    """
    values = list(grads.values()) if isinstance(grads, Mapping) else list(grads)
    squares = [T.sum(g * g) for g in values]
    norm = T.sqrt(sum(squares[1:], squares[0]))
    scale = max_norm / T.maximum(norm, max_norm)
    clipped = [g * scale.astype(g.dtype) for g in values]
    result = dict(zip(grads, clipped)) if isinstance(grads, Mapping) else clipped
    return (result, norm) if return_norm else result


# Schedules: functions of the step (0 at the first call, a float variable) to the learning rate.

def exponential_decay(lr: float, rate: float, every: float = 1) -> Schedule:
    """lr * rate ** (step / every)."""
    return lambda step: lr * T.exp(step * (math.log(rate) / every))


def step_decay(lr: float, factor: float, every: int) -> Schedule:
    """lr * factor ** floor(step / every): a drop every so many steps."""
    return lambda step: lr * T.exp(T.floor(step / every) * math.log(factor))


def linear_decay(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """From lr in a straight line to end after so many steps, then constant."""
    return lambda step: lr + (end - lr) * T.minimum(step / steps, 1)


def cosine_decay(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """From lr along half a cosine to end after so many steps, then constant. Loshchilov and Hutter 2017."""
    return lambda step: end + (lr - end) * (1 + T.cos(math.pi * T.minimum(step / steps, 1))) / 2


def warmup(schedule: Schedule | float, steps: int) -> Schedule:
    """The schedule (or constant) times (step + 1) / steps, up to 1. Goyal et al. 2017, section 2.2."""
    later = schedule if callable(schedule) else lambda step: schedule
    return lambda step: later(step) * T.minimum((step + 1) / steps, 1)


class _Steps:
    """The learning rate and the step counter of one optimiser; no counter where nothing needs it."""

    def __init__(self, lr: Rate, counted: bool = False) -> None:
        scheduled = callable(lr)
        self._counter = sg.shared(np.int64(0), name="step") if counted or scheduled else None
        self._lr = lr(self._counter.astype(sg.config.floatX)) if scheduled else lr

    def lr(self, p: Any) -> Any:
        """The learning rate in the parameter's dtype, so that it never widens the parameter."""
        return self._lr if isinstance(self._lr, (int, float)) else T.as_tensor(self._lr).astype(p.dtype)

    def correction(self, beta: float, p: Any) -> Any:
        """1 - beta ** t, t = 1 at the first step."""
        t = (self._counter + 1).astype(p.dtype)
        return -T.expm1(t * math.log(beta))           # beta ** t would lose digits of 1 - beta in float32

    def finish(self, updates: Updates) -> Updates:
        if self._counter is not None:
            updates[self._counter] = self._counter + 1
        return updates


def _pairs(loss_or_grads: Any, params: Any) -> list[tuple[Any, Any]]:
    params = list(params.values()) if isinstance(params, Mapping) else list(params)
    for p in params:
        if not hasattr(p, "set_value"):
            raise TypeError(f"an optimiser changes shared variables, found {p!r} in params")
    if len({id(p) for p in params}) < len(params):
        raise ValueError("a parameter appears twice in params")
    return list(zip(params, _gradients(loss_or_grads, params)))


def _gradients(loss_or_grads: Any, params: Sequence[Any]) -> list[Any]:
    if isinstance(loss_or_grads, Mapping):
        return [loss_or_grads[p] for p in params]
    if not isinstance(loss_or_grads, (list, tuple)):
        return sg.grad(loss_or_grads, params)
    if len(loss_or_grads) != len(params):
        raise ValueError(f"{len(loss_or_grads)} gradients for {len(params)} params")
    return list(loss_or_grads)


def _slot(p: Any, what: str) -> Any:
    """A shared array of zeros like the parameter."""
    return sg.shared(np.zeros_like(p.get_value()), name=f"{p.name or 'param'}.{what}")


def _blend(keep: float, old: Any, new: Any) -> Any:
    return keep * old + (1 - keep) * new
