"""Accuracy per class and what was taken for what, from the classes predicted for the test images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_zoo.bench.cells import PREDICTIONS
from ssl_zoo.bench.maps import MAP
from ssl_zoo.bench.report.figures import Figure, in_plotly, title
from ssl_zoo.bench.report.sources import Arrays, Sources, read_arrays
from ssl_zoo.bench.report.summaries import Row

MOST_DRAWN = 20  # classes of a heat map
_MOST_LISTED = 50  # classes in the table
_PAIRS = 10

Counts = np.ndarray[Any, np.dtype[np.int64]]


class Pair(NamedTuple):
    """Images of class `true` that were taken for `taken`: how many, and their share of the class."""

    true: str
    taken: str
    images: int
    share: str


class ClassLine(NamedTuple):
    """A class, its test images, and per label the share in percent that it got right."""

    name: str
    images: int
    shares: list[str]


class Confusions(NamedTuple):
    """Per label a heat map, None for many classes, and the pairs most often confused; the table per class."""

    by: str
    labels: list[str]
    lines: list[ClassLine]
    classes: int
    figures: list[Figure] | None
    pairs: list[list[Pair]]


def confusions(
    sources: Sources, rows: Sequence[Row], labels: Sequence[str], metric: str
) -> Confusions | None:
    """What the classifier behind `metric`, k-NN or linear, predicted, seeds together; None if not kept."""
    by = "linear" if metric.startswith("linear") else "knn"
    names = class_names(sources, rows)
    found: dict[str, list[Arrays]] = {}
    for row in rows:
        kept = read_arrays(sources.cell(row) / PREDICTIONS)
        if row["label"] in labels and {"label", by} <= kept.keys() and len(kept["label"]):
            found.setdefault(row["label"], []).append(kept)
    if not found:
        return None
    size = max(int(max(kept["label"].max(), kept[by].max())) for many in found.values() for kept in many) + 1
    size = max(size, len(names))
    names = [*names, *map(str, range(len(names), size))]
    shown = [label for label in labels if label in found]
    seeds = [len(found[label]) for label in shown]
    counts = [
        np.sum([_counts(kept["label"], kept[by], size) for kept in found[label]], axis=0) for label in shown
    ]
    return Confusions(
        by={"knn": "k-NN", "linear": "linear probe"}[by],
        labels=shown,
        lines=_lines(counts, seeds, names),
        classes=size,
        figures=[_heat_map(count, names) for count in counts] if size <= MOST_DRAWN else None,
        pairs=[_pairs(count, names) for count in counts],
    )


def class_names(sources: Sources, rows: Sequence[Row]) -> list[str]:
    """The names of the classes, as a map has kept them; none where no map was."""
    for row in rows:
        if "classes" in (kept := read_arrays(sources.cell(row) / MAP)):
            return [str(name) for name in kept["classes"]]
    return []


def _counts(true: Counts, taken: Counts, size: int) -> Counts:
    """How often each class [rows] was taken for each [columns]."""
    return np.bincount(true * size + taken, minlength=size * size).reshape(size, size)


def _lines(counts: Sequence[Counts], seeds: Sequence[int], names: Sequence[str]) -> list[ClassLine]:
    """All classes in order; of many, those that are got right least often."""
    right = np.stack([_shares(count).diagonal() for count in counts])
    images = counts[0].sum(1) // seeds[0]
    order = np.arange(len(names))
    if len(names) > _MOST_LISTED:
        order = np.argsort(np.where(images > 0, right.mean(0), np.inf), kind="stable")[:_MOST_LISTED]
    shares = [[f"{100 * share:.1f}" for share in column] for column in right.T]
    return [
        ClassLine(names[i], int(images[i]), shares[i] if images[i] else ["-"] * len(counts))
        for i in order.tolist()
    ]


def _shares(count: Counts) -> np.ndarray[Any, np.dtype[np.float64]]:
    shares: np.ndarray[Any, np.dtype[np.float64]] = count / np.maximum(count.sum(1, keepdims=True), 1)
    return shares


def _heat_map(count: Counts, names: Sequence[str]) -> Figure:
    share, ticks = 100 * _shares(count), [in_plotly(name[:18]) for name in names]
    axis = {"tickvals": list(range(len(names))), "ticktext": ticks, "showgrid": False, "automargin": True}
    axis |= {"zeroline": False, "ticks": ""}
    worst = _pairs(count, names)[:1]
    words = "".join(f" Most often, {pair.true} was taken for {pair.taken}: {pair.share}." for pair in worst)
    return {
        "data": [
            {
                "type": "heatmap",
                "z": share.round(1).tolist(),
                "zmin": 0,
                "zmax": 100,
                "texttemplate": "%{z:.0f}" if len(names) <= 12 else "",
                "hovertemplate": "%{y} taken for %{x}: %{z:.1f} %<extra></extra>",
                "showscale": False,
                "xgap": 1,
                "ygap": 1,
                "meta": {"label": "", "tone": "0"},
            }
        ],
        "layout": {
            "height": 130 + 26 * len(names),
            "margin": {"l": 10, "r": 10, "t": 8, "b": 10},
            "xaxis": axis | {"title": title("taken for")},
            "yaxis": axis | {"title": title("class"), "autorange": "reversed"},
        },
        "caption": f"Of each class (row) the share, in percent, that was taken for each (column).{words}",
    }


def _pairs(count: Counts, names: Sequence[str]) -> list[Pair]:
    wrong = count.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    shares = _shares(count)
    places = [(int(place) // len(names), int(place) % len(names)) for place in order]
    return [
        Pair(names[i], names[j], int(wrong[i, j]), f"{100 * shares[i, j]:.1f} %")
        for i, j in places
        if wrong[i, j]
    ]
