"""The oracle for augmented views: one image at a time, torchvision in float, for given drawn parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ssl_zoo.data.augment import normalize
from ssl_zoo.data.parameters import Boxes, Look, draw_boxes, draw_look
from ssl_zoo.method import Augment

JITTER = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def reference_crop(image: Tensor, boxes: Boxes, row: int, view: Augment) -> Tensor:
    """Antialiased crop of a uint8 image [C, H, W]: float [C, S, S] in [0, 1], bicubic overshoot clamped."""
    top, left, height, width = (int(field[row]) for field in boxes)
    size, mode = [view.size, view.size], InterpolationMode(view.interpolation)
    return F.resized_crop(image / 255, top, left, height, width, size, mode, antialias=True).clamp(0, 1)


def reference_look(crop: Tensor, look: Look, row: int) -> Tensor:
    """Flip, jitter in the drawn order, grey, blur and solarize of one float crop [C, S, S]."""
    size = crop.shape[-1]
    if look.flip[row]:
        crop = F.horizontal_flip(crop)
    for operation in look.order[row].tolist():
        crop = JITTER[operation](crop, float(look.factors[row, operation]))
    if look.gray[row]:
        crop = F.rgb_to_grayscale(crop, num_output_channels=len(crop))
    if look.sigma[row] > 0:
        taps = min(2 * size - 1, 25)  # reflect padding allows no more; 12 pixels are six of the largest sigma
        crop = F.gaussian_blur(crop, [taps, taps], [float(look.sigma[row])] * 2)
    return F.solarize(crop, 128 / 255) if look.solarize[row] else crop


def reference_views(images: Sequence[Tensor], key: Tensor, view: Augment, slot: int) -> Tensor:
    """View `slot` of uint8 images [C, H, W] with keys [B], normalised: [B, 3, S, S]."""
    views = []
    for row, image in enumerate(images):
        boxes = draw_boxes([view], key[row : row + 1], slot, *image.shape[-2:])
        look = draw_look([view], key[row : row + 1], slot)
        views.append(reference_look(reference_crop(image, boxes, 0, view), look, 0))
    return normalize(torch.stack(views))
