"""The table of settings as Markdown, for the documentation."""

from __future__ import annotations

from symgrad.base.config import SETTINGS, Setting


def markdown() -> str:
    """One row per setting: name, environment variable, default, meaning."""
    head = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| `{row.name}` | `SYMGRAD_{row.name.upper()}` | {default(row)} | {row.meaning} |"
                               for row in SETTINGS.values())])


def default(row: Setting) -> str:
    """The default as text that is the same on every machine."""
    return "cores of the process" if row.name == "num_threads" else f"`{row.default}`"
