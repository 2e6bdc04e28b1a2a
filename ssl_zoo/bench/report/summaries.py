"""What the rows say per label: means over seeds, gains over the untrained backbone, and what went wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from ssl_zoo.bench.cells import FINISHED
from ssl_zoo.bench.report.words import is_number, reason
from ssl_zoo.bench.statistics import Interval, mean_interval, paired_interval
from ssl_zoo.evaluation.collapse import explain_collapse

Row = Mapping[str, Any]

BASELINE = "random"
START = "init"  # the weights that every method started from, before training
SEEDS_TO_RANK = 3
TITLES = {
    "knn_top1": "k-NN top-1",
    "knn_top5": "k-NN top-5",
    "linear_top1": "linear top-1",
    "linear_top5": "linear top-5",
    "linear_balanced_accuracy": "linear balanced accuracy",
    "map_at_r": "mAP@R",
    "finetune_top1": "tuned top-1",
    "sgd_probe_top1": "SGD probe top-1",
}
"""Metrics that need labels, shares in [0, 1]."""
LABEL_FREE = {
    "feature_std": "feature std",
    "rankme": "RankMe",
    "alignment": "alignment",
    "uniformity": "uniformity",
}
_COSTS = ("images_seen", "views_seen", "train_flops", "train_seconds", "images_per_second")


@dataclass(frozen=True)
class Summary:
    """One label over its seeds; scores are fractions, `gain` is in points over the untrained backbone."""

    label: str
    verdict: str
    status: str
    scores: dict[str, Interval]
    """By metric; what nobody measured is absent."""
    by_seed: dict[int, float]
    """The primary metric."""
    gain: Interval | None
    costs: dict[str, float]
    """Medians of images_seen, views_seen, train_flops, train_seconds and images_per_second."""
    is_reference: bool
    """Whether nothing was trained here: the untrained backbone, the weights to start from, other encoders."""

    @property
    def is_baseline(self) -> bool:
        """Whether this is the untrained backbone."""
        return self.label == BASELINE


def primary_of(bench: Mapping[str, Any]) -> str:
    """The one metric on which methods are compared, fixed before anything was trained."""
    metric: str | None = bench.get("primary_metric")
    return metric or "knn_top1"


def summary(rows: Sequence[Row], primary_metric: str = "knn_top1") -> list[Summary]:
    """One summary per label: methods, then references, each best primary metric first, the baseline last."""
    labels: dict[str, list[Row]] = {}
    for row in rows:
        labels.setdefault(row["label"], []).append(row)
    baseline = _by_seed(labels.get(BASELINE, []), primary_metric)
    summaries = [_summarise(label, own, primary_metric, baseline) for label, own in labels.items()]

    def order(item: Summary) -> tuple[bool, bool, float]:
        score = item.scores.get(primary_metric)
        return item.is_reference, item.is_baseline, -score.mean if score else 1.0

    return sorted(summaries, key=order)


def _summarise(label: str, rows: list[Row], primary: str, baseline: dict[int, float]) -> Summary:
    metrics = dict.fromkeys([primary, *TITLES, *LABEL_FREE])
    scores = {metric: list(_by_seed(rows, metric).values()) for metric in metrics}
    by_seed = _by_seed(rows, primary)
    reference = all(is_reference(row) for row in rows)
    once = reference and len(rows) == 1 and bool(by_seed)  # the one evaluation holds for every seed
    paired = dict.fromkeys(baseline, fmean(by_seed.values())) if once else by_seed
    counted = [row for row in rows if row.get("status") in FINISHED] or rows
    costs = {name: [row[name] for row in counted if is_number(row.get(name))] for name in _COSTS}
    return Summary(
        label=label,
        verdict=_tally(row.get("collapse_verdict") for row in counted) or "-",
        status=_tally(row.get("status") for row in rows) or "unknown",
        scores={metric: mean_interval(values) for metric, values in scores.items() if values},
        by_seed=by_seed,
        gain=paired_interval(in_points(paired), in_points(baseline)),
        costs={name: median(values) for name, values in costs.items() if values},
        is_reference=reference,
    )


def is_reference(row: Row) -> bool:
    """Whether nothing was trained for this row."""
    return row.get("method") is None


def _by_seed(rows: Sequence[Row], metric: str) -> dict[int, float]:
    return {
        row["seed"]: row[metric]
        for row in rows
        if row.get("status") in FINISHED and is_number(row.get(metric))
    }


def in_points(by_seed: Mapping[int, float]) -> dict[int, float]:
    """Fractions by seed in percent, whose differences are points."""
    return {seed: 100 * score for seed, score in by_seed.items()}


def _tally(words: Iterable[str | None]) -> str:
    """The word that all seeds share, otherwise as in "2 done, 1 failed"."""
    counts = Counter(word for word in words if word)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{number} {word}" for word, number in counts.most_common())


def are_unlabelled(summaries: Sequence[Summary]) -> bool:
    """Whether features were measured, but nothing that needs labels."""
    measured = {metric for item in summaries for metric in item.scores}
    return bool(measured) and measured.isdisjoint(TITLES)


def scored(summaries: Sequence[Summary]) -> list[Summary]:
    """The trained methods that have a score."""
    return [item for item in summaries if item.by_seed and not item.is_reference]


def points_over(item: Summary, reference: Summary) -> float:
    """The primary metric's mean over seeds in points over a reference."""
    return 100 * (fmean(item.by_seed.values()) - fmean(reference.by_seed.values()))


def remarks(rows: Sequence[Row], primary_metric: str) -> list[str]:
    """What did not finish and why, which runs collapsed, and which methods ended below where they started."""
    unfinished = [
        f"{row['label']} seed {row['seed']} {row['status']}: {reason(row.get('error'), row['status'])}"
        for row in rows
        if row.get("status") in ("failed", "stopped")
    ]
    summaries = summary(rows, primary_metric)
    worse = [
        f"{item.label} ended {-gained:.1f} points below the weights it started from: "
        "pretraining on these images made it worse"
        for start in summaries
        if start.label == START and start.by_seed
        for item in scored(summaries)
        if round(gained := points_over(item, start), 1) < 0
    ]
    return unfinished + [_collapse(row) for row in rows if _signs(row)] + worse


def _signs(row: Row) -> dict[str, str]:
    """What of a run collapsed, and how; what the alarm said in training counts where the cause says less."""
    signs = {
        "features": row.get("collapse_verdict"),
        "prototypes": row.get("collapse_cause"),
        "in training": row.get("collapse_alarm"),
    }
    if signs["prototypes"] or signs["in training"] == signs["features"]:
        del signs["in training"]
    return {what: sign for what, sign in signs.items() if sign and explain_collapse(sign)}


def _collapse(row: Row) -> str:
    ended = f" was ended at step {row['steps']}" if row.get("status") == "collapsed" else ""
    words = [f"{what} {sign}, {explain_collapse(sign)}" for what, sign in _signs(row).items()]
    return f"{row['label']} seed {row['seed']}{ended}: {'; '.join(words)}"
