"""From images to features: what every evaluator starts from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from ssl_zoo.data.loading import fit_size, fitted_batches
from ssl_zoo.data.photos import Photos


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

    `encoder` lies on `device` and runs in eval mode and float32; its modes are restored and its buffers
    untouched.
    Photos are decoded by `workers` processes. Raises ValueError for images of another type.
    """
    device = torch.device(device)
    with evaluating(encoder), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        batches = [
            # resized where the images lie, so that pixels do not depend on the device
            encoder(to_input(batch.to(device), None, mean, std)).float().cpu()
            for batch in fitted_batches(images, image_size, batch_size=batch_size, workers=workers)
        ]
    return torch.cat(batches)  # outside inference mode: an ordinary tensor


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
