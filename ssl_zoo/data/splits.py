"""Which images play which part: trained on, chosen on, or read once at the end."""

import hashlib
import warnings
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_zoo.data import cache
from ssl_zoo.data.datasets import Dataset, Split, copies
from ssl_zoo.data.holdout import tied, together

SELECTION_SHARE = 0.1
SELECTION_FROM = 2000  # labelled training images; with fewer, 10 % would choose by chance
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Roles:
    """The parts of a data set: `pretrain` (no labels used), `train` (labelled bank), `test` (read once).

    `folds` are pairs of indices into `train`, [F] to fit and [V] to validate: all that is tuned is chosen
    there. They are empty without labels. `split` says how the test was told from the rest, `rule` how the
    folds were made.
    """

    pretrain: Split
    train: Split
    test: Split
    folds: list[tuple[Tensor, Tensor]]
    split: str
    rule: str

    @property
    def fingerprint(self) -> str:
        """A sha256 of all that is trained on, chosen on and tested on, labels included."""
        return _fingerprint(self.pretrain, self.train, self.test)

    def summary(self) -> dict[str, Any]:
        """What `splits.json` records: the rules, images and fingerprints of the parts, the test's names."""
        parts = {"pretrain": self.pretrain, "train": self.train, "test": self.test}
        return {
            "split": self.split,
            "rule": self.rule,
            "evaluation": _fingerprint(self.train, self.test),
            **{
                name: {
                    "images": len(part),
                    "labelled": part.labels is not None,
                    "fingerprint": part.fingerprint,
                }
                for name, part in parts.items()
            },
            **({"test_names": list(self.test.names)} if self.test.names is not None else {}),
            "folds": [
                {"fit": self._named(fit), "validate": self._named(validate)} for fit, validate in self.folds
            ],
        }

    def _named(self, index: Tensor) -> dict[str, Any]:
        return {"images": len(index), "fingerprint": self.train.fingerprint_of(index)}


def _fingerprint(*parts: Split) -> str:
    digest = hashlib.sha256()
    for part in parts:
        labels = b"" if part.labels is None else part.labels.numpy().tobytes()
        digest.update(f"{part.fingerprint} {part.classes}".encode() + labels)
    return digest.hexdigest()


def roles(dataset: Dataset) -> Roles:
    """Give each image of a data set its part; depends on the images' content alone, not on their order.

    From 2,000 labelled images on, 10 % are selected by hash and left out of pretraining; below, stratified
    5-fold cross-validation. Exact duplicates and images of one group stay on one side. Raises ValueError if
    no class has two distinct images.
    """
    pretrain, train, test = (dataset.split(name) for name in ("pretrain", "train", "test"))
    if train.labels is None:
        return Roles(
            pretrain, train, test, [], dataset.rule, "train has no labels, so nothing is chosen on it"
        )
    content = train.content_hash()
    selected = _selected(content, train.groups)
    if not selected.any():
        folds = _stratified(content, train.groups, train.labels)
        rule = f"{len(folds)}-fold stratified cross-validation on train; pretrain keeps all of its images"
        return Roles(pretrain, train, test, folds, dataset.rule, rule)
    fit, validate = (part.nonzero().flatten() for part in (~selected, selected))
    share = len(validate) / len(train)
    rule = f"selection: {share:.0%} of train by the hash of each image's pixels"
    if pretrain.fingerprint == train.fingerprint:
        pretrain = train.take(fit)
        rule += ", excluded from pretrain"
    elif bool((held := torch.isin(pretrain.content_hash(), content[validate])).any()):
        pretrain = pretrain.take((~held).nonzero().flatten())
        rule += ", excluded from pretrain"
    return Roles(pretrain, train, test, [(fit, validate)], dataset.rule, rule)


def evaluated_on(dataset: Dataset, other: Dataset) -> Dataset:
    """All images to pretrain on of `dataset`, with train and test of `other`.

    Test images that are, pixel by pixel, among those to pretrain on are counted in the notes.
    """
    pretrain, train, test = dataset.split("pretrain"), other.split("train"), other.split("test")
    notes = [f"pretraining data: {note}" for note in dataset.notes if note not in other.notes]
    if seen := copies(pretrain, test):
        notes.append(f"{seen:,} of {len(test):,} test images are also pretrained on, without their labels")
    splits = {"pretrain": pretrain, "train": train, "test": test}
    return replace(other, splits=splits, notes=(*other.notes, *notes), flip=dataset.flip)


def _selected(content: Tensor, groups: Tensor | None) -> Tensor:
    """Mark about 10 % of the images, [N] bool: a group is taken only if that brings the share nearer.

    None of few images, or where all groups are too large.
    """
    selected = torch.zeros(len(content), dtype=torch.bool)
    if len(content) < SELECTION_FROM:
        return selected
    wanted, taken = round(SELECTION_SHARE * len(content)), 0
    for images in together(content, groups):
        if abs(wanted - taken - len(images)) < abs(wanted - taken):
            selected[images] = True
            taken += len(images)
    return selected


def _stratified(content: Tensor, groups: Tensor | None, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    sets = tied(content, groups)
    count = min(FOLDS, int(labels.bincount().max()), int(sets.max()) + 1)
    if count < 2:
        raise ValueError(
            f"train has {len(labels)} labelled images and no class with two distinct ones, so nothing can be "
            "chosen on it; label more images, or leave all labels out"
        )

    def read(folder: Path) -> NDArray[np.int64]:
        fold: NDArray[np.int64] = np.load(folder / "fold.npy")
        if fold.shape != labels.shape:
            raise ValueError(f"fold.npy holds {fold.shape} folds of {len(labels)} images")
        return fold

    def write(folder: Path) -> None:
        np.save(folder / "fold.npy", _fold_of_each(labels, sets, count))

    digest = hashlib.sha256(f"{version('scikit-learn')} {count}".encode())
    for part in (labels.numpy(), sets):
        digest.update(part.tobytes())
    try:
        kept = cache.entry("folds", digest.hexdigest()[:32], read, write)
    except OSError:  # no cache that can be written, which small data does without
        kept = _fold_of_each(labels, sets, count)
    fold = torch.from_numpy(kept)
    return [((fold != k).nonzero().flatten(), (fold == k).nonzero().flatten()) for k in range(count)]


def _fold_of_each(labels: Tensor, sets: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The fold [N] that each image is validated in; slow, as it looks at one set after the other."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        # a rare class is missing in some folds: no reason to alarm
        warnings.filterwarnings("ignore", "The least populated class")
        for number, (_, validate) in enumerate(StratifiedGroupKFold(count).split(labels, labels, sets)):
            fold[validate] = number
    return fold
