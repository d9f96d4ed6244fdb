"""The worker threads of this process: a few words of shared memory and the native code that runs on them.

A parallel item of a program (see `driver`) names a kernel whose work is numbered parts, in one or more stages. Whoever runs
the item takes the pool, publishes each stage as chunks of consecutive parts, takes chunks itself until none is left, and
waits for those that workers took. There is one pool per process: who finds it taken runs the parts alone, and every
thread that is inside a compiled function takes a worker's place, so that callers and workers together are never more than
`num_threads`. Idle workers spin for a moment and then sleep.

A *ticket* is one word, (stages published, workers admitted, chunks left): taking a chunk is one compare-and-swap, which
fails if the ticket is of another stage by then. So what describes a stage is only read by those who hold a chunk of it.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import threading
from functools import cache

from symgrad.base.config import MOST_THREADS, config
from symgrad.base.errors import BackendError, four_parts

# Words of the pool. What different threads write often lies in different cache lines.
WORDS = {"ticket": 0, "done": 8,
         "taken": 16, "callers": 17, "wanted": 18, "workers": 19, "sleepers": 20, "stop": 21,
         "item": 24, "stage": 25, "parts": 26, "chunk": 27, "chunks": 28,
         "mutex": 32, "condition": 48, "records": 64}
# Words of a worker's record, which starts a cache line of its own.
RECORD = {"pool": 0, "index": 1, "scratch": 2, "allocated": 3, "capacity": 4}
RECORD_WORDS = 8
# Words of a parallel item; pairs (slot, offset) of private scratch and the parts of every stage follow.
ITEM = {"function": 1, "table": 2, "words": 3, "pool": 4, "pieces": 5, "bytes": 6, "buffers": 7, "stages": 8, "rest": 9}

SPINS = 7_000               # looks at the ticket before a worker sleeps: about a quarter of a millisecond
PATIENCE = 2_000            # looks at `done` before the waiting thread lets others run
# What tells a processor that a thread is only waiting: declaration and call.
X86 = "declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"
ARM = "declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"
RELAX = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}

TEXT = r"""
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()
declare ptr @malloc(i64)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

; Run parts %start to %stop of a stage on a copy of the argument table, with the private buffers at %scratch if given.
define void @symgrad_part(ptr %item, i64 %stage, i64 %start, i64 %stop, ptr %scratch) noinline nounwind {
entry:
  %function_at = getelementptr i64, ptr %item, i64 <item.function>
  %function = load ptr, ptr %function_at
  %table_at = getelementptr i64, ptr %item, i64 <item.table>
  %table = load ptr, ptr %table_at
  %words_at = getelementptr i64, ptr %item, i64 <item.words>
  %words = load i64, ptr %words_at
  %copy = alloca i64, i64 %words, align 16
  %bytes = shl i64 %words, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %copy, ptr %table, i64 %bytes, i1 false)
  %end = getelementptr i64, ptr %copy, i64 %words
  %stage_at = getelementptr i64, ptr %end, i64 -3
  store i64 %stage, ptr %stage_at
  %start_at = getelementptr i64, ptr %end, i64 -2
  store i64 %start, ptr %start_at
  %stop_at = getelementptr i64, ptr %end, i64 -1
  store i64 %stop, ptr %stop_at
  %buffers_at = getelementptr i64, ptr %item, i64 <item.buffers>
  %buffers = load i64, ptr %buffers_at
  %pairs = getelementptr i64, ptr %item, i64 <item.rest>
  %own = icmp eq ptr %scratch, null
  br i1 %own, label %call, label %buffer
buffer:
  %k = phi i64 [0, %entry], [%k_next, %place]
  %left = icmp ult i64 %k, %buffers
  br i1 %left, label %place, label %call
place:
  %pair = shl i64 %k, 1
  %slot_at = getelementptr i64, ptr %pairs, i64 %pair
  %slot = load i64, ptr %slot_at
  %offset_at = getelementptr i64, ptr %slot_at, i64 1
  %offset = load i64, ptr %offset_at
  %address = getelementptr i8, ptr %scratch, i64 %offset
  %to = getelementptr i64, ptr %copy, i64 %slot
  store ptr %address, ptr %to
  %k_next = add i64 %k, 1
  br label %buffer
call:
  call void %function(ptr %copy)
  ret void
}

