"""The native driver: checks and binds NumPy arguments and runs a plan, in a fraction of a microsecond.

A plan is data, an array of int64 words that one small interpreter runs without Python's lock:

    item = CALL function table | BRANCH condition n_then n_else item* item*
         | LOOP count n counter stop item* | POINT base offset counter stride n target*
         | MOVE target offset source offset bytes
         | PARALLEL function table n pool pieces bytes n_buffers n_stages (slot offset)* parts* | END

`function` is the address of `void (int64_t *)` and `table` its argument table. `condition` and `stop` are
addresses of bools; `count` and `counter` are addresses of int64. n, n_then and n_else count words. A loop
writes 0, 1, ... to its counter before each turn, leaves the number of turns there, and ends early after a
turn that set `stop` (0: none). POINT writes what `base` holds + offset + stride times the counter to n targets: so kernels in
a loop find their row. MOVE copies bytes between two places, each an offset from the pointer at an address. A PARALLEL kernel is
shared out among the threads of `pool`, see there.

A binding says what one argument must be and where its address goes: it is checked natively, in the memory of
the array object. Where that memory does not look as expected (another interpreter, another NumPy) a Python
path does the same.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from symgrad.base.errors import BackendError

from . import toolchain
from .pool import native_text, pool

END, CALL, BRANCH, LOOP, POINT, MOVE, PARALLEL = range(7)
BUSY = -1                                   # another thread is inside the same entry
FEW_WORKERS = -2                            # the setting num_threads asks for workers that do not exist yet

ANY = -1                                    # a size that is not checked
NATIVE_ORDERS = "=|"
C_CONTIGUOUS, ALIGNED = 0x0001, 0x0100
# Twins that NumPy keeps apart by number although they are one format: long and long long.
TWINS = {"int64": np.longlong, "uint64": np.ulonglong, "int32": np.intc, "uint32": np.uintc}

# Offsets in PyArrayObject and PyArray_Descr on 64-bit machines: numpy/_core/include/numpy/ndarraytypes.h.
TYPE, DATA, RANK, SIZES, DESCRIPTION, FLAGS = 8, 16, 24, 32, 56, 64
ORDER, NUMBER = 26, 28
BYTES_DATA = 32                             # where a bytes object keeps its content


# ---- programs ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Call:
    """Call the kernel at `function` with the argument table at `table`."""

    function: int
    table: int

    def words(self) -> list[int]:
        return [CALL, self.function, self.table]


@dataclass(frozen=True)
class Branch:
    """Run `then` if the bool at `condition` holds, else `otherwise`."""

    condition: int
    then: tuple[Item, ...]
    otherwise: tuple[Item, ...] = ()

    def words(self) -> list[int]:
        then, otherwise = _flat(self.then), _flat(self.otherwise)
        return [BRANCH, self.condition, len(then), len(otherwise), *then, *otherwise]


@dataclass(frozen=True)
class Loop:
    """Run `body` as often as the int64 at `count` says, its turn at `counter`; until `stop`, if given."""

    count: int
    counter: int
    body: tuple[Item, ...]
    stop: int = 0

    def words(self) -> list[int]:
        body = _flat(self.body)
        return [LOOP, self.count, len(body), self.counter, self.stop, *body]


@dataclass(frozen=True)
class Point:
    """Write (the pointer at `base`) + offset + stride * (the int64 at `counter`) to every target."""

    base: int
    offset: int
    counter: int
    stride: int
    targets: tuple[int, ...]

    def words(self) -> list[int]:
        return [POINT, self.base, self.offset, self.counter, self.stride, len(self.targets), *self.targets]


@dataclass(frozen=True)
class Move:
    """Copy `nbytes` from the pointer at `source` + start to the pointer at `target` + offset; the two may overlap."""

    target: int
    offset: int
    source: int
    start: int
    nbytes: int

    def words(self) -> list[int]:
        return [MOVE, self.target, self.offset, self.source, self.start, self.nbytes]


@dataclass(frozen=True)
class Parallel:
    """Run the parts of a kernel's stages, one stage after the other, on all threads that are free.

    The last three words of the table at `table`, of `words_of_table` words, are (stage, first part, last part + 1).
    stages: the number of parts of each, cut into about `pieces` times the number of threads. buffers: (slot, offset in
    bytes) of what every thread needs for itself, `nbytes` in all; the calling thread uses the addresses in the table.
    """

    function: int
    table: int
    words_of_table: int
    stages: tuple[int, ...]
    pieces: int = 1
    buffers: tuple[tuple[int, int], ...] = ()
    nbytes: int = 0

    def words(self) -> list[int]:
        return [PARALLEL, self.function, self.table, self.words_of_table, pool().address, self.pieces, self.nbytes,
                len(self.buffers), len(self.stages), *(word for pair in self.buffers for word in pair), *self.stages]


Item = Call | Branch | Loop | Point | Move | Parallel


def _flat(items: Iterable[Item]) -> list[int]:
    return [word for item in items for word in item.words()]


def assemble(items: Iterable[Item]) -> np.ndarray:
    """The program of those items, as int64 words; keep it alive as long as it may run."""
    return np.array([*_flat(items), END], np.int64)


# ---- bindings ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Binding:
    """What one argument must be, and where what is found goes.

    shape: a size, or None for any, per axis. slots: addresses that receive the data pointer. sizes: pairs
    (axis, address) that receive the size of an axis. equal: pairs (axis, address) of int64 that the size must
    equal, checked after the sizes of earlier arguments are stored.
    """

    dtype: str
    shape: tuple[int | None, ...]
    slots: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    equal: tuple[tuple[int, int], ...] = ()

    def words(self) -> list[int]:
        dims = [ANY if size is None else size for size in self.shape]
        body = [np.dtype(self.dtype).num, np.dtype(TWINS.get(self.dtype, self.dtype)).num, len(dims), *dims,
                len(self.slots), *self.slots,
                len(self.sizes), *(word for pair in self.sizes for word in pair),
                len(self.equal), *(word for pair in self.equal for word in pair)]
        return [len(body) + 1, *body]

    def accepts(self, value: Any) -> bool:
        """Whether `value` is what this binding wants, by Python's road to the native answer."""
        if type(value) is not np.ndarray or value.dtype != np.dtype(self.dtype):
            return False
        sizes_fit = all(want in (None, size) for want, size in zip(self.shape, value.shape))
        flags = value.flags
        return (value.ndim == len(self.shape) and sizes_fit and flags.c_contiguous and flags.aligned
                and all(value.shape[axis] == _int64(address).value for axis, address in self.equal))

    def store(self, value: np.ndarray) -> None:
        """Write the data pointer and the sizes to where they go."""
        for address in self.slots:
            _int64(address).value = value.ctypes.data
        for axis, address in self.sizes:
            _int64(address).value = value.shape[axis]


