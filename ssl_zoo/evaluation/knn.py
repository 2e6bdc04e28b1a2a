"""The weighted k-nearest-neighbour classifier, and accuracies from class scores."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ssl_zoo.data.datasets import Split
from ssl_zoo.draws import sample
from ssl_zoo.evaluation.search import search

Folds = Sequence[tuple[Tensor, Tensor]]  # (fit index, validation index), int64, into the labelled bank

DEFAULT_K = 20
_CHOICE_BANK, _CHOICE_QUERIES = 100_000, 10_000


def weighted_knn(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    *,
    k: int,
    temperature: float = 0.07,
    num_classes: int,
) -> Tensor:
    """Class scores [M, num_classes] float64 of `test_x` [M, D] by a bank `train_x` [N, D], `train_y` [N].

    The k nearest by cosine similarity each add exp(similarity / temperature) to their class; a class
    without a neighbour scores 0. Formula: Wu et al. 2018, as in eval_knn.py of facebookresearch/dino.
    Raises ValueError for k outside 1..N, a label outside 0..num_classes-1, a temperature below 0.002.
    """
    votes = knn_scores(train_x, train_y, test_x, ks=[k], temperature=temperature, num_classes=num_classes)
    return next(votes)[1]


def knn_scores(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    *,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
) -> Iterator[tuple[int, Tensor]]:
    """`weighted_knn` for each k of `ks`, ascending, from one search: pairs (k, scores [M, num_classes])."""
    if temperature < 0.002:  # exp(1 / 0.002) is close to the largest float64
        raise ValueError(f"temperature={temperature}; give 0.002 or more, or k=1 for the nearest alone")
    check_labels("train", train_y, num_classes)
    ks = sorted(set(ks))
    similarity, index = search(test_x, train_x, ks[-1], cosine=True)
    votes, labels = (similarity.double() / temperature).exp(), train_y[index]
    scores = votes.new_zeros(len(test_x), num_classes)
    for start, stop in zip([0, *ks[:-1]], ks, strict=True):
        scores = scores.scatter_add(1, labels[:, start:stop], votes[:, start:stop])
        yield stop, scores


def choose_k(
    x: Tensor, y: Tensor, folds: Folds, *, ks: Sequence[int], temperature: float, num_classes: int
) -> int:
    """The k of `ks` with the best accuracy over `folds` of `x` [N, D], `y` [N]; of equal ones the smallest.

    A fold is judged by up to 100,000 of its images to fit and 10,000 to validate. Without folds that have so
    many images: the largest of `ks` up to 20, else the smallest.
    """
    folds = [(sample(fit, _CHOICE_BANK), sample(validation, _CHOICE_QUERIES)) for fit, validation in folds]
    smallest = min((len(fit) for fit, _ in folds), default=0)
    hits = {k: 0.0 for k in sorted(ks) if k <= smallest}
    if not hits:
        return max((k for k in ks if k <= DEFAULT_K), default=min(ks))
    for fit, validation in folds:
        votes = knn_scores(
            x[fit], y[fit], x[validation], ks=list(hits), temperature=temperature, num_classes=num_classes
        )
        for k, scores in votes:
            hits[k] += top_accuracy(scores, y[validation], 1) * len(validation)
    return max(hits, key=lambda k: hits[k])


def check_labelled(train: Split, test: Split) -> tuple[Tensor, Tensor]:
    """The labels [N] and [M] of two splits that something is trained and scored on.

    Raises ValueError for missing labels, labels of one class, and splits of different classes.
    """
    if train.labels is None or test.labels is None:
        raise ValueError("training on labels needs labels in train and test; give splits that have them")
    if train.classes != test.classes:
        raise ValueError(f"train has classes {train.classes}, test {test.classes}; give both the same")
    check_labels("train", train.labels, len(train.classes))
    check_labels("test", test.labels, len(train.classes))
    if int(train.labels.min()) == int(train.labels.max()):
        raise ValueError(f"all {len(train)} labels of train are one class; label images of another one")
    return train.labels, test.labels


def check_labels(name: str, labels: Tensor, num_classes: int) -> None:
    """Raise ValueError unless `labels` are integers in 0..num_classes-1; the count is never guessed."""
    if labels.is_floating_point():
        raise ValueError(f"{name} labels are {labels.dtype}; give class numbers as int64")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} of {len(labels)} {name} labels are outside 0..{num_classes - 1}, as {wrong[0]}; "
            "count every class in num_classes and leave out images without a label"
        )


def top_accuracy(scores: Tensor, labels: Tensor, top: int, *, floor: float = 0.0) -> float:
    """Share of rows of `scores` [M, C] whose label [M] is among the `top` best classes; ties: lower class.

    A class that does not score above `floor` is no hit, so that votes of k < `top` neighbours do not count
    classes without a vote (facebookresearch/dino issue 89).
    """
    own = scores.gather(1, labels.unsqueeze(1))
    earlier = torch.arange(scores.shape[1], device=scores.device) < labels.unsqueeze(1)
    rank = ((scores > own) | ((scores == own) & earlier)).sum(1)
    return ((rank < top) & (own.squeeze(1) > floor)).double().mean().item()
