"""`symgrad bench --kernels`: how near each class of kernel comes to what the machine can do."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from importlib.util import find_spec

import symgrad as sg
from symgrad.base.errors import BackendError, SymgradError, four_parts
from symgrad.testing.kernel_cases import cases
from symgrad.testing.kernel_times import Measured, measure

PEERS = ("torch",)


def kernels(only: str, seconds: float, peer: str | None, threads: int, echo: Callable[[str], None]) -> None:
    """One line per case as it is measured. `only`: classes to measure, glob patterns separated by commas.

    Raises SymgradError for patterns that fit no class, BackendError for a peer that is not installed.
    """
    kinds = list(dict.fromkeys(case.kind for case in cases()))
    patterns = only.split(",")
    chosen = [case for case in cases() if any(fnmatch(case.kind, pattern) for pattern in patterns)]
    if not chosen:
        raise SymgradError(four_parts("kernels to time", f"no class fits {only!r}", "--only", f"of {', '.join(kinds)}"))
    if peer is not None and (peer not in PEERS or not find_spec(peer)):
        raise BackendError(four_parts(f"times of {peer}", "it is not installed" if peer in PEERS else f"known are {', '.join(PEERS)}",
                                      "--peer", "leave --peer out to time symgrad alone"))
    if peer == "torch":
        import torch
        torch.set_num_threads(threads)
    echo(f"{'class':<14}{'case':<28}{'us':>10}{'rate':>9} {'':<8}{'of limit':>9}" + (f"{peer + ' us':>12}{'ratio':>7}" if peer else ""))
    with sg.config(num_threads=threads):
        for row in measure(chosen, seconds, peer):
            echo(line(row))


def line(row: Measured) -> str:
    """One measured case; the ratio is the peer's time over ours."""
    text = f"{row.case.kind:<14}{row.case.name:<28}{1e6 * row.seconds:10.1f}{row.rate:9.2f} {row.unit:<8}{100 * row.share:8.0f}%"
    return text + (f"{1e6 * row.peer:12.1f}{row.peer / row.seconds:7.2f}" if row.peer is not None else "")
