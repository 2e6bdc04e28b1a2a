"""The exponential moving average of a network: the one teacher utility of all methods."""

import copy
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

_DROP_PATH = {"DropPath": "drop_prob", "StochasticDepth": "p"}  # timm, torchvision


class EMA(nn.Module):
    """A frozen copy of a network that follows it, with dropout and drop-path off.

    `buffers="own"`: buffers belong to the copy's own forward passes (official DINO, MoCo, BYOL); `"copy"`: they
    are copied at each update, for teachers that never run in train mode.
    """

    def __init__(self, module: nn.Module, buffers: Literal["own", "copy"] = "own") -> None:
        super().__init__()
        if buffers not in ("own", "copy"):
            raise ValueError(f"buffers={buffers!r}; allowed: 'own', 'copy'")
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.buffers_mode = buffers
        for child in self.module.modules():
            if isinstance(child, _DropoutNd):
                child.p = 0.0
            elif type(child).__name__ in _DROP_PATH:
                setattr(child, _DROP_PATH[type(child).__name__], 0.0)

    @torch.no_grad()
    def update(self, module: nn.Module, momentum: float) -> None:
        """Move the copy: p <- momentum * p + (1 - momentum) * module's p; call once per optimizer step."""
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - momentum)
        if self.buffers_mode == "copy":
            for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
                mine.copy_(theirs)
