"""From the graph a user wrote to something that runs: the list of passes, in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..backends import registry
from ..base.config import config
from ..graph.node import Node
from ..graph.walk import order
from ..graph.inline import inline_blocks
from ..rewrite.books import simplify, simplify_unsafely
from ..rewrite.masks import masks_of_results


def compile_graph(inputs: Sequence[Node], outputs: Sequence[Node], backend: str) -> Any:
    """An executable for the outputs on a backend."""
    compiler = registry.find(backend)
    outputs = step(inline_blocks, outputs)
    # the reference runs what the user wrote, op by op: it is what rewritten graphs are compared with
    for rewrite in passes() if backend != "reference" else []:
        outputs = step(rewrite, outputs)
    return compiler.build(list(inputs), outputs)


def passes(unsafe: bool = False) -> list[Callable[[Sequence[Node]], list[Node]]]:
    """The rewrites in the order they run; `unsafe` allows laws that hold for real numbers only."""
    return [simplify_unsafely if unsafe else simplify, masks_of_results]


def step(transform: Callable[[Sequence[Node]], list[Node]], outputs: Sequence[Node]) -> list[Node]:
    """Run one pass. The only door between stages: it times and shows them (SYMGRAD_DEBUG)."""
    start = time.perf_counter()
    result = transform(outputs)
    if config.debug >= 3:
        same = all(a is b for a, b in zip(result, outputs))
        nodes = "unchanged" if same else f"{len(order(outputs))} -> {len(order(result))} nodes"
        print(f"[symgrad] {transform.__name__:<20} {nodes}, {1e3 * (time.perf_counter() - start):.1f} ms", file=sys.stderr)
    return result
