"""Layers: values that hold parameters. Calling one builds graph; calling it twice shares its weights.

Built with the public names of symgrad only, so everything here is also an example of how to write your own.
"""

from symgrad.nn import init
from symgrad.nn.attention import MultiHeadAttention
from symgrad.nn.containers import Residual, Sequential
from symgrad.nn.init import seed
from symgrad.nn.layer import Layer, train_mode, training, updates
from symgrad.nn.layers import (
    ELU,
    GELU,
    Activation,
    AvgPool2D,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from symgrad.nn.noise import Dropout
from symgrad.nn.norms import BatchNorm, LayerNorm
from symgrad.nn.recurrent import GRU, LSTM, RNN
from symgrad.nn.state import count, load, save

__all__ = [
    "Activation", "AvgPool2D", "BatchNorm", "Conv2D", "Dense", "Dropout", "ELU", "Embedding", "Flatten", "GELU",
    "GRU", "GlobalAvgPool", "LSTM", "Layer", "LayerNorm", "LeakyReLU", "MaxPool2D", "MultiHeadAttention", "RNN",
    "ReLU", "Residual", "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh", "count", "init", "load",
    "save", "seed", "train_mode", "training", "updates",
]
