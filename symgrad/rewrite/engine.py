"""The driver: rules to a fixed point, inputs before users, each node once. Nothing is recursive and
nothing is visited again.

Every rule makes its node lighter, or moves negations and broadcasts outwards (`measure`), so there is an
end; a pair of rules that undo each other is reported instead of looping.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from ..base.config import config
from ..base.errors import CompileError, four_parts
from ..graph.node import ITEM, Node, Op, is_leaf, make
from ..graph.types import TupleType
from ..graph.walk import consumers, copy_notes, order, resized
from .rule import Rule, RuleBook

HITS_PER_NODE = 20  # for one rule; far above what lawful rules need


class Rewriter:
    """One run of some books over one graph. `hits` counts how often each rule fired."""

    def __init__(self, books: Sequence[RuleBook]):
        self.rules = [rule for book in books for rule in book]
        self.by_ops: dict[tuple[Op, ...], list[Rule]] = {}
        self.hits: Counter[Rule] = Counter()
        self.done: dict[Node, Node] = {}
        self.next: dict[Node, Node] = {}  # what a node has been replaced by, before that is simplified itself
        self.read: dict[Node, int] = {}
        self.noted: set[Node] = set()
        self.newest = self.limit = 0

    def __call__(self, outputs: Sequence[Node]) -> list[Node]:
        nodes = order(outputs)
        readers = consumers(nodes)
        self.read = {n: len(readers[n]) for n in nodes}
        for y in outputs:
            self.read[y] += 1
        self.newest = max((n.serial for n in nodes), default=0)
        self.limit = HITS_PER_NODE * (len(nodes) + 20)
        self._settle(outputs)
        return [self.done[y] for y in outputs]

    def _settle(self, outputs: Sequence[Node]) -> None:
        stack, awaited = list(reversed(outputs)), set()
        while stack:
            node = stack[-1]
            if node in self.done:
                stack.pop()
                continue
            new = self.next.get(node)
            if new is not None:
                if new in self.done:
                    self.done[node] = self.done[new]
                    stack.pop()
                elif node in awaited:
                    raise self._endless()
                else:
                    awaited.add(node)
                    stack.append(new)
                continue
            waiting = [x for x in node.deps if x not in self.done]
            if waiting:
                stack.extend(reversed(waiting))
                continue
            new = self._once(node)
            if new is node:
                self.done[node] = node
                stack.pop()
            else:
                self.next[node] = new
                self.read.setdefault(new, self.read.get(node, 1))
                self._take_notes(new, node)

    def _once(self, node: Node) -> Node:
        """The node on its simplified inputs; or, where those are the same already, what the first rule that fires makes of it."""
        inputs = [self.done[x] for x in node.inputs]
        attrs = node.attrs if len(node.deps) == len(inputs) else resized(node.attrs, {}, self.done)
        if attrs is not node.attrs or any(a is not b for a, b in zip(inputs, node.inputs)):
            return make(node.op, inputs, **attrs)
        if isinstance(node._type, TupleType) or node.op is ITEM:
            return node
        for rule in self._rules_for(node):
            new = rule.apply(node, self._uses)
            if new is not None and new is not node:
                self._count(rule, node, new)
                return new
        return node

    def _rules_for(self, node: Node) -> list[Rule]:
        """The rules that the ops of the node and of its inputs do not rule out."""
        ops = (node.op, *(x.op for x in node.inputs))
        found = self.by_ops.get(ops)
        if found is None:
            found = self.by_ops[ops] = [rule for rule in self.rules if rule.looks_at(*ops)]
        return found

    def _uses(self, node: Node) -> int:
        """How often the node is read in the graph that came in; a node made on the way, as often as what it replaced."""
        return self.read.get(node, 1)

    def _take_notes(self, new: Node, old: Node) -> None:
        """Nodes made on the way take over the user's line and the scopes of what they stand for."""
        todo = [new]
        while todo:
            node = todo.pop()
            if node.serial > self.newest and node not in self.noted and not is_leaf(node):
                self.noted.add(node)
                label = node.notes.label
                copy_notes(node, old)
                if node is not new:
                    node.notes.label = label
                todo.extend(node.inputs)

    def _count(self, rule: Rule, node: Node, new: Node) -> None:
        self.hits[rule] += 1
        if config.debug >= 6:
            print(
                f"[symgrad] {rule.where:<18} {rule}: {node.op.name} {node._type} -> {new.op.name}  # {node.where}",
                file=sys.stderr,
            )
        if self.hits[rule] > self.limit:
            raise self._endless()

    def _endless(self) -> CompileError:
        often = [f"{rule.where} {rule}, {n} times" for rule, n in self.hits.most_common(4)]
        return CompileError(
            four_parts(
                "rewriting that comes to an end",
                ["rules that undo each other; the busiest are:", *often],
                attempt="report this with sg.graph_text of the outputs",
            )
        )


def rewrite(
    outputs: Sequence[Node], books: Sequence[RuleBook], hits: Counter[Rule] | None = None
) -> list[Node]:
    """Equal outputs that no rule of the books applies to. `hits`, when given, is told how often each rule fired."""
    run = Rewriter(books)
    result = run(outputs)
    if hits is not None:
        hits.update(run.hits)
    return result


def table_of_hits(hits: Counter[Rule]) -> str:
    """One line per rule that fired, the busiest first."""
    return "\n".join(f"{n:>6}  {rule.where:<18} {rule}" for rule, n in hits.most_common())
