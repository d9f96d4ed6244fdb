"""`check="nan"` and `check="reference"`: run with every intermediate value looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends.reference import Reference
from ..base import dtypes
from ..base.errors import BackendError, NanError, SymgradError, four_parts
from ..base.origin import show, user_line
from ..graph.inline import inline_blocks
from ..graph.node import Node
from ..ops.expected import expected


def checked(check: str | None, executable: Any, inputs: Sequence[Node], outputs: Sequence[Node]) -> Any:
    """The executable, wrapped in what `check` asks for."""
    if check is None:
        return executable
    if check not in ("nan", "reference"):
        raise SymgradError(four_parts(f"check={check!r}", "it is None, 'nan' or 'reference'", show(user_line())))
    reference = Reference(inputs, inline_blocks(outputs))
    return NanCheck(executable, reference) if check == "nan" else ReferenceCheck(executable, reference)


class _Check:
    fast = None         # the native entry looks at nothing

    def __init__(self, executable: Any, reference: Reference):
        self.executable, self.reference = executable, reference

    def __getattr__(self, name: str) -> Any:
        return getattr(self.executable, name)


class NanCheck(_Check):
    """Raises at the first op that turns finite inputs into NaN or Inf, or whose operand is not what a distribution expects."""

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        self.reference(arrays, watch=_look_at)
        return self.executable(arrays)


def _look_at(node: Node, value: Any) -> None:
    _raise_on_nan(node, value)
    refused = expected.refusal(value, **node.attrs) if node.op is expected else None
    if refused is not None:
        raise NanError(four_parts(refused[0], [refused[1], f"in {node.inputs[0]._type}, made at {node.inputs[0].where}"],
                                  f"asked for at {node.where}", refused[2]))


def _raise_on_nan(node: Node, value: Any) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or np.isfinite(value).all():
        return
    index = tuple(int(k) for k in np.argwhere(~np.isfinite(value))[0])
    operands = [f"operand {x.name or x.op.name}: {x._type}, made at {x.where}" for x in node.inputs]
    raise NanError(four_parts(f"finite values from {node.op.name}", [f"{value[index]} at index {index} of {value.shape}, "
                              f"{(~np.isfinite(value)).sum()} in all", *operands], f"{node.op.name} made at {node.where}",
                              "look at the operands with .eval, or clip them (T.maximum(x, eps) before log and division)"))


class ReferenceCheck(_Check):
    """Raises where the compiled result differs from the op-by-op one, at the first op that differs."""

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        got, want = self.executable(arrays), self.reference(arrays)
        for k, (a, b) in enumerate(zip(got, want)):
            if not close(a, b):
                raise self._blame(arrays, k, a, b)
        return got

    def _blame(self, arrays: list[np.ndarray], k: int, got: np.ndarray, want: np.ndarray) -> BackendError:
        """Compile ever later prefixes of the graph until one differs."""
        from . import pipeline

        nodes = [n for n in self.reference.nodes if n.deps and hasattr(n._type, "dims")]
        culprit = self.reference.outputs[k]
        for node in nodes:
            try:
                one = pipeline.compile_graph(self.reference.inputs, [node], self.executable.backend)(arrays)[0]
            except SymgradError:
                continue
            if not close(one, Reference(self.reference.inputs, [node])(arrays)[0]):
                culprit = node
                break
        error = np.abs(got.astype("f8") - want.astype("f8")).max() if got.shape == want.shape and got.size else "shape"
        return BackendError(four_parts(f"output {k} equal to the reference", f"largest difference {error}",
                                       f"first at {culprit.op.name}, made at {culprit.where}",
                                       "report this with f.source()"))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal up to the rounding of float sums."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    tolerance = 500 * dtypes.TOLERANCE[a.dtype.name]
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
