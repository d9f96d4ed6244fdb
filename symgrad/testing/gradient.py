"""Derived gradients against central differences, along one random direction in float64.

One direction costs four evaluations whatever the size, and a wrong entry hides from a random direction with probability zero.
When a check fails, every element is compared, and every node's own rule, so that the message names what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import dtypes
from ..base.errors import SymgradError, four_parts
from ..grad.overrides import Overrides, Selector, matching, rule_name
from ..grad.reverse import flat, grad, vjp
from ..graph.node import Node, is_leaf, new_input
from ..graph.types import TupleType, Type
from ..graph.walk import order as node_order
from ..graph.walk import substitute
from ..ops.row import as_tensor
from ..runtime.function import function

# fourth-order differences: truncation is about step**4, rounding about 1e-16 / step
STEP = 3e-4
RTOL = 1e-6
LARGEST = 4096          # elements compared one by one when a check fails


class GradientError(SymgradError, AssertionError):
    """A derived gradient that differs from central differences."""


def check_grad(fn: Callable[..., Any], *point: Any, order: int = 1, eps: float | None = None, rtol: float | None = None,
               rng: np.random.Generator | int | None = None, overrides: Any = None, backend: str = "reference") -> None:
    """Nothing, if the gradient of `fn` at `point` agrees with central differences; else raises GradientError.

    fn takes variables and gives one or several; floats in `point` become float64 inputs, other arrays are passed as they are.
    order=2 also checks the gradient of the gradient. eps is the step (default 3e-4), rtol the relative error allowed (1e-6).
    overrides go to sg.grad: a deliberate rule such as guided backpropagation fails here, as it must.
    Stay away from kinks by more than 2 * eps.
    """
    if order not in (1, 2):
        raise SymgradError(four_parts(f"check_grad(order={order!r})", "it is 1 or 2"))
    random = np.random.default_rng(0 if rng is None else rng)
    problem = Problem(fn, point, overrides, eps or STEP, rtol or RTOL, random, backend)
    problem.check()
    if order == 2:
        problem.gradient_problem().check()


def as_point(value: Any) -> np.ndarray:
    """A float64 array of float data; integers and bools as they are."""
    array = np.asarray(value.get_value() if hasattr(value, "get_value") else value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


class Problem:
    """A function at a point, a random cotangent for its outputs, and the gradient of their inner product."""

    def __init__(self, fn: Callable[..., Any], point: Sequence[Any], overrides: Any, eps: float, rtol: float,
                 rng: np.random.Generator, backend: str):
        self.fn, self.overrides, self.eps, self.rtol, self.rng, self.backend = fn, overrides, eps, rtol, rng, backend
        self.point = [as_point(p) for p in point]
        self.name = getattr(fn, "name", None) or getattr(fn, "__name__", None) or type(fn).__name__
        self.inputs = [new_input(Type(p.dtype.name, p.shape), f"argument {k}") for k, p in enumerate(self.point)]
        self.wrt = [x for x in self.inputs if dtypes.is_float(x.dtype)]
        if not self.wrt:
            raise SymgradError(four_parts(f"check_grad({self.name}, ...) at a point with floats", "no argument is a float array"))
        self.outputs = [as_tensor(y) for y in flat(fn(*self.inputs)) if dtypes.is_float(as_tensor(y).dtype)]
        self.cost: Any = as_tensor(0.0, "float64")
        values = function(self.inputs, self.outputs, backend=backend, on_unused_input="ignore")(*self.point)
        for y, value in zip(self.outputs, values):
            if y.dtype != "float64":
                raise SymgradError(four_parts(f"{self.name} of float64 inputs", f"an output of {y.dtype}", y.where, "keep float32 constants out of it"))
            self.cost = self.cost + (y * rng.standard_normal(value.shape)).sum()
        self.gradients = grad(self.cost, self.wrt, disconnected="zero", overrides=overrides)
        self.value = function(self.inputs, self.cost, backend=backend, on_unused_input="ignore")

    def check(self) -> None:
        wrong = self.first_disagreement()
        if wrong is not None:
            raise GradientError(self.report(*wrong))

    def first_disagreement(self) -> tuple[int, np.ndarray, float, float] | None:
        """(argument, its gradient, slope by the gradient, slope by differences) of the first argument that is off."""
        answers = function(self.inputs, self.gradients, backend=self.backend, on_unused_input="ignore")(*self.point)
        for x, g in zip(self.wrt, answers):
            position = next(j for j, y in enumerate(self.inputs) if y is x)
            if g.shape != self.point[position].shape:
                raise GradientError(four_parts(f"the gradient of {self.name} with respect to argument {position}",
                                               f"shape {g.shape}, the argument has {self.point[position].shape}"))
            u = self.rng.uniform(0.5, 1, g.shape) * self.rng.choice([-1.0, 1.0], g.shape)
            along, numeric = float(np.sum(g * u)), self.slope(position, u)
            if not agree(along, numeric, float(np.sum(np.abs(g * u))), self.rtol):
                return position, g, along, numeric
        return None

    def slope(self, position: int, u: np.ndarray) -> float:
        """The derivative of the cost along u, by fourth-order central differences."""
        h = self.eps
        f = lambda t: float(self.value(*[p + t * u if k == position else p for k, p in enumerate(self.point)]))
        return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)

    def gradient_problem(self) -> Problem:
        """The gradient as a function of its own, with the same inputs."""
        def gradient(*xs: Node) -> list[Node]:
            ys = [as_tensor(y) for y in flat(self.fn(*xs))]
            ys = [y for y in ys if dtypes.is_float(y.dtype)]
            weight = np.random.default_rng(1)
            seeds = [as_tensor(weight.standard_normal([int(d) for d in y.dims])) for y in ys]
            return vjp(ys, [x for x in xs if dtypes.is_float(x.dtype)], seeds, disconnected="zero", overrides=self.overrides)
        gradient.__name__ = f"gradient of {self.name}"
        return Problem(gradient, self.point, None, self.eps, self.rtol, self.rng, self.backend)

    # ------------------------------------------------------------------------------------ explanations
    def report(self, position: int, g: np.ndarray, along: float, numeric: float) -> str:
        found = [f"{along:.9g} along a random direction, central differences give {numeric:.9g}"]
        if 0 < g.size <= LARGEST:
            found.append(self.worst_element(position, g))
        found.extend(self.wrong_rules())
        return four_parts(f"the gradient of {self.name} with respect to argument {position}", found,
                          attempt="an override that is meant to differ from the derivative is expected to fail here")

    def worst_element(self, position: int, g: np.ndarray) -> str:
        numeric = np.empty_like(g)
        for index in np.ndindex(g.shape):
            unit = np.zeros_like(g)
            unit[index] = 1
            numeric[index] = self.slope(position, unit)
        error = np.where(np.isnan(g - numeric), np.inf, np.abs(g - numeric))
        index = np.unravel_index(int(np.argmax(error)), g.shape)
        place = tuple(int(i) for i in index)
        return (f"worst element {place}: {g[index]:.9g}, central differences give {numeric[index]:.9g}, at the value "
                f"{self.point[position][index]:.9g}")

    def wrong_rules(self) -> list[str]:
        """The nodes whose own cotangents disagree with differences of that node alone."""
        lines = []
        nodes = [n for n in node_order(self.outputs) if not is_leaf(n) and n.op.name != "item" and not isinstance(n._type, TupleType)]
        for node in nodes:
            if not dtypes.is_float(node.dtype) or not any(dtypes.is_float(x.dtype) for x in node.inputs):
                continue
            values = function(self.inputs, list(node.inputs), backend=self.backend, on_unused_input="ignore")(*self.point)
            if not self.node_agrees(node, values):
                lines.append(f"the rule of {node.op.name} is off: {node.op.name} made at {node.where}{self.override_of(node)}")
        return lines[:5]

    def node_agrees(self, node: Node, values: Sequence[np.ndarray]) -> bool:
        fresh = [new_input(Type(v.dtype.name, v.shape)) for v in values]
        alone = substitute([node], dict(zip(node.inputs, fresh)))[0]
        twin = _Twin(alone, fresh)
        problem = Problem(twin, values, self._optional(), self.eps, 10 * self.rtol, self.rng, self.backend)
        return problem.first_disagreement() is None

    def _optional(self) -> Any:
        """The overrides, none of which has to match one node alone."""
        rules = Overrides(self.overrides or ()).rules
        return [(matching(_bound_by(s), optional=True), rule) for s, rule in rules]

    def override_of(self, node: Node) -> str:
        for select, rule in Overrides(self.overrides or ()).rules:
            if select.bind(node) is not None:
                return f", overridden by {rule_name(rule)}"
        return ""


def _bound_by(select: Selector) -> Callable[[Node], bool]:
    return lambda node: select.bind(node) is not None


class _Twin:
    """One node as a function of its operands."""

    def __init__(self, node: Node, inputs: list[Node]):
        self.node, self.inputs, self.name = node, inputs, node.op.name

    def __call__(self, *xs: Node) -> Node:
        return substitute([self.node], dict(zip(self.inputs, xs)))[0]


def agree(a: float, b: float, scale: float, rtol: float) -> bool:
    """Equal within rtol of the larger of both and of the terms that were added up; NaN agrees with nothing."""
    return abs(a - b) <= rtol * max(abs(a), abs(b), scale) + 1e-9


__all__ = ["GradientError", "check_grad"]
