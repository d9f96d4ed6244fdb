"""Nodes: the graph language.

    node = input name | shared name | constant bytes | op(node*, attrs) | call body(node*) | item node k
    type = dtype [ dim* ]            dim = int | polynomial over symbols
    body = name, input*, node*, vjp?, jvp?

Nodes are frozen and interned: an op applied twice to the same inputs with the same attributes is one object, so common
subexpressions merge as they are written and identity is equality. Names, scopes and the user's line are notes on the
side (`Node.notes`): they never affect identity.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from ..base import origin, poly
from ..base.dtypes import dtype_name
from ..base.errors import ShapeError, SymgradError, four_parts
from .types import TupleType, Type, dim_text

_serial = itertools.count()
_alive: WeakValueDictionary = WeakValueDictionary()


class Notes:
    """What is known about a node besides its meaning: label, scopes it was built in, the user's line, override receipts."""

    __slots__ = ("label", "scopes", "origin", "receipts")

    def __init__(self, label: str | None, scopes: tuple[str, ...], line: origin.Origin | None) -> None:
        self.label, self.scopes, self.origin = label, scopes, line
        self.receipts: tuple[Any, ...] = ()


class Op:
    """A named operation. The row of an op (see ops/row.py) says what it means."""

    name: str = "op"
    adapts = False                      # `adapted(inputs, attrs)` gives the op and attributes to use for these inputs

    def adapted(self, inputs: Sequence[Node], attrs: dict[str, Any]) -> tuple[Op, dict[str, Any]]:
        """This op and these attributes; ops that hold a graph say which of them fits the inputs."""
        return self, attrs

    def infer(self, *types: Any, **attrs: Any) -> Any:
        raise NotImplementedError(f"{self.name} does not say which type it makes")

    def __repr__(self) -> str:
        return self.name


class Node:
    """A value in the graph. Users know it as a variable; `symgrad.ops` installs the array methods."""

    __slots__ = ("op", "inputs", "attrs", "deps", "_type", "serial", "notes", "payload", "__weakref__")
    __array_priority__ = 1000

    op: Any                             # an Op; a Row or a Call to those who look closer
    inputs: tuple[Node, ...]
    deps: tuple[Node, ...]              # inputs, and the variables that decide sizes in the attributes
    attrs: Mapping[str, Any]
    payload: Any

    def __init__(self, op: Op, inputs: tuple[Node, ...], attrs: Mapping[str, Any], type_: Any, payload: Any = None,
                 label: str | None = None) -> None:
        self.op, self.inputs, self.attrs, self._type, self.payload = op, inputs, attrs, type_, payload
        self.deps = (*inputs, *sized) if attrs and (sized := values_in(attrs)) else inputs
        self.serial = next(_serial)
        here = origin.current_scope()
        self.notes = Notes(label, (here,) if here else (), origin.user_line())

    if TYPE_CHECKING:
        # what symgrad.ops.sugar installs
        type: Any
        T: Node
        shape: tuple[Any, ...]
        size: Any
        def __add__(self, other: Any) -> Node: ...
        def __radd__(self, other: Any) -> Node: ...
        def __sub__(self, other: Any) -> Node: ...
        def __rsub__(self, other: Any) -> Node: ...
        def __mul__(self, other: Any) -> Node: ...
        def __rmul__(self, other: Any) -> Node: ...
        def __truediv__(self, other: Any) -> Node: ...
        def __rtruediv__(self, other: Any) -> Node: ...
        def __floordiv__(self, other: Any) -> Node: ...
        def __rfloordiv__(self, other: Any) -> Node: ...
        def __mod__(self, other: Any) -> Node: ...
        def __rmod__(self, other: Any) -> Node: ...
        def __pow__(self, other: Any) -> Node: ...
        def __rpow__(self, other: Any) -> Node: ...
        def __matmul__(self, other: Any) -> Node: ...
        def __rmatmul__(self, other: Any) -> Node: ...
        def __and__(self, other: Any) -> Node: ...
        def __rand__(self, other: Any) -> Node: ...
        def __or__(self, other: Any) -> Node: ...
        def __ror__(self, other: Any) -> Node: ...
        def __xor__(self, other: Any) -> Node: ...
        def __rxor__(self, other: Any) -> Node: ...
        def __lshift__(self, other: Any) -> Node: ...
        def __rlshift__(self, other: Any) -> Node: ...
        def __rshift__(self, other: Any) -> Node: ...
        def __rrshift__(self, other: Any) -> Node: ...
        def __lt__(self, other: Any) -> Node: ...
        def __le__(self, other: Any) -> Node: ...
        def __gt__(self, other: Any) -> Node: ...
        def __ge__(self, other: Any) -> Node: ...
        def __eq__(self, other: Any) -> Node: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Node: ...  # type: ignore[override]
        def __neg__(self) -> Node: ...
        def __abs__(self) -> Node: ...
        def __invert__(self) -> Node: ...
        def __getitem__(self, index: Any) -> Node: ...
        def __iter__(self) -> Any: ...
        def __len__(self) -> int: ...
        def __getattr__(self, name: str) -> Any: ...

    # identity is equality: hashing never compares values, so `==` is free to mean elementwise comparison
    __hash__ = object.__hash__

    @property
    def name(self) -> str | None:
        return self.notes.label

    @name.setter
    def name(self, label: str | None) -> None:
        self.notes.label = label

    @property
    def dtype(self) -> str:
        return self._type.dtype

    @property
    def ndim(self) -> int:
        return len(self._type.dims)

    @property
    def dims(self) -> tuple:
        """Sizes as ints or polynomials; `shape` is what users see."""
        return self._type.dims

    @property
    def where(self) -> str:
        """The user's file:line that made this node."""
        return origin.show(self.notes.origin)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a variable does not pickle by itself; pickle the compiled function, or use sg.graph_text")


