"""Images to make views of, and how far views lie apart."""

import dataclasses
from functools import cache

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.draws import hash64
from ssl_zoo.method import Augment, ViewSpec

LEVEL = 1 / 255  # one step of uint8
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
PLAIN = Augment(32, (0.3, 1.0), flip=0.0, jitter_p=0.0, gray_p=0.0)
FULL = Augment(32, (0.2, 1.0), blur_p=0.5, solarize_p=0.3)
SPEC = ViewSpec((FULL, dataclasses.replace(FULL, blur_p=0.0)), Augment(16, (0.05, 0.4)), 3)


@cache
def photos() -> list[Tensor]:
    return [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]


@cache
def natural_images() -> Tensor:
    """24 patches of two photos: uint8 [24, 3, 32, 32]."""
    patches = torch.stack(photos())[..., :420, :560].unfold(2, 140, 140).unfold(3, 140, 140)
    return F.resize(patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2), [32, 32], antialias=True)


def textures(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth random fields crossed by a hard edge: uint8 [B, C, H, W]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    fields = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    fields[..., height // 3 :, : width // 2] = 1 - fields[..., height // 3 :, : width // 2]
    return (255 * fields).round().byte()


def keys(count: int, seed: int = 0) -> Tensor:
    return hash64(seed, 0, torch.arange(count))


def levels(difference: Tensor) -> Tensor:
    """Absolute differences of normalised pixels in steps of uint8."""
    return (difference * STD / LEVEL).abs()
