"""Sizes and index arithmetic: integer polynomials over symbols.

One notation serves the sizes of arrays (`batch`, `2*n + 1`) and the flat addresses in kernels (`i0*64 + i1`), so shape
inference and lowering share their algebra. A polynomial without symbols is a plain Python int.

    poly = int | sum of coefficient * atom * atom ...
    atom = symbol name (with its extent, when it is a loop index)
         | floordiv(poly, poly) | mod(poly, poly) | max(poly, poly) | min(poly, poly) | value(anything)
         | counted(variable, poly): a number that a kernel finds while the plan runs, at most the polynomial
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

Size = "int | Poly"


class Atom:
    """An indivisible factor. Interned: equal atoms are one object, so identity is equality."""

    __slots__ = ("kind", "args", "order", "extent", "__weakref__")
    kind: str
    args: tuple[Any, ...]
    order: int
    extent: Any
    _alive: WeakValueDictionary = WeakValueDictionary()
    _count = 0

    def __new__(cls, kind: str, *args: Any, extent: Any = None) -> Atom:
        key = (kind, args)
        found = cls._alive.get(key)
        if found is None:
            found = object.__new__(cls)
            found.kind, found.args, found.extent = kind, args, extent
            Atom._count += 1
            found.order = Atom._count
            cls._alive[key] = found
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake_atom, (self.kind, self.args, self.extent)

    def __repr__(self) -> str:
        if self.kind in ("symbol", "index"):
            return str(self.args[0])
        if self.kind == "value":
            return f"value({repr(self.args[0]).splitlines()[-1]})"      # a variable shows the lines it is made by, then its own
        if self.kind == "counted":
            return f"counted({self.args[1]})"
        return f"{self.kind}({', '.join(map(repr, self.args))})"


def _remake_atom(kind: Any, args: Any, extent: Any) -> Any:
    return Atom(kind, *args, extent=extent)


class Poly:
    """An integer polynomial: a mapping from monomials (tuples of atoms) to coefficients. Immutable, hashable."""

    __slots__ = ("terms", "_hash")

    def __init__(self, terms: Mapping[tuple[Atom, ...], int]) -> None:
        self.terms = dict(sorted(terms.items(), key=_monomial_order))
        self._hash = hash(frozenset(self.terms.items()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.terms == other.terms

    def __reduce__(self) -> tuple[Any, ...]:
        return Poly, (self.terms,)

    def __add__(self, other: Any) -> Any:
        total = dict(self.terms)
        for mono, coefficient in _terms(other).items():
            total[mono] = total.get(mono, 0) + coefficient
        return _poly(total)

    __radd__ = __add__

    def __neg__(self) -> Any:
        return _poly({mono: -c for mono, c in self.terms.items()})

    def __sub__(self, other: Any) -> Any:
        return self + (-other)

    def __rsub__(self, other: Any) -> Any:
        return (-self) + other

    def __mul__(self, other: Any) -> Any:
        total: dict[tuple[Atom, ...], int] = {}
        for left, a in self.terms.items():
            for right, b in _terms(other).items():
                mono = tuple(sorted(left + right, key=_atom_order))
                total[mono] = total.get(mono, 0) + a * b
        return _poly(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return floordiv(self, other)

    def __mod__(self, other: Any) -> Any:
        return mod(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return floordiv(other, self)

    def __rmod__(self, other: Any) -> Any:
        return mod(other, self)

    def __bool__(self) -> bool:
        raise TypeError(f"the size {self} is not known before the call, so it has no truth value")

    def __repr__(self) -> str:
        return text(self)


def _atom_order(atom: Atom) -> int:
    return atom.order


def _monomial_order(item: Any) -> Any:
    return [a.order for a in item[0]]


def _terms(value: Any) -> Mapping[tuple[Atom, ...], int]:
    return value.terms if isinstance(value, Poly) else ({(): int(value)} if value else {})


def _poly(terms: dict[tuple[Atom, ...], int]) -> Any:
    terms = {mono: c for mono, c in terms.items() if c}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Poly(terms)


def symbol(name: str) -> Poly:
    """An unknown size, at least 0."""
    return Poly({(Atom("symbol", name),): 1})


def index(name: str, extent: Any) -> Poly:
    """A loop index running over [0, extent). The extent is part of its identity."""
    return Poly({(Atom("index", name, extent, extent=extent),): 1})


def atom(kind: str, *args: Any) -> Poly:
    return Poly({(Atom(kind, *args),): 1})


def of_atom(a: Atom) -> Poly:
    """The polynomial that is one atom."""
    return Poly({(a,): 1})


def the_atom(value: Any) -> Atom | None:
    """The atom that a polynomial is, if it is nothing else."""
    if isinstance(value, Poly) and len(value.terms) == 1:
        (mono, c), = value.terms.items()
        return mono[0] if c == 1 and len(mono) == 1 else None
    return None


def atoms(value: Any) -> set[Atom]:
    """Every atom in a polynomial, those inside other atoms included."""
    found: set[Atom] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, Poly):
            for mono in item.terms:
                for a in mono:
                    if a not in found:
                        found.add(a)
                        if a.kind not in ("symbol", "index"):
                            todo.extend(x for x in a.args if isinstance(x, Poly))
    return found


def bounds(value: Any) -> tuple[float, float]:
    """Inclusive bounds of a polynomial, from the extents of its indices and from sizes being at least 0."""
    if not isinstance(value, Poly):
        return value, value
    low = high = 0.0
    for mono, c in value.terms.items():
        lo, hi = 1.0, 1.0
        for a in mono:
            alo, ahi = _atom_bounds(a)
            corners = [_times(x, y) for x in (lo, hi) for y in (alo, ahi)]
            lo, hi = min(corners), max(corners)
        low, high = low + min(_times(c, lo), _times(c, hi)), high + max(_times(c, lo), _times(c, hi))
    return low, high


def _times(x: Any, y: Any) -> Any:
    return 0.0 if x == 0 or y == 0 else x * y


def _atom_bounds(a: Atom) -> tuple[float, float]:
    if a.kind == "index":
        return 0, (a.extent - 1 if isinstance(a.extent, int) else math.inf)
    if a.kind == "symbol":
        return 0, math.inf
    if a.kind == "counted":
        return 0, bounds(a.args[1])[1]
    if a.kind == "mod":
        return 0, (a.args[1] - 1 if isinstance(a.args[1], int) else math.inf)
    if a.kind in ("max", "min"):
        (l0, h0), (l1, h1) = bounds(a.args[0]), bounds(a.args[1])
        return (max(l0, l1), max(h0, h1)) if a.kind == "max" else (min(l0, l1), min(h0, h1))
    if a.kind == "floordiv" and isinstance(a.args[1], int):
        lo, hi = bounds(a.args[0])
        return (lo if math.isinf(lo) else lo // a.args[1]), (hi if math.isinf(hi) else hi // a.args[1])
    return -math.inf, math.inf


def _split(value: Any, divisor: int) -> Any:
    """value == divisor * quotient + rest, term by term."""
    quotient, rest = {}, {}
    for mono, c in _terms(value).items():
        q, r = divmod(c, divisor)
        if q:
            quotient[mono] = q
        if r:
            rest[mono] = r
    return _poly(quotient), _poly(rest)


def exact_quotient(value: Any, divisor: Any) -> Any:
    """value / divisor when it divides without rest as a polynomial, else None."""
    if isinstance(divisor, int):
        if divisor == 0:
            return None
        quotient, rest = _split(value, divisor)
        return quotient if isinstance(rest, int) and rest == 0 else None
    if isinstance(value, int) and value == 0:
        return 0
    if len(divisor.terms) != 1:
        return 1 if value == divisor else None
    (mono, c), = divisor.terms.items()
    result = {}
    for m, k in _terms(value).items():
        left = list(m)
        for a in mono:
            if a not in left:
                return None
            left.remove(a)
        if k % c:
            return None
        result[tuple(left)] = k // c
    return _poly(result)


def floordiv(value: Any, divisor: Any) -> Any:
    """value // divisor, simplified where the bounds of the indices allow it."""
    if isinstance(value, int) and isinstance(divisor, int):
        return value // divisor
    exact = exact_quotient(value, divisor)
    if exact is not None:
        return exact
    if isinstance(divisor, int) and divisor > 0:
        quotient, rest = _split(value, divisor)
        lo, hi = bounds(rest)
        if lo >= 0 and hi < divisor:
            return quotient
        if not (isinstance(quotient, int) and quotient == 0):
            return quotient + atom("floordiv", rest, divisor)
    elif isinstance(divisor, Poly):
        quotient, rest = _split_by(value, divisor)
        if quotient is not None:
            return quotient + floordiv(rest, divisor)
        if _below(value, divisor):
            return 0
    return atom("floordiv", value, divisor)


