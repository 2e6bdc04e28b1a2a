"""Augmentation of whole batches: the pixels that drawn parameters give, on any device.

Pixels are float32 in [0, 1] as planes [C, N, S, S] of N crops: an operation is one pass over contiguous
colour planes of all crops. A crop's pixels must not depend on the crops beside it: elementwise operations
round once (no multiply-add, which torch may fuse for some elements only), and sums stay inside a crop. On
CPUs `torch.where` takes as long as a dozen other operations: what concerns some crops is computed for these.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resized_crop

from ssl_zoo.data.parameters import Boxes, Look
from ssl_zoo.method import Augment, ViewSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = 64  # pixels: up to here all resize matrices of a source are in a table, and views are not blurred

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, rounded as torchvision does
_SOLARIZE_THRESHOLD = 127.5 / 255  # uint8's 128, set between levels, where inverting changes nothing
_CONTRAST, _SATURATION, _HUE = 1, 2, 3  # jitter operations, as in `Augment.jitter`; brightness is 0


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
    return _transform_axes(rows, down, across).clamp(0, 1)


def resize_each(images: Iterable[Tensor], boxes: Boxes, view: Augment) -> Tensor:
    """Crop and resize with antialias, image by image, in uint8: [C, H, W] of any sizes -> [B, C, size, size].

    Where some images are grey and some are not, all become colour.
    """
    mode, size = InterpolationMode(view.interpolation), [view.size, view.size]
    crops = [
        resized_crop(image, *box, size=size, interpolation=mode, antialias=True)
        for image, box in zip(images, torch.stack(boxes, 1).tolist(), strict=True)
    ]
    channels = max(crop.shape[0] for crop in crops)
    return torch.stack([crop.expand(channels, -1, -1) for crop in crops])


def apply_look(planes: Tensor, look: Look, views: Sequence[Augment]) -> Tensor:
    """Colour jitter, grey, blur and solarize, in this order; changes and returns `planes` [C, N, S, S].

    Jitter is torchvision's ColorJitter, every crop in its own order of operations. A `look` on the CPU tells
    which crops an operation concerns without waiting for the device of `planes`.
    """
    hue = len(planes) == 3 and any(view.jitter_p > 0 and view.jitter[_HUE] > 0 for view in views)
    for operation in look.order.unbind(1) if any(view.jitter_p > 0 for view in views) else ():
        _blend(planes, operation, look.factors)
        if hue:
            turned = (operation == _HUE) & (look.factors[:, _HUE] != 0)
            _change(planes, turned, lambda some, rows: _shift_hue(some, look.factors[rows, _HUE]))
    if any(view.gray_p > 0 for view in views):
        _change(planes, look.gray, lambda some, rows: _luma(some).expand_as(some))
    if any(view.blur_p > 0 for view in views):
        _change(planes, look.sigma > 0, lambda some, rows: _blur(some, look.sigma[rows]))
    if any(view.solarize_p > 0 for view in views):
        _change(planes, look.solarize, lambda some, rows: _solarize(some))
    return planes


def flip_some(planes: Tensor, flip: Tensor) -> Tensor:
    """Mirror the images where `flip` [B] is set."""
    return torch.where(_per_crop(_beside(planes, flip)), planes.flip(-1), planes)


def normalize(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Standardise by channel statistics, else ImageNet's: [..., 1 or 3, H, W] -> dense [..., 3, H, W]."""
    center, scale = (_constants(tuple(values), images.device) for values in (mean, std))
    dense = images.new_empty(*images.shape[:-3], 3, *images.shape[-2:])
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


def _per_crop(values: Tensor) -> Tensor:
    return values[:, None, None]


def _beside(planes: Tensor, values: Tensor) -> Tensor:
    return values.to(planes.device, non_blocking=True)


@lru_cache(maxsize=16)
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers of the colour channels, [C, 1, 1] float32 on `device`, sent there once."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def _change(planes: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replace the crops where `chosen` [N] is set by what `change` makes of them and their numbers."""
    rows = chosen.nonzero().squeeze(1)
    if len(rows):
        there = _beside(planes, rows)
        planes.index_copy_(1, there, change(planes.index_select(1, there), rows))


