"""Accuracy with few labels: the linear probe trained on small parts of the labels, drawn again and again."""

from collections.abc import Mapping

import torch
from scipy.stats import t
from torch import Tensor

from ssl_zoo.draws import permutation, sample
from ssl_zoo.evaluation.linear import fits, scaling

SIZES: Mapping[str, int | float] = {"1": 1, "5": 5, "10": 10, "1%": 0.01, "10%": 0.1}
DRAWS = 5
_MOST_IMAGES = 20_000
_STREAM = 1  # of the draws, so that they differ from the fixed subsets


def low_shot(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, *, c: float, num_classes: int
) -> dict[str, Tensor | None]:
    """The classes of `test_x` [M, D] as told with few of the labels `train_y` [N]: by size, [draws, M] int64.

    Sizes are labels a class or a share of the labels. Each is drawn five times; a draw depends on `train_y`
    alone, so every encoder gets the same. The classifier is logistic regression on frozen features, as in
    Assran et al. 2022 (logistic_eval.py of facebookresearch/msn): `linear_probe` with its `c`, since so few
    labels leave none to choose another, on features standardised by those of up to 20,000 training images,
    which takes no labels. None for a size of which `wanted` says that it cannot be drawn.
    """
    scaler = scaling(sample(train_x, _MOST_IMAGES))
    told: dict[str, Tensor | None] = {}
    for name, size in SIZES.items():
        counts = wanted(train_y, size)
        if counts is None:
            told[name] = None
            continue
        drawn = [draw(train_y, counts, number) for number in range(DRAWS)]
        probes = (next(fits(scaler, train_x[i], train_y[i], test_x, [c], num_classes)) for i in drawn)
        told[name] = torch.stack([probe.scores.argmax(1) for probe in probes])
    return told


def wanted(labels: Tensor, size: int | float) -> Tensor | None:
    """How many of `labels` [N] a draw takes of each class, [C]: `size`; a float is a share, at least one.

    None where a class that occurs has fewer, or above 20,000 in all: a fit then takes too long to repeat.
    """
    counts = labels.bincount()
    if isinstance(size, float):
        taken = torch.minimum((counts * size).round().long().clamp_min(1), counts)
    else:
        taken = (counts > 0) * size
    return taken if (taken <= counts).all() and taken.sum() <= _MOST_IMAGES else None


def draw(labels: Tensor, counts: Tensor, number: int) -> Tensor:
    """Indices of `counts` [C] random images of each class of `labels` [N]; another `number`, another draw."""
    order = permutation(len(labels), _STREAM, number)
    order = order[labels[order].argsort(stable=True)]  # class by class, at random within
    sizes = labels.bincount()
    place = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
    return order[place < counts[labels[order]]]


def accuracy_of_draws(told: Tensor, labels: Tensor) -> dict[str, float | int]:
    """Mean accuracy of predictions `told` [draws, M] and the half-width of its 95 % t interval over draws."""
    accuracies = (told == labels).double().mean(1)
    draws = len(accuracies)
    error = accuracies.std() / draws**0.5
    return {
        "mean": accuracies.mean().item(),
        "half_width": float(t.ppf(0.975, draws - 1) * error),
        "draws": draws,
    }
