"""The command line, run as a user would."""

import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import symgrad as sg
import symgrad.tensor as T
from symgrad.cli import size
from symgrad.cli.main import app, main
from symgrad.cli.saliency import parsed_size
from symgrad.cli.text import seconds, table
from symgrad.saliency.png import decode_png, write_png

MODEL = '''
import numpy as np
import symgrad as sg
import symgrad.tensor as T

rng = np.random.default_rng(0)
model = sg.nn.Sequential([sg.nn.Conv2D(3, 4, 3, padding=1, activation=T.relu, rng=rng), sg.nn.GlobalAvgPool(),
                          sg.nn.Dense(4, 5, rng=rng)])
'''


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(20, 24, 3), dtype="uint8")
    write_png(pixels, tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_demo_learns_and_draws(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    text = invoke("demo", "-o", tmp_path / "demo.png")
    assert float(re.search(r"accuracy +([\d.]+)%", text)[1]) >= 97
    assert re.search(r"guided_backprop +2 nodes +rule guided", text)
    assert re.search(r"deconvnet +2 nodes", text)
    assert "%|" not in text                            # no progress bar off a terminal
    height, width, _ = decode_png((tmp_path / "demo.png").read_bytes()).shape
    assert height > 10 * 64 and width > 4 * 64


@pytest.mark.parametrize("method", ["guided_backprop", "gradient", "clipped"])
def test_saliency_draws_over_the_photo(tmp_path, photo, method):
    (tmp_path / "model.py").write_text(MODEL)
    text = invoke("saliency", tmp_path / "model.py", photo, "--method", method, "--target", 3,
                  "--size", "16x12", "--mean", "0.5,0.4,0.3", "--std", "0.25", "-o", tmp_path / "heat.png")
    assert re.search(r"class +3", text)
    picture = sg.saliency.read_image(photo)
    pixels = (sg.saliency.image.resize(picture, (16, 12)) - [0.5, 0.4, 0.3]) / 0.25
    names = {}
    exec(MODEL, names)
    x = T.tensor("x", (1, 3, 16, 12))
    score = names["model"](x)[0, 3]
    overrides = sg.saliency.rules.RULE_SETS.get(method)
    heat = sg.function([x], sg.saliency.gradient(score, x, overrides=overrides))(
        np.moveaxis(pixels, -1, 0)[None].astype("float32"))
    expected = sg.saliency.image.to_bytes(sg.saliency.overlay(picture, heat))
    found = decode_png((tmp_path / "heat.png").read_bytes()).astype(int)
    assert found.shape == (20, 24, 3) and np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("method", sg.saliency.METHODS)
def test_every_method_is_on_the_command_line(tmp_path, photo, method):
    (tmp_path / "model.py").write_text(MODEL)
    text = invoke("saliency", tmp_path / "model.py", photo, "--method", method, "--target", 1, "--size", "16x12", "-o", tmp_path / "heat.png",
                  "--backend", "reference")
    assert re.search(rf"method +{method}", text) and decode_png((tmp_path / "heat.png").read_bytes()).shape == (20, 24, 3)


def test_saliency_names_its_methods_when_one_is_unknown(tmp_path, photo):
    (tmp_path / "model.py").write_text(MODEL)
    arguments = ["saliency", str(tmp_path / "model.py"), str(photo), "--method", "magic"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "guided_backprop" in result.output


def test_mistakes_end_in_one_message(tmp_path, photo, monkeypatch, capsys):
    (tmp_path / "model.py").write_text(
        "import symgrad.tensor as T\nmodel = lambda x: T.tanh(x).mean(axis=(2, 3))\n")
    monkeypatch.setattr(sys, "argv", ["symgrad", "saliency", str(tmp_path / "model.py"), str(photo)])
    with pytest.raises(SystemExit) as exit:
        main()
    message = capsys.readouterr().err
    assert exit.value.code == 1 and message.startswith("UnusedOverrideError") and "Traceback" not in message


def test_explain_reports_each_function(tmp_path):
    (tmp_path / "script.py").write_text(
        "import sys\nimport symgrad as sg, symgrad.tensor as T\nx = T.vector('x')\n"
        "f = sg.function([x], T.exp(x) + 1, name='first')\n"
        "g = sg.function([x], x * 2)\nassert sys.argv[1] == '7'\n")
    text = invoke("explain", tmp_path / "script.py", "7")
    assert "--- function 1" in text and "--- function 2" in text


def test_doctor_tries_the_backends():
    text = invoke("doctor")
    assert re.search(r"backend reference +works", text) and re.search(r"backend cpu +works", text)


def test_size_counts_code_and_not_docstrings():
    source = '"""Module.\n\nLong."""\n\nx = 1  # comment\n\n\ndef f():\n    """Doc."""\n    return "a"\n'
    assert size.count(source)[0] == 3
    assert re.search(r"nn/layers\.py +\d+ +\d+\.\d", invoke("size"))


def test_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "symgrad", "size"], capture_output=True, text=True)
    assert done.returncode == 0 and "files" in done.stdout


def test_text_helpers():
    assert table([("a", "n", "x"), ("bbb", 22), ("c", 3)]) == "a     n  x\nbbb  22\nc     3"
    assert table([("a", "10 s"), ("bbb", "2 nodes")]) == "a    10 s\nbbb  2 nodes"
    assert [seconds(t) for t in (2.5, 0.0123, 4e-6)] == ["2.50 s", "12.3 ms", "4 us"]
    assert parsed_size("16x12") == (16, 12) and parsed_size("8") == (8, 8)
