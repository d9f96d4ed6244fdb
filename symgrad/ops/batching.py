"""Batching: a graph for one example becomes a graph for many, op by op.

Some leaves get a new leading axis; what depends on them gets it too, what does not is computed once. Contractions batch into
larger calls: a convolution of many images is one of more images, of many filters one of more channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..base import poly
from ..base.errors import ShapeError, SymgradError, four_parts
from ..graph.inline import inline_blocks
from ..graph.node import Node, is_leaf, make, new_input
from ..graph.scan import make_scan, opened
from ..graph.types import Type
from ..graph.walk import copy_notes, depends_on, order, resized
from .branch import if_else
from .control import Identity
from .draws import Drawn
from .elementwise import where
from .partition import Parts, parts_by
from .reduce import Reduction
from .row import ROWS, cast
from .shape import broadcast_to, reshape, transpose

Operand = tuple[Node, bool]             # a variable, and whether it has the new axis
Batcher = Callable[[Node, Sequence[Operand], Any], Node]


def batched(outputs: Sequence[Node], sources: Mapping[Node, Node], size: Any) -> list[Node]:
    """The outputs over a new leading axis of `size`, with each source replaced by its batched variable.

    Outputs that depend on no source are repeated. Raises SymgradError for an op that cannot be batched.
    """
    inlined = inline_blocks(outputs)
    nodes = order(inlined, stop=lambda n: n in sources)
    rows = Rows(inlined, nodes, sources, size)
    for node in nodes:
        if node in rows.table:
            continue
        if is_leaf(node) or not any(rows.table[x][1] for x in node.inputs):
            rows.table[node] = node, False
            continue
        result = rows.chosen(node) if rows.chooses_by_row(node) else rows.made(node)
        copy_notes(result, node)
        rows.table[node] = result, True
    return [full(*rows.operand(y, ()), size) for y in inlined]


Sides = tuple[tuple[Node, bool], ...]       # choices, outermost first, and the side of each that a node belongs to


class Rows:
    """Batched variables, each over the examples it is needed for: where examples choose sides, a side is computed on its own ones.

    table: a node -> its batched variable. sides: a node -> the choices, made by each example for itself, that it stands behind.
    """

    def __init__(self, outputs: Sequence[Node], nodes: Sequence[Node], sources: Mapping[Node, Node], size: Any):
        self.table: dict[Node, Operand] = {x: (y, True) for x, y in sources.items()}
        self.whole = size
        self.differing = depends_on(outputs, sources)
        self.sides = self._sides(outputs, nodes, sources)
        self.moved: dict[tuple[Node, Sides], Operand] = {}
        self.divisions: dict[tuple[Node, Sides], Parts] = {}

    def chooses_by_row(self, node: Node) -> bool:
        return node.op is if_else and node.inputs[0] in self.differing

    def _sides(self, outputs: Sequence[Node], nodes: Sequence[Node], sources: Mapping[Node, Node]) -> dict[Node, Sides]:
        """What all users of a node have in common, from the outputs back. What has no rule of its own wants all examples."""
        found: dict[Node, Sides] = dict.fromkeys((*outputs, *sources), ())
        for node in reversed(nodes):
            if batcher_of(node) in (one_by_one, loop, result_of_loop, ragged):
                found[node] = ()
            for k, x in enumerate(node.deps if node not in sources else ()):
                side = ((node.inputs[0], k == 1),) if k in (1, 2) and self.chooses_by_row(node) else ()
                asked = found[node] + side
                found[x] = _common(found[x], asked) if x in found else asked
        return found

    def size(self, sides: Sides) -> Any:
        """The number of examples on these sides."""
        return self.division(sides[-1][0], sides[:-1]).sizes[sides[-1][1]] if sides else self.whole

    def division(self, test: Node, sides: Sides) -> Parts:
        """The examples on these sides, divided by what they say to a test."""
        key = test, sides
        if key not in self.divisions:
            self.divisions[key] = parts_by(cast(full(*self.operand(test, sides), self.size(sides)), "int64"), 2)
        return self.divisions[key]

    def operand(self, x: Node, sides: Sides) -> Operand:
        """x for the examples on these sides, which are some of those it was computed for."""
        if not self.table[x][1] or len(self.sides[x]) == len(sides):
            return self.table[x]
        key = x, sides
        if key not in self.moved:
            (test, side), outer = sides[-1], sides[:-1]
            self.moved[key] = self.division(test, outer).of(self.operand(x, outer)[0], int(side)), True
        return self.moved[key]

    def made(self, node: Node) -> Node:
        """A node by its batching rule, over the examples that need it."""
        sides = self.sides[node]
        return batcher_of(node)(node, [self.operand(x, sides) for x in node.inputs], self.size(sides))

    def chosen(self, node: Node) -> Node:
        """A choice that every example makes for itself: both sides on their own examples, put together again."""
        test, then, otherwise = node.inputs
        outer = self.sides[node]
        if all(self.sides[x] == outer for x in (then, otherwise)):       # both are there anyway
            values = [full(*self.operand(x, outer), self.size(outer)) for x in node.inputs]
            return where(reshape(values[0], (self.size(outer), *(1,) * node.ndim)), *values[1:])
        inner = [(*outer, (test, side)) for side in (False, True)]
        rows = [full(*self.operand(x, side), self.size(side)) for x, side in zip((otherwise, then), inner)]
        return self.division(test, outer).together(rows)


def _common(a: Sides, b: Sides) -> Sides:
    """The choices that both begin with."""
    n = next((k for k, (x, y) in enumerate(zip(a, b)) if x[0] is not y[0] or x[1] != y[1]), min(len(a), len(b)))
    return a[:n]


def full(x: Node, is_batched: bool, size: Any) -> Node:
    """The operand with the new axis in any case."""
    return x if is_batched else broadcast_to(reshape(x, (1, *x.dims)), (size, *x.dims))


def batcher_of(node: Node) -> Batcher:
    if node.op.name in BATCHERS:
        return BATCHERS[node.op.name]
    if getattr(node.op, "elementwise", False):
        return elementwise
    if isinstance(node.op, Reduction) or (len(node.inputs) == 1 and "axis" in node.attrs):
        return along_axis
    if isinstance(node.op, Identity):
        return unchanged
    if isinstance(node.op, Drawn):
        return same_draws
    return one_by_one


# ------------------------------------------------------------------------------------------- the rules
def elementwise(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """Operands of lower rank get axes of size 1 behind the new one, so that broadcasting stays what it was."""
    aligned = [reshape(x, (x.dims[0], *(1,) * (node.ndim - x.ndim + 1), *x.dims[1:])) if b else x for x, b in operands]
    return make(node.op, aligned, **node.attrs)


def unchanged(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """The op works on the last axes: one more in front changes nothing."""
    return make(node.op, [full(x, b, size) for x, b in operands], **node.attrs)


def along_axis(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    axis = node.attrs["axis"]
    moved = tuple(a + 1 for a in axis) if isinstance(axis, tuple) else axis + 1
    return make(node.op, [full(x, b, size) for x, b in operands], **{**node.attrs, "axis": moved})


def in_front(name: str, first: Callable[[Any], Any]) -> Batcher:
    """Ops with one attribute entry per axis: the new axis gets one in front."""
    def batch(node: Node, operands: Sequence[Operand], size: Any) -> Node:
        attrs = {**resized(node.attrs, {}, {}), name: (first(size), *node.attrs[name])}
        return make(node.op, [full(x, b, size) for x, b in operands], **attrs)
    return batch


def spread(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    (x, _), = operands
    shape = node.attrs["shape"]
    aligned = reshape(x, (x.dims[0], *(1,) * (len(shape) - x.ndim + 1), *x.dims[1:]))
    return broadcast_to(aligned, (size, *shape))


def same_draws(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """Every example draws the same, with its own parameters, as it does where nothing drawn from depends on the example."""
    (state, one_each), *parameters = operands
    if one_each:
        return one_by_one(node, operands, size)
    return make(node.op, [state, *(full(x, b, size) for x, b in parameters)], **{**node.attrs, "shared": node.attrs.get("shared", 0) + 1})


def turned(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    return transpose(operands[0][0], (0, *(a + 1 for a in node.attrs["axes"])))


def indexed(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """Indexing by arrays that are the same for all examples: a whole slice in front."""
    arrays_from = 1 if node.op.name == "gather" else 2
    if any(b for _, b in operands[arrays_from:]):
        return one_by_one(node, operands, size)
    values = [full(x, b, size) for x, b in operands[:arrays_from]]
    attrs = {**node.attrs, "items": (("slice", 0, 1, size), *node.attrs["items"]), "place": node.attrs["place"] + 1}
    return make(node.op, [*values, *(x for x, _ in operands[arrays_from:])], **attrs)


def size_value(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    return make(node.op, [operands[0][0]], axis=node.attrs["axis"] + 1)


def choice(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """One condition for all chooses once. (What each example chooses for itself is up to `Rows`.)"""
    (test, _), then, otherwise = operands
    return make(node.op, [test, full(*then, size), full(*otherwise, size)])


def test_value(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    return operands[0][0]


def product(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """Rows of all examples go through one matrix in one product; otherwise a batched product."""
    (x, left), (w, right) = operands
    if left and not right and x.ndim == 3 and w.ndim == 2:
        rows = make(node.op, [reshape(x, (size * x.dims[1], x.dims[2])), w])
        return reshape(rows, (size, x.dims[1], w.dims[1]))
    rank = max(x.ndim - left, w.ndim - right) + 1
    aligned = [reshape(a, (a.dims[0], *(1,) * (rank - a.ndim), *a.dims[1:])) if b else a for a, b in operands]
    return make(node.op, aligned)


def images(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """Pooling works on the last axes: examples are more images."""
    alone = node.ndim == len(node.attrs["kernel_size"])
    merged = [full(x, b, size) if alone else merge(full(x, b, size)) for x, b in operands]
    attrs = dict(node.attrs)
    if "shape" in attrs:
        first, *rest = attrs["shape"]
        attrs["shape"] = (size, first, *rest) if alone else (size * first, *rest)
    return reshape(make(node.op, merged, **attrs), (size, *node.dims))


def place_of_extreme(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """A position over several axes is one over them flattened."""
    if len(node.attrs["axis"]) == 1:
        return along_axis(node, operands, size)
    (x, _), = operands
    flat = reshape(x, (size, poly.product(x.dims[1:])))
    return reshape(make(node.op, [flat], axis=(1,), keepdims=False), (size, *node.dims))


def merge(x: Node) -> Node:
    """(examples, n, ...) as (examples * n, ...)."""
    return reshape(x, (x.dims[0] * x.dims[1], *x.dims[2:]))


def to_channels(x: Node) -> Node:
    """(examples, n, channels, ...) as (n, examples * channels, ...)."""
    front = transpose(x, (1, 0, *range(2, x.ndim)))
    return reshape(front, (front.dims[0], front.dims[1] * front.dims[2], *front.dims[3:]))


def from_channels(y: Node, size: Any, dims: Sequence[Any]) -> Node:
    """(n, examples * channels, ...) back to (examples, n, channels, ...)."""
    apart = reshape(y, (dims[0], size, *dims[1:]))
    return transpose(apart, (1, 0, *range(2, len(dims) + 1)))


def convolution(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    (x, images_differ), (w, filters_differ) = operands
    groups = node.attrs["groups"]
    if not filters_differ:
        return _more_images(node, x, w, size)
    if not images_differ and groups == 1:
        return from_channels(make(node.op, [x, merge(w)], **node.attrs), size, node.dims)
    y = make(node.op, [to_channels(full(x, images_differ, size)), merge(w)], **{**node.attrs, "groups": groups * size})
    return from_channels(y, size, node.dims)


def _more_images(node: Node, x: Node, w: Node, size: Any, **shape: Any) -> Node:
    return reshape(make(node.op, [merge(x), w], **{**node.attrs, **shape}), (size, *node.dims))


def input_grad(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    (g, images_differ), (w, filters_differ) = operands
    shape, groups = node.attrs["shape"], node.attrs["groups"]
    if not filters_differ:
        return _more_images(node, g, w, size, shape=(size * shape[0], *shape[1:]))
    attrs = {**node.attrs, "shape": (shape[0], size * shape[1], *shape[2:]), "groups": groups * size}
    return from_channels(make(node.op, [to_channels(full(g, images_differ, size)), merge(w)], **attrs), size, node.dims)


def weight_grad(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    (x, images_differ), (g, cotangents_differ) = operands
    shape, groups = node.attrs["shape"], node.attrs["groups"]
    attrs = {**node.attrs, "shape": (size * shape[0], *shape[1:])}
    if not images_differ and groups == 1:
        return reshape(make(node.op, [x, to_channels(g)], **attrs), (size, *shape))
    both = [to_channels(full(x, images_differ, size)), to_channels(full(g, cotangents_differ, size))]
    return reshape(make(node.op, both, **{**attrs, "groups": groups * size}), (size, *shape))


def one_by_one(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """For ops without a rule: each example by itself, then joined; the number of examples must be known."""
    if not isinstance(size, int):
        raise SymgradError(four_parts(f"batching {node.op.name}", "it is done example by example, but their number is not known", node.where,
                                      "declare the size of the batch"))
    parts = [make(node.op, [x[k] if b else x for x, b in operands], **node.attrs) for k in range(size)]
    return ROWS["stack"](*parts, axis=0) if parts else broadcast_to(reshape(make(node.op, [x[0] for x, _ in operands]), (1, *node.dims)), (0, *node.dims))


def loop(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """A loop over all examples at once: its states get the new axis where anything they are made of has it; time stays in front."""
    body = opened(node)
    first, states = len(body.elements), len(body.states)
    flags = [b for _, b in operands]
    carried = list(flags[first:first + states])
    while True:
        sources = [x for x, b in zip(body.elements, flags) if b] + [x for x, b in zip(body.constants, flags[first + states:]) if b]
        sources += [r for s, b in zip(body.states, carried) if b for r in s.reads]
        reached = depends_on(body.outputs, sources)
        grown = [b or s.next in reached for s, b in zip(body.states, carried)]
        if grown == carried:
            break
        carried = grown
    if body.until is not None and body.until in reached:
        raise SymgradError(four_parts("one loop for all examples", "until depends on the example: each would stop at a step of its own", node.where,
                                      "a fixed n_steps, and T.where on a mask of the examples that go on"))
    stand_ins = {x: new_input(Type(x.dtype, (size, *x.dims))) for x in sources}
    inner = [y if b else x for x, y, b in zip(body.outputs, batched(body.outputs, stand_ins, size), (y in reached for y in body.outputs))]
    swap = lambda x: transpose(x, (1, 0, *range(2, x.ndim)))
    sequences = [swap(x) if b else x for x, b in operands[:first]]
    initials = [swap(full(*given, size)) if b else given[0] for given, b in zip(operands[first:first + states], carried)]
    new = body.on([stand_ins.get(x, x) for x in body.inputs], inner)
    return make_scan(new, sequences, initials, [x for x, _ in operands[first + states:]], node.attrs["n"])


def result_of_loop(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """A result of a loop with the examples in front, time behind."""
    result = make(node.op, [operands[0][0]], k=node.attrs["k"])
    return full(result, False, size) if result.ndim == node.ndim else transpose(result, (1, 0, *range(2, result.ndim)))


def rows_permuted(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    """Rows of all examples by one permutation: rows in front."""
    (x, _), (order_, differs), (inverse, _) = operands
    if differs:
        return one_by_one(node, operands, size)
    swap = lambda v: transpose(v, (1, 0, *range(2, v.ndim)))
    return swap(make(node.op, [swap(x), order_, inverse]))


def ragged(node: Node, operands: Sequence[Operand], size: Any) -> Node:
    raise ShapeError(four_parts("one size for all examples", f"{node.op.name}: the examples of a batch would have different sizes", node.where,
                                "T.where(mask, x, 0) instead of x[mask]; or select before batching"))


BATCHERS: dict[str, Batcher] = {
    "scan": loop, "item": result_of_loop,
    "count": ragged, "permuted": rows_permuted,
    "reshape": lambda node, operands, size: reshape(operands[0][0], (size, *node.attrs["shape"])),
    "broadcast_to": spread,
    "transpose": turned,
    "subtensor": in_front("items", lambda size: ("slice", 0, 1, size)),
    "pad": in_front("widths", lambda size: (0, 0)),
    "concatenate": along_axis, "stack": along_axis, "take_along_axis": along_axis, "add_along_axis": along_axis, "ordered": along_axis,
    "gather": indexed, "index_add": indexed, "index_set": indexed,
    "argmax": place_of_extreme, "argmin": place_of_extreme,
    "size_of": size_value, "diagonal": unchanged, "diagonal_matrix": unchanged,
    "ifelse": choice, "condition": test_value,
    "matmul": product,
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], convolution),
    "convolution_input_grad": input_grad, "convolution_weight_grad": weight_grad,
    **dict.fromkeys([f"{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3)], images),
    **dict.fromkeys(["max_pool_grad", "max_pool_pick", "avg_pool_grad"], images),
}