def _transform_axes(rows: Tensor, down: Tensor, across: Tensor) -> Tensor:
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
    rows = _beside(table, entry[:, None] * size + row)
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


def _luma(planes: Tensor) -> Tensor:
    if len(planes) == 1:
        return planes[0]
    red, green, blue = (weight * plane for weight, plane in zip(_LUMA, planes.unbind(), strict=True))
    return red.add_(green).add_(blue)


def _blend(planes: Tensor, operation: Tensor, factors: Tensor) -> None:
    """Change brightness, contrast or saturation, each crop's `operation` [N], by `factors` [N, 4] in place.

    They blend the crop x with black, its mean luma or its luma: f x + (1 - f) other, clamped. Hue is left.
    """
    factor = torch.where(operation == _HUE, 1.0, factors.gather(1, operation[:, None])[:, 0])
    to_mean, to_luma = (1 - factor) * (operation == _CONTRAST), (1 - factor) * (operation == _SATURATION)
    factor, to_mean, to_luma = (_beside(planes, values) for values in (factor, to_mean, to_luma))
    luma = _luma(planes)
    mean = luma.mean(-1).mean(-1)  # in two steps: torch would split one long sum by the number of images
    other = (luma * _per_crop(to_luma)).add_(_per_crop(to_mean * mean))
    planes.mul_(_per_crop(factor)).add_(other).clamp_(0, 1)


def _shift_hue(planes: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue by `turns` [N] in place, value and saturation kept: the HSV hexcone (Smith 1978).

    For a hue of h sixths red is bottom + chroma * clamp(|h - 3| - 1, 0, 1), green and blue are
    bottom + chroma * clamp(2 - |h - 2 or 4|, 0, 1). With h times chroma, grey pixels are no special case.
    """
    red, green, blue = planes.unbind()
    top, bottom = torch.maximum(red, green).maximum(blue), torch.minimum(red, green).minimum(blue)
    chroma = top - bottom
    is_red, is_green = (torch.eq(top, plane, out=torch.empty_like(plane)) for plane in (red, green))
    hue = (red - green).add_(4 * chroma)
    hue.add_(is_green.mul_((blue - red).add_(2 * chroma).sub_(hue)))
    hue.add_(is_red.mul_((green - blue).sub_(hue)))
    circle = 6 * chroma
    hue.div_(circle.clamp(min=1e-12)).add_(_per_crop(_beside(planes, turns + 1))).frac_().mul_(circle)
    torch.clamp((hue - 3 * chroma).abs_().add_(bottom - chroma), bottom, top, out=red)
    crest = chroma.mul(2).add_(bottom)
    torch.clamp(crest - (hue - 2 * chroma).abs_(), bottom, top, out=green)
    torch.clamp(crest - (hue - 4 * chroma).abs_(), bottom, top, out=blue)
    return planes


def _blur(planes: Tensor, sigma: Tensor) -> Tensor:
    matrices = _blur_matrices(_beside(planes, sigma), planes.shape[-1]).unsqueeze(1)
    return _transform_axes(planes.permute(1, 2, 0, 3).contiguous(), matrices, matrices)


def _solarize(planes: Tensor) -> Tensor:
    """x below the threshold, else 1 - x."""
    bright = torch.ge(planes, _SOLARIZE_THRESHOLD, out=torch.empty_like(planes))
    return (1 - 2 * planes).mul_(bright).add_(planes)


def _blur_matrices(sigma: Tensor, size: int) -> Tensor:
    """[N, size, size]: Gaussian weights of up to size - 1 neighbours per side, the border reflected."""
    distance = torch.arange(size, device=sigma.device)
    taps = (distance.square() * (-0.5 / sigma.square())[:, None]).exp_()
    taps /= 2 * taps.sum(1, keepdim=True) - taps[:, :1]
    both_sides = torch.cat([taps.flip(1), taps[:, 1:]], 1)
    weights = both_sides.unfold(1, size, 1).flip(1)  # row i, column j: the tap at |i - j|
    reflected = F.pad(taps, (0, size - 1)).unfold(1, size, 1)  # the tap at i + j
    weights[..., 1:] += reflected[..., 1:]
    weights[..., :-1] += reflected.flip(1, 2)[..., :-1]
    return weights
