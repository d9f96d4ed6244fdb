"""`symgrad explain SCRIPT`: runs a script unchanged and reports on every function it compiles."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import symgrad as sg


def run(script: Path, arguments: Sequence[str], write: Callable[[str], None]) -> None:
    """Runs the script as a program with these arguments; writes `f.explain()` of each function."""
    compile_function = sg.function
    count = 0

    def explained(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        f = compile_function(*args, **kwargs)
        count += 1
        write(f"--- function {count}{f' {f.name}' if getattr(f, 'name', None) else ''}\n{f.explain()}")
        return f

    argv = [str(script), *arguments]
    with mock.patch.object(sg, "function", explained), mock.patch.object(sys, "argv", argv):
        runpy.run_path(str(script), run_name="__main__")
    if not count:
        write(f"{script} compiled no function")
