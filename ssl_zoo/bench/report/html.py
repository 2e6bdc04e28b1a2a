"""One offline page per bench: everything it shows lies inside the file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ssl_zoo.bench.cells import FINISHED
from ssl_zoo.bench.report import figures, galleries
from ssl_zoo.bench.report.comparison import finding
from ssl_zoo.bench.report.summaries import LABEL_FREE, TITLES, Row, is_reference, primary_of, remarks, summary
from ssl_zoo.bench.report.table import MISSING, grid, is_text
from ssl_zoo.bench.report.words import budget, count, is_number, quantity, scaled, sentence
from ssl_zoo.checkpoint import logged_records
from ssl_zoo.files import write_text

_NOT_MEASURED = Markup('<span role="img" aria-label="not measured">&ndash;</span>')
_SMALL = 480  # px: grids of crops narrower than this are shown at twice their size
_AUDITED = {
    "dataset": "Dataset",
    "backbone": "Backbone",
    "batch_size": "Batch size",
    "lr": "Peak learning rate",
    "images_seen": "Images seen",
    "steps": "Optimizer steps",
    "views_seen": "Views seen",
    "train_flops": "Training FLOPs",
    "train_seconds": "Training seconds",
    "peak_memory_bytes": "Peak memory",
    "precision": "Precision",
    "threads": "Threads",
    "device": "Device",
}
_DETAILS = {
    "label": "label",
    "seed": "seed",
    "status": "status",
    "collapse_verdict": "verdict",
    "collapse_cause": "cause",
    "collapse_alarm": "alarm",
    "encoder": "encoder",
    "knn_k": "k",
    "knn_top1": "k-NN top-1 %",
    "knn_top5": "k-NN top-5 %",
    "linear_top1": "linear top-1 %",
    "linear_balanced_accuracy": "balanced accuracy %",
    "map_at_r": "mAP@R %",
    "finetune_top1": "tuned top-1 %",
    "sgd_probe_top1": "SGD probe top-1 %",
    **LABEL_FREE,
    "lr": "peak lr",
    "final_loss": "final loss",
    "steps": "steps",
    "images_seen": "images seen",
    "views_seen": "views seen",
    "train_flops": "FLOPs",
    "train_seconds": "seconds",
    "peak_memory_bytes": "peak memory",
    "precision": "precision",
    "config_hash": "config hash",
}
_WORDS = {
    "label",
    "status",
    "collapse_verdict",
    "collapse_cause",
    "collapse_alarm",
    "encoder",
    "precision",
    "config_hash",
}


Logs = dict[str, dict[int, figures.Logged]]


class Fact(NamedTuple):
    """One audited quantity: its value where all trained runs agree, otherwise its mean per label."""

    name: str
    equal: bool
    value: str


def write_report(folder: Path) -> Path:
    """Write `report.html` into a bench folder and return its path.

    Only `results.json` has to be there: what else is missing is said in words. Raises FileNotFoundError
    without it.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no results.json; write one with: ssl-zoo bench --out {folder}")
    report = folder / "report.html"
    write_text(report, _render("report.html.jinja", _page(folder, _load(file))))
    return report


def results_table(results: Mapping[str, Any], folder: Path | None = None) -> str:
    """The table alone as HTML, for notebooks, with what was compared and who is ahead."""
    return _render("results.html.jinja", _headline(results, folder))


def _render(template: str, context: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = lambda text: _NOT_MEASURED if text == MISSING else text
    return environment.get_template(template).render(context)


def _load(file: Path) -> dict[str, Any]:
    """A JSON object with NaN read as null; empty without the file. Raises ValueError for a broken one."""
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        content: dict[str, Any] = dict(json.loads(text, parse_constant=lambda _: None))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); run the same bench again, it writes it anew"
        ) from error
    return content


