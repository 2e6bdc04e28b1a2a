"""Small photos drawn by the tests: every mode and format, and the odd files that real folders hold."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = (
    *((".jpg", "RGB"), (".jpeg", "L"), (".jpg", "CMYK")),
    *((".png", "RGB"), (".png", "L"), (".png", "LA"), (".png", "P"), (".png", "RGBA"), (".png", "1")),
    *((".png", "I;16"), (".bmp", "RGB"), (".gif", "P"), (".tif", "RGB"), (".tiff", "CMYK")),
    *((".webp", "RGB"), (".webp", "RGBA"), (".ppm", "RGB"), (".pgm", "L")),
)
# EXIF 2.3, 4.6.4 A: the side of the upright picture that the first stored row and column show
_FIRST = {
    **{1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left")},
    **{5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom")},
}
_COLOURS = ((200, 60, 40), (40, 90, 210), (50, 170, 60), (210, 180, 40))


def draw(kind: int, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A picture of class `kind`: its colour and its shape, at a random place on a light, noisy ground."""
    ground = rng.integers(190, 240, 3) + rng.integers(-12, 12, (height, width, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    size = rng.uniform(0.4, 0.7, 2) * (width, height)
    left, top = rng.uniform(0, 1, 2) * ((width, height) - size)
    right, bottom = left + size[0], top + size[1]
    colour = tuple(int(c) for c in (np.array(_COLOURS[kind % 4]) + rng.integers(-20, 20, 3)).clip(0, 255))
    pen = ImageDraw.Draw(image)
    if kind % 4 == 0:
        pen.ellipse((left, top, right, bottom), fill=colour)
    elif kind % 4 == 1:
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(2, min(width, height) // 10))
    elif kind % 4 == 2:
        pen.polygon((left, bottom, (left + right) / 2, top, right, bottom), fill=colour)
    else:
        for x in np.linspace(left, right, 4):
            pen.line((x, top, x, bottom), fill=colour, width=max(2, width // 16))
    return image


def as_mode(image: Image.Image, mode: str) -> Image.Image:
    """An RGB picture in another mode; where the mode has alpha, the corners are transparent."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    converted = image.convert(mode)
    if mode in ("LA", "RGBA"):
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).ellipse((0, 0, image.width - 1, image.height - 1), fill=255)
        converted.putalpha(mask)
    return converted


def write_photos(
    folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 18, seed: int = 0
) -> list[Path]:
    """Write `count` photos per class as folder/class/class-000.jpg, ...: sides of 70 to 130 pixels.

    Formats and modes take turns, so that 18 photos show all of them.
    """
    rng = np.random.default_rng(seed)
    paths = []
    for kind, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            suffix, mode = KINDS[index % len(KINDS)]
            width, height = (int(side) for side in rng.integers(70, 131, 2))
            paths.append(folder / name / f"{name}-{index:03}{suffix}")
            as_mode(draw(kind, width, height, rng), mode).save(paths[-1])
    return paths


def quadrants(width: int = 60, height: int = 40) -> Image.Image:
    """Red, green over blue, dark yellow."""
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(((220, 30, 40), (30, 180, 60), (40, 60, 200), (120, 100, 20))):
        left, top = index % 2 * (width // 2), index // 2 * (height // 2)
        image.paste(colour, (left, top, left + width - width // 2, top + height - height // 2))
    return image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_rotated(path: Path, orientation: int, image: Image.Image | None = None) -> Path:
    """`image`, which is upright, stored as a turned camera does, with its EXIF `orientation` 1 to 8."""
    row, column = _FIRST[orientation]
    pixels = np.asarray(image or quadrants())
    pixels = pixels[::-1] if "bottom" in (row, column) else pixels
    pixels = pixels[:, ::-1] if "right" in (row, column) else pixels
    pixels = pixels.swapaxes(0, 1) if row in ("left", "right") else pixels
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)
    return path


def write_truncated(path: Path, share: float = 0.6) -> Path:
    data = encoded(draw(0, 90, 70, np.random.default_rng(0)), Image.registered_extensions()[path.suffix])
    path.write_bytes(data[: int(share * len(data))])
    return path


def write_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def write_text(path: Path) -> Path:
    path.write_text("This is not an image.\n")
    return path


def write_plain(path: Path, width: int, height: int, colour: tuple[int, int, int] = (90, 120, 150)) -> Path:
    """One colour all over: constant; a single pixel; or a very long image."""
    Image.new("RGB", (width, height), colour).save(path)
    return path


def write_long(path: Path, length: int = 20_000) -> Path:
    """1 pixel wide, `length` high, a ramp from black to white."""
    Image.fromarray(np.linspace(0, 255, length).astype(np.uint8)[:, None]).save(path)
    return path


def write_dark(path: Path) -> Path:
    """50 x 40 pixels of noise up to 2 of 255, but 10 white ones: 99.5 % dark."""
    pixels = np.random.default_rng(0).integers(0, 3, (40, 50, 3), dtype=np.uint8)
    pixels[0, :10] = 255
    Image.fromarray(pixels).save(path)
    return path


def write_animated(path: Path) -> Path:
    """Two frames, the first of `quadrants`, the second white."""
    quadrants().save(path, save_all=True, append_images=[Image.new("RGB", (60, 40), "white")], duration=100)
    return path
