"""MultiCropCollate: from images to the views of a batch, the same for every method."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_zoo.data.augment import (
    SMALL,
    beside,
    flip_some,
    from_planes,
    normalize,
    resize_crops,
    resize_each,
    to_planes,
    to_rows,
)
from ssl_zoo.data.colour import apply_look, parts
from ssl_zoo.data.decode import as_rgb
from ssl_zoo.data.parameters import Boxes, Look, draw_boxes, draw_look
from ssl_zoo.draws import hash64
from ssl_zoo.method import Augment, Views, ViewSpec

_EACH = "give one for each image"


class Crops(NamedTuple):
    """Crops before flip and colour: uint8 [G, B, C, S, S], and the local ones [L, B, C, s, s] or None."""

    global_crops: Tensor
    local_crops: Tensor | None

    def to(self, device: torch.device) -> "Crops":
        """The same crops on `device`; pinned ones go there without waiting."""
        local = None if self.local_crops is None else self.local_crops.to(device, non_blocking=True)
        return Crops(self.global_crops.to(device, non_blocking=True), local)


class _Group(NamedTuple):
    """Views that are made in one go, numbered from `slot` on."""

    slot: int
    views: list[Augment]


class MultiCropCollate:
    """Cut and augment the views of `view_spec`; what is drawn depends on (seed, epoch, view, index) alone.

    Three ways in: as `collate_fn` of any DataLoader; `batch` for images in one uint8 tensor, on any device;
    `cut` and `finish` for photos, so that workers send small uint8 crops and colour is computed for the whole
    batch on the training device. Images are PIL or uint8 tensors with 1 or 3 channels, else TypeError.
    Sources with sides of `enough_pixels` are sharp enough for the smallest crop; the views of an image have
    `pixels_per_image` together.
    """

    def __init__(self, view_spec: ViewSpec, seed: int = 0) -> None:
        self._seed = seed
        views, count = view_spec.views, len(view_spec.global_views)
        self._kinds = (_groups(views[:count], 0), _groups(views[count:], count))
        self._groups = [group for groups in self._kinds for group in groups]
        smallest = [view.size / math.sqrt(view.scale[0] * view.ratio[0]) for view in views]
        self.enough_pixels = math.ceil(max(smallest))
        self.pixels_per_image = sum(view.size**2 for view in views)

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
        epoch = epoch.cpu() if isinstance(epoch, Tensor) else epoch
        return self._augment(_checked(images, 4), self.key(index.cpu(), epoch), index)

    def cut(self, images: Tensor | Sequence[Tensor | Image], key: Tensor) -> Crops:
        """Crop and resize to uint8: one tensor [B, C, H, W], or PIL images and [C, H, W] of any sizes."""
        pixels = _checked(images, 4) if isinstance(images, Tensor) else [_pixels(image) for image in images]
        channels = max(image.shape[0] for image in pixels)
        made = self._room(len(key), channels, torch.uint8, pixels[0].device)
        rows = to_rows(pixels) if isinstance(pixels, Tensor) and _fits_table(pixels) else None
        for (slot, views), place in zip(self._groups, self._by_group(made), strict=True):
            boxes = _boxes(pixels, views, key, slot)
            if rows is None:
                resize_each(pixels, boxes, views[0], place)
            else:
                place.copy_(from_planes(resize_crops(rows, boxes, views)))
        return made

    def finish(self, crops: Crops, key: Tensor, index: Tensor) -> Views:
        """Flip, colour, blur, solarize and normalise what `cut` made for `key` [B], on the crops' device.

        With `key` on the CPU, where all is drawn, nothing waits for the device.
        """
        if crops.global_crops.shape[1] != len(key):
            raise ValueError(f"crops of {crops.global_crops.shape[1]} images with {len(key)} keys; {_EACH}")
        made, cut = self._room(len(key), 3, torch.float32, crops.global_crops.device), self._by_group(crops)
        for (slot, views), group, place in zip(self._groups, cut, self._by_group(made), strict=True):
            look = draw_look(views, key, slot)
            for part in parts(group):
                planes = to_planes(flip_some(group[part], look.flip[part]))
                _finish(planes, Look(*(drawn[part] for drawn in look)), views, place[part])
        return Views(*made, *(beside(made.global_crops, values) for values in (index, key)))

    def _augment(self, images: Tensor | list[Tensor], key: Tensor, index: Tensor) -> Views:
        if not (isinstance(images, Tensor) and _fits_table(images)):
            return self.finish(self.cut(images, key), key, index)
        rows, made = to_rows(images), self._room(len(key), 3, torch.float32, images.device)
        for (slot, views), place in zip(self._groups, self._by_group(made), strict=True):
            look = draw_look(views, key, slot)
            planes = resize_crops(rows, _boxes(images, views, key, slot), views, look.flip)
            _finish(planes, look, views, place)
        return Views(*made, *(beside(made.global_crops, values) for values in (index, key)))

    def _room(self, batch: int, channels: int, dtype: torch.dtype, device: torch.device) -> Crops:
        """Crops without content."""

        def room(groups: list[_Group]) -> Tensor:
            count, size = sum(len(group.views) for group in groups), groups[0].views[0].size
            return torch.empty(count, batch, channels, size, size, dtype=dtype, device=device)

        global_groups, local_groups = self._kinds
        return Crops(room(global_groups), room(local_groups) if local_groups else None)

    def _by_group(self, crops: Crops) -> list[Tensor]:
        """The crops [V * B, C, S, S] of each group, in the memory of `crops`."""
        return [
            part.flatten(0, 1)
            for kind, groups in zip(crops, self._kinds, strict=True)
            if kind is not None
            for part in torch.split(kind, [len(group.views) for group in groups])
        ]


def _groups(views: Sequence[Augment], slot: int) -> list[_Group]:
    """Large crops alone; small ones, for which calls cost more than pixels, in runs of one interpolation."""
    runs = groupby(
        enumerate(views, slot), key=lambda each: (each[1].interpolation, each[1].size > SMALL and each[0])
    )
    listed = [list(run) for _, run in runs]
    return [_Group(run[0][0], [view for _, view in run]) for run in listed]


def _boxes(images: Tensor | list[Tensor], views: Sequence[Augment], key: Tensor, slot: int) -> Boxes:
    if len(images) != len(key):
        raise ValueError(f"{len(images)} images with {len(key)} indices or keys; {_EACH}")
    sides = [image.shape[-2:] for image in (images[:1] if isinstance(images, Tensor) else images)]
    height, width = torch.tensor(sides, device=key.device).expand(len(key), 2).unbind(1)
    return draw_boxes(views, key, slot, height, width)


def _finish(planes: Tensor, look: Look, views: Sequence[Augment], place: Tensor) -> None:
    """Planes [C, N, S, S] -> coloured and normalised crops in `place` [N, 3, S, S]."""
    normalize(apply_look(planes, look, views).transpose(0, 1), out=place)


def _fits_table(images: Tensor) -> bool:
    return max(images.shape[-2:]) <= SMALL


def _pixels(image: Any) -> Tensor:
    if isinstance(image, Image):
        image = pil_to_tensor(as_rgb(image))[: 1 if image.mode == "L" else 3]
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
