"""The books, and the passes they make."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from ..base.config import config
from ..graph.node import Node
from .algebra import algebra
from .constants import constants
from .engine import rewrite, table_of_hits
from .parts import parts
from .rule import Rule, RuleBook
from .shapes import shapes
from .stable import stable
from .unsafe import unsafe

SAFE: tuple[RuleBook, ...] = (constants, shapes, parts, stable, algebra)
BOOKS: tuple[RuleBook, ...] = (*SAFE, unsafe)


def every_rule() -> Iterator[Rule]:
    """Every rule of every book, in the order they are tried."""
    for book in BOOKS:
        yield from book


def _simplified(outputs: Sequence[Node], books: Sequence[RuleBook]) -> list[Node]:
    hits: Counter[Rule] = Counter()
    result = rewrite(outputs, books, hits)
    if config.debug >= 3 and hits:
        print(table_of_hits(hits), file=sys.stderr)
    return result


def simplify(outputs: Sequence[Node]) -> list[Node]:
    """Equal outputs that are cheaper to compute: constants folded, movement joined, unstable forms replaced."""
    return _simplified(outputs, SAFE)


def simplify_unsafely(outputs: Sequence[Node]) -> list[Node]:
    """`simplify` with the laws that hold for real numbers only."""
    return _simplified(outputs, BOOKS)
