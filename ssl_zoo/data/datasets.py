"""The data sets that have a name, and what a data set is: splits of images, some with labels."""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.data import cache, sources
from ssl_zoo.data.photos import Photos
from ssl_zoo.data.sources import Origin

_ORIGINS = (
    Origin(
        "cifar10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        mode="RGB",
        torchvision="CIFAR10",
        folder="cifar-10-batches-py",
    ),
    Origin(
        "fashion-mnist",
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        mode="L",
        torchvision="FashionMNIST",
        folder="FashionMNIST/raw",
    ),
)
_FILES = {origin.name: origin for origin in _ORIGINS}


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
    """A named set of splits; `notes` are facts for a reader of results, `flip` says if mirroring is safe."""

    name: str
    splits: Mapping[str, Split]
    notes: tuple[str, ...]
    flip: bool

    def split(self, name: str) -> Split:
        """Return the split "pretrain", "train" or "test"; raises ValueError for any other name."""
        if name not in self.splits:
            raise ValueError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def list_datasets() -> list[str]:
    """The names that `create_dataset` takes."""
    return sorted(["digits", *_FILES])


def create_dataset(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Load a data set from `data_dir`, else from `SSL_ZOO_DATA`, else by a download; `digits` needs no files.

    Images are decoded once and then mapped from the cache folder. Raises ValueError for an unknown name or a
    broken file, FileNotFoundError, naming the places, for missing ones, OSError for a cache it cannot write.
    """
    if name not in list_datasets():
        near = difflib.get_close_matches(name.lower(), list_datasets(), n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown dataset {name!r}{hint}; available are {', '.join(list_datasets())}")
    return _digits() if name == "digits" else _from_files(_FILES[name], data_dir)


def _from_files(origin: Origin, data_dir: str | Path | None) -> Dataset:
    splits: dict[str, Split] = {}
    notes: list[str] = []
    for split, source in sources.find(origin, data_dir).items():
        fingerprint = cache.fingerprint(source.files)
        decoded = cache.load(f"{origin.name}-{split}-{fingerprint[:16]}", source.decode)
        labels = None if decoded.labels is None else torch.from_numpy(decoded.labels)
        splits[split] = Split(torch.from_numpy(decoded.images), labels, decoded.classes, fingerprint)
        notes += decoded.notes
    train, test = splits["train"], splits["test"]
    if train.images.shape[1:] != test.images.shape[1:] or train.classes != test.classes:
        raise ValueError(
            f"{origin.name}: train has images {list(train.images.shape[1:])} of classes {train.classes}, "
            f"test {list(test.images.shape[1:])} of {test.classes}; give both one size and the same classes"
        )
    return Dataset(origin.name, {"pretrain": train, **splits}, tuple(dict.fromkeys(notes)), flip=True)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy((bunch.images[:, None] * 255 / 16).round().astype(np.uint8))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    content = hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    whole = Split(pixels, labels, tuple("0123456789"), content)
    order = whole.content_hash().argsort()
    is_test = torch.zeros(len(whole), dtype=torch.bool)
    for digit in range(10):
        members = order[labels[order] == digit]
        is_test[members[: round(0.2 * len(members))]] = True
    train, test = (whole.take(part.nonzero().flatten()) for part in (~is_test, is_test))
    note = "digits: the test part is ssl_zoo's own choice of 20 %, so scores compare only with its own runs"
    return Dataset("digits", {"pretrain": train, "train": train, "test": test}, (note,), flip=False)
