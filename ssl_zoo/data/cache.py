"""Images decoded once into files that every later run maps into memory."""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from numpy.typing import NDArray

T = TypeVar("T")

logger = logging.getLogger(__name__)

_FAULTS = (OSError, ValueError, KeyError, EOFError)  # of an entry that is missing or damaged
_FORMAT = 1  # raise it when decoding or the files below change: old entries are then ignored


class Decoded(NamedTuple):
    """One split: `images` uint8 [N, C, H, W], `labels` int64 [N] or None, class names, facts to report."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def cache_dir() -> Path:
    """The folder of everything ssl_zoo may rebuild: `SSL_ZOO_CACHE`, or else the platform's cache folder."""
    return Path(os.environ.get("SSL_ZOO_CACHE") or platformdirs.user_cache_dir("ssl_zoo"))


def fingerprint(files: Iterable[Path]) -> str:
    """sha256 over the content of the files in the given order, whatever their names and places."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def load(key: str, decode: Callable[[], Decoded]) -> Decoded:
    """Return the split cached under `key`, mapped copy-on-write; `decode` makes a missing or damaged one.

    Of processes that ask for the same at once one decodes, the others wait. Raises OSError if the cache
    folder cannot be written.
    """
    return entry("images", key, _read, lambda folder: _write(decode(), folder))


def load_images(
    key: str, shape: tuple[int, ...], decode: Callable[[], Iterable[NDArray[np.uint8]]]
) -> NDArray[np.uint8]:
    """Like load, for images [N, C, H, W] = `shape` alone; `decode` makes them in pieces, to save memory."""

    def write(folder: Path) -> None:
        with (folder / "images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            for piece in decode():
                file.write(np.ascontiguousarray(piece).data)
            file.flush()
            os.fsync(file.fileno())

    return entry("images", key, lambda folder: _read_images(folder, shape), write)


def remember(key: str, find: Callable[[], int]) -> int:
    """Return the number cached under `key`; `find` makes a missing or damaged one."""
    return entry(
        "numbers",
        key,
        lambda folder: int((folder / "number").read_text(encoding="ascii")),
        lambda folder: (folder / "number").write_text(str(find()), encoding="ascii"),
    )


def entry(kind: str, key: str, read: Callable[[Path], T], write: Callable[[Path], object]) -> T:
    """Return what `read` finds in the cache folder of `key`; `write` fills a missing or damaged one."""
    folder = cache_dir() / kind / f"v{_FORMAT}" / key
    with suppress(*_FAULTS):
        return read(folder)
    with _named(folder), _alone(f"{kind}-{key}"):
        try:
            return read(folder)  # another process has made it meanwhile
        except _FAULTS as error:
            if folder.exists():
                logger.warning("cache entry %s is damaged (%s): building it again", folder, error)
                discard(folder)
        logger.info("making %s", folder)
        write_folder(folder, write)
    return read(folder)


def store(folder: Path, write: Callable[[Path], object]) -> None:
    """Make a cache entry with `write_folder`; its OSError says what to set."""
    with _named(folder):
        write_folder(folder, write)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"the image cache {folder} cannot be written: {error}; "
            "set SSL_ZOO_CACHE to a folder with space that can be written"
        ) from error


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait until no other process makes the entry `name`."""
    lock = FileLock(cache_dir() / "locks" / name)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for another process that makes %s", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_folder(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder and rename it to `target`: others see all of it or nothing.

    A target that another process renamed into place meanwhile is kept.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a cache entry at once."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process was faster
        return
    shutil.rmtree(aside, ignore_errors=True)


def _write(decoded: Decoded, folder: Path) -> None:
    _save(folder / "images.npy", decoded.images)
    if decoded.labels is not None:
        _save(folder / "labels.npy", decoded.labels)
    meta = {
        "shape": decoded.images.shape,
        "labels": decoded.labels is not None,
        "classes": decoded.classes,
        "notes": decoded.notes,
    }
    with (folder / "meta.json").open("w", encoding="utf-8") as file:
        json.dump(meta, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array))
        file.flush()
        os.fsync(file.fileno())


def _read(folder: Path) -> Decoded:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    images = _read_images(folder, tuple(meta["shape"]))
    labels = np.load(folder / "labels.npy") if meta["labels"] else None
    if labels is not None and labels.shape != images.shape[:1]:
        raise ValueError(f"labels.npy holds {labels.shape} labels of {images.shape[0]} images")
    return Decoded(images, labels, tuple(meta["classes"]), tuple(meta["notes"]))


def _read_images(folder: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    # copy-on-write: torch warns about read-only arrays, and no writer may change the files
    images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="c")
    if images.dtype != np.uint8 or images.shape != shape:
        raise ValueError(f"images.npy holds {images.dtype} {images.shape}, not uint8 {shape}")
    return images
