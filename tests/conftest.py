"""Fixtures: both roads a graph can run on, and golden text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import symgrad as sg

# every graph between two passes of the pipeline is checked for legality while tests run
sg.config.check = True

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files in tests/golden from what the tests produce")


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20151)


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """golden(name, text): text equals tests/golden/<name>.txt; `--update-golden` writes it."""
    def compare(name: str, text: str) -> None:
        file = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text.rstrip() + "\n")
        assert file.exists(), f"{file} is missing; pytest --update-golden writes it"
        assert text.rstrip() + "\n" == file.read_text(), f"{file.name} differs; pytest --update-golden accepts the new text"
    return compare
