"""What is drawn for each crop, from its image's key and the view's number alone."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_zoo.draws import hash64, uniform
from ssl_zoo.method import Augment

_ATTEMPTS = 10  # of RandomResizedCrop to fit a box into the image
_BOXES, _LOOK = 0, 1  # hashed with the key, so that methods may draw from the key itself


class Boxes(NamedTuple):
    """Crop boxes in pixels of the source image, each field [N] int64."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class Look(NamedTuple):
    """Everything drawn for N crops but their boxes.

    `flip`, `gray`, `solarize` [N] bool; `factors` [N, 4] float32 of brightness, contrast, saturation and hue
    (in turns), 1, 1, 1, 0 where jitter was not drawn; `order` [N, 4] int64, which of these four comes first,
    second, ...; `sigma` [N] float32 of the blur in pixels, 0 for none.
    """

    flip: Tensor
    factors: Tensor
    order: Tensor
    gray: Tensor
    sigma: Tensor
    solarize: Tensor


def draw_boxes(
    views: Sequence[Augment], key: Tensor, slot: int, height: int | Tensor, width: int | Tensor
) -> Boxes:
    """Draw the crop boxes of `views`, numbered from `slot` on, for images `height` x `width` with keys [B].

    Sides are in pixels, one number or [B]; the boxes of a view's images stand together. The rule is
    RandomResizedCrop of torchvision: ten attempts, the first that fits, else the largest central box with an
    allowed ratio.
    """
    # Doubles, so that no device or batch split can round a side to another pixel.
    draws = _draws(_BOXES, views, key, slot, 2 * _ATTEMPTS + 2).double().t().contiguous()
    sides = [torch.as_tensor(side, device=key.device).expand_as(key) for side in (height, width)]
    height, width = (side.repeat(len(views)) for side in sides)
    bounds = torch.tensor([[*view.scale, *view.ratio] for view in views], dtype=torch.float64)
    smallest, largest, narrow, wide = bounds.to(key.device).repeat_interleave(len(key), 0).unbind(1)
    area = height * width * (smallest + (largest - smallest) * draws[:_ATTEMPTS])
    ratio = (narrow.log() + (wide.log() - narrow.log()) * draws[_ATTEMPTS:-2]).exp()
    central_height = torch.minimum(height, (width / narrow).round().clamp(min=1))
    central_width = torch.minimum(width, (height * wide).round().clamp(min=1))
    heights = torch.cat([(area / ratio).sqrt().round(), central_height[None]]).long()
    widths = torch.cat([(area * ratio).sqrt().round(), central_width[None]]).long()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    chosen = fits.int().argmax(0, keepdim=True)  # the first that fits; the central box always does
    box_height, box_width = heights.gather(0, chosen)[0], widths.gather(0, chosen)[0]
    central = chosen[0] == _ATTEMPTS
    top = torch.where(central, (height - box_height) // 2, (draws[-2] * (height - box_height + 1)).long())
    left = torch.where(central, (width - box_width) // 2, (draws[-1] * (width - box_width + 1)).long())
    return Boxes(top, left, box_height, box_width)


def draw_look(views: Sequence[Augment], key: Tensor, slot: int) -> Look:
    """Draw flip, jitter, grey, blur and solarize as `draw_boxes` draws boxes."""
    draws = _draws(_LOOK, views, key, slot, 14)
    chance, amount, order = draws[:, :5], draws[:, 5:10], draws[:, 10:]
    settings = torch.stack([draws.new_tensor(_settings(view)) for view in views])
    probability, low, high = settings.repeat_interleave(len(key), 0).unbind(1)
    flip, jitter, gray, blur, solarize = (chance < probability).unbind(1)
    amount = low + (high - low) * amount
    identity = amount.new_tensor((1, 1, 1, 0))
    factors = torch.where(jitter[:, None], amount[:, :4], identity)
    sigma = torch.where(blur, amount[:, 4], 0.0)
    return Look(flip, factors, order.argsort(stable=True, dim=1), gray, sigma, solarize)


def _draws(purpose: int, views: Sequence[Augment], key: Tensor, slot: int, count: int) -> Tensor:
    slots = torch.arange(slot, slot + len(views), device=key.device)
    return uniform(hash64(purpose, slots[:, None], key).flatten(), count)


def _settings(view: Augment) -> list[tuple[float, ...]]:
    """Of flip, jitter, grey, blur and solarize: probabilities, and the jitter's and blur's bounds."""
    brightness, contrast, saturation, hue = view.jitter
    bounds = [(max(0.0, 1 - strength), 1 + strength) for strength in (brightness, contrast, saturation)]
    probability = (view.flip, view.jitter_p, view.gray_p, view.blur_p, view.solarize_p)
    return [probability, *zip(*bounds, (-hue, hue), view.blur_sigma, strict=True)]
