"""Convolutions (cross-correlations, as in deep learning) over one to three axes, and their two adjoints.

The forward rows conv1d, conv2d, conv3d and the rows convolution_input_grad and convolution_weight_grad are
each other's derivatives, so gradients of any order stay within them. x is (n, c, *s), w is (o, c/groups, *k),
g is (n, o, *p). Attributes of all three: stride and dilation (ints per axis), padding (pairs per axis),
groups; the adjoints also have `shape`, the shape of their result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.block import block
from ..graph.node import Node, make
from ..graph.types import Type, dim_text, shape_text
from ..loops import ir
from ..loops.ir import E, View
from .row import Row, as_tensor, promoted, sample
from .shape import as_shape, expand_dims, reshape, squeeze
from .sizes import differ, one_size
from .windows import (
    Pairs,
    inside,
    output_sizes,
    padded,
    pairs,
    per_axis,
    readers,
    source,
    span,
    strided,
    taps,
    windows_of,
)


def _attributes(n: int, stride: Any, padding: Any, dilation: Any, groups: Any, sizes: Sequence[Any] = (),
                kernel: Sequence[Any] = ()) -> dict:
    """The attributes in their one spelling. "same" needs `sizes` (where the stride is not 1) and `kernel`."""
    stride, dilation = per_axis(stride, n, "stride"), per_axis(dilation, n, "dilation")
    if isinstance(padding, str) and kernel:
        padding = _named_padding(padding, sizes, kernel, stride, dilation)
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ShapeError(four_parts(f"groups={groups!r}", "it splits the channels", show(user_line()),
                                    "an int of at least 1"))
    return {"stride": stride, "padding": pairs(padding, n), "dilation": dilation, "groups": int(groups)}


def _named_padding(padding: str, sizes: Sequence[Any], kernel: Sequence[Any], stride: Sequence[int],
                   dilation: Sequence[int]) -> Pairs:
    """Pairs from "valid" (none) or "same": ceil(size / stride) windows, the odd one at the end."""
    if padding == "valid":
        return ((0, 0),) * len(stride)
    if padding != "same":
        raise ShapeError(four_parts(f"padding={padding!r}", "an unknown name", show(user_line()),
                                    "an int, a tuple, pairs, 'same' or 'valid'"))
    result = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation):
        if not isinstance(k, int) or (s != 1 and not isinstance(size, int)):
            raise ShapeError(four_parts(f'padding="same" with stride {s}',
                                        f"size {dim_text(size)}, kernel {dim_text(k)}", show(user_line()),
                                        "a known size, a stride of 1, or padding in numbers"))
        total = span(k, d) - 1 if s == 1 else max((poly.ceildiv(size, s) - 1) * s + span(k, d) - size, 0)
        result.append((total // 2, total - total // 2))
    return tuple(result)


class _Convolution(Row):
    """What the three rows share: their index arithmetic."""

    @staticmethod
    def channel(o: Any, c: Any, w_dims: Sequence[Any], groups: int) -> Any:
        """The input channel that output channel o reads as channel c of its group."""
        return c if groups == 1 else poly.floordiv(o, poly.floordiv(w_dims[0], groups)) * w_dims[1] + c


class Convolution(_Convolution):
    """The cross-correlation of x (n, c, *s) with w (o, c/groups, *k), plus b (o,), as in torch: (n, o, *p).

    stride, dilation: an int or one per axis. padding: an int, one per axis, a pair per axis, "same" or
    "valid". x may also lack the batch axis. Raises ShapeError when channels and groups disagree or the kernel
    does not fit.
    """

    def __init__(self, rank: int):
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "samples", _forward_samples(rank))
        super().__init__(f"conv{rank}d")

    def infer(self, x: Type, w: Type, *, stride: tuple, padding: Pairs, dilation: tuple, groups: int) -> Type:
        _check_ranks(self, x, w)
        _check_groups(self.name, x.dims[1], w.dims, groups)
        sizes = output_sizes(self.name, x.dims[2:], w.dims[2:], stride, padding, dilation)
        return Type(x.dtype, (x.dims[0], w.dims[0], *sizes))

    def at(self, i: tuple, x: View, w: View, *, stride: tuple, padding: Pairs, dilation: tuple,
           groups: int) -> E:
        n, o, *p = i

        def term(c: Any, *k: Any) -> E:
            q = source(p, k, stride, padding, dilation)
            product = x[(n, self.channel(o, c, w.dims, groups), *q)] * w[(o, c, *k)]
            return ir.cond(inside(q, x.dims[2:]), product, ir.literal(0, x.dtype))
        channels = one_size(w.dims[1], x.dims[1]) if groups == 1 else w.dims[1]
        return taps("add", [channels, *w.dims[2:]], term)

    def numpy(self, x, w, *, stride, padding, dilation, groups):
        r = self.rank
        view = windows_of(padded(x, padding), w.shape[2:], stride, dilation)
        inner = [1, *range(2 + r, 2 + 2 * r)]
        parts = [np.moveaxis(np.tensordot(v, f, axes=(inner, [1, *range(2, 2 + r)])), -1, 1)
                 for v, f in zip(np.split(view, groups, axis=1), np.split(w, groups, axis=0))]
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    def vjp(self, g, y, x, w, **attrs):
        return convolution_input_grad(g, w, shape=x.dims,
                                      **attrs), convolution_weight_grad(x, g, shape=w.dims, **attrs)

    def __call__(self, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
        x, w = promoted(x, w)
        if x.ndim == self.rank + 1:
            y = self(expand_dims(x, 0), w, b, stride=stride, padding=padding, dilation=dilation,
                     groups=groups)
            return squeeze(y, 0)
        attrs = _attributes(self.rank, stride, padding, dilation, groups, x.dims[2:], w.dims[2:])
        return _add_bias(self.name, make(self, [x, w], **attrs), b)


def _forward_samples(rank: int) -> list:
    plain = {"stride": (1,) * rank, "padding": ((0, 0),) * rank, "dilation": (1,) * rank, "groups": 1}
    s = (5, 4, 3)[:rank]
    return [sample((2, 3, *s), (4, 3, *(2,) * rank), **plain),
            sample((1, 4, *s), (4, 2, *(3,) * rank), **plain | {"stride": (2,) * rank,
                                                                "padding": ((1, 1),) * rank, "groups": 2}),
            sample((2, 1, *s), (2, 1, *(2,) * rank), **plain | {"padding": ((0, 2),) * rank,
                                                                "dilation": (2,) * rank}),
            sample((2, 3, *s), (3, 1, *(1,) * rank), **plain | {"groups": 3}),
            sample((0, 2, *s), (3, 2, *(2,) * rank), **plain),
            sample((2, 3, *s), (4, 3, *(2,) * rank), dtypes=("int32", "int64"), low=-9, high=9, grad=False,
                   **plain)]


def _check_ranks(row: Convolution, x: Type, w: Type) -> None:
    if x.ndim != row.rank + 2 or w.ndim != row.rank + 2:
        axes = ", ".join("dhw"[3 - row.rank:])
        raise ShapeError(four_parts(f"{row.name} of x (n, c, {axes}) with w (o, c/groups, {axes})",
                                    f"{shape_text(x.dims)} and {shape_text(w.dims)}",
                                    attempt=f"{row.rank + 2} axes each (x without a batch {row.rank + 1})"))


def _check_groups(what: str, channels: Any, w_dims: Sequence[Any], groups: int) -> None:
    """Raise ShapeError when the channels of x and the filters do not fit the groups."""
    wanted = w_dims[1] * groups
    if differ(channels, wanted):
        raise ShapeError(four_parts(f"{what} with groups={groups} and filters {shape_text(w_dims)}",
                                    f"x has {channels} channels, not {w_dims[1]} * {groups} = {wanted}",
                                    attempt="w (out, channels/groups, *kernel) and x (n, channels, *s)"))
    if isinstance(w_dims[0], int) and w_dims[0] % groups:
        raise ShapeError(four_parts(f"{what} with groups={groups}",
                                    f"{w_dims[0]} filters, not a multiple of {groups}",
                                    attempt="as many filters for each group"))


def _add_bias(what: str, y: Node, b: Any) -> Node:
    """y (n, o, *p) plus b (o,)."""
    if b is None:
        return y
    b = as_tensor(b)
    if b.ndim != 1 or differ(b.dims[0], y.dims[1]):
        raise ShapeError(four_parts(f"{what} with a bias for {dim_text(y.dims[1])} channels",
                                    shape_text(b.dims), show(user_line()),
                                    "one number for each output channel"))
    return y + reshape(b, (b.dims[0], *(1,) * (y.ndim - 2)))


class InputGrad(_Convolution):
    """The adjoint of a convolution in x, from g (n, o, *p) and w to x (`shape`): transposed convolution."""

    public = False
    samples = [sample((2, 4, 4), (4, 3, 2), shape=(2, 3, 5), stride=(1,), padding=((0, 0),), dilation=(1,),
                      groups=1),
               sample((1, 4, 3, 2), (4, 2, 3, 3), shape=(1, 4, 6, 4), stride=(2, 2), padding=((1, 1), (1, 1)),
                      dilation=(1, 1), groups=2),
               sample((2, 2, 3, 5), (2, 1, 2, 2), shape=(2, 1, 4, 5), stride=(1, 1), padding=((0, 1), (2, 0)),
                      dilation=(2, 2), groups=1),
               sample((1, 3, 2, 1, 2), (3, 1, 2, 2, 1), shape=(1, 3, 4, 2, 4), stride=(2, 1, 3),
                      padding=((0, 0),) * 3, dilation=(1,) * 3, groups=3)]

    def infer(self, g: Type, w: Type, *, shape: tuple, stride: tuple, padding: Pairs, dilation: tuple,
              groups: int) -> Type:
        sizes = output_sizes(self.name, shape[2:], w.dims[2:], stride, padding, dilation)
        if differ(g.dims[1], w.dims[0]) or any(map(differ, sizes, g.dims[2:])):
            raise ShapeError(four_parts(f"{self.name} to {shape_text(shape)}",
                                        f"g {shape_text(g.dims)} and filters {shape_text(w.dims)}",
                                        attempt=f"g of shape {shape_text((shape[0], w.dims[0], *sizes))}"))
        _check_groups(self.name, shape[1], w.dims, groups)
        return Type(g.dtype, shape)

    def at(self, i: tuple, g: View, w: View, *, shape: tuple, stride: tuple, padding: Pairs, dilation: tuple,
           groups: int) -> E:
        n, channel, *q = i
        per_group = poly.floordiv(w.dims[0], groups)
        group, c = (0, channel) if groups == 1 else (poly.floordiv(channel, w.dims[1]),
                                                     poly.mod(channel, w.dims[1]))

        counts, reader = readers(q, w.dims[2:], g.dims[2:], stride, padding, dilation)

        def term(j: Any, *which: Any) -> E:
            o = group * per_group + j
            p, k, there = reader(which)
            return ir.cond(there, g[(n, o, *p)] * w[(o, c, *k)], ir.literal(0, g.dtype))
        return taps("add", [per_group, *counts], term)

    def numpy(self, g, w, *, shape, stride, padding, dilation, groups):
        kernel, windows = w.shape[2:], g.shape[2:]
        full = np.zeros((*shape[:2], *(d + sum(p) for d, p in zip(shape[2:], padding))), dtype=g.dtype)
        parts = np.split(full, groups, axis=1)                   # views
        for part, gg, f in zip(parts, np.split(g, groups, axis=1), np.split(w, groups, axis=0)):
            for k in np.ndindex(*kernel):
                part[strided(k, windows, stride, dilation)] += np.einsum("no...,oc->nc...", gg,
                                                                         f[(slice(None), slice(None), *k)])
        return full[(..., *(slice(a, a + d) for d, (a, _) in zip(shape[2:], padding)))].copy()

    def vjp(self, g, y, gy, w, *, shape, **attrs):
        return convolution(g, w, **attrs), convolution_weight_grad(g, gy, shape=w.dims, **attrs)

    def __call__(self, g, w, *, shape, **attrs):
        g, w = promoted(g, w)
        return make(self, [g, w], shape=as_shape(shape), **attrs)


class WeightGrad(_Convolution):
    """The adjoint of a convolution in w: from x and g (n, o, *p) to w (`shape`)."""

    public = False
    samples = [sample((2, 3, 5), (2, 4, 4), shape=(4, 3, 2), stride=(1,), padding=((0, 0),), dilation=(1,),
                      groups=1),
               sample((1, 4, 6, 4), (1, 4, 3, 2), shape=(4, 2, 3, 3), stride=(2, 2), padding=((1, 1), (1, 1)),
                      dilation=(1, 1), groups=2),
               sample((2, 1, 4, 5), (2, 2, 3, 5), shape=(2, 1, 2, 2), stride=(1, 1), padding=((0, 1), (2, 0)),
                      dilation=(2, 2), groups=1),
               sample((1, 3, 4, 2, 4), (1, 3, 2, 1, 2), shape=(3, 1, 2, 2, 1), stride=(2, 1, 3),
                      padding=((0, 0),) * 3, dilation=(1,) * 3, groups=3),
               sample((0, 2, 3), (0, 3, 2), shape=(3, 2, 2), stride=(1,), padding=((0, 0),), dilation=(1,),
                      groups=1)]

    def infer(self, x: Type, g: Type, *, shape: tuple, stride: tuple, padding: Pairs, dilation: tuple,
              groups: int) -> Type:
        sizes = output_sizes(self.name, x.dims[2:], shape[2:], stride, padding, dilation)
        if differ(g.dims[1], shape[0]) or differ(g.dims[0], x.dims[0]) or any(map(differ, sizes, g.dims[2:])):
            raise ShapeError(four_parts(f"{self.name} to {shape_text(shape)}",
                                        f"x {shape_text(x.dims)} and g {shape_text(g.dims)}",
                                        attempt=f"g of shape {shape_text((x.dims[0], shape[0], *sizes))}"))
        _check_groups(self.name, x.dims[1], shape, groups)
        return Type(x.dtype, shape)

    def at(self, i: tuple, x: View, g: View, *, shape: tuple, stride: tuple, padding: Pairs, dilation: tuple,
           groups: int) -> E:
        o, c, *k = i

        def term(n: Any, *p: Any) -> E:
            q = source(p, k, stride, padding, dilation)
            product = x[(n, self.channel(o, c, shape, groups), *q)] * g[(n, o, *p)]
            return ir.cond(inside(q, x.dims[2:]), product, ir.literal(0, x.dtype))
        return taps("add", [one_size(x.dims[0], g.dims[0]), *g.dims[2:]], term)

    def numpy(self, x, g, *, shape, stride, padding, dilation, groups):
        r = len(stride)
        view = windows_of(padded(x, padding), shape[2:], stride, dilation)[(slice(None), slice(None),
                                                                            *(slice(n) for n in g.shape[2:]))]
        outer = [0, *range(2, 2 + r)]
        parts = [np.tensordot(gg, v, axes=(outer, outer)) for gg, v in zip(np.split(g, groups, axis=1),
                                                                           np.split(view, groups, axis=1))]
        return np.ascontiguousarray(np.concatenate(parts, axis=0))

    def vjp(self, g, y, x, gy, *, shape, **attrs):
        return convolution_input_grad(gy, g, shape=x.dims, **attrs), convolution(x, g, **attrs)

    def __call__(self, x, g, *, shape, **attrs):
        x, g = promoted(x, g)
        return make(self, [x, g], shape=as_shape(shape), **attrs)


conv1d, conv2d, conv3d = (Convolution(rank) for rank in (1, 2, 3))
CONVOLUTIONS = {row.rank: row for row in (conv1d, conv2d, conv3d)}
convolution_input_grad = InputGrad("convolution_input_grad")
convolution_weight_grad = WeightGrad("convolution_weight_grad")


def convolution(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """conv1d, conv2d or conv3d, by the number of axes of w."""
    w = as_tensor(w)
    if w.ndim - 2 not in CONVOLUTIONS:
        raise ShapeError(four_parts("convolution over one to three axes", f"filters {shape_text(w.dims)}",
                                    show(user_line()),
                                    "w of shape (out, channels/groups, *kernel)"))
    return CONVOLUTIONS[w.ndim - 2](x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)


# ------------------------------------------------------------------------------ transposed convolution
def _conv_transpose(rank: int, x, w, b, stride, padding, output_padding, groups, dilation) -> Node:
    what = f"conv_transpose{rank}d"
    x, w = promoted(x, w)
    if x.ndim == rank + 1:
        return squeeze(_conv_transpose(rank, expand_dims(x, 0), w, b, stride, padding, output_padding, groups,
                                       dilation), 0)
    if x.ndim != rank + 2 or w.ndim != rank + 2:
        raise ShapeError(four_parts(f"{what} of x (n, c, *s) with w (c, out/groups, *k)",
                                    f"{shape_text(x.dims)} and {shape_text(w.dims)}",
                                    show(user_line()), f"{rank} spatial axes on both"))
    attrs = _attributes(rank, stride, 0 if padding == "valid" else padding, dilation, groups)
    if differ(x.dims[1], w.dims[0]):
        raise ShapeError(four_parts(f"{what} with filters {shape_text(w.dims)}",
                                    f"x has {x.dims[1]} channels", show(user_line()),
                                    "w has shape (channels, out/groups, *kernel)"))
    extra = per_axis(output_padding, rank, "output_padding", 0)
    if any(e >= s for e, s in zip(extra, attrs["stride"])):
        raise ShapeError(four_parts(f"{what} with output_padding={output_padding!r}",
                                    f"stride {attrs['stride']}", show(user_line()),
                                    "less than the stride: it says which of the possible sizes is meant"))
    sizes = [(d - 1) * s + span(k, dil) - before - after + e for d, k, s, (before, after), dil, e in
             zip(x.dims[2:], w.dims[2:], attrs["stride"], attrs["padding"], attrs["dilation"], extra)]
    if any(isinstance(d, int) and d < 0 for d in sizes):
        raise ShapeError(four_parts(f"{what} of {shape_text(x.dims)}", f"output sizes {tuple(sizes)}",
                                    show(user_line()), "less padding"))
    y = make(convolution_input_grad, [x, w], shape=(x.dims[0], w.dims[1] * attrs["groups"], *sizes), **attrs)
    return _add_bias(what, y, b)


@block
def conv_transpose1d(x, w, b=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """torch's conv_transpose1d: x (n, c, l) with w (c, out/groups, k). The adjoint of conv1d in x."""
    return _conv_transpose(1, x, w, b, stride, padding, output_padding, groups, dilation)


@block
def conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """torch's conv_transpose2d: x (n, c, *s) with w (c, out/groups, kh, kw). The adjoint of conv2d in x."""
    return _conv_transpose(2, x, w, b, stride, padding, output_padding, groups, dilation)


@block
def conv_transpose3d(x, w, b=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """torch's conv_transpose3d: x (n, c, *s) with w (c, out/groups, *k). The adjoint of conv3d in x."""
    return _conv_transpose(3, x, w, b, stride, padding, output_padding, groups, dilation)


__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
           "convolution"]