; Run the chunk that was taken when %left were left, and say so.
define void @symgrad_chunk(ptr %pool, i64 %left, ptr %scratch) noinline nounwind {
  %item_at = getelementptr i64, ptr %pool, i64 <item>
  %item = load ptr, ptr %item_at
  %stage_at = getelementptr i64, ptr %pool, i64 <stage>
  %stage = load i64, ptr %stage_at
  %parts_at = getelementptr i64, ptr %pool, i64 <parts>
  %parts = load i64, ptr %parts_at
  %chunk_at = getelementptr i64, ptr %pool, i64 <chunk>
  %chunk = load i64, ptr %chunk_at
  %chunks_at = getelementptr i64, ptr %pool, i64 <chunks>
  %chunks = load i64, ptr %chunks_at
  %k = sub i64 %chunks, %left
  %start = mul i64 %k, %chunk
  %end = add i64 %start, %chunk
  %stop = call i64 @llvm.umin.i64(i64 %end, i64 %parts)
  call void @symgrad_part(ptr %item, i64 %stage, i64 %start, i64 %stop, ptr %scratch)
  %done_at = getelementptr i64, ptr %pool, i64 <done>
  %before = atomicrmw add ptr %done_at, i64 1 acq_rel
  ret void
}

; Whether worker %index may take a chunk of this ticket, or has been asked to stop.
define i1 @symgrad_wakes(ptr %pool, i64 %ticket, i64 %index) alwaysinline nounwind {
  %left = and i64 %ticket, 1048575
  %some = icmp ne i64 %left, 0
  %above = lshr i64 %ticket, 20
  %admitted = and i64 %above, 4095
  %mine = icmp ult i64 %index, %admitted
  %work = and i1 %some, %mine
  %stop_at = getelementptr i64, ptr %pool, i64 <stop>
  %stop = load atomic i64, ptr %stop_at seq_cst, align 8
  %stops = icmp ne i64 %stop, 0
  %wakes = or i1 %work, %stops
  ret i1 %wakes
}

; The life of a worker.
define ptr @symgrad_worker(ptr %record) nounwind {
entry:
  %pool_at = getelementptr i64, ptr %record, i64 <record.pool>
  %pool = load ptr, ptr %pool_at
  %index_at = getelementptr i64, ptr %record, i64 <record.index>
  %index = load i64, ptr %index_at
  %scratch_at = getelementptr i64, ptr %record, i64 <record.scratch>
  %stop_at = getelementptr i64, ptr %pool, i64 <stop>
  %sleepers_at = getelementptr i64, ptr %pool, i64 <sleepers>
  %mutex = getelementptr i64, ptr %pool, i64 <mutex>
  %condition = getelementptr i64, ptr %pool, i64 <condition>
  br label %look
look:
  %spins = phi i64 [0, %entry], [0, %claim], [0, %work], [%spun, %idle], [0, %wake]
  %ticket = load atomic i64, ptr %pool acquire, align 8
  %something = call i1 @symgrad_wakes(ptr %pool, i64 %ticket, i64 %index)
  br i1 %something, label %begin, label %idle
begin:
  %stop = load atomic i64, ptr %stop_at acquire, align 8
  %stops = icmp ne i64 %stop, 0
  br i1 %stops, label %end, label %claim
claim:
  %taken = sub i64 %ticket, 1
  %pair = cmpxchg ptr %pool, i64 %ticket, i64 %taken seq_cst seq_cst
  %claimed = extractvalue {i64, i1} %pair, 1
  br i1 %claimed, label %work, label %look
work:
  %left = and i64 %ticket, 1048575
  %scratch = load ptr, ptr %scratch_at
  call void @symgrad_chunk(ptr %pool, i64 %left, ptr %scratch)
  br label %look
idle:
  <relax>
  %spun = add i64 %spins, 1
  %tired = icmp ugt i64 %spun, <spins>
  br i1 %tired, label %sleep, label %look
sleep:
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %sleepers = atomicrmw add ptr %sleepers_at, i64 1 seq_cst
  br label %still
still:
  %ticket_now = load atomic i64, ptr %pool seq_cst, align 8
  %something_now = call i1 @symgrad_wakes(ptr %pool, i64 %ticket_now, i64 %index)
  br i1 %something_now, label %wake, label %wait
wait:
  %waited = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %still
wake:
  %awake = atomicrmw sub ptr %sleepers_at, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %look
end:
  ret ptr null
}

; Wake those who sleep.
define void @symgrad_wake(ptr %pool) nounwind {
entry:
  %sleepers_at = getelementptr i64, ptr %pool, i64 <sleepers>
  %sleepers = load atomic i64, ptr %sleepers_at seq_cst, align 8
  %some = icmp ne i64 %sleepers, 0
  br i1 %some, label %wake, label %end
wake:
  %mutex = getelementptr i64, ptr %pool, i64 <mutex>
  %condition = getelementptr i64, ptr %pool, i64 <condition>
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %woken = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %end
end:
  ret void
}

