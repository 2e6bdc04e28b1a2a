"""The benchmark: config -> budget -> plan -> cells -> results."""

import json
import logging
import os
import platform
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ssl_zoo import ranks
from ssl_zoo.bench import config as configuration
from ssl_zoo.bench.cells import FINISHED, Cell, check_shared, planned_steps, read_result, write_plan
from ssl_zoo.bench.config import BenchConfig
from ssl_zoo.bench.executors import create_executor
from ssl_zoo.bench.lock import FILES, one_writer
from ssl_zoo.bench.plan import Plan, plan
from ssl_zoo.bench.progress import Progress
from ssl_zoo.bench.results import Results, collect
from ssl_zoo.bench.run_config import RunConfig
from ssl_zoo.bench.tuning import tune
from ssl_zoo.files import write_text
from ssl_zoo.spare import spare
from ssl_zoo.train import resolve_device

__all__ = ["Results", "bench", "run_bench"]

logger = logging.getLogger(__name__)

_PACKAGES = ("ssl-zoo", "torch", "torchvision", "lightly", "timm", "scikit-learn", "faiss-cpu", "numpy")
_LONG = 30  # minutes; above, the plan also names the budget that fits in _SHORT
_SHORT = 10
_LASTING = ("FloatingPointError", "ValueError", "TypeError")  # what fails again


def bench(
    methods: str | Iterable[Any],
    dataset: str,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **fields: Any,
) -> Results:
    """Train and evaluate methods under one budget; `fields` are bench.yaml's, as `budget={"epochs": 3}`.

    Runs or resumes the bench in the folder `out`. Raises ValueError for a configuration that cannot be run.
    """
    listed = [methods] if isinstance(methods, str) else list(methods)
    config = configuration.load(fields={"methods": listed, "dataset": dataset, **fields})
    with spare(config.run.executor == "local"):
        return run_bench(config, out=out, overwrite=overwrite, progress=Progress(quiet=quiet))


def run_bench(
    config: BenchConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress,
) -> Results:
    """Tune if asked, plan, run the open cells, and write the results.

    Finished cells are kept. KeyboardInterrupt leaves their results behind and is raised again. Of ranks that
    torchrun started, the first does all of this, and the others share its cells. Raises ValueError for what
    cannot be done as asked.
    """
    run = partial(_run_bench, config, out, overwrite, dry_run, progress)
    if ranks.launched() == 1:
        return run()
    from ssl_zoo.bench.on_ranks import follow_first

    ranks.join(resolve_device(config.run.device))
    if ranks.index():
        return follow_first()
    with ranks.alone():
        results = run()
    ranks.first_of(results)  # there are no more cells
    return results


def _run_bench(
    config: BenchConfig, out: str | Path | None, overwrite: bool, dry_run: bool, progress: Progress
) -> Results:
    create_executor(config.run)  # raises before anything is planned
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(out) if out is not None else Path("runs") / f"{slug(config.dataset)}-{stamp}"
    known = {} if overwrite else planned_steps(folder, config.budget)
    planned = plan(config, known)
    progress.planned(planned, folder, estimate(planned, config.tuning.trials))
    if not overwrite:
        check_shared(folder, planned.shared)
    if dry_run:
        return collect(folder, planned.cells, _terms(config, planned))
    with one_writer(folder):
        if overwrite:
            _empty(folder)
        tuning: dict[str, Any] = {"trials": 0}
        if config.tuning.trials:
            chosen, tuning = tune(config, folder / "tuning", partial(run_cells, progress=progress))
            with suppress(FileNotFoundError, ValueError):  # of methods that the folder has already
                before = Results.load(folder).bench["tuning"]
                tuning["methods"] = {**before.get("methods", {}), **tuning["methods"]}
            planned = plan(chosen, known)
        cells = write_plan(folder, planned.cells)
        whole = configuration.grown(config, folder / "bench.yaml")
        terms = _terms(whole, planned) | _growing(config, cells) | {"tuning": tuning}
        _write_context(folder, whole, planned)
        todo = planned.cells
        del planned  # and the images that it holds: each cell has its own
        try:
            run_cells(todo, folder, config.run, progress)
        finally:
            results = collect(folder, cells, terms)
            results.save()
            progress.show(results)
    return results


