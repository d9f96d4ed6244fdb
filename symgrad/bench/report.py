"""Tables of what was measured, and their places in a page: between `<!-- bench NAME, generated -->` and `<!-- end -->`."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .turns import LIBRARIES, Cell
from .workloads import CASES

PLACE = r"(<!-- bench {name}, generated -->\n).*?(<!-- end -->)"
Table = list[list[str]]


def pages(cells: Sequence[Cell]) -> dict[str, str]:
    """The generated parts of a page that these cells have something to say on, by name."""
    parts = {"machine": machine(), "workloads": markdown(workloads())}
    for threads in {c.threads for c in cells}:
        parts[f"times {threads}"] = markdown(time_table([c for c in cells if c.threads == threads]))
    if len(compared := ratios(cells)) > 1:
        parts["ratios"] = markdown(compared)
    if cold := [c for c in cells if c.cold is not None]:
        parts |= {"starts": markdown(starts(cold)), "memory": markdown(memory(cold))}
    return parts


def write(path: Path, parts: Mapping[str, str]) -> list[str]:
    """Rewrite the generated parts of a page that are given, nothing else. Returns the names of those it has."""
    text, found = path.read_text(), []
    for name, part in parts.items():
        place = re.compile(PLACE.format(name=name), re.S)
        if place.search(text):
            text = place.sub(lambda m, part=part: f"{m[1]}{part}\n{m[2]}", text)
            found.append(name)
    path.write_text(text)
    return found


# ---------------------------------------------------------------------------------------------------------- tables
def machine() -> str:
    """Processor, cores, versions and date."""
    names = [f"{name} {found}" for name in ("numpy", "numba", "llvmlite", "torch", "jax", "pytensor") if (found := installed_version(name))]
    return (f"{time.strftime('%d %B %Y')}; {processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {', '.join(names)}; "
            f"load {os.getloadavg()[0]:.1f} at the end.")


def workloads() -> Table:
    return [["name", "what is computed"], *([f"`{case.name}`", case.computes] for case in CASES.values())]


def times(cells: Sequence[Cell]) -> str:
    """A table of times per call for each number of threads."""
    of = {threads: [c for c in cells if c.threads == threads] for threads in sorted({c.threads for c in cells})}
    return "\n\n".join(f"{'One thread' if threads == 1 else f'{threads} threads'}:\n\n{markdown(time_table(own))}" for threads, own in of.items())


def time_table(cells: Sequence[Cell]) -> Table:
    peers = [library for library in LIBRARIES if library != "symgrad" and any(c.library == library for c in cells)]
    rows = [["workload", "symgrad", *(LIBRARIES[p] for p in peers), *(["best peer / symgrad", "difference"] if peers else [])]]
    for case, by in grouped(cells):
        own, theirs = by.get("symgrad"), [by[p].seconds for p in peers if p in by and not by[p].error]
        row = [case, *(shown(by.get(library), lambda c: duration(c.seconds)) for library in ("symgrad", *peers))]
        if peers:
            row.append(f"{min(theirs) / own.seconds:.2f}" if theirs and own and not own.error else "")
            row.append(f"{own.difference:.0e}" if own and own.difference is not None else "")
        rows.append(row)
    return rows


def ratios(cells: Sequence[Cell]) -> Table:
    """What an override costs, and what a closed circuit saves."""
    of = {(c.case, c.library, c.threads): c.seconds for c in cells if not c.error and c.seconds}
    pairs = (("guided gradient / ordinary gradient", "vgg", "vgg plain"), ("batch 4, one circuit off / both on", "gated4 off", "gated4"),
             ("batch 128, one circuit off / both on", "gated128 off", "gated128"))
    libraries = [library for library in LIBRARIES if any(c.library == library for c in cells)]
    rows = [["ratio of times", *(LIBRARIES[library] for library in libraries)]]
    for name, above, below in pairs:
        values = [(of.get((above, library, 1)), of.get((below, library, 1))) for library in libraries]
        if any(a and b for a, b in values):
            rows.append([name, *(f"{a / b:.2f}" if a and b else "-" for a, b in values)])
    return rows


def starts(cells: Sequence[Cell]) -> Table:
    """Seconds to the first result: cold / warm."""
    return by_library(cells, lambda c: f"{c.cold:.2f} / {c.warm:.2f}")


def memory(cells: Sequence[Cell]) -> Table:
    """Peak MiB of the process: cold / warm."""
    return by_library(cells, lambda c: f"{c.cold_mib:.0f} / {c.warm_mib:.0f}")


def by_library(cells: Sequence[Cell], text: Callable[[Cell], str]) -> Table:
    libraries = [library for library in LIBRARIES if any(c.library == library for c in cells)]
    return [["workload", *(LIBRARIES[library] for library in libraries)],
            *([case, *(shown(by.get(library), text) for library in libraries)] for case, by in grouped(cells))]


def grouped(cells: Sequence[Cell]) -> list[tuple[str, dict[str, Cell]]]:
    cases = dict.fromkeys(c.case for c in cells)
    return [(case, {c.library: c for c in cells if c.case == case}) for case in cases]


def shown(cell: Cell | None, text: Callable[[Cell], str]) -> str:
    return "-" if cell is None or cell.error else text(cell)


def failures(cells: Sequence[Cell]) -> list[str]:
    return [f"{c.library} has no result for {c.case}: {c.error}" for c in cells if c.error]


# ------------------------------------------------------------------------------------------------------------ text
def markdown(table: Table) -> str:
    """A table in Markdown, aligned for eyes too; numbers to the right."""
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths))) + " |" for row in table]
    rule = "|" + "|".join("-" * (w + 2) if k == 0 else "-" * (w + 1) + ":" for k, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} us"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
