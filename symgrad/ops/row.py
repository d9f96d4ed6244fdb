"""One op is one row: its type, its value at one index, its NumPy spelling, its gradient, its test samples.

    class matmul(Row):
        infer(x, w) -> Type             types of the inputs (and attributes) to the type of the result; raises ShapeError
        at(i, x, w) -> E                the value at one index, from views of the inputs: every backend follows
        numpy(x, w) -> array            an independent reference, never derived from `at`
        vjp(g, y, x, w) -> cotangents   one entry per input: a node, STOP (nothing flows), or undefined("why")
        samples                         what the sweeps try

Attributes are keyword arguments of all four. A row is callable: `matmul(x, w)` lifts its operands and makes the node, and
the row itself is what selectors such as `sg.on(T.matmul)` name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import DTypeError, OverrideError, ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, Op, constant, make
from ..graph.types import Type, broadcast_dims, is_one
from ..loops import ir
from ..loops.ir import E, View

ROWS: dict[str, Row] = {}


class _Stop:
    """Nothing flows back here."""

    def __repr__(self) -> str:
        return "sg.STOP"


class _Default:
    """Use the ordinary rule for this input."""

    def __repr__(self) -> str:
        return "sg.DEFAULT"


STOP, DEFAULT = _Stop(), _Default()


@dataclass(frozen=True)
class Undefined:
    """A derivative that is not known; asking for it raises with the reason."""

    why: str


def undefined(why: str) -> Undefined:
    return Undefined(why)


@dataclass(frozen=True)
class Sample:
    """Arguments one sweep case calls a row with: arrays by shape (a tuple), or as given; then attributes.

    dtypes: for float rows every float dtype unless told. low, high: range of the values. grad: whether the gradient is checked.
    """

    args: tuple = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = dtypes.FLOATS
    low: float = -2.0
    high: float = 2.0
    grad: bool = True


def sample(*args: Any, dtypes: Sequence[str] = dtypes.FLOATS, low: float = -2.0, high: float = 2.0, grad: bool = True,
           **attrs: Any) -> Sample:
    return Sample(args, attrs, tuple(dtypes), low, high, grad)


class Row(Op):
    """An op with everything known about it. Registered by name when made."""

    samples: Sequence[Sample] = ()
    kinks: Sequence[float] = ()         # finite differences stay away from here
    elementwise = False
    lazy = False                        # `numpy` may be given None for operands that were not computed
    public = True                       # part of symgrad.tensor

    def __init__(self, name: str):
        object.__setattr__(self, "name", name)
        ROWS[name] = self

    def __setattr__(self, name: str, value: Any) -> None:
        raise OverrideError(four_parts(
            f"setting {self.name}.{name}", "assigning to an op changes nothing and would change every model",
            show(user_line()), "sg.grad(cost, wrt, overrides={T." + self.name + ": rule}), or "
            "sg.OpFromGraph([x], [y], vjp=rule) where the op is made"))

    def __reduce__(self):
        return _row, (self.name,)

    def numpy(self, *arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        raise NotImplementedError(self.name)

    def at(self, i: tuple, *xs: View, **attrs: Any) -> E:
        raise NotImplementedError(self.name)

    def vjp(self, g: Node, y: Node, *xs: Node, **attrs: Any) -> Any:
        return tuple(undefined(f"{self.name} has no derivative") for _ in xs)

    def __call__(self, *args: Any, **attrs: Any) -> Node:
        return make(self, [as_tensor(a) for a in args], **attrs)


def _row(name: str) -> Row:
    return ROWS[name]


def is_weak(value: Any) -> bool:
    """Whether a number takes the dtype of what it meets: Python's do, NumPy's have their own (np.float64 is both)."""
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


def as_tensor(value: Any, dtype: Any = None) -> Node:
    """A variable from a variable, an array, a number or a nested list of them. Python floats are floatX."""
    if isinstance(value, Node):
        return value if dtype is None or value.dtype == dtypes.dtype_name(dtype) else cast(value, dtype)
    if is_weak(value) and dtype is None:
        dtype = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else dtypes.config.floatX
    if isinstance(value, (list, tuple)) and _holds_nodes(value):
        return stack_of(value)
    if dtype is None and isinstance(value, (list, tuple)):
        array = np.asarray(value)
        dtype = dtypes.config.floatX if array.dtype == np.float64 else None
    try:
        return constant(value, dtype)
    except (TypeError, ValueError) as error:
        raise DTypeError(four_parts("a variable, an array or a number", f"{type(value).__name__} {value!r:.60}: {error}",
                                    show(user_line()))) from None


def _holds_nodes(value: Any) -> bool:
    return any(isinstance(v, Node) or (isinstance(v, (list, tuple)) and _holds_nodes(v)) for v in value)


def stack_of(values: Sequence[Any]) -> Node:
    return ROWS["stack"](*promoted(*values), axis=0)


def promoted(*args: Any) -> list[Node]:
    """The operands as nodes of one dtype, by NumPy 2's promotion: Python scalars are weak."""
    lifted = [a if isinstance(a, Node) or is_weak(a) else as_tensor(a) for a in args]
    arrays = [a.dtype for a in lifted if isinstance(a, Node)]
    if not arrays:
        lifted = [as_tensor(a) for a in lifted]
        arrays = [a.dtype for a in lifted]
    dtype = dtypes.promote(*arrays)
    for a in lifted:
        if not isinstance(a, Node):
            dtype = dtypes.promote(dtype, dtypes.weak(a, dtype)) if dtypes.weak(a, dtype) != dtype else dtype
    return [cast(a, dtype) if isinstance(a, Node) else _weak_constant(a, dtype) for a in lifted]


