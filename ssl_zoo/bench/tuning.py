"""Tuning, the same for every method: as many random settings, all scored on the selection images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_zoo.bench.cells import FINISHED, Cell, planned_steps, read_result, write_plan
from ssl_zoo.bench.config import TRIAL_SEED, BenchConfig, MethodEntry, TuningConfig
from ssl_zoo.bench.plan import plan
from ssl_zoo.bench.run_config import RunConfig
from ssl_zoo.registry import method_class

_METRICS = {"linear_top1": "curve_ridge_top1"}  # primary metric -> what a trial is scored by
_DRAWS = 0  # seed of the settings


def tune(
    config: BenchConfig, folder: Path, run_cells: Callable[[list[Cell], Path, RunConfig], None]
) -> tuple[BenchConfig, dict[str, Any]]:
    """Try settings of every method under the bench's budget; returns the bench with the best, and a report.

    Trial 0 of a method is its configuration as given, the others are drawn from `MethodConfig.space` without
    the fields that were given. All share a seed that the comparison does not use. `run_cells` brings cells to
    their results. Raises ValueError without labels to choose by, or if no trial of a method ended.
    """
    trials = {entry.label: _settings(entry, config.tuning.trials) for entry in config.methods}
    entries = [
        entry.model_copy(update={"label": _name(entry.label, number), "options": _with(entry.options, drawn)})
        for entry in config.methods
        for number, drawn in enumerate(trials[entry.label])
    ]
    alone = {
        "methods": entries,
        "seeds": [TRIAL_SEED],
        "references": [],
        "frozen": [],
        "tuning": TuningConfig(),
        "evaluation": config.evaluation.model_copy(update={"transfer": []}),  # no trial would look at them
    }
    planned = plan(config.model_copy(update=alone), planned_steps(folder, config.budget), trials=True)
    if not planned.roles.folds:
        raise ValueError("tuning.trials needs labels to choose by; set it to 0, or give --labels")
    write_plan(folder, planned.cells)
    run_cells(planned.cells, folder, config.run)

    results = {cell.label: read_result(folder / "cells" / cell.folder) for cell in planned.cells}
    metric = _METRICS.get(config.evaluation.primary_metric, "curve_knn_top1")
    report: dict[str, Any] = {"trials": config.tuning.trials, "metric": metric, "methods": {}}
    methods = []
    for entry in config.methods:
        own = [results[_name(entry.label, number)] for number in range(config.tuning.trials)]
        scores = [_score(result, metric) for result in own]
        scored = [number for number, score in enumerate(scores) if score is not None]
        if not scored:
            raise ValueError(f"no trial of {entry.label} ended with a score; see {folder / 'cells'}")
        best = max(scored, key=lambda number: scores[number] or 0.0)
        setting = trials[entry.label][best]
        methods.append(entry.model_copy(update={"options": _with(entry.options, setting)}))
        report["methods"][entry.label] = {
            "chosen": best,
            "setting": setting,
            "scores": scores,
            "train_flops": sum(result.get("train_flops") or 0 for result in own),
            "train_seconds": sum(result.get("train_seconds") or 0.0 for result in own),
        }
    return config.model_copy(update={"methods": methods}), report


def _name(label: str, number: int) -> str:
    return f"{label}-trial{number:02d}"


def _score(result: Mapping[str, Any], metric: str) -> float | None:
    return result["final_metrics"].get(metric) if result.get("status") in FINISHED else None


def _settings(entry: MethodEntry, trials: int) -> list[dict[str, Any]]:
    """What each trial changes in the configuration as given."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler  # a second that few benches need

    given = {*entry.options, *(f"optim.{name}" for name in entry.options.get("optim", {}))}
    config = method_class(entry.method).Config(**entry.options)
    space = {name: values for name, values in config.space().items() if name not in given}
    if trials > len(ParameterGrid(space)):
        raise ValueError(
            f"tuning.trials={trials}, but {entry.label} has {len(ParameterGrid(space))} settings of "
            f"{', '.join(space)}; lower it, so that every method has as many trials"
        )
    return [{}, *ParameterSampler(space, trials - 1, random_state=_DRAWS)] if trials > 1 else [{}]


def _with(options: Mapping[str, Any], setting: Mapping[str, Any]) -> dict[str, Any]:
    """The options with a setting's dotted fields."""
    result = dict(options)
    for name, value in setting.items():
        section, dot, field = name.rpartition(".")
        result |= {section: {**result.get(section, {}), field: value}} if dot else {name: value}
    return result
