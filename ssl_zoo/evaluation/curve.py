"""Scores along a training: cheap, on images that are not the test, and without a trace in the training."""

import torch
from torch import nn

from ssl_zoo.data.datasets import Split
from ssl_zoo.data.splits import Roles
from ssl_zoo.draws import sample
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import DEFAULT_K, check_labelled, top_accuracy, weighted_knn
from ssl_zoo.evaluation.linear import ridge_top1
from ssl_zoo.evaluation.search import check_features

_BANK, _QUERIES = 5_000, 2_000


def curve_splits(parts: Roles) -> tuple[Split, Split] | None:
    """A labelled bank of up to 5,000 images and up to 2,000 queries, the same on every call.

    They are fixed random subsets of the two sides of the first fold, so of what is to be chosen on; None
    without labels of two classes.
    """
    if not parts.folds:
        return None
    bank, queries = (
        parts.train.take(sample(index, most))
        for index, most in zip(parts.folds[0], (_BANK, _QUERIES), strict=True)
    )
    assert bank.labels is not None
    return (bank, queries) if len(set(bank.labels.tolist())) > 1 else None


def curve_scores(
    network: nn.Module, bank: Split, queries: Split, *, image_size: int, workers: int | None = None
) -> dict[str, float]:
    """`curve_knn_top1` (k = 20) and `curve_ridge_top1` of `queries` by the labelled `bank`.

    The network (images [B, 3, S, S] -> features [B, D]) runs where it lies, in eval mode and float32; its
    modes, its buffers and torch's random state are as before.
    Raises ValueError for missing labels or labels of one class, FloatingPointError for features that are not
    finite.
    """
    bank_y, queries_y = check_labelled(bank, queries)
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]):  # a loader of photos draws a seed for its workers
        bank_x, queries_x = (
            extract(network, split.images, image_size=image_size, device=device, workers=workers)
            for split in (bank, queries)
        )
    check_features(bank_x, queries_x)
    classes = len(bank.classes)
    votes = weighted_knn(bank_x, bank_y, queries_x, k=min(DEFAULT_K, len(bank)), num_classes=classes)
    return {
        "curve_knn_top1": top_accuracy(votes, queries_y, 1),
        "curve_ridge_top1": ridge_top1(bank_x, bank_y, queries_x, queries_y, classes),
    }
