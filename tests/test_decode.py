"""Decoding: every mode and format by value, rotation and draft."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from made_photos import (
    KINDS,
    as_mode,
    encoded,
    quadrants,
    write_animated,
    write_dark,
    write_long,
    write_plain,
    write_rotated,
)
from PIL import Image

from ssl_zoo.data.decode import SUFFIXES, read_rgb

QUADRANTS = torch.from_numpy(np.asarray(quadrants()).copy()).permute(2, 0, 1)
LUMA = (QUADRANTS.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)


def means(rgb: torch.Tensor) -> torch.Tensor:
    """Mean colour inside each quadrant, away from its edges: [4, 3]."""
    height, width = rgb.shape[1] // 2, rgb.shape[2] // 2
    parts = rgb.double().unfold(1, height, height).unfold(2, width, width)
    return parts[..., 6:-6, 6:-6].mean((-2, -1)).flatten(1).t()


def stored(image: Image.Image, kind: str, **options) -> torch.Tensor:
    return read_rgb(encoded(image, kind, **options))


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("GIF", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("PPM", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 4),
        ("JPEG", {"quality": 90}, 3),
        ("JPEG", {"quality": 90, "progressive": True}, 3),
    ],
)
def test_every_format_gives_the_colours_drawn(kind: str, options: dict, tolerance: int) -> None:
    rgb = stored(quadrants(), kind, **options)
    assert (rgb.dtype, tuple(rgb.shape), rgb.is_contiguous()) == (torch.uint8, (3, 40, 60), True)
    assert (means(rgb) - means(QUADRANTS)).abs().max() <= tolerance
    if tolerance == 0:
        assert torch.equal(rgb, QUADRANTS)


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("L", "JPEG"), ("L", "TIFF"), ("L", "PPM"), ("I;16", "PNG")]
)
def test_grey_becomes_equal_channels(mode: str, kind: str) -> None:
    rgb = stored(as_mode(quadrants(), mode), kind)
    assert torch.equal(rgb, rgb[:1].expand(3, -1, -1))
    assert (means(rgb)[:, 0] - means(LUMA[None])[:, 0]).abs().max() <= 1.5


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_one_bit_becomes_black_and_white(kind: str) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (9, 13)).astype(bool)
    assert torch.equal(
        stored(Image.fromarray(bits), kind), torch.from_numpy(bits * np.uint8(255)).expand(3, -1, -1)
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_palette_becomes_its_colours(kind: str) -> None:
    image = quadrants().quantize(4)
    assert image.mode == "P"
    assert torch.equal(stored(image, kind), QUADRANTS)


@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 3), ("TIFF", 0)])
def test_cmyk_becomes_rgb_and_is_not_inverted(kind: str, tolerance: int) -> None:
    image = quadrants().convert("CMYK")
    data = encoded(image, kind, **({"quality": 95} if kind == "JPEG" else {}))
    assert (b"Adobe" in data) == (kind == "JPEG")  # Adobe's marker: the inks are stored inverted
    assert (means(read_rgb(data)) - means(QUADRANTS)).abs().max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_laid_on_white(mode: str, kind: str) -> None:
    image = quadrants().convert(mode)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 30, 20))
    alpha.paste(51, (30, 0, 60, 20))  # a fifth
    image.putalpha(alpha)
    rgb = stored(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    opaque = QUADRANTS.double() if mode == "RGBA" else LUMA.expand(3, -1, -1)
    assert (rgb[:, :20, :30] == 255).all()
    assert (rgb[:, :20, 30:] - (0.2 * opaque[:, :20, 30:] + 0.8 * 255)).abs().max() <= 1.5
    assert (rgb[:, 20:] - opaque[:, 20:]).abs().max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_the_transparent_colour_of_a_palette_is_white(kind: str) -> None:
    image = quadrants().quantize(4)
    hidden = image.getpixel((0, 0))
    rgb = stored(image, kind, transparency=hidden)
    assert (rgb[:, :20, :30] == 255).all()
    assert torch.equal(rgb[:, 20:], QUADRANTS[:, 20:])
    assert torch.equal(rgb[:, :, 30:], QUADRANTS[:, :, 30:])


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (220, 30, 40)), ("L", 88)])
def test_the_transparent_colour_of_a_png_without_palette_is_white(mode: str, colour) -> None:
    image = quadrants().convert(mode)
    assert image.getpixel((0, 0)) == colour
    rgb = stored(image, "PNG", transparency=colour)
    assert (rgb[:, :20, :30] == 255).all()
    assert (rgb[:, 20:] < 255).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    rgb = read_rgb(write_rotated(tmp_path / f"a{suffix}", orientation))
    assert rgb.shape == (3, 40, 60)
    assert (means(rgb) - means(QUADRANTS)).abs().max() <= 12  # chroma is stored at half the size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_in_drafts(tmp_path: Path, orientation: int) -> None:
    rgb = read_rgb(write_rotated(tmp_path / "a.jpg", orientation, quadrants(480, 320)), at_least=80)
    assert rgb.shape == (3, 80, 120)
    assert (means(rgb) - means(QUADRANTS)).abs().max() <= 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"no TIFF header", b"MM\0*", b"Exif\0\0II+\0" + bytes(8)])
def test_broken_exif_leaves_a_photo_as_it_is_stored(kind: str, exif: bytes) -> None:
    exif = exif if kind != "JPEG" else b"Exif\0\0" + exif.removeprefix(b"Exif\0\0")
    rgb = stored(quadrants(), kind, exif=exif, quality=95)
    assert rgb.shape == (3, 40, 60)
    assert (means(rgb) - means(QUADRANTS)).abs().max() <= 6


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((640, 480), 0, (480, 640)),
        ((640, 480), 480, (480, 640)),
        ((640, 480), 241, (480, 640)),
        ((640, 480), 240, (240, 320)),
        ((640, 480), 121, (240, 320)),
        ((640, 480), 120, (120, 160)),
        ((640, 480), 60, (60, 80)),
        ((640, 480), 1, (60, 80)),
        ((331, 211), 100, (106, 166)),
        ((331, 211), 106, (211, 331)),
        ((60, 3000), 30, (1500, 30)),
        ((60, 3000), 96, (3000, 60)),
    ],
)
def test_drafts_keep_the_shorter_side(
    size: tuple[int, int], at_least: int, expected: tuple[int, int]
) -> None:
    data = encoded(quadrants(*size), "JPEG", quality=95)
    rgb = read_rgb(data, at_least=at_least)
    assert tuple(rgb.shape[1:]) == expected
    assert torch.equal(rgb, read_rgb(data, at_least=at_least))
    assert (means(rgb) - means(QUADRANTS)).abs().max() <= 6
    assert tuple(read_rgb(encoded(quadrants(*size), "PNG"), at_least=at_least).shape[1:]) == size[::-1]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    rgb = read_rgb(write_animated(tmp_path / f"a.{kind.lower()}"))
    assert (means(rgb) - means(QUADRANTS)).abs().max() <= 6


def test_paths_bytes_and_open_files_are_read_alike(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "a.png", 3, 2)
    expected = torch.tensor([90, 120, 150], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 3)
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert torch.equal(read_rgb(source), expected)
    with path.open("rb") as file:
        assert torch.equal(read_rgb(file), expected)
        assert not file.closed


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20_000), (20_000, 1)])
def test_tiny_and_long_images_are_writable_tensors(tmp_path: Path, width: int, height: int) -> None:
    for suffix in (".jpg", ".png"):
        rgb = read_rgb(write_plain(tmp_path / f"a{suffix}", width, height), at_least=96)
        assert rgb.shape == (3, height, width)
        rgb += 1
    ramp = read_rgb(write_long(tmp_path / "long.png"))
    assert ramp[2, :, 0].tolist() == [int(255 * row / 19_999) for row in range(20_000)]


def test_made_photos_use_known_suffixes(tmp_path: Path) -> None:
    assert {suffix for suffix, _ in KINDS} < SUFFIXES
    assert read_rgb(write_dark(tmp_path / "a.png")).sum(0).gt(6).sum() == 10
