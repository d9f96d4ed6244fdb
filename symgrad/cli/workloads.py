"""`symgrad bench`: workloads beside other libraries, as tables and into a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from symgrad.base.errors import BackendError, SymgradError, close_match, four_parts
from symgrad.bench import report, scaling
from symgrad.bench.turns import LIBRARIES, Cell, Plan, installed, measure
from symgrad.bench.workloads import CASES

DEFAULT = ("torch", "jax")              # the others take minutes to compile


@dataclass(frozen=True)
class Options:
    """What to measure. `peers` None: those of the default that are installed."""

    cases: tuple[str, ...]
    peers: tuple[str, ...] | None
    threads: tuple[int, ...]
    seconds: float
    quick: bool
    pythons: Mapping[str, str]


def names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(filter(None, text.split(",")))


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def run(options: Options, write: Path | None, echo: Callable[[str], None], small: bool = False) -> None:
    """Measure, a line as each case is done, then tables; or the page's tables.

    Raises SymgradError for unknown cases, BackendError for libraries that are unknown or not installed.
    """
    if unknown := [case for case in options.cases if case not in CASES]:
        raise SymgradError(four_parts("workloads to time", f"no workload {unknown[0]!r}{close_match(unknown[0], CASES)}", "symgrad bench",
                                      f"of {', '.join(CASES)}"))
    turns = {"rounds": 5, "cold": False} if options.quick else {}
    plan = Plan(seconds=options.seconds, small=small, pythons=options.pythons, **turns)
    libraries = ("symgrad", *chosen(options.peers, plan))
    cells: list[Cell] = []
    for count in options.threads:
        # one thread has the starts and the memory; more threads are about times
        now = plan if count == min(options.threads) else replace(plan, cold=False)
        cells += measure(options.cases or tuple(CASES), libraries, count, now, lambda cell: echo(line(cell)))
    if write is None:
        echo("\n" + report.times(cells))
    else:
        parts = report.pages(cells) | ({} if options.quick else {"scaling": report.markdown(scaling.table())})
        echo(f"{write}: {', '.join(report.write(write, parts))}")


def chosen(peers: tuple[str, ...] | None, plan: Plan) -> list[str]:
    """The peers to measure, all installed."""
    if peers is None:
        return [peer for peer in DEFAULT if installed(peer, plan.python(peer))]
    for peer in peers:
        if peer not in LIBRARIES or not installed(peer, plan.python(peer)):
            found = "it is not installed" if peer in LIBRARIES else f"known are {', '.join(LIBRARIES)}"
            raise BackendError(four_parts(f"times of {peer}", found, "--peer", f"--python {peer}=PATH names an interpreter that has it"))
    return list(peers)


def line(cell: Cell) -> str:
    """One measured cell, or why there is none."""
    if cell.error:
        return f"{cell.case:<14}{cell.library:<14}no result: {cell.error[:90]}"
    cold = f"{cell.cold:8.2f}{cell.warm:8.2f} s{cell.cold_mib:8.0f}{cell.warm_mib:6.0f} MiB" if cell.cold is not None else f"{cell.warm:16.2f} s"
    return f"{cell.case:<14}{cell.library:<14}{cell.threads:>2}{report.duration(cell.seconds):>11}{cold}"
