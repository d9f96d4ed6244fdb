"""Graphs and plans as DOT text, for graphviz and the many tools that read it."""

from __future__ import annotations

from typing import Any

from symgrad.viz.network import to_networkx

OVERRIDDEN, LEAF, KERNEL = "#f4b183", "#dbe9f6", "#e2efda"


def to_dot(graph: Any) -> str:
    """DOT text of a graph or a plan; nodes with an overridden gradient are filled and say by which rule."""
    network = to_networkx(graph)
    numbers = {node: k for k, node in enumerate(network)}
    out = ["digraph {", '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="monospace"]']
    for node, facts in network.nodes(data=True):
        words = [facts["label"], facts.get("type"), facts["rule"] and f"overridden by {facts['rule']}"]
        out.append(f"  n{numbers[node]} [label={quoted(*filter(None, words))}, fillcolor={quoted(colour(network, node))}]")
    for a, b, facts in network.edges(data=True):
        several = network.in_degree(b) > 1 and "argument" in facts
        out.append(f"  n{numbers[a]} -> n{numbers[b]}" + (f" [label={quoted(str(facts['argument']))}]" if several else ""))
    return "\n".join([*out, "}"])


def colour(network: Any, node: Any) -> str:
    """Orange for overridden nodes, blue for what nothing computes, green for kernels, white for the rest."""
    facts = network.nodes[node]
    if facts["rule"]:
        return OVERRIDDEN
    if facts.get("kind") == "kernel":
        return KERNEL
    return LEAF if not network.in_degree(node) else "#ffffff"


def quoted(*words: str) -> str:
    """A DOT string, one word per line."""
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words]
    return '"' + "\\n".join(escaped) + '"'
