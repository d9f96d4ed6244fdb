"""Linear maps along one axis, given as small constant matrices: adaptive averages, interpolation."""

from __future__ import annotations

import math

import numpy as np

from ..base import poly
from ..graph.node import Node
from .linear import matmul
from .row import as_tensor
from .shape import reshape, transpose


def along(x: Node, matrix: np.ndarray, axis: int) -> Node:
    """x with `matrix` (new, old) applied along one axis."""
    m = as_tensor(matrix, x.dtype)
    if axis == x.ndim - 1:
        return matmul(x, transpose(m))
    if axis == x.ndim - 2:
        return matmul(m, x)
    tail = x.dims[axis + 1:]
    y = matmul(m, reshape(x, (*x.dims[:axis + 1], poly.product(tail))))
    return reshape(y, (*y.dims[:-1], *tail))


def averaging_matrix(size: int, count: int) -> np.ndarray:
    """(count, size): row i averages floor(i*size/count) to ceil((i+1)*size/count), as torch's pools."""
    matrix = np.zeros((count, size))
    for k in range(count):
        start, end = k * size // count, -(-(k + 1) * size // count)
        matrix[k, start:end] = 1 / (end - start)
    return matrix


def positions(size: int, count: int, scale: float | None, align_corners: bool) -> np.ndarray:
    """Where on an axis of `size` samples each of `count` new samples lies, as torch's interpolate counts."""
    new = np.arange(count)
    if align_corners:
        return new * ((size - 1) / (count - 1)) if count > 1 else np.zeros(count)
    step = 1 / scale if scale else size / count
    return (new + 0.5) * step - 0.5


def linear_matrix(size: int, count: int, scale: float | None, align_corners: bool) -> np.ndarray:
    """(count, size): linear interpolation between neighbours; beyond the ends the nearest sample."""
    matrix = np.zeros((count, size))
    for k, p in enumerate(np.maximum(positions(size, count, scale, align_corners), 0)):
        low = min(math.floor(p), size - 1)
        high, part = min(low + 1, size - 1), p - low
        matrix[k, low] += 1 - part
        matrix[k, high] += part
    return matrix


def _cubic(distance: float, a: float = -0.75) -> float:
    """The weight of Keys' cubic kernel at a distance in samples."""
    d = abs(distance)
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return (((d - 5) * d + 8) * d - 4) * a if d < 2 else 0.0


def cubic_matrix(size: int, count: int, scale: float | None, align_corners: bool) -> np.ndarray:
    """(count, size): cubic convolution (Keys 1981, a = -0.75 as in torch); the ends are repeated."""
    matrix = np.zeros((count, size))
    for k, p in enumerate(positions(size, count, scale, align_corners)):
        low = math.floor(p)
        for tap in range(low - 1, low + 3):
            matrix[k, min(max(tap, 0), size - 1)] += _cubic(p - tap)
    return matrix


def nearest_positions(size: int, count: int, scale: float | None) -> np.ndarray:
    """The sample each new sample copies."""
    step = 1 / scale if scale else size / count
    return np.minimum(np.floor(np.arange(count) * step).astype("int64"), size - 1)
