"""Evaluates the scalar expressions of `loops.ir` on NumPy buffers, one element at a time.

The slow and obvious meaning of `at`: tests compare it with a row's NumPy spelling. A load outside its buffer is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from symgrad.base import poly
from symgrad.loops import ir
from symgrad.loops.ir import E, View
from symgrad.ops.elementwise import digamma, trigamma

_FOLDS = {"add": np.add, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum, "logor": np.logical_or,
          "logand": np.logical_and}


def _gamma_row(row):
    return lambda x: row.numpy(np.asarray(x).reshape(1))[0]


_CALLS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "neg": np.negative, "abs": np.abs, "sign": np.sign,
    "floordiv": np.floor_divide, "mod": np.remainder, "fmod": np.fmod, "pow": np.power, "minimum": np.minimum, "maximum": np.maximum,
    "fmin": np.fmin, "fmax": np.fmax, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log10": np.log10, "log1p": np.log1p, "sqrt": np.sqrt, "cbrt": np.cbrt, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "arcsin": np.arcsin, "arccos": np.arccos, "arctan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "arcsinh": np.arcsinh, "arccosh": np.arccosh, "arctanh": np.arctanh, "arctan2": np.arctan2, "hypot": np.hypot,
    "logaddexp": np.logaddexp, "logaddexp2": np.logaddexp2, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint,
    "copysign": np.copysign, "nextafter": np.nextafter, "heaviside": np.heaviside, "bitand": np.bitwise_and, "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor, "bitnot": np.invert, "shl": np.left_shift, "shr": np.right_shift, "gcd": np.gcd, "lcm": np.lcm,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "signbit": np.signbit, "logand": np.logical_and,
    "logor": np.logical_or, "logxor": np.logical_xor, "lognot": np.logical_not, "where": np.where,
    "erf": lambda x: x.dtype.type(math.erf(x)), "erfc": lambda x: x.dtype.type(math.erfc(x)),
    "gammaln": lambda x: x.dtype.type(math.lgamma(x)), "digamma": _gamma_row(digamma), "trigamma": _gamma_row(trigamma),
    "sigmoid": lambda x: np.exp(-np.logaddexp(x.dtype.type(0), -x)), "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
    "fma": lambda a, b, c: a * b + c,
}


class Interpreter:
    """Values of expressions under an assignment of the loop indices and of the unknown sizes."""

    def __init__(self, sizes: dict[str, int] | None = None):
        self.sizes = sizes or {}
        self.indices: dict[poly.Atom, int] = {}
        self.memo: dict[int, Any] = {}

    def number(self, value: Any) -> int:
        """An index polynomial as an int."""
        if isinstance(value, int):
            return value
        total = 0
        for mono, c in value.terms.items():
            for a in mono:
                c *= self.atom(a)
            total += c
        return total

    def atom(self, a: poly.Atom) -> int:
        if a.kind == "index":
            return self.indices[a]
        if a.kind == "symbol":
            return self.sizes[a.args[0]]
        if a.kind == "value":
            return int(self.value(a.args[0]))
        left, right = map(self.number, a.args)
        if a.kind in ("floordiv", "mod"):
            return left // right if a.kind == "floordiv" else left % right
        return max(left, right) if a.kind == "max" else min(left, right)

    def value(self, e: E) -> Any:
        if e.serial not in self.memo:
            with np.errstate(all="ignore"):
                result = getattr(self, e.kind)(*e.args)
            self.memo[e.serial] = np.dtype(e.dtype).type(result)
        return self.memo[e.serial]

    def lit(self, value: Any) -> Any:
        return value

    def load(self, buffer: np.ndarray, flat: Any) -> Any:
        place = self.number(flat)
        if not 0 <= place < buffer.array.size:
            raise AssertionError(f"a load at {place} of a buffer of {buffer.array.size}")
        return buffer.array.flat[place]

    def index(self, value: Any) -> int:
        return self.number(value)

    def call(self, name: str, *operands: E) -> Any:
        values = [self.value(x) for x in operands]
        if name.startswith("cast_"):
            return np.asarray(values[0]).astype(name.rsplit("_", 1)[1])[()]
        return _CALLS[name](*values)

    def cond(self, test: E, a: E, b: E) -> Any:
        return self.value(a if self.value(test) else b)

    def fold(self, operation: str, ks: tuple, body: E) -> Any:
        total = np.dtype(body.dtype).type(ir.IDENTITY[operation](body.dtype))
        before = self.memo
        for point in np.ndindex(*(self.number(atom_of(k).extent) for k in ks)):
            self.indices.update(zip(map(atom_of, ks), point))
            self.memo = {}
            total = np.dtype(body.dtype).type(_FOLDS[operation](total, self.value(body)))
        self.memo = before
        return total


def atom_of(index: poly.Poly) -> poly.Atom:
    return next(iter(index.terms))[0]


class Buffer:
    """An array under an identity, as the interned expressions need."""

    def __init__(self, array: np.ndarray):
        self.array = np.ascontiguousarray(array)


def view(array: np.ndarray, dims: Sequence[Any]) -> View:
    """An operand of `at`, whose sizes may be polynomials. An index outside the sizes that are numbers is an error."""
    buffer = Buffer(array)

    def get(idx: tuple) -> E:
        assert len(idx) == len(dims), f"{len(idx)} indices for {len(dims)} axes"
        flat: Any = 0
        for i, d in zip(idx, dims):
            flat = flat * d + i
        return ir.load(buffer, flat, array.dtype.name)
    return View(array.dtype.name, dims, get)


def run_at(row: Any, type_: Any, arrays: Sequence[np.ndarray], dims: Sequence[Sequence[Any]] | None = None, sizes: dict[str, int] | None = None,
           **attrs: Any) -> np.ndarray:
    """The array that row.at describes. `dims` may hold polynomials over `sizes`."""
    interpreter = Interpreter(sizes)
    views = [view(a, d) for a, d in zip(arrays, dims or [a.shape for a in arrays])]
    ks = [poly.index(f"i{k}", d) for k, d in enumerate(type_.dims)]
    e = row.at(tuple(ks), *views, **attrs)
    assert e.dtype == type_.dtype, f"{row.name}: at gives {e.dtype}, infer {type_.dtype}"
    out = np.zeros([interpreter.number(d) for d in type_.dims], dtype=type_.dtype)
    for point in np.ndindex(*out.shape):
        interpreter.indices = {atom_of(k): p for k, p in zip(ks, point) if isinstance(k, poly.Poly)}
        interpreter.memo = {}
        out[point] = interpreter.value(e)
    ir.forget()
    return out
