"""Laws of movement: where elements come from. Fewer steps between a kernel and the memory it reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base import dtypes
from ..graph.node import CONSTANT, Node, Op, constant, make, new_input
from ..graph.types import Type, broadcast_dims, is_one
from ..ops.elementwise import number
from ..ops.row import ROWS
from ..ops.shape import broadcast_to, full_item, reshape, subtensor, transpose
from .pattern import anything, attribute, computed, op, repeats_to, uniform
from .rule import ROUNDING, RuleBook, examples, when

x = anything("x")
a, b = attribute("a"), attribute("b")
re, tr, br, sub = op("reshape"), op("transpose"), op("broadcast_to"), op("subtensor")

# fmt: off
shapes = RuleBook("shapes", [
    (re(x, shape=a),                     x, when(lambda x, a: x.dims == a), examples({"x": (3, 4), "a": (3, 4)})),
    (re(re(x, shape=a), shape=b),        re(x, shape=b), examples({"x": (3, 4), "a": (2, 6), "b": (12,)}, {"x": (0, 3), "a": (0,), "b": (3, 0)})),
    (tr(x, axes=a),                      x, when(lambda x, a: a == tuple(range(x.ndim))), examples({"x": (3, 4), "a": (0, 1)})),
    (tr(tr(x, axes=a), axes=b),          tr(x, axes=computed(lambda a, b: tuple(a[k] for k in b))),
     examples({"x": (2, 3, 4), "a": (1, 2, 0), "b": (2, 1, 0)}, {"x": (2, 0, 4), "a": (1, 2, 0), "b": (1, 2, 0)})),
    (br(x, shape=a),                     x, when(lambda x, a: x.dims == a), examples({"x": (3, 4), "a": (3, 4)})),
    (br(br(x, shape=a), shape=b),        br(x, shape=b), when(lambda x, b: repeats_to(x.dims, b)),
     examples({"x": (3, 1), "a": (3, 4), "b": (2, 3, 4)}, {"x": (), "a": (0,), "b": (2, 0)})),
    (br(re(x, shape=a), shape=b),        br(x, shape=b), when(lambda x, a, b: adds_leading_ones(x.dims, a) and repeats_to(x.dims, b)),
     examples({"x": (4,), "a": (1, 4), "b": (3, 4)})),
])
# fmt: on


def adds_leading_ones(before: tuple, after: tuple) -> bool:
    """A reshape that broadcasting would do by itself."""
    extra = len(after) - len(before)
    return extra >= 0 and after[extra:] == before and all(map(is_one, after[:extra]))


def _fresh(*dims: Any, dtype: str = "float32") -> Node:
    return new_input(Type(dtype, dims))


# ------------------------------------------------------------------------------------------- one value
MOVES = {"reshape", "transpose", "subtensor", "roll", "diagonal"}


def _moved_samples() -> list[Node]:
    full = make(broadcast_to, [constant(2.5, "float32")], shape=(3, 4))
    return [
        make(reshape, [full], shape=(2, 6)),
        make(transpose, [full], axes=(1, 0)),
        make(reshape, [constant(1.0, "float32")], shape=(1, 1)),
        make(subtensor, [full], items=(("slice", 2, -1, 3), ("int", 1))),
    ]


@shapes.law(*sorted(MOVES), samples=_moved_samples)
def move_one_value(node: Node) -> Node | None:
    """One value everywhere stays so wherever elements move."""
    value = uniform(node.inputs[0])
    if value is None or _checks_sizes(node):
        return None
    return make(broadcast_to, [constant(value, node.dtype)], shape=node.dims) if node.ndim else constant(value, node.dtype)


def _repeated_samples() -> list[Node]:
    return [make(broadcast_to, [constant([1.0], "float32")], shape=(3,)), make(broadcast_to, [constant(np.full((2, 1), 0.5))], shape=(4, 2, 3))]


@shapes.law("broadcast_to", samples=_repeated_samples)
def repeat_one_value(node: Node) -> Node | None:
    """One value everywhere is a repeated scalar, which kernels print as a literal."""
    x = node.inputs[0]
    value = uniform(x) if x.op is CONSTANT and x.ndim else None
    return None if value is None else make(broadcast_to, [constant(value, node.dtype)], shape=node.dims)


def _checks_sizes(node: Node) -> bool:
    """An index that is only compared with its axis when the function runs."""
    checked = getattr(node.op, "sizes_checked", None)
    return checked is not None and bool(checked(*(x._type for x in node.inputs), **node.attrs))


# ------------------------------------------------------------------------------------------ broadcasts
def _is_elementwise(row: Op) -> bool:
    return bool(getattr(row, "elementwise", False))


def _broadcast_samples() -> list[Node]:
    row, column, scalar, whole = _fresh(4), _fresh(3, 1), _fresh(), _fresh(3, 4)
    wide = lambda v: make(broadcast_to, [v], shape=(3, 4))
    ones = constant(np.full((3, 4), 0.5, "float32"))
    return [
        make(ROWS["add"], [wide(row), whole]),
        make(ROWS["multiply"], [wide(row), wide(column)]),
        make(ROWS["exp"], [wide(column)]),
        make(ROWS["where"], [make(ROWS["greater"], [whole, wide(scalar)]), wide(scalar), whole]),
        make(ROWS["multiply"], [whole, ones]),
        make(ROWS["subtract"], [make(reshape, [row], shape=(1, 4)), whole]),
        make(ROWS["divide"], [wide(scalar), wide(scalar)]),
        make(ROWS["cast"], [wide(row)], dtype="float64"),
        make(ROWS["add"], [make(broadcast_to, [_fresh(1)], shape=(0,)), _fresh(0)]),
    ]


@shapes.law(_is_elementwise, samples=_broadcast_samples)
def broadcast_late(node: Node) -> Node | None:
    """Elementwise ops broadcast by themselves; what is the same along an axis is computed once and repeated afterwards."""
    for bare in ([stripped(v, True) for v in node.inputs], [stripped(v, False) for v in node.inputs]):
        if all(p is q for p, q in zip(bare, node.inputs)):
            continue
        dims = broadcast_dims(*(v.dims for v in bare))
        if dims == node.dims or (repeats_to(dims, node.dims) and not any(p is not q and q.op is reshape for p, q in zip(bare, node.inputs))):
            return make(node.op, bare, **node.attrs)
    return None


def stripped(node: Node, reshapes: bool) -> Node:
    """What the node repeats: below broadcasts (and leading axes of size 1); a scalar for a constant of one value."""
    while True:
        if node.op is broadcast_to or (reshapes and node.op is reshape and adds_leading_ones(node.inputs[0].dims, node.dims)):
            node = node.inputs[0]
        elif node.op is CONSTANT and node.ndim and (value := uniform(node)) is not None:
            return constant(value, node.dtype)
        else:
            return node


# ------------------------------------------------------------------------------------------- reductions
def _reduced(row: str, v: Node, *axis: int, keepdims: bool = False) -> Node:
    return make(ROWS[row], [v], axis=axis, keepdims=keepdims)


def _repeat_samples() -> list[Node]:
    wide = make(broadcast_to, [_fresh(4)], shape=(3, 4))
    column = make(broadcast_to, [_fresh(3, 1)], shape=(3, 5))
    return [
        _reduced("sum", wide, 0),
        _reduced("sum", wide, 0, 1),
        _reduced("max", column, 1),
        _reduced("sum", column, 0, 1, keepdims=True),
        _reduced("min", make(broadcast_to, [_fresh()], shape=(2, 3)), 0, 1),
        _reduced("sum", make(broadcast_to, [_fresh(3)], shape=(2, 3)), 1),
    ]


@shapes.law("sum", "max", "min", samples=_repeat_samples, claims=[ROUNDING])
def reduce_repeated(node: Node) -> Node | None:
    """A sum over repeated values is a multiple, the largest of repeated values is one of them."""
    wide, axis, keepdims = node.inputs[0], node.attrs["axis"], node.attrs["keepdims"]
    if wide.op is not broadcast_to:
        return None
    v = wide.inputs[0]
    extra = wide.ndim - v.ndim
    repeated = [k for k in axis if (k < extra or is_one(v.dims[k - extra])) and not is_one(wide.dims[k])]
    if not repeated or any(not isinstance(wide.dims[k], int) or not wide.dims[k] for k in repeated):
        return None  # 0 times infinity is NaN, where the sum of nothing is 0
    count = int(np.prod([wide.dims[k] for k in repeated]))
    if node.op.name == "sum" and not _can_count(count, node.dtype):
        return None
    own = tuple(k - extra for k in axis if k >= extra)
    kept = make(node.op, [v], axis=own, keepdims=keepdims)
    result = make(reshape, [v], shape=kept.dims) if all(is_one(v.dims[k]) for k in own) else kept
    return ROWS["multiply"](result, number(count, result)) if node.op.name == "sum" else result


def _can_count(n: int, dtype: str) -> bool:
    return dtype != "bool" and (dtypes.is_float(dtype) or n <= np.iinfo(dtype).max)


def _nested_samples() -> list[Node]:
    v = _fresh(2, 3, 4)
    return [
        _reduced("sum", _reduced("sum", v, 0), 1),
        _reduced("max", _reduced("max", v, 1, keepdims=True), 0, 1, keepdims=True),
        _reduced("sum", _reduced("sum", v, 2), 0, 1),
        _reduced("min", _reduced("min", v, 1), 1),
    ]


@shapes.law("sum", "max", "min", "any", "all", "prod", samples=_nested_samples, claims=[ROUNDING])
def reduce_twice(node: Node) -> Node | None:
    """A reduction of a reduction is one over both their axes."""
    inner = node.inputs[0]
    if inner.op is not node.op or inner.attrs["keepdims"] != node.attrs["keepdims"]:
        return None
    axis, keepdims = inner.attrs["axis"], node.attrs["keepdims"]
    left = range(inner.inputs[0].ndim) if keepdims else [k for k in range(inner.inputs[0].ndim) if k not in axis]
    both = tuple(sorted({*axis, *(left[k] for k in node.attrs["axis"])}))
    return make(node.op, [inner.inputs[0]], axis=both, keepdims=keepdims)


def _single_samples() -> list[Node]:
    return [
        _reduced("sum", _fresh(3, 1), 1),
        _reduced("max", _fresh(1, 4), 0, keepdims=True),
        _reduced(
            "sum",
            _fresh(3),
        ),
    ]


@shapes.law("sum", "max", "min", "any", "all", "prod", samples=_single_samples)
def reduce_single(node: Node) -> Node | None:
    """A reduction of single elements is a reshape."""
    v = node.inputs[0]
    return make(reshape, [v], shape=node.dims) if all(is_one(v.dims[k]) for k in node.attrs["axis"]) else None


def _whole_samples() -> list[Node]:
    v = _fresh(2, 3, 4)
    return [
        _reduced("sum", make(reshape, [v], shape=(6, 4)), 0, 1),
        _reduced("max", make(transpose, [v], axes=(2, 0, 1)), 0, 1, 2),
        _reduced("sum", make(transpose, [v], axes=(2, 0, 1)), 0),
        _reduced("sum", make(transpose, [v], axes=(1, 0, 2)), 0, 1),
        _reduced("sum", make(reshape, [v], shape=(2, 1, 3, 4)), 0, 3),
        _reduced("min", make(reshape, [_fresh(3, 1)], shape=(3,)), 0),
    ]


@shapes.law("sum", "max", "min", "any", "all", "prod", samples=_whole_samples, claims=[ROUNDING])
def reduce_moved(node: Node) -> Node | None:
    """A reduction does not care how its elements are arranged, as long as those that are left are."""
    moved, axis = node.inputs[0], node.attrs["axis"]
    if node.attrs["keepdims"] or moved.op not in (reshape, transpose):
        return None
    v = moved.inputs[0]
    if len(axis) == moved.ndim:
        return make(node.op, [v], axis=tuple(range(v.ndim)), keepdims=False)
    if moved.op is transpose:
        axes = moved.attrs["axes"]
        left = [axes[k] for k in range(moved.ndim) if k not in axis]
        return make(node.op, [v], axis=tuple(sorted(axes[k] for k in axis)), keepdims=False) if left == sorted(left) else None
    source = same_axes(v.dims, moved.dims)
    if source is None or any(source[k] is None for k in range(moved.ndim) if k not in axis):
        return None
    left = [source[k] for k in range(moved.ndim) if k not in axis]
    return make(node.op, [v], axis=tuple(k for k in range(v.ndim) if k not in left), keepdims=False)


def same_axes(before: tuple, after: tuple) -> list[int | None] | None:
    """For each axis after a reshape that only adds and removes axes of size 1, the one before (None for added ones); else None."""
    wide = [k for k, d in enumerate(before) if not is_one(d)]
    if [before[k] for k in wide] != [d for d in after if not is_one(d)]:
        return None
    rest = iter(wide)
    return [None if is_one(d) else next(rest) for d in after]


# --------------------------------------------------------------------------------------------- slicing
def _slice_samples() -> list[Node]:
    v = _fresh(5, 4)
    rows = make(subtensor, [v], items=(("slice", 4, -1, 4), full_item(4)))
    return [
        make(subtensor, [v], items=(full_item(5), full_item(4))),
        make(subtensor, [rows], items=(("slice", 1, 2, 2), ("int", 2))),
        make(subtensor, [rows], items=(("int", 3), ("new",), ("slice", 3, -1, 4))),
        make(
            subtensor,
            [make(subtensor, [v], items=(("new",), ("int", 1), full_item(4)))],
            items=(("int", 0), ("slice", 0, 2, 2)),
        ),
    ]


@shapes.law("subtensor", samples=_slice_samples)
def slice_once(node: Node) -> Node | None:
    """A slice of a slice is one slice; a slice of everything is nothing."""
    v, items = node.inputs[0], node.attrs["items"]
    if len(items) == v.ndim and all(item == full_item(d) for item, d in zip(items, v.dims)):
        return v
    if v.op is not subtensor:
        return None
    joined = joined_items(v.attrs["items"], items)
    return None if joined is None else make(subtensor, [v.inputs[0]], items=joined)


def joined_items(inner: tuple, outer: tuple) -> tuple | None:
    """The items that select in one step what `outer` selects from what `inner` does; None where an index is still to be checked."""
    result: list[tuple] = []
    rest = list(outer)

    def next_axis() -> tuple:
        while rest[0][0] == "new":
            result.append(rest.pop(0))
        return rest.pop(0)

    for item in inner:
        taken = None if item[0] == "int" else next_axis()
        if taken is None:
            result.append(item)
        elif item[0] == "new":
            if taken == full_item(1):
                result.append(item)
            elif taken != ("int", 0):
                return None
        elif taken[0] == "slice":
            result.append(("slice", item[1] + item[2] * taken[1], item[2] * taken[2], taken[3]))
        elif isinstance(taken[1], int) and isinstance(item[3], int) and 0 <= taken[1] < item[3]:
            result.append(("int", item[1] + item[2] * taken[1]))
        else:
            return None
    return (*result, *rest)


def _wide_samples() -> list[Node]:
    wide = make(broadcast_to, [_fresh(3, 1)], shape=(2, 3, 4))
    return [
        make(subtensor, [wide], items=(("int", 1), full_item(3), full_item(4))),
        make(subtensor, [wide], items=(full_item(2), ("slice", 2, -2, 2), ("int", 3))),
        make(subtensor, [wide], items=(("slice", 0, 1, 1), ("new",), ("int", 0), ("new",), ("slice", 1, 2, 2))),
        make(subtensor, [wide], items=(("int", 0), ("int", 0), ("slice", 0, 1, 0))),
    ]


@shapes.law("subtensor", samples=_wide_samples)
def slice_of_repeated(node: Node) -> Node | None:
    """A part of repeated values is the part that matters, repeated."""
    wide = node.inputs[0]
    if wide.op is not broadcast_to or _checks_sizes(node):
        return None
    x = wide.inputs[0]
    axis, extra, items = 0, wide.ndim - x.ndim, []
    for item in node.attrs["items"]:
        if item[0] == "new":
            items.extend([item] if axis > extra else [])
            continue
        if axis >= extra:
            repeated = is_one(x.dims[axis - extra]) and not is_one(wide.dims[axis])
            items.append(item if not repeated else ("int", 0) if item[0] == "int" else full_item(1))
        axis += 1
    return make(broadcast_to, [make(subtensor, [x], items=tuple(items))], shape=node.dims)


def _pick_samples() -> list[Node]:
    p, q = _fresh(2, 3), _fresh(2, 3)
    return [
        make(subtensor, [make(ROWS["stack"], [p, q], axis=1)], items=(full_item(2), ("int", 1), full_item(3))),
        make(subtensor, [make(ROWS["concatenate"], [p, q], axis=0)], items=(("slice", 2, 1, 2), full_item(3))),
        make(
            subtensor,
            [make(ROWS["concatenate"], [p, q], axis=1)],
            items=(("slice", 1, -1, 2), ("slice", 0, 2, 2)),
        ),
    ]


@shapes.law("subtensor", samples=_pick_samples)
def slice_of_joined(node: Node) -> Node | None:
    """A part of joined arrays that lies in one of them is a part of that one."""
    joined, items = node.inputs[0], node.attrs["items"]
    if joined.op.name not in ("stack", "concatenate") or any(item[0] == "new" for item in items):
        return None
    axis, item = joined.attrs["axis"], items[joined.attrs["axis"]]
    if not all(isinstance(v, int) for v in item[1:]):
        return None
    if joined.op.name == "stack":
        part = joined.inputs[item[1]] if item[0] == "int" else None
        return None if part is None else make(subtensor, [part], items=(*items[:axis], *items[axis + 1 :]))
    low = item[1] if item[0] == "int" or item[2] > 0 else item[1] + item[2] * (item[3] - 1)
    high = item[1] if item[0] == "int" or item[2] < 0 else item[1] + item[2] * (item[3] - 1)
    start = 0
    for part in joined.inputs:
        size = part.dims[axis]
        if not isinstance(size, int):
            return None
        if start <= low and high < start + size and (item[0] == "int" or item[3]):
            return make(
                subtensor,
                [part],
                items=(*items[:axis], (item[0], item[1] - start, *item[2:]), *items[axis + 1 :]),
            )
        start += size
    return None
