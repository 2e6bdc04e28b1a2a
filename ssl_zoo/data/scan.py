"""One full look at every image of a source: which can be used, their sizes, and what a reader should know."""

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_zoo.data import cache
from ssl_zoo.data.decode import BadImage, Window, check_window, shown
from ssl_zoo.data.photos import Photos

logger = logging.getLogger(__name__)

DARK_LEVEL = 2  # of 255: a pixel with no channel above it is dark
DARK_SHARE = 0.99  # an image with more dark pixels than this is dark

_FORMAT = 1  # raise it when decoding or `_Facts` change: old entries are then ignored
_LISTED = 5
_CHUNK = 256  # images handed to the threads at once: a million waiting tasks would take a gigabyte


class _Facts(NamedTuple):
    """What is known of N images; those not decoded have sides of 0.

    `traits` [N, 3] bool: has colour, is constant (all pixels equal), is dark though not constant.
    """

    content: NDArray[np.int64]
    sides: NDArray[np.int64]
    traits: NDArray[np.bool_]


class _Fact(NamedTuple):
    content: int
    sides: tuple[int, int]
    traits: tuple[bool, bool, bool]


def scan(
    files: Sequence[str | Path],
    spans: Tensor | None,
    names: Sequence[str],
    *,
    window: Window = "dtype",
    on_bad_image: Literal["error", "skip"] = "error",
) -> tuple[Photos, Tensor, tuple[str, ...]]:
    """Decode every image once: the good photos, their positions [M] int64 in `names`, and notes for a reader.

    `files`, `spans` and `window` are those of Photos. What is learnt lies in the cache folder under every
    file's path, size and time, so that a second scan decodes only what was bad. Raises ValueError for a bad
    image, or with "skip" when all are bad, and OSError for a cache that cannot be written.
    """
    check_window(window)
    blank = _blank(len(names))
    raw = Photos(files, *map(torch.from_numpy, blank[:2]), grey=False, spans=spans, window=window)
    facts, bad = _look(raw, cache.cache_dir() / "scans" / f"v{_FORMAT}" / _key(raw))
    if bad and (on_bad_image == "error" or len(bad) == len(names)):
        first = next(iter(bad))
        raise _refusal(bad, shown(files[first] if spans is None else names[first]), len(names))
    content, sides = torch.from_numpy(facts.content), torch.from_numpy(facts.sides)
    grey = not facts.traits[:, 0].any()
    photos = Photos(files, content, sides, grey=grey, spans=spans, window=window)
    positions = sides[:, 0].nonzero().flatten()
    return photos[positions] if bad else photos, positions, tuple(_notes(facts, bad, names))


def _refusal(bad: dict[int, BadImage], name: str, count: int) -> BadImage:
    first = next(iter(bad.values()))
    if len(bad) == count:
        return BadImage(first.reason, first.advice, f"none of {count} images can be read; {name}")
    others = f" ({len(bad)} of {count} images are bad)" if len(bad) > 1 else ""
    skip = f"{first.advice}, or leave bad images out with data.on_bad_image=skip{others}"
    return BadImage(first.reason, skip, name)


def _notes(facts: _Facts, bad: dict[int, BadImage], names: Sequence[str]) -> Iterator[str]:
    constant, dark = (facts.traits[:, column].nonzero()[0].tolist() for column in (1, 2))
    dim = f"more than {DARK_SHARE:.0%} dark (at or below {DARK_LEVEL} of 255)"
    for found, one, many in (
        (list(bad), "could not be read and was left out", "could not be read and were left out"),
        (constant, "is constant (one colour)", "are constant (one colour)"),
        (dark, f"is {dim}", f"are {dim}"),
    ):
        listed = [
            shown(names[position]) + (f" ({bad[position].reason})" if position in bad else "")
            for position in found[:_LISTED]
        ]
        rest = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
        if found:
            what = one if len(found) == 1 else many
            yield f"{len(found)} of {len(names)} images {what}: {', '.join(listed + rest)}"


def _look(photos: Photos, entry: Path) -> tuple[_Facts, dict[int, BadImage]]:
    """The facts of all photos, from the cache `entry` or new, and by position what is wrong with bad ones."""
    facts = _cached(entry, len(photos))
    unknown: list[int] = (facts.sides[:, 0] == 0).nonzero()[0].tolist()
    bad: dict[int, BadImage] = {}
    try:
        for position, fact in _inspect_all(photos, unknown):
            if isinstance(fact, BadImage):
                bad[position] = fact
            else:
                facts.content[position], facts.sides[position], facts.traits[position] = fact
    finally:  # an interrupted scan continues here; bad images are looked at again, they may be repaired
        if facts.sides[unknown].any():
            if entry.exists():
                cache.discard(entry)
            cache.store(entry, partial(_write, facts))
    return facts, bad


def _inspect_all(photos: Photos, positions: list[int]) -> Iterator[tuple[int, _Fact | BadImage]]:
    if not positions:
        return
    Image.init()  # threads that load Pillow's plugins at the same time can miss some
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(positions), _CHUNK):
            part = positions[start : start + _CHUNK]
            yield from zip(part, pool.map(partial(_inspect, photos), part), strict=True)
            done = start + len(part)
            if 10 * done // len(positions) > 10 * start // len(positions):
                logger.info("looked at %d of %d images", done, len(positions))


def _inspect(photos: Photos, position: int) -> _Fact | BadImage:
    try:
        rgb = photos.decode(position).numpy()
    except BadImage as error:
        return BadImage(error.reason, error.advice)  # without the traceback, which holds pixels
    digest = hashlib.blake2b(np.array(rgb.shape, "<i8").data, digest_size=8)
    digest.update(rgb.data)
    content = int.from_bytes(digest.digest(), "little", signed=True)
    colour = bool((rgb[0] != rgb[1]).any() or (rgb[0] != rgb[2]).any())
    constant = bool((rgb == rgb[:, :1, :1]).all())
    dark = np.count_nonzero(rgb.max(0) <= DARK_LEVEL) > DARK_SHARE * rgb[0].size
    return _Fact(content, (rgb.shape[1], rgb.shape[2]), (colour, constant, dark and not constant))


def _key(photos: Photos) -> str:
    digest = hashlib.sha256(f"{PIL.__version__} {photos.window}".encode())
    for file in photos.files:
        try:
            status = os.stat(file)
            stamp = f"\0{status.st_size} {status.st_mtime_ns}\0"
        except OSError:  # scanning will say what is wrong with it
            stamp = "\0-\0"
        digest.update(os.fsencode(os.path.abspath(file)) + stamp.encode())
    if photos.spans is not None:
        digest.update(photos.spans.numpy().tobytes())
    return digest.hexdigest()[:32]


def _blank(count: int) -> _Facts:
    return _Facts(np.zeros(count, np.int64), np.zeros((count, 2), np.int64), np.zeros((count, 3), np.bool_))


def _write(facts: _Facts, folder: Path) -> None:
    np.savez(folder / "facts.npz", content=facts.content, sides=facts.sides, traits=facts.traits)


def _cached(entry: Path, count: int) -> _Facts:
    facts = _blank(count)
    if not entry.exists():
        return facts
    try:
        with (entry / "facts.npz").open("rb") as file, np.load(file) as stored:
            for field, array in facts._asdict().items():
                if stored[field].shape != array.shape:
                    raise ValueError(f"{field} has shape {stored[field].shape}, not {array.shape}")
                array[:] = stored[field]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("cache entry %s is damaged (%s): looking at all images again", entry, error)
        return _blank(count)
    return facts
