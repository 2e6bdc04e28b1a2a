"""One view by each library, on one core: official DINO, torchvision v2, lightly, kornia and ssl_zoo."""

import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import torch
from lightly.transforms.dino_transform import DINOViewTransform
from PIL import ImageFilter, ImageOps
from torch import Tensor, nn
from torchvision import transforms as T
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image

from benchmarks.versus.tasks import made_up_images
from benchmarks.versus.timing import interleaved, repeated
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.method import Augment, ViewSpec

_GLOBAL, _LOCAL = (0.4, 1.0), (0.05, 0.4)
ONE_BY_ONE = 32  # images of the batch that the slow ones are given
HAS_KORNIA = find_spec("kornia") is not None


class Case(NamedTuple):
    """`count` views of each of `images` images that are `side` pixels wide."""

    view: Augment
    count: int
    images: int = 128
    side: int = 32


CASES = {
    "2 x 32 px": Case(Augment(32, _GLOBAL), 2),
    "2 x 32 px, blur, solarize": Case(Augment(32, _GLOBAL, blur_p=0.5, solarize_p=0.1), 2),
    "6 x 16 px": Case(Augment(16, _LOCAL), 6),
    "6 x 16 px, blur": Case(Augment(16, _LOCAL, blur_p=0.5), 6),
    "6 x 96 px of 256, blur": Case(Augment(96, _LOCAL, blur_p=0.5), 6, 64, 256),
    "2 x 224 px of 256, blur, solarize": Case(Augment(224, _GLOBAL, blur_p=0.55, solarize_p=0.1), 2, 64, 256),
}


def measure(cases: dict[str, Case], rounds: int, repetitions: int) -> list[dict[str, object]]:
    """Seconds per view by library, for each kind of view."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            {"views": name, "seconds": _seconds(case, rounds, repetitions)} for name, case in cases.items()
        ]
    finally:
        torch.set_num_threads(threads)


def _seconds(case: Case, rounds: int, repetitions: int) -> dict[str, list[float]]:
    view, count = case.view, case.count
    images = made_up_images(case.images, case.side)
    few, pictures = list(images[:ONE_BY_ONE]), [to_pil_image(image) for image in images[:ONE_BY_ONE]]
    collate, index = MultiCropCollate(ViewSpec((view,) * count)), torch.arange(len(images))
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "official DINO": (_each(_official(view), pictures), len(pictures)),
        "torchvision v2": (_each(_torchvision(view), few), len(few)),
        "lightly": (_each(_lightly(view), pictures), len(pictures)),
        "ssl_zoo": (lambda: collate.batch(images, index, 0), count * len(images)),
    }
    if HAS_KORNIA and case.side <= 64:
        augment = _kornia(view)
        repeated_images = images.repeat(count, 1, 1, 1)
        calls["kornia"] = (lambda: augment(repeated_images / 255), len(repeated_images))
    blocks = {name: repeated(call) for name, (call, _) in calls.items()}
    seconds = interleaved(blocks, rounds, repetitions)
    return {name: [value / calls[name][1] for value in values] for name, values in seconds.items()}


def _each(transform: Callable[[object], Tensor], pictures: Sequence[object]) -> Callable[[], object]:
    return lambda: torch.stack([transform(picture) for picture in pictures])


def _torchvision(view: Augment) -> Callable[[object], Tensor]:
    """torchvision's transforms v2 on one uint8 tensor at a time."""
    taps = 2 * (view.size // 20) + 1  # a tenth of the side, as SimCLR and lightly have it
    return v2.Compose(
        [
            v2.RandomResizedCrop(view.size, view.scale, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(view.flip),
            v2.RandomApply([v2.ColorJitter(*view.jitter)], p=view.jitter_p),
            v2.RandomGrayscale(view.gray_p),
            v2.RandomApply([v2.GaussianBlur(max(3, taps), view.blur_sigma)], p=view.blur_p),
            v2.RandomSolarize(128, p=view.solarize_p),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def _official(view: Augment) -> Callable[[object], Tensor]:
    """The transforms of facebookresearch/dino: torchvision's, with blur and solarize by PIL."""
    blur = T.Lambda(lambda image: image.filter(ImageFilter.GaussianBlur(random.uniform(*view.blur_sigma))))
    return T.Compose(
        [
            T.RandomResizedCrop(view.size, view.scale, interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(view.flip),
            T.RandomApply([T.ColorJitter(*view.jitter)], p=view.jitter_p),
            T.RandomGrayscale(view.gray_p),
            T.RandomApply([blur], p=view.blur_p),
            T.RandomApply([T.Lambda(ImageOps.solarize)], p=view.solarize_p),
            T.ToTensor(),
            T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def _lightly(view: Augment) -> Callable[[object], Tensor]:
    brightness, contrast, saturation, hue = view.jitter
    return DINOViewTransform(
        crop_size=view.size,
        crop_scale=view.scale,
        hf_prob=view.flip,
        cj_prob=view.jitter_p,
        cj_strength=1.0,
        cj_bright=brightness,
        cj_contrast=contrast,
        cj_sat=saturation,
        cj_hue=hue,
        random_gray_scale=view.gray_p,
        gaussian_blur=view.blur_p,
        sigmas=view.blur_sigma,
        solarization_prob=view.solarize_p,
    )


def _kornia(view: Augment) -> nn.Sequential:
    from kornia import augmentation as K

    stages = [
        K.RandomResizedCrop((view.size, view.size), view.scale, resample="bicubic"),
        K.RandomHorizontalFlip(p=view.flip),
        K.ColorJitter(*view.jitter, p=view.jitter_p),
        K.RandomGrayscale(p=view.gray_p),
        K.RandomGaussianBlur(9, view.blur_sigma, p=view.blur_p) if view.blur_p else None,
        K.RandomSolarize(0.5, 0.0, p=view.solarize_p) if view.solarize_p else None,
        K.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    return nn.Sequential(*[stage for stage in stages if stage is not None])
