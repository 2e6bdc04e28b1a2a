"""The linear probe: logistic regression on standardised features."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.draws import permutation
from ssl_zoo.evaluation.knn import Folds, top_accuracy

GRID = (0.01, 0.1, 1.0)
DEFAULT_C = 0.1
_CHOICE_IMAGES = 10_000
_MAX_ITERATIONS = 500
_MOST_BYTES = 2**30

logger = logging.getLogger(__name__)


class LinearProbe(NamedTuple):
    """Class scores [M, num_classes], -inf for a class not trained on, and whether the fit converged."""

    scores: Tensor
    converged: bool


def linear_probe(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, *, c: float, num_classes: int
) -> LinearProbe:
    """Fit `train_x` [N, D] with labels `train_y` [N] and score `test_x` [M, D].

    scikit-learn's LogisticRegression (lbfgs, L2 of inverse strength `c`) on features standardised by the
    mean and deviation of `train_x`; it sees a fixed random subset where these exceed 1 GiB.
    Raises ValueError if `train_y` holds one class only.
    """
    if len(train_x) > (most := max(1, _MOST_BYTES // (4 * train_x.shape[1]))):
        seen = permutation(len(train_x), 0)[:most]
        train_x, train_y = train_x[seen], train_y[seen]
    return next(_path(train_x, train_y, test_x, [c], num_classes))


def choose_c(x: Tensor, y: Tensor, folds: Folds, *, num_classes: int) -> float:
    """The C of `GRID` with the best accuracy over `folds` of `x` [N, D], `y` [N]; `DEFAULT_C` without folds.

    Each fit sees at most 10,000 images; of equal C the smallest. C holds for the larger final fit as it is:
    it is the variance of the prior on the weights, which does not depend on the number of images.
    """
    if not folds:
        return DEFAULT_C
    hits = dict.fromkeys(GRID, 0.0)
    for fit, validation in folds:
        fit = fit[permutation(len(fit), 0)[:_CHOICE_IMAGES]]
        path = _path(x[fit], y[fit], x[validation], GRID, num_classes)
        for c, probe in zip(GRID, path, strict=True):
            hits[c] += top_accuracy(probe.scores, y[validation], 1, floor=-torch.inf) * len(validation)
    return max(GRID, key=lambda c: hits[c])


def balanced_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Mean recall of the best-scored class over the classes that occur in `labels` (scikit-learn)."""
    from sklearn.metrics import recall_score

    truth, predicted = labels.numpy(), scores.argmax(1).numpy()
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro"))


def _path(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, grid: Sequence[float], num_classes: int
) -> Iterator[LinearProbe]:
    """One probe for each C of an ascending grid, each fit started from the one before."""
    # not above: importing scikit-learn takes seconds, and a bench is planned without it
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if int(train_y.min()) == int(train_y.max()):
        raise ValueError(
            f"a probe needs two classes, all {len(train_y)} labels are {int(train_y[0])}; label other images"
        )
    scaler = StandardScaler().fit(train_x.float().numpy())
    train, test = (scaler.transform(x.float().numpy()) for x in (train_x, test_x))
    model = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
    for c in grid:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.set_params(C=c).fit(train, train_y.numpy())
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        if not converged:
            logger.info("the linear probe with C=%g did not converge in %d steps", c, _MAX_ITERATIONS)
        decision = torch.from_numpy(model.decision_function(test))
        if decision.ndim == 1:  # two classes: one column, for the second
            decision = torch.stack([-decision, decision], dim=1)
        scores = decision.new_full((len(test), num_classes), -torch.inf)
        scores[:, torch.from_numpy(model.classes_)] = decision
        yield LinearProbe(scores, converged)
