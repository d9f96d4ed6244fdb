"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from symgrad.nn.layer import Layer, unique_keys
from symgrad.nn.layers import value_layer


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Sequential(Layer):
    """Layers one after the other. Plain functions such as T.relu may stand between them.

    A layer without a name is called by its class and place: conv2d0, dense3. Indexing with a slice gives a
    Sequential of those layers, sharing their weights.
    """

    layers: tuple[Callable[[Any], Any], ...]
    name: str | None = None

    def __init__(self, layers: Sequence[Callable[[Any], Any]], *, name: str | None = None) -> None:
        object.__setattr__(self, "layers", tuple(layers))
        object.__setattr__(self, "name", name)
        wrong = [layer for layer in self.layers if not callable(layer)]
        if wrong:
            raise TypeError(f"Sequential takes layers and functions, found {wrong[0]!r}")
        self.children()                               # equal names fail here, on the user's line

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def children(self) -> dict[str, Layer]:
        placed = ((layer.name or f"{layer.kind()}{i}", layer) for i, layer in enumerate(self.layers)
                  if isinstance(layer, Layer))
        return unique_keys(type(self), _first_of_each(placed))

    def __repr__(self) -> str:
        keys = {id(layer): f"{key}: " for key, layer in self.children().items()}
        lines = [f"{keys.get(id(layer), '')}{layer!r}" for layer in self.layers]
        title = f"Sequential {self.name}" if self.name else "Sequential"
        return "\n".join([title, *lines]).replace("\n", "\n  ")

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Callable[[Any], Any]]:
        return iter(self.layers)

    def __getitem__(self, index: int | slice) -> Any:
        picked = self.layers[index]
        return Sequential(picked, name=self.name) if isinstance(index, slice) else picked


@value_layer
class Residual(Layer):
    """activation(body(x) + shortcut(x)); the shortcut is x itself unless given. He et al. 2016."""

    body: Callable[[Any], Any]
    shortcut: Callable[[Any], Any] | None = None
    _: KW_ONLY
    activation: Callable[[Any], Any] | None = None
    name: str | None = None

    def forward(self, x: Any) -> Any:
        y = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return y if self.activation is None else self.activation(y)


def _first_of_each(pairs: Iterator[tuple[str, Layer]]) -> Iterator[tuple[str, Layer]]:
    """The pairs, without those of a layer that came before: it shares weights, under its first name."""
    seen: set[int] = set()
    for key, layer in pairs:
        if id(layer) not in seen:
            seen.add(id(layer))
            yield key, layer
