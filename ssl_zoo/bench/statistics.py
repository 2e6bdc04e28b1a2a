"""Statistics of a comparison: over paired seeds Student's t, over test images Wilson or the bootstrap."""

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtr, stdtrit

SEEDS_FOR_CHANCE = 5
_RESAMPLES = 2_000  # settle a half width to about 2 % of itself
_DIGITS = 12  # scores are exact to about 15: equal differences have no spread, equal sums are one


class Interval(NamedTuple):
    """A mean and the half width of its interval, which is None for a single value."""

    mean: float
    half_width: float | None

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end; both the mean for a single value."""
        half_width = self.half_width or 0.0
        return self.mean - half_width, self.mean + half_width


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean with a two-sided t interval: half width = t((1 + confidence) / 2, n - 1) * s / sqrt(n).

    `s` is the sample standard deviation, so equal values have half width 0 and one value has none. Raises
    ValueError when there are no values, or one is not finite. Source: Student (1908).
    """
    if not values or not all(map(isfinite, values)):
        raise ValueError(
            f"mean_interval needs at least one value and finite ones, got {list(values)}; "
            "leave out what nobody measured"
        )
    if len(values) == 1:
        return Interval(float(values[0]), None)
    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    return Interval(fmean(values), quantile * _spread(values) / sqrt(len(values)))


def _spread(values: Sequence[float]) -> float:
    return round(stdev(values), _DIGITS)


def paired_differences(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """`first - second` for every seed that both have; a score that is not finite counts as not measured."""
    shared = sorted(first.keys() & second.keys())
    differences = [first[seed] - second[seed] for seed in shared]
    return [difference for difference in differences if isfinite(difference)]


def paired_interval(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = 0.95
) -> Interval | None:
    """`mean_interval` of `first - second` over the seeds that both have, or None when they share none."""
    differences = paired_differences(first, second)
    return mean_interval(differences, confidence) if differences else None


def paired_p(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """Two-sided p of the paired t test that `first` and `second` do not differ: 2 T_{n-1}(-|d| sqrt(n) / s).

    d and s are mean and sample standard deviation of the differences over the n seeds that both have. It is
    below 0.05 exactly where the 95 % `paired_interval` leaves out zero. Where s = 0, p is the limit: 0, or 1
    for d = 0. Raises ValueError below two seeds. Source: Student (1908); as `scipy.stats.ttest_rel`.
    """
    differences = paired_differences(first, second)
    if len(differences) < 2:
        raise ValueError(f"paired_p needs two seeds that both have, got {len(differences)}; run more seeds")
    size, spread = abs(round(fmean(differences), _DIGITS)), _spread(differences)
    if spread == 0:
        return 0.0 if size else 1.0
    return 2 * float(stdtr(len(differences) - 1, -size * sqrt(len(differences)) / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of m tests, in their order: the i-th smallest is max over j <= i of (m - j + 1) p_j.

    Each is at most 1. Those below alpha keep the chance of one or more false discoveries at or below alpha,
    however the tests depend on each other. Source: Holm (1979), "A simple sequentially rejective multiple
    test procedure".
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, test in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[test]))
        adjusted[test] = largest
    return adjusted


def order_holds(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """The chance that a new seed orders two methods as the mean does: T_{n-1}(|d| / (s sqrt(1 + 1 / n))).

    d, s and n are those of `paired_p`; a new difference lies around d with variance s^2 (1 + 1 / n). None
    below five shared seeds. Where s = 0, it is the limit: 1, or 0.5 for d = 0. Source: the predictive
    distribution of a normal sample, Geisser (1993), "Predictive inference".
    """
    differences = paired_differences(first, second)
    if len(differences) < SEEDS_FOR_CHANCE:
        return None
    size, spread = abs(round(fmean(differences), _DIGITS)), _spread(differences)
    if spread == 0:
        return 1.0 if size else 0.5
    return float(stdtr(len(differences) - 1, size / (spread * sqrt(1 + 1 / len(differences)))))


def wilson_interval(right: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Lower and upper end for the share p = right / images of independent images.

    With z the normal quantile at (1 + confidence) / 2 and n images they are
    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). All right ends at 1, and one image
    has an interval, a wide one. Raises ValueError unless 0 <= right <= images and 1 <= images. Source:
    Wilson (1927); the same as `scipy.stats.binomtest(right, images).proportion_ci(method="wilson")`.
    """
    if not 0 <= right <= images or images < 1:
        raise ValueError(
            f"wilson_interval: {right} right of {images} images is no share; give 0 to all of them"
        )
    share, z2 = right / images, float(ndtri((1 + confidence) / 2)) ** 2
    center = share + z2 / (2 * images)
    reach = sqrt(z2 * (share * (1 - share) / images + z2 / (4 * images**2)))
    low, high = ((center + side * reach) / (1 + z2 / images) for side in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def bootstrap_interval(
    scores: ArrayLike, groups: ArrayLike | None = None, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Lower and upper end for the mean of `scores` [M], one per test image, were the images drawn again.

    Percentiles of 2,000 resampled means. Images are drawn as they are or, with `groups` [M], a group at a
    time with all its images. Paired: give what two methods score on each image, subtracted. None for one
    image or group, which nothing can be drawn from; scores that are all equal have no width; below about 30
    groups the interval is too narrow. Raises ValueError for a score that is not finite. Source: Efron (1979);
    by group: Davison & Hinkley (1997), "Bootstrap methods and their application", 3.8.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("bootstrap_interval: a score is not finite; leave out images without a prediction")
    unit = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(unit)
    if len(sizes) < 2:
        return None
    # Units of equal sum and size are interchangeable: how often each kind is drawn is one multinomial draw.
    sums = np.bincount(unit, values).round(_DIGITS)
    kinds, many = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(sizes), many / len(sizes), size=_RESAMPLES)
    sums_drawn, images_drawn = kinds @ draws.T
    low, high = np.quantile(sums_drawn / images_drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
