"""From a graph to a plan of CUDA kernels: the grouping of every backend, its nests and templates mapped to threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ...graph.node import Node
from ...graph.scan import is_scan
from ...loops import ir
from ...ops.branch import Guard
from ...schedule.groups import Group, Grouping, group_nodes
from ...schedule.loops import plan_loop
from ...schedule.lower import coalesce, lower_group
from ...schedule.plan import Plan, summary
from ...schedule.rows import computed_here
from ..generic import must_store
from .launch import CudaKernel
from .nests import print_nest
from .ordered import Ordered
from .printer import CudaPrinter


def make_plan(inputs: Sequence[Node], outputs: Sequence[Node], templates: Any = Ordered(), guard: Guard = (), library: bool = False) -> Plan:
    """Group, lower and print the graph. Outputs must be distinct nodes that are computed. guard: conditions on all of it.

    library: matrix products may be left to cuBLAS, which cannot be told to do nothing, so not under conditions.
    """
    grouping = group_nodes(outputs, templates.accepts, lambda node: must_store(node, templates))
    plan = Plan(list(inputs), list(outputs))
    for group in grouping.groups:
        inside = (*guard, *group.guard)
        if group.template is not None and is_scan(group.template):
            loop = plan_loop(f"k{len(plan.kernels)}", group, lambda ins, outs, inside=inside: make_plan(ins, outs, templates, inside, library))
            plan.kernels.append(replace(loop, guard=()))
            continue
        what = summary(computed_here(group, grouping))
        for launch in launches(group, grouping, templates, inside, library and not inside):
            plan.kernels.append(launch.kernel(f"k{len(plan.kernels)}", what))
        ir.forget()
    return plan


def launches(group: Group, grouping: Grouping, templates: Any, guard: Guard, library: bool) -> Iterator[Any]:
    """The kernels of a group. If it is needed under conditions only, the first thing they do is to look at those."""
    starts: list[ExitStack] = []

    def start() -> CudaPrinter:
        printer = CudaPrinter()
        stack = ExitStack()
        for test, side in guard:
            stack.enter_context(printer.nested(f"if {'' if side else 'not '}truth({printer.pointer(test)}[0]):", guarded=True))
        starts.append(stack)
        return printer

    if group.template is not None:
        printed = templates.print(group, grouping, start)
    else:
        printed = print_nest(coalesce(lower_group(group, grouping)), start, library)
    for launch in printed:
        while starts:
            starts.pop().close()
        yield launch


__all__ = ["CudaKernel", "make_plan"]
