"""Decoding: every mode and format by value, rotation, draft, windows, and errors that say what to do."""

import io
import os
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from made_photos import (
    KINDS,
    as_mode,
    draw,
    encoded,
    quadrants,
    write_animated,
    write_dark,
    write_empty,
    write_long,
    write_plain,
    write_rotated,
    write_text,
    write_truncated,
)
from PIL import Image

from ssl_zoo.data.decode import SUFFIXES, BadImage, check_window, read_rgb, shown

QUADRANTS = torch.from_numpy(np.asarray(quadrants()).copy()).permute(2, 0, 1)
LUMA = (QUADRANTS.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)


def means(rgb: torch.Tensor) -> torch.Tensor:
    """Mean colour inside each quadrant, away from its edges: [4, 3]."""
    height, width = rgb.shape[1] // 2, rgb.shape[2] // 2
    parts = rgb.double().unfold(1, height, height).unfold(2, width, width)
    return parts[..., 6:-6, 6:-6].mean((-2, -1)).flatten(1).t()


def stored(image: Image.Image, kind: str, window="dtype", **options) -> torch.Tensor:
    return read_rgb(encoded(image, kind, **options), window)


def wide(values, dtype=np.uint16) -> Image.Image:
    return Image.fromarray(np.array(values, dtype))


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


def test_broken_exif_leaves_a_photo_as_it_is_stored() -> None:
    rgb = stored(quadrants(), "JPEG", exif=b"Exif\0\0no TIFF header here", quality=95)
    assert rgb.shape == (3, 40, 60)
    assert (means(rgb) - means(QUADRANTS)).abs().max() <= 3


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


def test_the_window_dtype_is_the_full_range() -> None:
    values = [[0, 128, 129, 257, 32768, 65535]]  # 65535 / 255 = 257 levels are one
    for data in (
        encoded(wide(values), "PNG"),
        encoded(wide(values), "TIFF"),
        encoded(wide(values), "PPM"),
        big_endian_tiff(values),
    ):
        assert read_rgb(data)[1].tolist() == [[0, 0, 1, 1, 128, 255]]


def test_a_fixed_window_is_clipped_outside() -> None:
    expected = [[0, 0, 51, 128, 255, 255]]
    values = [[0, 100, 140, 200, 300, 999]]  # (140 - 100) / 200 * 255 = 51, (200 - 100) / 200 * 255 = 127.5
    for data in (
        encoded(wide(values), "PNG"),
        encoded(wide(values, np.int32), "TIFF"),
        encoded(wide(values, np.float32), "TIFF"),
    ):
        assert read_rgb(data, (100, 300))[0].tolist() == expected
    assert read_rgb(encoded(wide([[-3.0, 0.25, np.nan, np.inf, -np.inf]], np.float32), "TIFF"), (0, 1))[
        2
    ].tolist() == [[0, 64, 0, 255, 0]]


def test_the_window_percentile_is_that_of_each_image() -> None:
    ramp = np.arange(1000, 1201).reshape(3, 67)  # 201 values: the 0.5 percentile is 1001, the 99.5 one 1199
    for dtype, kind in ((np.uint16, "PNG"), (np.int32, "TIFF"), (np.float32, "TIFF")):
        rgb = stored(wide(ramp, dtype), kind, "percentile").flatten(1)[0]
        assert rgb[[0, 1, 199, 200]].tolist() == [0, 0, 255, 255]
        assert rgb[100] == 128  # (1100 - 1001) / 198 * 255 = 127.5
        assert rgb[23] == round(22 / 198 * 255)
    assert stored(wide(np.full((4, 4), 77)), "PNG", "percentile").eq(0).all()
    spot = np.zeros((30, 30))
    spot[0, 0] = 9  # both percentiles are 0
    assert stored(wide(spot), "PNG", "percentile")[0].nonzero().tolist() == [[0, 0]]
    gap = np.where(np.arange(201) == 7, np.nan, np.arange(201.0))[None]
    assert stored(wide(gap, np.float32), "TIFF", "percentile")[0, 0, [0, 7, 200]].tolist() == [0, 0, 255]


def test_windows_leave_8_bits_alone_and_16_bit_colour_is_refused() -> None:
    assert torch.equal(stored(quadrants(), "PNG", (3, 5)), QUADRANTS)
    for colour_type, channels in ((2, 3), (4, 2), (6, 4)):
        data = png_of_16_bits(colour_type, channels)
        assert read_rgb(data).shape == (3, 1, 1)
        with pytest.raises(BadImage, match=r"16 bits a colour.*window=percentile.*convert it to 8 bits"):
            read_rgb(data, "percentile")
    assert read_rgb(png_of_16_bits(0, 1), (0, 0x8080)).eq(255).all()


