"""One self-contained HTML page per function: its graph, its plan, its kernels. Loads nothing from anywhere."""

from __future__ import annotations

from html import escape
from typing import Any

from symgrad.schedule.report import table
from symgrad.viz.drawing import svg
from symgrad.viz.listing import Line, lines
from symgrad.viz.network import plan, to_networkx

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222 }
pre, .listing { font: 12.5px/1.5 ui-monospace, monospace; background: #f6f6f6; padding: .8em; overflow-x: auto; white-space: pre }
.overridden { background: #f4b183 } .where { color: #777 } .drawing { overflow: auto; max-height: 80vh; border: 1px solid #ddd }
summary { font-family: ui-monospace, monospace; cursor: pointer; margin: .3em 0 }
"""


def html(f: Any) -> str:
    """The page of a compiled function: receipts, graph as drawing and as text, plan, kernels.

    Nodes whose gradient a rule replaced are coloured. Write it with `Path("f.html").write_text(sg.viz.html(f))`.
    """
    listing = lines(f)
    sections = [
        ("Overrides", block("\n\n".join(map(str, f.receipts)) or "no gradient was overridden")),
        ("Graph", drawing(to_networkx(f)) + f'<div class="listing">{"".join(map(listed, listing))}</div>'),
        *stages(f),
    ]
    body = "\n".join(f"<h2>{title}</h2>\n{content}" for title, content in sections)
    title = escape(repr(f))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>\n'
            f"<body><h1>{title}</h1>\n{body}\n</body></html>\n")


def stages(f: Any) -> list[tuple[str, str]]:
    """Plan and kernels, where the backend has them."""
    if not hasattr(f.executable, "latest"):
        return []
    compiled = plan(f)
    kernels = "\n".join(f"<details><summary>{escape(k.name)}: {escape(k.what)}</summary>{block(k.text)}</details>" for k in compiled.kernels)
    return [("Plan", drawing(to_networkx(compiled)) + block(table(compiled))), ("Kernels", kernels)]


def drawing(network: Any) -> str:
    """The network without its constants, which the text shows better."""
    picture = svg(network.subgraph(n for n, facts in network.nodes(data=True) if facts.get("op") != "constant"))
    return f'<div class="drawing">{picture}</div>\n' if picture else ""


def listed(line: Line) -> str:
    """One line of the graph; the user's line in grey, overridden nodes marked."""
    code, _, where = line.text.partition("  # ")
    name = "overridden" if line.rule else "node"
    return f'<div class="{name}">{escape(code)}  <span class="where"># {escape(where)}</span></div>'


def block(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"
