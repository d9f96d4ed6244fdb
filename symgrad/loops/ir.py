"""The scalar expressions of kernels.

    e = literal | load buffer[flat index] | index (an integer polynomial as a value)
      | call function(e*) | cond(e, e, e) only the chosen side is evaluated | fold op over index* of e

Expressions are interned, so common subexpressions are one object. Indices and addresses are `base.poly` polynomials;
`free` is the set of loop indices an expression depends on, which decides the loop it is computed in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.poly import Atom, Poly

_interned: dict[Any, E] = {}
_serial = itertools.count()


class E:
    """A scalar expression. `kind` and what `args` holds:

    lit: (value,) | load: (buffer, flat poly) | index: (poly,) | call: (name, e...) | cond: (e, e, e)
    fold: (operation, indices, body) | given: (name,)
    """

    __slots__ = ("kind", "args", "dtype", "free", "serial", "weight")

    def __init__(self, kind: str, args: tuple, dtype: str, free: frozenset[Atom], weight: int):
        self.kind, self.args, self.dtype, self.free, self.weight = kind, args, dtype, free, weight
        self.serial = next(_serial)

    def __repr__(self) -> str:
        return brief(self, 8)

    # the operators that scalar laws are written with; both sides have one dtype, Python numbers become literals
    def __add__(self, o): return call("add", self, o)
    def __radd__(self, o): return call("add", o, self)
    def __sub__(self, o): return call("sub", self, o)
    def __rsub__(self, o): return call("sub", o, self)
    def __mul__(self, o): return call("mul", self, o)
    def __rmul__(self, o): return call("mul", o, self)
    def __truediv__(self, o): return call("div", self, o)
    def __rtruediv__(self, o): return call("div", o, self)
    def __neg__(self): return call("neg", self)
    def __lt__(self, o): return call("lt", self, o)
    def __le__(self, o): return call("le", self, o)
    def __gt__(self, o): return call("gt", self, o)
    def __ge__(self, o): return call("ge", self, o)
    def __and__(self, o): return call("logand", self, o)
    def __or__(self, o): return call("logor", self, o)
    def __invert__(self): return call("lognot", self)


def brief(e: Any, depth: int) -> str:
    """The expression as text, cut off below `depth`: shared parts would make the whole of it exponentially long."""
    if not isinstance(e, E):
        return repr(e)
    if e.kind in ("lit", "index", "given"):
        return str(e.args[0])
    if e.kind == "load":
        source = e.args[0]
        return f"{getattr(source, 'name', None) or getattr(getattr(source, 'op', None), 'name', 'buffer')}[{e.args[1]}]"
    if depth == 0:
        return "..."
    name, parts = (e.args[0], e.args[1:]) if e.kind == "call" else (e.kind, e.args)
    return f"{name}({', '.join(brief(part, depth - 1) for part in parts)})"


PREDICATES = {"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "signbit",
              "logand", "logor", "logxor", "lognot"}


def _intern(kind: str, key: tuple, args: tuple, dtype: str, free: frozenset, weight: int) -> E:
    key = (kind, dtype, key)
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = E(kind, args, dtype, free, weight)
    return found


def forget() -> None:
    """Drop the table of interned expressions; called when a lowering is finished."""
    _interned.clear()


def _indices(value) -> frozenset[Atom]:
    free: set[Atom] = set()
    for a in poly.atoms(value):
        if a.kind == "index":
            free.add(a)
        elif a.kind == "value" and isinstance(a.args[0], E):
            free |= a.args[0].free
    return frozenset(free)


def literal(value: Any, dtype: str) -> E:
    array = np.dtype(dtype).type(value)
    return _intern("lit", (array.tobytes(),), (array,), dtype, frozenset(), 0)


def load(buffer: Any, flat: Any, dtype: str, turn: frozenset[Atom] = frozenset()) -> E:
    """One element of a buffer. `flat` counts elements from its start; `turn`: loops that write it anew every time."""
    return _intern("load", (buffer, flat, turn), (buffer, flat), dtype, _indices(flat) | turn, 1)


def index(value: Any) -> E:
    """An integer polynomial as an int64 value."""
    if not isinstance(value, Poly):
        return literal(value, "int64")
    only = next(iter(value.terms)) if len(value.terms) == 1 else ()
    if len(only) == 1 and only[0].kind == "value" and value.terms[only] == 1 and isinstance(only[0].args[0], E):
        return only[0].args[0]
    return _intern("index", (value,), (value,), "int64", _indices(value), 1)


def as_index(e: E) -> Any:
    """An integer expression as a polynomial, to compute addresses with (the other direction of `index`)."""
    if e.kind == "lit":
        return int(e.args[0])
    if e.kind == "index":
        return e.args[0]
    if e.dtype != "int64":
        e = cast(e, "int64")
    return poly.atom("value", e)


def call(name: str, *args: Any) -> E:
    """A scalar function (see `loops.scalar`) of operands that share a dtype. Numbers become literals of that dtype."""
    dtype = next(a.dtype for a in args if isinstance(a, E))
    operands = tuple(a if isinstance(a, E) else literal(a, dtype) for a in args)
    result = "bool" if name in PREDICATES else dtype
    free = frozenset().union(*(a.free for a in operands))
    return _intern("call", (name, dtype, *(a.serial for a in operands)), (name, *operands), result, free,
                   1 + sum(a.weight for a in operands))


def select(condition: E, a: E, b: E) -> E:
    """a where the condition holds, else b; both are evaluated."""
    free = condition.free | a.free | b.free
    return _intern("call", ("where", a.dtype, condition.serial, a.serial, b.serial), ("where", condition, a, b), a.dtype,
                   free, 1 + condition.weight + a.weight + b.weight)


def cond(condition: E, a: E, b: E) -> E:
    """a where the condition holds, else b; only that side is evaluated, so it may guard a load."""
    if condition.kind == "lit":
        return a if bool(condition.args[0]) else b
    free = condition.free | a.free | b.free
    return _intern("cond", (condition.serial, a.serial, b.serial), (condition, a, b), a.dtype, free,
                   1 + condition.weight + a.weight + b.weight)


def cast(e: E, dtype: str) -> E:
    if e.dtype == dtype:
        return e
    if e.kind == "lit":
        with np.errstate(all="ignore"):
            return literal(e.args[0].astype(dtype), dtype)
    return _intern("call", (f"cast_{e.dtype}_{dtype}", e.serial), (f"cast_{e.dtype}_{dtype}", e), dtype, e.free, 1 + e.weight)


def compare(name: str, a: Any, b: Any) -> E:
    """a condition on index polynomials: lt le gt ge eq ne; constant where the bounds decide."""
    known = _decided(name, a - b)
    if known is not None:
        return literal(known, "bool")
    return call(name, index(a), index(b))


def _decided(name: str, difference) -> bool | None:
    low, high = poly.bounds(difference)
    table = {"lt": (high < 0, low >= 0), "le": (high <= 0, low > 0), "gt": (low > 0, high <= 0),
             "ge": (low >= 0, high < 0), "eq": (low == high == 0, low > 0 or high < 0),
             "ne": (low > 0 or high < 0, low == high == 0)}
    yes, no = table[name]
    return True if yes else False if no else None


def both(*conditions: E) -> E:
    """The conjunction, constants removed."""
    left = []
    for c in conditions:
        if c.kind == "lit":
            if not bool(c.args[0]):
                return c
        else:
            left.append(c)
    result = literal(True, "bool")
    for c in left:
        result = c if result.kind == "lit" else call("logand", result, c)
    return result


IDENTITY: dict[str, Callable[[str], Any]] = {
    "add": lambda dtype: 0,
    "mul": lambda dtype: 1,
    "maximum": lambda dtype: _lowest(dtype),
    "minimum": lambda dtype: _highest(dtype),
    "logor": lambda dtype: False,
    "logand": lambda dtype: True,
    "first": lambda dtype: np.nan,
}


def _lowest(dtype: str):
    return -np.inf if dtype.startswith("float") else False if dtype == "bool" else np.iinfo(dtype).min


def _highest(dtype: str):
    return np.inf if dtype.startswith("float") else True if dtype == "bool" else np.iinfo(dtype).max


def fold(operation: str, extents: Sequence[Any], body: Callable[..., E], name: str = "r") -> E:
    """The operation over body(k0, k1, ...) for all 0 <= kj < extents[j]; its identity when an extent is 0.

    `first` is the first value that is not NaN; the body is not computed after it.
    """
    ks = [poly.index(f"{name}{next(_serial)}", extent) for extent in extents]
    e = body(*ks)
    return _folded(operation, tuple(ks), e) if ks else e


def refold(old: E, body: E) -> E:
    """The same fold over another body."""
    return _folded(old.args[0], old.args[1], body)


def given(name: str, dtype: str, free: frozenset[Atom]) -> E:
    """A value that is at hand under a name, such as the result of a template at its epilogue."""
    return _intern("given", (name,), (name,), dtype, free, 0)


def _folded(operation: str, ks: tuple, e: E) -> E:
    own = frozenset(next(iter(k.terms))[0] for k in ks)
    free = (e.free - own).union(*(_indices(a.extent) for a in own))
    return _intern("fold", (operation, ks, e.serial), (operation, ks, e), e.dtype, free, 2 + e.weight)


class View:
    """An operand as `at` sees it: `x[i, j]` is the value there, `x.dims` its sizes."""

    __slots__ = ("dtype", "dims", "_get")

    def __init__(self, dtype: str, dims: Sequence[Any], get: Callable[[tuple], E]):
        self.dtype, self.dims, self._get = dtype, tuple(dims), get

    def __getitem__(self, idx: Any) -> E:
        return self._get(idx if isinstance(idx, tuple) else (idx,))

    @property
    def ndim(self) -> int:
        return len(self.dims)
