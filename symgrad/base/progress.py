"""A progress bar for work that turns out to be long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from .config import config

PATIENCE = 2.0              # seconds without a bar

Item = TypeVar("Item")


class Progress:
    """A bar over work in several parts, shown once it has taken PATIENCE seconds, if the setting `progress` allows.

    tqdm is imported only then. Use it as a context manager; `over` marks the parts.
    """

    def __init__(self, label: str, total: float) -> None:
        self.label, self.total, self.done = label, total, 0.0
        self.start = time.perf_counter()
        self.bar: Any = None

    def over(self, items: Collection[Item], share: float | None = None) -> Iterator[Item]:
        """The items, which are together `share` of the total (default: one each), one after the other."""
        step = (len(items) if share is None else share) / max(len(items), 1)
        for item in items:
            yield item
            self._advance(step)

    def _advance(self, step: float) -> None:
        self.done += step
        if self.bar is None and time.perf_counter() - self.start > PATIENCE and config.progress != "off":
            self.bar = _tqdm()(desc=self.label, total=self.total, initial=round(self.done - step, 6), leave=False, file=sys.stderr,
                               disable=None if config.progress == "auto" else False, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}")
        if self.bar is not None:
            self.bar.update(step)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _tqdm() -> Callable[..., Any]:
    from tqdm import tqdm
    return tqdm