@pytest.mark.parametrize(("dtype", "word"), [(np.int32, "integers"), (np.float32, "floats")])
def test_32_bits_need_a_window(dtype: type, word: str) -> None:
    with pytest.raises(
        BadImage, match=f"32-bit {word} have no natural range; set data.window to percentile or"
    ):
        stored(wide([[1, 2]], dtype), "TIFF")
    with pytest.raises(BadImage, match="no finite value"):
        stored(wide([[np.nan]], np.float32), "TIFF", "percentile")


@pytest.mark.parametrize(
    "window", ["minmax", (3, 3), (5, 1), (0, float("inf")), (float("nan"), 1), (1, 2, 3)]
)
def test_other_windows_are_refused(window) -> None:
    with pytest.raises(ValueError, match=r"data.window=.*; allowed: dtype, percentile, or \[low, high\]"):
        check_window(window)
    with pytest.raises(ValueError, match="allowed: dtype"):
        stored(quadrants(), "PNG", window)


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (write_empty, "a.jpg", "zero bytes; copy it again"),
        (write_text, "a.png", "not an image; convert it"),
        (Path.mkdir, "a.jpg", "a folder; rename it"),
        (lambda path: path.symlink_to("nowhere.jpg"), "a.jpg", "missing, or a link to nothing; restore it"),
        (lambda path: path.symlink_to(path), "a.jpg", "too many levels of symbolic links; see that"),
        (lambda path: None, "a.jpg", "missing"),
        *((write_truncated, f"a{suffix}", "truncated; copy it again") for suffix in (".jpg", ".png", ".bmp")),
        *((write_truncated, f"a{suffix}", "truncated; copy it again") for suffix in (".gif", ".tif", ".ppm")),
        (write_truncated, "a.webp", "cannot be decoded: could not create decoder object; copy or convert"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong_and_what_to_do(tmp_path, write, name, message) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(BadImage) as caught:
        read_rgb(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "a.png", 2, 2)
    path.chmod(0)
    with pytest.raises(BadImage, match="permission denied; allow"):
        read_rgb(path)


def test_permission_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadImage, match=r"a.png: permission denied; allow this user to read it"):
        read_rgb(tmp_path / "a.png")


def test_corrupt_pixels_are_an_error() -> None:
    data = bytearray(encoded(draw(0, 90, 70, np.random.default_rng(0)), "PNG"))
    data[2000:2100] = bytes(100)
    with pytest.raises(BadImage, match=r"cannot be decoded: .*; copy or convert it again"):
        read_rgb(bytes(data))


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("limit", [59, 40, 15])  # Pillow warns above its limit and refuses above twice of it
def test_a_decompression_bomb_is_an_error_with_and_without_warnings(
    tmp_path, monkeypatch, action, limit
) -> None:
    path = write_plain(tmp_path / "a.png", 10, 6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(BadImage, match=f"a.png: more than {limit} pixels, .*bombs; make it smaller"):
            read_rgb(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    assert read_rgb(path).shape == (3, 6, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_rgb(path).shape == (3, 6, 10)


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


def test_errors_survive_the_way_back_from_workers_and_names_of_any_bytes_can_be_printed() -> None:
    error = pickle.loads(pickle.dumps(BadImage("truncated", "copy it again", "a.jpg")))
    assert (str(error), error.reason) == ("a.jpg: truncated; copy it again", "truncated")
    assert str(BadImage("truncated")) == "truncated"
    assert shown(os.fsdecode(b"ph\xf6to \xc3\xa4.jpg")) == "ph\\xf6to ä.jpg" or os.name == "nt"


def test_made_photos_use_known_suffixes(tmp_path: Path) -> None:
    assert {suffix for suffix, _ in KINDS} < SUFFIXES
    assert read_rgb(write_dark(tmp_path / "a.png")).sum(0).gt(6).sum() == 10


def big_endian_tiff(values: list[list[int]]) -> bytes:
    """16-bit grey in Motorola byte order, which Pillow reads as mode I;16B."""
    row = np.array(values, ">u2").tobytes()
    tags = (
        (256, len(values[0])),
        (257, 1),
        (258, 16),
        (259, 1),
        (262, 1),
        (273, 8),
        (278, 1),
        (279, len(row)),
    )
    start = 8 + len(row)
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    return b"MM\0*" + struct.pack(">I", start) + row + struct.pack(">H", len(tags)) + entries + bytes(4)


def png_of_16_bits(colour_type: int, channels: int) -> bytes:
    """One pixel, each channel 0x8080."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, colour_type, 0, 0, 0)
    pixel = zlib.compress(b"\0" + b"\x80\x80" * channels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
