"""symgrad: symbolic graphs with gradient overrides, compiled to Numba kernels.

    import symgrad as sg          graphs: function, grad, overrides
    import symgrad.tensor as T    arrays: NumPy's names for array ops, torch.nn.functional's names for neural ops
"""

from __future__ import annotations

import importlib
from typing import Any

from . import tensor as tensor
from .base.config import config
from .base.errors import (
    BackendError,
    CompileError,
    DisconnectedError,
    DTypeError,
    MissingInputError,
    NanError,
    OverrideError,
    ShapeError,
    SymgradError,
    UnusedInputError,
    UnusedOverrideError,
)
from .base.origin import scope
from .grad import patterns
from .grad.checkpoint import checkpoint
from .grad.forward import jvp
from .grad.jacobians import batch_jacobian, hessian, hvp, jacobian, vectorize
from .grad.overrides import Overrides, like, matching, named, on, within
from .grad.receipts import receipt
from .grad.reverse import grad, vjp
from .grad.scan import scan, until
from .graph.block import OpFromGraph, op_from_graph
from .graph.node import Node as Variable
from .graph.shared import Shared, shared
from .graph.show import graph_text
from .ops.branch import ifelse
from .ops.control import grad_clip, grad_scale, stop_gradient
from .ops.route import route
from .ops.row import DEFAULT, STOP
from .ops.text import parse_graph

__version__ = "0.1.0"

# loaded on first use, so that building graphs and taking gradients needs neither Numba nor the layers above
_LATER = {"function": "runtime.function", "Function": "runtime.function", "nn": "nn", "optim": "optim", "losses": "losses",
          "random": "random", "straight_through": "random", "saliency": "saliency", "testing": "testing", "viz": "viz"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'symgrad' has no attribute {name!r}")
    module = importlib.import_module(f".{_LATER[name]}", __name__)
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def _evaluate(self: Variable, values: Any = None, backend: str | None = None) -> Any:
    """The value of a variable, as an array, given the values of its inputs: `y.eval({x: array})`. Compiled once and kept."""
    from .runtime.function import evaluate  # loads the compiler, which building graphs does not need
    return evaluate(self, values, backend)


Variable.eval = _evaluate  # type: ignore[attr-defined]

__all__ = [
    "BackendError", "CompileError", "DEFAULT", "DTypeError", "DisconnectedError", "Function", "MissingInputError", "NanError",
    "OpFromGraph", "OverrideError", "Overrides", "STOP", "ShapeError", "Shared", "SymgradError", "UnusedInputError",
    "UnusedOverrideError", "Variable", "batch_jacobian", "checkpoint", "config", "function", "grad", "grad_clip", "grad_scale", "graph_text",
    "hessian", "hvp", "ifelse", "jacobian", "jvp", "like", "losses", "matching", "named", "nn", "on", "op_from_graph", "optim",
    "parse_graph", "patterns", "random", "receipt", "route", "saliency", "scan", "scope", "shared", "stop_gradient", "straight_through", "tensor",
    "testing", "until", "vectorize", "viz", "vjp", "within",
]
