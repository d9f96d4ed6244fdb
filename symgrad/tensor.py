"""Arrays: inputs, constants and every op. NumPy's names for array ops, torch.nn.functional's names for neural ops.

`T.matmul`, `T.relu`, `T.conv2d` ... are values that `sg.on` selects nodes by; the op families in `symgrad.ops` document them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from .base.dtypes import dtype_name
from .base.errors import ShapeError, four_parts
from .base.origin import show, user_line
from .graph.node import Node, declared_dims, new_input
from .graph.types import Type
from .ops import FAMILIES, sugar
from .ops.arrange import *
from .ops.conv import *
from .ops.create import *
from .ops.elementwise import *
from .ops.images import *
from .ops.index import *
from .ops.linear import *
from .ops.neural import *
from .ops.partition import *
from .ops.pool import *
from .ops.reduce import *
from .ops.row import as_tensor, cast
from .ops.selection import *
from .ops.shape import *
from .ops.sort import *
from .ops.special import *

Variable = Node
def tensor(name: str | None = None, shape: Sequence[int | str | None] | None = (), dtype: Any = None) -> Node:
    """A new input. Sizes are ints (fixed), strings (equal names have equal sizes) or None (unknown); dtype defaults to floatX."""
    if name is not None and not isinstance(name, str):
        raise ShapeError(four_parts("T.tensor(name, shape, dtype)", f"{name!r} as the name", show(user_line()), 'T.tensor("x", (3, 4))'))
    sizes = (shape,) if isinstance(shape, (int, str)) else shape
    return new_input(Type(dtype_name(dtype), declared_dims(sizes, f"input {name or ''}".strip())), name)


def _of_rank(rank: int, word: str) -> Callable[..., Node]:
    def make(name: str | None = None, dtype: Any = None, shape: Sequence[int | str | None] | None = None) -> Node:
        sizes: tuple[Any, ...] = (None,) * rank if shape is None else tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if len(sizes) != rank:
            raise ShapeError(four_parts(f"a {word} has {rank} axes", f"shape {sizes}", show(user_line())))
        return tensor(name, sizes, dtype)
    make.__name__ = make.__qualname__ = word
    make.__doc__ = f"A new input with {rank} axes; sizes unknown unless given. See tensor."
    return make


scalar, vector, matrix = _of_rank(0, "scalar"), _of_rank(1, "vector"), _of_rank(2, "matrix")
tensor3, tensor4, tensor5 = _of_rank(3, "tensor3"), _of_rank(4, "tensor4"), _of_rank(5, "tensor5")


def constant(value: Any, dtype: Any = None) -> Node:
    """A constant. Python floats become floatX, arrays keep their dtype."""
    return as_tensor(value, dtype) if not isinstance(value, Node) else value


def _array_function(self: Node, function: Any, types: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """NumPy's functions on variables: `np.concatenate([x, y])` is `T.concatenate([x, y])`."""
    own = globals().get(function.__name__)
    return NotImplemented if own is None or function.__name__ not in __all__ else own(*args, **kwargs)


sugar.method("__array_function__", _array_function)
sugar.method("__array_namespace__", lambda self, api_version=None: sys.modules[__name__])

__all__ = ["Variable", "as_tensor", "cast", "constant", "matrix", "scalar", "tensor", "tensor3", "tensor4", "tensor5", "vector",
           *(name for family in FAMILIES for name in family.__all__)]