def _headline(results: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    bench, rows = results["bench"], results["rows"]
    primary = primary_of(bench)
    summaries = summary(rows, primary)
    table = grid(bench, summaries)
    return {
        "notes": bench.get("notes") or [],
        "sentence": sentence(bench),
        "finding": finding(bench, summaries, folder),
        "remarks": remarks(rows, primary),
        "primary": TITLES.get(primary, primary),
        "table": table,
        "text_columns": [is_text(column, table.header) for column in range(len(table.header))],
        "tone": figures.tones([*(bench.get("methods") or []), *(item.label for item in summaries)]),
        "missing": MISSING,
    }


def _page(folder: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    bench, rows, headline = results["bench"], results["rows"], _headline(results, folder)
    summaries = [item for item, _ in headline["table"].lines]
    scores = figures.score_figure(summaries, primary_of(bench), headline["tone"])
    logs = _logs(folder, rows)
    curves, names = _curves(logs, headline["tone"])
    prototypes = _prototypes(logs, headline["tone"])
    shown = galleries.are_shown(bench)
    views = galleries.crops(folder, rows, summaries) if shown else []
    plan = _load(folder / "plan.json")
    return headline | {
        "name": bench["name"],
        "compared": ", ".join(bench.get("methods") or ["no method"]),
        "facts": _facts(bench),
        "has_scores": bool(scores["data"]),
        "curves": curves,
        "metric_names": names,
        "prototypes": prototypes,
        "prototype_labels": [label for label, seeds in logs.items() if _has_prototypes(seeds)],
        "figures": {"scores": scores, "curves": curves, "prototypes": prototypes},
        "points": figures.POINTS,
        "evaluation": bench.get("evaluation_of"),
        "has_baseline": any(item.is_baseline for item in summaries),
        "images_shown": shown,
        "own_images": bench.get("report_images") != "hide",
        "neighbours": galleries.neighbours(folder, rows, summaries) if shown else [],
        "attention": galleries.attention(folder, rows, summaries) if shown else [],
        "views": views,
        "scale": 2 if max((view.width for view in views), default=0) < _SMALL else 1,
        "audit": _audit(rows),
        "details": [(title, name in _WORDS) for name, title in _DETAILS.items()],
        "detail_lines": [[_written(name, row.get(name)) for name in _DETAILS] for row in rows],
        "errors": [row for row in rows if row.get("error")],
        "roles": list(_flat(_load(folder / "splits.json"))),
        "environment": list(_flat(_load(folder / "environment.json"))),
        "command": bench.get("command"),
        "made": ", ".join(f"{name} {bench[name]}" for name in ("version", "created") if bench.get(name)),
        "plan": json.dumps(plan, indent=1, ensure_ascii=False) if plan else "",
        "plotly": Markup(get_plotlyjs()),
    }


def _facts(bench: Mapping[str, Any]) -> list[tuple[str, str]]:
    size, seeds = bench.get("image_size"), bench.get("seeds") or []
    views = {"recipe": "each method's own recipe", "shared": "the same two global crops for all"}
    facts = {
        "Dataset": bench.get("dataset"),
        "Evaluated on": bench.get("eval_data"),
        "Encoders from": bench.get("evaluation_of"),
        "Backbone": bench.get("backbone"),
        "Starting from": bench.get("init"),
        "Image size": size and f"{size} px",
        "Batch size": bench.get("batch_size"),
        "Budget": budget(bench.get("budget") or {}),
        "Views": views.get(bench.get("views", ""), bench.get("views")),
        "Seeds": ", ".join(map(str, seeds)),
        "Precision": bench.get("precision"),
        "Device": bench.get("device"),
        "Threads": bench.get("threads"),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _logs(folder: Path, rows: Sequence[Row]) -> Logs:
    """Per trained label and seed what was logged."""
    logs: Logs = {}
    for row in rows:
        if not is_reference(row):
            log = logged_records(galleries.cell(folder, row))
            logs.setdefault(row["label"], {})[row["seed"]] = log
    return logs


def _prototypes(logs: Logs, tone: Mapping[str, str]) -> list[figures.Figure]:
    """Entropy of the targets and divergence from them, all methods with prototypes in one chart each."""
    logs = {label: seeds for label, seeds in logs.items() if _has_prototypes(seeds)}
    entropy = figures.overlay_figure(logs, "teacher_entropy", tone, ceiling="uniform_entropy")
    return [figure for figure in (entropy, figures.overlay_figure(logs, "kl", tone)) if figure]


def _has_prototypes(seeds: Mapping[int, figures.Logged]) -> bool:
    return {"teacher_entropy", "kl", "uniform_entropy"} <= set(figures.metric_names(list(seeds.values())))


def _curves(logs: Logs, tone: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Per trained label its figures by metric, and the names of all metrics."""
    names = figures.metric_names([log for seeds in logs.values() for log in seeds.values()])
    curves = []
    for label, seeds in logs.items():
        drawn = {name: figures.curve_figure(seeds, name, tone[label]) for name in names}
        curves.append({"label": label, "figures": {name: figure for name, figure in drawn.items() if figure}})
    return curves, names


def _audit(rows: Sequence[Row]) -> list[Fact]:
    """Every audited quantity over the finished runs of the trained methods."""
    trained = [row for row in rows if not is_reference(row) and row.get("status") in FINISHED]
    facts = []
    for name, title in _AUDITED.items():
        values = {row["label"]: row.get(name) for row in trained if row.get(name) is not None}
        if values:
            different = {row.get(name) for row in trained}
            facts.append(Fact(title, len(different) == 1, _per_label(name, trained, len(different) == 1)))
    return facts


def _per_label(name: str, rows: Sequence[Row], equal: bool) -> str:
    if equal:
        return _written(name, rows[0][name])
    labels: dict[str, list[Any]] = {}
    for row in rows:
        labels.setdefault(row["label"], []).append(row.get(name))
    return ", ".join(f"{label} {_mean(name, values)}" for label, values in labels.items())


def _mean(name: str, values: list[Any]) -> str:
    numbers = [value for value in values if is_number(value)]
    if numbers:
        return _written(name, sum(numbers) / len(numbers))
    return " or ".join(dict.fromkeys(_written(name, value) for value in values))


def _written(name: str, value: Any) -> str:
    if not is_number(value):
        return MISSING if value is None else str(value)
    if name == "train_flops":
        return scaled(value, "FLOP")
    if name == "peak_memory_bytes":
        return scaled(value, "B", base=1024)
    if name in TITLES:
        return f"{100 * value:.1f}"
    return count(value) if value >= 1000 else quantity(value)


def _flat(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as (path, text); a long list is counted instead of written out."""
    for name, value in fields.items():
        path = f"{above} {name}".strip()
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        elif isinstance(value, list) and len(value) > 20:
            yield path, f"{count(len(value))} entries"
        elif isinstance(value, list):
            yield path, ", ".join(map(str, value)) or "none"
        else:
            yield path, "none" if value is None else f"{value:,}" if type(value) is int else str(value)
