"""The error types and the four-part message: what was asked, what was found, where, what to try."""

from __future__ import annotations

from collections.abc import Iterable


class SymgradError(Exception):
    """Base of every error symgrad raises on purpose."""


class ShapeError(SymgradError, ValueError):
    """Sizes or ranks that do not fit together."""


class DTypeError(SymgradError, TypeError):
    """A dtype that an operation cannot take, or a conversion that would lose information."""


class DisconnectedError(SymgradError, ValueError):
    """A gradient was asked for something the cost does not depend on."""


class MissingInputError(SymgradError, ValueError):
    """A compiled function needs a value that is not among its inputs."""


class UnusedInputError(SymgradError, ValueError):
    """A declared input does not influence any output."""


class OverrideError(SymgradError, ValueError):
    """A gradient override that cannot be honoured as written."""


class UnusedOverrideError(OverrideError):
    """A selector of an override matched no node."""


class NanError(SymgradError, FloatingPointError):
    """An operation produced NaN or Inf while `check="nan"` was on."""


class CompileError(SymgradError, RuntimeError):
    """A kernel could not be compiled."""


class BackendError(SymgradError, RuntimeError):
    """A backend is missing, unknown or cannot run this graph."""


def four_parts(asked: str, found: str | Iterable[str] = (), where: str | None = None, attempt: str | None = None) -> str:
    """The text of an error: asked on the first line, then found, where and what to try, each on its own line.

    Parts that are not known are left out.
    """
    found = [found] if isinstance(found, str) else list(found)
    lines = [asked, *(f"  found: {line}" if k == 0 else f"         {line}" for k, line in enumerate(found))]
    if where:
        lines.append(f"  where: {where}")
    if attempt:
        lines.append(f"  try:   {attempt}")
    return "\n".join(lines)


def close_match(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or nothing."""
    from difflib import get_close_matches  # only mistakes need it
    near = get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
