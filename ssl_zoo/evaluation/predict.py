"""What frozen features say of test images, before anybody looks at their labels."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ssl_zoo.evaluation.knn import Folds, check_labels, choose_k, knn_scores
from ssl_zoo.evaluation.linear import LinearProbe, choose_c, linear_probe

KNN_K = (1, 5, 10, 20, 100, 200)
KNN_TEMPERATURE = 0.07


class Predictions(NamedTuple):
    """Classes [M] int64 told by k-NN for every k, and what the chosen k and C give.

    `votes` [M, num_classes] are the k-NN's at `k`, `probe` is the linear probe at `c`.
    """

    by_k: dict[int, Tensor]
    k: int
    votes: Tensor
    c: float
    probe: LinearProbe

    @property
    def knn(self) -> Tensor:
        return self.by_k[self.k]

    @property
    def linear(self) -> Tensor:
        return self.probe.scores.argmax(1)


def predict(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    *,
    folds: Folds,
    num_classes: int,
    knn_k: Sequence[int] = KNN_K,
    knn_temperature: float = KNN_TEMPERATURE,
) -> Predictions:
    """Classify `test_x` [M, D] by a bank `train_x` [N, D] with labels `train_y`; no test label is given.

    k and C are chosen on `folds`, pairs of (fit, validation) indices into the bank; without folds they are
    20 and 0.1. Of `knn_k` those up to N are used.
    Raises ValueError for labels outside 0..num_classes-1 or of one class, a bank smaller than every k.
    """
    check_labels("train", train_y, num_classes)
    ks = [k for k in knn_k if k <= len(train_x)]
    if not ks:
        raise ValueError(f"knn_k={list(knn_k)} on a bank of {len(train_x)} images; give a k up to that")
    best_k = choose_k(train_x, train_y, folds, ks=ks, temperature=knn_temperature, num_classes=num_classes)
    best_c = choose_c(train_x, train_y, folds, num_classes=num_classes)
    by_k = {}
    for k, scores in knn_scores(
        train_x, train_y, test_x, ks=ks, temperature=knn_temperature, num_classes=num_classes
    ):
        by_k[k] = scores.argmax(1)
        if k == best_k:
            votes = scores
    probe = linear_probe(train_x, train_y, test_x, c=best_c, num_classes=num_classes)
    return Predictions(by_k, best_k, votes, best_c, probe)
