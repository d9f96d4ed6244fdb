"""A plan: kernels in order, the buffers they read and write, and which of those are whose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base import poly
from ..base.dtypes import itemsize
from ..graph.node import CONSTANT, INPUT, SHARED, Node
from .memory import ALIGNMENT, Lifetime, place


@dataclass(frozen=True)
class Scratch:
    """A private buffer of one kernel; `common` to the threads that share it, or one for each."""

    name: str
    dtype: str
    elements: Any
    common: bool = False

    def nbytes(self, size_of: Any) -> int:
        return itemsize(self.dtype) * poly.largest(self.elements, size_of)


@dataclass(frozen=True)
class Access:
    """What the text of a kernel does to a buffer: "load" or "store" of the element `at`, or "any", which says nothing."""

    kind: str
    buffer: Node
    at: Any = None


@dataclass(frozen=True)
class Sharing:
    """How threads may share the work of a kernel: numbered parts in each stage, done in any order and by anyone.

    The last three arguments of such a kernel say which parts: stage, first part, last part + 1. What it computes does
    not depend on how they are cut. A stage is cut into about `pieces` times the number of threads; 1 where every call has
    to prepare something. `work` is estimated, in picoseconds of one thread.
    """

    stages: tuple[Any, ...]
    pieces: int = 4
    work: Any = 0


PARTS = (("parts", "stage"), ("parts", "part0"), ("parts", "part1"))


@dataclass
class Kernel:
    """One kernel of a plan: its text, its arguments by slot, what it computes. `accesses`: in the order in which they are made."""

    name: str
    text: str
    arguments: list[tuple[str, Any]]        # ("buffer", node) | ("scratch", Scratch) | ("size", atom); PARTS at the end if shared
    stored: list[Node]
    what: str
    flops: Any = 0
    guard: tuple[tuple[Node, bool], ...] = ()   # conditions, outermost first, under which it runs
    accesses: Sequence[Access] = ()
    nodes: Sequence[Node] = ()              # whose values it computes
    text_for: Callable[[Mapping[Node, Node]], str] = lambda taken: ""       # the text, when it is known what lies in whose memory
    sharing: Sharing | None = None

    @property
    def buffers(self) -> list[Node]:
        return [what for kind, what in self.arguments if kind == "buffer"]

    def moved_bytes(self) -> Any:
        return sum_of(b._type.nbytes for b in self.buffers)


@dataclass(frozen=True)
class Row:
    """Where step t of a loop finds a buffer: `offset + t * stride` elements into memory outside, a buffer or a scratch."""

    inner: Node
    memory: Any
    offset: Any
    stride: Any


@dataclass(frozen=True)
class Move:
    """`elements` of `dtype` copied from (memory, offset in elements) to another such place; they may overlap."""

    target: tuple[Any, Any]
    source: tuple[Any, Any]
    elements: Any
    dtype: str


@dataclass(frozen=True)
class Inside(Scratch):
    """The memory of what a loop computes within a step."""

    loop: Any = field(compare=False, repr=False, default=None)

    def nbytes(self, size_of: Any) -> int:
        return self.loop.plan.arena(self.loop.sizes(size_of))[1] + ALIGNMENT


@dataclass
class Loop:
    """A plan run n times, with buffers that move on at every step. It stands among kernels, and is asked what they are asked."""

    name: str
    node: Node
    plan: Plan
    stored: list[Node]
    rows: list[Row]
    before: list[Move]                      # before the first step
    between: list[Move]                     # at the end of every step
    after: list[Move]                       # after the last step
    scratch: list[Scratch]
    stop: Scratch | None = None             # holds whether the last step was the last
    steps: Node | None = None               # receives the number of steps taken
    guard: tuple[tuple[Node, bool], ...] = ()
    accesses: Sequence[Access] = ()
    nodes: Sequence[Node] = ()

    @property
    def what(self) -> str:
        return f"scan({', '.join(k.what for k in self.plan.kernels)})"

    @property
    def text(self) -> str:
        return "\n".join(k.text for k in self.plan.kernels)

    @property
    def arguments(self) -> list[tuple[str, Any]]:
        """The memory outside that it uses, and its own."""
        used = [r.memory for r in self.rows] + [place[0] for m in (*self.before, *self.between, *self.after) for place in (m.target, m.source)]
        buffers = dict.fromkeys([*(m for m in used if isinstance(m, Node)), *self.stored])
        return [*(("buffer", b) for b in buffers), *(("scratch", s) for s in self.scratch)]

    @property
    def buffers(self) -> list[Node]:
        return [what for kind, what in self.arguments if kind == "buffer"]

    @property
    def flops(self) -> Any:
        return 0

    def moved_bytes(self) -> Any:
        return sum_of(b._type.nbytes for b in self.buffers)

    @property
    def given(self) -> dict[Any, Any]:
        """What the size symbols inside stand for outside."""
        return self.node.op.given(self.node.attrs["sizes"])

    def sizes(self, size_of: Any) -> Any:
        """Sizes inside, from sizes outside; of those that are counted, the bounds."""
        given = {a: poly.largest(size, size_of) for a, size in self.given.items()}
        return lambda a: given[a] if a in given else size_of(a)


@dataclass
class Plan:
    """Kernels and loops in running order, each with the conditions under which it runs.

    taken: stored values that lie in the memory of another buffer, over which they are written: a value that nobody needs any
    more, or the shared variable they replace.
    """

    inputs: list[Node]
    outputs: list[Node]
    kernels: list[Any] = field(default_factory=list)
    taken: dict[Node, Node] = field(default_factory=dict)

    def flat(self) -> list[Kernel]:
        """All kernels, those inside loops included."""
        return [k for item in self.kernels for k in (item.plan.flat() if isinstance(item, Loop) else [item])]

    def temporaries(self) -> list[Node]:
        """Stored values that are not outputs, in order of first use."""
        outs = set(self.outputs)
        return [n for k in self.kernels for n in k.stored if n not in outs]

    def leaves(self, op: Any) -> list[Node]:
        found: dict[Node, None] = {}
        for k in self.kernels:
            found.update((b, None) for b in k.buffers if b.op is op)
        return list(found)

    @property
    def constants(self) -> list[Node]:
        return self.leaves(CONSTANT)

    @property
    def shared(self) -> list[Node]:
        """Shared variables that are read or written."""
        return list({**dict.fromkeys(self.leaves(SHARED)), **dict.fromkeys(b for b in self.taken.values() if b.op is SHARED)})

    @property
    def used_inputs(self) -> list[Node]:
        return self.leaves(INPUT)

    def memory_of(self, buffer: Any) -> Any:
        """The buffer whose memory a buffer lies in: its own, or of the first of those it was written over."""
        while buffer in self.taken:
            buffer = self.taken[buffer]
        return buffer

    def last_uses(self) -> dict[Any, int]:
        """The last kernel that needs each buffer. Conditions are kept for after the call: they tell which kernels ran."""
        last = {b: k for k, kernel in enumerate(self.kernels) for b in kernel.buffers}
        last.update((test, len(self.kernels)) for kernel in self.kernels for test, _ in kernel.guard)
        return last

    def lifetimes(self, size_of: Any, shared: bool = True) -> list[Lifetime]:
        """When each piece of memory is needed, for temporaries and scratch; for sizes as `size_of(atom)` gives them.

        shared=False: as if nothing were written in place.
        """
        mine, last = set(self.temporaries()), self.last_uses()
        alive: dict[Any, Lifetime] = {}
        for k, kernel in enumerate(self.kernels):
            for kind, what in kernel.arguments:
                if kind == "scratch":
                    alive[k, what] = Lifetime((k, what), what.nbytes(size_of), k, k)
                elif kind == "buffer" and what in mine:
                    memory = self.memory_of(what) if shared else what
                    first = alive[memory].first if memory in alive else k
                    alive[memory] = Lifetime(memory, itemsize(what.dtype) * what._type.most_elements(size_of), first, last[what])
        return list(alive.values())

    def arena(self, size_of: Any) -> tuple[dict[Any, int], int]:
        """Byte offsets of temporaries and scratch, and the bytes in all, for sizes as `size_of(atom)` gives them."""
        offsets, nbytes = place(self.lifetimes(size_of))
        offsets.update((b, offsets[memory]) for b in self.taken if (memory := self.memory_of(b)) in offsets)
        return offsets, nbytes


def sum_of(terms: Any) -> Any:
    total: Any = 0
    for t in terms:
        total = total + t
    return total


def summary(nodes: Sequence[Node]) -> str:
    """`conv2d+add+relu`: the ops of a kernel, in order, repeated ones counted; `again` where a checkpoint computes anew."""
    counts: dict[str, int] = {}
    for n in nodes:
        name = f"{n.op.name} again" if any(x.op.name == "again" for x in n.inputs) else n.op.name
        counts[name] = counts.get(name, 0) + 1
    return "+".join(name if c == 1 else f"{name}*{c}" for name, c in counts.items())
