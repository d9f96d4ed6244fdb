"""Which nodes share a kernel.

Every node gets a group: the loop nest over its sizes at a level, or the kernel of a template (matrix product, convolution)
whose results it consumes elementwise. What is computed elementwise from finished reductions stays with them. Levels grow
along every edge that crosses groups, so groups never wait for each other in a circle, and running them by level is an
order. Then, from the outputs back, each node is stored (it gets memory) or inlined into the groups that read it: outputs
and anchors are stored, cheap values are computed again, values that one group reads are computed there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base import poly
from ..base.dtypes import itemsize
from ..graph.node import CONSTANT, ITEM, Node, is_leaf
from ..graph.scan import is_scan
from ..graph.types import is_one
from ..graph.walk import order
from ..ops.branch import Guard, conditions, guards
from ..ops.cost import MOVEMENT, is_elementwise, node_cost
from ..ops.reduce import Reduction

PIECE = 192             # nodes of one group printed as one kernel: compile time grows faster than linearly
CHEAP = 6               # operations that are cheaper to repeat than to store and load
@dataclass
class Group:
    """Nodes computed in one kernel. `stored` are its results, in order; `template` its anchor, if any."""

    key: Any
    level: int
    domain: tuple
    template: Node | None = None
    guard: Guard = ()          # the conditions under which any of it is needed
    stored: list[Node] = field(default_factory=list)
    size: int = 0                       # nodes computed


@dataclass
class Grouping:
    """The groups in running order and, per node, how it is met: `home[node]` is the group that stores it."""

    groups: list[Group]
    home: dict[Node, Group]
    finished: dict[Node, Node]          # node -> the reduction it is computed from, after that one's loops
    nodes: int = 0                      # in the whole graph


def is_streaming(node: Node) -> bool:
    """Reads each element of its inputs about once per result or reduced element, so inputs may be inlined."""
    return is_elementwise(node) or isinstance(node.op, Reduction) or node.op.name in MOVEMENT


def is_trivial_reshape(node: Node) -> bool:
    """A reshape that only inserts or removes axes of size 1."""
    return [d for d in node.dims if not is_one(d)] == [d for d in node.inputs[0].dims if not is_one(d)]


def group_nodes(outputs: Sequence[Node], is_template: Callable[[Node], bool], must_store: Callable[[Node], Sequence[Node]]) -> Grouping:
    """Group the graph. `must_store(node)` lists the operands that a node needs in memory."""
    nodes = [n for n in order(outputs) if not is_leaf(n)]
    needs = {n: {x for x in must_store(n) if not is_leaf(x)} for n in nodes}
    when = guards(outputs)
    tests = {test for guard in when.values() for test, _ in guard}
    demanded = {*outputs, *tests, *(n for n in nodes if n.op is ITEM), *(x for n in nodes for x in needs[n]),
                *(x for n in nodes for x in n.deps[len(n.inputs):] if not is_leaf(x))}
    templates = {n for n in nodes if is_scan(n) or is_template(n)}
    cost = inline_costs(nodes, demanded)
    light = {n for n in nodes if cost[n] <= CHEAP and n not in demanded}
    keys, levels, finished = _levels(nodes, templates, needs, light, when)
    pieces = _pieces(nodes, keys, levels, finished)
    groups, home = _store(nodes, keys, levels, pieces, templates, demanded, cost)
    for group in groups:
        group.guard = when.get(group.stored[0] if group.template is None else group.template, ())
    return Grouping(groups, home, finished, len(nodes))


def domain_of(node: Node) -> tuple:
    """The sizes a node loops over: its own, or those of its operand when it reduces."""
    return node.inputs[0].dims if isinstance(node.op, Reduction) else node.dims


def _levels(nodes: list[Node], templates: set[Node], needs: dict[Node, set[Node]], light: set[Node],
            when: dict[Node, Guard]) -> tuple[dict[Node, Any], dict[Node, int], dict[Node, Node]]:
    """Group key and level of every node, and the reductions that nodes finish. `after[x]` is the least level of another group
    that reads x. Light nodes are always computed where they are read, so nobody waits for them. A group has one guard, and
    comes after its conditions.
    """
    keys: dict[Node, Any] = {}
    levels: dict[Node, int] = {}
    after: dict[Node, int] = {}
    finished: dict[Node, Node] = {}
    for node in nodes:
        guard = when.get(node, ())
        operands = [x for x in node.deps if x in levels]
        tested = max((after[test] for test, _ in guard), default=0)
        ready = max((after[x] for x in operands), default=0)
        ready = max(ready, tested)
        host = None if node in templates else _host(node, operands, keys, levels, after, finished)
        if node.op is ITEM:         # made with the others of its loop
            host = node.inputs[0]
        elif host is not None and conditions(when.get(host, ())) != conditions(guard):
            host = None
        if node in templates:
            keys[node], levels[node] = ("template", node.serial), ready
        elif host is not None:
            keys[node], levels[node] = keys[host], levels[host]
            if keys[host][0] == "loop":
                finished[node] = finished.get(host, host)
        else:
            own = ("loop", domain_of(node), conditions(guard))
            joined = {x for x in operands if keys[x] == own and x not in needs[node] and x not in finished and _can_join(x, node)}
            keys[node] = own
            levels[node] = max((levels[x] if x in joined else after[x] for x in operands), default=tested)
            levels[node] = max(levels[node], tested)
        after[node] = ready if node in light else levels[node] + 1
    return keys, levels, finished


def _can_join(x: Node, node: Node) -> bool:
    """The value of x at an index is at hand where node needs it: same loops, and x is not a finished reduction."""
    return not isinstance(x.op, Reduction) and (is_elementwise(node) or isinstance(node.op, Reduction)) and x.dims == domain_of(node)


def _host(node: Node, operands: list[Node], keys: dict[Node, Any], levels: dict[Node, int], after: dict[Node, int],
          finished: dict[Node, Node]) -> Node | None:
    """The operand whose kernel an elementwise node of its sizes can end: a template's result, or a reduction.

    It is the last to be ready; the other operands come earlier, or from the same place.
    """
    if not is_elementwise(node):
        return None
    place = lambda x: (keys[x], levels[x], _reduced(finished.get(x, x)))
    hosts = [x for x in operands if x.op is not ITEM and x.dims == node.dims and (keys[x][0] == "template" or isinstance(finished.get(x, x).op, Reduction))]
    if not hosts:
        return None
    host = max(hosts, key=lambda x: levels[x])
    return host if all(place(x) == place(host) or after[x] <= levels[host] for x in operands) else None


def _reduced(node: Node) -> Any:
    """What two reductions must share to end together."""
    return (node.attrs["axis"], node.attrs["keepdims"]) if isinstance(node.op, Reduction) else None


def _pieces(nodes: list[Node], keys: dict[Node, Any], levels: dict[Node, int], finished: dict[Node, Node]) -> dict[Node, int]:
    """Long groups are cut every PIECE nodes in topological order; what finishes a reduction stays with it."""
    seen: dict[tuple[Any, int], int] = {}
    piece: dict[Node, int] = {}
    for node in nodes:
        where = (keys[node], levels[node])
        seen[where] = seen.get(where, -1) + 1
        piece[node] = 0 if keys[node][0] == "template" else piece[finished[node]] if node in finished else seen[where] // PIECE
    return piece


def _store(nodes: list[Node], keys: dict[Node, Any], levels: dict[Node, int], pieces: dict[Node, int], templates: set[Node],
           demanded: set[Node], cost: dict[Node, float]) -> tuple[list[Group], dict[Node, Group]]:
    """From the outputs back: who reads each node decides whether it gets memory or is computed where it is read."""
    groups: dict[Any, Group] = {}
    anchors = {n.serial: n for n in templates}
    home: dict[Node, Group] = {}
    readers: dict[Node, dict[int, Group]] = {n: {} for n in nodes}

    def own_group(node: Node) -> Group:
        where = (keys[node], levels[node], pieces[node])
        if where not in groups:
            template = anchors.get(keys[node][1]) if keys[node][0] == "template" else None
            domain = keys[node][1] if template is None else () if is_scan(template) else template.dims
            groups[where] = Group(where, levels[node], domain, template)
        return groups[where]

    for node in reversed(nodes):
        own, users = own_group(node), readers[node]
        if not users and node not in demanded:
            continue                            # only its size is used
        stored = node in demanded or _is_stored(node, own, users, cost, templates)
        if stored:
            own.stored.append(node)
            home[node] = own
        for g in [own] if stored else users.values():
            g.size += 1
        for x in node.inputs:
            if not is_leaf(x):
                readers[x].update((id(g), g) for g in ([own] if stored or node in templates else list(users.values())))
    used = [g for g in groups.values() if g.stored]
    for g in used:
        g.stored.reverse()
    used.sort(key=lambda g: (g.level, g.key[2], g.stored[0].serial))
    return used, home


def _is_stored(node: Node, own: Group, users: dict[int, Group], cost: dict[Node, float], templates: set[Node]) -> bool:
    if node in templates:
        return any(g is not own for g in users.values())
    if isinstance(node.op, Reduction) or not (is_elementwise(node) or node.op.name in MOVEMENT):
        return any(g is not own for g in users.values()) or isinstance(node.op, Reduction)
    return _better_stored(node, own, users, cost)


def _better_stored(node: Node, own: Group, users: dict[int, Group], cost: dict[Node, float]) -> bool:
    if len(users) == 1 and next(iter(users.values())) is own:
        return False
    if cost[node] <= CHEAP or is_widening(node):
        return False
    if len(users) > 1:
        return True
    reader = next(iter(users.values()))
    # one reader, elsewhere: compute it there unless it would be repeated (broadcast) there, or that kernel is long already
    return reader.key[:2] == own.key[:2] or reader.size >= PIECE or _repeated(node, reader) or reader.template is not None


def is_widening(node: Node) -> bool:
    """A cast to more bytes: if anything is kept in memory it is the operand, such as the mask behind a float."""
    return node.op.name == "cast" and itemsize(node.dtype) > itemsize(node.inputs[0].dtype)


def _repeated(node: Node, reader: Group) -> bool:
    mine, theirs = poly.product(node.dims), poly.product(reader.domain)
    if isinstance(mine, int) and isinstance(theirs, int):
        return mine < theirs
    return mine != theirs


def inline_costs(nodes: list[Node], stored: set[Node]) -> dict[Node, float]:
    """Operations to compute one element of a node from what is stored anyway, as if everything else were inlined."""
    cost: dict[Node, float] = {}
    for node in nodes:
        if is_elementwise(node) or node.op.name in MOVEMENT:
            cost[node] = node_cost(node) + sum(cost[x] if x not in stored and _flows(x) else 0.5 for x in set(node.inputs) if x.op is not CONSTANT)
        else:
            cost[node] = 1000
    return cost


def _flows(x: Node) -> bool:
    return not is_leaf(x) and not isinstance(x.op, Reduction) and (is_elementwise(x) or x.op.name in MOVEMENT)
