"""Augmentation of whole batches: parameters drawn from keys, and the pixels they give, on any device.

Pixels are float32 in [0, 1] as planes [C, B, H, W]: an operation is one pass over contiguous colour planes of
the whole batch. An image's pixels must not depend on the images beside it: elementwise operations round
once (no multiply-add, which torch may fuse for some elements only), and sums stay inside an image.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resized_crop

from ssl_zoo.draws import hash64, uniform
from ssl_zoo.method import Augment, ViewSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = 64  # pixels: up to here all resize matrices of a source are in a table, and views are not blurred

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, rounded as torchvision does
_SOLARIZE_THRESHOLD = 127.5 / 255  # uint8's 128, set between levels, where inverting changes nothing
_ATTEMPTS = 10  # of RandomResizedCrop to fit a box into the image
_CONTRAST, _SATURATION, _HUE = 1, 2, 3  # jitter operations, as in `Augment.jitter`; brightness is 0
_BOXES, _LOOK = 0, 1  # hashed with the key, so that methods may draw from the key itself


class Boxes(NamedTuple):
    """Crop boxes in pixels of the source image, each field [B] int64."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class Look(NamedTuple):
    """Everything drawn for one view but its box.

    `flip`, `gray`, `solarize` [B] bool; `factors` [B, 4] float32 of brightness, contrast, saturation and hue
    (in turns), 1, 1, 1, 0 where jitter was not drawn; `order` [B, 4] int64, which of these four comes first,
    second, ...; `sigma` [B] float32 of the blur in pixels, 0 for none.
    """

    flip: Tensor
    factors: Tensor
    order: Tensor
    gray: Tensor
    sigma: Tensor
    solarize: Tensor


