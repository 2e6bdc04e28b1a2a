"""Alignment and uniformity: how features lie on the unit sphere, told without labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import train_views
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.draws import sample
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.features import evaluating
from ssl_zoo.method import ViewSpec

_UNIFORMITY_FEATURES = 2000  # two million pairs
_ALIGNED_IMAGES = 1000
_BATCH = 250


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of L2-normalised features of two views, `first` and `second` [N, D]: 0 to 4.

    0 says that augmentation does not move the features, which a constant does as well: read it beside
    `uniformity`. From Wang & Isola 2020, with alpha = 2.
    """
    return (F.normalize(first.double()) - F.normalize(second.double())).square().sum(1).mean().item()


def uniformity(x: Tensor) -> float:
    """Log of the mean of exp(-2 d^2) over pairs of L2-normalised features `x` [N, D] at distance d: -8 to 0.

    0 if all are one point; evenly spread over the sphere about -4 in many dimensions. From Wang & Isola
    2020, with t = 2; of more than 2,000 features a fixed random subset.
    Raises ValueError for fewer than two features.
    """
    if len(x) < 2:
        raise ValueError(f"uniformity compares pairs of features, and there is {len(x)}; give two or more")
    x = F.normalize(sample(x, _UNIFORMITY_FEATURES).double())
    square = x.square().sum(1)
    distances = (square[:, None] + square - 2 * (x @ x.T)).clamp_min(0)
    pairs = torch.ones_like(distances, dtype=torch.bool).triu(1)
    return distances[pairs].mul(-2).exp().mean().log().item()


def view_alignment(encoder: Encoder, split: Split, views: ViewSpec, *, workers: int | None = None) -> float:
    """`alignment` of the two global views of up to 1,000 images of `split`: the same views for any encoder.

    The encoder stays where it lies; photos are decoded by `workers` processes.
    """
    images = min(len(split), _ALIGNED_IMAGES)
    steps = range(-(-images // _BATCH))
    sampler, collate = Sampler(len(split), images // len(steps), seed=0), MultiCropCollate(views)
    device = next(encoder.parameters()).device
    features = []
    with evaluating(encoder), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for batch in train_views(split, sampler, collate, steps, device=device, workers=workers):
            crops = [encoder.from_views(crop) for crop in batch.global_crops]
            features.append(torch.stack([encoder(crop).float().cpu() for crop in crops]))
    first, second = torch.cat(features, 1)
    return alignment(first, second)
