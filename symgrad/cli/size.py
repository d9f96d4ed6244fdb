"""`symgrad size`: how long the files are. It informs a review and fails nothing."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import symgrad
from symgrad.cli.text import table

_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENDMARKER}


def report(folder: Path | None = None) -> str:
    """A table of files with lines of code and tokens per line, longest first, with the total."""
    folder = folder or Path(symgrad.__file__).parent
    counts = {path.relative_to(folder).as_posix(): count(path.read_text()) for path in folder.rglob("*.py")}
    rows = [(name, lines, f"{tokens / max(lines, 1):.1f}") for name, (lines, tokens) in
            sorted(counts.items(), key=lambda item: -item[1][0])]
    lines, tokens = (sum(column) for column in zip(*counts.values()))
    total = (f"{len(rows)} files", lines, f"{tokens / lines:.1f}")
    return table([("file", "lines", "tokens/line"), *rows, total])


def count(source: str) -> tuple[int, int]:
    """Lines with code on them and tokens, without comments, docstrings and blank lines."""
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in _LAYOUT]
    tokens = [t for t in tokens if not _is_docstring(t)]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)}), len(tokens)


def _is_docstring(token: tokenize.TokenInfo) -> bool:
    """A string that starts its line and ends it is no part of an expression."""
    return token.type == tokenize.STRING and token.line.lstrip().startswith(token.string.splitlines()[0]) \
        and token.string[-3:] in ('"""', "'''")
