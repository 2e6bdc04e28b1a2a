"""The curves of the trainings: accuracy against cost, losses and diagnostics, prototypes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_zoo.bench.report import accuracy, figures
from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.bench.report.summaries import Row
from ssl_zoo.bench.report.words import is_number
from ssl_zoo.checkpoint import logged_records

Logs = list[tuple[Row, figures.Logged]]
_PROTOTYPES = {"teacher_entropy", "kl", "uniform_entropy"}


def training_logs(sources: Sources, rows: Sequence[Row]) -> Logs:
    """Every trained row, a supervised one too, with what it logged."""
    trained = [row for row in rows if row.get("method") is not None or row.get("steps")]
    return [(row, logged_records(sources.cell(row))) for row in trained]


def costs(logs: Logs, tone: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy against what was spent: `figures` by score and axis, and the labels with and without one."""
    found = {score: curves for score in accuracy.SCORES if (curves := accuracy.curves(logs, score))}
    drawn = {label for curves in found.values() for label in curves}
    return {
        "scores": [accuracy.SCORES[score] for score in found],
        "axes": list(accuracy.AXES.values()),
        "figures": [
            [accuracy.accuracy_figure(curves, score, axis, tone) for axis in accuracy.AXES]
            for score, curves in found.items()
        ],
        "legend": [figures.key(label, tone[label]) for label in _labels(logs) if label in drawn],
        "without": [label for label in _labels(logs) if label not in drawn],
    }


def diagnostics(logs: Logs, tone: Mapping[str, str]) -> dict[str, Any]:
    """Everything else that was logged: `figures` by metric and label, a caption alone where there is none."""
    names = figures.metric_names([log for _, log in logs])
    by_label = _by_label(logs)
    points = figures.points_each(len(logs) * max(len(names), 1))
    drawn = [
        [
            figures.curve_figure(seeds, name, tone[label], points) or {"caption": f"{name} was not logged"}
            for label, seeds in by_label.items()
        ]
        for name in names
    ]
    return {"names": names, "labels": list(by_label), "figures": drawn}


def prototypes(logs: Logs, tone: Mapping[str, str]) -> dict[str, Any]:
    """Entropy of the targets and divergence from them, all methods with prototypes in one chart each."""
    by_label = {label: seeds for label, seeds in _by_label(logs).items() if _has_prototypes(seeds)}
    entropy = figures.overlay_figure(by_label, "teacher_entropy", tone, ceiling="uniform_entropy")
    drawn = [figure for figure in (entropy, figures.overlay_figure(by_label, "kl", tone)) if figure]
    legend = [figures.key(label, tone[label]) for label in by_label]
    return {"legend": legend, "figures": drawn}


def _labels(logs: Logs) -> list[str]:
    return list(dict.fromkeys(row["label"] for row, _ in logs))


def _by_label(logs: Logs) -> dict[str, dict[int, figures.Logged]]:
    by_label: dict[str, dict[int, figures.Logged]] = {}
    for row, log in logs:
        by_label.setdefault(row["label"], {})[row["seed"]] = log
    return by_label


def _has_prototypes(seeds: Mapping[int, figures.Logged]) -> bool:
    logged = {name for log in seeds.values() for record in log for name in record if is_number(record[name])}
    return logged >= _PROTOTYPES
