"""What changes the look of whole batches of crops: colour jitter, grey, blur and solarize.

Pixels are planes as in `ssl_zoo.data.augment`. A crop's pixels must not depend on the crops beside it:
elementwise operations round once (no multiply-add, which torch may fuse for some elements only), and sums
stay inside a crop. On CPUs `torch.where` takes as long as a dozen other operations: what concerns some crops
is computed for these, and large crops are worked on one by one.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_zoo.data.augment import beside, transform_axes
from ssl_zoo.data.parameters import Look
from ssl_zoo.method import Augment

LARGE = 128  # pixels: from here on a CPU is faster crop by crop than with all of them in each operation

_IN_CACHE = 2**20  # numbers
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, rounded as torchvision does
_DEVIATIONS = 6  # how far a Gaussian reaches
_SOLARIZE_THRESHOLD = 127.5 / 255  # uint8's 128, set between levels, where inverting changes nothing
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)  # jitter operations, as in `Augment.jitter`


def apply_look(planes: Tensor, look: Look, views: Sequence[Augment]) -> Tensor:
    """Colour jitter, grey, blur and solarize, in this order; changes and returns `planes` [C, N, S, S].

    Jitter is torchvision's ColorJitter, every crop in its own order of operations. A `look` on the CPU tells
    which crops an operation concerns without waiting for the device of `planes`.
    """
    if any(view.jitter_p > 0 for view in views):
        if _large(planes):
            for crop, order, factors in zip(planes.unbind(1), look.order, look.factors, strict=True):
                _jitter_one(crop.unsqueeze(1), order.tolist(), factors)
        else:
            _jitter(planes, look, views)
    if any(view.gray_p > 0 for view in views):
        _change(planes, look.gray, lambda some, rows: _luma(some).expand_as(some))
    if any(view.blur_p > 0 for view in views):
        _change(planes, look.sigma > 0, lambda some, rows: _blur(some, look.sigma[rows]))
    if any(view.solarize_p > 0 for view in views):
        _change(planes, look.solarize, lambda some, rows: _solarize(some))
    return planes


def parts(crops: Tensor) -> list[slice]:
    """Which crops [N, C, S, S] to work on together: on a CPU as many as its caches hold, large ones alone."""
    count = len(crops)
    if crops.device.type == "cpu":
        count = 1 if _large(crops) else max(1, _IN_CACHE // crops[0].numel())
    return [slice(start, start + count) for start in range(0, len(crops), count)]


def _large(crops: Tensor) -> bool:
    return crops.shape[-1] > LARGE and crops.device.type == "cpu"


def _per_crop(values: Tensor) -> Tensor:
    return values[:, None, None]


def _change(planes: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replace the crops where `chosen` [N] is set by what `change` makes of them and their numbers."""
    rows = chosen.nonzero().squeeze(1)
    if len(rows) == planes.shape[1]:
        planes.copy_(change(planes, rows))
    elif len(rows):
        there = beside(planes, rows)
        planes.index_copy_(1, there, change(planes.index_select(1, there), rows))


def _luma(planes: Tensor) -> Tensor:
    if len(planes) == 1:
        return planes[0]
    red, green, blue = (weight * plane for weight, plane in zip(_LUMA, planes.unbind(), strict=True))
    return red.add_(green).add_(blue)


def _jitter(planes: Tensor, look: Look, views: Sequence[Augment]) -> None:
    """Change all crops at once, each in its own order of operations, in place."""
    hue = len(planes) == 3 and any(view.jitter_p > 0 and view.jitter[_HUE] > 0 for view in views)
    for operation in look.order.unbind(1):
        _blend(planes, operation, look.factors)
        if hue:
            turned = (operation == _HUE) & (look.factors[:, _HUE] != 0)
            _change(planes, turned, lambda some, rows: _shift_hue(some, look.factors[rows, _HUE]))


def _jitter_one(crop: Tensor, order: Sequence[int], factors: Tensor) -> None:
    """Change one large crop [C, 1, S, S] in place: calls cost less here than passes that change nothing."""
    for operation, factor in zip(order, factors[order].tolist(), strict=True):
        if operation == _HUE:
            if factor != 0 and len(crop) == 3:
                _shift_hue(crop, factors[_HUE:])
        elif factor != 1:
            other = _luma(crop) * (1 - factor) if operation != _BRIGHTNESS else None
            if operation == _CONTRAST and other is not None:
                other = other.mean(-1).mean(-1)[:, None, None]
            crop.mul_(factor)
            if other is not None:
                crop.add_(other)
            crop.clamp_(0, 1)