def _int64(address: int) -> ctypes.c_int64:
    return ctypes.c_int64.from_address(address)


def specification(bindings: Sequence[Binding]) -> np.ndarray:
    """The bindings of all arguments as int64 words for `bind`; keep it alive as long as it may be used."""
    return np.array([id(np.ndarray), len(bindings), *(word for b in bindings for word in b.words())],
                    np.int64)


def bind(arguments: tuple, spec: np.ndarray) -> int:
    """0 after storing every argument where it goes, or 1 + the index of the first that does not fit.

    A wrong number of arguments gives 1 + the smaller of the two numbers. Arguments before the bad one are
    stored. Only for layouts that `layout_is_known()`; `Entry` chooses by itself.
    """
    return _native_bind()(arguments, spec.ctypes.data)


def run(program: np.ndarray) -> None:
    """Run a program, without Python's lock."""
    _native_run()(program.ctypes.data)


class Entry:
    """A compiled function's way in: `call(*arguments)` binds and runs, and says how that went.

    It returns 0 after running, 1 + the index of the first argument that does not fit (nothing has run), BUSY if
    another thread is inside, or FEW_WORKERS if the program is `parallel` and `start_workers` is to be called first.
    `native` says whether the native binder is in use.
    """

    def __init__(self, bindings: Sequence[Binding], program: np.ndarray, parallel: bool = False) -> None:
        self._bindings, self._program = tuple(bindings), program
        self._pool = pool().address if parallel else 0
        self.native = layout_is_known()
        self.call: Callable[..., int] = self._native_call() if self.native else self._python_call
        self._inside = False

    def _native_call(self) -> Callable[..., int]:
        self._spec = specification(self._bindings)
        self._state = np.array([self._spec.ctypes.data, self._program.ctypes.data, 0, self._pool], np.int64)
        _entered.add(self)
        return _builtin(self._state, keep=(self._spec, self._program))

    def _python_call(self, *arguments: Any) -> int:
        if self._inside:
            return BUSY
        if self._pool and pool()["wanted"] > pool()["workers"]:
            return FEW_WORKERS
        self._inside = True
        try:
            for k, (binding, value) in enumerate(zip(self._bindings, arguments)):
                if not binding.accepts(value):
                    return 1 + k
                binding.store(value)
            if len(arguments) != len(self._bindings):
                return 1 + min(len(arguments), len(self._bindings))
            run(self._program)
            return 0
        finally:
            self._inside = False


    def leave(self) -> None:
        """Forget the thread that is inside: a fork left it behind."""
        self._inside = False
        if self.native:
            self._state[2] = 0


