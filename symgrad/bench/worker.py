"""One workload in one library, in a process of its own that answers to lines: `python worker.py LIBRARY CASE`.

It reports as lines of JSON. First, once the workload is built and was called: seconds of the import, of building and of the first
call, and resident memory. Then for every line "turn SECONDS" the median time of a call over about so long, and for "end" the peak of
memory. What was computed goes to the file named by --outputs.

The file is run by its path and loads its neighbours without symgrad, so that the memory of a peer's process is the peer's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

BATCH = 2e-3        # seconds of calls between two looks at the clock


def neighbour(name: str) -> Any:
    """A module of this folder, without importing the package around it."""
    if "bench_alone" not in sys.modules:
        package = ModuleType("bench_alone")
        package.__path__ = [str(Path(__file__).parent)]
        sys.modules["bench_alone"] = package
    return importlib.import_module(f"bench_alone.{name}")


def memory_mib(key: str) -> float:
    """Resident memory of this process: VmRSS now, VmHWM at its peak; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), 0.0)


def turn(call: Any, seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """The median time of a call, of as many batches of calls as fit. A call before them is not counted, if it is short."""
    first = batch(call, 1, clock)
    times, count = ([first] if first > seconds / 4 else []), max(1, int(BATCH / max(first, 1e-9)))
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < seconds:
        times.append(batch(call, count, clock))
    return {"seconds": statistics.median(times), "calls": count * len(times)}


def batch(call: Any, count: int, clock: Callable[[], float]) -> float:
    """Seconds of one of `count` calls."""
    start = clock()
    for _ in range(count):
        call()
    return (clock() - start) / count


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("case")
    parser.add_argument("--outputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    if options.library.startswith("torch"):
        import torch
        torch.set_num_threads(options.threads)
    library, case = neighbour(f"in_{options.library}"), neighbour("workloads").CASES[options.case]
    imported, before = time.perf_counter(), memory_mib("VmRSS")
    run = case.build(library, **case.sizes | (case.small if options.small else {}))
    built = time.perf_counter()
    result = run.call()
    called = time.perf_counter()
    if options.outputs:
        import numpy as np
        np.savez(options.outputs, *run.outputs(result))
    del result
    say(import_seconds=imported - start, build_seconds=built - imported, first_call_seconds=called - built, imported_mib=before,
        peak_mib=memory_mib("VmHWM"))
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "end":
            break
        # with one thread, the processor's time: a busy machine stretches long calls, and leaves those alone that fit between its turns
        say(**turn(run.call, float(numbers[0]), time.process_time if options.threads == 1 else time.perf_counter))
    say(peak_mib=memory_mib("VmHWM"))


if __name__ == "__main__":
    main()
