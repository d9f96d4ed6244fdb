"""The operations of workloads in PyTorch, through torch.compile."""

from __future__ import annotations

import torch

from . import in_torch
from .in_torch import *  # noqa: F403

in_torch.compile = torch.compile
