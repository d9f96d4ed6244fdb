"""A group of nodes as loops: scalar expressions for what it stores, over the indices of its domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..base import poly
from ..base.poly import Atom, Poly
from ..graph.node import CONSTANT, Node, is_leaf
from ..graph.types import is_one
from ..graph.walk import order
from ..loops import ir
from ..loops.ir import E, View
from ..ops.reduce import Reduction
from .groups import Group, Grouping, is_streaming
from .views import VIEWS, contiguous, strided

LARGE = 4000            # nodes
COMMON = (0, 1, -1, 2, 0.5)
COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}


@dataclass(frozen=True)
class Store:
    """buffer[at] = value, at every point of the domain."""

    node: Any           # the node whose memory it is, or scratch of the kernel
    at: Any
    value: E


@dataclass(frozen=True)
class Accumulate:
    """buffer[at] = the operation over `value` along the `reduced` loops."""

    node: Any
    at: Any
    value: E
    operation: str
    reduced: frozenset[Atom]


@dataclass(frozen=True)
class Finish:
    """buffer[at] = value, once per result of reductions along `reduced`, after their loops; value loads their results."""

    node: Node
    at: Any
    value: E
    reduced: frozenset[Atom]


Effect = Store | Accumulate | Finish


@dataclass(frozen=True)
class Nest:
    """Loops (index, extent), outermost first, and what happens at every point."""

    loops: tuple[tuple[Atom, Any], ...]
    effects: tuple[Effect, ...]


class Values:
    """The value of any node at an index, inside one group: stored elsewhere means a load, else the op's `at`, inlined."""

    def __init__(self, group: Group, grouping: Grouping, given: dict[Node, E] | None = None):
        self.group, self.grouping, self.given = group, grouping, given or {}
        # in a large graph numbers are loaded, so that groups that differ only in them are one kernel
        self.load_numbers = grouping.nodes > LARGE
        self.memo: dict[tuple[Node, tuple], E] = {}

    def is_here(self, node: Node) -> bool:
        """Computed in this group at the same point, so there is nothing to load."""
        return not is_leaf(node) and not isinstance(node.op, Reduction) and self.grouping.home.get(node, self.group) is self.group

    def value(self, node: Node, idx: Sequence[Any]) -> E:
        key = (node, tuple(idx))
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = self._value(node, key[1])
        return found

    def _value(self, node: Node, idx: tuple) -> E:
        if node in self.given:
            return self.given[node]
        if node.op is CONSTANT and node.payload.size == 1 and not (self.load_numbers and node.payload.item() not in COMMON):
            return ir.literal(node.payload.reshape(-1)[0], node.dtype)
        if not self.is_here(node):
            return load_at(node, idx, 0, contiguous(node.dims))
        if node.op.name in VIEWS:
            view = strided(node)
            if view is not None and view.base is not node and not self.is_here(view.base):
                return load_at(view.base, idx, view.offset, view.strides)
        if node.op.name == "cast" and node.op.elementwise:
            return ir.cast(self.value(node.inputs[0], idx), node.attrs["dtype"])
        return node.op.at(idx, *(self.view(x) for x in node.inputs), **node.attrs)

    def view(self, node: Node) -> View:
        return View(node.dtype, node.dims, lambda idx: self.value(node, idx))


def load_at(node: Node, idx: Sequence[Any], offset: Any, strides: Sequence[Any]) -> E:
    flat = offset
    for k, s in zip(idx, strides):
        flat = flat + k * s
    return ir.load(node, flat, node.dtype)


def domain_indices(dims: Sequence[Any], names: Callable[[int], str] = lambda k: f"i{k}") -> tuple:
    """One loop index per axis; axes of size 1 need none."""
    return tuple(0 if is_one(d) else poly.index(names(k), d) for k, d in enumerate(dims))


def lower_group(group: Group, grouping: Grouping) -> Nest:
    """The loops of a group without a template, one per axis of its domain."""
    values = Values(group, grouping)
    idx = domain_indices(group.domain)
    warm(values, group, idx)
    effects = tuple(effect(values, node, idx) for node in group.stored)
    loops = tuple((atom_of(k), d) for k, d in zip(idx, group.domain) if isinstance(k, Poly))
    return Nest(loops, effects)


