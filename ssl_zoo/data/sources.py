"""Where images lie on disk and how they are read: Parquet, idx and torchvision's folders."""

import gzip
import io
import json
import logging
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ssl_zoo.data.cache import Decoded, cache_dir, write_folder

logger = logging.getLogger(__name__)

SPLITS = ("train", "test")
_JPEG = b"\xff\xd8\xff"
_JPEG_NOTE = "{}: images are stored as JPEG, so scores lie slightly below those on the original pixels"
_IDX_PREFIX = {"train": "train", "test": "t10k"}
_BATCHES = {"train": "data_batch_*", "test": "test_batch"}


@dataclass(frozen=True)
class Origin:
    """A public data set whose original images are stored without loss.

    `mode` is PIL's name of its pixels; `torchvision` is the class that downloads it, into `folder`.
    """

    name: str
    classes: tuple[str, ...]
    mode: Literal["L", "RGB"]
    torchvision: str
    folder: str


class Source(NamedTuple):
    """The files of one split and `decode`, which reads them; raises ValueError for a broken or unfit file."""

    files: tuple[Path, ...]
    decode: Callable[[], Decoded]


class _Layout(NamedTuple):
    folder: Path
    wanted: str
    files: Callable[[Path, str], tuple[Path, ...]]
    read: Callable[[tuple[Path, ...], Origin], Decoded]

    def source(self, split: str, origin: Origin) -> Source | None:
        files = self.files(self.folder, split)
        return Source(files, lambda: _checked(self.read(files, origin), files[0])) if files else None


def find(origin: Origin, data_dir: str | Path | None = None) -> dict[str, Source]:
    """Return the sources of the splits "train" and "test", under `data_dir` or else `SSL_ZOO_DATA`.

    Without either, torchvision downloads them into the cache folder. Raises FileNotFoundError naming each
    place that was looked at, and ValueError for Parquet files of which some are missing.
    """
    given = data_dir or os.environ.get("SSL_ZOO_DATA")
    root = Path(given).expanduser() if given else cache_dir() / "downloads" / origin.name
    failure = None if given or root.exists() else _download(origin, root)
    places = []
    for layout in _layouts(origin, root):
        found = {split: source for split in SPLITS if (source := layout.source(split, origin))}
        if len(found) == len(SPLITS):
            return found
        places.append(f"  {layout.folder}: {layout.wanted}" + "".join(f" (only {split})" for split in found))
    reason = f", and its download failed: {failure}" if failure else ""
    download = "omit both to allow the download" if given else f"delete {root} and try again with a network"
    raise FileNotFoundError(
        "\n".join((f"{origin.name} was not found{reason}. Looked for", *places))
        + "\nPass --data-dir (data_dir=) or set SSL_ZOO_DATA to the folder that holds one of these, or "
        + download
    ) from failure


def _layouts(origin: Origin, root: Path) -> list[_Layout]:
    own, foreign = root / origin.name, root / origin.folder
    parquet = _Layout(own, "{train,test}-*.parquet, here or one folder below", _parquet_files, read_parquet)
    if origin.mode == "RGB":
        batches = _Layout(foreign, "torchvision's {data_batch_*,test_batch}", _batch_files, read_batches)
        return [parquet, batches]
    wanted = "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"
    return [parquet, *(_Layout(folder, wanted, _idx_files, read_idx) for folder in (own, foreign))]


def _download(origin: Origin, folder: Path) -> Exception | None:
    import torchvision.datasets

    logger.info("downloading %s with torchvision into %s", origin.name, folder)
    create = getattr(torchvision.datasets, origin.torchvision)
    try:
        write_folder(folder, lambda temporary: create(temporary, download=True))
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        return error
    return None


def _checked(decoded: Decoded, path: Path) -> Decoded:
    if len(decoded.images) == 0:
        raise ValueError(f"{path} holds no images")
    if decoded.labels is None:
        return decoded
    low, high, classes = decoded.labels.min(), decoded.labels.max(), len(decoded.classes)
    if low < 0 or high >= classes:
        raise ValueError(
            f"{path} holds labels {low} to {high}, not 0 to {classes - 1} as for {classes} classes"
        )
    return decoded


# Parquet, as the Hugging Face hub lays it out


def _parquet_files(folder: Path, split: str) -> tuple[Path, ...]:
    for places in ([folder], [folder / "data"], sorted(folder.glob("*/"))):
        found = [files for place in places if (files := sorted(place.glob(f"{split}-*.parquet")))]
        if len(found) > 1:
            names = ", ".join(str(files[0].parent) for files in found)
            raise ValueError(f"several folders hold {split}-*.parquet: {names}; keep one of them")
        if found:
            _check_shards(found[0])
            return tuple(found[0])
    return ()


