"""Schedules: pure functions of a run's progress in [0, 1], or of a step's index and their total."""

import math

_ROUNDING = 1e-9  # a quotient of floats may fall this short of a whole number


def linear(
    progress: float, start: float, end: float, duration: float = 1.0, plateaus: int | None = None
) -> float:
    """From `start` to `end` over the first `duration` of the run, then `end`.

    With `plateaus` in so many equal steps, the first at `start`, the last at `end` (official DINO: one per
    epoch).
    """
    if progress >= duration:
        return end
    share = progress / duration
    if plateaus is not None:
        share = math.floor(share * plateaus + _ROUNDING) / max(plateaus - 1, 1)
    return start + (end - start) * share


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` to `end` over the run."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def warmup_cosine(index: int, total: int, peak: float, end: float, warmup: float) -> float:
    """Linear from 0 to `peak` at the last step of the first `warmup` of the run, then half a cosine to `end`.

    As `cosine_scheduler` of facebookresearch/dino, where W warm-up steps rise as i / (W - 1).
    """
    steps = warmup * total
    if index < steps:
        return peak * min(1.0, index / max(steps - 1, 1.0))
    return cosine((index - steps) / (total - steps), peak, end)
