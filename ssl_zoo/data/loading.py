"""Images on their way to the device: tensors are cut there, photos are decoded and cut by workers."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ssl_zoo.data.collate import Crops, MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.photos import Photos
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.method import Views

MOST_WORKERS = 8
_PIXELS_AT_ONCE = 2**22  # of views made in one go on a GPU: small ones cost their calls, not their pixels


def train_views(
    split: Split,
    sampler: Sampler,
    collate: MultiCropCollate,
    steps: range,
    *,
    device: torch.device,
    workers: int | None = None,
) -> Iterator[Views]:
    """The views of each training step, on `device`; the same for any number of workers.

    `workers` processes decode and cut photos ahead; None: a process per core, up to 8. Tensors need none, and
    go to a GPU once, if half of its free memory holds them; there the views of several steps are made in one
    go.
    """
    many = 1
    if isinstance(split.images, Photos):
        loader = _loader(
            _Cutting(split.images, sampler, collate), steps, workers, pinned=device.type == "cuda"
        )
        views = (collate.finish(crops.to(device), key, positions) for crops, key, positions in loader)
    else:
        if device.type != "cpu":
            pixels = collate.pixels_per_image * sampler.batch_size // sampler.ranks
            many = max(1, _PIXELS_AT_ONCE // pixels)
        images = _resident(split.images, device)
        batches = map(sampler.batches, grouped(steps, many))
        views = (_views(images, positions, epoch, collate, device) for positions, epoch in batches)
    made = views if device.type == "cpu" else ahead(views, device)
    return apart(zip(grouped(steps, many), made, strict=True), steps)


def grouped(steps: range, many: int) -> Iterator[range]:
    """Groups of `many` steps that hold all `steps`; a resumed training's are those of the whole one.

    Matrix kernels of a GPU round differently by the size of a batch.
    """
    for start in range(steps.start - steps.start % many, steps.stop, many):
        yield range(start, min(start + many, steps.stop))


def apart(together: Iterable[tuple[range, Views]], steps: range) -> Iterator[Views]:
    """The views of each of `steps`, from those made in one go for groups of steps."""
    for group, views in together:
        count, local = len(group), views.local_crops
        parts = zip(
            views.global_crops.chunk(count, 1),
            repeat(None, count) if local is None else local.chunk(count, 1),
            views.index.chunk(count),
            views.key.chunk(count),
            strict=True,
        )
        for step, (large, small, index, key) in zip(group, parts, strict=True):
            if step in steps:
                yield Views(large.contiguous(), None if small is None else small.contiguous(), index, key)


def ahead(views: Iterator[Views], device: torch.device) -> Iterator[Views]:
    """The same views, the next ones made by a thread on a stream of its own while those before are used.

    Small steps keep a GPU waiting for Python, which a thread can go on with while another sends kernels.
    """
    streams = torch.get_device_module(device)
    side = streams.Stream(device)
    side.wait_stream(streams.current_stream(device))  # what the views are made of may still be on its way

    def following() -> Views | None:
        with streams.stream(side):
            return next(views, None)

    with ThreadPoolExecutor(1) as thread:
        ready = following()  # here, so that workers are forked by the main thread
        while ready is not None:
            step = streams.current_stream(device)
            step.wait_stream(side)
            for tensor in ready:
                if tensor is not None and tensor.is_cuda:
                    tensor.record_stream(step)  # else its memory is free for the next views too early
            coming = thread.submit(following)
            yield ready
            ready = coming.result()


def views_of(
    split: Split, positions: Tensor, epoch: Tensor | int, collate: MultiCropCollate, device: torch.device
) -> Views:
    """Views, on `device`, of the images at `positions` [B] int64 in `epoch`, one number or [B]."""
    if isinstance(split.images, Photos):
        key = collate.key(positions, epoch)
        crops = collate.cut(_decoded(split.images, positions, collate.enough_pixels), key)
        return collate.finish(crops.to(device), key, positions)
    return _views(split.images, positions, epoch, collate, device)


def fitted_images(images: Tensor | Photos, positions: Tensor, image_size: int | None) -> Tensor:
    """The images at `positions` [B] int64 as an encoder sees them before normalisation: `fit_size` of each.

    Raises ValueError for photos without an `image_size`.
    """
    if isinstance(images, Tensor):
        return fit_size(images[positions], image_size)
    if image_size is None:
        raise ValueError("photos have many sizes; give the image_size in pixels that the encoder expects")
    decoded = _decoded(images, positions, image_size)
    return torch.cat([fit_size(image.unsqueeze(0), image_size) for image in decoded])


def fitted_batches(
    images: Tensor | Photos, image_size: int | None, *, batch_size: int = 256, workers: int | None = None
) -> Iterator[Tensor]:
    """All images in order as uint8 [B, 3, S, S]; photos are decoded by workers as in `train_views`."""
    batches = torch.split(torch.arange(len(images)), batch_size)
    if isinstance(images, Photos):
        yield from _loader(_Fitting(images, batches, image_size), range(len(batches)), workers)
    else:
        yield from (fitted_images(images, positions, image_size) for positions in batches)


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
        shorter = min(images.shape[2:])
        if shorter != image_size:
            # what lies far outside of the square would only cost memory: a strip may be 20,000 pixels long
            images = tv.center_crop(images, [min(side, 3 * shorter) for side in images.shape[2:]])
            images = tv.resize(images, [image_size], InterpolationMode.BICUBIC, antialias=True)
        images = tv.center_crop(images, [image_size])
    return images.expand(-1, 3, -1, -1)


def _views(
    images: Tensor, positions: Tensor, epoch: Tensor | int, collate: MultiCropCollate, device: torch.device
) -> Views:
    chosen = images.index_select(0, positions.to(images.device, non_blocking=True))
    return collate.batch(chosen.to(device, non_blocking=True), positions, epoch)


def _resident(images: Tensor, device: torch.device) -> Tensor:
    fits = device.type != "cuda" or images.nbytes < torch.cuda.mem_get_info(device)[0] // 2
    return images.to(device) if fits else images


def _decoded(photos: Photos, positions: Tensor, at_least: int) -> list[Tensor]:
    return [photos.decode(position, at_least) for position in positions.tolist()]


@dataclass(frozen=True)
class _Cutting(Dataset[tuple[Crops, Tensor, Tensor]]):
    """A data set whose item is all that workers do for one training step."""

    photos: Photos
    sampler: Sampler
    collate: MultiCropCollate

    def __getitem__(self, step: int) -> tuple[Crops, Tensor, Tensor]:
        positions, epoch = self.sampler.batch(step)
        key = self.collate.key(positions, epoch)
        images = _decoded(self.photos, positions, self.collate.enough_pixels)
        return self.collate.cut(images, key), key, positions


@dataclass(frozen=True)
class _Fitting(Dataset[Tensor]):
    """A data set whose item is one batch of fitted images."""

    photos: Photos
    batches: Sequence[Tensor]
    image_size: int | None

    def __getitem__(self, batch: int) -> Tensor:
        return fitted_images(self.photos, self.batches[batch], self.image_size)


def _loader(
    dataset: Dataset[Any], items: range, workers: int | None, *, pinned: bool = False
) -> DataLoader[Any]:
    if workers is None:
        workers = min(os.cpu_count() or 1, MOST_WORKERS)
    workers = min(workers, len(items))
    return DataLoader(dataset, batch_size=None, sampler=items, num_workers=workers, pin_memory=pinned)
