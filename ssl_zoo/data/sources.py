"""Where public data sets lie on disk, and their download."""

import logging
import os
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from ssl_zoo.data import raw
from ssl_zoo.data.cache import Decoded, cache_dir, write_folder
from ssl_zoo.data.folders import list_folder
from ssl_zoo.data.listing import Listing
from ssl_zoo.data.origins import Origin
from ssl_zoo.data.parquet import check_shards, list_parquet

logger = logging.getLogger(__name__)

SPLITS = ("train", "test")
_IDX_PREFIX = {"train": "train", "test": "t10k"}
_BATCHES = {"train": ("data_batch_*", "train"), "test": ("test_batch", "test")}


class Source(NamedTuple):
    """The files of one split and `decode`, which reads them; raises ValueError for a broken or unfit file.

    Images without a label, if any, come last and have the label -1.
    """

    files: tuple[Path, ...]
    decode: Callable[[], Decoded]


Found = Listing | dict[str, Source]
_Files = Callable[[Path, str], tuple[Path, ...]]


class _Layout(NamedTuple):
    folder: Path
    wanted: str
    find: Callable[[Path], Found]


def find(origin: Origin, data_dir: str | Path | None = None) -> Found:
    """Return what lies under `data_dir` or else `SSL_ZOO_DATA`: photos, or the sources "train" and "test".

    Without either, torchvision downloads them into the cache folder. Raises FileNotFoundError naming each
    place that was looked at, and ValueError for Parquet files of which some are missing.
    """
    given = data_dir or os.environ.get("SSL_ZOO_DATA")
    root = Path(given).expanduser() if given else cache_dir() / "downloads" / origin.name
    failure = None if given or root.exists() else _download(origin, root)
    places = []
    for layout in _layouts(origin, root):
        found = layout.find(layout.folder)
        if isinstance(found, Listing) or len(found) == len(SPLITS):
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
    own, foreign = root / origin.name, [root / folder for folder in origin.folders]
    read = {
        "idx": (_idx_files, raw.read_idx, "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"),
        "batches": (
            _batch_files,
            raw.read_batches,
            "torchvision's {data_batch_*,train} and {test_batch,test}",
        ),
        "stl10": (_stl10_files, raw.read_stl10, "{train,test}_{X,y}.bin and unlabeled_X.bin"),
    }
    parquet = "{train,test}-*.parquet, here or one folder below"
    if origin.mode:
        first = _Layout(own, parquet, partial(_sources, origin, _parquet_files, raw.read_parquet))
    else:
        first = _Layout(own, parquet, partial(_listed_parquet, origin))
    if origin.layout == "classes":
        rest = [_Layout(folder, "{train,val}/CLASS/", partial(_listed_folder, origin)) for folder in foreign]
    else:
        files, reader, wanted = read[origin.layout]
        places = [own, *foreign] if origin.layout == "idx" else foreign
        rest = [_Layout(folder, wanted, partial(_sources, origin, files, reader)) for folder in places]
    return [first, *rest]


def _download(origin: Origin, folder: Path) -> Exception | None:
    import torchvision.datasets

    logger.info("downloading %s with torchvision into %s", origin.name, folder)
    create = getattr(torchvision.datasets, origin.torchvision)
    size = {"size": origin.size} if origin.size else {}
    try:
        write_folder(folder, lambda temporary: create(temporary, download=True, **size))
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        return error
    return None


def _listed_parquet(origin: Origin, folder: Path) -> Found:
    parts = ("train",), ("test", "validation", "val")
    whole = all(any(_parquet_files(folder, split) for split in part) for part in parts)
    return list_parquet(folder, origin.label) if whole else {}


def _listed_folder(origin: Origin, folder: Path) -> Found:
    if not all((folder / part).is_dir() for part in ("train", "val")):
        return {}
    listing = list_folder(folder)
    names = dict(zip(origin.synsets, origin.classes, strict=True))
    return listing._replace(classes=tuple(names.get(name, name) for name in listing.classes))


def _sources(
    origin: Origin, files_of: _Files, read: Callable[[tuple[Path, ...], Origin], Decoded], folder: Path
) -> Found:
    found = {split: files for split in SPLITS if (files := files_of(folder, split))}
    return {split: Source(files, partial(_checked, read, files, origin)) for split, files in found.items()}


def _checked(
    read: Callable[[tuple[Path, ...], Origin], Decoded], files: tuple[Path, ...], origin: Origin
) -> Decoded:
    decoded = read(files, origin)
    if len(decoded.images) == 0:
        raise ValueError(f"{files[0]} holds no images")
    if decoded.labels is None:
        return decoded
    high, classes = decoded.labels.max(), len(decoded.classes)
    if high >= classes:
        raise ValueError(f"{files[0]} has labels up to {high}, not 0 to {classes - 1} for {classes} classes")
    return decoded


def _parquet_files(folder: Path, split: str) -> tuple[Path, ...]:
    for places in ([folder], [folder / "data"], sorted(folder.glob("*/"))):
        found = [files for place in places if (files := sorted(place.glob(f"{split}-*.parquet")))]
        if len(found) > 1:
            names = ", ".join(str(files[0].parent) for files in found)
            raise ValueError(f"several folders hold {split}-*.parquet: {names}; keep one of them")
        if found:
            check_shards(found[0])
            return tuple(found[0])
    return ()


def _idx_files(folder: Path, split: str) -> tuple[Path, ...]:
    names = (f"{_IDX_PREFIX[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    choices = [(folder / name, folder / f"{name}.gz") for name in names]
    files = [next((path for path in choice if path.is_file()), None) for choice in choices]
    return tuple(path for path in files if path) if all(files) else ()


def _batch_files(folder: Path, split: str) -> tuple[Path, ...]:
    return tuple(sorted(path for pattern in _BATCHES[split] for path in folder.glob(pattern)))


def _stl10_files(folder: Path, split: str) -> tuple[Path, ...]:
    needed = [folder / f"{split}_{kind}.bin" for kind in "Xy"]
    extra = folder / "unlabeled_X.bin"
    if not all(path.is_file() for path in needed):
        return ()
    return (*needed, extra) if split == "train" and extra.is_file() else tuple(needed)
