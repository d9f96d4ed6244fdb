"""Where the user made something: file:line outside the package, and the naming scopes around it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parent.parent) + "/"
_scope: ContextVar[tuple[str, ...]] = ContextVar("symgrad_scope", default=())

Origin = tuple[str, int]


def user_line() -> Origin | None:
    """(file, line) of the innermost frame outside symgrad, or None."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE) and not name.startswith(("<frozen", "<string>")):
            return name, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None


def show(origin: Origin | None) -> str:
    """`model.py:12`, or `unknown place`."""
    return f"{origin[0]}:{origin[1]}" if origin else "unknown place"


def current_scope() -> str:
    """The path of open scopes, such as `net/block1`."""
    return "/".join(_scope.get())


@contextmanager
def root_scope() -> Iterator[None]:
    """No scope for the body of a `with` statement, whatever is open around it."""
    token = _scope.set(())
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def scope(name: str) -> Iterator[str]:
    """Names what is built inside: nodes made in the body lie in `outer/name`.

    Selectors such as `sg.within("net/block1/*")` match these paths.
    """
    token = _scope.set((*_scope.get(), str(name)))
    try:
        yield current_scope()
    finally:
        _scope.reset(token)
