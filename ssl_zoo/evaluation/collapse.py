"""Collapse: how much of the feature space is used, the verdict and the cause drawn from it, and an alarm."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ssl_zoo import nets
from ssl_zoo.draws import sample

Verdict = Literal["healthy", "dimensional", "complete", "diverged", "undecided"]
Cause = Literal["uniform", "one-dimension"]
Sign = Literal["complete", "constant"] | Cause

_COMPLETE_STD = 0.01
_DIMENSIONAL_SHARE = 0.25
_DECIDED_STEPS = 100
_SPECTRUM_FEATURES = 10_000
_STD_FEATURES = 50_000
_FITTED_RANKS = (6, 100)
_FEWEST_RANKS = 10
_ROUNDING = 1e-10  # of the largest eigenvalue; what float32 features have below is noise
_UNIFORM = 0.02  # nats
_ONE_DIMENSION = 0.1  # of ln K
_PROTOTYPES = {"teacher_entropy", "kl", "batch_entropy", "uniform_entropy"}
_SAME = 0.02  # nats
_PATIENCE, _LONG_PATIENCE = 3, 10  # logged records

_WORDS = {
    "complete": "all images give nearly one vector. Lower optim.lr, or raise the momentum of the target "
    "network, which must be a copy and not the trained network itself",
    "dimensional": "the features fill under a quarter of the untrained backbone's dimensions. Lower optim.lr "
    "or optim.weight_decay, or train longer",
    "diverged": "loss or features are no longer finite. Lower optim.lr, or set optim.clip",
    "uniform": "the teacher gives every prototype the same share, so nothing is left to learn: sharpening is "
    "missing. Lower the teacher's temperature, well below the student's, or use fewer prototypes",
    "constant": "the teacher gives all images the same targets, which follow the student. Check that it is a "
    "copy of the student and not the student itself, center and sharpen its outputs, and raise its momentum",
    "one-dimension": "the teacher gives every image to the same few prototypes: centering is missing. Center "
    "the teacher's outputs, by their mean with a momentum of 0.9 or by Sinkhorn-Knopp",
}


def feature_std(x: Tensor) -> float:
    """Mean deviation of L2-normalised features `x` [N, D], times sqrt(D): 0 if constant, 1 if isotropic.

    `nets.feature_std` in double precision; of more than 50,000 features a fixed random subset.
    """
    return nets.feature_std(sample(x, _STD_FEATURES).double()).item()


def rankme(x: Tensor) -> float:
    """Effective rank of features `x` [N, D], 1..min(N, D): exp of the entropy of singular values' shares.

    From Garrido et al. 2023; of more than 10,000 features a fixed random subset. Zero features have rank 1.
    """
    x = sample(x, _SPECTRUM_FEATURES).double()
    # by eigenvalues of the smaller Gram matrix: twenty times faster than an SVD, and exact enough in float64
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())


def alpha_req(x: Tensor) -> float | None:
    """Exponent a of the decay rank^-a of the eigenvalues of the covariance of features `x` [N, D].

    From Agrawal et al. 2022 (alpha-ReQ): the slope of a line through log eigenvalue against log rank, over
    the ranks 6 to 100 that exist, weighted by 1 / rank as in Stringer et al. 2019. The paper finds values
    near 1 best; 0 is a flat spectrum, a large one is spent on a few directions. Of more than 10,000 features
    a fixed random subset. None where fewer than ten of these ranks exist or hold more than rounding.
    """
    x = sample(x, _SPECTRUM_FEATURES).double()
    x = x - x.mean(0)
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    values = torch.linalg.eigvalsh(gram).flip(0).numpy()
    rank = np.arange(1, len(values) + 1)
    first, last = _FITTED_RANKS
    kept = (rank >= first) & (rank <= last) & (values > _ROUNDING * values[0])
    if kept.sum() < _FEWEST_RANKS:
        return None
    # polyfit squares its weights
    slope = np.polyfit(np.log(rank[kept]), np.log(values[kept]), 1, w=rank[kept] ** -0.5)[0]
    return float(-slope)


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


def collapse_cause(metrics: Mapping[str, float]) -> Cause | None:
    """How a method's prototypes collapsed, from the metrics that it logs; None: not, or it has none.

    A method has prototypes if it logs, in nats, `teacher_entropy`, the mean entropy h of its targets, `kl`
    from them to the predictions, `batch_entropy`, the entropy of the mean target, and `uniform_entropy`,
    ln K.
    `uniform`: h within 0.02 of ln K and kl below 0.02. `one-dimension`: h and batch_entropy both below a
    tenth of ln K; a low h alone is a healthy, sharp teacher.
    """
    if not metrics.keys() >= _PROTOTYPES:
        return None
    entropy, uniform, kl = metrics["teacher_entropy"], metrics["uniform_entropy"], metrics["kl"]
    if uniform - entropy < _UNIFORM and kl < _UNIFORM:
        return "uniform"
    if max(entropy, metrics["batch_entropy"]) < _ONE_DIMENSION * uniform:
        return "one-dimension"
    return None


def explain_collapse(sign: str) -> str:
    """What a verdict or cause means and what to do about it; empty for a healthy or undecided run."""
    return _WORDS.get(sign, "")


class Alarm:
    """Notices, once, that a collapse sets in, from the logged records of a running training.

    `sign` is what three records in a row show: a cause, or "complete" where a metric named `*_std`, the
    deviation of a network's outputs, is below 0.01. It is "constant" after ten records in a row with any
    sign, where it is enough that targets which are not flat are the same for all images: batch_entropy within
    0.02 of teacher_entropy.
    """

    def __init__(self) -> None:
        self.sign: Sign | None = None
        self._seen: list[Sign | None] = []

    def see(self, record: Mapping[str, float]) -> bool:
        """Whether a collapse set in with this record."""
        now = _sign(record)
        self._seen = [*self._seen, now][-_LONG_PATIENCE:]
        if self.sign is None and now != "constant" and self._seen[-_PATIENCE:] == [now] * _PATIENCE:
            self.sign = now
        elif self.sign is None and len(self._seen) == _LONG_PATIENCE and None not in self._seen:
            self.sign = "constant"
        else:
            return False
        return self.sign is not None


def _sign(record: Mapping[str, float]) -> Sign | None:
    if cause := collapse_cause(record):
        return cause
    if min((value for name, value in record.items() if name.endswith("_std")), default=1.0) < _COMPLETE_STD:
        return "complete"
    if not record.keys() >= _PROTOTYPES or record["uniform_entropy"] - record["teacher_entropy"] < _UNIFORM:
        return None  # no prototypes, or targets that are flat, for which kl decides
    return "constant" if record["batch_entropy"] - record["teacher_entropy"] < _SAME else None
