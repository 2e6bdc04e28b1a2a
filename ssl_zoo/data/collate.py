"""MultiCropCollate: from images to the views of a batch, the same for every method."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_zoo.data.augment import (
    SMALL,
    Boxes,
    apply_look,
    draw_boxes,
    draw_look,
    flip_some,
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


class MultiCropCollate:
    """Cut and augment the views of `view_spec`; what is drawn depends on (seed, epoch, view, index) alone.

    Three ways in: as `collate_fn` of any DataLoader; `batch` for images in one uint8 tensor, on any device;
    `cut` and `finish` for photos, so that workers send small uint8 crops and colour is computed for the whole
    batch on the training device. Images are PIL or uint8 tensors with 1 or 3 channels, else TypeError.
    """

    def __init__(self, view_spec: ViewSpec, seed: int = 0) -> None:
        self._seed = seed
        self._global_count = len(view_spec.global_views)
        local = [view_spec.local] * view_spec.local_count if view_spec.local else []
        self._views: list[Augment] = [*view_spec.global_views, *local]

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
        return self._augment(_checked(images), self.key(index, epoch).to(images.device), index)

    def cut(self, images: Tensor | Sequence[Tensor | Image], key: Tensor) -> Crops:
        """Crop and resize to uint8: one tensor [B, C, H, W], or PIL images and [C, H, W] of any sizes."""
        pixels = _checked(images) if isinstance(images, Tensor) else [_pixels(image) for image in images]
        crops = []
        if isinstance(pixels, Tensor) and _fits_table(pixels):
            planes = to_planes(pixels)
            for view, boxes in zip(self._views, self._boxes(pixels, key), strict=True):
                crop = resize_crops(planes, boxes, view)
                crops.append(crop.mul_(255).round_().byte().transpose(0, 1))
        else:
            for view, boxes in zip(self._views, self._boxes(pixels, key), strict=True):
                crops.append(resize_each(pixels, boxes, view))
        return Crops(*self._by_size(crops))

    def finish(self, crops: Crops, key: Tensor, index: Tensor) -> Views:
        """Flip, colour, blur, solarize and normalise what `cut` made for `key` [B], on the crops' device."""
        key, index = key.to(crops.global_crops.device), index.to(crops.global_crops.device)
        cut = [*crops.global_crops, *([] if crops.local_crops is None else crops.local_crops)]
        views = []
        for slot, (view, crop) in enumerate(zip(self._views, cut, strict=True)):
            look = draw_look(view, key, slot)
            planes = apply_look(flip_some(to_planes(crop), look.flip), look, view)
            views.append(normalize(planes.transpose(0, 1)))
        return Views(*self._by_size(views), index, key)

    def _augment(self, images: Tensor | list[Tensor], key: Tensor, index: Tensor) -> Views:
        if not (isinstance(images, Tensor) and _fits_table(images)):
            return self.finish(self.cut(images, key), key, index)
        source, views = to_planes(images), []
        for slot, (view, boxes) in enumerate(zip(self._views, self._boxes(images, key), strict=True)):
            look = draw_look(view, key, slot)
            planes = apply_look(resize_crops(source, boxes, view, look.flip), look, view)
            views.append(normalize(planes.transpose(0, 1)))
        return Views(*self._by_size(views), index, key)

    def _boxes(self, images: Tensor | list[Tensor], key: Tensor) -> list[Boxes]:
        if len(images) != len(key):
            raise ValueError(f"{len(images)} images with {len(key)} indices or keys; give one for each image")
        shapes = [images[0].shape] * len(images) if isinstance(images, Tensor) else [i.shape for i in images]
        height, width = torch.tensor([shape[-2:] for shape in shapes], device=key.device).unbind(1)
        return [draw_boxes(view, key, slot, height, width) for slot, view in enumerate(self._views)]

    def _by_size(self, crops: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        local = crops[self._global_count :]
        return torch.stack(crops[: self._global_count]), torch.stack(local) if local else None


def _fits_table(images: Tensor) -> bool:
    return max(images.shape[-2:]) <= SMALL


def _pixels(image: Any) -> Tensor:
    if isinstance(image, Image):
        image = pil_to_tensor(image if image.mode == "L" else image.convert("RGB"))
    return _checked(image)


def _checked(images: Any) -> Tensor:
    if not isinstance(images, Tensor):
        raise TypeError(
            f"an image is a {type(images).__name__}; give a PIL image or a uint8 tensor [C, H, W]"
        )
    if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-3] not in (1, 3):
        raise TypeError(
            f"images are {images.dtype} of shape {list(images.shape)}; give uint8 [..., C, H, W] with 1 or 3 "
            "channels, from floats in [0, 1] by (255 * x).round().byte()"
        )
    return images
