"""Which images the training steps see: batches cut from one endless stream of per-epoch permutations."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ssl_zoo import draws

_permutation = lru_cache(maxsize=4)(draws.permutation)  # a batch may straddle two epochs


@dataclass(frozen=True)
class Sampler:
    """Full batches of `batch_size` out of `size` images; every image comes exactly once in each epoch.

    Raises ValueError for a size or batch size below 1 and for a batch larger than the data.
    """

    size: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: there are no images to sample; give a split with images")
        if not 1 <= self.batch_size <= self.size:
            raise ValueError(f"batch_size={self.batch_size} with {self.size} images; give 1 to {self.size}")

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return data set index and epoch of each image of a step, both [B] int64: a pure function."""
        position = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, place = position // self.size, position % self.size
        epochs = range(int(epoch[0]), int(epoch[-1]) + 1)
        return torch.cat([_permutation(self.size, self.seed, e)[place[epoch == e]] for e in epochs]), epoch
