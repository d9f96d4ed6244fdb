"""Layers point one way, heavy imports stay away, and the repository speaks of the project alone."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "symgrad"
# lower layers first; layers on one line may not import each other
ORDER = [{"base"}, {"graph", "loops"}, {"ops"}, {"grad", "rewrite"}, {"schedule"}, {"backends"}, {"runtime"},
         {"nn", "optim", "losses", "saliency", "onnx", "random", "control"}, {"testing", "viz", "bench"}, {"cli"}]
LEVEL = {name: k for k, names in enumerate(ORDER) for name in names}
# these spell out the public surface: they may import any layer, and only the layers above the ops may import them
PUBLIC = {"__init__", "tensor", "__main__"}
PUBLIC_LEVEL = LEVEL["nn"]
# layers that are written with public names may use each other
USERS = {"nn", "optim", "losses", "saliency", "onnx"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imports(file):
    """The import statements of a module, those inside functions too."""
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]


def layer_of(file):
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_layers(file):
    """(line, layer) of every import of the package's own modules, those inside functions too."""
    package = ["symgrad", *file.relative_to(PACKAGE).parts[:-1]]
    for node in imports(file):
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            target = [*base, *(node.module.split(".") if node.module else [])]
            if target[:1] != ["symgrad"]:
                continue
            names = [target] if len(target) > 1 else [[*target, a.name] for a in node.names]
            for name in names:
                yield node.lineno, name[1]
        elif isinstance(node, ast.Import):
            for a in node.names:
                parts = a.name.split(".")
                if parts[0] == "symgrad":
                    yield node.lineno, parts[1] if len(parts) > 1 else "__init__"


def test_every_module_has_a_layer():
    unknown = {layer_of(f) for f in modules()} - set(LEVEL) - PUBLIC - {"py"}
    assert not unknown, f"say in ORDER where {unknown} belong"


@pytest.mark.parametrize("file", [f for f in modules() if layer_of(f) in LEVEL], ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file):
    own = layer_of(file)
    wrong = []
    for line, layer in imported_layers(file):
        if layer == own or {layer, own} <= USERS:
            continue
        if layer not in LEVEL:
            allowed = LEVEL[own] >= PUBLIC_LEVEL
        else:
            allowed = LEVEL[layer] < LEVEL[own]
        if not allowed:
            wrong.append(f"{file.relative_to(ROOT)}:{line} ({own}) imports {layer}")
    assert not wrong, "\n".join(wrong)


def absolute_imports(node):
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


@pytest.mark.parametrize("heavy, allowed", [("numba", ("backends",)), ("llvmlite", ("backends",)), ("networkx", ("schedule", "viz")),
                                            ("torch", ("bench", "testing", "cli")), ("jax", ("bench",)), ("pytensor", ("bench",))])
def test_heavy_imports_stay_in_their_layer(heavy, allowed):
    wrong = []
    for file in modules():
        for node in imports(file):
            if any(n.split(".")[0] == heavy for n in absolute_imports(node)) and layer_of(file) not in allowed:
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not wrong


BUILDING = """
import sys
import symgrad as sg, symgrad.tensor as T
x = T.matrix("x")
w = sg.shared([[1.0, 2.0]], "w")
y = T.softmax(T.relu(x @ w.T)).sum()
g = sg.grad(y, [x, w], overrides={T.relu: lambda g, y, x: g * (x > 0) * (g > 0)})
str(sg.receipt(g[0]))
heavy = [m for m in ("numba", "llvmlite", "networkx", "torch", "scipy", "matplotlib") if m in sys.modules]
assert not heavy, heavy
"""


def test_building_graphs_and_taking_gradients_imports_nothing_heavy():
    subprocess.run([sys.executable, "-c", BUILDING], check=True)


def test_the_reference_backend_imports_no_compiler():
    code = BUILDING.replace("heavy =", "import numpy as np\nsg.function([x], y, backend='reference')(np.ones((2, 2), 'f'))\nheavy =")
    subprocess.run([sys.executable, "-c", code], check=True)


def tracked_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).exists()]


# absolute paths of a development machine, and hosts that only make sense on one
PRIVATE = re.compile("|".join([r"(?<![\w.])/wor" + r"k/", r"/home/\w+", r"(?<![\w/.])/tm" + r"p/(?!\.)", r"index-ur" + "l", "localhost" + r":\d"]))


def test_no_paths_of_a_development_machine():
    found = []
    for file in tracked_files():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{file.relative_to(ROOT)}:{k}: {line.strip()[:100]}" for k, line in enumerate(text.split("\n"), 1) if PRIVATE.search(line)]
    assert not found, "\n".join(found)


def test_every_module_says_what_it_is_for():
    missing = [str(f.relative_to(ROOT)) for f in modules() if not ast.get_docstring(ast.parse(f.read_text()))]
    assert not missing