def draw_boxes(view: Augment, key: Tensor, slot: int, height: int | Tensor, width: int | Tensor) -> Boxes:
    """Draw the crop boxes of view `slot` for images `height` x `width` pixels (ints or [B]) with keys [B].

    The rule is RandomResizedCrop of torchvision: ten attempts, the first that fits, else the largest central
    box with an allowed ratio.
    """
    # Doubles, so that no device or batch split can round a side to another pixel.
    draws = uniform(hash64(_BOXES, slot, key), 2 * _ATTEMPTS + 2).double().t().contiguous()
    height, width = (torch.as_tensor(side, device=key.device).expand_as(key) for side in (height, width))
    low, high = (math.log(ratio) for ratio in view.ratio)
    area = height * width * (view.scale[0] + (view.scale[1] - view.scale[0]) * draws[:_ATTEMPTS])
    ratio = (low + (high - low) * draws[_ATTEMPTS:-2]).exp()
    central_height = torch.minimum(height, (width / view.ratio[0]).round().clamp(min=1))
    central_width = torch.minimum(width, (height * view.ratio[1]).round().clamp(min=1))
    heights = torch.cat([(area / ratio).sqrt().round(), central_height[None]]).long()
    widths = torch.cat([(area * ratio).sqrt().round(), central_width[None]]).long()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    chosen = fits.int().argmax(0, keepdim=True)  # the first that fits; the central box always does
    box_height, box_width = heights.gather(0, chosen)[0], widths.gather(0, chosen)[0]
    central = chosen[0] == _ATTEMPTS
    top = torch.where(central, (height - box_height) // 2, (draws[-2] * (height - box_height + 1)).long())
    left = torch.where(central, (width - box_width) // 2, (draws[-1] * (width - box_width + 1)).long())
    return Boxes(top, left, box_height, box_width)


def draw_look(view: Augment, key: Tensor, slot: int) -> Look:
    """Draw flip, jitter, grey, blur and solarize of view `slot` for images with keys [B]."""
    draws = uniform(hash64(_LOOK, slot, key), 14)
    chance, amount, order = draws[:, :5], draws[:, 5:10], draws[:, 10:]
    probability = (view.flip, view.jitter_p, view.gray_p, view.blur_p, view.solarize_p)
    flip, jitter, gray, blur, solarize = (chance < chance.new_tensor(probability)).unbind(1)
    brightness, contrast, saturation, hue = view.jitter
    bounds = [(max(0.0, 1 - strength), 1 + strength) for strength in (brightness, contrast, saturation)]
    low, high = amount.new_tensor([*bounds, (-hue, hue), view.blur_sigma]).t()
    amount = low + (high - low) * amount
    identity = amount.new_tensor((1, 1, 1, 0))
    factors = torch.where(jitter[:, None], amount[:, :4], identity)
    sigma = torch.where(blur, amount[:, 4], 0.0)
    return Look(flip, factors, order.argsort(stable=True, dim=1), gray, sigma, solarize)


def to_planes(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> float32 planes [C, B, H, W] in [0, 1]."""
    return images.transpose(0, 1).contiguous() / 255


def from_planes(planes: Tensor) -> Tensor:
    """Planes [C, B, H, W] in [0, 1] -> uint8 [B, C, H, W], rounded; changes `planes`."""
    return planes.mul_(255).round_().byte().transpose(0, 1)


def resize_crops(planes: Tensor, boxes: Boxes, view: Augment, flip: Tensor | None = None) -> Tensor:
    """Crop, resize with antialias and flip in one product per axis: [C, B, H, W] -> [C, B, size, size].

    Equals torchvision's float resize with antialias, clamped to [0, 1] (bicubic overshoots). Meant for
    sources of at most 64 pixels: the table of matrices grows with the cube of the side.
    """
    rows = _resize_matrices(boxes.top, boxes.height, planes.shape[-2], view)
    columns = _resize_matrices(boxes.left, boxes.width, planes.shape[-1], view, flip)
    return _transform_axes(planes, rows, columns).clamp_(0, 1)


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


def apply_look(planes: Tensor, look: Look, view: Augment) -> Tensor:
    """Colour jitter, grey, blur and solarize, in this order; `planes` [C, B, S, S] may be changed in place.

    Jitter is torchvision's ColorJitter, every image in its own order of operations.
    """
    for operation in look.order.unbind(1) if view.jitter_p > 0 else ():
        _blend(planes, operation, look.factors)
        if view.jitter[_HUE] > 0 and len(planes) == 3:
            turned = ((operation == _HUE) & (look.factors[:, _HUE] != 0)).nonzero().squeeze(1)
            planes[:, turned] = _shift_hue(planes.index_select(1, turned), look.factors[turned, _HUE])
    if view.gray_p > 0:
        planes = torch.where(_per_image(look.gray), _luma(planes), planes)
    if view.blur_p > 0:
        blurred = look.sigma.nonzero().squeeze(1)
        matrices = _blur_matrices(look.sigma[blurred], planes.shape[-1])
        planes[:, blurred] = _transform_axes(planes.index_select(1, blurred), matrices, matrices)
    if view.solarize_p > 0:
        inverted = _per_image(look.solarize) & (planes >= _SOLARIZE_THRESHOLD)
        planes = torch.where(inverted, 1 - planes, planes)
    return planes


def flip_some(planes: Tensor, flip: Tensor) -> Tensor:
    """Mirror the images where `flip` [B] is set."""
    return torch.where(_per_image(flip), planes.flip(-1), planes)


def normalize(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Standardise by channel statistics, by default ImageNet's: [..., 1 or 3, H, W] -> [..., 3, H, W]."""
    center, scale = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images - center).div_(scale)


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


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None]


def _transform_axes(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ planes @ columns^T: [C, B, H, W], [B, S, H], [B, T, W] -> [C, B, S, T].

    Matrix kernels round differently by layout and alignment, so both must be the same for an image in any
    batch: all operands are copied out (a broadcast over one image would not be), on 64-byte boundaries.
    """
    channels, (height, width) = len(planes), (rows.shape[1], columns.shape[1])
    rows, columns = _aligned(rows).repeat(channels, 1, 1), _aligned(columns).mT.repeat(channels, 1, 1)
    with torch.autocast(planes.device.type, enabled=False):
        result = rows.bmm(_aligned(planes).flatten(0, 1)).bmm(columns)[:, :height, :width]
    return result.reshape(channels, -1, height, width)


def _aligned(matrices: Tensor) -> Tensor:
    """Zero-pad both sides to multiples of 4: every matrix of a batch starts at a multiple of 16 floats."""
    below, right = -matrices.shape[-2] % 4, -matrices.shape[-1] % 4
    return F.pad(matrices, (0, right, 0, below)) if below or right else matrices


def _resize_matrices(
    start: Tensor, crop: Tensor, length: int, view: Augment, flip: Tensor | None = None
) -> Tensor:
    """[B, size, length]: weights that cut `crop` pixels at `start`, resize and mirror them."""
    table = _resize_table(length, view.size, view.interpolation, start.device)
    # A crop of n pixels has length - n + 1 offsets; this many of the shorter ones stand before it.
    entry = (crop - 1) * (2 * length + 2 - crop) // 2 + start
    row = torch.arange(view.size, device=start.device)
    if flip is not None:
        row = torch.where(flip[:, None], view.size - 1 - row, row)
    return F.embedding(entry[:, None] * view.size + row, table)


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
    """Change brightness, contrast or saturation, each image's `operation` [B], by `factors` [B, 4] in place.

    They blend the image x with black, its mean luma or its luma: f x + (1 - f) other, clamped. Hue is left.
    """
    factor = torch.where(operation == _HUE, 1.0, factors.gather(1, operation[:, None])[:, 0])
    to_mean, to_luma = (1 - factor) * (operation == _CONTRAST), (1 - factor) * (operation == _SATURATION)
    luma = _luma(planes)
    mean = luma.mean(-1).mean(-1)  # in two steps: torch would split one long sum by the number of images
    other = (luma * _per_image(to_luma)).add_(_per_image(to_mean * mean))
    planes.mul_(_per_image(factor)).add_(other).clamp_(0, 1)


def _shift_hue(planes: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue by `turns` [B] in place, value and saturation kept: the HSV hexcone (Smith 1978).

    For a hue of h sixths red is bottom + chroma * clamp(|h - 3| - 1, 0, 1), green and blue are
    bottom + chroma * clamp(2 - |h - 2 or 4|, 0, 1). With h times chroma, grey pixels are no special case.
    """
    red, green, blue = planes.unbind()
    top, bottom = torch.maximum(red, green).maximum(blue), torch.minimum(red, green).minimum(blue)
    chroma = top - bottom
    hue = torch.where(top == green, (blue - red).add_(2 * chroma), (red - green).add_(4 * chroma))
    hue = torch.where(top == red, green - blue, hue)
    circle = 6 * chroma
    hue.div_(circle.clamp(min=1e-12)).add_(_per_image(turns + 1)).frac_().mul_(circle)
    torch.clamp((hue - 3 * chroma).abs_().add_(bottom - chroma), bottom, top, out=red)
    crest = chroma.mul(2).add_(bottom)
    torch.clamp(crest - (hue - 2 * chroma).abs_(), bottom, top, out=green)
    torch.clamp(crest - (hue - 4 * chroma).abs_(), bottom, top, out=blue)
    return planes


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
