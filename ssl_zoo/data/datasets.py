"""Data sets: what they are, and the way from the name of one to its splits of images, some with labels."""

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_zoo.data import cache, sources
from ssl_zoo.data.decode import Window
from ssl_zoo.data.folders import list_folder
from ssl_zoo.data.holdout import held_out
from ssl_zoo.data.hub import list_hub
from ssl_zoo.data.labels import apply_labels
from ssl_zoo.data.listing import HELD_OUT, Listing, divide
from ssl_zoo.data.origins import ORIGINS, Origin
from ssl_zoo.data.parquet import list_parquet
from ssl_zoo.data.photos import Photos
from ssl_zoo.data.scan import scan

SMALL_IMAGE = 64  # pixels: images of one size up to here are decoded once, into the cache
_LISTS: dict[str, Callable[[str], Listing]] = {
    "folder": lambda path: list_folder(Path(path).expanduser()),
    "parquet": lambda path: list_parquet(Path(path).expanduser()),
    "hf": list_hub,
}


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, C, H, W] or photos decoded on demand, labels int64 [N] or None.

    `fingerprint`, a sha256, names the content; `names` tell the images apart, as paths below their source;
    images of one of the `groups` [N] int64 (a patient, a video) must not be told apart by any split.
    """

    images: Tensor | Photos
    labels: Tensor | None
    classes: tuple[str, ...]
    fingerprint: str
    names: tuple[str, ...] | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def grey(self) -> bool:
        """Whether no image has colour."""
        return self.images.shape[1] == 1 if isinstance(self.images, Tensor) else self.images.grey

    @property
    def largest_side(self) -> int:
        """The largest height or width of all images, in pixels."""
        images = self.images
        return int(images.sides.max()) if isinstance(images, Photos) else max(images.shape[2:])

    def take(self, index: Tensor) -> "Split":
        """Return a copy of the images at `index` [K] int64, in that order."""
        return Split(
            self.images[index],
            None if self.labels is None else self.labels[index],
            self.classes,
            self.fingerprint_of(index),
            None if self.names is None else tuple(self.names[i] for i in index.tolist()),
            None if self.groups is None else self.groups[index],
        )

    def fingerprint_of(self, index: Tensor) -> str:
        """The fingerprint that `take(index)` has."""
        return hashlib.sha256(self.fingerprint.encode() + index.numpy().tobytes()).hexdigest()

    def content_hash(self) -> Tensor:
        """Hash of each image's pixels, [N] int64: equal for exact duplicates, whatever their labels."""
        if isinstance(self.images, Photos):
            return self.images.content
        images = self.images.contiguous().numpy()
        digests = b"".join(hashlib.blake2b(image, digest_size=8).digest() for image in images)
        return torch.frombuffer(bytearray(digests), dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named set of splits; `notes` are facts for a reader of results, `flip` says if mirroring is safe.

    `rule` says how the test images were told from the others.
    """

    name: str
    splits: Mapping[str, Split]
    notes: tuple[str, ...]
    flip: bool
    rule: str = "the source's own train and test"

    def split(self, name: str) -> Split:
        """Return the split "pretrain", "train" or "test"; raises ValueError for any other name."""
        if name not in self.splits:
            raise ValueError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def list_datasets() -> list[str]:
    """What `create_dataset` takes: names, and prefixes with what follows them."""
    return [*sorted(["digits", *ORIGINS]), "folder:PATH", "parquet:PATH", "hf:NAME"]


def create_dataset(
    spec: str,
    data_dir: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    window: Window = "dtype",
    transductive: bool = False,
) -> Dataset:
    """Load a data set by name, or from `folder:PATH`, `parquet:PATH`, `hf:NAME` (see list_folder and others).

    Names are looked for in `data_dir`, else in `SSL_ZOO_DATA`, else downloaded; `digits` needs no files.
    `labels` is a CSV file (see apply_labels) or "none", which forgets all labels; `on_bad_image` and `window`
    are those of scan. Without a test part of its own, 20 % are held out (see held_out). "train" holds the
    labelled images outside the test, "pretrain" these, all others outside of it, and with `transductive` the
    test images, in this order; without labels both are the same. Images of one size up to 64 pixels are
    decoded once and mapped from the cache folder; others are Photos. Raises ValueError for an unknown name,
    for an option that a source cannot use and for a broken file, FileNotFoundError, naming the places, for
    missing ones, OSError for a cache it cannot write.
    """
    kind, _, rest = spec.partition(":")
    if kind in _LISTS and rest:
        found: Listing | Dataset = _LISTS[kind](rest)
    elif spec in ORIGINS:
        at = sources.find(ORIGINS[spec], data_dir)
        found = at if isinstance(at, Listing) else _from_sources(ORIGINS[spec], at)
    elif spec == "digits":
        found = _digits()
    else:
        raise _unknown(spec)
    if isinstance(found, Dataset):
        _refuse(spec, labels, on_bad_image, window)
        return _adapted(found, forget=labels == "none", transductive=transductive)
    if labels == "none":
        found = found._replace(labels=torch.full_like(found.labels, -1), classes=())
    elif labels is not None:
        found = apply_labels(found, Path(labels).expanduser())
    photos, good, notes = scan(
        found.files, found.spans, found.names, window=window, on_bad_image=on_bad_image
    )
    return _from_photos(spec, found.only(good), photos, notes, transductive=transductive)


def _unknown(spec: str) -> ValueError:
    near = difflib.get_close_matches(spec.lower(), list_datasets(), n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    if Path(spec).expanduser().exists():
        hint = f" (did you mean 'folder:{spec}'?)"
    return ValueError(f"unknown dataset {spec!r}{hint}; available are {', '.join(list_datasets())}")


def _refuse(spec: str, labels: str | Path | None, on_bad_image: str, window: Window) -> None:
    given = {"labels": labels or "none", "on_bad_image": on_bad_image, "window": window}
    usual = {"labels": "none", "on_bad_image": "error", "window": "dtype"}
    for option, value in given.items():
        if value != usual[option]:
            raise ValueError(
                f"{spec} cannot use {option}={value}: its images are no files; give {option}={usual[option]} "
                "or nothing"
            )


def _from_photos(
    name: str, listing: Listing, photos: Photos, notes: tuple[str, ...], *, transductive: bool
) -> Dataset:
    parts = divide(listing, photos.content)
    order = torch.cat([parts.train, parts.extra, parts.test])  # each part is then a slice of one tensor
    listing, photos = listing.only(order), photos[order]
    images, groups = _resident(photos), listing.group_ids()
    seen = torch.from_numpy(np.unique(listing.labels[: len(parts.train)].numpy()))
    labelled = bool(seen[0] >= 0)
    classes = tuple(listing.classes[label] for label in seen.tolist()) if labelled else ()

    def split(start: int, stop: int, labelled: bool) -> Split:
        labels = torch.searchsorted(seen, listing.labels[start:stop]) if labelled else None
        content = photos.content[start:stop].numpy().tobytes()
        told = b"" if labels is None else labels.numpy().tobytes() + "\0".join(classes).encode()
        return Split(
            images[start:stop] if isinstance(images, Tensor) else images[torch.arange(start, stop)],
            labels,
            classes if labelled else (),
            hashlib.sha256(content + told).hexdigest(),
            listing.names[start:stop],
            None if groups is None else groups[start:stop],
        )

    first, last = len(parts.train), len(order) - len(parts.test)
    test = split(last, len(order), labelled)
    pretrain = split(0, len(order) if transductive else last, labelled and first == last and not transductive)
    train = split(0, first, labelled) if labelled and pretrain.labels is None else pretrain
    leaked = int(torch.isin(photos.content[last:], photos.content[:last]).sum())
    told = (*listing.notes, *notes, *parts.notes, *_leaks(leaked, len(test), transductive))
    splits = {"pretrain": pretrain, "train": train, "test": test}
    return Dataset(name, splits, told, flip=True, rule=parts.rule)


def _resident(photos: Photos) -> Tensor | Photos:
    """Images of one small size as uint8 [N, C, H, W], decoded into the cache; others as they are."""
    height, width = photos.sides[0].tolist()
    if max(height, width) > SMALL_IMAGE or (photos.sides != photos.sides[0]).any():
        return photos
    channels = 1 if photos.grey else 3
    key = f"photos-{channels}-{hashlib.sha256(photos.content.numpy().tobytes()).hexdigest()[:16]}"

    def decode() -> Iterator[NDArray[np.uint8]]:
        return (photos.decode(position)[:channels].numpy() for position in range(len(photos)))

    return torch.from_numpy(cache.load_images(key, (len(photos), channels, height, width), decode))


def _leaks(leaked: int, size: int, transductive: bool) -> list[str]:
    if transductive:
        return [f"transductive: the {size:,} test images are also pretrained on, without their labels"]
    return [f"{leaked:,} of {size:,} test images also lie in training"] if leaked else []


def _from_sources(origin: Origin, found: Mapping[str, sources.Source]) -> Dataset:
    prints = {split: cache.fingerprint(source.files) for split, source in found.items()}
    train, test = (
        cache.load(f"{origin.name}-{split}-{prints[split][:16]}", found[split].decode)
        for split in sources.SPLITS
    )
    facts = [(part.images.shape[1:], part.classes, part.labels is None) for part in (train, test)]
    if facts[0] != facts[1]:
        told = ", test ".join(
            f"{list(shape)} of classes {() if bare else names}" for shape, names, bare in facts
        )
        raise ValueError(
            f"{origin.name}: train has images {told}; give both one size, the same classes and labels"
        )
    whole = _split(train, prints["train"])
    splits = {"pretrain": whole, "train": whole, "test": _split(test, prints["test"])}
    if train.labels is not None and (known := int((train.labels >= 0).sum())) < len(whole):
        part = cache.Decoded(train.images[:known], train.labels[:known], train.classes)
        splits["train"] = _split(part, whole.fingerprint_of(torch.arange(known)))
        splits["pretrain"] = replace(whole, labels=None, classes=())
    notes = tuple(dict.fromkeys((*train.notes, *test.notes)))
    return Dataset(origin.name, splits, notes, flip=origin.flip)


def _split(part: cache.Decoded, fingerprint: str) -> Split:
    labels = None if part.labels is None else torch.from_numpy(part.labels)
    return Split(torch.from_numpy(part.images), labels, part.classes, fingerprint)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy((bunch.images[:, None] * 255 / 16).round().astype(np.uint8))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    content = hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    whole = Split(pixels, labels, tuple("0123456789"), content)
    is_test = held_out(whole.content_hash(), labels)
    train, test = (whole.take(part.nonzero().flatten()) for part in (~is_test, is_test))
    note = "digits: the test part is ssl_zoo's own choice of 20 %, so scores compare only with its own runs"
    splits = {"pretrain": train, "train": train, "test": test}
    return Dataset("digits", splits, (note,), flip=False, rule=HELD_OUT.format(" per class"))


def _adapted(dataset: Dataset, *, forget: bool, transductive: bool) -> Dataset:
    pretrain, train, test = (dataset.split(name) for name in ("pretrain", "train", "test"))
    if forget:
        pretrain, test = (replace(split, labels=None, classes=()) for split in (pretrain, test))
        train = pretrain
    leaked = 0 if transductive else copies(pretrain, test)
    notes = (*dataset.notes, *_leaks(leaked, len(test), transductive))
    if transductive:
        images = torch.cat([split.images for split in (pretrain, test) if isinstance(split.images, Tensor)])
        both = hashlib.sha256((pretrain.fingerprint + test.fingerprint).encode()).hexdigest()
        pretrain = Split(images, None, (), both)
    return replace(dataset, splits={"pretrain": pretrain, "train": train, "test": test}, notes=notes)


def copies(pretrain: Split, test: Split) -> int:
    """The number of test images that are, pixel by pixel, also in `pretrain`."""

    def count() -> int:
        return int(torch.isin(test.content_hash(), pretrain.content_hash()).sum())

    # a second for 60,000 small images, and every cell of a bench asks
    key = f"copies-{pretrain.fingerprint[:16]}-{test.fingerprint[:16]}"
    return cache.remember(key, count) if len(pretrain) > 10_000 else count()
