"""Graphs as networks, DOT text, listings and pages."""

from __future__ import annotations

import pickle
import re
from html.parser import HTMLParser

import networkx
import numpy as np
import pytest

import symgrad as sg
import symgrad.tensor as T


def guided(g, y, x):
    return g * (x > 0) * (g > 0)


@pytest.fixture
def model():
    """(image, score, heat): two ReLUs in scopes of their own; the rule applies to the first alone."""
    x = T.tensor("x", (2, 4))
    with sg.scope("below"):
        h = T.relu(x * 2)
    with sg.scope("above"):
        score = T.sum(T.relu(h * h - 1))
    heat = sg.grad(score, x, overrides=[(sg.on(T.relu) & sg.within("below"), guided)])
    return x, score, heat


def test_network_is_the_graph(model):
    x, score, heat = model
    network = sg.viz.to_networkx([score, heat])
    assert networkx.is_directed_acyclic_graph(network)
    assert {n for n in network if not network.out_degree(n)} == {score.serial, heat.serial}
    assert network.nodes[x.serial]["op"] == "input" and network.nodes[x.serial]["type"] == "float32 (2, 4)"
    assert network.nodes[score.serial]["where"].endswith(f"test_viz.py:{model_line('score =')}")


def model_line(start):
    lines = open(__file__).read().splitlines()
    return next(k for k, line in enumerate(lines, 1) if line.strip().startswith(start))


def test_an_operand_used_twice_has_two_edges():
    x = T.vector("x")
    y = x * x
    edges = sg.viz.to_networkx(y).get_edge_data(x.serial, y.serial)
    assert sorted(edge["argument"] for edge in edges.values()) == [0, 1]


def test_only_the_overridden_node_carries_its_rule(model):
    x, score, heat = model
    network = sg.viz.to_networkx([score, heat])
    marked = [facts for _, facts in network.nodes(data=True) if facts["rule"]]
    assert [(facts["op"], facts["rule"], facts["scopes"]) for facts in marked] == [("relu", "guided", ("below",))]
    assert sum("overridden by guided" in line for line in sg.viz.text([score, heat]).splitlines()) == 1


def test_text_lists_inputs_before_users():
    x, w = T.matrix("x", shape=("n", 3)), sg.shared(np.ones((3, 2), "float32"), "w")
    text = sg.viz.text(T.sum(T.maximum(x @ w, 0), axis=1))
    assert [re.sub(r"  # .*", "", line) for line in text.splitlines()] == [
        "%0 = matmul(x, w) : float32 (n, 2)", "%1 = maximum(%0, 0.0) : float32 (n, 2)",
        "%2 = sum(%1, axis=(1,), keepdims=False) : float32 (n,)"]


def test_text_shows_what_a_step_of_a_loop_computes():
    x, w = T.tensor("x", (7, 3)), T.tensor("w", (3,))
    h = sg.scan(lambda xt, h: (T.tanh(xt + h * w), sg.until(T.sum(h) > 3)), sequences=2 * x, outputs_info=T.zeros((3,)))
    lines = [line.split("  #")[0].strip() for line in sg.viz.text(h).splitlines()]
    assert "%3.1 = add(%0[step], %3.0) : float32 (3,)" in lines
    assert "state0: %3.2, until: %3.4" in lines
    assert len(sg.viz.html(sg.function([x, w], h, backend="plain"))) > 1000


def test_text_tells_unnamed_leaves_apart():
    x, y = T.vector(shape=3), T.vector(shape=3)
    assert "add(input, input'2)" in sg.viz.text(x + y)


def test_dot_names_every_node_and_edge(model):
    _, score, heat = model
    dot, network = sg.viz.to_dot([score, heat]), sg.viz.to_networkx([score, heat])
    assert dot.count("fillcolor=\"") == len(network) and dot.count(" -> ") == network.number_of_edges()
    assert "overridden by guided" in dot


def test_dot_escapes_names():
    dot = sg.viz.to_dot(T.scalar('a "quoted" \\ name') + 1)
    assert r'a \"quoted\" \\ name' in dot


def test_plan_as_a_network(model):
    x, score, heat = model
    f = sg.function([x], [score, heat], backend="cpu")
    plan = sg.viz.plan(f)
    network = sg.viz.to_networkx(plan)
    kernels = [n for n, facts in network.nodes(data=True) if facts["kind"] == "kernel"]
    assert kernels == [k.name for k in plan.kernels]
    ends = [facts["label"] for n, facts in network.nodes(data=True) if not network.out_degree(n)]
    assert len(ends) == 2 and networkx.is_directed_acyclic_graph(network)
    assert "k0: " in sg.viz.to_dot(plan)


def test_reference_backend_has_no_plan(model):
    x, score, _ = model
    with pytest.raises(sg.BackendError, match="op by op"):
        sg.viz.plan(sg.function([x], score, backend="reference"))


class Tags(HTMLParser):
    """Counts tags by class, checks that they close, and collects what a browser would fetch."""

    void = {"meta", "rect", "line", "br"}

    def __init__(self, page):
        super().__init__()
        self.classes, self.fetched, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.classes.append(found.get("class"))
        self.fetched += [value for key, value in attributes if key in ("src", "href", "srcset", "data")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.classes.append(dict(attributes).get("class"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_has_all_stages_and_fetches_nothing(model, backend):
    x, score, heat = model
    f = sg.function([x], {"score": score, "heat": heat}, backend=backend, name="both")
    page = sg.viz.html(f)
    tags = Tags(page)
    assert not tags.open and not tags.fetched
    assert "url(" not in page and "@import" not in page and "<script" not in page
    assert tags.classes.count("overridden") == 1
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == ["Overrides", "Graph", *(["Plan", "Kernels"] if backend == "cpu" else [])]
    if backend == "cpu":
        assert page.count("<details>") == len(sg.viz.plan(f).kernels)


def test_page_escapes_names():
    x = T.scalar("<b>&x")
    page = sg.viz.html(sg.function([x], x + 1, backend="reference"))
    assert "<b>" not in page and "&lt;b&gt;&amp;x" in page


def test_page_of_a_large_graph_has_no_drawing():
    x = y = T.scalar("x")
    for _ in range(500):
        y = T.tanh(y)
    page = sg.viz.html(sg.function([x], y, backend="reference"))
    assert "<svg" not in page and page.count("tanh(") == 500


def test_pickled_function_still_has_a_page(model):
    x, score, heat = model
    f = pickle.loads(pickle.dumps(sg.function([x], [score, heat], backend="reference")))
    assert "guided" in sg.viz.html(f)
