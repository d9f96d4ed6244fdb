"""Matrix products by cuBLAS: which contractions it can do, and how it is called.

The library is asked for by name and spoken to through ctypes, so that it needs no package of its own. It counts columns first: a
row-major C = A B is its C' = B' A'.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...base import poly
from ...base.config import config
from ...base.poly import Atom, Poly
from ...graph.node import Node, new_input
from ...graph.types import Type
from ...loops import ir
from ...loops.ir import E
from ...schedule.lower import Effect, Store, coefficient, flat_index, replace_part
from .contract import Contraction, Loops
from .launch import CudaKernel

LEAST = 64 ** 3         # products of numbers from which a call is worth it
FUNCTIONS = {"float32": ("cublasSgemmStridedBatched", ctypes.c_float), "float64": ("cublasDgemmStridedBatched", ctypes.c_double)}
PLAIN, TRANSPOSED = 0, 1
DEFAULT_MATH, TF32_MATH = 0, 3


@dataclass(frozen=True)
class Matrix:
    """Where a matrix lies in a buffer: the distance between its lines, along which it is contiguous, and between the matrices of a batch."""

    offset: int
    line: int
    batch: int
    transposed: bool                # its columns are the lines


@dataclass
class Product(CudaKernel):
    """A launch of cuBLAS: arguments are the buffers of A, B and C; `rows` x `depth` times `depth` x `columns`, `count` times."""

    rows: int = 0
    columns: int = 0
    depth: int = 0
    count: int = 1
    a: Matrix = Matrix(0, 0, 0, False)
    b: Matrix = Matrix(0, 0, 0, False)
    c: Matrix = Matrix(0, 0, 0, False)

    def grid(self, size_of: Any) -> int:
        return 1


@dataclass
class ProductLaunch:
    """Stands among the launches of a group."""

    product: Product

    def kernel(self, name: str, what: str) -> Product:
        self.product.name, self.product.what = name, what
        return self.product


def by_library(effects: Sequence[Effect], loops: Loops, c: Contraction) -> tuple[ProductLaunch, list[Effect]] | None:
    """The launch, and what is left to compute from its result; None where the library cannot do it."""
    operands = [_operand(x.value, x.loops, c.inner, c.batch) for x in (c.a, c.b)]
    size = c.a.size * c.b.size * c.depth * int(poly.product(n for _, n in c.batch))
    if any(m is None for m in operands) or len(c.inner) != 1 or size < LEAST:
        return None
    (a_buffer, a), (b_buffer, b) = operands  # type: ignore[misc]
    # B is read by columns of the result: its lines run along those, unless it is transposed
    b = Matrix(b.offset, b.line, b.batch, not b.transposed)
    target, matrix, rest = _target(effects, loops, c)
    text = f"# {c.sum.dtype} {c.a.size} x {c.depth} times {c.depth} x {c.b.size}, by cuBLAS\n"
    product = Product("", text, [("buffer", x) for x in (a_buffer, b_buffer, target)], [target], "", 2 * size, rows=c.a.size, columns=c.b.size,
                      depth=c.depth, count=int(poly.product(n for _, n in c.batch)), a=a, b=b, c=matrix)
    return ProductLaunch(product), rest


def _operand(value: E, own: Loops, inner: Loops, batch: Loops) -> tuple[Node, Matrix] | None:
    if value.kind != "load" or len(own) != 1 or len(inner) != 1 or len(batch) > 1 or value.dtype not in FUNCTIONS:
        return None
    found = _strides(value.args[1], [own[0][0], inner[0][0], *(a for a, _ in batch)])
    if found is None or 1 not in found[1][:2] or min(found[1]) < 0:
        return None
    offset, (row, along, *step) = found
    across = row if along == 1 else along
    least = inner[0][1] if along == 1 else own[0][1]
    return (value.args[0], Matrix(offset, across, step[0] if step else 0, along != 1)) if across >= least else None


def _strides(at: Any, loops: Sequence[Atom]) -> tuple[int, list[int]] | None:
    """(offset, distance per step of each loop) of a linear address."""
    steps = [coefficient(at, a) if isinstance(at, Poly) else 0 for a in loops]
    if not all(isinstance(s, int) for s in steps):
        return None
    rest = at
    for a, s in zip(loops, steps):
        rest = rest - Poly({(a,): 1}) * s
    return (rest, steps) if isinstance(rest, int) else None


def _target(effects: Sequence[Effect], loops: Loops, c: Contraction) -> tuple[Node, Matrix, list[Effect]]:
    """Where the product goes: to the one result it is, or to memory from which the effects are computed."""
    order = [*c.batch, *c.a.loops, *c.b.loops]
    places = flat_index([Poly({(a,): 1}) for a, _ in order], [n for _, n in order])
    whole = Matrix(0, c.b.size, c.a.size * c.b.size, False)
    if len(effects) == 1 and effects[0].value is c.sum and effects[0].at == places:
        return effects[0].node, whole, []
    buffer = new_input(Type(c.sum.dtype, tuple(n for _, n in order)), "a product")
    result = ir.load(buffer, places, buffer.dtype)
    return buffer, whole, [Store(e.node, e.at, replace_part(e.value, c.sum, result)) for e in effects]


# --------------------------------------------------------------------------------------------------- library
class Cublas:
    """cuBLAS on a stream. `library` is what `ctypes.CDLL` gives, or a stand-in."""

    def __init__(self, library: Any) -> None:
        self.library, self.handle = library, ctypes.c_void_p()
        self._checked("cublasCreate_v2", ctypes.byref(self.handle))

    def multiply(self, p: Product, a: int, b: int, c: int, stream: int) -> None:
        """C = A B on addresses. Raises RuntimeError with the status of the library."""
        dtype = p.arguments[2][1].dtype
        name, real = FUNCTIONS[dtype]
        width, long = ctypes.sizeof(real), ctypes.c_longlong
        place = lambda start, m: ctypes.c_void_p(start + width * m.offset)
        way = lambda m: TRANSPOSED if m.transposed else PLAIN
        self._checked("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))
        self._checked("cublasSetMathMode", self.handle, TF32_MATH if config.allow_tf32 else DEFAULT_MATH)
        self._checked(name, self.handle, way(p.b), way(p.a), p.columns, p.rows, p.depth, ctypes.byref(real(1)), place(b, p.b), p.b.line, long(p.b.batch),
                      place(a, p.a), p.a.line, long(p.a.batch), ctypes.byref(real(0)), place(c, p.c), p.c.line, long(p.c.batch), p.count)

    def _checked(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} answers with status {status}")


def find() -> Cublas | None:
    """The library, if this machine has it."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
        return Cublas(ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path))
    except Exception:                       # not installed, not loadable, not usable here: kernels of our own do it
        return None
