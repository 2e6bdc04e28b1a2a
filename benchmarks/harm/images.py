"""Broken images, made by hypothesis from real ones of every common format."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from ssl_zoo.data.decode import BadImage, read_rgb

FORMATS = (
    *(("png", "RGB"), ("png", "P"), ("png", "I;16"), ("png", "RGBA"), ("png", "1")),
    *(("jpeg", "RGB"), ("jpeg", "L"), ("jpeg", "CMYK"), ("gif", "P"), ("gif", "animated")),
    *(("tiff", "RGB"), ("tiff", "I;16"), ("tiff", "CMYK"), ("tiff", "F"), ("bmp", "RGB"), ("webp", "RGB")),
    *(("webp", "animated"), ("ppm", "RGB")),
)
SIZES = ((1, 1), (1, 2000), (2000, 1), (17, 9), (64, 48))


def encoded(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    """A real image file of noise, `size` (width, height)."""
    rng = np.random.default_rng(size[0])
    noise = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image, options = Image.fromarray(noise), {}
    if mode == "animated":
        options = {"save_all": True, "append_images": [Image.new("RGB", size, "white")], "duration": 50}
    elif mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises `width` times `height` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@st.composite
def broken_images(draw: st.DrawFn) -> tuple[str, bytes]:
    """The suffix and the bytes of a file; a flipped bit may leave it readable."""
    kind, mode = draw(st.sampled_from(FORMATS))
    how = draw(
        st.sampled_from(["cut", "flip", "flip", "flip", "zeros", "swap", "text", "bomb", "random", "joined"])
    )
    if how == "text":
        return kind, draw(st.text(max_size=200)).encode("utf-8", "surrogatepass")
    if how == "random":
        return kind, draw(st.binary(max_size=300))
    if how == "bomb":
        return "png", bomb(draw(st.integers(10_000, 2**31 - 1)), draw(st.integers(20_000, 2**31 - 1)))
    data = bytearray(encoded(kind, mode, draw(st.sampled_from(SIZES))))
    chance = random.Random(draw(st.integers(0, 2**32)))
    match how:
        case "cut":
            data = data[: chance.randrange(len(data))]
        case "flip":
            head = (
                min(len(data), 200) if chance.random() < 0.5 else len(data)
            )  # headers are what parsers trust
            for _ in range(chance.choice([1, 1, 2, 8, 64])):
                data[chance.randrange(head)] ^= 1 << chance.randrange(8)
        case "zeros":
            start = chance.randrange(len(data))
            data[start : start + 40] = bytes(len(data[start : start + 40]))
        case "swap":
            other = encoded(*chance.choice(FORMATS), (17, 9))
            data[: len(other) // 2] = other[: len(other) // 2]
        case "joined":
            data += encoded(*chance.choice(FORMATS), (17, 9))
    return kind, bytes(data)


def judged(kind: str, data: bytes, path: Path) -> str:
    """Decode the file: "read" or "refused". Raises AssertionError unless it is named or a whole image."""
    path.write_bytes(data)
    refused = None
    try:
        pixels = read_rgb(path)
    except BadImage as error:
        refused = error
    if refused is not None:
        assert refused.reason
        assert str(refused).startswith(f"{path}: "), refused
        assert len(str(refused)) < 1000 + len(str(path)), refused
        return "refused"
    assert (pixels.dtype, pixels.shape[0]) == (torch.uint8, 3), (pixels.dtype, pixels.shape)
    assert min(pixels.shape[1:]) >= 1, pixels.shape
    return "read"
