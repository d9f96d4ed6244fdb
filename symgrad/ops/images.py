"""Ops on images (n, c, *spatial): interpolation, patches, pixel shuffles. All are blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import dtypes, poly
from ..base.errors import ShapeError, four_parts
from ..base.origin import show, user_line
from ..graph.block import block
from ..graph.node import Node
from ..graph.types import shape_text
from .conv import conv2d, conv_transpose2d
from .index import take
from .resample import along, cubic_matrix, linear_matrix, nearest_positions
from .row import as_tensor, cast
from .shape import broadcast_to, reshape, transpose
from .sizes import differ
from .windows import output_size as output_size_of
from .windows import per_axis, span

_MATRICES = {"linear": linear_matrix, "bilinear": linear_matrix, "trilinear": linear_matrix,
             "bicubic": cubic_matrix}
_RANKS = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}


def _refuse(what: str, x: Node, attempt: str) -> ShapeError:
    return ShapeError(four_parts(what, f"x {shape_text(x.dims)}", show(user_line()), attempt))


@block
def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """x (n, c, *s) resampled to spatial `size` or by `scale_factor`, as in torch, without antialiasing.

    mode: "nearest", "linear" (one spatial axis), "bilinear", "bicubic" (two), "trilinear" (three). Spatial
    sizes must be known, except for "nearest" with a whole scale_factor.
    """
    x = as_tensor(x)
    rank = x.ndim - 2
    if rank < 1 or mode not in ("nearest", *_MATRICES) or _RANKS.get(mode, rank) != rank:
        raise _refuse(f"interpolate with mode={mode!r}", x,
                      "x (n, c, *spatial) and nearest, linear, bilinear, bicubic or trilinear for its rank")
    if (size is None) == (scale_factor is None):
        raise _refuse(f"interpolate with size={size!r} and scale_factor={scale_factor!r}", x,
                      "one of the two")
    scales = _scales(scale_factor, rank)
    if mode == "nearest" and all(s is not None and float(s).is_integer() for s in scales):
        return _repeated(x, [int(s) for s in scales])
    sizes = x.dims[2:]
    if not all(isinstance(d, int) for d in sizes):
        raise _refuse(f"interpolate with mode={mode!r}", x,
                      "known spatial sizes, or nearest with a whole scale_factor")
    scaled = (math.floor(d * s) for d, s in zip(sizes, scales))
    wanted = tuple(scaled) if size is None else per_axis(size, rank, "size")
    if mode == "nearest":
        for axis, (d, n, s) in enumerate(zip(sizes, wanted, scales), 2):
            x = take(x, nearest_positions(d, n, s), axis=axis)
        return x
    x = cast(x, dtypes.as_float(x.dtype))
    for axis, (d, n, s) in enumerate(zip(sizes, wanted, scales), 2):
        x = along(x, _MATRICES[mode](d, n, s, align_corners), axis)
    return x


def _scales(scale_factor: Any, rank: int) -> Sequence[float | None]:
    if scale_factor is None:
        return [None] * rank
    scales = list(scale_factor) if isinstance(scale_factor, (tuple, list)) else [scale_factor] * rank
    if len(scales) != rank or not all(isinstance(s, (int, float)) and s > 0 for s in scales):
        raise ShapeError(four_parts(f"scale_factor={scale_factor!r}", f"{rank} spatial axes",
                                    show(user_line()), "a positive number, or one per axis"))
    return scales


def _repeated(x: Node, scales: Sequence[int]) -> Node:
    """Every sample repeated scales[k] times along spatial axis k."""
    lead, sizes = x.dims[:2], x.dims[2:]
    wide = reshape(x, (*lead, *(d for size in sizes for d in (size, 1))))
    wide = broadcast_to(wide, (*lead, *(d for size, s in zip(sizes, scales) for d in (size, s))))
    return reshape(wide, (*lead, *(size * s for size, s in zip(sizes, scales))))


def upsample(x, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """The older name of interpolate."""
    return interpolate(x, size, scale_factor, mode, align_corners)


def _patch_filters(channels: int, kernel: tuple[int, ...], dtype: str) -> np.ndarray:
    """Filters (c*kh*kw, 1, kh, kw), for groups=c, that copy each element of a patch to its own channel."""
    unit = np.eye(math.prod(kernel), dtype=dtype).reshape(math.prod(kernel), 1, *kernel)
    return np.tile(unit, (channels, 1, 1, 1))


@block
def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    """The patches of x (n, c, h, w) as columns: (n, c*kh*kw, patches), as in torch (im2col)."""
    x, kernel = as_tensor(x), per_axis(kernel_size, 2, "kernel_size")
    if x.ndim != 4 or not isinstance(x.dims[1], int):
        raise _refuse("unfold of x (n, c, h, w)", x, "four axes, a known number of channels")
    channels = x.dims[1]
    y = conv2d(x, _patch_filters(channels, kernel, x.dtype), stride=stride, padding=padding,
               dilation=dilation, groups=channels)
    return reshape(y, (y.dims[0], y.dims[1], y.dims[2] * y.dims[3]))


@block
def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Patches (n, c*kh*kw, patches) summed into images (n, c, *output_size), as in torch: unfold reversed."""
    x, kernel = as_tensor(x), per_axis(kernel_size, 2, "kernel_size")
    size, strides, pads, dilations = (per_axis(v, 2, name, 0) for v, name in (
        (output_size, "output_size"), (stride, "stride"), (padding, "padding"), (dilation, "dilation")))
    facts = list(zip(size, kernel, strides, pads, dilations))
    counts = [output_size_of(d, k, s, (p, p), e) for d, k, s, p, e in facts]
    area, patches = math.prod(kernel), math.prod(counts)
    if x.ndim != 3 or not isinstance(x.dims[1], int) or x.dims[1] % area or differ(x.dims[2], patches):
        raise _refuse(f"fold to {size} with a kernel of {kernel}", x, f"x (n, channels*{area}, {patches})")
    channels = x.dims[1] // area
    # rows and columns behind the last whole step
    extra = tuple((d + 2 * p - span(k, e)) % s for d, k, s, p, e in facts)
    wide = reshape(x, (x.dims[0], x.dims[1], *counts))
    return conv_transpose2d(wide, _patch_filters(channels, kernel, x.dtype), stride=stride, padding=padding,
                            output_padding=extra, groups=channels, dilation=dilation)


