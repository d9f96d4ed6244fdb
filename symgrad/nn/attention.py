"""Attention with several heads. Names, shapes and order of the parameters are torch.nn.MultiheadAttention's."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, InitVar, field
from typing import Any

import numpy as np

import symgrad.tensor as T
from symgrad.nn import init as inits
from symgrad.nn.init import Initialiser, RngLike
from symgrad.nn.layer import Layer
from symgrad.nn.layers import parameter, set_field, value_layer
from symgrad.nn.noise import Dropout


@value_layer
class Projection(Layer):
    """x (..., n_in) -> x @ weight.T + bias (..., n_out): torch.nn.Linear's layout, weight (n_out, n_in)."""

    n_in: int
    n_out: int
    _: KW_ONLY
    bias_term: bool = True
    name: str | None = None
    init: InitVar[Initialiser] = inits.glorot_uniform
    rng: InitVar[RngLike] = None
    weight: Any = field(init=False, repr=False)
    bias: Any = field(init=False, repr=False, default=None)

    def __post_init__(self, init: Initialiser, rng: RngLike) -> None:
        set_field(self, weight=parameter(init((self.n_out, self.n_in), self.n_in, self.n_out, inits.generator(rng)), "weight"))
        if self.bias_term:
            set_field(self, bias=parameter(np.zeros(self.n_out), "bias"))

    def forward(self, x: Any) -> Any:
        return project(x, self.weight, self.bias)


@value_layer
class MultiHeadAttention(Layer):
    """Each query attends to the keys in `heads` subspaces of n / heads features; the values it finds are projected together.

    Called with query (length, batch, n), key (source, batch, kdim) and value (source, batch, vdim); key defaults to the query,
    value to the key. batch_first=True puts the batch in front; without a batch axis there is one sequence. Gives the result, shaped
    like the query, or with need_weights=True a pair of it and the attention (batch, length, source), averaged over heads
    (average_attn_weights=False: (batch, heads, length, source)).

    attn_mask: (length, source) or (batch * heads, length, source); key_padding_mask: (batch, source). True forbids a place, a float
    is added to the scores. is_causal forbids what comes after the query. dropout: probability for the attention while training.
    Source: Vaswani et al. 2017, section 3.2.2; parameters and their first values as in torch.nn.MultiheadAttention.
    """

    n: int
    heads: int
    _: KW_ONLY
    dropout: float = 0.0
    bias: bool = True
    kdim: int | None = None
    vdim: int | None = None
    batch_first: bool = False
    name: str | None = None
    rng: InitVar[RngLike] = None

    def __post_init__(self, rng: RngLike) -> None:
        if self.heads < 1 or self.n % self.heads:
            raise ValueError(f"MultiHeadAttention: heads={self.heads} must divide n={self.n}")
        n, widths, rng = self.n, (self.n, self.kdim or self.n, self.vdim or self.n), inits.generator(rng)
        if widths == (n, n, n):
            set_field(self, in_proj_weight=parameter(inits.glorot_uniform((3 * n, n), n, 3 * n, rng), "in_proj_weight"))
        else:
            set_field(self, **{f"{which}_proj_weight": parameter(inits.glorot_uniform((n, width), width, n, rng), f"{which}_proj_weight")
                               for which, width in zip("qkv", widths)})
        if self.bias:
            set_field(self, in_proj_bias=parameter(np.zeros(3 * n), "in_proj_bias"))
        # not a field: it would count among the settings
        set_field(self, out_proj=Projection(n, n, bias_term=self.bias, init=inits.fan_in_uniform, rng=rng), _dropout=Dropout(self.dropout))

    def forward(self, query: Any, key: Any = None, value: Any = None, *, attn_mask: Any = None, key_padding_mask: Any = None,
                is_causal: bool = False, need_weights: bool = False, average_attn_weights: bool = True) -> Any:
        key = query if key is None else key
        value = key if value is None else value
        inputs = [self._batched(x) for x in (query, key, value)]
        if query.ndim == 2 and key_padding_mask is not None:
            key_padding_mask = T.expand_dims(key_padding_mask, 0)
        q, k, v = (self._split(project(x, w, b)) for x, (w, b) in zip(inputs, self._in_projections()))
        bias = self._bias(q, k, attn_mask, key_padding_mask, is_causal)
        scores = T.matmul(q / math.sqrt(self.n // self.heads), T.swapaxes(k, -1, -2))
        weights = self._dropout(T.softmax(scores if bias is None else scores + bias, axis=-1))
        y = self._unbatched(self.out_proj(self._joined(T.matmul(weights, v))), query)
        if not need_weights:
            return y
        weights = T.mean(weights, axis=1) if average_attn_weights else weights
        return y, weights if query.ndim == 3 else weights[0]

    def _in_projections(self) -> list[tuple[Any, Any]]:
        """(weight, bias) of queries, keys and values."""
        parts = [slice(k * self.n, (k + 1) * self.n) for k in range(3)]
        biases = [self.in_proj_bias[p] if self.bias else None for p in parts]
        separate = hasattr(self, "q_proj_weight")
        weights = [getattr(self, f"{which}_proj_weight") if separate else self.in_proj_weight[p] for which, p in zip("qkv", parts)]
        return list(zip(weights, biases))

    def _bias(self, q: Any, k: Any, attn_mask: Any, key_padding_mask: Any, is_causal: bool) -> Any:
        """What is added to the scores (batch, heads, length, source), or None."""
        length, source = q.shape[2], k.shape[2]
        biases = []
        if attn_mask is not None:
            mask = additive(attn_mask, q.dtype)
            biases.append(mask if mask.ndim == 2 else mask.reshape((q.shape[0], self.heads, length, source)))
        if key_padding_mask is not None:
            biases.append(additive(key_padding_mask, q.dtype)[:, None, None, :])
        if is_causal:
            biases.append(additive(T.expand_dims(T.arange(length), 1) < T.arange(source), q.dtype))
        return sum(biases[1:], biases[0]) if biases else None

    def _batched(self, x: Any) -> Any:
        """x as (batch, length, features)."""
        if x.ndim == 2:
            return T.expand_dims(x, 0)
        return x if self.batch_first else T.swapaxes(x, 0, 1)

    def _unbatched(self, y: Any, query: Any) -> Any:
        if query.ndim == 2:
            return y[0]
        return y if self.batch_first else T.swapaxes(y, 0, 1)

    def _split(self, x: Any) -> Any:
        """(batch, length, n) as (batch, heads, length, n / heads)."""
        return T.swapaxes(x.reshape((*x.shape[:2], self.heads, self.n // self.heads)), 1, 2)

    def _joined(self, x: Any) -> Any:
        return T.swapaxes(x, 1, 2).reshape((x.shape[0], x.shape[2], self.n))


def project(x: Any, weight: Any, bias: Any) -> Any:
    """x @ weight.T + bias."""
    y = T.matmul(x, weight.T)
    return y if bias is None else y + bias


def additive(mask: Any, dtype: str) -> Any:
    """A mask as what is added to scores: -inf where a bool one is True."""
    mask = T.as_tensor(mask)
    return T.where(mask, -math.inf, 0.0).astype(dtype) if mask.dtype == "bool" else mask


__all__ = ["MultiHeadAttention"]
