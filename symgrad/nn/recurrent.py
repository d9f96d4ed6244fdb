"""Recurrent layers. Names, shapes and gate order of the parameters are torch.nn's, so its weights load as they are.

The products with the inputs of all steps are one matrix product before the loop; `sg.scan` walks the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar
from typing import Any, ClassVar

import symgrad as sg
import symgrad.tensor as T
from symgrad.nn import init as inits
from symgrad.nn.attention import project
from symgrad.nn.init import RngLike
from symgrad.nn.layer import Layer
from symgrad.nn.layers import parameter, set_field, value_layer
from symgrad.nn.noise import Dropout

# (what the inputs contribute, what the hidden state contributes, the states before) -> the states after, the hidden one first
Cell = Callable[..., tuple]


@value_layer
class Recurrent(Layer):
    """What RNN, GRU and LSTM share. A derived layer has a cell, its number of gates and of states.

    Called with x (length, batch, n_in), or (batch, length, n_in) with batch_first=True, or without a batch axis, and the first
    states (num_layers * directions, batch, n_hidden), zeros by default. Gives (the top layer's hidden states at every step, the
    last states); bidirectional ones have 2 * n_hidden features, those of the forward direction first.
    dropout: probability for the results of all layers but the last while training.
    """

    n_in: int
    n_hidden: int
    num_layers: int = 1
    _: KW_ONLY
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    name: str | None = None
    rng: InitVar[RngLike] = None

    gates: ClassVar[int]
    states: ClassVar[int] = 1

    def __post_init__(self, rng: RngLike) -> None:
        if self.num_layers < 1 or self.n_hidden < 1:
            raise ValueError(f"{type(self).__name__}: {self.num_layers} layers of {self.n_hidden} units; both are at least 1")
        rng, limit = inits.generator(rng), 1 / math.sqrt(self.n_hidden)
        for layer, suffix in self._directions():
            n_in = self.n_in if layer == 0 else self.n_hidden * (1 + self.bidirectional)
            rows = self.gates * self.n_hidden
            shapes = {"weight_ih": (rows, n_in), "weight_hh": (rows, self.n_hidden)} | ({"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {})
            for key, shape in shapes.items():
                name = f"{key}_l{layer}{suffix}"
                set_field(self, **{name: parameter(rng.uniform(-limit, limit, shape), name)})
        set_field(self, _dropout=Dropout(self.dropout))

    def cell(self, x: Any, hidden: Any, *states: Any) -> tuple:
        """The states after a step from what input and hidden state contribute to the gates, and the states before it."""
        raise NotImplementedError

    def forward(self, x: Any, first: Any = None) -> Any:
        alone = x.ndim == 2
        if alone:
            x = T.expand_dims(x, 1)
        elif self.batch_first:
            x = T.swapaxes(x, 0, 1)
        firsts = self._first_states(x, first, alone)
        lasts: list[list[Any]] = []
        for layer in range(self.num_layers):
            x = x if layer == 0 else self._dropout(x)
            results = []
            for suffix in self._suffixes():
                rows, last = self._walked(x, [s[len(lasts)] for s in firsts], f"l{layer}{suffix}", backwards=bool(suffix))
                results.append(rows)
                lasts.append(last)
            x = results[0] if len(results) == 1 else T.concatenate(results, axis=-1)
        ends = [T.stack([last[k] for last in lasts], axis=0) for k in range(self.states)]
        if alone:
            x, ends = x[:, 0], [end[:, 0] for end in ends]
        elif self.batch_first:
            x = T.swapaxes(x, 0, 1)
        return x, ends[0] if self.states == 1 else tuple(ends)

    def _walked(self, x: Any, states: list[Any], which: str, backwards: bool) -> tuple[Any, list[Any]]:
        """The hidden states of one direction of one layer at every step, and its last states."""
        weight, weight_hh = getattr(self, f"weight_ih_{which}"), getattr(self, f"weight_hh_{which}")
        bias, bias_hh = (getattr(self, f"{key}_{which}") if self.bias else None for key in ("bias_ih", "bias_hh"))

        def step(row: Any, *before: Any) -> list[Any]:
            return list(self.cell(row, project(before[0], weight_hh, bias_hh), *before))

        steps = sg.scan(step, sequences=project(x, weight, bias), outputs_info=states, go_backwards=backwards)
        steps = steps if isinstance(steps, list) else [steps]
        return (T.flip(steps[0], 0) if backwards else steps[0]), [s[-1] for s in steps]

    def _first_states(self, x: Any, first: Any, alone: bool) -> list[Any]:
        """Per kind of state, (num_layers * directions, batch, n_hidden)."""
        if first is None:
            zeros = T.zeros((self.num_layers * (1 + self.bidirectional), x.shape[1], self.n_hidden), dtype=x.dtype)
            return [zeros] * self.states
        firsts = [first] if self.states == 1 else list(first)
        return [T.expand_dims(s, 1) if alone else s for s in firsts]

    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def _directions(self) -> list[tuple[int, str]]:
        return [(layer, suffix) for layer in range(self.num_layers) for suffix in self._suffixes()]


@value_layer
class RNN(Recurrent):
    """h' = tanh(W x + b + U h + c). Elman 1990. nonlinearity="relu" takes that instead."""

    nonlinearity: str = "tanh"
    gates: ClassVar[int] = 1

    def cell(self, x: Any, hidden: Any, h: Any) -> tuple:
        return ({"tanh": T.tanh, "relu": T.relu}[self.nonlinearity](x + hidden),)

    def __post_init__(self, rng: RngLike) -> None:
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is 'tanh' or 'relu', not {self.nonlinearity!r}")
        super().__post_init__(rng)


@value_layer
class GRU(Recurrent):
    """h' = (1 - z) n + z h with reset, update and new gates in this order. Cho et al. 2014, in torch's form: n = tanh(Wx + b + r (Uh + c))."""

    gates: ClassVar[int] = 3

    def cell(self, x: Any, hidden: Any, h: Any) -> tuple:
        (xr, xz, xn), (hr, hz, hn) = _gates(x, 3), _gates(hidden, 3)
        z = T.sigmoid(xz + hz)
        return ((1 - z) * T.tanh(xn + T.sigmoid(xr + hr) * hn) + z * h,)


@value_layer
class LSTM(Recurrent):
    """c' = f c + i g, h' = o tanh(c'), with gates i, f, g, o in this order. Hochreiter and Schmidhuber 1997; Gers et al. 2000.

    Its states are the pair (h, c).
    """

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    def cell(self, x: Any, hidden: Any, h: Any, c: Any) -> tuple:
        i, f, g, o = _gates(x + hidden, 4)
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return T.sigmoid(o) * T.tanh(c), c


def _gates(x: Any, count: int) -> list[Any]:
    """x (batch, count * n) in equal parts."""
    n = x.shape[-1] // count
    return [x[:, k * n:(k + 1) * n] for k in range(count)]


__all__ = ["GRU", "LSTM", "RNN"]