; Give each of the first %workers at least %bytes of scratch; whether there was enough memory.
define i1 @symgrad_scratch(ptr %pool, i64 %workers, i64 %bytes) nounwind {
entry:
  %records = getelementptr i64, ptr %pool, i64 <records>
  br label %next
next:
  %k = phi i64 [0, %entry], [%k_next, %good]
  %more = icmp ult i64 %k, %workers
  br i1 %more, label %look, label %enough
look:
  %words = mul i64 %k, <record_words>
  %record = getelementptr i64, ptr %records, i64 %words
  %scratch_at = getelementptr i64, ptr %record, i64 <record.scratch>
  %allocated_at = getelementptr i64, ptr %record, i64 <record.allocated>
  %capacity_at = getelementptr i64, ptr %record, i64 <record.capacity>
  %capacity = load i64, ptr %capacity_at
  %k_next = add i64 %k, 1
  %fits = icmp uge i64 %capacity, %bytes
  br i1 %fits, label %good, label %grow
grow:
  %old = load ptr, ptr %allocated_at
  call void @free(ptr %old)
  %wanted = add i64 %bytes, 64
  %new = call ptr @malloc(i64 %wanted)
  store ptr %new, ptr %allocated_at
  %number = ptrtoint ptr %new to i64
  %above = add i64 %number, 63
  %aligned = and i64 %above, -64
  store i64 %aligned, ptr %scratch_at
  %failed = icmp eq ptr %new, null
  %reached = select i1 %failed, i64 0, i64 %bytes
  store i64 %reached, ptr %capacity_at
  br i1 %failed, label %short, label %good
good:
  br label %next
enough:
  ret i1 true
short:
  ret i1 false
}

; One stage with %admitted workers.
define void @symgrad_stage(ptr %pool, ptr %item, i64 %stage, i64 %parts, i64 %admitted) nounwind {
entry:
  %pieces_at = getelementptr i64, ptr %item, i64 <item.pieces>
  %each = load i64, ptr %pieces_at
  %threads = add i64 %admitted, 1
  %pieces = mul i64 %threads, %each
  %fill = sub i64 %pieces, 1
  %filled = add i64 %parts, %fill
  %even = udiv i64 %filled, %pieces
  %chunk = call i64 @llvm.umax.i64(i64 %even, i64 1)
  %last = sub i64 %chunk, 1
  %reach = add i64 %parts, %last
  %chunks = udiv i64 %reach, %chunk
  %several = icmp ugt i64 %chunks, 1
  br i1 %several, label %publish, label %one
one:
  %any = icmp ne i64 %parts, 0
  br i1 %any, label %alone, label %end
alone:
  call void @symgrad_part(ptr %item, i64 %stage, i64 0, i64 %parts, ptr null)
  ret void
publish:
  %item_at = getelementptr i64, ptr %pool, i64 <item>
  store ptr %item, ptr %item_at
  %stage_at = getelementptr i64, ptr %pool, i64 <stage>
  store i64 %stage, ptr %stage_at
  %parts_at = getelementptr i64, ptr %pool, i64 <parts>
  store i64 %parts, ptr %parts_at
  %chunk_at = getelementptr i64, ptr %pool, i64 <chunk>
  store i64 %chunk, ptr %chunk_at
  %chunks_at = getelementptr i64, ptr %pool, i64 <chunks>
  store i64 %chunks, ptr %chunks_at
  %done_at = getelementptr i64, ptr %pool, i64 <done>
  store atomic i64 0, ptr %done_at release, align 8
  %ticket_before = load atomic i64, ptr %pool acquire, align 8
  %number = lshr i64 %ticket_before, 32
  %number_next = add i64 %number, 1
  %high = shl i64 %number_next, 32
  %middle = shl i64 %admitted, 20
  %upper = or i64 %high, %middle
  %ticket_new = or i64 %upper, %chunks
  store atomic i64 %ticket_new, ptr %pool seq_cst, align 8
  call void @symgrad_wake(ptr %pool)
  br label %look
look:
  %ticket = load atomic i64, ptr %pool acquire, align 8
  %left = and i64 %ticket, 1048575
  %some = icmp ne i64 %left, 0
  br i1 %some, label %claim, label %wait
claim:
  %taken = sub i64 %ticket, 1
  %pair = cmpxchg ptr %pool, i64 %ticket, i64 %taken seq_cst seq_cst
  %claimed = extractvalue {i64, i1} %pair, 1
  br i1 %claimed, label %work, label %look
work:
  call void @symgrad_chunk(ptr %pool, i64 %left, ptr null)
  br label %look
wait:
  %looks = phi i64 [0, %look], [%looks_next, %relax], [0, %yield]
  %done = load atomic i64, ptr %done_at acquire, align 8
  %finished = icmp eq i64 %done, %chunks
  br i1 %finished, label %end, label %busy
busy:
  %looks_next = add i64 %looks, 1
  %long = icmp ugt i64 %looks_next, <patience>
  br i1 %long, label %yield, label %relax
relax:
  <relax>
  br label %wait
yield:
  %yielded = call i32 @sched_yield()
  br label %wait
end:
  ret void
}

