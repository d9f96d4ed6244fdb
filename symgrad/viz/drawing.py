"""A layered drawing of a network as SVG text: rows by longest path, nodes near the mean of what they read."""

from __future__ import annotations

from html import escape
from typing import Any

import networkx

from symgrad.viz.dot import colour

WIDTH, HEIGHT, GAP, ROW = 116, 26, 14, 58          # pixels
LARGEST = 400                                      # nodes; beyond, a drawing explains nothing


def svg(network: Any) -> str:
    """The drawing, or an empty string for a network too large to look at."""
    if not 0 < len(network) <= LARGEST:
        return ""
    place = positions(network)
    width = max(x for x, _ in place.values()) + WIDTH + GAP
    height = max(y for _, y in place.values()) + HEIGHT + GAP
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" font-size="11">']
    for a, b in sorted(set(network.edges()), key=str):
        (x0, y0), (x1, y1) = place[a], place[b]
        parts.append(f'<line x1="{x0 + WIDTH / 2:.0f}" y1="{y0 + HEIGHT}" x2="{x1 + WIDTH / 2:.0f}" y2="{y1}" stroke="#999"/>')
    for node, facts in network.nodes(data=True):
        x, y = place[node]
        hint = "\n".join(filter(None, (facts["label"], facts.get("type"), facts.get("where"), facts["rule"] and f"overridden by {facts['rule']}")))
        label = facts["label"] if len(facts["label"]) <= 16 else facts["label"][:15] + "…"
        parts.append(f'<g><title>{escape(hint)}</title><rect x="{x:.0f}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" '
                     f'fill="{colour(network, node)}" stroke="#555"/><text x="{x + WIDTH / 2:.0f}" y="{y + 17}" '
                     f'text-anchor="middle">{escape(label)}</text></g>')
    return "\n".join([*parts, "</svg>"])


def positions(network: Any) -> dict[Any, tuple[float, int]]:
    """The upper left corner of every node."""
    rows = [list(row) for row in networkx.topological_generations(network)]
    place: dict[Any, tuple[float, int]] = {}
    for k, row in enumerate(rows):
        wish = {node: _mean([place[x][0] for x in network.predecessors(node)]) for node in row}
        row.sort(key=lambda node: wish[node])
        right = float(GAP)
        for node in row:
            x = max(right, wish[node])
            place[node] = (x, GAP + k * ROW)
            right = x + WIDTH + GAP
    return place


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
