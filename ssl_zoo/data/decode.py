"""From an image file to RGB pixels: every format that Pillow opens, every mode, upright."""

import io
import math
import os
import re
import stat
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
PERCENTILES = (0.5, 99.5)

Window = Literal["dtype", "percentile"] | tuple[float, float]

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WIDENED = ("PNG", "PPM")  # formats whose 16 bits Pillow may give as mode I


class BadImage(ValueError):
    """An image that cannot be used: why (short, for lists), what to do about it, and which image it is."""

    def __init__(self, reason: str, advice: str = "", name: str = "") -> None:
        super().__init__(reason, advice, name)
        self.reason, self.advice, self.name = reason, advice, name

    def __str__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        advice = f"; {self.advice}" if self.advice else ""
        return name + self.reason + advice


def shown(path: str | Path) -> str:
    """The name of a file as text that can be printed, whatever bytes it is made of."""
    return os.fsencode(path).decode(errors="backslashreplace")


def check_window(window: Window) -> None:
    """Raise ValueError unless `window` is "dtype", "percentile" or two finite numbers low < high."""
    if isinstance(window, str):
        good = window in ("dtype", "percentile")
    else:
        good = len(window) == 2 and -math.inf < window[0] < window[1] < math.inf
    if not good:
        allowed = "dtype, percentile, or [low, high] with low < high"
        raise ValueError(f"data.window={window!r}; allowed: {allowed}")


def read_rgb(source: Path | bytes | BinaryIO, window: Window = "dtype", at_least: int = 0) -> Tensor:
    """Decode the first frame of an image, rotated upright by its EXIF data: RGB uint8 [3, H, W], contiguous.

    Transparent pixels are laid on white. Grey images of more than 8 bits are mapped linearly from `window`
    to 0..255 and clipped: "dtype" is 0..65535 (an error for 32 bits and floats), "percentile" the image's
    own 0.5 to 99.5 percentile, or (low, high) as given; not-a-number becomes black. `at_least` > 0 lets a
    JPEG be decoded at 1/2, 1/4 or 1/8 of its size where no side falls below so many pixels. Raises BadImage.
    """
    check_window(window)
    try:
        with _opened(source) as file:
            try:
                return _decode(file, window, at_least)
            except UnidentifiedImageError as error:
                if file.seek(0, os.SEEK_END) == 0:
                    raise BadImage("zero bytes", "copy it again") from error
                raise
    except Exception as error:  # a broken file can make Pillow's plugins raise anything
        bad = error if isinstance(error, BadImage) else _explained(error)
        raise BadImage(bad.reason, bad.advice, shown(source) if isinstance(source, Path) else "") from error


def as_rgb(image: Image.Image, window: Window = "dtype") -> Image.Image:
    """An opened image as `read_rgb` reads its file: upright, on white, 8 bits a colour."""
    return _to_rgb(_upright(image), window)


def _opened(source: Path | bytes | BinaryIO) -> Any:
    if isinstance(source, Path):
        mode = source.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for ever
            raise BadImage("a pipe or a device", "remove it")
        return source.open("rb")
    return io.BytesIO(source) if isinstance(source, bytes) else nullcontext(source)


def _explained(error: Exception) -> BadImage:
    match error:
        case FileNotFoundError():
            return BadImage("missing, or a link to nothing", "restore it")
        case IsADirectoryError():
            return BadImage("a folder", "rename it")
        case PermissionError():
            return BadImage("permission denied", "allow this user to read it")
        case UnidentifiedImageError():
            return BadImage("not an image", "convert it to a format that Pillow opens")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return _bomb()
        case OSError() if error.strerror:
            return BadImage(error.strerror.lower(), "see that it can be read")
        case _ if "truncated" in str(error).lower():
            return BadImage("truncated", "copy it again")
        case _:
            return BadImage(f"cannot be decoded: {error or type(error).__name__}", "copy or convert it again")


def _bomb() -> BadImage:
    limit = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit against decompression bombs"
    return BadImage(limit, "make it smaller")


def _decode(file: BinaryIO, window: Window, at_least: int) -> Tensor:
    with Image.open(file) as image:
        # Pillow itself only warns up to twice its limit
        if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise _bomb()
        _check_depth(image, window)
        if at_least > 0:
            image.draft(None, (at_least, at_least))
        image.load()
        rgb = as_rgb(image, window)
    return torch.from_numpy(np.stack([np.asarray(band) for band in rgb.split()]))


def _check_depth(image: ImageFile.ImageFile, window: Window) -> None:
    if window == "dtype" and (image.mode == "F" or (image.mode == "I" and image.format not in _WIDENED)):
        raise BadImage(
            f"its 32-bit {'floats' if image.mode == 'F' else 'integers'} have no natural range",
            "set data.window to percentile or [low, high]",
        )
    raw = " ".join(str(tile[3]) for tile in image.tile)
    if image.mode[0] not in "IF" and re.search(r";16[BLN]", raw) and window != "dtype":
        raise BadImage(
            f"16 bits a colour, of which Pillow reads the upper 8, so data.window={window} cannot be applied",
            "convert it to 8 bits, or set data.window=dtype",
        )


def _upright(image: Image.Image) -> Image.Image:
    """Like ImageOps.exif_transpose, but photos with broken EXIF data, which are common, stay as stored."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image, window: Window) -> Image.Image:
    if image.mode[0] in "IF":
        return Image.fromarray(_to_8_bits(np.asarray(image), window)).convert("RGB")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise BadImage("no finite value", "leave it out")
    if window == "dtype":
        low, high = 0.0, 65535.0
    elif window == "percentile":
        low, high = np.percentile(finite, PERCENTILES)
    else:
        low, high = window
    span = max(high - low, float(np.finfo(np.float32).tiny))  # percentiles may be equal
    scaled = np.clip((values.astype(np.float64) - low) / span * 255, 0, 255)
    return np.rint(np.nan_to_num(scaled)).astype(np.uint8)
