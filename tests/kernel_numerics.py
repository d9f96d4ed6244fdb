"""What tests of kernels share: values worth trying, distances in ulps, and a way to run scalar functions."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from symgrad.backends.cpu import scalars, toolchain

SPECIAL_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, np.inf, -np.inf, np.nan, 1e-5, -1e-5,
                  1.5, 2.5, -2.5)


def values(dtype: str, rng: np.random.Generator, count: int = 1500) -> np.ndarray:
    """Special values, extremes and random ones over the whole range of a dtype, mostly near the middle."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(count) < 0.5
    if kind.kind in "iu":
        lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
        special = [0, 1, 2, 3, 7, lowest, lowest + 1, highest, highest - 1] + ([-1, -2, -7] if lowest else [])
        wide = rng.integers(lowest, highest, count // 2, dtype, endpoint=True)
        small = rng.integers(-9 if lowest else 0, 10, count // 2).astype(dtype)
        return rng.permutation(np.concatenate([np.array(special, dtype), wide, small]))
    limits = np.finfo(dtype)
    extremes = [limits.max, -limits.max, limits.tiny, -limits.tiny, limits.smallest_subnormal,
                -limits.smallest_subnormal]
    decades = 37 if dtype == "float32" else 300
    random = [rng.normal(size=count), rng.normal(size=count) * 20, rng.uniform(-120, 120, count),
              1 + rng.normal(size=count) / 50,
              10.0 ** rng.uniform(-decades, decades, count) * rng.choice([-1, 1], count)]
    return rng.permutation(np.concatenate([np.array([*SPECIAL_FLOATS, *extremes], dtype),
                                           *(r.astype(dtype) for r in random)]))


def pairs(dtype: str, rng: np.random.Generator, count: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Operands for a function of two: independent values, and every special value with every other."""
    first, second = values(dtype, rng, count), values(dtype, rng, count)
    is_float = np.dtype(dtype).kind == "f"
    corner = np.unique(np.array(SPECIAL_FLOATS, dtype) if is_float else first[:: max(1, first.size // 40)])
    a, b = np.meshgrid(corner, corner)
    return np.concatenate([first, a.ravel()]), np.concatenate([second, b.ravel()])


def ulps_apart(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The distance of each result from the exact value, in units of the last place of the result's dtype.

    `exact` is wider than `got`. Infinite where one is NaN and the other is not, or where a zero has the wrong
    sign while the rounded exact value is a zero too.
    """
    with np.errstate(all="ignore"):
        nearest = exact.astype(got.dtype)
        unit = np.spacing(np.minimum(np.abs(nearest), np.finfo(got.dtype).max)).astype(exact.dtype)
        apart = np.abs(got.astype(exact.dtype) - exact) / unit
    agree = (got == nearest) | (np.isnan(got) & np.isnan(nearest))
    apart = np.where(agree, 0, np.where(np.isnan(apart), np.inf, apart))
    return np.where((got == 0) & (nearest == 0) & (np.signbit(got) != np.signbit(nearest)), np.inf, apart)


def call(address: int, table: Sequence[np.ndarray | int]) -> None:
    """Call a kernel on an argument table of arrays and sizes."""
    words = np.array([x if isinstance(x, int) else x.ctypes.data for x in table], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(words.ctypes.data)


def run_scalars(names: Sequence[str], *operands: np.ndarray) -> dict[str, np.ndarray]:
    """Each scalar function applied to as many of the operands as it takes, all compiled as one kernel."""
    table: list = [operands[0].size]
    lines = ["def kernel(args):", "    n0 = size(args, 0)"]
    bound: dict[tuple[int, str], str] = {}
    loops, results = [], {}

    def pointer(dtype: str, array: np.ndarray) -> str:
        table.append(np.ascontiguousarray(array, dtype))
        lines.append(f"    p{len(table) - 1} = ptr_{dtype}(args, {len(table) - 1})")
        return f"p{len(table) - 1}"

    for name in names:
        function = scalars.scalar(name)
        assert function is not None, name
        arguments = []
        for k, dtype in enumerate(function.arguments):
            if (k, dtype) not in bound:
                bound[k, dtype] = pointer(dtype, operands[k])
            arguments.append(f"{bound[k, dtype]}[i0]")
        results[name] = np.empty(operands[0].size, function.result)
        out = pointer(function.result, results[name])
        results[name] = table[-1]
        loops += ["    for i0 in range(n0):", f"        {out}[i0] = {name}({', '.join(arguments)})"]
    call(toolchain.compile_text("\n".join([*lines, *loops]) + "\n", "scalars").address, table)
    return results
