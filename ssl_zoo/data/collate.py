"""MultiCropCollate: from images to the views of a batch, the same for every method."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_zoo.data.augment import (
    SMALL,
    Boxes,
    Look,
    apply_look,
    draw_boxes,
    draw_look,
    flip_some,
    from_planes,
    normalize,
    resize_crops,
    resize_each,
    to_planes,
)
from ssl_zoo.draws import hash64
from ssl_zoo.method import Augment, Views, ViewSpec


class Crops(NamedTuple):
    """Crops before flip and colour: uint8 [G, B, C, S, S], and the local ones [L, B, C, s, s] or None."""

    global_crops: Tensor
    local_crops: Tensor | None

    def to(self, device: torch.device) -> "Crops":
        """The same crops on `device`."""
        local = self.local_crops if self.local_crops is None else self.local_crops.to(device)
        return Crops(self.global_crops.to(device), local)


class MultiCropCollate:
    """Cut and augment the views of `view_spec`; what is drawn depends on (seed, epoch, view, index) alone.

    Three ways in: as `collate_fn` of any DataLoader; `batch` for images in one uint8 tensor, on any device;
    `cut` and `finish` for photos, so that workers send small uint8 crops and colour is computed for the whole
    batch on the training device. Images are PIL or uint8 tensors with 1 or 3 channels, else TypeError.
    Sources with sides of `enough_pixels` are sharp enough for the smallest crop.
    """

    def __init__(self, view_spec: ViewSpec, seed: int = 0) -> None:
        self._seed = seed
        self._global_count = len(view_spec.global_views)
        local = [view_spec.local] * view_spec.local_count if view_spec.local else []
        self._views: list[Augment] = [*view_spec.global_views, *local]
        smallest = [view.size / math.sqrt(view.scale[0] * view.ratio[0]) for view in self._views]
        self.enough_pixels = math.ceil(max(smallest))

    def __call__(self, samples: Sequence[Any]) -> Views:
        """Views of samples `(image, label, ...)` or bare images of any sizes; all but the image is dropped.

        Keys come from torch's default generator, which a DataLoader seeds in each worker; `index` is -1.
        """
        images = [_pixels(sample[0] if isinstance(sample, tuple | list) else sample) for sample in samples]
        one_shape = len({image.shape for image in images}) == 1
        key = torch.randint(2**62, (len(images),))
        return self._augment(torch.stack(images) if one_shape else images, key, torch.full_like(key, -1))

    def key(self, index: Tensor, epoch: int | Tensor) -> Tensor:
        """Keys [B] of the data set's images `index` [B] in `epoch`, one number or [B]."""
        return hash64(self._seed, epoch, index)

    def batch(self, images: Tensor, index: Tensor, epoch: int | Tensor) -> Views:
        """Views of uint8 images [B, C, H, W], the data set's `index` [B], in `epoch`, one number or [B]."""
        index = index.to(images.device)
        return self._augment(_checked(images, 4), self.key(index, epoch), index)

    def cut(self, images: Tensor | Sequence[Tensor | Image], key: Tensor) -> Crops:
        """Crop and resize to uint8: one tensor [B, C, H, W], or PIL images and [C, H, W] of any sizes."""
        pixels = _checked(images, 4) if isinstance(images, Tensor) else [_pixels(image) for image in images]
        views = list(zip(self._boxes(pixels, key.to(pixels[0].device)), self._views, strict=True))
        if isinstance(pixels, Tensor) and _fits_table(pixels):
            source = to_planes(pixels)
            crops = [from_planes(resize_crops(source, boxes, view)) for boxes, view in views]
        else:
            crops = [resize_each(pixels, boxes, view) for boxes, view in views]
        return Crops(*self._by_size(crops))

    def finish(self, crops: Crops, key: Tensor, index: Tensor) -> Views:
        """Flip, colour, blur, solarize and normalise what `cut` made for `key` [B], on the crops' device."""
        key, index = key.to(crops.global_crops.device), index.to(crops.global_crops.device)
        cut = [*crops.global_crops, *([] if crops.local_crops is None else crops.local_crops)]
        looks = self._looks(key)
        planes = (flip_some(to_planes(crop), look.flip) for crop, look in zip(cut, looks, strict=True))
        return self._assemble(planes, looks, key, index)

    def _augment(self, images: Tensor | list[Tensor], key: Tensor, index: Tensor) -> Views:
        if not (isinstance(images, Tensor) and _fits_table(images)):
            return self.finish(self.cut(images, key), key, index)
        source, looks = to_planes(images), self._looks(key)
        views = zip(self._boxes(images, key), self._views, looks, strict=True)
        planes = (resize_crops(source, boxes, view, look.flip) for boxes, view, look in views)
        return self._assemble(planes, looks, key, index)

    def _assemble(self, planes: Iterable[Tensor], looks: list[Look], key: Tensor, index: Tensor) -> Views:
        coloured = map(apply_look, planes, looks, self._views)
        return Views(*self._by_size([normalize(view.transpose(0, 1)) for view in coloured]), index, key)

    def _looks(self, key: Tensor) -> list[Look]:
        return [draw_look(view, key, slot) for slot, view in enumerate(self._views)]

    def _boxes(self, images: Tensor | list[Tensor], key: Tensor) -> list[Boxes]:
        if len(images) != len(key):
            raise ValueError(f"{len(images)} images with {len(key)} indices or keys; give one for each image")
        sides = [image.shape[-2:] for image in (images[:1] if isinstance(images, Tensor) else images)]
        height, width = torch.tensor(sides, device=key.device).expand(len(key), 2).unbind(1)
        return [draw_boxes(view, key, slot, height, width) for slot, view in enumerate(self._views)]

    def _by_size(self, crops: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        local = crops[self._global_count :]
        return torch.stack(crops[: self._global_count]), torch.stack(local) if local else None


def _fits_table(images: Tensor) -> bool:
    return max(images.shape[-2:]) <= SMALL


def _pixels(image: Any) -> Tensor:
    if isinstance(image, Image):
        image = pil_to_tensor(image if image.mode == "L" else image.convert("RGB"))
    return _checked(image, 3)


def _checked(images: Any, ndim: int) -> Tensor:
    if not isinstance(images, Tensor):
        given = type(images).__name__
        raise TypeError(f"an image is a {given}; give a PIL image or a uint8 tensor [C, H, W]")
    if images.dtype != torch.uint8 or images.ndim != ndim or images.shape[-3] not in (1, 3):
        wanted = "[B, C, H, W]" if ndim == 4 else "[C, H, W]"
        raise TypeError(
            f"images are {images.dtype} of shape {list(images.shape)}; give uint8 {wanted} with 1 or 3 "
            "channels, from floats in [0, 1] by (255 * x).round().byte()"
        )
    return images
