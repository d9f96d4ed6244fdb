"""Times of symgrad, beside PyTorch where it is installed. One thread unless --threads says otherwise.

    python examples/benchmark.py call chain mlp vgg      workloads, both sides in turns
    python examples/benchmark.py start                   a new process to its first map: empty cache, then filled
    python examples/benchmark.py scaling                 chains of 1,000, 10,000 and 50,000 nodes
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec

WORKLOADS = ("call", "chain", "mlp", "vgg")


def median_times(calls, seconds):
    """The median time of each call in microseconds; they take turns, so that a busy machine is busy for all."""
    times = [[] for _ in calls]
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times[0]) < 3:
        for call, own in zip(calls, times):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [1e6 * statistics.median(own) for own in times]


def compare(names, seconds, threads):
    sides = [import_module("workloads.symgrad_side")]
    if find_spec("torch"):
        import torch
        torch.set_num_threads(threads)
        sides.append(import_module("workloads.torch_side"))
    print(f"{'workload':<10}{'symgrad us':>14}" + (f"{'PyTorch us':>14}{'ratio':>8}" if len(sides) > 1 else ""))
    for name in names:
        times = median_times([getattr(module, name)() for module in sides], seconds)
        print(f"{name:<10}" + "".join(f"{t:14.1f}" for t in times) + (f"{times[1] / times[0]:8.2f}" if len(times) > 1 else ""))


def start():
    """Seconds from the start of a process to the first guided map of a small network."""
    with tempfile.TemporaryDirectory() as cache:
        for state in ("empty cache", "filled cache"):
            begin = time.perf_counter()
            subprocess.run([sys.executable, __file__, "first"], check=True, env={**os.environ, "SYMGRAD_CACHE_DIR": cache})
            print(f"{state:<14}{time.perf_counter() - begin:6.2f} s")


def scaling(sizes=(1_000, 10_000, 50_000)):
    import symgrad as sg
    import symgrad.tensor as T
    print(f"{'nodes':>8}{'build s':>10}{'grad s':>10}{'compile s':>11}{'us/node':>9}")
    for nodes in sizes:
        marks = [time.perf_counter()]
        x = y = T.vector("x", shape=8)
        for _ in range(nodes // 3):
            y = T.tanh(y) * 1.01 + 0.1
        marks.append(time.perf_counter())
        g = sg.grad(T.sum(y), x)
        marks.append(time.perf_counter())
        sg.function([x], [y, g])
        build, grad, compile_ = (b - a for a, b in zip(marks, [*marks[1:], time.perf_counter()]))
        print(f"{nodes:>8}{build:10.2f}{grad:10.2f}{compile_:11.2f}{1e6 * (build + grad + compile_) / nodes:9.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=", ".join([*WORKLOADS, *OTHERS]))
    parser.add_argument("--seconds", type=float, default=5, help="for each workload")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if unknown := {*options.what} - {*WORKLOADS, *OTHERS}:
        parser.error(f"nothing called {', '.join(unknown)}")
    os.environ["OMP_NUM_THREADS"] = os.environ["SYMGRAD_NUM_THREADS"] = str(options.threads)
    if chosen := [name for name in WORKLOADS if name in options.what or not options.what]:
        compare(chosen, options.seconds, options.threads)
    for name in options.what:
        OTHERS.get(name, lambda: None)()


OTHERS = {"start": start, "scaling": scaling, "first": lambda: import_module("workloads.symgrad_side").small()()}

if __name__ == "__main__":
    main()
