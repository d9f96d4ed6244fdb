"""Runs workloads in several libraries, process beside process: cold, then warm, then all of them in turns.

Every library has a process of its own for a workload, with a folder of its own for what it caches. The first process finds the folder
empty, the second finds it filled and stays. Then the processes take turns, so that whatever else the machine does is shared fairly.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .workloads import CASES

HERE = Path(__file__).parent
LIBRARIES = {"symgrad": "symgrad", "torch": "PyTorch", "torch_compile": "torch.compile", "jax": "JAX", "pytensor": "PyTensor"}
REFERENCE = "torch"                 # results are compared with its


@dataclass
class Cell:
    """What was measured of a library at a case: seconds per call and of starts, MiB; `error` where there was no result."""

    library: str
    case: str
    threads: int
    seconds: float = 0.0
    cold: float | None = None           # seconds from the imported library to the first result
    warm: float = 0.0
    importing: float = 0.0
    cold_mib: float | None = None       # the peak of the whole process, arrays and libraries included
    warm_mib: float = 0.0
    error: str = ""
    difference: float | None = None     # from the reference: the largest, relative to the largest entry


@dataclass(frozen=True)
class Plan:
    """How to measure: rounds of turns, seconds a turn, whether from an empty cache too, seconds a process may take to start.

    Rounds end early, after three, when they have taken longer than `budget` seconds for every three processes.
    """

    rounds: int = 11
    seconds: float = 0.15
    cold: bool = True
    limit: float = 240.0
    budget: float = 40.0
    small: bool = False
    pythons: Mapping[str, str] = field(default_factory=dict)

    def python(self, library: str) -> str:
        return self.pythons.get(library, sys.executable)


class Worker:
    """A process that has built a workload: `facts` of its start, then turns."""

    def __init__(self, library: str, case: str, threads: int, cache: Path, plan: Plan) -> None:
        self.outputs = cache / "outputs.npz"
        command = [plan.python(library), str(HERE / "worker.py"), library, case, "--threads", str(threads), "--outputs", str(self.outputs)]
        self.errors = open(cache / "errors.txt", "w+")
        self.process = subprocess.Popen([*command, *(["--small"] if plan.small else [])], env=environment(library, threads, cache), cwd=cache,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        late = threading.Timer(plan.limit, self.process.kill)
        late.start()
        try:
            self.facts = self._answer()
        except RuntimeError as error:
            raise error if late.is_alive() else RuntimeError(f"no result within {plan.limit:.0f} s") from None
        finally:
            late.cancel()

    def ask(self, line: str) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> float:
        """Let the process end. Returns the peak of its memory."""
        peak = self.ask("end")["peak_mib"]
        self.process.wait()
        self.errors.close()
        return peak

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        said = [line for line in self.errors.read().splitlines() if line.strip()]
        raise RuntimeError(said[-1] if said else f"the process ended with {self.process.returncode}")


def environment(library: str, threads: int, cache: Path) -> dict[str, str]:
    """Variables for a process: its threads, and every cache that lasts inside `cache`."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    env.update({f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "SYMGRAD")})
    env.update(SYMGRAD_CACHE_DIR=str(cache), NUMBA_CACHE_DIR=str(cache), TORCHINDUCTOR_CACHE_DIR=str(cache), TORCHINDUCTOR_COMPILE_THREADS="1",
               JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0", JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
               PYTENSOR_FLAGS=f"floatX=float32,base_compiledir={cache}")
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    if library == "symgrad":
        env["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), *filter(None, [env.get("PYTHONPATH")])])
    return env


def installed(library: str, python: str) -> bool:
    """Whether an interpreter has what a library's side imports."""
    module = library.split("_")[0]
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        return library == "symgrad" or subprocess.run([python, "-c", code], capture_output=True).returncode == 0
    except OSError:                 # no such interpreter
        return False


def measure(cases: Sequence[str], libraries: Sequence[str], threads: int, plan: Plan, echo: Callable[[Cell], None] = lambda cell: None) -> list[Cell]:
    """Every case in every library: a cell each, also where it failed. Cases that are compared with each other take turns too."""
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(CASES[case].beside or case, []).append(case)
    return [cell for group in groups.values() for cell in in_turns(group, libraries, threads, plan, echo)]


def in_turns(cases: Sequence[str], libraries: Sequence[str], threads: int, plan: Plan, echo: Callable[[Cell], None]) -> list[Cell]:
    """All libraries at these cases."""
    cells = [Cell(library, case, threads) for case in cases for library in libraries]
    running: dict[tuple[str, str], Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        for k, cell in enumerate(cells):
            cache = Path(folder) / str(k)
            cache.mkdir()
            try:
                if plan.cold:
                    first = Worker(cell.library, cell.case, threads, cache, plan)
                    cell.cold, cell.cold_mib = started(first.facts), first.end()
                warm = running[cell.case, cell.library] = Worker(cell.library, cell.case, threads, cache, plan)
                cell.warm, cell.importing = started(warm.facts), warm.facts["import_seconds"]
            except RuntimeError as error:
                cell.error = str(error)
        times = take_turns(list(running.values()), plan)
        for cell in cells:
            if worker := running.get((cell.case, cell.library)):
                cell.seconds, cell.warm_mib = statistics.median(times[worker]), worker.end()
                reference = running.get((cell.case, REFERENCE))
                if reference and not CASES[cell.case].random:
                    cell.difference = difference(worker.outputs, reference.outputs)
    for cell in cells:
        echo(cell)
    return cells


def take_turns(workers: Sequence[Worker], plan: Plan) -> dict[Worker, list[float]]:
    """Seconds per call of each, turn by turn."""
    times: dict[Worker, list[float]] = {worker: [] for worker in workers}
    begin = time.perf_counter()
    for done in range(plan.rounds):
        if done >= 3 and time.perf_counter() - begin > plan.budget * len(workers) / 3:
            break
        for worker in workers:
            times[worker].append(worker.ask(f"turn {plan.seconds}")["seconds"])
    return times


def started(facts: dict[str, float]) -> float:
    return facts["build_seconds"] + facts["first_call_seconds"]


def difference(got: Path, want: Path) -> float:
    """The largest difference between two sets of arrays, each relative to the largest entry of its array."""
    a, b = np.load(got), np.load(want)
    if a.files != b.files:
        return float("inf")
    gap = lambda x, y: float(np.abs(x - y).max() / max(float(np.abs(y).max()), 1e-30)) if x.shape == y.shape else float("inf")
    return max(gap(a[name].astype("f8"), b[name].astype("f8")) for name in b.files)


__all__ = ["LIBRARIES", "Cell", "Plan", "installed", "measure"]
