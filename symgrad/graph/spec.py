"""What a legal graph is: one small function per crime, each giving what is wrong with a node, or None.

Checked at the border of every pass when `config.check` is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..base import poly
from ..base.errors import CompileError, SymgradError, four_parts
from .block import is_call
from .node import CONSTANT, INPUT, ITEM, SHARED, Node, is_leaf, make, values_in
from .types import TupleType
from .walk import order

Crime = Callable[[Node], "str | None"]


def wrong_type(node: Node) -> str | None:
    """The node says another type than its op gives for these operands."""
    if is_leaf(node):
        return None
    try:
        found = node.op.infer(*(x._type for x in node.inputs), **node.attrs)
    except (SymgradError, TypeError, IndexError) as error:
        return f"its op refuses the operands: {str(error).splitlines()[0]}"
    return None if found == node._type else f"it is {node._type}, its op gives {found}"


def two_of_a_kind(node: Node) -> str | None:
    """The same op on the same operands is another object, so that equal values are computed twice."""
    if is_leaf(node) or wrong_type(node) is not None:
        return None
    return (
        None
        if make(node.op, node.inputs, **node.attrs) is node
        else "the same op on the same operands is another node"
    )


def mixed_dtypes(node: Node) -> str | None:
    """An elementwise op whose operands differ in dtype: casts are nodes of their own. (A choice has a condition first.)"""
    if not getattr(node.op, "elementwise", False):
        return None
    operands = node.inputs[1:] if node.op.name == "where" else node.inputs
    found = sorted({x.dtype for x in operands})
    return f"operands of {' and '.join(found)}" if len(found) > 1 else None


def hidden_operand(node: Node) -> str | None:
    """A variable decides a size, but the node does not say that it depends on it."""
    missing = [x for x in values_in(node.attrs) if x not in set(node.deps)]
    return f"{missing[0].op.name} decides a size but is no dependency" if missing else None


def results_read_as_one(node: Node) -> str | None:
    """A node with several results is read by something other than `item`."""
    if node.op is ITEM:
        types = node.inputs[0]._type
        inside = isinstance(types, TupleType) and 0 <= node.attrs["k"] < len(types.items)
        return None if inside else f"result {node.attrs['k']} of {types}"
    several = [x for x in node.inputs if isinstance(x._type, TupleType)]
    return f"operand {several[0].op.name} has several results" if several else None


def changeable_constant(node: Node) -> str | None:
    """A constant whose array can be written to, or is not what its type says."""
    if node.op is not CONSTANT:
        return None
    array = node.payload
    if array.dtype.name != node.dtype or array.shape != node.dims:
        return f"its array is {array.dtype} {array.shape}, its type {node._type}"
    return "its array can be written to" if array.flags.writeable else None


def leaf_with_operands(node: Node) -> str | None:
    """An input, parameter or constant that depends on something."""
    return "a leaf with operands" if node.op in (INPUT, SHARED, CONSTANT) and node.inputs else None


def block_left(node: Node) -> str | None:
    """A block that should have been opened."""
    return "a block that was not opened" if is_call(node) else None


CRIMES: tuple[Crime, ...] = (
    wrong_type,
    two_of_a_kind,
    mixed_dtypes,
    hidden_operand,
    results_read_as_one,
    changeable_constant,
    leaf_with_operands,
)


def crimes(outputs: Iterable[Node], more: Sequence[Crime] = ()) -> list[str]:
    """What is illegal in the graph of these outputs, one line each: the crime, the node and its line."""
    return [
        f"{crime.__name__}: {node.op.name}, made at {node.where}: {found}"
        for node in order(outputs)
        for crime in (*CRIMES, *more)
        if (found := crime(node)) is not None
    ]


def check(outputs: Sequence[Node], stage: str, more: Sequence[Crime] = ()) -> None:
    """Raises CompileError when the graph is not legal."""
    found = crimes(outputs, more)
    found += [
        f"output_with_several_results: output {k}, {y.op.name}"
        for k, y in enumerate(outputs)
        if isinstance(y._type, TupleType)
    ]
    _raise(found, stage)


def check_same_types(before: Sequence[Node], after: Sequence[Node], stage: str) -> None:
    """Raises CompileError when a pass gave an output another type."""
    if len(before) != len(after):
        return _raise([f"lost_output: {len(before)} outputs became {len(after)}"], stage)
    _raise(
        [
            f"changed_type: output {k} was {a._type}, is {b._type}"
            for k, (a, b) in enumerate(zip(before, after))
            if not _same_type(a, b)
        ],
        stage,
    )


def _same_type(a: Node, b: Node) -> bool:
    if a._type == b._type:
        return True
    data_decides = any(
        poly.decided(d) for d in a.dims
    )  # such sizes are rewritten like values
    return data_decides and (a.dtype, a.ndim) == (b.dtype, b.ndim)


def _raise(found: Sequence[str], stage: str) -> None:
    if found:
        raise CompileError(
            four_parts(
                f"a legal graph after {stage}",
                found[:10],
                attempt="report this with sg.graph_text of the outputs",
            )
        )


__all__ = ["CRIMES", "block_left", "check", "check_same_types", "crimes"]