def values_in(attrs: Mapping[str, Any]) -> list[Node]:
    """The variables whose values decide sizes in these attributes (`arange(n)`)."""
    found: dict[Node, None] = {}
    todo = list(attrs.values())
    while todo:
        item = todo.pop()
        if isinstance(item, tuple):
            todo.extend(item)
        elif isinstance(item, poly.Poly):
            found.update((x, None) for x in poly.decided(item) if isinstance(x, Node))
    return list(found)


class _Leaf(Op):
    def __init__(self, name: str) -> None:
        self.name = name


INPUT, SHARED, CONSTANT = _Leaf("input"), _Leaf("shared"), _Leaf("constant")


def is_leaf(node: Node) -> bool:
    return node.op is INPUT or node.op is SHARED or node.op is CONSTANT


def freeze(value: Any) -> Any:
    """A hashable stand-in for an attribute: floats by bits, so 0.0, -0.0, 0 and False stay apart and NaN equals itself."""
    if isinstance(value, (bool, np.bool_)):
        return "bool", bool(value)
    if isinstance(value, (float, np.floating)):
        return "float", np.float64(value).tobytes()
    if isinstance(value, (tuple, list)):
        return tuple(freeze(v) for v in value)
    if isinstance(value, dict):
        return tuple(sorted((k, freeze(v)) for k, v in value.items()))
    return value


def make(op: Op, inputs: Sequence[Node], **attrs: Any) -> Node:
    """The node op(inputs, attrs), made or found. Raises what `op.infer` raises, with the user's line added."""
    inputs = tuple(inputs)
    if op.adapts:
        op, attrs = op.adapted(inputs, attrs)
    key = (op, inputs_key(inputs), freeze(attrs))
    found = _alive.get(key)
    if found is not None:
        _also_in_scope(found)
        return found
    try:
        type_ = op.infer(*(x._type for x in inputs), **attrs)
    except SymgradError as error:
        raise _located(error, op, inputs) from None
    node = Node(op, inputs, attrs, type_)
    _alive[key] = node
    return node


def unshared(node: Node) -> Node:
    """The same expression as an object of its own: notes can be attached that other uses of it do not get."""
    return Node(node.op, node.inputs, node.attrs, node._type, node.payload)


