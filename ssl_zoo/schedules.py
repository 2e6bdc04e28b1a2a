"""Schedules: pure functions of a run's progress in [0, 1]."""

import math


def linear(progress: float, start: float, end: float, duration: float = 1.0) -> float:
    """From `start` to `end` over the first `duration` of the run, then `end`."""
    return end if progress >= duration else start + (end - start) * progress / duration


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` to `end` over the run."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def warmup_cosine(progress: float, peak: float, end: float, warmup: float) -> float:
    """Linear from 0 to `peak` over the first `warmup` of the run, then half a cosine to `end`."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine((progress - warmup) / (1 - warmup), peak, end) if warmup < 1 else peak