def run_cells(cells: list[Cell], folder: Path, run: RunConfig, progress: Progress) -> None:
    """Bring the cells of `folder` to their results, references last: methods' first errors come sooner.

    One that failed for a reason that may pass is started again.
    """
    todo, restarted = deque[Cell](), Counter[str]()
    with progress:
        for cell in sorted(cells, key=lambda cell: cell.method is None):
            if read_result(folder / "cells" / cell.folder).get("status") in FINISHED:
                progress.kept(cell)
            else:
                todo.append(cell)
        with closing(create_executor(run)(todo, folder / "cells", progress.follow)) as ended:
            for cell, status in ended:
                result = read_result(folder / "cells" / cell.folder)
                lasting = status != "failed" or result["error"].startswith(_LASTING)
                if lasting or restarted[cell.folder] == run.restarts:
                    progress.finished(cell, status, result)
                else:
                    restarted[cell.folder] += 1
                    progress.restarting(cell, result["error"])
                    todo.appendleft(cell)


def _empty(folder: Path) -> None:
    """Remove a bench from its folder, which stays held."""
    for path in folder.iterdir() if (folder / "plan.json").exists() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in FILES:
            path.unlink()


def estimate(planned: Plan, trials: int = 0) -> dict[str, float]:
    """What the trainings will take: `minutes` here and `bytes` of disk, from a measured step per method.

    So many `trials` of each method are counted as well; `fitting` is the share of the budget that would take
    ten minutes.
    """
    trained = [cell for cell in planned.cells if cell.steps]
    trained += trials * list({cell.label: cell for cell in trained if cell.method}.values())
    seconds = sum(planned.costs[cell.label].step.seconds * cell.steps for cell in trained)
    disk = sum(planned.costs[cell.label].checkpoint_bytes for cell in trained)
    fitting = _SHORT * 60 / seconds if seconds else 1.0
    return {"minutes": seconds / 60, "bytes": disk, "long_minutes": _LONG, "fitting": fitting}


def _terms(config: BenchConfig, planned: Plan) -> dict[str, Any]:
    """What the report says was equal for all rows."""
    shared = planned.shared
    return {
        "name": f"{config.dataset}, {', '.join(m.label for m in config.methods)}",
        "dataset": config.dataset,
        "eval_data": shared.eval_data,
        "images": shared.images,
        "backbone": shared.backbone.name,
        "init": shared.init,
        "image_size": shared.image_size,
        "batch_size": shared.batch_size,
        "budget": shared.budget,
        "given": {entry.label: sorted(entry.options) for entry in config.methods if entry.options},
        "views": shared.views,
        "primary_metric": shared.primary_metric,
        "report_images": config.report.images,
        "precision": shared.precision,
        "device": planned.cells[0].device,
        "threads": planned.cells[0].threads,
        "plugins": config.plugins,
        "notes": planned.notes,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": version("ssl-zoo"),
    }


def _growing(config: BenchConfig, cells: list[Cell]) -> dict[str, Any]:
    """What more cells in the same folder add to."""
    methods = list(dict.fromkeys(cell.label for cell in cells if cell.method is not None))
    return {
        "seeds": sorted({cell.seed for cell in cells}),
        "methods": methods,
        "steps": {cell.label: cell.steps for cell in cells if cell.steps},
        "reference": config.evaluation.reference or methods[0],
    }


def _write_context(folder: Path, config: BenchConfig, planned: Plan) -> None:
    write_text(folder / "bench.yaml", configuration.dump(config))
    write_text(folder / "splits.json", json.dumps(planned.roles.summary(), indent=1))
    write_text(folder / "environment.json", json.dumps(environment(), indent=1))


def environment() -> dict[str, str]:
    """The machine and the versions that numbers come from."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        **({"gpus": _gpus()} if torch.cuda.is_available() else {}),
        **{package: version(package) for package in _PACKAGES},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        return names[0] if names else platform.machine()
    return platform.processor() or platform.machine()


def _gpus() -> str:
    names = Counter(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return ", ".join(f"{count} x {name}" for name, count in names.items())


def slug(dataset: str) -> str:
    """The name of a data set as a part of a path."""
    return "".join(c if c.isalnum() or c == "-" else "-" for c in dataset).strip("-")


class _CallablePackage(ModuleType):
    """`ssl_zoo.bench` names this package and its function; callable, the package is both."""

    def __call__(self, *args: Any, **kwargs: Any) -> Results:
        return bench(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
