"""`symgrad saliency`: a model file and a picture in, a picture of the map out."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

import symgrad as sg
import symgrad.tensor as T
from symgrad.cli.text import table
from symgrad.saliency.image import resize


@dataclass(frozen=True)
class Options:
    """What the command line says about the map and about the model's input."""

    method: str = "guided_backprop"
    target: int | None = None
    size: tuple[int, int] | None = None
    mean: np.ndarray | float = 0.0
    std: np.ndarray | float = 1.0
    backend: str | None = None


def run(model_path: Path, image_path: Path, output: Path, options: Options) -> str:
    """Writes the map over the picture and returns a short table of what was explained."""
    model, shape = load_model(model_path)
    picture = sg.saliency.read_image(image_path)
    value = prepared(picture, shape, options)
    image = T.tensor("image", value.shape)
    logits = model(image)
    score = T.max(logits) if options.target is None else logits[0, options.target]
    f = sg.function([image], [logits, method_named(options.method)(score, image)], backend=options.backend)
    scores, heat = f(value)
    sg.saliency.save_image(heat, output, image=picture)
    return report(scores[0], options, output)


def report(scores: np.ndarray, options: Options, output: Path) -> str:
    """Which class was explained, by what, and where the picture is."""
    target = int(np.argmax(scores)) if options.target is None else options.target
    rank = int((scores > scores[target]).sum()) + 1
    return table([("class", str(target), f"score {scores[target]:.4g}, rank {rank} of {scores.size}"),
                  ("method", options.method), ("picture", str(output))])


def method_named(name: str) -> Callable[[Any, Any], Any]:
    """A method of sg.saliency by name; a rule set's name means the gradient under those rules."""
    methods, rule_sets = sg.saliency.METHODS, sg.saliency.rules.RULE_SETS
    if name in methods:
        return methods[name]
    if name in rule_sets:
        return lambda score, image: sg.saliency.gradient(score, image, overrides=rule_sets[name])
    raise typer.BadParameter(f"{name!r} is not one of {', '.join({**methods, **rule_sets})}")


def load_model(path: Path) -> tuple[Callable[[Any], Any], tuple[Any, ...] | None]:
    """The variable `model` of a Python file, and its `input_shape` (n, c, h, w) if it has one."""
    if not path.exists():
        raise typer.BadParameter(f"there is no file {path}")
    if path.suffix != ".py":
        raise typer.BadParameter(f"a model is a Python file, found {path}")
    names = runpy.run_path(str(path))
    if "model" not in names:
        raise typer.BadParameter(f"{path} does not define `model`")
    return names["model"], names.get("input_shape")


def prepared(picture: np.ndarray, shape: tuple[Any, ...] | None, options: Options) -> np.ndarray:
    """The picture (h, w, 3) as the float32 input (1, c, h, w) of the model."""
    channels, *wanted = shape[1:] if shape else (3, None, None)
    size = options.size or tuple(n if isinstance(n, int) else m for n, m in zip(wanted, picture.shape[:2]))
    pixels = resize(picture, size)
    if channels == 1:
        pixels = pixels @ np.array([[0.299], [0.587], [0.114]])       # luma weights of ITU-R BT.601
    return np.moveaxis((pixels - options.mean) / options.std, -1, 0)[None].astype("float32")


def parsed_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) from "32x48" or "32"."""
    if text is None:
        return None
    try:
        height, *width = (int(part) for part in text.lower().split("x"))
        return height, (width or [height])[0]
    except ValueError:
        raise typer.BadParameter(f"a size is HEIGHTxWIDTH, found {text!r}") from None


def numbers(text: str) -> np.ndarray:
    """One number or several, separated by commas."""
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise typer.BadParameter(f"numbers separated by commas, found {text!r}") from None
