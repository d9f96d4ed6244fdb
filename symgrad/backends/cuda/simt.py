"""Runs a kernel text with all its threads in lockstep, as NumPy arrays over threads, and refuses what a GPU would get wrong silently.

Found are: accesses out of bounds; two threads that touch an element, one of them writing, with no barrier of their block between
(of different blocks: none would help); shared memory read before it is written; barriers and shuffles that some threads of a
block or warp do not reach; indices that do not fit the width they are computed in. Wrong code is found in the order it runs, with
the line of the text. Conditions are masks, so divergent threads take turns.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from .. import plain
from .device import Memory

WARP = 32
AT_ONCE = 1 << 16       # threads that run together; blocks beyond that follow
NOBODY, MANY = -1, -2
OPERATORS: dict[type, Callable] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Lt: operator.lt,
    ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne}
# functions that decide by value: NumPy has them one element at a time
ONE_BY_ONE = {"sigmoid", "erf", "erfc", "gammaln", "digamma", "trigamma", "pow"}


class KernelFault(RuntimeError):
    """What a kernel did that no kernel may do."""


class Elements:
    """Memory as threads see it, with who touched each element: `private` is the number of threads that have a copy of their own."""

    def __init__(self, array: np.ndarray, name: str, copies: int = 1, is_shared: bool = False, is_written: bool = True) -> None:
        self.array, self.name, self.is_shared, self.is_written = array, name, is_shared, is_written
        self.size = len(array) // copies
        if not is_written:
            return
        self.writer, self.reader = (np.full(len(array), NOBODY, np.int32) for _ in range(2))
        self.write_epoch, self.read_epoch = (np.zeros(len(array), np.int32) for _ in range(2))
        self.reading_block = np.full(len(array), NOBODY, np.int32)


def run(text: str, names: Sequence[Memory | int], blocks: int, threads: int) -> None:
    """Run a kernel on memory of this process and sizes. Raises KernelFault."""
    function = _parsed(text)
    parameters = [a.arg for a in function.args.args]
    memory = {name: Elements(_array(what), name, is_written=name in _written(text)) if isinstance(what, Memory) else what
              for name, what in zip(parameters, names)}
    step = max(AT_ONCE // threads, 1)
    with np.errstate(all="ignore"):
        for first in range(0, blocks, step):
            _Threads(memory, range(first, min(first + step, blocks)), blocks, threads).execute(function.body)


def _array(memory: Memory) -> np.ndarray:
    import ctypes
    raw = (ctypes.c_char * memory.nbytes).from_address(memory.address)
    return np.frombuffer(raw, memory.dtype) if memory.nbytes else np.empty(0, memory.dtype)


@cache
def _parsed(text: str) -> ast.FunctionDef:
    function = ast.parse(text).body[-1]
    assert isinstance(function, ast.FunctionDef)
    return function


@cache
def _scalar(name: str) -> Callable:
    """A scalar function over arrays of operands."""
    base, _, dtype = name.rpartition("_")
    found = plain.scalar(name)
    if found is None:
        raise NameError(f"kernel text has no function {name!r}")
    if base == "where":
        return np.where
    if base in ONE_BY_ONE and not (base == "pow" and dtype.startswith("float")):
        return lambda *operands: _one_by_one(found, operands, dtype)
    function = plain.FUNCTIONS.get(base)
    if function is None:
        return found
    result = "bool" if base in plain.PREDICATES else dtype
    return lambda *operands: np.asarray(function(*operands)).astype(result, copy=False)[()]


def _one_by_one(function: Callable, operands: Sequence[Any], dtype: str) -> np.ndarray:
    arrays = np.broadcast_arrays(*operands)
    return np.array([function(*x) for x in zip(*(a.flat for a in arrays))], dtype).reshape(arrays[0].shape)


@cache
def _written(text: str) -> frozenset[str]:
    """The names of the memory that a kernel stores to."""
    targets = [node.targets[0] for node in ast.walk(_parsed(text)) if isinstance(node, ast.Assign)]
    return frozenset(target.value.id for target in targets if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name))


class _Threads:
    """Some blocks of a launch. `mask` has the threads that execute the present statement."""

    def __init__(self, memory: dict[str, Any], blocks: range, block_count: int, threads: int) -> None:
        self.values: dict[str, Any] = dict(memory)
        self.count, self.threads, self.block_count, self.here = len(blocks) * threads, threads, block_count, blocks
        self.lane = np.tile(np.arange(threads), len(blocks))
        self.block = np.repeat(np.arange(blocks.start, blocks.stop), threads)
        self.place = np.arange(self.count)
        self.thread = (self.block * threads + self.lane).astype(np.int32)
        self.mask = np.ones(self.count, bool)
        self.everyone = True
        self.epoch, self.line = 1, 0
        self.arrays: dict[int, Elements] = {}

    # ---- statements
    def execute(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self.line = statement.lineno
            getattr(self, f"_{type(statement).__name__.lower()}")(statement)

    def _pass(self, node: ast.Pass) -> None:
        """Nothing."""

    def _expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if isinstance(target, ast.Subscript):
            self.store(self.value(target.value), self.value(target.slice), self.value(node.value))
        elif isinstance(target, ast.Tuple):
            for part, value in zip(target.elts, self.value(node.value)):
                self.bind(part.id, value)                               # type: ignore[attr-defined]
        else:
            self.bind(target.id, self.value(node.value))                # type: ignore[attr-defined]

    def bind(self, name: str, value: Any) -> None:
        old = self.values.get(name)
        if self.everyone or old is None or isinstance(value, Elements):
            self.values[name] = value
        else:
            self.values[name] = np.where(self.mask, value, old)

    def _if(self, node: ast.If) -> None:
        test = self.value(node.test)
        for chosen, body in ((test, node.body), (np.logical_not(test), node.orelse)):
            if body:
                self.under(chosen, body)

    def under(self, condition: Any, body: Sequence[ast.stmt]) -> bool:
        """Execute the body in the threads where the condition holds; whether there were any."""
        outer = self.mask, self.everyone
        self.mask = self.mask & condition
        self.everyone = bool(self.mask.all())
        active = bool(self.mask.any())
        if active:
            self.execute(body)
        self.mask, self.everyone = outer
        return active

    def _while(self, node: ast.While) -> None:
        outer = self.mask, self.everyone
        while True:
            self.mask = self.mask & self.value(node.test)
            self.everyone = bool(self.mask.all())
            if not self.mask.any():
                break
            self.execute(node.body)
        self.mask, self.everyone = outer

    def _for(self, node: ast.For) -> None:
        assert isinstance(node.iter, ast.Call) and isinstance(node.target, ast.Name)
        bounds = [self.value(a) for a in node.iter.args]
        start, stop, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
        if all(np.ndim(b) == 0 for b in (start, stop, step)):
            for k in range(int(start), int(stop), int(step)):
                self.bind(node.target.id, k)
                self.execute(node.body)
            return
        outer, k = (self.mask, self.everyone), np.array(np.broadcast_to(start, self.count))
        while True:
            self.mask = self.mask & (k < stop)
            self.everyone = bool(self.mask.all())
            if not self.mask.any():
                break
            self.bind(node.target.id, k.copy())
            self.execute(node.body)
            k = np.where(self.mask, k + step, k)
        self.mask, self.everyone = outer

    # ---- expressions
    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.values[node.id]
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))
        if isinstance(node, ast.Compare):
            return OPERATORS[type(node.ops[0])](self.value(node.left), self.value(node.comparators[0]))
        if isinstance(node, ast.UnaryOp):
            operand = self.value(node.operand)
            return np.logical_not(operand) if isinstance(node.op, ast.Not) else -operand
        if isinstance(node, ast.BoolOp):
            return (np.logical_and if isinstance(node.op, ast.And) else np.logical_or).reduce([self.value(v) for v in node.values])
        if isinstance(node, ast.Subscript):
            return self.load(self.value(node.value), self.value(node.slice))
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name), ast.dump(node)
        return self.call(node, node.func.id, [self.value(a) for a in node.args])

    def call(self, node: ast.Call, word: str, operands: list[Any]) -> Any:
        base, _, dtype = word.rpartition("_")
        if hasattr(self, f"word_{word}"):
            return getattr(self, f"word_{word}")(*operands)
        if base in ("shuffle_down", "shuffle_up", "shuffle_xor"):
            return self.shuffle(base, *operands)
        if base == "load4":
            return self.load4(*operands)
        if base in ("shared", "local"):
            return self.allocate(id(node), base, dtype, *operands)
        return _scalar(word)(*operands)

    def word_first_thread(self) -> Any: return self.block * self.threads + self.lane
    def word_thread_count(self) -> int: return self.block_count * self.threads
    def word_lane(self) -> Any: return self.lane
    def word_block(self) -> Any: return self.block
    def word_block_size(self) -> int: return self.threads
    def word_block_count(self) -> int: return self.block_count
    def word_truth(self, x: Any) -> Any: return x != 0
    def word_byte(self, x: Any) -> Any: return np.asarray(x).astype(np.uint8)
    def word_min(self, a: Any, b: Any) -> Any: return np.minimum(a, b)
    def word_max(self, a: Any, b: Any) -> Any: return np.maximum(a, b)
    def word_i64(self, x: Any) -> Any: return np.asarray(x).astype(np.int64)[()]

    def word_i32(self, x: Any) -> Any:
        self.refuse((np.asarray(x) < -2 ** 31) | (np.asarray(x) >= 2 ** 31), lambda k: "computes an index that does not fit 32 bits")
        return np.asarray(x).astype(np.int64)[()]

    def word_quotient(self, a: Any, b: Any) -> Any:
        self._never_negative(a)
        return np.asarray(a) // b

    def word_remainder(self, a: Any, b: Any) -> Any:
        self._never_negative(a)
        return np.asarray(a) % b

    def _never_negative(self, a: Any) -> None:
        self.refuse(np.asarray(a) < 0, lambda k: "divides a negative index as if it were not")

    def word_floor_quotient(self, a: Any, b: Any) -> Any: return np.asarray(a) // np.maximum(b, 1)
    def word_floor_remainder(self, a: Any, b: Any) -> Any: return np.asarray(a) % np.maximum(b, 1)

    # ---- threads that meet
    def word_barrier(self) -> None:
        self._all_or_none(self.threads, "a barrier", "block")
        self.epoch += 1

    def shuffle(self, mode: str, value: Any, distance: int) -> Any:
        self._all_or_none(WARP, "a shuffle", "warp")
        lane = self.lane % WARP
        other = {"shuffle_down": lane + distance, "shuffle_up": lane - distance, "shuffle_xor": lane ^ distance}[mode]
        source = np.where((other >= 0) & (other < WARP), self.place + other - lane, self.place)
        return np.broadcast_to(value, self.count)[source]

    def _all_or_none(self, group: int, what: str, of: str) -> None:
        if not self.everyone:
            present = self.mask.reshape(-1, group)
            self.refuse((present.any(1) & ~present.all(1)).repeat(group), lambda k: f"reaches {what} that other threads of its {of} do not reach")

    # ---- memory
    def allocate(self, site: int, space: str, dtype: str, count: int) -> Elements:
        if site not in self.arrays:
            copies = len(self.here) if space == "shared" else self.count
            array = np.zeros(copies * count, dtype)
            if array.dtype.kind == "f":
                array[...] = np.nan
            self.arrays[site] = Elements(array, space, copies, space == "shared")
        return self.arrays[site]

    def places(self, elements: Elements, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """(positions in the array, threads) of those that are active."""
        index = np.broadcast_to(index, self.count)
        self.refuse((index < 0) | (index >= elements.size), lambda k: f"uses {elements.name}[{index[k]}] of {elements.size} elements")
        active = self.place if self.everyone else np.flatnonzero(self.mask)
        own = 0 if elements.name not in ("shared", "local") else self.block[active] - self.here.start if elements.is_shared else active
        return index[active] + own * elements.size, active

    def load(self, elements: Elements, index: Any) -> np.ndarray:
        at, active = self.places(elements, index)
        result = np.zeros(self.count, elements.array.dtype)
        result[active] = elements.array[at]
        if elements.name == "local" or not elements.is_written:
            return result
        if elements.is_shared:
            self.refuse_at(active, elements.writer[at] == NOBODY, lambda k: "reads shared memory that nobody has written")
        self._refuse_conflict(elements, at, active, elements.writer, elements.write_epoch, "reads", "was written")
        thread = self.thread[active]
        same = (elements.read_epoch[at] == self.epoch) & (elements.reader[at] != NOBODY) & (elements.reader[at] != thread)
        elements.reader[at] = np.where(same, MANY, thread)
        elements.reader[at[(elements.reader[at] != thread)]] = MANY
        elements.read_epoch[at] = self.epoch
        if not elements.is_shared:
            block = self.block[active]
            several = (elements.reading_block[at] != NOBODY) & (elements.reading_block[at] != block)
            elements.reading_block[at] = np.where(several, MANY, block)
            elements.reading_block[at[elements.reading_block[at] != block]] = MANY
        return result

    def load4(self, elements: Elements, index: Any) -> list[np.ndarray]:
        """Four neighbours at once, which the hardware only does from a multiple of four."""
        self.refuse(np.asarray(index) % 4 != 0, lambda k: f"loads four elements of {elements.name} from a place that is no multiple of four")
        return [self.load(elements, index + k) for k in range(4)]

    def store(self, elements: Elements, index: Any, value: Any) -> None:
        at, active = self.places(elements, index)
        value = np.broadcast_to(value, self.count)
        if value.dtype != elements.array.dtype and not (value.dtype == np.uint8 and elements.array.dtype == bool):
            raise KernelFault(f"line {self.line}: stores {value.dtype} to {elements.array.dtype} memory")
        if elements.name == "local":
            elements.array[at] = value[active]
            return
        self._refuse_conflict(elements, at, active, elements.writer, elements.write_epoch, "writes", "was written")
        self._refuse_conflict(elements, at, active, elements.reader, elements.read_epoch, "writes", "was read")
        thread = self.thread[active]
        if not elements.is_shared:
            block, reading = self.block[active], elements.reading_block[at]
            self.refuse_at(active, (reading != NOBODY) & (reading != block), lambda k: f"writes {elements.name}, which another block reads")
        elements.writer[at] = thread
        self.refuse_at(active, elements.writer[at] != thread, lambda k: f"and another one write the same element of {elements.name}")
        elements.write_epoch[at] = self.epoch
        elements.array[at] = value[active]

    def _refuse_conflict(self, elements: Elements, at: np.ndarray, active: np.ndarray, who: np.ndarray, epochs: np.ndarray, does: str, was: str) -> None:
        others = who[at]
        foreign = (others != NOBODY) & (others != self.thread[active])
        apart = False if elements.is_shared else (others >= 0) & (others // self.threads != self.block[active])
        self.refuse_at(active, foreign & ((epochs[at] == self.epoch) | apart),
                       lambda k: f"{does} an element of {elements.name} that {was} by another one, with no barrier between")

    def refuse(self, wrong: np.ndarray, reason: Callable[[int], str]) -> None:
        """KernelFault if an active thread does wrong."""
        if np.any(wrong):
            self.refuse_at(np.arange(self.count), np.broadcast_to(wrong, self.count) & self.mask, reason)

    def refuse_at(self, threads: np.ndarray, wrong: np.ndarray, reason: Callable[[int], str]) -> None:
        if wrong.any():
            k = int(threads[np.flatnonzero(wrong)[0]])
            raise KernelFault(f"line {self.line}: thread {self.lane[k]} of block {self.block[k]} {reason(k)}")
