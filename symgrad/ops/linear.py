"""Linear algebra: matmul, and what is spelled with it (dot, tensordot, einsum, kron)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, make
from ..graph.types import Type, broadcast_dims, dim_text, is_one, shape_text
from ..loops import ir
from ..loops.ir import E, View
from . import reduce, sugar
from .elementwise import INTS, multiply
from .row import Row, as_tensor, broadcast_index, normalize_axis, promoted, sample
from .shape import diagonal, reshape, squeeze, transpose
from .sizes import differ, one_size


class Matmul(Row):
    """The matrix product by NumPy's rules: the last two axes multiply, the axes before them broadcast.

    A 1-d operand is a row on the left and a column on the right. Integers stay integers and wrap; bools use
    or and and. The node itself always has operands (*batch, m, k) and (*batch, k, n).
    """

    samples = [sample((3, 4), (4, 2)), sample((1, 1), (1, 1)), sample((0, 4), (4, 2)), sample((3, 0), (0, 2)),
               sample((2, 3, 4), (4, 5)),
               sample((2, 1, 3, 4), (5, 4, 2)), sample((3, 4), (2, 4, 3)),
               sample((3, 4), (4, 2), dtypes=INTS, low=-9, high=9, grad=False),
               sample((3, 4), (4, 2), dtypes=("bool",), low=0, high=2, grad=False)]

    def infer(self, x: Type, w: Type) -> Type:
        if differ(x.dims[-1], w.dims[-2]):
            raise ShapeError(four_parts(f"matmul of {shape_text(x.dims)} and {shape_text(w.dims)}",
                                        f"{dim_text(x.dims[-1])} columns, {dim_text(w.dims[-2])} rows",
                                        attempt="inner sizes must be equal; transpose one operand (x.T)"))
        batch = broadcast_dims(x.dims[:-2], w.dims[:-2], what="matmul: batch axes")
        return Type(x.dtype, (*batch, x.dims[-2], w.dims[-1]))

    def at(self, i: tuple, x: View, w: View) -> E:
        *batch, row, column = i
        left, right = broadcast_index(batch, x.dims[:-2]), broadcast_index(batch, w.dims[:-2])
        total, times = ("logor", "logand") if x.dtype == "bool" else ("add", "mul")
        return ir.fold(total, [one_size(x.dims[-1], w.dims[-2])],
                       lambda k: ir.call(times, x[(*left, row, k)], w[(*right, k, column)]))

    def numpy(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.matmul(x, w)

    def vjp(self, g, y, x, w):
        # an operand without batch axes gets its sum over the batch inside the product, not after it
        if x.ndim > 2 and w.ndim == 2:
            return matmul(g, _swap(w)), matmul(_swap(_rows(x)), _rows(g))
        if w.ndim > 2 and x.ndim == 2:
            return matmul(_columns(g), _swap(_columns(w))), matmul(_swap(x), g)
        return matmul(g, _swap(w)), matmul(_swap(x), g)

    def __call__(self, x, w):
        x, w = promoted(x, w)
        if not x.ndim or not w.ndim:
            raise ShapeError(four_parts("matmul of arrays with at least one axis",
                                        f"{shape_text(x.dims)} and {shape_text(w.dims)}",
                                        show(user_line()), "multiply (*) for a scalar operand"))
        left = reshape(x, (1, x.dims[0])) if x.ndim == 1 else x
        right = reshape(w, (w.dims[0], 1)) if w.ndim == 1 else w
        y = make(self, [left, right])
        ones = ((y.ndim - 2,) if x.ndim == 1 else ()) + ((y.ndim - 1,) if w.ndim == 1 else ())
        return squeeze(y, ones) if ones else y


def _rows(x: Node) -> Node:
    """(*batch, m, k) as (batch*m, k)."""
    return reshape(x, (poly.product(x.dims[:-1]), x.dims[-1]))


def _columns(x: Node) -> Node:
    """(*batch, m, k) as (m, batch*k)."""
    front = transpose(x, (x.ndim - 2, *range(x.ndim - 2), x.ndim - 1))
    return reshape(front, (front.dims[0], poly.product(front.dims[1:])))


def _swap(x: Node) -> Node:
    """x with its last two axes exchanged."""
    return transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


matmul = Matmul("matmul")


def batched_dot(a, b):
    """Theano's batched_dot: matmul over a shared first axis."""
    return matmul(a, b)


