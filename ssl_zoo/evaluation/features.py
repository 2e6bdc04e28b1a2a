"""From images to features: what every evaluator starts from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize


def fit_size(images: Tensor, image_size: int | None) -> Tensor:
    """Images uint8 [N, C, H, W] as RGB uint8 [N, 3, S, S]: shorter side resized (bicubic), centre cropped.

    Images of the right size, or any size if `image_size` is None, keep their pixels; grey is repeated.
    Raises ValueError for another type or number of channels.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}; give uint8 [N, C, H, W] with 1 or 3 channels"
        )
    if image_size is not None and tuple(images.shape[2:]) != (image_size, image_size):
        if min(images.shape[2:]) != image_size:
            images = tv.resize(images, [image_size], InterpolationMode.BICUBIC, antialias=True)
        images = tv.center_crop(images, [image_size])
    return images.expand(-1, 3, -1, -1)


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
    images: Tensor,
    *,
    image_size: int | None,
    device: torch.device | str,
    batch_size: int = 256,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Features float32 [N, D], on the CPU, of un-augmented `images` uint8 [N, C, H, W].

    `encoder` lies on `device` and runs in eval mode and float32; its modes are restored and its buffers
    untouched.
    Raises ValueError for images of another type.
    """
    device = torch.device(device)
    with evaluating(encoder), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        batches = [
            # resized where the images lie, so that pixels do not depend on the device
            encoder(to_input(fit_size(batch, image_size).to(device), None, mean, std)).float().cpu()
            for batch in torch.split(images, batch_size)
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
