"""Collapse: measures of how much of the feature space is used, and the verdict drawn from them."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_zoo.draws import permutation

Verdict = Literal["healthy", "dimensional", "complete", "diverged", "undecided"]

_COMPLETE_STD = 0.01
_DIMENSIONAL_SHARE = 0.25
_DECIDED_STEPS = 100
_RANKME_FEATURES = 10_000
_CHUNK = 2**16


def feature_std(x: Tensor) -> float:
    """Mean deviation of L2-normalised features `x` [N, D], times sqrt(D): 0 if constant, 1 if isotropic.

    From Chen & He 2021 (SimSiam), figure 2. Features with a common offset, as after a ReLU, lie below 1.
    """
    total, squares = (torch.zeros(x.shape[1], dtype=torch.float64) for _ in range(2))
    for part in torch.split(x.cpu(), _CHUNK):  # bounded memory: features may be mapped from a file
        unit = F.normalize(part.double())
        total, squares = total + unit.sum(0), squares + unit.square().sum(0)
    variance = (squares / len(x) - (total / len(x)).square()).clamp_min(0)
    return variance.sqrt().mean().item() * math.sqrt(x.shape[1])


def rankme(x: Tensor) -> float:
    """Effective rank of features `x` [N, D], 1..min(N, D): exp of the entropy of singular values' shares.

    From Garrido et al. 2023; of more than 10,000 features a fixed random subset. Zero features have rank 1.
    """
    x = x[permutation(len(x), 0)[:_RANKME_FEATURES]].double()
    # by eigenvalues of the smaller Gram matrix: twenty times faster than an SVD, and exact enough in float64
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())


def collapse_verdict(
    feature_std: float,
    rankme: float,
    *,
    random_rankme: float | None,
    steps: int,
    finite: bool,
) -> Verdict:
    """What `feature_std` and `rankme` say about a run of `steps` optimizer steps; the first that applies.

    `diverged`: loss or features stopped being finite. `complete`: feature_std under 0.01, all images give
    one vector. `dimensional`: rankme under a quarter of `random_rankme`, that of the untrained backbone on
    the same images. Rank alone is no quality and training may well lower it, for what it learns to ignore
    uses no dimension; but an architecture's untrained features show what it can spread over, and a healthy
    run keeps a good part of that. Without the comparison (None) that case cannot be told. `undecided`:
    fewer than 100 steps and none of the above.
    """
    if not finite:
        return "diverged"
    if feature_std < _COMPLETE_STD:
        return "complete"
    if random_rankme is not None and rankme < _DIMENSIONAL_SHARE * random_rankme:
        return "dimensional"
    return "healthy" if steps >= _DECIDED_STEPS else "undecided"