def effect(values: Values, node: Node, idx: tuple) -> Effect:
    """What the group does for one stored node at one point of its domain."""
    reduction = values.grouping.finished.get(node, node)
    if not isinstance(reduction.op, Reduction):
        return Store(node, flat_index(idx, node.dims), values.value(node, idx))
    x, axis = reduction.inputs[0], reduction.attrs["axis"]
    reduced = frozenset(atom_of(idx[a]) for a in axis if isinstance(idx[a], Poly))
    kept = [0 if j in axis else k for j, k in enumerate(idx) if j not in axis or reduction.attrs["keepdims"]]
    at = flat_index(kept, reduction.dims)
    if node is not reduction:
        return Finish(node, at, values.value(node, kept), reduced)
    value = values.value(x, idx)
    return Accumulate(node, at, value, node.op.operation, reduced) if reduced else Store(node, at, value)


def flat_index(idx: Sequence[Any], dims: Sequence[Any]) -> Any:
    flat: Any = 0
    for k, s in zip(idx, contiguous(tuple(dims))):
        flat = flat + k * s
    return flat


def atom_of(k: Poly) -> Atom:
    return next(iter(k.terms))[0]


def warm(values: Values, group: Group, idx: tuple) -> None:
    """Visit what the group computes inputs first, so that long chains are not descended recursively."""
    roots = [n.inputs[0] if isinstance(n.op, Reduction) else n for n in group.stored]
    stop = lambda n: not values.is_here(n) or n in values.given or not is_streaming(n) or n.dims != group.domain
    for node in order(roots, stop=stop):
        if node.dims == group.domain and values.is_here(node) and not isinstance(node.op, Reduction):
            values.value(node, idx)


# ------------------------------------------------------------------------------------------ coalescing
def coalesce(nest: Nest) -> Nest:
    """Adjacent loops that walk memory as one are one loop: i*n + j becomes j over both."""
    loops = list(nest.loops)
    effects = nest.effects
    j = len(loops) - 2
    while j >= 0:
        (outer, m), (inner, n) = loops[j], loops[j + 1]
        if not is_one(n) and all(_together(e, outer, inner) for e in effects) and _walks_as_one(effects, outer, inner, n):
            whole = atom_of(poly.index(inner.args[0], m * n))
            effects = tuple(_replaced(e, {outer: 0, inner: Poly({(whole,): 1})}, outer, inner, whole) for e in effects)
            loops[j:j + 2] = [(whole, m * n)]
            j = min(j, len(loops) - 2)
            if j == len(loops) - 1:
                j -= 1
            continue
        j -= 1
    return Nest(tuple(loops), effects)


def _together(e: Effect, outer: Atom, inner: Atom) -> bool:
    return isinstance(e, Store) or (outer in e.reduced) == (inner in e.reduced)


def _walks_as_one(effects: Iterable[Effect], outer: Atom, inner: Atom, n: Any) -> bool:
    """Every address is a*(outer*n + inner) + rest."""
    polys: set[Any] = set()
    effects = list(effects)
    polys.update(e.at for e in effects)
    polys.update(addresses(*(e.value for e in effects)))
    return all(_joint(p, outer, inner, n) for p in polys)


def _joint(p: Any, outer: Atom, inner: Atom, n: Any) -> bool:
    if not isinstance(p, Poly):
        return True
    a, b = coefficient(p, outer), coefficient(p, inner)
    if a is None or b is None:
        return False
    return a == b * n


def coefficient(p: Poly, loop: Atom) -> Any:
    """The factor of a loop index in p; None where p is not linear in it."""
    total: Any = 0
    for mono, c in p.terms.items():
        uses = sum(1 for a in mono if a is loop)
        if uses == 0:
            if any(a is not loop and loop in inner_indices(a) for a in mono):
                return None
            continue
        rest = [a for a in mono if a is not loop]
        if uses > 1 or any(loop in inner_indices(a) for a in rest):
            return None
        total = total + poly._poly({tuple(rest): c})
    return total