def mod(value: Any, divisor: Any) -> Any:
    """value % divisor, simplified where the bounds of the indices allow it."""
    if isinstance(value, int) and isinstance(divisor, int):
        return value % divisor
    if exact_quotient(value, divisor) is not None:
        return 0
    if isinstance(divisor, int) and divisor > 0:
        _, rest = _split(value, divisor)
        lo, hi = bounds(rest)
        if lo >= 0 and hi < divisor:
            return rest
        return atom("mod", rest, divisor) if isinstance(rest, Poly) else rest % divisor
    if isinstance(divisor, Poly):
        quotient, rest = _split_by(value, divisor)
        if quotient is not None:
            return mod(rest, divisor)
        if _below(value, divisor):
            return value
    return atom("mod", value, divisor)


def _split_by(value: Any, divisor: Poly) -> Any:
    """Terms of value that are multiples of a one-term divisor, and the others; (None, value) when there is none."""
    quotient, rest = 0, 0
    for mono, c in _terms(value).items():
        part = _poly({mono: c})
        q = exact_quotient(part, divisor)
        if q is None:
            rest = rest + part
        else:
            quotient = quotient + q
    return (None, value) if isinstance(quotient, int) and quotient == 0 else (quotient, rest)


def _below(value: Any, divisor: Any) -> bool:
    """value is one index whose extent is the divisor: 0 <= value < divisor."""
    if not isinstance(value, Poly) or len(value.terms) != 1:
        return False
    (mono, c), = value.terms.items()
    return c == 1 and len(mono) == 1 and mono[0].kind == "index" and mono[0].extent == divisor


