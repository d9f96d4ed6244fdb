"""The documentation is a program: snippets run, outputs are what they print, commands and links exist.

`pytest tests/test_docs.py --update-golden` writes the outputs and the tables that are generated.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pages
import pytest

import symgrad as sg
from symgrad.cli import settings
from symgrad.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"(<!-- settings, generated -->\n).*?(<!-- end -->)", re.S)


def read(page: str) -> str:
    return (ROOT / page).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run_and_print_what_is_shown(page, request, tmp_path):
    text = read(page)
    shown = pages.outputs(text, Path(page).stem.lower() + ".py", tmp_path, Path(sg.__file__).parents[1])
    if request.config.getoption("--update-golden"):
        (ROOT / page).write_text(pages.with_outputs(text, shown))
        return
    for fence, printed in shown:
        if not pages.same(fence, printed):
            assert fence.text.rstrip() == printed.rstrip(), f"{page} shows another output; --update-golden writes this one"


@pytest.mark.parametrize("page", ["README.md", "docs/settings.md"])
def test_settings_tables_are_current(page, request):
    text = read(page)
    current = TABLE.sub(lambda m: f"{m[1]}{settings.markdown()}\n{m[2]}", text)
    assert TABLE.search(text), f"{page} has no place for the table"
    if request.config.getoption("--update-golden"):
        (ROOT / page).write_text(current)
    else:
        assert text == current


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in pages.links(read(page)):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in pages.anchors(file.read_text()), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    shell = "\n".join(fence.text for fence in pages.fences(read(page)) if fence.language == "sh")
    for command in re.findall(r"(?:^|[\s/])(?:symgrad|-m symgrad) ([a-z]+)", shell):
        assert command in commands, f"{page} runs `symgrad {command}`"
    for script in re.findall(r"python (\S+\.py)", shell):
        assert (ROOT / script).exists(), f"{page} runs {script}"


@pytest.mark.parametrize("page", PAGES)
def test_names_in_prose_exist(page):
    prose = pages.FENCE.sub("", read(page))
    if page.endswith("from_theano.md"):             # the other columns are about the other library
        prose = "\n".join(line.rsplit("|", 2)[-2] if line.startswith("|") else line for line in prose.splitlines())
    for code in re.findall(r"`([^`\n]+)`", prose):
        for module, names in re.findall(r"\b(sg|T)\.([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*)*)", code):
            value = {"sg": sg, "T": sg.tensor}[module]
            for name in names.split(".") if names != "name" and not names.startswith("config.NAME") else []:
                assert hasattr(value, name), f"{page}: `{code}`"
                value = getattr(value, name)


def test_extras_and_scripts_are_declared():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["scripts"] == {"symgrad": "symgrad.cli.main:main"}
    for page in PAGES:
        for extra in re.findall(r"'?\.\[(\w+)\]'?", read(page)):
            assert extra in project["optional-dependencies"], f"{page} installs the extra {extra}"


def test_runner_sees_a_wrong_output_and_hides_times(tmp_path):
    page = "```python\nprint(1.5, 'ms')\n```\n\n```text\n1.6 ms\n```\n\n```text times\n900 ms\n```\n"
    wrong, timed = pages.outputs(page, "page.py", tmp_path, ROOT)
    assert not pages.same(*wrong)
    assert pages.same(*timed)
    assert "1.5 ms\n```\n\n```text times\n900 ms" in pages.with_outputs(page, [wrong, timed])


def test_runner_reports_a_failing_snippet_and_counts_lines_of_snippets_only(tmp_path):
    page = "prose\n\n```python\nx = 1\n```\n\nmore prose\n\n```python\n1 / 0\n```\n"
    with pytest.raises(AssertionError, match='(?s)page.py", line 2,.*ZeroDivisionError'):
        pages.outputs(page, "page.py", tmp_path, ROOT)
