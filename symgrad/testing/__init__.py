"""Tools for testing graphs and rules: numeric gradients, backends against each other, random graphs with a NumPy twin."""

from __future__ import annotations

from .compare import Difference, assert_close, assert_same
from .gradient import GradientError, check_grad
from .random_graphs import RandomGraph, random_graph

__all__ = ["Difference", "GradientError", "RandomGraph", "assert_close", "assert_same", "check_grad", "random_graph"]