def maximum(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if a == b:
        return a
    (la, ha), (lb, hb) = bounds(a), bounds(b)
    if la >= hb:
        return a
    return b if lb >= ha else atom("max", a, b)


def minimum(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if a == b:
        return a
    (la, ha), (lb, hb) = bounds(a), bounds(b)
    if ha <= lb:
        return a
    return b if hb <= la else atom("min", a, b)


def ceildiv(value: Any, divisor: Any) -> Any:
    return -((-value) // divisor) if isinstance(value, int) and isinstance(divisor, int) else floordiv(
        value + divisor - 1, divisor)


def product(values: Any) -> Any:
    total = 1
    for v in values:
        total = total * v
    return total


def substitute(value: Any, replace: Callable[[Atom], Any]) -> Any:
    """The polynomial with each atom a replaced by replace(a), unless that is None; compound atoms are rebuilt."""
    if not isinstance(value, Poly):
        return value
    total = 0
    for mono, c in value.terms.items():
        part = c
        for a in mono:
            new = replace(a)
            if new is None and a.kind in _REBUILD:
                new = _REBUILD[a.kind](*(substitute(x, replace) for x in a.args))
            part = part * (Poly({(a,): 1}) if new is None else new)
        total = total + part
    return total


def evaluate(value: Any, size_of: Callable[[Atom], int]) -> int:
    """The value with every symbol looked up."""
    def number(a: Atom) -> Any:
        return None if a.kind in _REBUILD else size_of(a)
    return value if isinstance(value, int) else substitute(value, number)


def largest(value: Any, size_of: Callable[[Atom], int]) -> int:
    """The most that a size can be: symbols looked up, counted numbers anywhere from 0 to their bound."""
    def number(a: Atom) -> Any:
        if a.kind == "counted":
            return atom("counted", a.args[0], largest(a.args[1], size_of))
        return None if a.kind in _REBUILD else size_of(a)
    return value if isinstance(value, int) else int(bounds(substitute(value, number))[1])


def is_bounded(value: Any) -> bool:
    """Whether the most that a size can be is known before the call."""
    return all(a.kind not in ("symbol", "value") for a in atoms(value))


def decided(value: Any) -> list[Any]:
    """The variables whose values decide a size: on the host before the call (`value`), or while it runs (`counted`)."""
    return [a.args[0] for a in atoms(value) if a.kind in ("value", "counted")]


_REBUILD = {"floordiv": floordiv, "mod": mod, "max": maximum, "min": minimum}


def text(value: Any, name: Callable[[Atom], str] | None = None, compound: Callable[[Atom], str | None] = lambda a: None) -> str:
    """Python text of the value; `name` spells symbols, indices and values, `compound` the other atoms that it does not answer None for."""
    if not isinstance(value, Poly):
        return str(value)
    out = ""
    for mono, c in sorted(value.terms.items(), key=lambda t: (len(t[0]) == 0, t[1] < 0)):
        factors = [compound(a) or _atom_text(a, name, compound) for a in mono]
        body = "*".join(([] if abs(c) == 1 and factors else [str(abs(c))]) + factors)
        out += (" - " if c < 0 else " + ") + body if out else ("-" if c < 0 else "") + body
    return out


def _atom_text(a: Atom, name: Any, compound: Any) -> str:
    if a.kind in _REBUILD:
        left, right = (text(x, name, compound) for x in a.args)
        sign = {"floordiv": "//", "mod": "%"}.get(a.kind)
        return f"(({left}) {sign} ({right}))" if sign else f"{a.kind}({left}, {right})"
    return name(a) if name else repr(a)