def matvec(a, v):
    """numpy.matvec: (*batch, m, k) times (*batch, k) gives (*batch, m)."""
    v = as_tensor(v)
    return squeeze(matmul(a, reshape(v, (*v.dims, 1))), -1)


def vecmat(v, a):
    """numpy.vecmat: (*batch, k) times (*batch, k, n) gives (*batch, n)."""
    v = as_tensor(v)
    return squeeze(matmul(reshape(v, (*v.dims[:-1], 1, v.dims[-1])), a), -2)


def vecdot(a, b, axis=-1):
    """numpy.vecdot: the sum of products along one axis."""
    return _total(multiply(a, b), axis)


def _total(x: Node, axis: Any) -> Node:
    """The sum over axes in the dtype of x; products of integers stay what they are, as in numpy.einsum."""
    return reduce.sum(x, axis=axis, dtype=x.dtype)


def dot(a, b):
    """numpy.dot: scalars multiply, vectors and matrices as matmul, else axis -1 of a with axis -2 of b."""
    a, b = promoted(a, b)
    if not a.ndim or not b.ndim:
        return multiply(a, b)
    if b.ndim <= 2:
        return matmul(a, b)
    return tensordot(a, b, axes=((a.ndim - 1,), (b.ndim - 2,)))


def inner(a, b):
    """numpy.inner: the sum of products over the last axes."""
    a, b = promoted(a, b)
    return tensordot(a, b, axes=((a.ndim - 1,), (b.ndim - 1,))) if a.ndim and b.ndim else multiply(a, b)


def vdot(a, b):
    """numpy.vdot: the sum of products of all elements."""
    return matmul(reshape(as_tensor(a), -1), reshape(as_tensor(b), -1))


def outer(a, b):
    """numpy.outer: every element of a (flattened) times every element of b."""
    return multiply(reshape(as_tensor(a), (-1, 1)), reshape(as_tensor(b), (1, -1)))


def tensordot(a, b, axes: Any = 2):
    """numpy.tensordot: the sum of products over pairs of axes.

    axes: how many of the last of a and the first of b, or (axes of a, axes of b).
    """
    a, b = promoted(a, b)
    if isinstance(axes, (int, np.integer)):
        if axes < 0 or axes > min(a.ndim, b.ndim):
            raise ShapeError(four_parts(f"tensordot over {axes} axes",
                                        f"{shape_text(a.dims)} and {shape_text(b.dims)}", show(user_line())))
        axes = (tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes)))
    left, right = (axis if isinstance(axis, (tuple, list)) else (axis,) for axis in axes)
    left = [normalize_axis(k, a.ndim, "tensordot") for k in left]
    right = [normalize_axis(k, b.ndim, "tensordot") for k in right]
    if len(left) != len(right) or any(differ(a.dims[p], b.dims[q]) for p, q in zip(left, right)):
        raise ShapeError(four_parts(f"tensordot over axes {tuple(left)} and {tuple(right)}",
                                    f"{shape_text(a.dims)} and {shape_text(b.dims)}",
                                    show(user_line()), "as many axes on each side, of equal sizes"))
    letters = [f"a{k}" for k in range(a.ndim)]
    others = [f"a{left[right.index(k)]}" if k in right else f"b{k}" for k in range(b.ndim)]
    kept = [x for k, x in enumerate(letters) if k not in left] + [x for k, x in enumerate(others)
                                                                  if k not in right]
    return _contract([(a, letters), (b, others)], kept)


