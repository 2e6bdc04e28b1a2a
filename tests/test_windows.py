"""Windows: how images of more than 8 bits become 8, by hand."""

import struct
import zlib

import numpy as np
import pytest
import torch
from made_photos import encoded, quadrants
from PIL import Image

from ssl_zoo.data.decode import BadImage, check_window, read_rgb


def stored(image: Image.Image, kind: str, window="dtype", **options) -> torch.Tensor:
    return read_rgb(encoded(image, kind, **options), window)


def wide(values, dtype=np.uint16) -> Image.Image:
    return Image.fromarray(np.array(values, dtype))


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
    assert torch.equal(stored(quadrants(), "PNG", (3, 5)), stored(quadrants(), "PNG"))
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