_entered: weakref.WeakSet[Entry] = weakref.WeakSet()


def _leave_all() -> None:
    for entry in _entered:
        entry.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def start_workers() -> None:
    """Start the threads that `config.num_threads` asks for. Raises BackendError if the system refuses."""
    pool().grow(_addresses()["symgrad_worker"])


# ---- the native code ---------------------------------------------------------------------------------------

NATIVE = r"""
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @memmove(ptr, ptr, i64)

; Run the items from %start up to %end.
define void @symgrad_items(ptr %start, ptr %end) nounwind {
entry:
  br label %next
next:
  %pc = phi ptr [%start, %entry], [%after_call, %call], [%after_branch, %branched], [%after_loop, %loop_end],
               [%after_point, %pointed], [%after_move, %move], [%after_parallel, %parallel]
  %more = icmp ult ptr %pc, %end
  br i1 %more, label %fetch, label %done
fetch:
  %op = load i64, ptr %pc
  %w1p = getelementptr i64, ptr %pc, i64 1
  %w2p = getelementptr i64, ptr %pc, i64 2
  %w3p = getelementptr i64, ptr %pc, i64 3
  switch i64 %op, label %done [i64 1, label %call
                               i64 2, label %branch
                               i64 3, label %loop
                               i64 4, label %point
                               i64 5, label %move
                               i64 6, label %parallel]
call:
  %function = load ptr, ptr %w1p
  %table = load ptr, ptr %w2p
  call void %function(ptr %table)
  %after_call = getelementptr i64, ptr %pc, i64 3
  br label %next
branch:
  %condition_at = load ptr, ptr %w1p
  %condition_byte = load i8, ptr %condition_at
  %condition = icmp ne i8 %condition_byte, 0
  %n_then = load i64, ptr %w2p
  %n_else = load i64, ptr %w3p
  %then = getelementptr i64, ptr %pc, i64 4
  %otherwise = getelementptr i64, ptr %then, i64 %n_then
  %after_branch = getelementptr i64, ptr %otherwise, i64 %n_else
  %taken = select i1 %condition, ptr %then, ptr %otherwise
  %taken_end = select i1 %condition, ptr %otherwise, ptr %after_branch
  call void @symgrad_items(ptr %taken, ptr %taken_end)
  br label %branched
branched:
  br label %next
loop:
  %count_at = load ptr, ptr %w1p
  %count = load i64, ptr %count_at
  %length = load i64, ptr %w2p
  %counter_at = load ptr, ptr %w3p
  %w4p = getelementptr i64, ptr %pc, i64 4
  %stop_at = load ptr, ptr %w4p
  %body = getelementptr i64, ptr %pc, i64 5
  %after_loop = getelementptr i64, ptr %body, i64 %length
  br label %turn
turn:
  %k = phi i64 [0, %loop], [%k_next, %again]
  store i64 %k, ptr %counter_at
  %unfinished = icmp slt i64 %k, %count
  br i1 %unfinished, label %turn_body, label %loop_end
turn_body:
  call void @symgrad_items(ptr %body, ptr %after_loop)
  %k_next = add i64 %k, 1
  %may_stop = icmp ne ptr %stop_at, null
  br i1 %may_stop, label %look, label %again
look:
  %stop_byte = load i8, ptr %stop_at
  %stops = icmp ne i8 %stop_byte, 0
  br i1 %stops, label %stopped, label %again
stopped:
  store i64 %k_next, ptr %counter_at
  br label %loop_end
again:
  br label %turn
loop_end:
  br label %next
point:
  %base_at = load ptr, ptr %w1p
  %base = load i64, ptr %base_at
  %point_offset = load i64, ptr %w2p
  %position_at = load ptr, ptr %w3p
  %position = load i64, ptr %position_at
  %w4q = getelementptr i64, ptr %pc, i64 4
  %stride = load i64, ptr %w4q
  %n_targets_at = getelementptr i64, ptr %pc, i64 5
  %n_targets = load i64, ptr %n_targets_at
  %targets = getelementptr i64, ptr %pc, i64 6
  %after_point = getelementptr i64, ptr %targets, i64 %n_targets
  %advance = mul i64 %stride, %position
  %begin = add i64 %base, %point_offset
  %row = add i64 %begin, %advance
  br label %aim
aim:
  %target_word = phi ptr [%targets, %point], [%target_next, %aimed]
  %aims = icmp ult ptr %target_word, %after_point
  br i1 %aims, label %aimed, label %pointed
aimed:
  %target = load ptr, ptr %target_word
  store i64 %row, ptr %target
  %target_next = getelementptr i64, ptr %target_word, i64 1
  br label %aim
pointed:
  br label %next
move:
  %to_cell = load ptr, ptr %w1p
  %to_base = load ptr, ptr %to_cell
  %to_offset = load i64, ptr %w2p
  %to = getelementptr i8, ptr %to_base, i64 %to_offset
  %from_cell = load ptr, ptr %w3p
  %from_base = load ptr, ptr %from_cell
  %from_offset_at = getelementptr i64, ptr %pc, i64 4
  %from_offset = load i64, ptr %from_offset_at
  %from = getelementptr i8, ptr %from_base, i64 %from_offset
  %nbytes_at = getelementptr i64, ptr %pc, i64 5
  %nbytes = load i64, ptr %nbytes_at
  %moved = call ptr @memmove(ptr %to, ptr %from, i64 %nbytes)
  %after_move = getelementptr i64, ptr %pc, i64 6
  br label %next
parallel:
  %after_parallel = call ptr @symgrad_parallel(ptr %pc)
  br label %next
done:
  ret void
}

; Run a whole program; its END stops it.
define void @symgrad_run(ptr %program) nounwind {
  call void @symgrad_items(ptr %program, ptr inttoptr (i64 -1 to ptr))
  ret void
}

; Check and store %given arguments: 0, or 1 + the index of the first that does not fit the specification.
define i64 @symgrad_store(ptr %arguments, i64 %given, ptr %spec) nounwind {
entry:
  %array_type = load i64, ptr %spec
  %wanted_at = getelementptr i64, ptr %spec, i64 1
  %wanted = load i64, ptr %wanted_at
  %first = getelementptr i64, ptr %spec, i64 2
  %fewer = icmp slt i64 %given, %wanted
  %smaller = select i1 %fewer, i64 %given, i64 %wanted
  br label %argument
argument:
  %k = phi i64 [0, %entry], [%k_next, %accepted]
  %record = phi ptr [%first, %entry], [%record_next, %accepted]
  %left = icmp slt i64 %k, %smaller
  br i1 %left, label %check, label %counted
counted:
  %same_number = icmp eq i64 %given, %wanted
  %too_few = add i64 %smaller, 1
  %answer = select i1 %same_number, i64 0, i64 %too_few
  ret i64 %answer
reject:
  %bad = add i64 %k, 1
  ret i64 %bad

check:
  %object_at = getelementptr ptr, ptr %arguments, i64 %k
  %object = load ptr, ptr %object_at
  %type_at = getelementptr i8, ptr %object, i64 8
  %type = load i64, ptr %type_at
  %is_array = icmp eq i64 %type, %array_type
  br i1 %is_array, label %check_dtype, label %reject
check_dtype:
  %description_at = getelementptr i8, ptr %object, i64 56
  %description = load ptr, ptr %description_at
  %number_at = getelementptr i8, ptr %description, i64 28
  %number32 = load i32, ptr %number_at
  %number = sext i32 %number32 to i64
  %order_at = getelementptr i8, ptr %description, i64 26
  %order = load i8, ptr %order_at
  %number_a_at = getelementptr i64, ptr %record, i64 1
  %number_a = load i64, ptr %number_a_at
  %number_b_at = getelementptr i64, ptr %record, i64 2
  %number_b = load i64, ptr %number_b_at
  %is_a = icmp eq i64 %number, %number_a
  %is_b = icmp eq i64 %number, %number_b
  %right_number = or i1 %is_a, %is_b
  %is_native = icmp eq i8 %order, 61
  %is_byte = icmp eq i8 %order, 124
  %right_order = or i1 %is_native, %is_byte
  %flags_at = getelementptr i8, ptr %object, i64 64
  %flags = load i32, ptr %flags_at
  %layout = and i32 %flags, 257
  %right_layout = icmp eq i32 %layout, 257
  %rank_at = getelementptr i8, ptr %object, i64 24
  %rank32 = load i32, ptr %rank_at
  %rank = sext i32 %rank32 to i64
  %wanted_rank_at = getelementptr i64, ptr %record, i64 3
  %wanted_rank = load i64, ptr %wanted_rank_at
  %right_rank = icmp eq i64 %rank, %wanted_rank
  %good_1 = and i1 %right_number, %right_order
  %good_2 = and i1 %right_layout, %right_rank
  %good = and i1 %good_1, %good_2
  %dims_at = getelementptr i8, ptr %object, i64 32
  %dims = load ptr, ptr %dims_at
  %wanted_dims = getelementptr i64, ptr %record, i64 4
  br i1 %good, label %axis, label %reject
axis:
  %a = phi i64 [0, %check_dtype], [%a_next, %axis_good]
  %axes_left = icmp slt i64 %a, %rank
  br i1 %axes_left, label %check_axis, label %axes_done
check_axis:
  %dim_at = getelementptr i64, ptr %dims, i64 %a
  %dim = load i64, ptr %dim_at
  %want_at = getelementptr i64, ptr %wanted_dims, i64 %a
  %want = load i64, ptr %want_at
  %any = icmp slt i64 %want, 0
  %equal = icmp eq i64 %dim, %want
  %right_dim = or i1 %any, %equal
  br i1 %right_dim, label %axis_good, label %reject
axis_good:
  %a_next = add i64 %a, 1
  br label %axis

axes_done:
  %data_at = getelementptr i8, ptr %object, i64 16
  %data = load i64, ptr %data_at
  %n_slots_at = getelementptr i64, ptr %wanted_dims, i64 %rank
  %n_slots = load i64, ptr %n_slots_at
  %slots = getelementptr i64, ptr %n_slots_at, i64 1
  br label %slot
slot:
  %s = phi i64 [0, %axes_done], [%s_next, %slot_store]
  %slots_left = icmp slt i64 %s, %n_slots
  br i1 %slots_left, label %slot_store, label %slots_done
slot_store:
  %slot_word = getelementptr i64, ptr %slots, i64 %s
  %slot_address = load ptr, ptr %slot_word
  store i64 %data, ptr %slot_address
  %s_next = add i64 %s, 1
  br label %slot

slots_done:
  %n_sizes_at = getelementptr i64, ptr %slots, i64 %n_slots
  %n_sizes = load i64, ptr %n_sizes_at
  %sizes = getelementptr i64, ptr %n_sizes_at, i64 1
  br label %size
size:
  %z = phi i64 [0, %slots_done], [%z_next, %size_store]
  %size_word = phi ptr [%sizes, %slots_done], [%size_word_next, %size_store]
  %sizes_left = icmp slt i64 %z, %n_sizes
  br i1 %sizes_left, label %size_store, label %sizes_done
size_store:
  %size_axis = load i64, ptr %size_word
  %size_address_at = getelementptr i64, ptr %size_word, i64 1
  %size_address = load ptr, ptr %size_address_at
  %size_dim_at = getelementptr i64, ptr %dims, i64 %size_axis
  %size_dim = load i64, ptr %size_dim_at
  store i64 %size_dim, ptr %size_address
  %size_word_next = getelementptr i64, ptr %size_word, i64 2
  %z_next = add i64 %z, 1
  br label %size

sizes_done:
  %n_equal = load i64, ptr %size_word
  %equals = getelementptr i64, ptr %size_word, i64 1
  br label %equality
equality:
  %e = phi i64 [0, %sizes_done], [%e_next, %equal_good]
  %equal_word = phi ptr [%equals, %sizes_done], [%equal_word_next, %equal_good]
  %equals_left = icmp slt i64 %e, %n_equal
  br i1 %equals_left, label %equal_check, label %accepted
equal_check:
  %equal_axis = load i64, ptr %equal_word
  %equal_address_at = getelementptr i64, ptr %equal_word, i64 1
  %equal_address = load ptr, ptr %equal_address_at
  %equal_wanted = load i64, ptr %equal_address
  %equal_dim_at = getelementptr i64, ptr %dims, i64 %equal_axis
  %equal_dim = load i64, ptr %equal_dim_at
  %equal_right = icmp eq i64 %equal_dim, %equal_wanted
  br i1 %equal_right, label %equal_good, label %reject
equal_good:
  %equal_word_next = getelementptr i64, ptr %equal_word, i64 2
  %e_next = add i64 %e, 1
  br label %equality

accepted:
  %record_length = load i64, ptr %record
  %record_next = getelementptr i64, ptr %record, i64 %record_length
  %k_next = add i64 %k, 1
  br label %argument
}

; bind(tuple, spec): a tuple keeps its length at 16 and its items from 24 on.
define i64 @symgrad_bind(ptr %tuple, ptr %spec) nounwind {
  %length_at = getelementptr i8, ptr %tuple, i64 16
  %length = load i64, ptr %length_at
  %items = getelementptr i8, ptr %tuple, i64 24
  %answer = call i64 @symgrad_store(ptr %items, i64 %length, ptr %spec)
  ret i64 %answer
}

; METH_FASTCALL: `self` is a bytes object that holds the address of {specification, program, busy, pool or 0}.
define ptr @symgrad_call(ptr %self, ptr %arguments, i64 %given) nounwind {
entry:
  %content = getelementptr i8, ptr %self, i64 32
  %state = load ptr, ptr %content
  %busy_at = getelementptr i64, ptr %state, i64 2
  %busy = load i64, ptr %busy_at
  %free = icmp eq i64 %busy, 0
  br i1 %free, label %bind, label %answer
bind:
  %spec = load ptr, ptr %state
  %program_at = getelementptr i64, ptr %state, i64 1
  %program = load ptr, ptr %program_at
  %bad = call i64 @symgrad_store(ptr %arguments, i64 %given, ptr %spec)
  %fits = icmp eq i64 %bad, 0
  br i1 %fits, label %run, label %answer
run:
  %pool_at = getelementptr i64, ptr %state, i64 3
  %pool = load ptr, ptr %pool_at
  %parallel = icmp ne ptr %pool, null
  br i1 %parallel, label %ask, label %alone
alone:
  store volatile i64 1, ptr %busy_at
  %thread = call ptr @PyEval_SaveThread()
  call void @symgrad_run(ptr %program)
  call void @PyEval_RestoreThread(ptr %thread)
  store volatile i64 0, ptr %busy_at
  br label %answer
ask:
  %few = call i1 @symgrad_has_few_workers(ptr %pool)
  br i1 %few, label %answer, label %together
together:
  store volatile i64 1, ptr %busy_at
  %thread_2 = call ptr @PyEval_SaveThread()
  call void @symgrad_run_counted(ptr %pool, ptr %program)
  call void @PyEval_RestoreThread(ptr %thread_2)
  store volatile i64 0, ptr %busy_at
  br label %answer
answer:
  %code = phi i64 [-1, %entry], [%bad, %bind], [-2, %ask], [0, %alone], [0, %together]
  %result = call ptr @PyLong_FromLong(i64 %code)
  ret ptr %result
}
"""
SYMBOLS = ("symgrad_run", "symgrad_bind", "symgrad_call", "symgrad_worker")


