"""Types: a dtype and sizes. A size is an int, or a polynomial over sizes that are known at the call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..base import poly
from ..base.dtypes import itemsize
from ..base.errors import ShapeError, four_parts
from ..base.poly import Poly


class Type:
    """dtype and dims of an array; hashable. Two types are equal when a value of one always is a value of the other."""

    __slots__ = ("dtype", "dims", "_hash")

    def __init__(self, dtype: str, dims: Iterable[Any] = ()) -> None:
        self.dtype, self.dims = dtype, tuple(dims)
        self._hash = hash((dtype, self.dims))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Type) and self.dtype == other.dtype and self.dims == other.dims)

    def __reduce__(self) -> tuple[Any, ...]:
        return Type, (self.dtype, self.dims)

    @property
    def ndim(self) -> int:
        return len(self.dims)

    @property
    def size(self) -> Any:
        """Number of elements: an int or a polynomial."""
        return poly.product(self.dims)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.dims)

    @property
    def is_bounded(self) -> bool:
        """Whether the most memory it can take is known before the call: sizes are known, or counted up to a known bound."""
        return all(map(poly.is_bounded, self.dims))

    def most_elements(self, size_of: Any) -> int:
        """The most elements it can have, with symbols as `size_of` gives them."""
        return poly.product(max(poly.largest(d, size_of), 0) for d in self.dims)

    @property
    def nbytes(self) -> Any:
        return self.size * itemsize(self.dtype)

    def with_dtype(self, dtype: str) -> Type:
        return self if dtype == self.dtype else Type(dtype, self.dims)

    def __repr__(self) -> str:
        return f"{self.dtype} ({', '.join(map(dim_text, self.dims))}{',' if self.ndim == 1 else ''})"


class TupleType:
    """The type of a node with several results; only `item` nodes read it."""

    __slots__ = ("items",)

    def __init__(self, items: Iterable[Type]) -> None:
        self.items = tuple(items)

    @property
    def is_static(self) -> bool:
        return all(t.is_static for t in self.items)

    @property
    def is_bounded(self) -> bool:
        return all(t.is_bounded for t in self.items)

    def __hash__(self) -> int:
        return hash(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TupleType) and self.items == other.items

    def __reduce__(self) -> tuple[Any, ...]:
        return TupleType, (self.items,)

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, self.items))})"


def dim_text(dim: Any) -> str:
    """A size as users wrote it: 3, batch, or ? for one that has no name."""
    if isinstance(dim, Poly) and len(dim.terms) == 1:
        (mono, c), = dim.terms.items()
        if c == 1 and len(mono) == 1 and mono[0].kind == "symbol":
            name = mono[0].args[0]
            return "?" if name.startswith("?") else name
    return str(dim)


def shape_text(dims: Sequence[Any]) -> str:
    return f"({', '.join(map(dim_text, dims))}{',' if len(dims) == 1 else ''})"


def is_one(dim: Any) -> bool:
    return isinstance(dim, int) and dim == 1


def broadcast_dims(*shapes: Sequence[Any], what: str = "operands") -> tuple:
    """The common shape of `shapes` by NumPy's rules.

    A size that is only known at the call is taken to equal the other one unless that is 1: a size that turns out to be
    1 at run time does not broadcast; declare it as 1 to say so. Raises ShapeError for known sizes that differ.
    """
    rank = max(map(len, shapes), default=0)
    result = []
    for axis in range(rank):
        dims = [s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0]
        known = {d for d in dims if isinstance(d, int) and d != 1}
        if len(known) > 1:
            raise ShapeError(four_parts(
                f"{what} that broadcast together", [shape_text(s) for s in shapes],
                attempt=f"sizes on axis {axis - rank} must be equal or 1; reshape, transpose or expand_dims one of them"))
        if known:
            result.append(known.pop())
        else:
            result.append(next((d for d in dims if not is_one(d)), dims[0]))
    return tuple(result)
