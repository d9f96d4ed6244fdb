"""What every layer is: a scope, parameters by name, and a training mode.

A layer is any object with a `forward`. Parameters are the shared variables it holds, directly or in the
layers, lists and dicts it holds; nothing is registered. To write one:

    class Twice(sg.nn.Layer):
        def __init__(self):
            self.inner = sg.nn.Dense(8, 8)
        def forward(self, x):
            return self.inner(self.inner(x))
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, fields, is_dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import symgrad as sg

# so that layers pickle: parameters travel as value and name, and one that is shared arrives shared
copyreg.pickle(sg.Shared, lambda shared: (sg.shared, (shared.get_value(), shared.name)))

_training: ContextVar[bool] = ContextVar("training", default=False)
# id of a child -> its key in its parent
_keys: ContextVar[Mapping[int, str]] = ContextVar("keys", default=MappingProxyType({}))


class train_mode:
    """Switches layers to training (batch statistics) or to inference, which is the default.

    `train_mode(True)` holds from now on; `with train_mode(True):` until the block ends. It acts while graph
    is built: a compiled function keeps the mode it was built in.
    """

    def __init__(self, on: bool = True) -> None:
        self._token = _training.set(bool(on))

    def __enter__(self) -> train_mode:
        return self

    def __exit__(self, *exception: object) -> None:
        _training.reset(self._token)


class Layer:
    """The base of all layers: write `forward`, hold shared variables and other layers as attributes.

    Attributes that start with an underscore are left out of parameters and names.

    `name` is the scope the layer opens and its part of parameter names; without one it is the attribute or
    the place in the list that holds the layer, and the class name at the top. `buffers` lists the attributes
    that are saved but not trained.
    """

    name: str | None = None
    buffers: ClassVar[tuple[str, ...]] = ()

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The layer's output; `sg.nn.training()` tells the mode."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, x)")

    def __call__(self, *inputs: Any, training: bool | None = None, **options: Any) -> Any:
        """The layer applied to variables; `training` sets the mode for this call and everything inside it.

        Other keywords are those of `forward`.
        """
        with _mode(training), sg.scope(self._scope_name()), _children_known(self):
            return self.forward(*inputs, **options)

    def __repr__(self) -> str:
        """The class with its settings, leaving out those that are as usual."""
        settings = [(f, getattr(self, f.name)) for f in fields(self) if f.init] if is_dataclass(self) else []
        words = [repr(value) if f.default is MISSING else f"{f.name}={value!r}" for f, value in settings
                 if value is not f.default and value != f.default]
        return f"{type(self).__name__}({', '.join(words)})"

    def kind(self) -> str:
        """What the layer is called where nobody named it: conv2d, batchnorm, relu."""
        return type(self).__name__.lower()

    def children(self) -> dict[str, Layer]:
        """The layers held directly, by key."""
        return unique_keys(type(self), ((item.name or key, item) for key, item in _held(vars(self))
                                        if isinstance(item, Layer)))

    def params(self) -> dict[str, Any]:
        """The trainable parameters, name -> shared; one used twice appears once, under its first name."""
        return self._arrays(trained_only=True)

    def state(self) -> dict[str, Any]:
        """Everything `sg.nn.save` writes: the parameters and running statistics, name -> shared."""
        return self._arrays(trained_only=False)

    def updates(self) -> dict[Any, Any]:
        """The updates of running statistics from the latest call in training mode, shared -> new value.

        Pass them on with those of the optimiser: `updates={**sg.optim.sgd(loss, ps, lr), **model.updates()}`.
        A layer that was called several times reports its latest call. Empty when nothing inside keeps
        statistics; a ValueError when something does and was never called in training mode.
        """
        own = self._own_updates()
        for child in self.children().values():
            own.update(child.updates())
        return own

    def _own_updates(self) -> dict[Any, Any]:
        return {}

    def _arrays(self, trained_only: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, shared in self._walk("", trained_only):
            if not any(shared is other for other in found.values()):
                found[name] = shared
        return found

    def _walk(self, prefix: str, trained_only: bool) -> Iterator[tuple[str, Any]]:
        for key, value in _held(vars(self)):
            if is_shared(value) and not (trained_only and key in self.buffers):
                yield prefix + key, value
        for key, child in self.children().items():
            yield from child._walk(f"{prefix}{key}.", trained_only)

    def _scope_name(self) -> str:
        return _keys.get().get(id(self)) or self.name or self.kind()


def training() -> bool:
    """Whether graph is being built in training mode."""
    return _training.get()


def updates(model: Layer) -> dict[Any, Any]:
    """The updates of running statistics of every layer in the model; see `Layer.updates`."""
    return model.updates()


def is_shared(value: object) -> bool:
    """Whether this is a shared variable."""
    return hasattr(value, "get_value") and hasattr(value, "set_value")


def _held(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the attributes hold, lists and dicts spread out: key -> item."""
    for key, value in attributes.items():
        if key.startswith("_"):
            continue
        if isinstance(value, (list, tuple)):
            yield from ((f"{key}{i}", item) for i, item in enumerate(value))
        elif isinstance(value, dict):
            yield from ((str(k), item) for k, item in value.items())
        else:
            yield key, value


def unique_keys(owner: type, pairs: Iterable[tuple[str, Layer]]) -> dict[str, Layer]:
    """The pairs as a dict; a ValueError if two different layers share a key."""
    found: dict[str, Layer] = {}
    for key, layer in pairs:
        if found.setdefault(key, layer) is not layer:
            raise ValueError(f"{owner.__name__} holds two layers named {key!r}: give one another name=")
    return found


@contextmanager
def _mode(on: bool | None) -> Iterator[None]:
    if on is None:
        yield
        return
    with train_mode(on):
        yield


@contextmanager
def _children_known(layer: Layer) -> Iterator[None]:
    token = _keys.set({id(child): key for key, child in reversed(layer.children().items())})
    try:
        yield
    finally:
        _keys.reset(token)
