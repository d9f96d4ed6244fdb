"""Gradient overrides: selectors, ordered rules, and the receipt of what they hit.

A rule is found for a node in this order: the overrides of this `grad` call, first match wins; the rule the block carries; the
body of the block; the op's own row. `Ruling.rule_for` is the only place that looks.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ..base.errors import OverrideError, UnusedOverrideError, close_match, four_parts
from ..base.origin import show, user_line
from ..graph.block import BlockFunction, OpFromGraph, is_call
from ..graph.node import Node, Op, is_leaf
from ..ops.row import ROWS
from .patterns import Pattern, relu

_OPS = Op.__module__.split(".")[0] + ".ops."


class Selector:
    """Says which nodes a rule replaces. Combine with `&`, `|` and `~`."""

    optional = False

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        """The inputs the rule will see if the node is selected, else None."""
        raise NotImplementedError

    def __and__(self, other: Any) -> Selector:
        return _And(self, selector(other))

    def __or__(self, other: Any) -> Selector:
        return _Or(self, selector(other))

    def __invert__(self) -> Selector:
        return _Not(self)


def declared_inputs(node: Node) -> tuple[Node, ...]:
    return node.inputs[:node.op.body.declared] if is_call(node) else node.inputs


@dataclass(frozen=True)
class on(Selector):
    """Nodes of one op: a row such as T.relu, a block function, or an OpFromGraph."""

    op: Any
    optional: bool = False

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        hit = node.op is self.op or (is_call(node) and node.op.body.owner is self.op)
        return declared_inputs(node) if hit else None

    def __repr__(self) -> str:
        return f"on({self.op!r})"


@dataclass(frozen=True)
class named(Selector):
    """Nodes whose name (that of the variable, block or op) matches a glob."""

    glob: str
    optional: bool = False

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        names = {node.name, node.op.name}
        return declared_inputs(node) if any(n and fnmatchcase(n, self.glob) for n in names) and not is_leaf(node) else None

    def __repr__(self) -> str:
        return f"named({self.glob!r})"


@dataclass(frozen=True)
class within(Selector):
    """Nodes built inside a scope whose path matches a glob: `within("block3/*")`, `within("*/conv1")`."""

    glob: str
    optional: bool = False

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        paths: set[str] = set()
        for path in node.notes.scopes:
            parts = path.split("/")
            paths.update("/".join(parts[:k]) for k in range(1, len(parts) + 1))
            paths.add(f"{path}/{node.name or node.op.name}")
        hit = not is_leaf(node) and any(fnmatchcase(p, self.glob) for p in paths)
        return declared_inputs(node) if hit else None

    def __repr__(self) -> str:
        return f"within({self.glob!r})"


@dataclass(frozen=True)
class matching(Selector):
    """Nodes for which a predicate of the variable is true."""

    predicate: Callable[[Node], bool]
    optional: bool = False

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        return declared_inputs(node) if not is_leaf(node) and self.predicate(node) else None

    def __repr__(self) -> str:
        return f"matching({getattr(self.predicate, '__name__', self.predicate)})"


@dataclass(frozen=True)
class like(Selector):
    """Nodes that mean the pattern, however they were written: `like(sg.patterns.relu)`."""

    pattern: Pattern
    optional: bool = False

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        return self.pattern.match(node)

    def __repr__(self) -> str:
        return f"like({self.pattern.name})"


class _And(Selector):
    def __init__(self, a: Selector, b: Selector) -> None:
        self.a, self.b, self.optional = a, b, a.optional or b.optional

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        first, second = self.a.bind(node), self.b.bind(node)
        if first is None or second is None:
            return None
        # a meaning is more specific than a place: it decides which inputs the rule sees
        return second if isinstance(self.b, like) else first

    def __repr__(self) -> str:
        return f"{self.a!r} & {self.b!r}"


class _Or(Selector):
    def __init__(self, a: Selector, b: Selector) -> None:
        self.a, self.b, self.optional = a, b, a.optional and b.optional

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        first = self.a.bind(node)
        return first if first is not None else self.b.bind(node)

    def __repr__(self) -> str:
        return f"{self.a!r} | {self.b!r}"


class _Not(Selector):
    def __init__(self, a: Selector) -> None:
        self.a = a

    def bind(self, node: Node) -> tuple[Node, ...] | None:
        return declared_inputs(node) if self.a.bind(node) is None and not is_leaf(node) else None

    def __repr__(self) -> str:
        return f"~{self.a!r}"


def selector(value: Any) -> Selector:
    """A selector from what users write: a selector, an op, a block, a pattern, or a glob for names."""
    if isinstance(value, Selector):
        return value
    if isinstance(value, Pattern):
        return like(value)
    if isinstance(value, str):
        return named(value)
    if isinstance(value, (Op, BlockFunction, OpFromGraph)):
        return on(value)
    name = getattr(value, "__name__", None)
    if name in ROWS and getattr(value, "__module__", "").startswith(_OPS):      # T.clip: a function in front of its row
        return on(ROWS[name])
    hint = "an op such as T.relu, a block, or sg.on / named / within / matching / like"
    raise OverrideError(four_parts("what an override applies to", f"{value!r}, which no node is made of", show(user_line()), hint))


class Overrides:
    """Ordered (selector, rule) pairs; the first that matches a node wins. `a + b` puts a's rules first.

    Takes a dict {op: rule} or a list of pairs; `name` appears in receipts.
    """

    def __init__(self, rules: Mapping[Any, Any] | Iterable[tuple[Any, Any]] | Overrides = (), name: str | None = None) -> None:
        inherited: str | None = rules.name if isinstance(rules, Overrides) else None
        pairs = rules.rules if isinstance(rules, Overrides) else rules.items() if isinstance(rules, Mapping) else rules
        self.rules: list[tuple[Selector, Any]] = [(selector(s), _checked_rule(rule)) for s, rule in pairs]
        self.name: str | None = name or inherited

    def __add__(self, other: Any) -> Overrides:
        other = Overrides(other)
        return Overrides([*self.rules, *other.rules], "+".join(filter(None, (self.name, other.name))) or None)

    def __repr__(self) -> str:
        return f"Overrides({self.name or len(self.rules)})"


def _checked_rule(rule: Any) -> Any:
    if callable(rule) or repr(rule) in ("sg.STOP", "sg.DEFAULT") or isinstance(rule, (list, tuple)):
        return rule
    raise OverrideError(four_parts("a gradient rule", f"{rule!r} is not callable", show(user_line()), "rule(g, y, *xs) -> cotangents"))


@dataclass(frozen=True)
class Hit:
    """One node that a rule replaced the gradient of."""

    rule: str
    rule_line: str
    node: str
    node_line: str
    selector: str
    serial: int = field(default=-1, compare=False, repr=False)      # of the node, in this process

    def __str__(self) -> str:
        return f"{self.rule:<16} -> {self.node:<20} made at {self.node_line}"


@dataclass
class Receipt:
    """Which rule of one `grad` call hit which node. Prints as a table; `counts` maps rule names to nodes hit."""

    name: str | None = None
    hits: list[Hit] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(h.rule for h in self.hits))

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __str__(self) -> str:
        if not self.hits:
            return "no gradient was overridden"
        total = ", ".join(f"{rule}: {n} node{'s' * (n != 1)}" for rule, n in self.counts.items())
        return "\n".join([f"overrides {self.name or ''}".rstrip() + f" ({total})", *(f"  {h}" for h in self.hits)])


def rule_name(rule: Any) -> str:
    return getattr(rule, "__name__", None) or type(rule).__name__ if callable(rule) else repr(rule)


def rule_line(rule: Any) -> str:
    code = getattr(inspect.unwrap(rule) if callable(rule) else rule, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else "built in"


def is_ordinary(rule: Any) -> bool:
    """Whether a rule gives the true derivative in its own way (as `checkpoint` does), so that nothing is overridden."""
    return getattr(rule, "is_ordinary", False)


class Ruling:
    """The overrides of one `grad` call, what they matched, and what they nearly matched."""

    def __init__(self, overrides: Any) -> None:
        self.overrides = Overrides(overrides or ())
        self.matched = [0] * len(self.overrides.rules)
        self.shadowed = [0] * len(self.overrides.rules)
        self.seen: list[Node] = []
        self.unreached: list[Node] = []
        self.receipt = Receipt(self.overrides.name)

    def rule_for(self, node: Node) -> tuple[Any, tuple[Node, ...]] | None:
        """(rule, the inputs it sees) for a node that has one, else None: the op's row or the block's body decides."""
        self.seen.append(node)
        found = None
        for k, (select, rule) in enumerate(self.overrides.rules):
            bound = select.bind(node)
            if bound is None:
                continue
            if found is None:
                self.matched[k] += 1
                found = (rule, bound)
                self.note(rule, node, repr(select))
            else:
                self.shadowed[k] += 1
        if found is not None:
            return None if repr(found[0]) == "sg.DEFAULT" else found
        if is_call(node) and node.op.body.vjp is not None:
            if not is_ordinary(node.op.body.vjp):
                self.note(node.op.body.vjp, node, "block")
            return node.op.body.vjp, declared_inputs(node)
        return None

    def note(self, rule: Any, node: Node, how: str) -> None:
        rules = rule if isinstance(rule, (list, tuple)) else [rule]
        label = node.name or node.op.name
        self.receipt.hits.append(Hit("/".join(map(rule_name, rules)), rule_line(rules[0]), label, node.where, how, node.serial))

    def check_used(self) -> None:
        """Raise for a selector that matched no node between the cost and the variables."""
        for k, (select, rule) in enumerate(self.overrides.rules):
            if self.matched[k] or select.optional:
                continue
            raise UnusedOverrideError(four_parts(
                f"the rule {rule_name(rule)} for {select!r}", self._near_misses(k, select), show(user_line()),
                "sg.on(op, optional=True) if that is intended"))

    def _near_misses(self, k: int, select: Selector) -> list[str]:
        lines = ["no node between the cost and the variables matches"]
        if self.shadowed[k]:
            lines.append(f"{self.shadowed[k]} nodes match, but an earlier rule took them")
        behind = sum(select.bind(n) is not None for n in self.unreached)
        if behind:
            lines.append(f"{behind} nodes match, but no gradient reaches them: the path is cut after them")
        counts = Counter(n.op.name for n in self.seen)
        if counts:
            lines.append("the path has " + ", ".join(f"{n} {name}" for name, n in counts.most_common(8)))
        wanted = getattr(getattr(select, "op", None), "name", None) or getattr(select, "glob", None)
        if wanted and (hint := close_match(wanted, counts)):
            lines.append(hint.removeprefix("; "))
        if wanted and "relu" in str(wanted).lower():
            disguised = [n for n in self.seen if relu.match(n) is not None]
            if disguised:
                lines.append(f"{len(disguised)} nodes mean relu but are written otherwise ({disguised[0].op.name} at {disguised[0].where}): "
                             "sg.like(sg.patterns.relu) finds them")
        if "within(" in repr(select):
            scopes = sorted({s for n in self.seen for s in n.notes.scopes})
            lines.append(f"scopes on the path: {', '.join(scopes[:8]) or 'none'}")
        walls = {n.op.name for n in self.seen if is_call(n) and n.op.body.vjp is not None and not is_ordinary(n.op.body.vjp)}
        if walls:
            lines.append(f"blocks with a rule of their own are not entered: {', '.join(sorted(walls))}")
        return lines


def takes_node(rule: Callable[..., Any]) -> bool:
    """Whether the rule's signature names a keyword `node`."""
    try:
        parameters: Sequence[inspect.Parameter] = list(inspect.signature(rule).parameters.values())
    except (TypeError, ValueError):
        return False
    return any(p.name == "node" and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