def inputs_key(inputs: tuple[Node, ...]) -> tuple[int, ...]:
    # serials are never used again, ids are
    return tuple([x.serial for x in inputs])


def _also_in_scope(node: Node) -> None:
    here = origin.current_scope()
    if here and here not in node.notes.scopes:
        node.notes.scopes += (here,)


def _located(error: SymgradError, op: Op, inputs: Sequence[Node]) -> SymgradError:
    if "\n  where:" in str(error):
        return error
    first, *rest = str(error).split("\n")
    operands = [f"         {x.name or x.op.name}: {x._type}, made at {x.where}" for x in inputs]
    head = [line for line in rest if not line.startswith("  try:")]
    tail = [line for line in rest if line.startswith("  try:")]
    where = f"  where: {op.name} at {origin.show(origin.user_line())}"
    return type(error)("\n".join([first if first.startswith(op.name) else f"{op.name}: {first}", *head, *operands, where, *tail]))


def declared_dims(shape: Sequence[Any] | None, what: str) -> tuple:
    """Sizes from what a user wrote: ints, names, or None for one that is not known."""
    dims: list[Any] = []
    for d in shape or ():
        if d is None:
            dims.append(poly.symbol(f"?{next(_serial)}"))
        elif isinstance(d, str):
            dims.append(poly.symbol(d))
        elif isinstance(d, poly.Poly):
            dims.append(d)
        elif isinstance(d, (int, np.integer)) and not isinstance(d, bool) and d >= 0:
            dims.append(int(d))
        else:
            raise ShapeError(four_parts(f"{what} with shape {tuple(shape or ())}", f"the size {d!r}",
                                        origin.show(origin.user_line()), "a size is an int >= 0, a name or None"))
    return tuple(dims)


def new_input(type_: Type, name: str | None = None) -> Node:
    """A fresh input. Inputs are never interned: two inputs of one type are two unknowns."""
    return Node(INPUT, (), {}, type_, label=name)


def constant(value: Any, dtype: Any = None) -> Node:
    """A constant array, interned by dtype, shape and bytes."""
    array = np.array(value, dtype=None if dtype is None else dtype_name(dtype), order="C", copy=True)
    array = array.astype(dtype_name(array.dtype), copy=False)
    array.flags.writeable = False
    key = ("constant", array.dtype.name, array.shape, array.tobytes())
    found = _alive.get(key)
    if found is None:
        found = Node(CONSTANT, (), {}, Type(array.dtype.name, array.shape), payload=array)
        _alive[key] = found
    return found


class TensorType:
    """The public type of a variable: dtype and shape (int, name or None). `type("name")` makes a fresh input of it."""

    __slots__ = ("dtype", "shape")

    def __init__(self, dtype: str, shape: Sequence[int | str | None]) -> None:
        self.dtype, self.shape = dtype, tuple(shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __call__(self, name: str | None = None) -> Node:
        return new_input(Type(self.dtype, declared_dims(self.shape, "an input")), name)

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorType) and (self.dtype, self.shape) == (other.dtype, other.shape)

    def __repr__(self) -> str:
        return f"TensorType({self.dtype}, {self.shape})"


def public_type(type_: Type) -> TensorType:
    shape = [d if isinstance(d, int) else dim_text(d) for d in type_.dims]
    return TensorType(type_.dtype, [d if isinstance(d, int) or d.isidentifier() else None for d in shape])


class Item(Op):
    """Result k of a node with several results."""

    name = "item"

    def infer(self, type_: TupleType, *, k: int) -> Type:
        return type_.items[k]

    def __reduce__(self) -> str:
        return "ITEM"           # there is one


ITEM = Item()


def results(node: Node) -> list[Node]:
    """The results of a node: itself, or its items when it has several."""
    if isinstance(node._type, TupleType):
        return [make(ITEM, [node], k=k) for k in range(len(node._type.items))]
    return [node]


Rule = Callable[..., Any]
