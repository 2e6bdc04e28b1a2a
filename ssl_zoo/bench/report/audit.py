"""What was equal over the trained runs, what was not and by how much, and what should have been."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

from ssl_zoo.bench.cells import FINISHED
from ssl_zoo.bench.report.summaries import TITLES, Row
from ssl_zoo.bench.report.words import budget as in_words
from ssl_zoo.bench.report.words import count, is_number, points, quantity, scaled, times

_AUDITED = {
    "dataset": "Dataset",
    "backbone": "Backbone",
    "batch_size": "Batch size",
    "lr": "Peak learning rate",
    "images_seen": "Images seen",
    "steps": "Optimizer steps",
    "views_seen": "Views seen",
    "view_pixels_seen": "View pixels seen",
    "train_flops": "Training FLOPs",
    "train_seconds": "Training seconds",
    "data_seconds": "Data seconds",
    "evaluation_seconds": "Evaluation seconds",
    "peak_memory_bytes": "Peak memory",
    "precision": "Precision",
    "threads": "Threads",
    "device": "Device",
}
_DECLARED = ("dataset", "backbone", "batch_size", "precision")  # equal in every bench
_BY_UNIT = {"epochs": "images_seen", "images": "images_seen", "steps": "steps"}
_MISSING = "-"

State = Literal["equal", "differs", "broken"]


class Fact(NamedTuple):
    """One audited quantity: its value where all runs agree, else its mean per label.

    `ratio` is the largest of these means over the smallest, "" where there is none; `broken` means that it
    was declared equal and is not.
    """

    name: str
    state: State
    ratio: str
    value: str


def audit(rows: Sequence[Row], bench: Mapping[str, Any]) -> list[Fact]:
    """Every audited quantity over the finished runs that were trained."""
    trained, broken = _trained(rows), _broken(rows, bench)
    facts = []
    for name, title in _AUDITED.items():
        values = [row.get(name) for row in trained]
        if all(value is None for value in values):
            continue
        equal = len(set(values)) == 1
        state: State = "broken" if name in broken else "equal" if equal else "differs"
        words = written(name, values[0]) if equal else _per_label(name, trained)
        facts.append(Fact(title, state, _ratio(name, trained), words + _from_budget(name, trained, bench)))
    return facts


def broken_equalities(rows: Sequence[Row], bench: Mapping[str, Any]) -> list[str]:
    """What was declared equal for all finished trainings and is not, a sentence each; empty if all is well.

    Data, backbone, batch size and precision are always declared, and the quantity of the budget's unit: runs
    of a budget in FLOPs may stay below it by less than a step. Seconds are measured, so never broken.
    """
    return list(_broken(rows, bench).values())


def _broken(rows: Sequence[Row], bench: Mapping[str, Any]) -> dict[str, str]:
    """By field what is broken. A run that a collapse ended early was asked to end."""
    done = [row for row in _trained(rows) if row["status"] == "done"]
    budget: Mapping[str, Any] = bench.get("budget") or {}
    declared = [*_DECLARED, *(field for unit, field in _BY_UNIT.items() if unit in budget)]
    broken = {
        name: f"{_AUDITED[name].lower()} was declared equal, but differs: {_per_label(name, done)}"
        for name in declared
        if len({row.get(name) for row in done}) > 1
    }
    amount = budget.get("flops")
    strayed = [
        f"{row['label']} seed {row['seed']} took {written('train_flops', row['train_flops'])} in "
        f"{count(row['steps'])} steps"
        for row in done
        if is_number(amount) and not 0 <= amount - row["train_flops"] < row["train_flops"] / row["steps"]
    ]
    if strayed:
        broken["train_flops"] = (
            f"training FLOPs were declared to be {written('train_flops', amount)} to within a step, but "
            + ", ".join(strayed)
        )
    return broken


def written(name: str, value: Any) -> str:
    """A field of a row as text: scores in percent, FLOPs and bytes scaled."""
    if not is_number(value):
        return _MISSING if value is None else str(value)
    if name == "train_flops":
        return scaled(value, "FLOP")
    if name == "peak_memory_bytes":
        return scaled(value, "B", base=1024)
    if name in TITLES:
        return f"{100 * value:.1f}"
    return count(value) if value >= 1000 else quantity(value)


def _trained(rows: Sequence[Row]) -> list[Row]:
    """Finished runs that took steps, a supervised one too."""
    return [row for row in rows if row.get("status") in FINISHED and row.get("steps")]


def _by_label(name: str, rows: Sequence[Row]) -> dict[str, list[Any]]:
    labels: dict[str, list[Any]] = {}
    for row in rows:
        labels.setdefault(row["label"], []).append(row.get(name))
    return labels


def _means(name: str, rows: Sequence[Row]) -> dict[str, float]:
    labels = {label: [v for v in values if is_number(v)] for label, values in _by_label(name, rows).items()}
    return {label: fmean(values) for label, values in labels.items() if values}


def _per_label(name: str, rows: Sequence[Row]) -> str:
    means = _means(name, rows)
    texts = {
        label: written(name, means[label])
        if label in means
        else " or ".join(dict.fromkeys(written(name, value) for value in values))
        for label, values in _by_label(name, rows).items()
    }
    return ", ".join(f"{label} {text}" for label, text in texts.items())


def _ratio(name: str, rows: Sequence[Row]) -> str:
    means = _means(name, rows).values()
    if len(means) < 2 or min(means) <= 0 or (ratio := max(means) / min(means)) < 1.005:
        return ""
    return f"{ratio:.2f}x" if ratio < 1.1 else times(ratio)


def _from_budget(name: str, rows: Sequence[Row], bench: Mapping[str, Any]) -> str:
    """How far each label's mean is from a budget in FLOPs or seconds."""
    unit = {"train_flops": "flops", "train_seconds": "seconds"}.get(name, "")
    amount = (bench.get("budget") or {}).get(unit)
    if not is_number(amount) or not amount:
        return ""
    means = _means(name, rows).items()
    off = ", ".join(f"{label} {points(100 * (mean / amount - 1))} %" for label, mean in means)
    declared = written(name, amount) if unit == "flops" else in_words({unit: amount})
    return f"; from the declared {declared}: {off}"
