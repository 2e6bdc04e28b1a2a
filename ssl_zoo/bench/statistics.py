"""Statistics over seeds: small samples, so Student's t and never a bare mean."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import stdtrit


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

    `s` is the sample standard deviation. Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("mean_interval needs at least one value; leave out what nobody measured")
    if len(values) == 1:
        return Interval(float(values[0]), None)
    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    return Interval(fmean(values), quantile * stdev(values) / sqrt(len(values)))


def paired_interval(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = 0.95
) -> Interval | None:
    """Interval of `first - second` over the seeds that both have, or None when they share none."""
    shared = sorted(first.keys() & second.keys())
    return mean_interval([first[seed] - second[seed] for seed in shared], confidence) if shared else None
