"""One offline page per bench: everything it shows lies inside the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ssl_zoo.bench.report import figures, galleries, training
from ssl_zoo.bench.report.audit import audit, broken_equalities, written
from ssl_zoo.bench.report.comparison import finding
from ssl_zoo.bench.report.confusion import Confusions, confusions
from ssl_zoo.bench.report.maps import Maps, maps, sheet
from ssl_zoo.bench.report.more_scores import more_scores
from ssl_zoo.bench.report.provenance import facts, few_labels, load_json, provenance
from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.bench.report.summaries import LABEL_FREE, TITLES, primary_of, remarks, summary
from ssl_zoo.bench.report.table import MISSING, grid, is_text
from ssl_zoo.bench.report.words import sentence
from ssl_zoo.files import write_text

MOST_BYTES = 8_000_000
_ROOM = (1_500_000, 500_000, 0)  # bytes for pictures; less is tried where the page would be too large
_NOT_MEASURED = Markup('<span role="img" aria-label="not measured">&ndash;</span>')
_SMALL = 480  # px: grids of crops narrower than this are shown at twice their size
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


def write_report(folder: Path) -> Path:
    """Write `report.html`, below 8 MB, into a bench folder and return its path.

    Only `results.json` has to be there: what else is missing is said in words; of many or large pictures
    those are left out that would make the page too large. Raises FileNotFoundError without `results.json`.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no results.json; write one with: ssl-zoo bench --out {folder}")
    results = load_json(file)
    for room in _ROOM:
        page = _render("report.html.jinja", _page(folder, results, room))
        if len(page.encode()) < MOST_BYTES:
            break
    report = folder / "report.html"
    write_text(report, page)
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
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.get_template(template).render(context)


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


def _page(folder: Path, results: Mapping[str, Any], room: int) -> dict[str, Any]:
    """Everything that the template names; pictures may take `room` bytes."""
    bench, rows, headline = results["bench"], results["rows"], _headline(results, folder)
    primary = primary_of(bench)
    sources, tone = Sources(folder, bench), headline["tone"]
    summaries = [item for item, _ in headline["table"].lines]
    labels = [item.label for item in summaries]
    logs = training.training_logs(sources, rows)
    shown = galleries.are_shown(bench)
    album = galleries.Album(sources, rows, room if shown else 0)
    views = album.crops(summaries) if shown else []
    scores = figures.score_figure(summaries, primary, tone)
    cost, curves = training.costs(logs, tone), training.diagnostics(logs, tone)
    prototypes = training.prototypes(logs, tone)
    confused = confusions(sources, rows, labels, primary)
    mapped = maps(sources, rows, labels)
    return headline | {
        "name": bench["name"],
        "facts": facts(bench),
        "has_scores": bool(scores["data"]),
        "cost": cost,
        "broken": broken_equalities(rows, bench),
        "few": few_labels(sources),
        "curves": curves,
        "prototypes": prototypes,
        "labels": labels,
        "more_scores": more_scores(rows, labels),
        "confused": confused,
        "mapped": mapped,
        "sheet": sheet(sources) if shown and room and mapped else None,
        "figures": _charts(scores, cost, curves, prototypes, confused, mapped),
        "points": figures.POINTS,
        "evaluation": bench.get("evaluation_of"),
        "images_shown": shown,
        "own_images": bench.get("report_images") != "hide",
        "neighbours": album.kept(summaries, "neighbours.png") if shown else [],
        "attention": album.kept(summaries, "attention.png") if shown else [],
        "views": views,
        "scale": 2 if max((view.width for view in views), default=0) < _SMALL else 1,
        "audit": audit(rows, bench),
        "details": [(title, name in _WORDS) for name, title in _DETAILS.items()],
        "detail_lines": [[written(name, row.get(name)) for name in _DETAILS] for row in rows],
        "errors": [row for row in rows if row.get("error")],
        "runs": provenance(sources),
        "made": ", ".join(f"{name} {bench[name]}" for name in ("version", "created") if bench.get(name)),
        "files": {
            name: (folder / name).read_text(encoding="utf-8")
            for name in ("results.json", "results.csv")
            if (folder / name).is_file()
        },
        "plotly": Markup(get_plotlyjs()),
    }


def _charts(
    scores: figures.Figure,
    cost: Mapping[str, Any],
    curves: Mapping[str, Any],
    prototypes: Mapping[str, Any],
    confused: Confusions | None,
    mapped: Maps | None,
) -> dict[str, Any]:
    """The figures as the page's script finds them: by the path in the `data-chart` of their place."""
    return {
        "scores": scores,
        "cost": cost["figures"],
        "curves": curves["figures"],
        "prototypes": prototypes["figures"],
        "confused": (confused and confused.figures) or [],
        "maps": mapped.figures if mapped else [],
        "images": mapped.images if mapped else [],
    }
