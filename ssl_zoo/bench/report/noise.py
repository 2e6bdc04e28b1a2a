"""Evaluation noise, apart from seeds: how far another draw of the test images would move a score."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ssl_zoo.bench.cells import PREDICTIONS
from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.bench.report.summaries import Summary
from ssl_zoo.bench.report.words import count
from ssl_zoo.bench.statistics import bootstrap_interval, wilson_interval

logger = logging.getLogger(__name__)

_PREDICTED = {"knn_top1": "knn", "linear_top1": "linear"}  # the other metrics have no prediction per image


class _Right(NamedTuple):
    """The share of seeds that are right on each test image [M], how many seeds, and the images' groups."""

    share: NDArray[np.float64]
    seeds: int
    groups: NDArray[np.int64] | None


def evaluation_noise(sources: Sources, metric: str, reference: Summary, others: Sequence[Summary]) -> str:
    """Half widths of 95 % intervals over test images, in words; empty where no predictions were kept.

    Of each other method the difference to the reference, image by image (bootstrap, by group where images
    have groups). Of a method alone its score: Wilson's for one seed of independent images, else bootstrap.
    """
    found = []
    for item in others or [reference]:
        seeds = sorted(item.by_seed.keys() & reference.by_seed.keys())
        own, zero = _right(sources, item, seeds, metric), _right(sources, reference, seeds, metric)
        if own is None or zero is None or own.share.shape != zero.share.shape:
            continue
        ends, how = _interval(own, zero if others else None)
        if ends:
            what = f"{item.label} over {reference.label}" if others else item.label
            moved = f"{what} by \N{PLUS-MINUS SIGN} {50 * (ends[1] - ends[0]):.1f} points"
            found.append((moved, len(own.share), how))
    if not found:
        return ""
    _, images, how = found[0]
    return (
        f"Apart from seeds, another draw of the {count(images)} test images would move "
        f"{', '.join(moved for moved, _, _ in found)} (95 %, {how})."
    )


def _interval(own: _Right, other: _Right | None) -> tuple[tuple[float, float] | None, str]:
    by_group = " by group" if own.groups is not None else ""
    if other is not None:
        return bootstrap_interval(own.share - other.share, own.groups), f"paired bootstrap{by_group}"
    if own.seeds == 1 and own.groups is None:
        return wilson_interval(int(own.share.sum()), len(own.share)), "Wilson"
    return bootstrap_interval(own.share, own.groups), f"bootstrap{by_group}"


def _right(sources: Sources, item: Summary, seeds: Sequence[int], metric: str) -> _Right | None:
    cells = [sources.cell({"label": item.label, "seed": seed}) for seed in seeds]
    files = [cell / PREDICTIONS for cell in cells]
    if metric not in _PREDICTED or not files or not all(file.is_file() for file in files):
        return None
    try:
        kept = [_read(file, _PREDICTED[metric]) for file in files]
        share = np.mean([right for right, _ in kept], axis=0)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        logger.warning(
            "predictions of %s in %s cannot be read, no noise is told: %s", item.label, sources.folder, error
        )
        return None
    return _Right(share, len(files), kept[0][1])


def _read(file: Path, column: str) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
    with np.load(file) as arrays:
        return arrays[column] == arrays["label"], arrays.get("group")
