"""Run the cells of a bench again, from their plan, and say how close the results come."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

from ssl_zoo.bench import environment, run_cells
from ssl_zoo.bench.cells import FINISHED, Cell, read_plan, read_result, write_plan
from ssl_zoo.bench.lock import one_writer
from ssl_zoo.bench.plugins import check_trusted
from ssl_zoo.bench.progress import Progress
from ssl_zoo.bench.results import MEASURED
from ssl_zoo.bench.run_config import RunConfig
from ssl_zoo.spare import spare

_ENCODER = "encoder.safetensors"


class Reproduced(NamedTuple):
    """One cell, run again: `verdict` is bit-equal, within seed noise, different or failed; `words` why."""

    cell: str
    verdict: str
    words: str

    @property
    def agrees(self) -> bool:
        return self.verdict in ("bit-equal", "within seed noise")


def reproduce(
    run: Path,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    only: Sequence[str] = (),
    plugins: Sequence[str] = (),
    progress: Progress,
) -> list[Reproduced]:
    """Run the finished cells of the bench in `run` (all, or `only` those named) in the folder `out`.

    None: `<run>-again` beside it; the same call goes on where it stopped. `data_dir` is where the data lies
    now, `plugins` are those of its plan that are trusted. Raises FileNotFoundError if there is no bench,
    ValueError for a cell that it does not hold and for a plug-in that is not given.
    """
    cells = {cell.folder: cell for cell in read_plan(run)}
    done = {name for name in cells if read_result(run / "cells" / name).get("status") in FINISHED}
    if wrong := [name for name in only if name not in done]:
        raise ValueError(
            f"{run} has no finished cell {', '.join(wrong)}; there are {', '.join(sorted(done))}"
        )
    if not done:
        raise ValueError(f"{run} has no finished cell; run its bench to the end of one first")
    folder = out or run.resolve().with_name(f"{run.resolve().name}-again")
    again = [_moved(cells[name], data_dir) for name in cells if name in (only or done)]
    check_trusted((name for cell in again for name in cell.plugins), plugins, str(run / "plan.json"))
    with spare(), one_writer(folder):
        write_plan(folder, again)
        run_cells(again, folder, RunConfig(), progress)
    spread = _spreads(run, cells, again[0].shared.primary_metric)
    changed = _changed(run)
    return [_compare(cell, run, folder, spread.get(cell.label), changed) for cell in again]


def _moved(cell: Cell, data_dir: Path | None) -> Cell:
    if data_dir is None:
        return cell
    data = cell.data.model_copy(update={"dir": str(data_dir.expanduser().absolute())})
    return cell.model_copy(update={"data": data})


def _spreads(run: Path, cells: Mapping[str, Cell], metric: str) -> dict[str, float]:
    """Per label how far two runs of different seeds lie apart in 95 % of cases: t(n - 1) s sqrt(2)."""
    scores: dict[str, list[float]] = defaultdict(list)
    for name, cell in cells.items():
        if (score := read_result(run / "cells" / name).get(metric)) is not None:
            scores[cell.label].append(score)
    return {
        label: float(stdtrit(len(values) - 1, 0.975)) * stdev(values) * sqrt(2)
        for label, values in scores.items()
        if len(values) > 1
    }


def _changed(run: Path) -> str:
    """What of machine and versions is not as it was."""
    file = run / "environment.json"
    then = json.loads(file.read_text()) if file.is_file() else {}
    now = environment()
    return ", ".join(
        f"{name} {then.get(name, 'unknown')} then, {value} now"
        for name, value in now.items()
        if name != "started" and then.get(name) != value
    )


def _compare(cell: Cell, run: Path, folder: Path, spread: float | None, changed: str) -> Reproduced:
    first, second = (read_result(place / "cells" / cell.folder) for place in (run, folder))
    if second.get("status") not in FINISHED:
        return Reproduced(cell.folder, "failed", second.get("error", "it did not finish"))
    different = [
        name
        for name in first
        if name not in MEASURED and _comparable(first[name]) != _comparable(second.get(name))
    ]
    weights = [place / "cells" / cell.folder / _ENCODER for place in (run, folder)]
    if all(file.is_file() for file in weights) and weights[0].read_bytes() != weights[1].read_bytes():
        different.append("the encoder's weights")
    if not different:
        return Reproduced(cell.folder, "bit-equal", "every score, and the encoder's weights")
    metric = cell.shared.primary_metric
    words = f"{', '.join(different[:5])} differ{' and more' if len(different) > 5 else ''}"
    if first.get(metric) is None or second.get(metric) is None:
        return Reproduced(cell.folder, "different", _joined(words, changed))
    gap = second[metric] - first[metric]
    words = f"{metric} {first[metric]:.4f} then, {second[metric]:.4f} now; {words}"
    if spread is None:
        return Reproduced(cell.folder, "different", _joined(f"{words}; one seed tells no noise", changed))
    verdict = "within seed noise" if abs(gap) <= spread else "different"
    return Reproduced(cell.folder, verdict, _joined(f"{words}; seeds differ by up to {spread:.4f}", changed))


def _comparable(value: Any) -> Any:
    """A stored value without what was measured by a clock."""
    if isinstance(value, Mapping):
        return {name: item for name, item in value.items() if name not in MEASURED}
    return value


def _joined(words: str, changed: str) -> str:
    return f"{words}; {changed or 'machine and versions are the same'}"
