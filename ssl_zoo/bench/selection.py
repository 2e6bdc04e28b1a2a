"""How well an encoder does while it is trained, on images that are selected for choices."""

from collections.abc import Callable
from functools import partial

from torch import nn

from ssl_zoo.data.splits import Roles
from ssl_zoo.evaluation.curve import curve_scores, curve_splits


def selection_curve(
    parts: Roles, image_size: int, workers: int | None
) -> Callable[[nn.Module], dict[str, float]] | None:
    """What scores a network in training; None without labels of two classes to choose on."""
    splits = curve_splits(parts)
    if splits is None:
        return None
    bank, queries = splits
    return partial(curve_scores, bank=bank, queries=queries, image_size=image_size, workers=workers)


def curve_steps(total: int, points: int) -> set[int]:
    """After which of `total` steps a curve of so many points is scored: equal parts of the budget."""
    return {max(1, round(total * point / points)) for point in range(1, points + 1)}
