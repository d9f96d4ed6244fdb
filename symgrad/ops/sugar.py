"""Installs the array operators and methods on nodes, in one place, so the graph layer needs to know no op."""

from __future__ import annotations

from typing import Any

from ..base.errors import SymgradError, four_parts
from ..base.origin import show, user_line
from ..graph.node import Node, Op, public_type
from ..graph.show import node_text
from . import arrange as a
from . import elementwise as e
from . import index as x
from . import partition as p
from . import reduce as r
from . import selection as c
from . import shape as s
from . import sort as o
from .row import ROWS, as_tensor, cast


def _row(name: str):
    return lambda *args, **kwargs: ROWS[name](*args, **kwargs)


def _swapped(function):
    return lambda a, b: function(b, a)


def _no_truth(self: Node) -> bool:
    raise SymgradError(four_parts("the truth value of a variable", f"{self._type}: its value is not known while the graph is built",
                                  show(user_line()), "T.where (elementwise), sg.ifelse (one branch runs), or `is` to compare variables"))


def _no_iteration(self: Node):
    if self.ndim and isinstance(self.dims[0], int):
        return iter([self[k] for k in range(self.dims[0])])
    raise SymgradError(four_parts("iteration over a variable", f"{self._type}: its length is not known", show(user_line()), "sg.scan"))


def _length(self: Node) -> int:
    if self.ndim and isinstance(self.dims[0], int):
        return self.dims[0]
    raise SymgradError(four_parts("len of a variable", f"{self._type}", show(user_line()), "x.shape[0]"))


def _array_ufunc(self: Node, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    row = getattr(e, ufunc.__name__, None) or ROWS.get(ufunc.__name__)
    if method != "__call__" or kwargs or row is None:
        return NotImplemented
    return row(*inputs)


_BINARY = {"add": e.add, "sub": e.subtract, "mul": e.multiply, "truediv": e.divide, "floordiv": e.floor_divide, "mod": e.remainder,
           "pow": e.power, "and": e.bitwise_and, "or": e.bitwise_or, "xor": e.bitwise_xor, "lshift": e.left_shift, "rshift": e.right_shift,
           "matmul": _row("matmul")}
_COMPARE = {"eq": e.equal, "ne": e.not_equal, "lt": e.less, "le": e.less_equal, "gt": e.greater, "ge": e.greater_equal}


def binary_method(row):
    def method(self, other):
        if other is None or isinstance(other, str):
            return NotImplemented
        return row(self, other)
    return method


def install() -> None:
    """Give nodes the operators and methods of arrays. Families add more with `method`."""
    for name, row in _BINARY.items():
        setattr(Node, f"__{name}__", binary_method(row))
        setattr(Node, f"__r{name}__", binary_method(_swapped(row)))
    for name, row in _COMPARE.items():
        setattr(Node, f"__{name}__", binary_method(row))
    more = {
        "__repr__": node_text,
        "__neg__": e.negative, "__pos__": lambda self: self, "__abs__": e.absolute, "__invert__": e.invert,
        "__bool__": _no_truth, "__iter__": _no_iteration, "__len__": _length, "__array_ufunc__": _array_ufunc,
        "shape": property(s.shape_tuple), "type": property(lambda self: public_type(self._type)),
        "T": property(lambda self: s.transpose(self)), "size": property(lambda self: _size(self)),
        "reshape": s.reshape, "transpose": s.transpose, "squeeze": s.squeeze, "astype": cast,
        "flatten": lambda self: s.reshape(self, -1), "ravel": lambda self: s.reshape(self, -1), "copy": lambda self: self,
        "dimshuffle": _dimshuffle, "sum": r.sum, "clip": e.clip,
        "__getitem__": x.getitem, "__setitem__": x.setitem, "prod": r.prod, "mean": r.mean, "var": r.var, "std": r.std,
        "max": r.max, "min": r.min, "argmax": r.argmax, "argmin": r.argmin, "any": r.any, "all": r.all, "ptp": r.ptp,
        "round": e.around, "norm": r.norm, "take": x.take, "sort": o.sort, "argsort": o.argsort,
        "cumsum": lambda self, *a, **k: o.cumsum(self, *a, **k),
        "cumprod": lambda self, *a, **k: o.cumprod(self, *a, **k),
        "nonzero": p.nonzero, "compress": lambda self, condition, axis=None: c.compress(condition, self, axis),
        "repeat": a.repeat, "swapaxes": s.swapaxes, "diagonal": s.diagonal, "trace": s.trace, "mT": property(s.matrix_transpose),
    }
    for name, value in more.items():
        method(name, value)


def _size(x: Node) -> Any:
    total: Any = 1
    for d in s.shape_tuple(x):
        total = total * d
    return total


def _dimshuffle(x: Node, *pattern: Any) -> Node:
    """Theano's dimshuffle: axes in a new order, "x" for a new axis of size 1; dropped axes must have size 1."""
    pattern = pattern[0] if len(pattern) == 1 and isinstance(pattern[0], (tuple, list)) else pattern
    keep = [p for p in pattern if p != "x"]
    dropped = tuple(k for k in range(x.ndim) if k not in keep)
    out = s.transpose(x, [*keep, *dropped]) if x.ndim else x
    out = s.squeeze(out, tuple(range(len(keep), x.ndim))) if dropped else out
    return s.expand_dims(out, tuple(k for k, p in enumerate(pattern) if p == "x")) if len(keep) < len(pattern) else out


def method(name: str, function: Any) -> None:
    """Add one more array method or property to nodes. Rows are values, so they are wrapped to bind `self`."""
    setattr(Node, name, (lambda self, *args, **kwargs: function(self, *args, **kwargs)) if isinstance(function, Op) else function)


__all__ = ["as_tensor", "install", "method"]