; Whether workers that are wanted do not exist yet.
define i1 @symgrad_has_few_workers(ptr %pool) nounwind {
  %wanted_at = getelementptr i64, ptr %pool, i64 <wanted>
  %wanted = load atomic i64, ptr %wanted_at monotonic, align 8
  %workers_at = getelementptr i64, ptr %pool, i64 <workers>
  %workers = load atomic i64, ptr %workers_at monotonic, align 8
  %few = icmp ult i64 %workers, %wanted
  ret i1 %few
}

; Run a whole program as one of the callers.
define void @symgrad_run_counted(ptr %pool, ptr %program) nounwind {
  %callers_at = getelementptr i64, ptr %pool, i64 <callers>
  %before = atomicrmw add ptr %callers_at, i64 1 seq_cst
  call void @symgrad_run(ptr %program)
  %after = atomicrmw sub ptr %callers_at, i64 1 seq_cst
  ret void
}

; Run a parallel item; returns where the next item is.
define ptr @symgrad_parallel(ptr %item) nounwind {
entry:
  %pool_at = getelementptr i64, ptr %item, i64 <item.pool>
  %pool = load ptr, ptr %pool_at
  %bytes_at = getelementptr i64, ptr %item, i64 <item.bytes>
  %bytes = load i64, ptr %bytes_at
  %buffers_at = getelementptr i64, ptr %item, i64 <item.buffers>
  %buffers = load i64, ptr %buffers_at
  %stages_at = getelementptr i64, ptr %item, i64 <item.stages>
  %stages = load i64, ptr %stages_at
  %rest = getelementptr i64, ptr %item, i64 <item.rest>
  %pair_words = shl i64 %buffers, 1
  %counts = getelementptr i64, ptr %rest, i64 %pair_words
  %after = getelementptr i64, ptr %counts, i64 %stages

  %taken_at = getelementptr i64, ptr %pool, i64 <taken>
  %wanted_at = getelementptr i64, ptr %pool, i64 <wanted>
  %wanted = load atomic i64, ptr %wanted_at monotonic, align 8
  %workers_at = getelementptr i64, ptr %pool, i64 <workers>
  %workers = load atomic i64, ptr %workers_at acquire, align 8
  %callers_at = getelementptr i64, ptr %pool, i64 <callers>
  %callers = load atomic i64, ptr %callers_at monotonic, align 8
  %but_me = sub i64 %callers, 1
  %others = call i64 @llvm.smax.i64(i64 %but_me, i64 0)
  %most = call i64 @llvm.smin.i64(i64 %wanted, i64 %workers)
  %admitted = sub i64 %most, %others
  %help = icmp sgt i64 %admitted, 0
  br i1 %help, label %take, label %serial
take:
  %pair = cmpxchg ptr %taken_at, i64 0, i64 1 seq_cst seq_cst
  %got = extractvalue {i64, i1} %pair, 1
  br i1 %got, label %room, label %serial
room:
  %enough = call i1 @symgrad_scratch(ptr %pool, i64 %admitted, i64 %bytes)
  br i1 %enough, label %next, label %give_up
give_up:
  store atomic i64 0, ptr %taken_at release, align 8
  br label %serial
next:
  %s = phi i64 [0, %room], [%s_next, %stage]
  %more = icmp ult i64 %s, %stages
  br i1 %more, label %stage, label %finished
stage:
  %parts_at = getelementptr i64, ptr %counts, i64 %s
  %parts = load i64, ptr %parts_at
  call void @symgrad_stage(ptr %pool, ptr %item, i64 %s, i64 %parts, i64 %admitted)
  %s_next = add i64 %s, 1
  br label %next
finished:
  store atomic i64 0, ptr %taken_at release, align 8
  ret ptr %after

serial:
  %t = phi i64 [0, %entry], [0, %take], [0, %give_up], [%t_next, %stepped]
  %some = icmp ult i64 %t, %stages
  br i1 %some, label %alone, label %end
alone:
  %count_at = getelementptr i64, ptr %counts, i64 %t
  %count = load i64, ptr %count_at
  %t_next = add i64 %t, 1
  %any = icmp ne i64 %count, 0
  br i1 %any, label %run, label %stepped
run:
  call void @symgrad_part(ptr %item, i64 %t, i64 0, i64 %count, ptr null)
  br label %stepped
stepped:
  br label %serial
end:
  ret ptr %after
}
"""


def native_text() -> str:
    """The native code of this module, for the processor of this machine."""
    declaration, relax = RELAX.get(platform.machine(), ("", ""))
    values = {**WORDS, **{f"item.{k}": v for k, v in ITEM.items()}, **{f"record.{k}": v for k, v in RECORD.items()},
              "record_words": RECORD_WORDS, "spins": SPINS, "patience": PATIENCE,
              "relax": relax}
    text = declaration + TEXT
    for name, value in values.items():
        text = text.replace(f"<{name}>", str(value))
    return text


class Pool:
    """The pool of this process. `address` is that of its words, which live as long as the process."""

    def __init__(self) -> None:
        size = WORDS["records"] + RECORD_WORDS * MOST_THREADS
        self._memory = (ctypes.c_int64 * (size + 8))()
        self.address = -(-ctypes.addressof(self._memory) // 64) * 64
        self._lock = threading.Lock()
        self._threads: list[ctypes.c_void_p] = []
        self._worker = 0                    # the native function, once it is known
        self._begin()
        config.watch("num_threads", self._want)
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_again)

    def __getitem__(self, name: str) -> int:
        return self._word(WORDS[name]).value

    def __setitem__(self, name: str, value: int) -> None:
        self._word(WORDS[name]).value = value

    def _word(self, index: int) -> ctypes.c_int64:
        return ctypes.c_int64.from_address(self.address + 8 * index)

    def _begin(self) -> None:
        libc = ctypes.CDLL(None)
        libc.pthread_mutex_init(ctypes.c_void_p(self.address + 8 * WORDS["mutex"]), None)
        libc.pthread_cond_init(ctypes.c_void_p(self.address + 8 * WORDS["condition"]), None)
        self._want(config.num_threads)

    def _begin_again(self) -> None:
        """In the child of a fork: none of the workers exists there, and nobody is inside a function."""
        ctypes.memset(self.address, 0, 8 * (WORDS["records"] + RECORD_WORDS * MOST_THREADS))
        self._lock, self._threads = threading.Lock(), []
        self._begin()

    def _want(self, threads: int) -> None:
        self["wanted"] = 0 if self["stop"] else threads - 1

    def grow(self, worker: int) -> None:
        """Start the workers that the setting `num_threads` asks for and that are not there yet. `worker`: the native function.

        Raises BackendError if the system refuses.
        """
        with self._lock:
            while self["workers"] < self["wanted"]:
                self._start(worker, self["workers"])
                self["workers"] += 1

    def _start(self, worker: int, index: int) -> None:
        record = WORDS["records"] + RECORD_WORDS * index
        self._word(record + RECORD["pool"]).value = self.address
        self._word(record + RECORD["index"]).value = index
        thread = ctypes.c_void_p()
        code = ctypes.CDLL(None).pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(worker), ctypes.c_void_p(self.address + 8 * record))
        if code:
            asked = self["wanted"] + 1
            self["wanted"] = index
            raise BackendError(four_parts(f"{asked} threads (setting num_threads)", f"the system gave {index + 1}: {os.strerror(code)}",
                                          attempt=f"sg.config.num_threads = {index + 1}"))
        self._threads.append(thread)

    def stop(self) -> None:
        """End the workers, at exit: their code is about to go."""
        with self._lock:
            self["wanted"], self["stop"] = 0, 1
            libc = ctypes.CDLL(None)
            mutex, condition = (ctypes.c_void_p(self.address + 8 * WORDS[name]) for name in ("mutex", "condition"))
            libc.pthread_mutex_lock(mutex)
            libc.pthread_cond_broadcast(condition)
            libc.pthread_mutex_unlock(mutex)
            for thread in self._threads:
                libc.pthread_join(thread, None)
            self._threads.clear()
            self["workers"] = 0


@cache
def pool() -> Pool:
    """The pool of this process, made at the first use; it has no workers until they are needed."""
    return Pool()
