"""What tests of the CUDA backend share: plans of graphs, and the compiler where it is installed."""

from __future__ import annotations

import pytest

from symgrad.backends.cuda.plan import make_plan
from symgrad.backends.generic import distinct_outputs
from symgrad.base.errors import BackendError
from symgrad.graph.inline import inline_blocks
from symgrad.graph.node import make
from symgrad.ops.row import ROWS
from symgrad.rewrite.books import simplify


@pytest.fixture
def compiler():
    """The compiler of CUDA kernels; without its packages the test is skipped."""
    from symgrad.backends.cuda import compiler
    try:
        compiler.find()
    except BackendError as error:
        pytest.skip(f"no compiler for CUDA kernels: {' '.join(str(error).split())}")
    return compiler


@pytest.fixture
def kernels_of():
    """kernels_of(inputs, outputs): the kernels of a graph, as compiling it for CUDA would make them."""
    def kernels(inputs, outputs):
        computed, _ = distinct_outputs(simplify(inline_blocks(list(outputs))), lambda y: make(ROWS["positive"], [y]))
        return make_plan(list(inputs), computed).flat()
    return kernels