@block
def channel_shuffle(x, groups):
    """x (n, c, ...) with the channels of its groups dealt out in turn (Zhang et al. 2018)."""
    x = as_tensor(x)
    if x.ndim < 2 or groups < 1 or (isinstance(x.dims[1], int) and x.dims[1] % groups):
        raise _refuse(f"channel_shuffle in {groups} groups", x, "groups that divide the channels (axis 1)")
    wide = reshape(x, (x.dims[0], groups, poly.floordiv(x.dims[1], groups), *x.dims[2:]))
    return reshape(transpose(wide, (0, 2, 1, *range(3, wide.ndim))), x.dims)


@block
def pixel_shuffle(x, upscale_factor):
    """(..., c*r*r, h, w) as (..., c, h*r, w*r) (Shi et al. 2016)."""
    x, r = as_tensor(x), int(upscale_factor)
    if x.ndim < 3 or r < 1 or (isinstance(x.dims[-3], int) and x.dims[-3] % (r * r)):
        raise _refuse(f"pixel_shuffle by {r}", x, f"channels (axis -3) in multiples of {r * r}")
    *lead, c, h, w = x.dims
    wide = reshape(x, (*lead, poly.floordiv(c, r * r), r, r, h, w))
    n = len(lead)
    return reshape(transpose(wide, (*range(n + 1), n + 3, n + 1, n + 4, n + 2)),
                   (*lead, poly.floordiv(c, r * r), h * r, w * r))


@block
def pixel_unshuffle(x, downscale_factor):
    """(..., c, h*r, w*r) as (..., c*r*r, h, w): undoes pixel_shuffle."""
    x, r = as_tensor(x), int(downscale_factor)
    if x.ndim < 3 or r < 1 or any(isinstance(d, int) and d % r for d in x.dims[-2:]):
        raise _refuse(f"pixel_unshuffle by {r}", x, f"spatial sizes in multiples of {r}")
    *lead, c, h, w = x.dims
    n, h, w = len(lead), poly.floordiv(h, r), poly.floordiv(w, r)
    wide = reshape(x, (*lead, c, h, r, w, r))
    return reshape(transpose(wide, (*range(n + 1), n + 2, n + 4, n + 1, n + 3)), (*lead, c * r * r, h, w))


__all__ = ["channel_shuffle", "fold", "interpolate", "pixel_shuffle", "pixel_unshuffle", "unfold", "upsample"]