def _check_shards(files: list[Path]) -> None:
    shards = [match.groups() for path in files if (match := re.search(r"-(\d{5})-of-(\d{5})", path.name))]
    if shards and shards != [(f"{index:05}", f"{len(files):05}") for index in range(len(files))]:
        names = ", ".join(path.name for path in files)
        raise ValueError(f"{files[0].parent} holds {names}; it needs every part once, so copy it again")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}; copy or download it again") from error


class _Part(NamedTuple):
    path: Path
    images: list[bytes | None]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]


def read_parquet(files: tuple[Path, ...], origin: Origin) -> Decoded:
    """Decode Parquet files with a column `img` or `image` {bytes, path} and perhaps `label`.

    Class names come from the files' Hugging Face metadata, else from `origin`. Raises ValueError, naming the
    file, for a broken file or image, images of several sizes, missing labels and files that disagree.
    """
    parts = [_read_part(path, origin) for path in files]
    if len({(part.labels is None, part.classes) for part in parts}) > 1:
        raise ValueError(f"{files[0].parent}: its files differ in class names or labels; keep one edition")
    cells = [(part.path, row, data) for part in parts for row, data in enumerate(part.images)]
    images = np.empty((0, 0, 0, 0), np.uint8)
    for index, (path, row, data) in enumerate(cells):
        try:
            pixels = _decode_image(data, origin.mode)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path}, row {row}: the image cannot be read: {error}") from error
        if index == 0:
            images = np.empty((len(cells), *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            size, first = (f"{width}x{height}" for _, height, width in (pixels.shape, images.shape[1:]))
            raise ValueError(f"{path}, row {row}: size {size}, the images before {first}; make them one size")
        images[index] = pixels
    labels = [part.labels for part in parts if part.labels is not None]
    lossy = any(data.startswith(_JPEG) for part in parts for data in part.images if data)
    joined = np.concatenate(labels) if labels else None
    return Decoded(images, joined, parts[0].classes, (_JPEG_NOTE.format(origin.name),) if lossy else ())


def _read_part(path: Path, origin: Origin) -> _Part:
    with _reading(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        image = next((name for name in ("img", "image") if name in schema.names), None)
        if image is None or not _has_bytes(schema.field(image).type):
            raise ValueError(f"{path} has columns {schema.names}; it needs `img` or `image` {{bytes, path}}")
        table = file.read([image, "label"] if "label" in schema.names else [image])
    images = pc.struct_field(table[image], "bytes").to_pylist()
    hub = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    classes = hub.get("info", {}).get("features", {}).get("label", {}).get("names")
    if "label" not in schema.names:
        return _Part(path, images, None, origin.classes)
    labels = table["label"]
    if labels.null_count or not pa.types.is_integer(labels.type):
        raise ValueError(
            f"{path}: `label` is {labels.type}, {labels.null_count} empty; it needs whole numbers"
        )
    return _Part(path, images, labels.to_numpy().astype(np.int64), tuple(classes or origin.classes))


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _decode_image(data: bytes | None, mode: str) -> NDArray[np.uint8]:
    if data is None:
        raise ValueError("it is stored as a path without bytes")
    with Image.open(io.BytesIO(data)) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"it has mode {image.mode}, more than 8 bits a channel; convert it to 8 bits")
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return np.moveaxis(np.atleast_3d(pixels), 2, 0)


# idx, the format of MNIST and Fashion-MNIST, and torchvision's CIFAR batches


def _idx_files(folder: Path, split: str) -> tuple[Path, ...]:
    names = (f"{_IDX_PREFIX[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    choices = [(folder / name, folder / f"{name}.gz") for name in names]
    files = [next((path for path in choice if path.is_file()), None) for choice in choices]
    return tuple(path for path in files if path) if all(files) else ()


def read_idx(files: tuple[Path, ...], origin: Origin) -> Decoded:
    """Read the idx files (images, labels), gzipped or not; raises ValueError naming a file that is broken."""
    images, labels = (_read_idx(path, dimensions) for path, dimensions in zip(files, (3, 1), strict=True))
    if len(images) != len(labels):
        raise ValueError(f"{files[0]} holds {len(images)} images, {files[1]} {len(labels)} labels")
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


def _batch_files(folder: Path, split: str) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob(_BATCHES[split])))


def read_batches(files: tuple[Path, ...], origin: Origin) -> Decoded:
    """Read torchvision's CIFAR folder, which checks each file's md5; raises ValueError if one is wrong."""
    import torchvision.datasets

    create, root = getattr(torchvision.datasets, origin.torchvision), files[0].parent.parent
    try:
        data = create(root, train="test" not in files[0].name, download=False)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{files[0].parent} is not what torchvision expects: {error}") from error
    return Decoded(np.moveaxis(data.data, 3, 1), np.asarray(data.targets, np.int64), tuple(data.classes))
