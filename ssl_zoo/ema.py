"""The exponential moving average of a network: the one teacher utility of all methods."""

import copy
from typing import Generic, Literal, TypeVar

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

Network = TypeVar("Network", bound=nn.Module)

_LONGEST = 1e9  # steps; a momentum of 1 never forgets
_DROPPED = {  # whole paths and patches: by class, so that timm need not be imported
    "DropPath": "drop_prob",
    "PatchDropout": "prob",
    "PatchDropoutWithIndices": "prob",
    "StochasticDepth": "p",  # torchvision's
}


class EMA(nn.Module, Generic[Network]):
    """A frozen copy of a network that follows it, with dropout, drop-path and patch dropout off.

    `buffers="own"`: they belong to the copy's own forward passes (official DINO, MoCo, BYOL); `"copy"`: they
    are copied at each update, for teachers that never run in train mode.
    """

    def __init__(self, module: Network, buffers: Literal["own", "copy"] = "own") -> None:
        super().__init__()
        if buffers not in ("own", "copy"):
            raise ValueError(f"buffers={buffers!r}; allowed: 'own', 'copy'")
        self.module: Network = copy.deepcopy(module).requires_grad_(False)
        self.buffers_mode = buffers
        for child in self.module.modules():
            if isinstance(child, _DropoutNd):
                child.p = 0.0
            elif type(child).__name__ in _DROPPED:
                setattr(child, _DROPPED[type(child).__name__], 0.0)

    @torch.no_grad()
    def update(self, module: Network, momentum: float) -> None:
        """Move the copy: p <- momentum * p + (1 - momentum) * module's p; call once per optimizer step."""
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - momentum)
        if self.buffers_mode == "copy":
            for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
                mine.copy_(theirs)


def horizon(momentum: float) -> float:
    """Over how many steps an average of this momentum looks back: 1 / (1 - momentum), at most 1e9."""
    return 1 / max(1 - momentum, 1 / _LONGEST)
