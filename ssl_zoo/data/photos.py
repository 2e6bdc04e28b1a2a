"""Photos: images that stay encoded in their files and are decoded when they are needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Photos:
    """Images of any sizes, read from their files on demand; picklable, so that workers can have them.

    `content` [N] int64 hashes each image's pixels, `sides` [N, 2] int64 are height and width, `grey`
    says that no image has colour.
    """

    def __init__(self, files: Sequence[Path], content: Tensor, sides: Tensor, *, grey: bool) -> None:
        self.files = files
        self.content = content
        self.sides = sides
        self.grey = grey

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> "Photos":
        """The photos at `index` [K] int64, in that order."""
        files = [self.files[i] for i in index.tolist()]
        return Photos(files, self.content[index], self.sides[index], grey=self.grey)

    def decode(self, position: int, at_least: int = 0) -> Tensor:
        """One photo as RGB uint8 [3, H, W], at its full size or smaller with sides of `at_least` pixels."""
        with Image.open(self.files[position]) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
