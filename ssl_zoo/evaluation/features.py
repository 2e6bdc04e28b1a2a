"""From images to features: what every evaluator starts from."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo import ranks
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from ssl_zoo.data.cache import cache_dir
from ssl_zoo.data.loading import fit_size, fitted_batches
from ssl_zoo.data.photos import Photos

_MAPPED_BYTES = 2**30


def to_input(
    images: Tensor,
    image_size: int | None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """What an encoder is given for images uint8 [N, C, H, W]: float32 [N, 3, S, S], fitted and normalised."""
    return normalize(fit_size(images, image_size).float() / 255, mean, std)


def extract(
    encoder: nn.Module,
    images: Tensor | Photos,
    *,
    image_size: int | None,
    device: torch.device | str,
    batch_size: int = 256,
    workers: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Features float32 [N, D], on the CPU, of un-augmented `images` uint8 [N, C, H, W] or photos.

    From 1 GiB on they lie in a file without a name in the cache folder, mapped into memory.
    `encoder` lies on `device` and runs in eval mode and float32; its modes are restored and its buffers
    untouched.
    Photos are decoded by `workers` processes. Raises ValueError for images of another type.
    """
    device = torch.device(device)
    with evaluating(encoder), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        batches = (
            # resized where the images lie, so that pixels do not depend on the device
            encoder(to_input(batch.to(device), None, mean, std)).float().cpu()
            for batch in fitted_batches(images, image_size, batch_size=batch_size, workers=workers)
        )
        first = next(batches)
        with torch.inference_mode(False):
            features = _empty(len(images), *first.shape[1:])
        done = 0
        for batch in chain([first], batches):
            features[done : done + len(batch)] = batch
            done += len(batch)
    return features


def extract_by_ranks(
    embed: Callable[[Tensor | Photos], Tensor], images: Tensor | Photos, width: int, batch_size: int = 256
) -> Tensor:
    """What `embed` makes of `images`, float32 [N, `width`], by all ranks; the first has the whole.

    Parts are whole batches, so that the features are those of a process by itself, bit for bit on a CPU.
    """
    if ranks.count() == 1:
        return embed(images)
    share = math.ceil(len(images) / batch_size / ranks.count()) * batch_size
    rows = [range(len(images))[share * rank :][:share] for rank in range(ranks.count())]
    own = rows[ranks.index()]
    chosen = images[own.start : own.stop] if isinstance(images, Tensor) else images[torch.tensor(own)]
    part = embed(chosen) if own else torch.empty(0, width)
    whole = _empty(len(images), width) if ranks.index() == 0 else part
    ranks.collect(part, whole, rows)
    return whole


def _empty(*shape: int) -> Tensor:
    size = 4 * math.prod(shape)
    if size < _MAPPED_BYTES:
        return torch.empty(shape)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_dir()) as file:  # the mapping outlives it
        file.truncate(size)
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
