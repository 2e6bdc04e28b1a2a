"""One bench folder rebuilt, or several that are comparable as one."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssl_zoo.bench.cells import FINISHED, cell_name
from ssl_zoo.bench.report.provenance import load_json
from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.bench.report.summaries import is_reference
from ssl_zoo.bench.results import Results

_EQUAL = {
    "dataset": "data",
    "eval_data": "evaluation data",
    "images": "images to train on",
    "backbone": "backbone",
    "init": "weights to start from",
    "image_size": "image size",
    "batch_size": "batch size",
    "budget": "budget",
    "views": "views",
    "precision": "precision",
    "primary_metric": "primary metric",
}
_PLANNED = (
    "fingerprint",
    "backbone",
    "knn_k",
    "knn_temperature",
    "finetune",
    "transfer",
    "accumulate",
)  # further terms that plan.json holds
_MACHINE = ("device", "threads")  # may differ: what they change is read from the rows


def merge(runs: Sequence[Path], out: Path) -> Results:
    """The rows of several bench folders as one bench in `out`, which is not written yet.

    What was declared equal must be equal in all of them, and a label stand for the same method in each.
    Untrained rows that several share are taken once. Logs and pictures stay where they are. Raises ValueError
    with the difference, or with the label and seed that two of them hold, FileNotFoundError for a folder
    without results.
    """
    loaded = [Results.load(run) for run in runs]
    _check_equal(loaded)
    rows: dict[str, dict[str, Any]] = {}
    owners: dict[str, Results] = {}
    homes: dict[str, str] = {}
    for results in loaded:
        sources = Sources(results.folder, results.bench)
        for row in results.rows:
            name = cell_name(row["label"], row["seed"])
            if name in rows and not (is_reference(row) and row["config_hash"] == rows[name]["config_hash"]):
                raise ValueError(
                    f"{owners[name].folder} and {results.folder} both hold {row['label']} seed "
                    f"{row['seed']}; leave one of them out, or give its variant another label"
                )
            if name not in rows or rows[name]["status"] not in FINISHED:
                rows[name], owners[name], homes[name] = row, results, _from(out, sources.home(row))
    return Results(out, _terms(loaded, list(rows.values()), homes), list(rows.values()))


def check_target(out: Path, runs: Sequence[Path]) -> None:
    """Raises ValueError where a merged bench may not be written: in a folder that holds something else."""
    if out.resolve() in {run.resolve() for run in runs}:
        raise ValueError(f"--out {out} is one of the runs; give a new folder")
    known = load_json(out / "results.json").get("bench") or {}
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and "runs" not in known:
        raise ValueError(f"--out {out} holds something else; give a new folder")


def _check_equal(loaded: Sequence[Results]) -> None:
    first, others = loaded[0], loaded[1:]
    for other in others:
        here, there = _declared(first.bench), _declared(other.bench)
        differences = [
            f"{title}: {_said(here[title])} in {first.folder}, {_said(there[title])} in {other.folder}"
            for title in here
            if here[title] != there[title]
        ]
        differences = differences or _planned_differences(first, other)
        if differences:
            listed = "\n  ".join(differences)
            raise ValueError(f"these benches are not comparable:\n  {listed}\nrun one again with equal terms")


def _declared(bench: Mapping[str, Any]) -> dict[str, Any]:
    """By title what must be equal in benches that are merged."""
    tuning = bench.get("tuning") or {}
    trials = {name: tuning[name] for name in ("trials", "metric") if tuning.get(name)}
    return {title: bench.get(name) for name, title in _EQUAL.items()} | {"tuning": trials}


def _planned_differences(first: Results, other: Results) -> list[str]:
    """What their folders say differs: the content of the data, options of backbone or k-NN, or of a label."""
    here, there = (_planned_cells(results) for results in (first, other))
    differences = []
    tested = [_evaluated(results) for results in (first, other)]
    if "" not in tested and tested[0] != tested[1]:
        differences.append(f"images or labels evaluated on: they differ in {first.folder} and {other.folder}")
    if here and there:
        shared = [next(iter(cells.values()))["shared"] for cells in (here, there)]
        differences += [
            f"{name}: {_said(shared[0].get(name))} in {first.folder}, "
            f"{_said(shared[1].get(name))} in {other.folder}"
            for name in _PLANNED
            if shared[0].get(name) != shared[1].get(name)
        ]
    for label in here.keys() & there.keys():
        old, new = here[label]["options"], there[label]["options"]
        differences += [
            f"{label}.{key}: {_said(old.get(key))} in {first.folder}, {_said(new.get(key))} in {other.folder}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
    return differences


def _evaluated(results: Results) -> str:
    """The fingerprint of the images and labels of train and test, empty if it is not known."""
    folder = next(iter(Sources(results.folder, results.bench).runs.values()))
    return str(load_json(folder / "splits.json").get("evaluation") or "")


def _planned_cells(results: Results) -> dict[str, dict[str, Any]]:
    """A planned cell of each label, where plans are found."""
    folders = Sources(results.folder, results.bench).runs.values()
    plans = [load_json(folder / "plan.json").get("cells") or [] for folder in folders]
    return {cell["label"]: cell for cells in plans for cell in cells}


def _terms(
    loaded: Sequence[Results], rows: Sequence[dict[str, Any]], homes: Mapping[str, str]
) -> dict[str, Any]:
    first = loaded[0].bench
    runs: dict[str, list[str]] = {}
    for name, home in homes.items():
        runs.setdefault(home, []).append(name)

    def listed(name: str) -> list[Any]:
        return list(dict.fromkeys(item for results in loaded for item in results.bench.get(name) or []))

    def by_label(benches: Iterable[Mapping[str, Any]], name: str) -> dict[str, Any]:
        return {label: item for bench in benches for label, item in (bench.get(name) or {}).items()}

    methods, tunings = listed("methods"), [results.bench.get("tuning") or {} for results in loaded]
    terms = first | {
        "name": f"{first.get('dataset')}, {', '.join(methods)}",
        "methods": methods,
        "seeds": sorted({row["seed"] for row in rows}),
        "steps": {row["label"]: row["steps"] for row in rows if row["steps"]},
        "notes": listed("notes"),
        "plugins": listed("plugins"),
        "given": by_label([results.bench for results in loaded], "given"),
        "tuning": tunings[0] | ({"methods": tuned} if (tuned := by_label(tunings, "methods")) else {}),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": version("ssl-zoo"),
        "runs": runs,
    }
    for name in _MACHINE:
        values = dict.fromkeys(str(results.bench.get(name)) for results in loaded)
        if len(values) > 1:
            terms[name] = " or ".join(values)
            terms["notes"].append(f"{name} differs between the merged benches: {terms[name]}")
    return terms


def _from(out: Path, home: Path) -> str:
    """The folder `home` as seen from `out`, so that both can be moved together."""
    try:
        return os.path.relpath(home.resolve(), out.resolve())
    except ValueError:  # another drive
        return str(home.resolve())


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "none"
    return "none" if value is None else str(value)
