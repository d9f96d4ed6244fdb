"""Every setting in one table. `config.NAME`, `with config(NAME=value):`, environment `SYMGRAD_NAME`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .errors import SymgradError, close_match, four_parts


def _boolean(text: str | bool) -> bool:
    if isinstance(text, bool):
        return text
    lowered = str(text).lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if str(text) not in allowed:
            raise ValueError(f"{text!r} is not one of {', '.join(allowed)}")
        return str(text)
    return parse


MOST_THREADS = 1024         # that a process may ask for


def _threads(text: str | int) -> int:
    count = int(text)
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"a number of threads is at least 1 and at most {MOST_THREADS}")
    return count


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Setting:
    """One row: name, default, how text becomes a value, meaning."""

    name: str
    default: Any
    parse: Callable[[Any], Any]
    meaning: str


SETTINGS = {row.name: row for row in (
    Setting("floatX", "float32", _one_of("float32", "float64"), "dtype of inputs and creation functions when none is given"),
    Setting("backend", "cpu", str, "backend of compiled functions when none is given"),
    Setting("num_threads", _cores(), _threads, "threads a compiled function may use"),
    Setting("cache_dir", None, lambda v: None if v is None else os.fspath(v), "folder of compiled kernels; None: the user's cache folder"),
    Setting("cache_size_mib", 1024, int, "size the kernel cache is pruned to"),
    Setting("front_end", "reader", _one_of("reader", "numba"), "what reads CPU kernels: the fast reader of their dialect, or Numba, its measure"),
    Setting("allow_winograd", True, _boolean, "3x3 convolutions may use Winograd's algorithm (error about 5e-5)"),
    Setting("allow_tf32", False, _boolean, "GPU matrix products may round inputs to TF32"),
    Setting("debug", 0, int, "0 silent ... 6 every rewrite"),
    Setting("dump", None, lambda v: None if v is None else os.fspath(v), "folder that the stages of every compile are written to; None: nowhere"),
    Setting("check", False, _boolean, "check the legality of every intermediate program"),
    Setting("progress", "auto", _one_of("auto", "on", "off"), "progress bars: auto shows them on a terminal"),
)}


class Config:
    """Access to the settings: attributes, a context manager, environment variables as defaults."""

    def __init__(self) -> None:
        # values are plain attributes: every call of a compiled function looks at some
        for row in SETTINGS.values():
            text = os.environ.get(f"SYMGRAD_{row.name}", os.environ.get(f"SYMGRAD_{row.name.upper()}"))
            vars(self)[row.name] = row.default if text is None else self._parsed(row.name, text)
        vars(self)["_watchers"] = {}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self._unknown(name))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in SETTINGS:
            raise AttributeError(self._unknown(name))
        self._put(name, self._parsed(name, value))

    def watch(self, name: str, call: Callable[[Any], None]) -> None:
        """Call `call(value)` at every change of a setting, for native code that has a copy of it."""
        self._watchers.setdefault(name, []).append(call)

    def _put(self, name: str, value: Any) -> None:
        vars(self)[name] = value
        for call in self._watchers.get(name, ()):
            call(value)

    @contextmanager
    def __call__(self, **changes: Any) -> Iterator[Config]:
        """Settings changed for the body of a `with` statement."""
        before = dict(vars(self))
        try:
            for name, value in changes.items():
                setattr(self, name, value)
            yield self
        finally:
            for name in changes.keys() & before.keys():
                self._put(name, before[name])

    def __repr__(self) -> str:
        width = max(map(len, SETTINGS))
        return "\n".join(f"{n:<{width}}  {vars(self)[n]!r:<12}  {s.meaning}" for n, s in SETTINGS.items())

    @staticmethod
    def _unknown(name: str) -> str:
        return f"symgrad has no setting {name!r}{close_match(name, SETTINGS)}"

    @staticmethod
    def _parsed(name: str, value: Any) -> Any:
        try:
            return SETTINGS[name].parse(value)
        except (ValueError, TypeError) as error:
            raise SymgradError(four_parts(f"setting {name} ({SETTINGS[name].meaning})", f"{value!r}: {error}",
                                          attempt=f"the default is {SETTINGS[name].default!r}")) from None


config = Config()
