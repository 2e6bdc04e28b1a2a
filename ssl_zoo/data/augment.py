"""Crops of whole batches: the pixels that drawn parameters give, on any device.

Pixels are float32 in [0, 1] as planes [C, N, S, S] of N crops: an operation is one pass over contiguous
colour planes of all crops.
"""

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from ssl_zoo.data.parameters import Boxes
from ssl_zoo.method import Augment, ViewSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = 64  # pixels: up to here all resize matrices of a source are in a table, and views are not blurred


def to_planes(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] -> float32 planes [C, N, H, W] in [0, 1]."""
    return images.transpose(0, 1).contiguous() / 255


def from_planes(planes: Tensor) -> Tensor:
    """Planes [C, N, H, W] in [0, 1] -> uint8 [N, C, H, W], rounded; changes `planes`."""
    return planes.mul_(255).round_().byte().transpose(0, 1)


def to_rows(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> float32 rows of all channels [B, H, C, W] in [0, 1], for `resize_crops`."""
    return images.transpose(1, 2).contiguous() / 255


def resize_crops(rows: Tensor, boxes: Boxes, views: Sequence[Augment], flip: Tensor | None = None) -> Tensor:
    """Crop, resize with antialias and flip in one product per axis: [B, H, C, W] -> [C, N, size, size].

    `views` have one size and interpolation; `boxes` and `flip` may lie on the CPU. Equals torchvision's float
    resize with antialias, clamped to [0, 1] (bicubic overshoots). Meant for sources of at most 64 pixels: the
    table of matrices grows with the cube of the side.
    """
    down = _resize_matrices(boxes.top, boxes.height, rows.shape[1], views, rows.device)
    across = _resize_matrices(boxes.left, boxes.width, rows.shape[3], views, rows.device, flip)
    return transform_axes(rows, down, across).clamp(0, 1)


def resize_each(images: Sequence[Tensor] | Tensor, boxes: Boxes, view: Augment, crops: Tensor) -> None:
    """Crop and resize with antialias, image by image, in uint8: [C, H, W] -> `crops` [V * B, C, S, S].

    `boxes` of the images follow each other view by view. Where `crops` have colour, grey images become so.
    """
    mode, size = InterpolationMode(view.interpolation), [view.size, view.size]
    for number, (top, left, height, width) in enumerate(torch.stack(boxes, 1).tolist()):
        image = images[number % len(images)]
        # a copy: the kernels take much longer for rows that lie apart
        cut = image[:, top : top + height, left : left + width].clone()
        crops[number].copy_(resize(cut, size, mode, antialias=True))


def flip_some(images: Tensor, flip: Tensor) -> Tensor:
    """Mirror the images [B, C, H, W] where `flip` [B] is set."""
    mirrored = torch.arange(len(images), device=flip.device) + len(images) * flip
    return torch.cat([images, images.flip(-1)]).index_select(0, beside(images, mirrored))


def normalize(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Standardise by channel statistics, else ImageNet's: [..., 1 or 3, H, W] -> dense [..., 3, H, W]."""
    center, scale = (_constants(tuple(values), images.device) for values in (mean, std))
    dense = images.new_empty(*images.shape[:-3], 3, *images.shape[-2:]) if out is None else out
    return torch.sub(images, center, out=dense).div_(scale)


def adapt(spec: ViewSpec, image_size: int, *, grey: bool, flip: bool, patch: int = 4) -> ViewSpec:
    """Scale a recipe's views to `image_size` pixels.

    Global crops take this size, local crops keep their share of it (a multiple of `patch`, at least 8). Up to
    64 pixels nothing is blurred; `grey` images get no saturation, hue or grey operation; `flip=False` is for
    images that mean something else when mirrored, such as digits.
    """
    ratio = image_size / spec.global_views[0].size

    def adapted(view: Augment, size: int) -> Augment:
        return dataclasses.replace(
            view,
            size=size,
            flip=view.flip if flip else 0.0,
            jitter=(*view.jitter[:2], 0.0, 0.0) if grey else view.jitter,
            gray_p=0.0 if grey else view.gray_p,
            blur_p=view.blur_p if image_size > SMALL else 0.0,
        )

    return dataclasses.replace(
        spec,
        global_views=tuple(adapted(view, image_size) for view in spec.global_views),
        local=spec.local
        and adapted(spec.local, patch * max(-(-8 // patch), round(spec.local.size * ratio / patch))),
    )


def beside(planes: Tensor, values: Tensor) -> Tensor:
    """`values` on the device of `planes`, without waiting for it."""
    return values.to(planes.device, non_blocking=True)


@lru_cache(maxsize=16)
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers of the colour channels, [C, 1, 1] float32 on `device`, sent there once."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def transform_axes(rows: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """down @ channel @ across^T: [B, H, C, W], [B, V, S, H] and [B, V, T, W] -> view of [C, V * B, S, T].

    Matrix kernels round differently by layout and alignment, so both must be the same for an image in any
    batch: all operands are copied out, on 64-byte boundaries.
    """
    batch, views, height, _ = down.shape
    channels, width = rows.shape[2], across.shape[2]
    down, across = _aligned(down), _aligned(across).mT.contiguous()
    rows = F.pad(rows, (0, -rows.shape[3] % 4, 0, 0, 0, -rows.shape[1] % 4))
    with torch.autocast(rows.device.type, enabled=False):
        cut = down.flatten(1, 2).bmm(rows.flatten(2))
        crops = cut.view(batch * views, -1, across.shape[2]).bmm(across.flatten(0, 1))
    crops = crops.view(batch, views, -1, channels, across.shape[3])[:, :, :height, :, :width]
    return crops.permute(3, 1, 0, 2, 4).flatten(1, 2)


def _aligned(matrices: Tensor) -> Tensor:
    """Zero-pad both sides to multiples of 4: every matrix of a batch starts at a multiple of 16 floats."""
    below, right = -matrices.shape[-2] % 4, -matrices.shape[-1] % 4
    return F.pad(matrices, (0, right, 0, below)) if below or right else matrices


def _resize_matrices(
    start: Tensor,
    crop: Tensor,
    length: int,
    views: Sequence[Augment],
    device: torch.device,
    flip: Tensor | None = None,
) -> Tensor:
    """[B, V, size, length] on `device`: weights that cut `crop` pixels at `start`, resize and mirror them."""
    size = views[0].size
    table = _resize_table(length, size, views[0].interpolation, device)
    # A crop of n pixels has length - n + 1 offsets; this many of the shorter ones stand before it.
    entry = (crop - 1) * (2 * length + 2 - crop) // 2 + start
    row = torch.arange(size, device=start.device)
    if flip is not None:
        row = torch.where(flip[:, None], size - 1 - row, row)
    rows = beside(table, entry[:, None] * size + row)
    return F.embedding(rows.view(len(views), -1, size).transpose(0, 1), table)


@lru_cache(maxsize=16)
def _resize_table(length: int, size: int, mode: str, device: torch.device) -> Tensor:
    """Rows of the matrices [size, length] of all crops, ordered by crop length, then offset."""
    matrices = []
    for crop in range(1, length + 1):
        unit = torch.eye(crop)[None, None]  # resizing unit vectors yields torch's own weights
        weights = F.interpolate(unit, size=(size, crop), mode=mode, antialias=True)[0, 0]
        windows = F.pad(weights, (length - crop, length - crop)).unfold(1, length, 1)
        matrices.append(windows.flip(1).transpose(0, 1))
    return torch.cat(matrices).flatten(0, 1).to(device)
