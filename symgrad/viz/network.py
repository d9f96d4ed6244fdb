"""Graphs and plans as NetworkX graphs, for analysis with its algorithms."""

from __future__ import annotations

from typing import Any

import networkx

from symgrad.base.errors import BackendError, four_parts
from symgrad.base.origin import show, user_line
from symgrad.graph.node import Node
from symgrad.graph.walk import order
from symgrad.schedule.plan import Plan
from symgrad.schedule.report import label
from symgrad.viz.listing import overridden, type_text, variables


def to_networkx(graph: Any) -> networkx.MultiDiGraph:
    """A graph or a plan as a MultiDiGraph, with edges in the direction data flows.

    Nodes of a graph are their serial numbers, with attributes op, label, type, name, where, scopes, rule (the override that
    replaced the gradient, or None). An edge has `argument`, its place among the operands: x * x has two edges.
    Nodes of a plan are kernels by name (kind "kernel", label, flops) and buffers by serial number (kind "buffer").
    """
    return of_plan(graph) if isinstance(graph, Plan) else of_graph(graph)


def of_graph(graph: Any) -> networkx.MultiDiGraph:
    roots = variables(graph)
    rules = overridden(roots)
    network = networkx.MultiDiGraph()
    for node in order(roots):
        network.add_node(node.serial, op=node.op.name, label=node.name or node.op.name, type=type_text(node), name=node.name,
                         where=node.where, scopes=node.notes.scopes, rule=rules.get(node))
        for k, x in enumerate(node.inputs):
            network.add_edge(x.serial, node.serial, argument=k)
    return network


def of_plan(plan: Plan) -> networkx.MultiDiGraph:
    network = networkx.MultiDiGraph()
    for kernel in plan.kernels:
        network.add_node(kernel.name, kind="kernel", label=f"{kernel.name}: {kernel.what}", flops=kernel.flops, rule=None)
        written = set(kernel.stored)
        for buffer in kernel.buffers:
            _add_buffer(network, buffer)
            edge = (kernel.name, buffer.serial) if buffer in written else (buffer.serial, kernel.name)
            network.add_edge(*edge)
    return network


def _add_buffer(network: networkx.MultiDiGraph, buffer: Node) -> None:
    network.add_node(buffer.serial, kind="buffer", label=label(buffer), type=type_text(buffer), where=buffer.where, rule=None)


def plan(f: Any) -> Plan:
    """The plan of a compiled function: that of its latest program. Raises BackendError where a backend has none."""
    latest = getattr(f.executable, "latest", None)
    if latest is None:
        raise BackendError(four_parts("the plan of a function", f"backend {f.backend!r} runs op by op and has none", show(user_line()),
                                      'backend="cpu"'))
    return latest().plan
