"""A cell, the unit that is planned, hashed, run and kept, and the files in which a folder holds its cells."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ssl_zoo.bench.config import BackboneEntry, DataConfig
from ssl_zoo.budget import Budget
from ssl_zoo.files import write_text

Emit = Callable[[dict[str, Any]], None]  # takes what a cell says while it runs

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.npz"  # of a cell: what its classifiers told of the test images
FINISHED = ("done", "collapsed")  # statuses of a cell with a result, which a collapse is; stopped is none


class Shared(BaseModel):
    """What is equal for every cell of a bench, by construction; `init` names the weights to start from.

    A batch passes in `accumulate` parts on each device that shares it. `transfer` holds the fingerprints, by
    name, of the other data sets to evaluate on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    fingerprint: str
    images: int
    backbone: BackboneEntry
    init: str | None
    image_size: int
    batch_size: int
    budget: dict[str, float]
    views: str
    precision: str
    knn_k: tuple[int, ...]
    knn_temperature: float
    primary_metric: str
    finetune: bool = False
    transfer: dict[str, str] = {}
    eval_data: str | None = None
    accumulate: int = 1
    tuning_trials: int = 0


class Cell(BaseModel):
    """One training of so many `steps` and its evaluation: a method (None: a reference) and a seed.

    `options` is the method's whole configuration; what follows `config_hash` is where and how it runs. The
    weights to start from are those of `init`, of `frozen`, an encoder trained elsewhere, or the seed's. A
    `trial` is scored on the selection images alone. `transfer` says where the other data sets lie, by name.
    Its training is shared by `num_devices` ranks, of `threads` each, on each of `num_nodes` machines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    method: str | None
    seed: int
    options: dict[str, Any]
    shared: Shared
    steps: int
    step_flops: int
    trial: bool
    config_hash: str
    init: str | None
    frozen: str | None
    source: str
    data: DataConfig
    transfer: dict[str, str] = {}
    device: str
    threads: int
    workers: int | None
    num_devices: int = 1
    num_nodes: int = 1
    compile: bool = False
    checkpoint_seconds: float
    log_every: int
    curve: int
    mapped: bool
    on_collapse: Literal["warn", "stop"] = "warn"
    plugins: list[str]

    @property
    def ranks(self) -> int:
        """How many processes share it on each machine; what is not trained takes one."""
        return self.num_devices if self.steps else 1

    @property
    def folder(self) -> str:
        return cell_name(self.label, self.seed)


def cell_name(label: str, seed: int) -> str:
    """The name of a cell's folder."""
    return f"{label}-seed{seed}"


def read_plan(folder: Path) -> list[Cell]:
    """The cells of the bench in `folder`; raises FileNotFoundError without one, ValueError if damaged."""
    file = folder / "plan.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; give the folder of a bench")
    return _read_plan(file)


def planned_steps(folder: Path, budget: Budget) -> dict[str, int]:
    """Per label the steps that a bench of this budget in `folder` was planned with; none without one.

    Seconds are measured anew by each plan: a bench that goes on keeps the steps that it began with.
    """
    found = read_plan(folder) if (folder / "plan.json").exists() else []
    asked = budget.model_dump(exclude_none=True)
    return {cell.label: cell.steps for cell in found if cell.shared.budget == asked}


def identity(cell: Cell) -> dict[str, Any]:
    """What names a row, whatever becomes of it."""
    return {
        "label": cell.label,
        "method": cell.method,
        "dataset": cell.shared.dataset,
        "backbone": cell.shared.backbone.name,
        "seed": cell.seed,
        "config_hash": cell.config_hash,
    }


def write_plan(folder: Path, cells: list[Cell]) -> list[Cell]:
    """Write plan.json and each cell.json; a folder may grow by cells that share everything declared equal.

    Cells that have ended stay as they were run. Returns all cells of the folder. Raises ValueError with the
    difference if the folder holds another bench.
    """
    file = folder / "plan.json"
    known = {cell.folder: cell for cell in read_plan(folder)} if file.exists() else {}
    first = next(iter(known.values()), cells[0])
    differences = _differences(first.shared, cells[0].shared)
    for cell in cells:
        if cell.folder in known and known[cell.folder].config_hash != cell.config_hash:
            differences += _option_differences(known[cell.folder], cell)
    _refuse(folder, differences)
    places = {cell.folder: folder / "cells" / cell.folder for cell in cells}
    ended = {name for name in known.keys() & places if read_result(places[name]).get("status") in FINISHED}
    merged = {**known, **{cell.folder: cell for cell in cells if cell.folder not in ended}}
    for name in places.keys() - ended:
        places[name].mkdir(parents=True, exist_ok=True)
        write_text(places[name] / "cell.json", merged[name].model_dump_json(indent=1))
    planned = [cell.model_dump(mode="json") for cell in merged.values()]
    write_text(file, json.dumps({"cells": planned}, indent=1))
    return list(merged.values())


def check_shared(folder: Path, shared: Shared) -> None:
    """Raises ValueError with the difference if `folder` holds a bench with other terms."""
    if (folder / "plan.json").exists():
        _refuse(folder, _differences(read_plan(folder)[0].shared, shared))


def _refuse(folder: Path, differences: list[str]) -> None:
    if differences:
        raise ValueError(
            f"{folder} holds another bench:\n  "
            + "\n  ".join(dict.fromkeys(differences))
            + "\nuse another --out, or --overwrite to discard what is there"
        )


def _read_plan(file: Path) -> list[Cell]:
    try:
        cells = [Cell.model_validate(raw) for raw in json.loads(file.read_text(encoding="utf-8"))["cells"]]
        if not cells:
            raise ValueError("no cells")
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{file} is damaged ({reason}); use another --out, or --overwrite to discard what is there"
        ) from error
    return cells


def read_result(place: Path) -> dict[str, Any]:
    """The result of the cell in the folder `place`; empty if there is none, or none that can be read."""
    file = place / "result.json"
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("%s is damaged (%s): the cell runs again", file, error)
        return {}
    return result


def _differences(old: Shared, new: Shared) -> list[str]:
    return [
        f"{f}: {_written(getattr(old, f))} there, {_written(getattr(new, f))} asked"
        for f in Shared.model_fields
        if getattr(old, f) != getattr(new, f)
    ]


def _written(value: Any) -> str:
    """A field as it is given on the command line."""
    return (
        " ".join(f"{name}={item}" for name, item in value.items()) if isinstance(value, dict) else f"{value}"
    )


def _option_differences(old: Cell, new: Cell) -> list[str]:
    keys = sorted(old.options.keys() | new.options.keys())
    return [
        f"{new.label}.{key}: {old.options.get(key)} there, {new.options.get(key)} asked"
        for key in keys
        if old.options.get(key) != new.options.get(key)
    ]