def kron(a, b):
    """numpy.kron: the Kronecker product."""
    a, b = promoted(a, b)
    rank = max(a.ndim, b.ndim)
    a, b = (reshape(x, (*(1,) * (rank - x.ndim), *x.dims)) for x in (a, b))
    left = reshape(a, tuple(d for k in range(rank) for d in (a.dims[k], 1)))
    right = reshape(b, tuple(d for k in range(rank) for d in (1, b.dims[k])))
    return reshape(multiply(left, right), tuple(p * q for p, q in zip(a.dims, b.dims)))


# ----------------------------------------------------------------------------------------------- einsum
Term = tuple[Node, list[str]]


def einsum(subscripts: str, *operands: Any):
    """numpy.einsum of a subscripts string: "ij,jk->ik", repeated labels, "...", an implicit output.

    More than two operands are contracted pair by pair, the pair with the smallest result first.
    """
    nodes = promoted(*operands)
    terms, output = _parse(subscripts, nodes)
    return _contract(terms, output)


def _parse(subscripts: str, nodes: Sequence[Node]) -> tuple[list[Term], list[str]]:
    inputs, arrow, out = subscripts.replace(" ", "").partition("->")
    specs = inputs.split(",")
    if len(specs) != len(nodes):
        raise _einsum_error(subscripts, nodes, f"{len(specs)} operands in the subscripts, {len(nodes)} given")
    spans = [x.ndim - len(s.replace("...", "")) for s, x in zip(specs, nodes)]
    if any(n < 0 or (n and "..." not in s) for s, n in zip(specs, spans)):
        raise _einsum_error(subscripts, nodes, "a label for each axis is needed, or ... for the rest")
    widest = max((n for s, n in zip(specs, spans) if "..." in s), default=0)
    terms = [(x, _labels(s, n)) for s, n, x in zip(specs, spans, nodes)]
    used = [label for _, labels in terms for label in labels]
    if arrow:
        output = _labels(out, widest)
    else:
        output = _labels("...", widest) + sorted(a for a in set(used) if used.count(a) == 1 and len(a) == 1)
    if len(set(output)) != len(output) or not set(output) <= set(used) or any(not (a.isalpha() or a[0] == ".")
                                                                              for a in used):
        raise _einsum_error(subscripts, nodes,
                            f"labels {''.join(a for a in output if len(a) == 1)!r} in the output")
    return terms, output


def _labels(spec: str, span: int) -> list[str]:
    """One label per axis; axes under `...` are named from the right, as broadcasting lines them up."""
    before, dots, after = spec.partition("...")
    return [*before, *(f".{span - k}" for k in range(span if dots else 0)), *after]


def _einsum_error(subscripts: str, nodes: Sequence[Node], found: str) -> ShapeError:
    return ShapeError(four_parts(f"einsum {subscripts!r}", [found, *(shape_text(x.dims) for x in nodes)],
                                 show(user_line()),
                                 "'ij,jk->ik' multiplies two matrices"))


def _contract(terms: list[Term], output: list[str]) -> Node:
    """The sum of products over every label that is not in the output."""
    terms = [_diagonals(x, labels) for x, labels in terms]
    sizes = _label_sizes(terms)
    terms = [_drop_ones(x, labels, sizes) for x, labels in terms]
    terms = [_sum_out(x, labels, output, terms[:k] + terms[k + 1:]) for k, (x, labels) in enumerate(terms)]
    while len(terms) > 1:
        p, q = _next_pair(terms, output, sizes)
        rest = [t for k, t in enumerate(terms) if k not in (p, q)]
        terms = [*rest, _pair(terms[p], terms[q], _needed(output, rest))]
    (x, labels), = terms
    missing = [a for a in output
               if a not in labels]                # an output label whose size is 1 in the only operand left
    x = reshape(x, (*x.dims, *(1 for _ in missing)))
    labels = labels + missing
    return transpose(x, [labels.index(a) for a in output]) if output else x


def _diagonals(x: Node, labels: list[str]) -> Term:
    labels = list(labels)
    while len(set(labels)) < len(labels):
        p = next(k for k, a in enumerate(labels) if a in labels[k + 1:])
        q = labels.index(labels[p], p + 1)
        repeated = labels[p]
        x = diagonal(x, 0, p, q)
        labels = [a for k, a in enumerate(labels) if k not in (p, q)] + [repeated]
    return x, labels


