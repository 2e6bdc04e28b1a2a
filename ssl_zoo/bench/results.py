"""The results of a bench: rows collected from its cells, and their files."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from ssl_zoo.bench.cells import FINISHED, Cell, read_result
from ssl_zoo.checkpoint import logged_records
from ssl_zoo.ema import horizon
from ssl_zoo.evaluation.collapse import collapse_verdict
from ssl_zoo.files import write_text

_LONG_HORIZON = 0.2  # of the run; a teacher that averages over more still remembers its random start

_WHAT = ("label", "method", "dataset", "backbone", "seed", "status")
_COST = (
    "images_seen",
    "views_seen",
    "view_pixels_seen",
    "steps",
    "batch_size",
    "lr",
    "train_flops",
    "train_seconds",
    "data_seconds",
    "evaluation_seconds",
    "images_per_second",
)
_WHERE = ("peak_memory_bytes", "precision", "threads", "device", "ranks")
_KNN = ("knn_top1", "knn_top5", "knn_by_k", "knn_k", "knn_temperature")
_LINEAR = (
    "linear_top1",
    "linear_top5",
    "linear_balanced_accuracy",
    "linear_macro_f1",
    "linear_auroc",
    "linear_c",
    "linear_converged",
)
_OTHER = ("low_shot", "map_at_r", "cluster_ami", "cluster_nmi", "transfer", "finetune_top1", "sgd_probe_top1")
_LABEL_FREE = ("rankme", "alpha_req", "feature_std", "alignment", "uniformity")
_COLLAPSE = ("collapse_verdict", "collapse_cause", "collapse_alarm")
_REST = ("final_loss", "encoder", "config_hash", "error")
FIELDS = (*_WHAT, *_COST, *_WHERE, *_KNN, *_LINEAR, *_OTHER, *_LABEL_FREE, *_COLLAPSE, *_REST)

MEASURED = (
    *("seconds", "train_seconds", "data_seconds", "evaluation_seconds", "images_per_second"),
    "peak_memory_bytes",
)
"""What differs from run to run on the same machine; all other fields are bit-equal."""


class Results:
    """A finished bench: `rows`, one dict per label and seed, and `bench`, what was equal for all of them."""

    def __init__(self, folder: Path, bench: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.bench = bench
        self.rows = rows

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """Read the results of a bench folder; FileNotFoundError without, ValueError for broken ones."""
        file = Path(folder) / "results.json"
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist; give the folder of a bench that has run")
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            bench, rows = dict(stored["bench"]), [{**dict.fromkeys(FIELDS), **row} for row in stored["rows"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{file} is damaged ({type(error).__name__}: {error}); run the same bench again, which keeps "
                "finished cells and writes it anew"
            ) from error
        return cls(Path(folder), bench, rows)

    @property
    def failed(self) -> bool:
        """Whether a cell failed, or what was declared equal is not."""
        return any(row["status"] == "failed" for row in self.rows) or bool(self.broken)

    @property
    def broken(self) -> list[str]:
        """What was declared equal and is not, a sentence each."""
        from ssl_zoo.bench.report.audit import broken_equalities

        return broken_equalities(self.rows, self.bench)

    def as_dict(self) -> dict[str, Any]:
        return {"bench": self.bench, "rows": self.rows}

    def to_csv(self) -> str:
        """The rows as CSV; nested values are JSON."""
        out = io.StringIO()
        writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            nested = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()}
            writer.writerow(nested)
        return out.getvalue()

    def _repr_html_(self) -> str:
        from ssl_zoo.bench.report.html import results_table

        return results_table(self.as_dict(), self.folder)

    def save(self) -> None:
        """Write results.json, results.csv and report.html."""
        from ssl_zoo.bench.report import write_report

        write_text(self.folder / "results.json", json.dumps(self.as_dict(), indent=1))
        write_text(self.folder / "results.csv", self.to_csv())
        write_report(self.folder)


def collect(folder: Path, cells: list[Cell], bench: dict[str, Any]) -> Results:
    """Gather the cells' results (`stopped`: none yet), with their verdicts."""
    found = {cell.folder: read_result(folder / "cells" / cell.folder) for cell in cells}
    rows, notes = [], list(bench["notes"])
    for cell in cells:
        row: dict[str, Any] = {
            **dict.fromkeys(FIELDS),
            "status": "stopped",
            "label": cell.label,
            "method": cell.method,
            "seed": cell.seed,
        }
        row |= {key: value for key, value in found[cell.folder].items() if key in FIELDS}
        rows.append(row)
        notes += _momentum_note(cell, folder / "cells" / cell.folder)
    judge(rows)
    return Results(folder, {**bench, "notes": list(dict.fromkeys(notes))}, rows)


def judge(rows: list[dict[str, Any]]) -> None:
    """Write the verdict on collapse into the methods' rows, each compared with its seed's random row."""
    random = {row["seed"]: row["rankme"] for row in rows if row["label"] == "random"}
    for row in rows:
        if row["status"] in FINISHED and row["method"] is not None:
            row["collapse_verdict"] = collapse_verdict(
                row["feature_std"],
                row["rankme"],
                random_rankme=random.get(row["seed"]),
                steps=row["steps"] or 0,
                finite=True,
            )
        elif (row["error"] or "").startswith("FloatingPointError"):
            row["collapse_verdict"] = "diverged"


def _momentum_note(cell: Cell, place: Path) -> list[str]:
    """A warning if the teacher's horizon 1 / (1 - momentum) is long against the run."""
    momentum = next(iter(logged_records(place)), {}).get("momentum")
    if momentum is None or (share := horizon(momentum) / cell.steps) <= _LONG_HORIZON:
        return []
    return [
        f"{cell.label}: its momentum network averages over {share:.0%} of this short run; "
        "lower its momentum or raise the budget"
    ]
