"""From the graph a user wrote to something that runs: the list of passes, in order."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backends import registry
from ..base.config import config
from ..graph import spec
from ..graph.inline import inline_blocks
from ..graph.node import Node
from ..graph.shared import Shared
from ..graph.show import graph_text
from ..graph.walk import order
from ..rewrite.books import simplify, simplify_unsafely
from ..rewrite.loops import smaller_loops
from ..rewrite.masks import masks_of_results

Pass = Callable[[Sequence[Node]], list[Node]]
_compiles = itertools.count()


def compile_graph(inputs: Sequence[Node], outputs: Sequence[Node], backend: str, updates: Mapping[int, Shared] | None = None) -> Any:
    """An executable for the outputs on a backend.

    updates: the shared variables that outputs, by position, are the next values of; a backend may write those over the old ones.
    """
    compiler = registry.find(backend)
    stages = Stages()
    stages.keep("written", outputs)
    outputs = step(inline_blocks, outputs, stages)  # leaves: call, and item of a call
    # the reference runs what the user wrote, op by op: it is what rewritten graphs are compared with
    for transform in passes() if backend != "reference" else ():
        outputs = step(transform, outputs, stages)
    in_place = getattr(compiler, "build_in_place", None)
    executable = in_place(list(inputs), outputs, updates) if in_place and updates else compiler.build(list(inputs), outputs)
    stages.keep_kernels(executable)
    return executable


def passes(unsafe: bool = False) -> list[Pass]:
    """The rewrites in the order they run; `unsafe` allows laws that hold for real numbers only."""
    simplest = simplify_unsafely if unsafe else simplify

    def loops(outputs: Sequence[Node]) -> list[Node]:
        return smaller_loops(outputs, simplest)

    return [loops, simplest, masks_of_results]


def step(transform: Pass, outputs: Sequence[Node], stages: Stages | None = None) -> list[Node]:
    """The outputs after one pass. The only door between stages: it names, times, checks and shows them.

    config.debug >= 3 prints sizes and times, >= 5 the graph as well; config.check checks the graph; config.dump keeps it.
    """
    name = transform.__name__
    start = time.perf_counter()
    result = transform(outputs)
    seconds = time.perf_counter() - start
    if config.debug >= 3:
        print(f"[symgrad] {name:<20} {difference(outputs, result)}, {1e3 * seconds:.1f} ms", file=sys.stderr)
    if config.debug >= 5:
        print(graph_text(result), file=sys.stderr)
    if config.check:
        spec.check(result, name, [spec.block_left])
        spec.check_same_types(outputs, result, name)
    if stages is not None:
        stages.keep(name, result)
    return result


def difference(before: Sequence[Node], after: Sequence[Node]) -> str:
    """`unchanged`, or the number of nodes before and after."""
    if all(a is b for a, b in zip(before, after)):
        return "unchanged"
    return f"{len(order(before))} -> {len(order(after))} nodes"


class Stages:
    """The files of one compile under config.dump: a folder per compile, one numbered file per stage."""

    def __init__(self) -> None:
        self.folder = Path(config.dump) / f"{next(_compiles):03d}" if config.dump else None
        self.count = itertools.count()

    def keep(self, name: str, outputs: Sequence[Node]) -> None:
        """Write the graph as text."""
        if self.folder is not None:
            self._write(f"{name}.txt", graph_text(list(outputs)))

    def keep_kernels(self, executable: Any) -> None:
        """Write the kernels and the plan, where they are known before the first call."""
        if self.folder is not None and getattr(executable, "is_static", False):
            self._write("plan.txt", executable.explain() + "\n")
            self._write("kernels.py", executable.source() + "\n")

    def _write(self, name: str, text: str) -> None:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{next(self.count):02d}_{name}").write_text(text)


__all__ = ["Pass", "Stages", "compile_graph", "passes", "step"]
