"""Attention maps as pictures, and their overlap with masks that somebody drew."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ssl_zoo.backbones import create_backbone
from ssl_zoo.data.decode import SUFFIXES, read_rgb
from ssl_zoo.evaluation.attention import attention_maps, jaccard, mass_mask
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.nets import TokenBackbone

_SHEET = "attention.png"
_ROWS = 20  # images on the contact sheet
_TITLE = 14  # px
_GAP = 2  # px
_OUTSIDE = 0.25  # brightness of what the mask leaves out
_LOW, _MIDDLE, _HIGH = "#440154", "#21918c", "#fde725"  # viridis, as in the original


class Looked(NamedTuple):
    """One image as the encoder saw it, uint8 [3, H, W], and where it looked, [heads, h, w]."""

    name: str
    image: Tensor
    maps: Tensor


class Overlap(NamedTuple):
    """Mean Jaccard index of thresholded maps with the truth: of the mean over heads, and of the head that is
    best for each image, which the truth itself chooses."""

    weights: str
    mean_map: float
    best_head: float


def write_attention(
    encoder: Encoder,
    images: Path,
    out: Path,
    *,
    threshold: float = 0.6,
    layer: int = -1,
    image_size: int | None = None,
) -> int:
    """Write the attention of an image, or of each in a folder, into `out`; returns the number of images.

    For each image a folder of its name: `head0.png` ..., `mean.png`, `mask.png` of the patches that hold
    `threshold` of the mean, `overlay.png`; and `attention.png`, a contact sheet of the first 20. The shorter
    side is resized to `image_size` pixels (None: the encoder's), the longer one keeps its proportion, both
    are cut to whole patches. Raises as `attention`, FileNotFoundError without an image, ValueError for two
    images of one name.
    """
    shown = []
    for count, looked in enumerate(_look(encoder, _files(images), layer, image_size), 1):
        _write_image(looked, out / looked.name, threshold)
        if count <= _ROWS:
            shown.append(looked)
    contact_sheet(shown, threshold, tile=128).save(out / _SHEET)
    return count


def overlaps(
    encoder: Encoder,
    images: Path,
    masks: Path,
    *,
    threshold: float = 0.6,
    layer: int = -1,
    image_size: int | None = None,
) -> list[Overlap]:
    """How well the attention finds what the masks mark, and the same network with random weights does.

    `masks` holds for each image one of the same name, of any format, and size; what is not 0 is the object.
    Images are prepared as in `write_attention`. Raises as it does, and ValueError for a mask that is missing,
    of another size or empty.
    """
    files = _files(images)
    truths = {path.stem: path for path in _files(masks)}
    if missing := [path.name for path in files if path.stem not in truths]:
        raise ValueError(f"{masks} has no mask for {missing[0]} and {len(missing) - 1} more; draw them")
    found = []
    for name, network in (("trained", encoder), ("random", _random(encoder))):
        scores = []
        for path, looked in zip(files, _look(network, files, layer, image_size), strict=True):
            truth = _fitted(_truth(truths[path.stem], path), network, image_size, InterpolationMode.NEAREST)
            maps = torch.cat([looked.maps.mean(0, keepdim=True), looked.maps])
            scores.append(jaccard(_enlarged(mass_mask(maps, threshold), looked.image), truth[0] > 0))
        table = torch.stack(scores)
        found.append(Overlap(name, float(table[:, 0].mean()), float(table[:, 1:].amax(1).mean())))
    return found


def contact_sheet(rows: Sequence[Looked], threshold: float, tile: int) -> Image.Image:
    """A picture with a row per image: it, what the mask of the mean keeps, the mean, each head.

    Each lies in a square of `tile` pixels; maps are scaled to their own maximum.
    """
    heads = len(rows[0].maps)
    titles = ["image", f"{100 * threshold:.0f} % kept", "mean", *(f"head {head}" for head in range(heads))]
    pitch = tile + _GAP
    sheet = Image.new("RGB", (pitch * len(titles) - _GAP, _TITLE + pitch * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((pitch * column + 2, 0), title, fill="black")
    for row, (_, image, maps) in enumerate(rows):
        mean = maps.mean(0)
        pictures = [tv.to_pil_image(image), _overlay(image, mass_mask(mean, threshold))]
        pictures += [_coloured(values, image) for values in (mean, *maps)]
        for column, picture in enumerate(pictures):
            scale = tile / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
            sheet.paste(picture.resize(size, how), (pitch * column, _TITLE + pitch * row))
    return sheet


def _look(encoder: Encoder, files: Sequence[Path], layer: int, image_size: int | None) -> Iterator[Looked]:
    for path in files:
        image = _fitted(read_rgb(path, encoder.window), encoder, image_size, InterpolationMode.BICUBIC)
        yield Looked(path.stem, image, attention_maps(encoder, image.unsqueeze(0), layer)[0])


def _files(images: Path) -> list[Path]:
    """The image, or those of a folder in the order of their names."""
    if not images.is_dir():
        return [images]
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{images} holds no images; give a folder of them, or one image")
    names = [path.stem for path in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{images} has several images named {min(twice)}; rename all but one")
    return files


def _fitted(image: Tensor, encoder: Encoder, image_size: int | None, how: InterpolationMode) -> Tensor:
    """The image [C, H, W] with its shorter side resized, cut to whole patches at the bottom and right."""
    backbone, side = encoder.backbone, image_size or encoder.image_size
    patch = backbone.patch_size if isinstance(backbone, TokenBackbone) else 1  # `attention` says what fits
    if side < patch:
        raise ValueError(f"image_size={side} is less than a patch of {patch} px; give a multiple of it")
    image = tv.resize(image, [side], how, antialias=True)
    height, width = (length - length % patch for length in image.shape[1:])
    return image[:, :height, :width]


def _truth(mask: Path, image: Path) -> Tensor:
    """Where a mask is not 0, uint8 [1, H, W]."""
    with Image.open(mask) as file, Image.open(image) as of:
        if file.size != ImageOps.exif_transpose(of).size:
            raise ValueError(f"{mask} has {file.size} pixels, {image} {of.size}; give it the same size")
        single = len(file.getbands()) == 1  # a palette's numbers are the classes
        marked = np.asarray(file) != 0 if single else (np.asarray(file.convert("RGB")) != 0).any(-1)
    if not marked.any():
        raise ValueError(f"{mask} marks nothing; leave the image out")
    return torch.from_numpy(marked.astype(np.uint8)).unsqueeze(0)


def _random(encoder: Encoder) -> Encoder:
    """The same network before any training, from seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        card: dict[str, Any] = encoder.card
        backbone = create_backbone(card["backbone"], encoder.image_size, **card["options"])
    device = next(encoder.parameters()).device
    return Encoder(backbone, encoder.image_size, mean=encoder.mean, std=encoder.std, card=card).to(device)


def _enlarged(patches: Tensor, image: Tensor) -> Tensor:
    """Values per patch [..., h, w] as values per pixel of `image` [3, H, W]."""
    patch = image.shape[-1] // patches.shape[-1]
    return patches.repeat_interleave(patch, -2).repeat_interleave(patch, -1)


def _coloured(values: Tensor, image: Tensor) -> Image.Image:
    grey = (_enlarged(values / values.max(), image) * 255).round().to(torch.uint8)
    picture: Image.Image = ImageOps.colorize(tv.to_pil_image(grey), _LOW, _HIGH, mid=_MIDDLE)
    return picture


def _overlay(image: Tensor, mask: Tensor) -> Image.Image:
    kept = torch.where(_enlarged(mask, image), 1.0, _OUTSIDE)
    picture: Image.Image = tv.to_pil_image((image * kept).to(torch.uint8))
    return picture


def _write_image(looked: Looked, folder: Path, threshold: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mean = looked.maps.mean(0)
    mask = mass_mask(mean, threshold)
    for head, values in enumerate(looked.maps):
        _coloured(values, looked.image).save(folder / f"head{head}.png")
    _coloured(mean, looked.image).save(folder / "mean.png")
    tv.to_pil_image(_enlarged(mask, looked.image).to(torch.uint8) * 255).save(folder / "mask.png")
    _overlay(looked.image, mask).save(folder / "overlay.png")