def _weak_constant(value: Any, dtype: str) -> Node:
    if isinstance(value, int) and not isinstance(value, bool) and dtypes.is_integer(dtype):
        info = np.iinfo(dtype)
        if not info.min <= value <= info.max:
            raise DTypeError(four_parts(f"the Python integer {value} next to {dtype}", f"{dtype} holds {info.min} to {info.max}",
                                        show(user_line()), "cast the other operand to a wider dtype"))
    return constant(value, dtype)


def cast(x: Any, dtype: Any) -> Node:
    """x converted to dtype, as ndarray.astype does."""
    x, name = as_tensor(x), dtypes.dtype_name(dtype)
    return x if x.dtype == name else make(ROWS["cast"], [x], dtype=name)


class Elementwise(Row):
    """A row whose value at an index is a scalar law of its operands there; operands broadcast.

    kind says what becomes of dtypes: `same` promotes, `float` promotes and takes integers to float, `quotient` takes them to float64, `predicate` promotes and
    gives bool, `logical` reads truth values and gives bool, `bits` wants integers or bool, `integer` wants integers.
    """

    elementwise = True

    def __init__(self, name: str, law: Callable[..., E] | str, *, numpy: Callable[..., Any], vjp: Callable[..., Any] | None = None,
                 kind: str = "same", kinks: Sequence[float] = (), samples: Sequence[Sample] = (), arity: int = 1, public: bool = True,
                 doc: str = ""):
        facts = {"law": law if callable(law) else _named_law(law), "_numpy": numpy, "_vjp": vjp, "kind": kind, "kinks": tuple(kinks),
                 "samples": tuple(samples), "arity": arity, "public": public, "__doc__": doc or f"NumPy's {name}, elementwise."}
        for key, value in facts.items():
            object.__setattr__(self, key, value)
        super().__init__(name)

    def infer(self, *types: Type, **attrs: Any) -> Type:
        dims = broadcast_dims(*(t.dims for t in types), what=self.name)
        return Type("bool" if self.kind in ("predicate", "logical") else types[-1].dtype, dims)

    def at(self, i: tuple, *xs: View, **attrs: Any) -> E:
        return self.law(*(x[broadcast_index(i, x.dims)] for x in xs), **attrs)

    def numpy(self, *arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self._numpy(*arrays, **attrs)

    def vjp(self, g: Node, y: Node, *xs: Node, **attrs: Any) -> Any:
        if self._vjp is None:
            return tuple(STOP for _ in xs)
        return self._vjp(g, y, *xs, **attrs)

    def __call__(self, *args: Any, **attrs: Any) -> Node:
        if len(args) != self.arity:
            raise DTypeError(four_parts(f"{self.name} takes {self.arity} operand(s)", f"{len(args)} given", show(user_line())))
        return make(self, self.operands(args), **attrs)

    def operands(self, args: Sequence[Any]) -> list[Node]:
        if self.kind == "logical":
            return [cast(a, "bool") for a in args]
        nodes = promoted(*args)
        dtype = nodes[0].dtype
        if self.kind == "float":
            return [cast(x, dtypes.as_float(dtype)) for x in nodes]
        if self.kind == "quotient":
            return [cast(x, dtype if dtypes.is_float(dtype) else "float64") for x in nodes]
        if (self.kind == "bits" and dtypes.is_float(dtype)) or (self.kind == "integer" and not dtypes.is_integer(dtype)):
            raise DTypeError(four_parts(f"{self.name} of integers{' or bools' if self.kind == 'bits' else ''}", f"dtype {dtype}",
                                        show(user_line()), "x.astype('int64')"))
        return nodes


def _named_law(name: str) -> Callable[..., E]:
    return lambda *xs: ir.call(name, *xs)


def broadcast_index(i: Sequence[Any], dims: Sequence[Any]) -> tuple:
    """The index into an operand of these dims for the result's index i."""
    tail = i[len(i) - len(dims):]
    return tuple(0 if is_one(d) else k for k, d in zip(tail, dims))


def normalize_axis(axis: Any, ndim: int, what: str) -> int:
    """axis in 0..ndim-1. Raises ShapeError when out of range."""
    if isinstance(axis, (bool, float)) or not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        raise ShapeError(four_parts(f"{what} with axis {axis!r}", f"the operand has {ndim} axes", show(user_line()),
                                    f"an int from {-ndim} to {ndim - 1}" if ndim else "leave the axis out"))
    return int(axis) % ndim


def normalize_axes(axis: Any, ndim: int, what: str) -> tuple[int, ...]:
    """Sorted axes from None (all), an int or a tuple."""
    if axis is None:
        return tuple(range(ndim))
    axes = [normalize_axis(a, ndim, what) for a in (axis if isinstance(axis, (tuple, list)) else [axis])]
    if len(set(axes)) != len(axes):
            raise ShapeError(four_parts(f"{what} with axis {axis!r}", "an axis named twice", show(user_line())))
    return tuple(sorted(axes))


__all__ = ["DEFAULT", "ROWS", "STOP", "E", "Elementwise", "Row", "Sample", "View", "as_tensor", "cast", "ir", "make", "poly",
           "promoted", "sample", "undefined"]
