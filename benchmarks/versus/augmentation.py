"""One view by four libraries, each on one core: the official DINO transforms, lightly, kornia and ssl_zoo."""

import random
from collections.abc import Callable
from importlib.util import find_spec

import torch
from lightly.transforms.dino_transform import DINOViewTransform
from PIL import ImageFilter, ImageOps
from torch import Tensor, nn
from torchvision import transforms as T
from torchvision.transforms.v2.functional import to_pil_image

from benchmarks.versus.timing import interleaved, repeated
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.method import Augment, ViewSpec

VIEWS = {  # with how many of them an image gets
    "2 x 32 px": (Augment(32, (0.4, 1.0)), 2),
    "2 x 32 px, blur, solarize": (Augment(32, (0.4, 1.0), blur_p=0.5, solarize_p=0.1), 2),
    "6 x 16 px": (Augment(16, (0.05, 0.4)), 6),
    "6 x 16 px, blur": (Augment(16, (0.05, 0.4), blur_p=0.5), 6),
}
ONE_BY_ONE = 32  # images of the batch that the slow ones are given
HAS_KORNIA = find_spec("kornia") is not None


def measure(images: Tensor, rounds: int, repetitions: int) -> list[dict[str, object]]:
    """Seconds per view by library, for each kind of view of uint8 images [B, 3, 32, 32]."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            {"views": name, "seconds": _seconds(view, count, images, rounds, repetitions)}
            for name, (view, count) in VIEWS.items()
        ]
    finally:
        torch.set_num_threads(threads)


def _seconds(
    view: Augment, count: int, images: Tensor, rounds: int, repetitions: int
) -> dict[str, list[float]]:
    pictures = [to_pil_image(image) for image in images[:ONE_BY_ONE]]
    collate, index = MultiCropCollate(ViewSpec((view,) * count)), torch.arange(len(images))
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "torchvision": (_each(_torchvision(view), pictures), len(pictures)),
        "lightly": (_each(_lightly(view), pictures), len(pictures)),
        "ssl_zoo": (lambda: collate.batch(images, index, 0), count * len(images)),
    }
    if HAS_KORNIA:
        augment = _kornia(view)
        repeated_images = images.repeat(count, 1, 1, 1)
        calls["kornia"] = (lambda: augment(repeated_images / 255), len(repeated_images))
    blocks = {name: repeated(call) for name, (call, _) in calls.items()}
    seconds = interleaved(blocks, rounds, repetitions)
    return {name: [value / calls[name][1] for value in values] for name, values in seconds.items()}


def _each(transform: Callable[[object], Tensor], pictures: list[object]) -> Callable[[], object]:
    return lambda: torch.stack([transform(picture) for picture in pictures])


def _torchvision(view: Augment) -> Callable[[object], Tensor]:
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
