"""Readers of the formats in which public data sets come: small images in Parquet, and uncompressed pixels."""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_zoo.data.cache import Decoded
from ssl_zoo.data.origins import Origin
from ssl_zoo.data.parquet import open_parquet
from ssl_zoo.data.tables import number_labels

_JPEG = b"\xff\xd8\xff"
_JPEG_NOTE = "{}: images are stored as JPEG, so scores lie slightly below those on the original pixels"
_STL10_SHAPE = (3, 96, 96)


def read_parquet(files: tuple[Path, ...], origin: Origin) -> Decoded:
    """Decode Parquet files of images of one size, which fit into memory.

    Class names come from the files' Hugging Face metadata, else from `origin`. Raises ValueError, naming the
    file, for a broken file or image, images of several sizes and files that disagree.
    """
    tables = [open_parquet(path) for path in files]
    count, mode = sum(table.size for table in tables), origin.mode or "RGB"
    labels, classes = number_labels(tables, origin.label, origin.classes)
    cells = ((table, row, data) for table in tables for row, data in enumerate(table.images()))
    images, lossy = np.empty((0, 0, 0, 0), np.uint8), False
    for index, (table, row, data) in enumerate(cells):
        try:
            pixels = _decode_image(data, mode)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{table.place}, row {row}: the image cannot be read: {error}") from error
        if index == 0:
            images = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            size, first = (f"{width}x{height}" for _, height, width in (pixels.shape, images.shape[1:]))
            raise ValueError(
                f"{table.place}, row {row}: size {size}, the images before {first}; make them one size"
            )
        images[index], lossy = pixels, lossy or data.startswith(_JPEG)
    unknown = int((labels < 0).sum())
    if 0 < unknown < count:
        raise ValueError(f"{files[0]}: {unknown} of {count} images have no label; label all of them or none")
    notes = (_JPEG_NOTE.format(origin.name),) if lossy else ()
    return Decoded(images, None if unknown else labels.numpy(), classes, notes)


def _decode_image(data: bytes, mode: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"it has mode {image.mode}, more than 8 bits a channel; convert it to 8 bits")
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return np.moveaxis(np.atleast_3d(pixels), 2, 0)


def read_idx(files: tuple[Path, ...], origin: Origin) -> Decoded:
    """Read the idx files (images, labels) of MNIST and its like, gzipped or not.

    Raises ValueError naming a file that is broken.
    """
    images, labels = (_read_idx(path, dimensions) for path, dimensions in zip(files, (3, 1), strict=True))
    _check_counts(files, len(images), len(labels))
    return Decoded(images[:, None], labels.astype(np.int64), origin.classes)


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    with _reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        data = file.read()
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if len(data) < start or data[:4] != magic:
        raise ValueError(f"{path} starts with {data[:4].hex()}, an idx file of this kind with {magic.hex()}")
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    if len(data) != start + math.prod(shape):
        raise ValueError(f"{path} holds {len(data) - start} values, its header says {shape}; copy it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}; copy or download it again") from error


def _check_counts(files: tuple[Path, ...], images: int, labels: int) -> None:
    if images != labels:
        raise ValueError(f"{files[0]} holds {images} images, {files[1]} {labels} labels")


def read_batches(files: tuple[Path, ...], origin: Origin) -> Decoded:
    """Read torchvision's CIFAR folder, which checks each file's md5; raises ValueError if one is wrong."""
    import torchvision.datasets

    create, root = getattr(torchvision.datasets, origin.torchvision), files[0].parent.parent
    try:
        data = create(root, train="test" not in files[0].name, download=False)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{files[0].parent} is not what torchvision expects: {error}") from error
    return Decoded(np.moveaxis(data.data, 3, 1), np.asarray(data.targets, np.int64), tuple(data.classes))


def read_stl10(files: tuple[Path, ...], origin: Origin) -> Decoded:
    """Read STL-10's binary files (images, labels[, images without]); the latter get the label -1.

    Each image is stored channel by channel and column by column. torchvision would hold all images in memory
    twice. Raises ValueError naming a file that is broken.
    """
    parts = [_map_stl10(path) for path in (files[0], *files[2:])]
    labels = np.fromfile(files[1], np.uint8).astype(np.int64)
    _check_counts(files, len(parts[0]), len(labels))
    if labels.min() < 1:
        raise ValueError(f"{files[1]} holds the label {labels.min()}, lower than 1; copy it again")
    images = np.empty((sum(map(len, parts)), *_STL10_SHAPE), np.uint8)
    np.concatenate([part.swapaxes(2, 3) for part in parts], out=images)
    unlabelled = np.full(len(images) - len(labels), -1)
    return Decoded(images, np.concatenate([labels - 1, unlabelled]), origin.classes)


def _map_stl10(path: Path) -> NDArray[np.uint8]:
    size, one = path.stat().st_size, math.prod(_STL10_SHAPE)
    if not size or size % one:
        raise ValueError(f"{path} has {size} bytes, not a multiple of {one} for each image; copy it again")
    return np.memmap(path, np.uint8, "r").reshape(-1, *_STL10_SHAPE)
