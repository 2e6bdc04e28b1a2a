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

    Of `ranks` that share the batches, `rank` has its slice of each. Raises ValueError for a size or batch
    size below 1, a batch larger than the data, and one that the ranks cannot share equally.
    """

    size: int
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: there are no images to sample; give a split with images")
        if not 1 <= self.batch_size <= self.size:
            raise ValueError(f"batch_size={self.batch_size} with {self.size} images; give 1 to {self.size}")
        if self.batch_size % self.ranks:
            raise ValueError(
                f"batch_size={self.batch_size} for {self.ranks} ranks; give a multiple of {self.ranks}"
            )

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return data set index and epoch of each image of a step, both [B] int64: a pure function."""
        part = self.batch_size // self.ranks
        first = step * self.batch_size + self.rank * part
        position = torch.arange(first, first + part)
        epoch, place = position // self.size, position % self.size
        epochs = range(int(epoch[0]), int(epoch[-1]) + 1)
        return torch.cat([_permutation(self.size, self.seed, e)[place[epoch == e]] for e in epochs]), epoch

    def batches(self, steps: range) -> tuple[Tensor, Tensor]:
        """Return the batches of several steps one after another."""
        positions, epochs = zip(*map(self.batch, steps), strict=True)
        return torch.cat(positions), torch.cat(epochs)