def _label_sizes(terms: list[Term]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for x, labels in terms:
        for a, d in zip(labels, x.dims):
            have = sizes.get(a, 1)
            if differ(have, d) and not is_one(have) and not is_one(d):
                raise ShapeError(four_parts("einsum with one size for each label",
                                            [shape_text(t.dims) for t, _ in terms], show(user_line()),
                                            f"label {a!r} has sizes {have} and {d}"))
            sizes[a] = one_size(have,
                                d) if not is_one(have) and not is_one(d) else d if is_one(have) else have
    return sizes


def _drop_ones(x: Node, labels: list[str], sizes: dict[str, Any]) -> Term:
    """x without the axes of size 1 that broadcast against a larger size elsewhere."""
    ones = tuple(k for k, a in enumerate(labels) if is_one(x.dims[k]) and not is_one(sizes[a]))
    return (squeeze(x, ones) if ones else x), [a for k, a in enumerate(labels) if k not in ones]


def _needed(output: list[str], rest: Iterable[Term]) -> set[str]:
    return set(output).union(*(labels for _, labels in rest))


def _sum_out(x: Node, labels: list[str], output: list[str], others: list[Term]) -> Term:
    alone = tuple(k for k, a in enumerate(labels) if a not in _needed(output, others))
    return (_total(x, alone) if alone else x), [a for k, a in enumerate(labels) if k not in alone]


def _next_pair(terms: list[Term], output: list[str], sizes: dict[str, Any]) -> tuple[int, int]:
    """The pair whose product is smallest; the first one when sizes are not known."""
    pairs = [(p, q) for p in range(len(terms)) for q in range(p + 1, len(terms))]

    def cost(pair: tuple[int, int]) -> float:
        rest = [t for k, t in enumerate(terms) if k not in pair]
        left = (set(terms[pair[0]][1]) | set(terms[pair[1]][1])) & _needed(output, rest)
        size = poly.product(sizes[a] for a in left)
        return size if isinstance(size, int) else math.inf
    return min(pairs, key=cost)


def _pair(left: Term, right: Term, needed: set[str]) -> Term:
    """Two operands multiplied, and summed over what both have and nobody needs."""
    (x, p), (w, q) = left, right
    batch = [a for a in p if a in q and a in needed]
    inside = [a for a in p if a in q and a not in needed]
    rows, columns = [a for a in p if a not in q], [a for a in q if a not in p]
    x = transpose(x, [p.index(a) for a in batch + rows + inside]) if p else x
    w = transpose(w, [q.index(a) for a in batch + inside + columns]) if q else w
    b, r, c = len(batch), len(rows), len(columns)
    if not inside:
        x = reshape(x, (*x.dims, *(1,) * c))
        w = reshape(w, (*w.dims[:b], *(1,) * r, *w.dims[b:]))
        return multiply(x, w), batch + rows + columns
    if not rows and not columns and batch:
        return _total(multiply(x, w), tuple(range(b, x.ndim))), batch
    dims = (*broadcast_dims(x.dims[:b], w.dims[:b]), *x.dims[b:b + r], *w.dims[w.ndim - c:])
    x = reshape(x, (*x.dims[:b], poly.product(x.dims[b:b + r]), poly.product(x.dims[b + r:])))
    w = reshape(w, (*w.dims[:b], poly.product(w.dims[b:w.ndim - c]), poly.product(w.dims[w.ndim - c:])))
    return reshape(matmul(x, w), dims), batch + rows + columns


def linear(x, w, b=None):
    """torch.nn.functional.linear: x (..., in) times w (out, in) transposed, plus b (out,)."""
    w = as_tensor(w)
    y = matmul(x, transpose(w))
    return y if b is None else y + as_tensor(b)


sugar.method("dot", dot)

__all__ = ["batched_dot", "dot", "einsum", "inner", "kron", "linear", "matmul", "matvec", "outer",
           "tensordot", "vdot", "vecdot",
           "vecmat"]
