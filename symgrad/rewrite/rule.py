"""Rewrite rules and the books that hold them.

    rule = (left, right, when(condition)?, claim*, examples?, "note"?)
    law  = a function from a node to an equal, cheaper node, or None

What a rule claims is tested for every rule: by default both sides are the same bits for every input, NaN
and infinities included.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..graph.node import Node
from ..ops.row import ROWS
from .pattern import Found, Match, Pattern, build, fitted, lifted, matcher, ops_of_operands, orders, parameters


# ------------------------------------------------------------------------------- conditions and claims
class When:
    """A side condition. Parameters are named like the variables; `node` is the root, `uses(x)` how often a node is read."""

    def __init__(self, condition: Callable[..., bool]):
        self.condition, self.names = condition, parameters(condition)

    def __call__(self, found: Found) -> bool:
        return self.condition(*(found[n] for n in self.names))


def when(condition: Callable[..., bool]) -> When:
    return When(condition)


@dataclass(frozen=True)
class Claim:
    """How close both sides are where they are not the same bits."""

    word: str
    values: tuple[float, ...] = ()


ROUNDING = Claim("rounding")  # equal up to a few roundings
ZERO_SIGN = Claim("zero sign")  # 0.0 may become -0.0
TRUER = Claim("true")  # nearer to the true value than the left side: judged against float64


def except_at(*values: float) -> Claim:
    """Both sides differ at these inputs."""
    return Claim("except", values)


@dataclass(frozen=True)
class Examples:
    """Shapes of variables and values of attributes that the tests try, one dict per case."""

    cases: tuple[dict[str, Any], ...]


def examples(*cases: dict[str, Any]) -> Examples:
    return Examples(cases)


# ---------------------------------------------------------------------------------------------- rules
@dataclass(eq=False)
class Rule:
    """One law. `apply(node, uses)` is the node on the right side, or None where the left side does not match."""

    book: str
    left: Pattern | None
    right: Pattern | None
    condition: When | None = None
    note: str = ""
    claims: tuple[Claim, ...] = ()
    cases: tuple[dict[str, Any], ...] = ()
    law: Callable[[Node], Node | None] | None = None
    roots: Any = None  # ops a law looks at: names, or a predicate of an op
    line: tuple[str, int] = ("", 0)
    samples: Callable[[], Sequence[Node]] | None = None

    def __post_init__(self) -> None:
        if self.left is not None:
            self.line = self.left.line

    @cached_property
    def matchers(self) -> list[Match]:
        """One per order of commuting operands; made when a node of the root's op is first met."""
        return [matcher(p) for p in self.lefts]

    @cached_property
    def lefts(self) -> list[Pattern]:
        """The left side in every order of commuting operands."""
        return orders(self.left) if self.left is not None else []

    @cached_property
    def operands(self) -> list[tuple[int, list[tuple[int, frozenset[Any]]]]]:
        """Per order of the left side: how many operands there are, and of which ops some must be."""
        return [(len(p.arguments), ops_of_operands(p)) for p in self.lefts]  # type: ignore[attr-defined]

    def looks_at(self, row: Any, *inputs: Any) -> bool:
        """Whether nodes of this op, on nodes of those ops, may be the left side."""
        if self.left is not None:
            return row is ROWS.get(self.left.name) and any(all(inputs[k] in ops for k, ops in known) for n, known in self.operands if n == len(inputs))  # type: ignore[attr-defined]
        return self.roots(row) if callable(self.roots) else row.name in self.roots

    def apply(self, node: Node, uses: Callable[[Node], int] = lambda x: 1) -> Node | None:
        if self.law is not None:
            return fitted(self.law(node), node)
        for match in self.matchers:
            found: Found = {}
            if match(node, found):
                found.update(node=node, uses=uses)
                if self.condition is None or self.condition(found):
                    return fitted(build(self.right, found, node.dtype), node)  # type: ignore[arg-type]
        return None

    def claims_word(self, word: str) -> bool:
        return any(c.word == word for c in self.claims)

    @property
    def where(self) -> str:
        return f"{self.line[0].rsplit('/', 1)[-1]}:{self.line[1]}"

    def __str__(self) -> str:
        what = f"{self.left!r} -> {self.right!r}" if self.law is None else self.law.__name__
        return f"{self.book}: {what}"


class RuleBook:
    """Rules by name, in the order they are tried. `default` claims hold for every rule in it."""

    def __init__(self, name: str, laws: Sequence[tuple] = (), default: Sequence[Claim] = ()):
        self.name, self.default = name, tuple(default)
        self.rules: list[Rule] = [self._rule(*law) for law in laws]

    def _rule(self, left: Pattern, right: Any, *more: Any) -> Rule:
        pick = lambda kind: [m for m in more if isinstance(m, kind)]
        return Rule(
            self.name,
            left,
            lifted(right),
            next(iter(pick(When)), None),
            " ".join(pick(str)),
            (*self.default, *pick(Claim)),
            tuple(c for e in pick(Examples) for c in e.cases),
        )

    def law(self, *roots: Any, samples: Callable[[], Sequence[Node]], claims: Sequence[Claim] = ()) -> Callable:
        """Decorator: a function of a node as a rule, for laws that are no pattern. `roots` are op names, or one predicate of an op."""

        def add(function: Callable[[Node], Node | None]) -> Callable[[Node], Node | None]:
            code = function.__code__
            predicate = roots[0] if callable(roots[0]) else frozenset(roots)
            self.rules.append(
                Rule(
                    self.name,
                    None,
                    None,
                    note=inspect.getdoc(function) or "",
                    claims=(*self.default, *claims),
                    law=function,
                    roots=predicate,
                    line=(code.co_filename, code.co_firstlineno),
                    samples=samples,
                )
            )
            return function

        return add

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __repr__(self) -> str:
        return f"{self.name} ({len(self.rules)} rules)"
