"""Every score of an encoder, from one extraction of its features."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.data.splits import roles
from ssl_zoo.evaluation.clustering import MOST_IMAGES, cluster, mutual_information
from ssl_zoo.evaluation.collapse import alpha_req, feature_std, rankme
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import Folds, check_labels, top_accuracy
from ssl_zoo.evaluation.linear import auroc, balanced_accuracy, macro_f1
from ssl_zoo.evaluation.low_shot import accuracy_of_draws, low_shot
from ssl_zoo.evaluation.predict import KNN_K, KNN_TEMPERATURE, Predictions, predict
from ssl_zoo.evaluation.retrieval import map_at_r
from ssl_zoo.evaluation.search import check_features
from ssl_zoo.evaluation.spread import uniformity

_LABEL_METRICS = (
    "knn_top1",
    "knn_top5",
    "knn_by_k",
    "knn_k",
    "knn_temperature",
    "linear_top1",
    "linear_top5",
    "linear_balanced_accuracy",
    "linear_macro_f1",
    "linear_auroc",
    "linear_c",
    "linear_converged",
    "low_shot",
    "map_at_r",
    "cluster_ami",
    "cluster_nmi",
)


def evaluate(encoder: nn.Module, train: Split, test: Split, *, device: str = "auto") -> dict[str, float]:
    """The quality of a frozen encoder (or backbone: images [B, 3, H, W] -> features [B, D]) as named numbers.

    `train` is the labelled bank, `test` is read once: k and C are chosen on parts of `train`. Accuracies
    are shares in [0, 1]; without labels only `rankme`, `alpha_req`, `feature_std` and `uniformity` are given,
    and what cannot be told from these images is left out (see `score`). An
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
    result, _ = score(
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
    knn_k: Sequence[int] = KNN_K,
    knn_temperature: float = KNN_TEMPERATURE,
) -> tuple[dict[str, Any], Predictions | None]:
    """Every metric of features `train_x` [N, D] (the bank) and `test_x` [M, D] with labels int64 or None.

    Also what was predicted, by the k and C chosen on `folds` (see `predict`). Without labels the label
    metrics and the predictions are None. So is what the test images do not allow: map_at_r where no two share
    a class, linear_auroc where a class is missing, the clusters' where there are more classes than images;
    and a `low_shot` size where a class has too few labels. Images of a class that train lacks count as wrong.
    Raises ValueError for labels on one side only, labels outside 0..num_classes-1, a bank of one class or
    smaller than every k, FloatingPointError for features that are not finite.
    """
    check_features(train_x, test_x)
    result: dict[str, Any] = dict.fromkeys(_LABEL_METRICS)
    result |= {
        "rankme": rankme(train_x),
        "alpha_req": alpha_req(train_x),
        "feature_std": feature_std(train_x),
    }
    result["uniformity"] = uniformity(test_x) if len(test_x) > 1 else None
    if train_y is None and test_y is None:
        return result, None
    if train_y is None or test_y is None:
        raise ValueError("labels on one side only; give labels for train and test, or for neither")
    told = predict(
        train_x,
        train_y,
        test_x,
        folds=folds,
        num_classes=num_classes,
        knn_k=knn_k,
        knn_temperature=knn_temperature,
    )
    few = low_shot(train_x, train_y, test_x, c=told.c, num_classes=num_classes)
    clusters = cluster(test_x, num_classes) if min(len(test_x), MOST_IMAGES) >= num_classes else None

    # all is chosen and predicted: only from here on are test labels looked at
    check_labels("test", test_y, num_classes)
    by_k = {str(k): (classes == test_y).double().mean().item() for k, classes in told.by_k.items()}
    scores = told.probe.scores
    result |= {
        "knn_top1": by_k[str(told.k)],
        "knn_top5": top_accuracy(told.votes, test_y, 5),
        "knn_by_k": by_k,
        "knn_k": told.k,
        "knn_temperature": knn_temperature,
        "linear_top1": top_accuracy(scores, test_y, 1, floor=-torch.inf),
        "linear_top5": top_accuracy(scores, test_y, 5, floor=-torch.inf),
        "linear_balanced_accuracy": balanced_accuracy(scores, test_y),
        "linear_macro_f1": macro_f1(scores, test_y),
        "linear_auroc": auroc(scores, test_y),
        "linear_c": told.c,
        "linear_converged": told.probe.converged,
        "low_shot": {
            size: None if classes is None else accuracy_of_draws(classes, test_y)
            for size, classes in few.items()
        },
        "map_at_r": map_at_r(test_x, test_y) if int(test_y.bincount().max()) > 1 else None,
    }
    return result | ({} if clusters is None else mutual_information(clusters, test_y)), told
