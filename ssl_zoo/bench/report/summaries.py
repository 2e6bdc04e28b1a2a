"""What the rows say per label: means over seeds, gains over the untrained backbone, and who is ahead."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from ssl_zoo.bench.cells import FINISHED
from ssl_zoo.bench.report.words import is_number, points, reason
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
_COSTS = ("images_seen", "views_seen", "train_seconds", "images_per_second")


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
    """Means of images_seen, views_seen, train_seconds and images_per_second."""
    is_reference: bool
    """Whether nothing was trained here: the untrained backbone, the weights to start from, other encoders."""

    @property
    def is_baseline(self) -> bool:
        """Whether this is the untrained backbone."""
        return self.label == BASELINE


class Finding(NamedTuple):
    """Who is ahead: `line` in one sentence, `text` with what stands behind it."""

    line: str
    text: str = ""


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
    once = reference and label != BASELINE and bool(by_seed)  # the one evaluation holds for every seed
    paired = dict.fromkeys(baseline, fmean(by_seed.values())) if once else by_seed
    counted = [row for row in rows if row.get("status") in FINISHED] or rows
    costs = {name: [row[name] for row in counted if is_number(row.get(name))] for name in _COSTS}
    return Summary(
        label=label,
        verdict=_tally(row.get("collapse_verdict") for row in counted) or "-",
        status=_tally(row.get("status") for row in rows) or "unknown",
        scores={metric: mean_interval(values) for metric, values in scores.items() if values},
        by_seed=by_seed,
        gain=paired_interval(_times_100(paired), _times_100(baseline)),
        costs={name: sum(values) / len(values) for name, values in costs.items() if values},
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


def _times_100(by_seed: dict[int, float]) -> dict[int, float]:
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


def can_rank(summaries: Sequence[Summary]) -> bool:
    """Whether all labels with a score share at least three seeds, so that a best one may be named."""
    return _shared(_scored(summaries)) >= SEEDS_TO_RANK


def finding(summaries: Sequence[Summary], primary_metric: str) -> Finding:
    """Who is ahead on the primary metric, or why nobody can be named.

    The leader is compared with every other label over shared seeds; the intervals hold at 95 % over all
    pairs of labels together (Bonferroni), because the leader is picked after the scores are known.
    """
    scored = _scored(summaries)
    if not scored:
        return _unscored(summaries)
    gains = _gains(scored, TITLES.get(primary_metric, primary_metric)) + _against(summaries, scored)
    if len(scored) == 1:
        return Finding(f"only {scored[0].label} has a score: there is nothing to rank", gains)
    shared = _shared(scored)
    if shared < SEEDS_TO_RANK:
        return Finding(_too_few(shared, most=max(len(item.by_seed) for item in scored)), gains)
    return _ranked(scored, shared, gains)


def _ranked(scored: Sequence[Summary], shared: int, gains: str) -> Finding:
    confidence = 1 - 0.05 / (len(scored) * (len(scored) - 1) / 2)
    leader, others = scored[0], scored[1:]
    leads = [
        (other, lead)
        for other in others
        if (lead := paired_interval(_times_100(leader.by_seed), _times_100(other.by_seed), confidence))
    ]
    behind = [_lead(other, lead) for other, lead in leads if lead.ends[0] > 0]
    close = [_lead(other, lead) for other, lead in leads if lead.ends[0] <= 0]
    together = " and hold for all pairs together" if len(others) > 1 else ""
    basis = (
        f"Intervals are paired over {shared} seeds{together}; they leave out the choice of held-out images."
    )
    if not close:
        line = f"the leader is {leader.label}, ahead of {', of '.join(behind)}"
        return Finding(line, f"{basis} {gains}")
    line = f"no clear winner: {leader.label} leads {', '.join(close)}, which may be chance"
    also = f" It is ahead of {', of '.join(behind)}." if behind else ""
    return Finding(line, f"{basis}{also} {gains}")


def _lead(other: Summary, lead: Interval) -> str:
    low, high = lead.ends
    return f"{other.label} by {lead.mean:.1f} points (95 %: {points(low)} to {points(high)})"


def _scored(summaries: Sequence[Summary]) -> list[Summary]:
    return [item for item in summaries if item.by_seed and not item.is_reference]


def _shared(scored: Sequence[Summary]) -> int:
    return len(set.intersection(*(set(item.by_seed) for item in scored))) if scored else 0


def _too_few(shared: int, most: int) -> str:
    if most >= SEEDS_TO_RANK:
        return f"only {shared} of {most} seeds were finished by every method: too few seeds to rank"
    seeds = {0: "no common seed", 1: "one seed", 2: "two seeds"}[shared]
    return f"{seeds}: too few seeds to rank (use --seeds {SEEDS_TO_RANK})"


def _unscored(summaries: Sequence[Summary]) -> Finding:
    trained = [item for item in summaries if not item.is_reference]
    if not any(word in item.status for item in trained for word in FINISHED):
        return Finding("no method finished: there is nothing to rank")
    return Finding(
        "without labels no method is ranked; label about 100 images and run: "
        "ssl-zoo eval --encoder RUN --data SPEC --labels FILE.csv",
        "What is measured without labels tells a collapse, not which features are better.",
    )


def _gains(scored: Sequence[Summary], metric: str) -> str:
    gains = {item.label: item.gain for item in scored if item.gain}
    if not gains:
        return ""
    if all(gain.mean <= 0 for gain in gains.values()):
        opening = f"No method is above the untrained backbone on {metric}"
    else:
        opening = f"Over the untrained backbone on {metric}"
    return f"{opening}: {', '.join(f'{label} {points(gain.mean)} points' for label, gain in gains.items())}."


def _against(summaries: Sequence[Summary], scored: Sequence[Summary]) -> str:
    """How the methods stand to the references that were trained elsewhere, a sentence each."""
    sentences = []
    for other in summaries:
        if other.is_reference and not other.is_baseline and other.by_seed:
            leads = ", ".join(f"{item.label} {points(_points_over(item, other))}" for item in scored)
            sentences.append(f" Over {other.label}: {leads} points.")
    return "".join(sentences)


def _points_over(item: Summary, reference: Summary) -> float:
    """The primary metric's mean over seeds in points over a reference, which is the same for every seed."""
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
        for item in _scored(summaries)
        if round(gained := _points_over(item, start), 1) < 0
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
