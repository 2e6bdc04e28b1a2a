"""Every other score of the evaluation: a line per score, a column per label."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_zoo.bench.cells import FINISHED
from ssl_zoo.bench.report.summaries import Row
from ssl_zoo.bench.report.table import MISSING, Cell
from ssl_zoo.bench.report.words import is_number
from ssl_zoo.bench.statistics import mean_interval

_SHARES = {
    "knn_top5": "k-NN top-5 %",
    "linear_top5": "linear top-5 %",
    "linear_balanced_accuracy": "linear balanced accuracy %",
    "linear_macro_f1": "linear macro F1 %",
    "linear_auroc": "linear AUROC %",
}
_CLUSTERS = {"cluster_ami": "clusters, AMI %", "cluster_nmi": "clusters, NMI %"}
_LABEL_FREE = {"alpha_req": "alpha-ReQ", "alignment": "alignment", "uniformity": "uniformity"}


class Line(NamedTuple):
    """One score: its `name` and, per label, mean and interval over seeds."""

    name: str
    cells: list[Cell]


def more_scores(rows: Sequence[Row], labels: Sequence[str]) -> list[Line]:
    """The scores that somebody has; of low-shot the interval is over seeds, draws are averaged before."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in _scores(row) if row.get("status") in FINISHED else ():
            values[name][row["label"]].append(value)
    return [Line(name, [_cell(name, own[label]) for label in labels]) for name, own in values.items()]


def _scores(row: Row) -> Iterator[tuple[str, float]]:
    nested: list[tuple[str, Any]] = [(title, row.get(name)) for name, title in _SHARES.items()]
    for size, draws in (row.get("low_shot") or {}).items():
        what = f"{size.replace('%', ' %')} of the labels" if "%" in size else f"{size} labels a class"
        nested.append((f"{'1 label a class' if size == '1' else what}, %", (draws or {}).get("mean")))
    nested += [(title, row.get(name)) for name, title in _CLUSTERS.items()]
    for source, found in (row.get("transfer") or {}).items():
        nested += _transferred(source, found)
    nested += [(title, row.get(name)) for name, title in _LABEL_FREE.items()]
    yield from ((name, float(value)) for name, value in nested if is_number(value))


def _transferred(source: str, found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (f"on {source}, k-NN %", found.get("knn_top1")),
        (f"on {source}, linear %", found.get("linear_top1")),
    ]


def _cell(name: str, values: Sequence[float]) -> Cell:
    if not values:
        return Cell(MISSING)
    scale, digits = (100, 1) if name.endswith("%") else (1, 2)
    mean, half_width = mean_interval(values)
    spread = "" if half_width is None else f"{scale * half_width:.{digits}f}"
    return Cell(f"{scale * mean:.{digits}f}", spread)
