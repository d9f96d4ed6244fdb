"""From a graph to a plan of printed kernels, for backends that run kernel text."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ..base import poly
from ..base.config import config
from ..base.poly import Atom
from ..graph.node import ITEM, Node, is_leaf
from ..graph.scan import is_scan
from ..graph.walk import order
from ..loops import ir
from ..ops.counted import count
from ..schedule.groups import Group, Grouping, group_nodes, is_streaming, is_trivial_reshape
from ..schedule.in_place import write_in_place
from ..schedule.loops import operands, plan_loop
from ..schedule.lower import Nest
from ..schedule.plan import PARTS, Kernel, Loop, Plan, Scratch, Sharing, summary
from ..schedule.rows import Rows, Unit, computed_here, show, units
from ..schedule.views import VIEWS, base_of
from .nests import print_nest
from .text import Printer

SharedLoop = tuple[Atom, Any, int]      # index, extent, turns in a part


@dataclass(frozen=True)
class Shared:
    """Nests as stages, each with the loop that threads share, if any."""

    stages: Sequence[tuple[Nest | Rows, SharedLoop | None]]
    how: Sharing | None = None


class NoTemplates:
    """A backend without templates and threads: everything goes through `at`."""

    def accepts(self, node: Node) -> bool:
        return False

    def print(self, group: Group, grouping: Grouping, printer: Printer) -> tuple[tuple[str, ...], list[Scratch], Sharing | None]:
        raise NotImplementedError

    def share(self, nests: Sequence[Nest | Rows]) -> Shared | None:
        """The nests as threads share them, if they do."""
        return None


def make_plan(inputs: Sequence[Node], outputs: Sequence[Node], templates: Any, prefix: str = "",
              updates: Mapping[Node, Node] = MappingProxyType({})) -> Plan:
    """Group, lower and print the graph. Outputs must be distinct nodes that are computed (see `distinct_outputs`).

    updates: outputs that may be written over the shared variable whose next value they are.
    """
    grouping = group_nodes(outputs, templates.accepts, lambda node: must_store(node, templates))
    plan = Plan(list(inputs), list(outputs))
    for k, unit in enumerate(units(grouping, outputs)):
        plan.kernels.append(make_item(f"{prefix}k{k}", unit, grouping, templates))
        ir.forget()
    write_in_place(plan, updates)
    for item in plan.kernels:
        if isinstance(item, Kernel):
            item.text = item.text_for(plan.taken)
    return plan


def make_item(name: str, unit: Unit, grouping: Grouping, templates: Any) -> Kernel | Loop:
    """What runs for a unit: a kernel, or a loop of them."""
    group = unit.groups[0]
    if group.template is not None and is_scan(group.template):
        return plan_loop(name, group, lambda inputs, outputs: make_plan(inputs, outputs, templates, f"{name}."))
    return make_kernel(name, unit, grouping, templates)


def must_store(node: Node, templates: Any) -> list[Node]:
    """The operands that a node needs in memory."""
    if is_scan(node):
        return [view.base for view in operands(node)]
    if node.op is ITEM:
        return []
    if templates.accepts(node):
        return [v.base for v in templates.operands(node)]
    if node.op.name == "reshape":
        return [] if is_trivial_reshape(node) else [base_of(node.inputs[0])]
    return [] if is_streaming(node) else [base_of(x) if x.op.name in VIEWS else x for x in node.inputs]


def make_kernel(name: str, unit: Unit, grouping: Grouping, templates: Any) -> Kernel:
    header: tuple[str, ...] = ()
    printer, group = Printer(), unit.groups[0]
    if group.template is not None:
        header, scratch, sharing = templates.print(group, grouping, printer)
        printer.arguments.extend(("scratch", item) for item in scratch)
        skip_if_empty(printer, group.stored)
    else:
        if config.debug >= 5:
            print("\n".join([f"[symgrad] {name}", *map(show, unit.nests)]), file=sys.stderr)
        sharing = print_nests(printer, unit.nests, templates)
    if sharing:
        printer.arguments.extend(PARTS)
    nodes = [node for g in unit.groups for node in computed_here(g, grouping)]
    flops = templates.flops(group.template) if group.template is not None else 0
    return Kernel(name, "", printer.arguments, list(unit.stored), summary(nodes), flops, group.guard, printer.accesses, nodes,
                  lambda taken: printer.kernel(header, taken), sharing)


def skip_if_empty(printer: Printer, stored: Sequence[Node]) -> None:
    """Nothing is prepared, packed or transformed for results of a counted size that turns out to be 0."""
    counted = [{d for d in node.dims if any(a.kind == "counted" for a in poly.atoms(d))} for node in stored]
    for size in sorted(set.intersection(*counted), key=repr)[:1]:
        lines, printer.scope.lines = printer.scope.lines, []
        with printer.nested(f"if {printer.poly_text(size)} > 0:"):
            printer.scope.lines = lines


def print_nests(printer: Printer, nests: Sequence[Nest | Rows], templates: Any) -> Sharing | None:
    """The lines of nests that run one after the other: each is a stage if threads share them."""
    shared = templates.share(nests) or Shared([(nest, None) for nest in nests])
    for k, (nest, loop) in enumerate(shared.stages):
        with printer.nested(f"if stage == {k}:", guarded=True) if shared.how and len(shared.stages) > 1 else nullcontext():
            if loop:
                printer.share(*loop)
            print_nest(printer, nest)
        printer.ranges = {}
    return shared.how


@dataclass(frozen=True)
class Place:
    """Where an output is found: result number `k`, seen under the sizes `dims`; `copied` when another output is the same array."""

    k: int
    dims: tuple
    copied: bool


def distinct_outputs(outputs: Sequence[Node], copy: Callable[[Node], Node]) -> tuple[list[Node], list[Place]]:
    """(what is computed, without repetition; where each output is among it). A reshape is only another view of its result.

    Leaves are copied: callers own their results.
    """
    unique: dict[Node, int] = {}
    places = []
    for y in outputs:
        base = y
        while base.op.name == "reshape":
            base = base.inputs[0]
        base = copy(base) if is_leaf(base) else base
        seen = base in unique
        places.append(Place(unique.setdefault(base, len(unique)), y.dims, seen))
    return list(unique), places


def arranged(places: Sequence[Place], results: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The results as the outputs were asked: under their own shapes, and copied where two outputs are one value.

    A buffer laid out for a bound has its elements in front; where most of it lies idle, it is let go of.
    """
    arrays = []
    for p, shape in zip(places, shapes):
        flat, size = results[p.k].reshape(-1), math.prod(shape)
        wanted = flat[:size].copy() if p.copied or 2 * size < flat.size else flat[:size] if size < flat.size else flat
        arrays.append(wanted.reshape(shape))
    return arrays


def size_deciders(outputs: Sequence[Node]) -> list[Node]:
    """Variables whose values decide sizes before the call; they are computed on the host first. Counted ones are left to the plan."""
    return list({x: None for n in order(outputs) for x in n.deps[len(n.inputs):] if x.op is not count})


def shapes_of(places: Sequence[Place], size_of: Callable[[poly.Atom], int]) -> list[tuple[int, ...]]:
    """The shapes of the outputs."""
    return [tuple(poly.evaluate(d, size_of) for d in p.dims) for p in places]


def counts_of(dims: Iterable[Any]) -> list[Node]:
    """The variables that sizes are counted by."""
    return list({a.args[0]: None for d in dims for a in poly.atoms(d) if a.kind == "counted"})


__all__ = ["NoTemplates", "Place", "arranged", "counts_of", "distinct_outputs", "make_plan", "shapes_of", "size_deciders"]
