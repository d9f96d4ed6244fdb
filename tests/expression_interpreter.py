"""Evaluates the scalar expressions of `loops.ir` one index at a time, in NumPy scalars: what `at` means, without a backend.

Loads check their bounds, so an `at` that could read outside fails here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from symgrad.base import poly
from symgrad.loops import ir
from symgrad.loops.ir import E, View


def _special(function: Callable[[float], float]) -> Callable[[Any], Any]:
    return lambda a: a.dtype.type(function(float(a)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "neg": np.negative, "abs": np.abs,
    "sign": np.sign, "floordiv": np.floor_divide, "mod": np.remainder, "fmod": np.fmod, "pow": np.power,
    "maximum": np.maximum, "minimum": np.minimum, "fmin": np.fmin, "fmax": np.fmax, "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "sqrt": np.sqrt,
    "cbrt": np.cbrt, "sin": np.sin, "cos": np.cos, "tan": np.tan, "arcsin": np.arcsin, "arccos": np.arccos,
    "arctan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "arcsinh": np.arcsinh, "arccosh": np.arccosh,
    "arctanh": np.arctanh, "arctan2": np.arctan2, "hypot": np.hypot, "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc, "rint": np.rint, "copysign": np.copysign, "nextafter": np.nextafter, "heaviside": np.heaviside,
    "logaddexp": np.logaddexp, "logaddexp2": np.logaddexp2, "erf": _special(math.erf), "erfc": _special(math.erfc),
    "sigmoid": lambda a: a.dtype.type(1) / (a.dtype.type(1) + np.exp(-a)),
    "softplus": lambda a: np.logaddexp(a, a.dtype.type(0)),
    "bitand": np.bitwise_and, "bitor": np.bitwise_or, "bitxor": np.bitwise_xor, "bitnot": np.invert, "shl": np.left_shift,
    "shr": np.right_shift, "gcd": np.gcd, "lcm": np.lcm, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "isnan": np.isnan, "isinf": np.isinf,
    "isfinite": np.isfinite, "signbit": np.signbit, "logand": np.logical_and, "logor": np.logical_or,
    "logxor": np.logical_xor, "lognot": np.logical_not,
}


def value(e: E, buffers: dict[Any, np.ndarray], where: dict[poly.Atom, int], sizes: dict[poly.Atom, int]) -> Any:
    """The value of an expression for given buffers, loop indices and sizes."""
    if e.kind == "lit":
        return e.args[0]
    if e.kind == "load":
        flat = size(e.args[1], buffers, where, sizes)
        if not 0 <= flat < buffers[e.args[0]].size:
            raise IndexError(f"load at {flat} of {buffers[e.args[0]].size} elements")
        return buffers[e.args[0]].ravel()[flat]
    if e.kind == "index":
        return np.int64(size(e.args[0], buffers, where, sizes))
    if e.kind == "cond":
        return value(e.args[1 if value(e.args[0], buffers, where, sizes) else 2], buffers, where, sizes)
    if e.kind == "fold":
        return _folded(e, buffers, where, sizes)
    name, *operands = e.args
    values = [value(a, buffers, where, sizes) for a in operands]
    if name == "where":
        return values[1] if values[0] else values[2]
    if name.startswith("cast_"):
        return values[0].astype(e.dtype)
    return np.asarray(FUNCTIONS[name](*values)).astype(e.dtype)[()]


def _folded(e: E, buffers, where, sizes) -> Any:
    operation, ks, body = e.args
    total = np.dtype(e.dtype).type(ir.IDENTITY[operation](e.dtype))
    names = [next(iter(k.terms))[0] for k in ks]
    extents = [size(a.extent, buffers, where, sizes) for a in names]
    for place in itertools.product(*(range(n) for n in extents)):
        term = value(body, buffers, {**where, **dict(zip(names, place))}, sizes)
        total = np.asarray(FUNCTIONS[operation](total, term)).astype(e.dtype)[()]
    return total


def size(p: Any, buffers, where, sizes) -> int:
    """The value of a polynomial."""
    if not isinstance(p, poly.Poly):
        return p

    def atom(a: poly.Atom) -> Any:
        if a.kind == "index":
            return where[a]
        if a.kind == "symbol":
            return sizes[a]
        return int(value(a.args[0], buffers, where, sizes)) if a.kind == "value" else None
    found = poly.substitute(p, atom)
    assert isinstance(found, int), found
    return found


def row_by_at(node: Any, arrays: Sequence[np.ndarray], sizes: dict[poly.Atom, int] | None = None) -> np.ndarray:
    """The result of one op from its `at` alone."""
    sizes = sizes or {}
    views = []
    for n, x in enumerate(node.inputs):
        def load(idx: tuple, n=n, x=x) -> E:
            assert len(idx) == len(x.dims), f"{node.op.name}: {len(idx)} indices for {x.dims}"
            flat: Any = 0
            for k, d in zip(idx, x.dims):
                flat = flat * d + k
            return ir.load(n, flat, x.dtype)
        views.append(View(x.dtype, x.dims, load))
    ks = tuple(poly.index(f"i{k}", d) for k, d in enumerate(node.dims))
    e = node.op.at(tuple(0 if d == 1 else k for k, d in zip(ks, node.dims)), *views, **node.attrs)
    assert e.dtype == node.dtype, f"{node.op.name}: at gives {e.dtype}, infer {node.dtype}"
    shape = [size(d, {}, {}, sizes) for d in node.dims]
    out = np.empty(shape, node.dtype)
    names = [next(iter(k.terms))[0] if isinstance(k, poly.Poly) else None for k in ks]
    buffers = {n: np.ascontiguousarray(a) for n, a in enumerate(arrays)}
    with np.errstate(all="ignore"):
        for place in np.ndindex(*shape):
            out[place] = value(e, buffers, {a: p for a, p in zip(names, place) if a is not None}, sizes)
    return out
