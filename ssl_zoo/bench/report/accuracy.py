"""Accuracy during training against what it cost so far, with a band over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssl_zoo.bench.report.figures import Figure, Logged, dash, key, title, traced
from ssl_zoo.bench.report.summaries import SEEDS_TO_RANK, Row
from ssl_zoo.bench.report.words import is_number
from ssl_zoo.bench.statistics import mean_interval

SCORES = {"curve_knn_top1": "k-NN top-1", "curve_ridge_top1": "ridge top-1"}
AXES = {"images": "images seen", "flops": "training FLOPs", "seconds": "training seconds"}


class Point(NamedTuple):
    """A score in [0, 1] at a step, and what had been spent there."""

    step: int
    score: float
    images: float
    flops: float | None
    seconds: float | None


Curves = dict[str, list[list[Point]]]
"""By label a list of points per seed."""


def curves(logs: Sequence[tuple[Row, Logged]], score: str) -> Curves:
    """The curves of `score` that were logged; a row's FLOPs are spread evenly over its steps."""
    found: Curves = {}
    for row, log in logs:
        if points := [_point(row, record, score) for record in log if is_number(record.get(score))]:
            found.setdefault(row["label"], []).append(points)
    return found


def _point(row: Row, record: Mapping[str, Any], score: str) -> Point:
    flops, steps, seconds = row.get("train_flops"), row.get("steps"), record.get("seconds")
    spent = flops * record["step"] / steps if is_number(flops) and steps else None
    return Point(
        record["step"],
        record[score],
        record["images_seen"],
        spent,
        seconds if is_number(seconds) else None,
    )


def accuracy_figure(found: Curves, score: str, axis: str, tone: Mapping[str, str]) -> Figure:
    """A line per label against `axis`, a key of AXES, and from three seeds on its 95 % t interval."""
    traces = [trace for label, seeds in found.items() for trace in _drawn(label, seeds, axis, tone[label])]
    layout = {
        "height": 340,
        "margin": {"l": 52, "r": 16, "t": 8, "b": 52},
        "xaxis": {"title": title(AXES[axis]), "tickformat": "~s", "nticks": 6, "zeroline": False},
        "yaxis": {"title": title(f"{SCORES[score]}, %"), "nticks": 6, "zeroline": False},
    }
    return {"data": traces, "layout": layout, "caption": _in_words(found, score, axis)}


def _drawn(label: str, seeds: list[list[Point]], axis: str, tone: str) -> list[Figure]:
    common = traced(label, tone) | {"line": {"width": 2, "dash": dash(tone)}}
    common["marker"] = {"size": 7, "symbol": key(label, tone).symbol}
    known = [[point for point in seed if getattr(point, axis) is not None] for seed in seeds]
    seeds = [seed for seed in known if seed]  # of a run that has not ended the FLOPs are not known
    if not seeds:
        return []
    spans = _spans(seeds, axis)
    lonely = [] if len(spans) > 1 or len(seeds) == 1 else seeds
    if lonely:  # seeds that share no steps have no mean
        return [_line(common, [(getattr(p, axis), p.score) for p in seed]) for seed in lonely]
    traces = [_line(common, [(x, mean) for x, mean, _ in spans])]
    if len(seeds) >= SEEDS_TO_RANK:
        upper = [(x, mean + half) for x, mean, half in spans]
        lower = [(x, mean - half) for x, mean, half in spans]
        band = _line(common, [*upper, *lower[::-1]]) | {"mode": "lines", "fill": "toself"}
        traces.insert(0, band | {"line": {"width": 0}, "hoverinfo": "skip"})
    return traces


def _spans(seeds: list[list[Point]], axis: str) -> list[tuple[float, float, float]]:
    """At each step that all seeds have: mean of `axis`, mean score and its half width."""
    by_step = [{point.step: point for point in seed} for seed in seeds]
    spans = []
    for step in sorted(set.intersection(*map(set, by_step))):
        points = [seed[step] for seed in by_step]
        spent = [getattr(point, axis) for point in points]
        mean, half_width = mean_interval([point.score for point in points])
        spans.append((sum(spent) / len(spent), mean, half_width or 0.0))
    return spans


def _line(common: Figure, points: list[tuple[float, float]]) -> Figure:
    return common | {
        "mode": "lines+markers",
        "x": [float(f"{x:.5g}") for x, _ in points],
        "y": [round(100 * y, 2) for _, y in points],
        "hovertemplate": f"{common['name']}: %{{y:.1f}} % at %{{x:.3s}}<extra></extra>",
    }


def _in_words(found: Curves, score: str, axis: str) -> str:
    ends = ", ".join(
        f"{label} {100 * sum(seed[-1].score for seed in seeds) / len(seeds):.1f} %"
        for label, seeds in found.items()
    )
    return f"{SCORES[score]} against {AXES[axis]}; at the end {ends}."