def inner_indices(a: Atom) -> frozenset[Atom]:
    if a.kind == "index":
        return frozenset({a})
    if a.kind == "value":
        return a.args[0].free if isinstance(a.args[0], E) else frozenset()
    return frozenset().union(*(ir._indices(x) for x in a.args))


def subexpressions(*es: E) -> list[E]:
    """The expressions and everything inside them, once each, inner ones first; expressions inside addresses too."""
    done: set[int] = set()
    result: list[E] = []
    stack: list[tuple[E, bool]] = [(e, False) for e in reversed(es)]
    while stack:
        item, entered = stack.pop()
        if entered:
            result.append(item)
        elif item.serial not in done:
            done.add(item.serial)
            stack.append((item, True))
            stack.extend((x, False) for x in children(item))
    return result


def children(e: E) -> list[E]:
    inside = [a for a in e.args if isinstance(a, E)]
    for a in e.args:
        if isinstance(a, Poly):
            inside.extend(v.args[0] for v in poly.atoms(a) if v.kind == "value" and isinstance(v.args[0], E))
    return inside


def addresses(*es: E) -> set[Any]:
    """Every index polynomial inside the expressions."""
    return {a for x in subexpressions(*es) for a in x.args if isinstance(a, Poly)}


def _replaced(e: Effect, sizes: dict[Atom, Any], outer: Atom, inner: Atom, whole: Atom) -> Effect:
    value = replace_indices(e.value, sizes)
    at = poly.substitute(e.at, sizes.get)
    if isinstance(e, Store):
        return Store(e.node, at, value)
    reduced = frozenset((e.reduced - {outer, inner}) | ({whole} if inner in e.reduced else set()))
    return Finish(e.node, at, value, reduced) if isinstance(e, Finish) else Accumulate(e.node, at, value, e.operation, reduced)


def replace_indices(e: E, sizes: dict[Atom, Any]) -> E:
    """The expression with loop indices replaced by polynomials."""
    return _rebuilt(e, sizes.get)


def replace_loads(e: E, change: Callable[[E], E]) -> E:
    """The expression with its loads replaced by what `change` makes of them."""
    return _rebuilt(e, lambda a: None, change)


def replace_part(e: E, old: E, new: E) -> E:
    """The expression with one inside it exchanged."""
    return _rebuilt(e, lambda a: None, parts={old.serial: new})


def _rebuilt(e: E, size: Callable[[Atom], Any], load: Callable[[E], E] = lambda e: e, parts: Mapping[int, E] = MappingProxyType({})) -> E:
    new: dict[int, E] = {}

    def change(a: Atom) -> Any:
        if a.kind == "value" and isinstance(a.args[0], E):
            return ir.as_index(new[a.args[0].serial])
        return size(a)

    for x in subexpressions(e):
        args = [new[a.serial] if isinstance(a, E) else poly.substitute(a, change) if isinstance(a, Poly) else a for a in x.args]
        new[x.serial] = parts[x.serial] if x.serial in parts else load(_remade(x, args)) if x.kind == "load" else _remade(x, args)
    return new[e.serial]


def _remade(x: E, args: list[Any]) -> E:
    if x.kind == "load":
        return ir.load(args[0], args[1], x.dtype)
    if x.kind == "index":
        return ir.index(args[0])
    if x.kind == "cond":
        return ir.cond(*args)
    if x.kind == "fold":
        return ir.refold(x, args[2])
    if x.kind == "call":
        if x.args[0] == "where":
            return ir.select(*args[1:])
        if x.args[0].startswith("cast_"):
            return ir.cast(args[1], x.dtype)
        if x.args[0] in COMPARISONS and x.args[1].dtype == "int64":
            return ir.compare(x.args[0], *map(ir.as_index, args[1:]))
        return ir.both(*args[1:]) if x.args[0] == "logand" else ir.call(*args)
    return x
