"""The examples, overrides and all, on the CUDA backend without a GPU: they check themselves against other roads to the same result."""

from __future__ import annotations

import pytest
from test_examples import example

import symgrad as sg


@pytest.fixture(autouse=True)
def emulated():
    with sg.config(backend="cuda-emulated"):
        yield


@pytest.mark.parametrize("name", ["custom_op", "custom_rule"])
def test_short_examples(name, capsys):
    example(name).main()
    assert capsys.readouterr().out


@pytest.mark.slow
def test_guided_backprop_by_every_road(capsys):
    example("guided_backprop").main()
    heats = {line.split("=")[1] for line in capsys.readouterr().out.splitlines() if "scan" in line or "ifelse" in line}
    assert len(heats) == 1


@pytest.mark.slow
def test_split_models_agree_with_the_joined_one(capsys):
    example("split_models").main([])
    found = capsys.readouterr().out
    assert found.count("valid: True") == 3 and "False" not in found


@pytest.mark.slow
def test_a_training_step_with_gates(capsys):
    example("gated_cnn").main(["--steps", "1", "--batch", "2"])
    assert "closed circuit keeps its weights: True" in capsys.readouterr().out