def _blend(planes: Tensor, operation: Tensor, factors: Tensor) -> None:
    """Change brightness, contrast or saturation, each crop's `operation` [N], by `factors` [N, 4] in place.

    They blend the crop x with black, its mean luma or its luma: f x + (1 - f) other, clamped. Hue is left.
    """
    factor = torch.where(operation == _HUE, 1.0, factors.gather(1, operation[:, None])[:, 0])
    to_mean, to_luma = (1 - factor) * (operation == _CONTRAST), (1 - factor) * (operation == _SATURATION)
    factor, to_mean, to_luma = (beside(planes, values) for values in (factor, to_mean, to_luma))
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
    # products with 0, 1, 2 and 4 are exact, so that those may be fused with a sum
    hue, other = torch.sub(red, green).add_(chroma, alpha=4), torch.sub(blue, red).add_(chroma, alpha=2)
    hue.addcmul_(is_green, other.sub_(hue))
    hue.addcmul_(is_red, torch.sub(green, blue, out=other).sub_(hue))
    circle = torch.mul(chroma, 6, out=other)
    hue.div_(circle.clamp(min=1e-12)).add_(_per_crop(beside(planes, turns + 1))).frac_().mul_(circle)
    torch.clamp((hue - 3 * chroma).abs_().add_(bottom - chroma), bottom, top, out=red)
    crest = bottom.add(chroma, alpha=2)
    torch.clamp(crest - hue.sub(chroma, alpha=2).abs_(), bottom, top, out=green)
    torch.clamp(crest - hue.sub(chroma, alpha=4).abs_(), bottom, top, out=blue)
    return planes


def _blur(planes: Tensor, sigma: Tensor) -> Tensor:
    if _large(planes):
        with torch.autocast("cpu", enabled=False):
            crops = [_blur_one(crop, s) for crop, s in zip(planes.unbind(1), sigma.tolist(), strict=True)]
        return torch.stack(crops, 1)
    matrices = _blur_matrices(beside(planes, sigma), planes.shape[-1]).unsqueeze(1)
    return transform_axes(planes.permute(1, 2, 0, 3).contiguous(), matrices, matrices)


def _blur_one(crop: Tensor, sigma: float) -> Tensor:
    """One large crop [C, S, S] by a Gaussian of six deviations per side, the border reflected.

    Runs of pixels are made from those in their reach, by a product with a band of weights.
    """
    reach, size = min(math.ceil(_DEVIATIONS * sigma), crop.shape[-1] - 1), crop.shape[-1]
    run = 16 * math.ceil(reach / 16)
    taps = torch.arange(-reach, reach + 1).square().mul(-0.5 / sigma**2).exp()
    band = F.pad(taps / taps.sum(), (run - 1, run - 1)).unfold(0, run, 1).flip(1)
    pixels = len(band)
    wide = F.pad(F.pad(crop, (reach, reach, 0, 0), mode="reflect"), (0, -size % run))
    across = wide.unfold(2, pixels, run).reshape(-1, pixels) @ band
    crop = across.view(len(crop), size, -1)[..., :size]
    tall = F.pad(F.pad(crop, (0, 0, reach, reach), mode="reflect"), (0, 0, 0, -size % run))
    down = band.mT @ tall.unfold(1, pixels, run).mT
    return down.flatten(1, 2)[:, :size]


def _solarize(planes: Tensor) -> Tensor:
    """x below the threshold, else 1 - x."""
    bright = torch.ge(planes, _SOLARIZE_THRESHOLD, out=torch.empty_like(planes))
    return (1 - 2 * planes).mul_(bright).add_(planes)


def _blur_matrices(sigma: Tensor, size: int) -> Tensor:
    """[N, size, size]: weights of a Gaussian of six deviations per side, the border reflected."""
    distance = torch.arange(size, device=sigma.device)
    taps = (distance.square() * (-0.5 / sigma.square())[:, None]).exp_()
    taps *= distance <= _DEVIATIONS * sigma[:, None]  # denormal numbers multiply far slower
    taps /= 2 * taps.sum(1, keepdim=True) - taps[:, :1]
    both_sides = torch.cat([taps.flip(1), taps[:, 1:]], 1)
    weights = both_sides.unfold(1, size, 1).flip(1)  # row i, column j: the tap at |i - j|
    reflected = F.pad(taps, (0, size - 1)).unfold(1, size, 1)  # the tap at i + j
    weights[..., 1:] += reflected[..., 1:]
    weights[..., :-1] += reflected.flip(1, 2)[..., :-1]
    return weights
