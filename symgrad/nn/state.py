"""Parameters to files and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import symgrad as sg
from symgrad.nn import safetensors_file
from symgrad.nn.layer import Layer

Model = TypeVar("Model", bound=Layer)


def count(model: Layer) -> int:
    """The number of trainable values in a model."""
    return sum(shared.get_value().size for shared in model.params().values())


def save(model: Layer, path: str | Path) -> None:
    """Writes `model.state()` to a .npz or .safetensors file, arrays under their names."""
    arrays = {name: shared.get_value() for name, shared in model.state().items()}
    if _format(path) == ".npz":
        np.savez(path, **arrays)
    else:
        safetensors_file.write(arrays, path)


def load(model: Model, path: str | Path) -> Model:
    """The model, with its values read from a file written by `save`.

    Names and shapes must agree, else a ShapeError lists every difference and nothing is changed.
    """
    arrays = _read(path)
    state = model.state()
    problems = _differences({name: shared.get_value().shape for name, shared in state.items()}, arrays)
    if problems:
        raise sg.ShapeError(f"load {path}: the file does not fit the model\n  " + "\n  ".join(problems))
    for name, shared in state.items():
        shared.set_value(arrays[name].astype(shared.get_value().dtype))
    return model


def _read(path: str | Path) -> dict[str, np.ndarray]:
    if _format(path) == ".safetensors":
        return safetensors_file.read(path)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _differences(wanted: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]) -> list[str]:
    missing = [f"{name}: not in the file" for name in wanted if name not in arrays]
    extra = [f"{name}: not in the model" for name in arrays if name not in wanted]
    misshapen = [f"{name}: the model has {shape}, the file {arrays[name].shape}"
                 for name, shape in wanted.items() if name in arrays and arrays[name].shape != shape]
    return missing + misshapen + extra


def _format(path: str | Path) -> str:
    suffix = Path(path).suffix
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"parameter files end in .npz or .safetensors, found {str(path)!r}")
    return suffix
