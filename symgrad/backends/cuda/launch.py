"""One kernel of a CUDA plan: its text, its parameters, and how many threads run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...base import poly
from ...graph.node import Node
from ...schedule.plan import Kernel
from .printer import CudaPrinter

MOST_BLOCKS = 4096      # of a grid whose threads take further points when these are not enough


@dataclass
class Launch:
    """A printed kernel: what it stores, and `work` points for threads in blocks of `block`.

    `blocks` says how many blocks there are where threads do not share out points. `flops` is counted where it is known.
    """

    printer: CudaPrinter
    stored: list[Node]
    work: Any
    block: int
    blocks: Any = None
    flops: Any = 0

    def kernel(self, name: str, what: str) -> CudaKernel:
        text = self.printer.kernel()
        return CudaKernel(name, text, self.printer.arguments, self.stored, what, self.flops, work=self.work, block=self.block, blocks=self.blocks)


@dataclass
class CudaKernel(Kernel):
    """A kernel with its threads. The conditions under which it runs are in its text: each launch reads them on the device."""

    work: Any = 1
    block: int = 256
    blocks: Any = None

    def grid(self, size_of: Any) -> int:
        """Blocks of a launch for sizes as `size_of(atom)` gives them; 0 where there is nothing to do."""
        if self.blocks is not None:
            return int(poly.largest(self.blocks, size_of))
        return min(-(-int(poly.largest(self.work, size_of)) // self.block), MOST_BLOCKS)

    @property
    def types(self) -> tuple[str, ...]:
        """The parameters: the dtype of what a pointer points to, `i64` for a size."""
        return tuple("i64" if kind == "size" else what.dtype for kind, what in self.arguments)

    @property
    def has_barriers(self) -> bool:
        """Whether threads of a block wait for each other or share memory."""
        return any(word in self.text for word in ("barrier(", "shuffle_", "shared_"))
