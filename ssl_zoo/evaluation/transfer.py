"""Transfer: a frozen encoder on another data set than its own."""

from collections.abc import Sequence

from ssl_zoo.data.splits import Roles
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.knn import check_labelled, top_accuracy
from ssl_zoo.evaluation.predict import KNN_K, KNN_TEMPERATURE, predict
from ssl_zoo.evaluation.search import check_features


def evaluate_transfer(
    encoder: Encoder,
    parts: Roles,
    *,
    knn_k: Sequence[int] = KNN_K,
    knn_temperature: float = KNN_TEMPERATURE,
    workers: int | None = None,
) -> dict[str, float]:
    """`knn_top1` and `linear_top1` of an encoder, where it lies, on the train and test of another data set.

    k and C are chosen on the folds of its train, its pretraining images are not used; photos are decoded by
    `workers` processes.
    Raises ValueError for missing labels, labels of one class and as `predict`, FloatingPointError for
    features that are not finite.
    """
    train_y, test_y = check_labelled(parts.train, parts.test)
    train_x, test_x = (encoder.embed(part.images, workers=workers) for part in (parts.train, parts.test))
    check_features(train_x, test_x)
    told = predict(
        train_x,
        train_y,
        test_x,
        folds=parts.folds,
        num_classes=len(parts.train.classes),
        knn_k=knn_k,
        knn_temperature=knn_temperature,
    )
    return {
        "knn_top1": top_accuracy(told.votes, test_y, 1),
        "linear_top1": top_accuracy(told.probe.scores, test_y, 1, floor=-float("inf")),
    }
