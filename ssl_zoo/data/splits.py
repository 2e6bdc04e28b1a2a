"""Which images play which part: trained on, chosen on, or read once at the end."""

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ssl_zoo.data.datasets import Dataset, Split

SELECTION_SHARE = 0.1
SELECTION_FROM = 2000  # labelled training images; with fewer, 10 % would choose by chance
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Roles:
    """The parts of a data set: `pretrain` (no labels used), `train` (labelled bank), `test` (read once).

    `folds` are pairs of indices into `train`, [F] to fit and [V] to validate: all that is tuned is chosen
    there. They are empty without labels. `rule` says how they were made.
    """

    pretrain: Split
    train: Split
    test: Split
    folds: list[tuple[Tensor, Tensor]]
    rule: str

    @property
    def fingerprint(self) -> str:
        """A sha256 of all that is trained on, chosen on and tested on, labels included."""
        digest = hashlib.sha256()
        for part in (self.pretrain, self.train, self.test):
            labels = b"" if part.labels is None else part.labels.numpy().tobytes()
            digest.update(f"{part.fingerprint} {part.classes}".encode() + labels)
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        """What `splits.json` records: the rule, and images and fingerprint of each part."""
        parts = {"pretrain": self.pretrain, "train": self.train, "test": self.test}
        return {
            "rule": self.rule,
            **{
                name: {
                    "images": len(part),
                    "labelled": part.labels is not None,
                    "fingerprint": part.fingerprint,
                }
                for name, part in parts.items()
            },
            "folds": [
                {"fit": self._named(fit), "validate": self._named(validate)} for fit, validate in self.folds
            ],
        }

    def _named(self, index: Tensor) -> dict[str, Any]:
        return {"images": len(index), "fingerprint": self.train.fingerprint_of(index)}


def roles(dataset: Dataset) -> Roles:
    """Give each image of a data set its part; depends on the images' content alone, not on their order.

    From 2,000 labelled images on, 10 % are selected by hash and left out of pretraining; below, stratified
    5-fold cross-validation. Exact duplicates and images of one group stay on one side. Raises ValueError if
    no class has two distinct images.
    """
    pretrain, train, test = (dataset.split(name) for name in ("pretrain", "train", "test"))
    if train.labels is None:
        return Roles(pretrain, train, test, [], "train has no labels, so nothing is chosen on it")
    if len(train) < SELECTION_FROM:
        folds = _stratified(train, train.labels)
        rule = f"{len(folds)}-fold stratified cross-validation on train; pretrain keeps all of its images"
        return Roles(pretrain, train, test, folds, rule)
    content, together = train.content_hash(), inseparable(train)
    lowest = np.full(together.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, together, content.numpy())
    key = torch.from_numpy(lowest[together])
    selected = key <= key.kthvalue(round(SELECTION_SHARE * len(train))).values
    fit, validate = (part.nonzero().flatten() for part in (~selected, selected))
    rule = f"selection: {SELECTION_SHARE:.0%} of train by the hash of each image's pixels"
    if pretrain.fingerprint == train.fingerprint:
        pretrain = train.take(fit)
        rule += ", excluded from pretrain"
    elif bool((held := torch.isin(pretrain.content_hash(), content[validate])).any()):
        pretrain = pretrain.take((~held).nonzero().flatten())
        rule += ", excluded from pretrain"
    return Roles(pretrain, train, test, [(fit, validate)], rule)


def inseparable(split: Split) -> NDArray[np.int64]:
    """Number of the set that each image belongs to, [N]: exact duplicates and groups stay together."""
    content = np.unique(split.content_hash().numpy(), return_inverse=True)[1]
    if split.groups is None:
        return content
    group = np.unique(split.groups.numpy(), return_inverse=True)[1] + content.max() + 1
    nodes = group.max() + 1
    edges = coo_array((np.ones(len(split)), (content, group)), shape=(nodes, nodes))
    return connected_components(edges, directed=False)[1].astype(np.int64)[content]


def _stratified(train: Split, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    from sklearn.model_selection import StratifiedGroupKFold

    together = inseparable(train)
    count = min(FOLDS, int(labels.bincount().max()), len(np.unique(together)))
    if count < 2:
        raise ValueError(
            f"train has {len(train)} labelled images and no class with two distinct ones, so nothing can be "
            "chosen on it; label more images, or leave all labels out"
        )
    with warnings.catch_warnings():
        # a rare class is missing in some folds: no reason to alarm
        warnings.filterwarnings("ignore", "The least populated class")
        folds = StratifiedGroupKFold(count).split(labels, labels, together)
        return [(torch.from_numpy(fit), torch.from_numpy(validate)) for fit, validate in folds]
