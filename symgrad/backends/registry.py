"""Backends by name. A backend's module is imported when it is chosen."""

from __future__ import annotations

import importlib
from typing import Any

from ..base.errors import BackendError, close_match, four_parts
from ..base.origin import show, user_line

BACKENDS = {
    "cpu": "symgrad.backends.cpu.build",
    "cuda": "symgrad.backends.cuda.runtime",
    "cuda-emulated": "symgrad.backends.cuda.emulated",
    "plain": "symgrad.backends.plain_build",
    "reference": "symgrad.backends.reference",
}


def find(name: str) -> Any:
    """The module of a backend: it has `build(inputs, outputs) -> executable`. Raises BackendError for an unknown name."""
    if name not in BACKENDS:
        raise BackendError(four_parts(f"backend {name!r}", f"this version has {', '.join(BACKENDS)}{close_match(name, BACKENDS)}",
                                      show(user_line()), 'backend="cpu"'))
    return importlib.import_module(BACKENDS[name])
