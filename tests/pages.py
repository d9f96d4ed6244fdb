"""Pages of the documentation as programs: their snippets, what those print, and their links."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

FENCE = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*(?:e[-+]?\d+)?%?")


@dataclass(frozen=True)
class Fence:
    """One fenced block: its language, the words after it, its text and where the text lies in the page."""

    language: str
    words: str
    text: str
    start: int
    end: int


def fences(page: str) -> list[Fence]:
    return [Fence(m[1], m[2].strip(), m[3], m.start(3), m.end(3)) for m in FENCE.finditer(page)]


def outputs(page: str, name: str, folder: Path, imports: Path) -> list[tuple[Fence, str]]:
    """Run a page's ```python blocks in a process of their own, working in `folder`. Returns each ```text block with
    what the ```python block above it printed.

    A page runs alone because equal expressions are one object in a process, and keep the line that made them first.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SYMGRAD_") or key == "SYMGRAD_CACHE_DIR"}
    environment["PYTHONPATH"] = str(imports)
    (folder / "page.md").write_text(page)
    done = subprocess.run([sys.executable, __file__, "page.md", name, "printed.json"], cwd=folder, env=environment,
                          capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"a snippet of {name} fails:\n{done.stderr}")
    return list(zip([f for f in fences(page) if f.language == "text"], json.loads((folder / "printed.json").read_text())))


def run(page: str, name: str) -> list[str]:
    """Run a page's ```python blocks, in order, as one program `name`. Returns what each ```text block should show.

    Blocks marked `sketch` are only compiled. Lines count as if the blocks that run were pasted into one file, which is
    what a message such as `tour.py:12` means.
    """
    module = ModuleType(Path(name).stem)
    module.__file__ = name
    sys.modules[module.__name__] = module           # so that classes of the page pickle
    shown, printed, lines = [], "", 0
    for fence in fences(page):
        if fence.language == "text":
            shown.append(printed)
        elif fence.language == "python":
            code = compile("\n" * lines + fence.text, name, "exec")
            if "sketch" in fence.words:
                continue
            output = io.StringIO()
            with redirect_stdout(output):
                exec(code, vars(module))
            printed = output.getvalue()
            lines += fence.text.count("\n")
    return shown


def with_outputs(page: str, shown: list[tuple[Fence, str]]) -> str:
    """The page with every ```text block replaced by what was printed."""
    for fence, printed in reversed(shown):
        if not same(fence, printed):
            page = page[:fence.start] + printed.rstrip() + "\n" + page[fence.end:]
    return page


def same(fence: Fence, printed: str) -> bool:
    """Whether a block shows what was printed; with the word `times`, up to the numbers."""
    if "times" in fence.words:
        return shape(fence.text) == shape(printed)
    return fence.text.rstrip() == printed.rstrip()


def shape(text: str) -> list[list[str]]:
    """The words of every line with numbers hidden."""
    return [NUMBER.sub("#", line).split() for line in text.strip().splitlines()]


def links(page: str) -> list[str]:
    """Targets of the page's links to files."""
    prose = FENCE.sub("", page)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]


def anchors(page: str) -> set[str]:
    """The anchors of the page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


if __name__ == "__main__":
    page, name, result = sys.argv[1:]
    Path(result).write_text(json.dumps(run(Path(page).read_text(), name)))
