"""From an encoder to named numbers: k-NN, linear probe, retrieval and signs of collapse."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.data.splits import roles
from ssl_zoo.evaluation.collapse import collapse_verdict, feature_std, rankme
from ssl_zoo.evaluation.encoder import Encoder, load_encoder, save_encoder
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import Folds, check_labels, choose_k, knn_scores, top_accuracy, weighted_knn
from ssl_zoo.evaluation.linear import balanced_accuracy, choose_c, linear_probe
from ssl_zoo.evaluation.retrieval import map_at_r
from ssl_zoo.evaluation.search import check_features, search
from ssl_zoo.evaluation.spread import uniformity

__all__ = [
    "Encoder",
    "collapse_verdict",
    "evaluate",
    "extract",
    "load_encoder",
    "save_encoder",
    "score",
    "search",
    "weighted_knn",
]

_LABEL_METRICS = (
    "knn_top1",
    "knn_top5",
    "knn_by_k",
    "knn_k",
    "knn_temperature",
    "linear_top1",
    "linear_top5",
    "linear_balanced_accuracy",
    "linear_c",
    "linear_converged",
    "map_at_r",
)


def evaluate(encoder: nn.Module, train: Split, test: Split, *, device: str = "auto") -> dict[str, float]:
    """The quality of a frozen encoder (or backbone: images [B, 3, H, W] -> features [B, D]) as named numbers.

    `train` is the labelled bank, `test` is read once: k and C are chosen on parts of `train`. Accuracies
    are shares in [0, 1]; without labels only `rankme`, `feature_std` and `uniformity` are given. An
    `Encoder` resizes the images, any other module takes them as they are. The module is moved to `device`
    ("auto": the GPU if there is one).
    Raises ValueError for splits of different classes, labels of one class, or in one split only.
    """
    if train.classes != test.classes:
        raise ValueError(f"train has classes {train.classes}, test {test.classes}; give both the same")
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    encoder = encoder.to(place)
    train_x, test_x = (
        encoder.embed(split.images)
        if isinstance(encoder, Encoder)
        else extract(encoder, split.images, image_size=None, device=place)
        for split in (train, test)
    )
    parts = Dataset("", {"pretrain": train, "train": train, "test": test}, notes=(), flip=False)
    result = score(
        train_x,
        train.labels,
        test_x,
        test.labels,
        folds=roles(parts).folds,
        num_classes=len(train.classes),
    )
    return {name: value for name, value in result.items() if isinstance(value, float)}


def score(
    train_x: Tensor,
    train_y: Tensor | None,
    test_x: Tensor,
    test_y: Tensor | None,
    *,
    folds: Folds,
    num_classes: int,
    knn_k: Sequence[int] = (1, 5, 10, 20, 100, 200),
    knn_temperature: float = 0.07,
) -> dict[str, Any]:
    """Every metric of features `train_x` [N, D] (the bank) and `test_x` [M, D] with labels int64 or None.

    k and C are chosen on `folds`, pairs of (fit, validation) indices into the bank; without folds they are
    20 and 0.1. Of `knn_k` those up to N are used. Without labels the label metrics are None, as is map_at_r
    where no two test images share a class.
    Raises ValueError for labels on one side only, labels outside 0..num_classes-1, a bank of one class or
    smaller than every k, FloatingPointError for features that are not finite.
    """
    check_features(train_x, test_x)
    result: dict[str, Any] = dict.fromkeys(_LABEL_METRICS)
    result |= {"rankme": rankme(train_x), "feature_std": feature_std(train_x)}
    result["uniformity"] = uniformity(test_x) if len(test_x) > 1 else None
    if train_y is None and test_y is None:
        return result
    if train_y is None or test_y is None:
        raise ValueError("labels on one side only; give labels for train and test, or for neither")
    check_labels("train", train_y, num_classes)
    check_labels("test", test_y, num_classes)
    ks = [k for k in knn_k if k <= len(train_x)]
    if not ks:
        raise ValueError(f"knn_k={list(knn_k)} on a bank of {len(train_x)} images; give a k up to that")

    best_k = choose_k(train_x, train_y, folds, ks=ks, temperature=knn_temperature, num_classes=num_classes)
    best_c = choose_c(train_x, train_y, folds, num_classes=num_classes)

    # all is chosen: only from here on are test labels looked at
    by_k: dict[str, float] = {}
    for k, votes in knn_scores(
        train_x, train_y, test_x, ks=ks, temperature=knn_temperature, num_classes=num_classes
    ):
        by_k[str(k)] = top_accuracy(votes, test_y, 1)
        if k == best_k:
            result["knn_top5"] = top_accuracy(votes, test_y, 5)
    probe = linear_probe(train_x, train_y, test_x, c=best_c, num_classes=num_classes)
    return result | {
        "knn_top1": by_k[str(best_k)],
        "knn_by_k": by_k,
        "knn_k": best_k,
        "knn_temperature": knn_temperature,
        "linear_top1": top_accuracy(probe.scores, test_y, 1, floor=-torch.inf),
        "linear_top5": top_accuracy(probe.scores, test_y, 5, floor=-torch.inf),
        "linear_balanced_accuracy": balanced_accuracy(probe.scores, test_y),
        "linear_c": best_c,
        "linear_converged": probe.converged,
        "map_at_r": map_at_r(test_x, test_y) if int(test_y.bincount().max()) > 1 else None,
    }