@cache
def _addresses() -> dict[str, int]:
    """The native functions by symbol, compiled once per machine."""
    return dict(zip(SYMBOLS, toolchain.compile_llvm(NATIVE + native_text(), SYMBOLS)))


@cache
def _native_run() -> Callable[[int], None]:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_addresses()["symgrad_run"])


@cache
def _native_bind() -> Callable[[tuple, int], int]:
    if not layout_is_known():
        raise BackendError("the native binder does not know how this interpreter and NumPy lay out their "
                           "objects; Entry binds in Python instead")
    kind = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.py_object, ctypes.c_void_p)
    return kind(_addresses()["symgrad_bind"])


# ---- a native function as a builtin ------------------------------------------------------------------------

class _MethodDef(ctypes.Structure):
    """PyMethodDef of Include/methodobject.h."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


METH_FASTCALL = 0x0080


@cache
def _method() -> _MethodDef:
    return _MethodDef(b"call", _addresses()["symgrad_call"], METH_FASTCALL, None)


def _builtin(state: np.ndarray, keep: tuple) -> Callable[..., int]:
    """A built-in function over `state`, which the interpreter calls without ctypes' half a microsecond.

    Its `__module__`, which is any object, keeps the memory it uses alive.
    """
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    return new(ctypes.addressof(_method()), state.ctypes.data.to_bytes(8, "little"), (state, *keep))


# ---- is memory laid out as the native code thinks? ---------------------------------------------------------

@cache
def layout_is_known() -> bool:
    """Whether arrays, tuples and bytes lie in memory as the native code expects, seen on live objects."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    samples = [np.zeros((2, 3), np.float32), np.zeros(5, np.int64)[1:], np.array(True),
               np.zeros((4, 3), ">f8"),
               np.zeros((2, 0, 3), np.uint16), np.asfortranarray(np.zeros((3, 4))), np.arange(6)[::2]]
    content = b"symgrad!"
    return (all(map(_lies_as_expected, samples))
            and ctypes.string_at(id(content) + BYTES_DATA, 8) == content
            and ctypes.c_int64.from_address(id(samples_tuple := tuple(samples)) + 16).value == len(samples)
            and ctypes.c_int64.from_address(id(samples_tuple) + 24).value == id(samples[0]))


def _lies_as_expected(array: Any) -> bool:
    base, description = id(array), id(array.dtype)
    word = lambda offset: ctypes.c_int64.from_address(base + offset).value
    sizes = tuple((ctypes.c_int64 * array.ndim).from_address(word(SIZES))) if array.ndim else ()
    return (word(TYPE) == id(np.ndarray) and word(DATA) == array.ctypes.data and sizes == array.shape
            and ctypes.c_int32.from_address(base + RANK).value == array.ndim
            and word(DESCRIPTION) == description
            and ctypes.c_int32.from_address(base + FLAGS).value & 0xFFFF == array.flags.num & 0xFFFF
            and ctypes.c_char.from_address(description + ORDER).value.decode() == array.dtype.byteorder
            and ctypes.c_int32.from_address(description + NUMBER).value == array.dtype.num)
