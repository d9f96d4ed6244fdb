"""Pictures of graphs and plans: for analysis (NetworkX), for graphviz (DOT text), for people (one HTML page).

All of them take a variable, a list of variables, a compiled function, or a plan (`sg.viz.plan(f)`).
"""

from symgrad.viz.dot import to_dot
from symgrad.viz.listing import text
from symgrad.viz.network import plan, to_networkx
from symgrad.viz.page import html

__all__ = ["html", "plan", "text", "to_dot", "to_networkx"]
