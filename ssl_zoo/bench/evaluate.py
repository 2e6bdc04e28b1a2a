"""Encoders of finished runs, evaluated on other data or labels without training: `ssl-zoo eval`."""

import json
import logging
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ssl_zoo.bench import slug
from ssl_zoo.bench.assess import assess, extract_parts
from ssl_zoo.bench.cells import Cell, cell_name
from ssl_zoo.bench.config import DataConfig, EvaluationConfig
from ssl_zoo.bench.plan import open_dataset, short_name
from ssl_zoo.bench.progress import Progress
from ssl_zoo.bench.results import FIELDS, Results, judge
from ssl_zoo.data.datasets import Dataset
from ssl_zoo.data.splits import evaluated_on, roles
from ssl_zoo.evaluation.encoder import load_encoder
from ssl_zoo.evaluation.sgd_probe import LastBlocks, sgd_probe
from ssl_zoo.files import write_text
from ssl_zoo.train import resolve_device

logger = logging.getLogger(__name__)

_ENCODER = "encoder.safetensors"


class _Trained(NamedTuple):
    """An encoder's file, what is known of it as a row, and its cell if a bench made it."""

    file: Path
    row: dict[str, Any]
    cell: Cell | None


def evaluate_run(
    run: Path,
    source: str,
    data: DataConfig,
    *,
    device: str = "auto",
    finetune: bool = False,
    probe: LastBlocks | None = None,
    out: Path | None = None,
    progress: Progress,
) -> Results:
    """Evaluate every finished encoder of `run`, a bench or cell folder or a file, on `source`.

    `finetune` asks for `finetune` as well, `probe` for `sgd_probe` on what it names.
    Writes the results, in the format of a bench, to `out`; None: `evaluations/<source>` beside the
    encoders. k, temperature and primary metric are the run's. Raises FileNotFoundError if there is no
    encoder, ValueError for an `out` that holds a bench, and what `create_dataset` raises.
    """
    run = run.resolve()
    home = run.parent if run.suffix == ".safetensors" else run
    name = slug(short_name(source)) + (f"-{Path(data.labels).stem}" if data.labels else "")
    folder = out or home / "evaluations" / name
    if (folder / "plan.json").exists():
        raise ValueError(f"{folder} is a bench; give another --out")
    found, missing = _find(run)
    dataset, known = _beside_training(_open(source, data, found[0].cell), found[0].cell)
    parts = roles(dataset)
    place = resolve_device(device)

    rows: list[dict[str, Any]] = []
    for trained in found:
        row = {**dict.fromkeys(FIELDS), **trained.row}
        cell = folder / "cells" / cell_name(row["label"], row["seed"])
        cell.mkdir(parents=True, exist_ok=True)
        encoder = load_encoder(trained.file).to(place)
        asked = trained.cell.shared if trained.cell else EvaluationConfig()
        probed: dict[str, float] = {}
        if probe and parts.train.labels is not None:  # first, for what it cannot do it says at once
            probed = sgd_probe(encoder, parts.train, parts.test, probe, seed=row["seed"], device=str(place))
        scores = probed | assess(
            encoder,
            parts,
            extract_parts(encoder, parts),
            cell,
            flip=dataset.flip,
            knn_k=asked.knn_k,
            knn_temperature=asked.knn_temperature,
            finetuned=finetune,
            seed=row["seed"],
            mapped=row["label"] not in {other["label"] for other in rows},
        )
        rows.append(row | {name: value for name, value in scores.items() if name in FIELDS})
        progress.evaluated(cell.name, scores)
    judge(rows)
    summary = parts.summary()
    if not known:
        del summary["pretrain"]
    write_text(folder / "splits.json", json.dumps(summary, indent=1))
    notes = [*dataset.notes, *missing]
    if probe:
        patches = " and its mean patch token" if probe.avgpool_patch_tokens else ""
        notes.append(f"SGD probe of a ViT: class tokens of its last {probe.n_last_blocks} blocks{patches}")
    terms = _terms(home, found, rows, encoder.image_size, place)
    terms |= {"eval_data": short_name(source), "evaluation_of": str(run), "notes": notes}
    results = Results(folder, terms, rows)
    results.save()
    return results


def open_as_trained(encoder: Path, source: str, data: DataConfig) -> Dataset:
    """The data set `source`, its own images read as those were on which this encoder was trained."""
    return _open(source, data, _find(encoder.resolve())[0][0].cell)


def _open(source: str, data: DataConfig, cell: Cell | None) -> Dataset:
    """`source` with the run's window and its treatment of bad images, where they apply."""
    if cell is None or ":" not in source:
        return open_dataset(source, data)
    how = {"window": cell.data.window, "on_bad_image": cell.data.on_bad_image}
    return open_dataset(source, data.model_copy(update=how))


def _find(run: Path) -> tuple[list[_Trained], list[str]]:
    """The encoders of a run, and a note on cells that have none."""
    cells = sorted(path.parent for path in run.glob("cells/*/cell.json"))
    files = [cell / _ENCODER for cell in cells if (cell / _ENCODER).is_file()]
    if not cells:
        files = [run if run.suffix == ".safetensors" else run / _ENCODER]
    elif not files:
        raise FileNotFoundError(f"no cell of {run} has finished; run its bench again to finish it")
    open_cells = [cell.name for cell in cells if cell / _ENCODER not in files]
    notes = [f"not evaluated, because not finished: {', '.join(open_cells)}"] if open_cells else []
    return [_trained(file) for file in files], notes


def _trained(file: Path) -> _Trained:
    planned, result = file.with_name("cell.json"), file.with_name("result.json")
    if planned.is_file() and result.is_file():
        cell = Cell.model_validate_json(planned.read_text())
        row = {name: value for name, value in json.loads(result.read_text()).items() if name in FIELDS}
        return _Trained(file, row, cell)
    card = load_encoder(file).card
    row = {"seed": 0, "label": card.get("method") or file.stem, "status": "done"}
    return _Trained(file, row | {name: value for name, value in card.items() if name in FIELDS}, None)


def _beside_training(data: Dataset, cell: Cell | None) -> tuple[Dataset, bool]:
    """`data` with the images that the run was pretrained on, so that those of its test are noted.

    They are known where the run's own data can be read and is still what it was.
    """
    if cell is not None:
        try:
            training = open_dataset(cell.source, cell.data)
        except (OSError, ValueError) as error:
            logger.info("images seen in pretraining are not counted: %s", error)
        else:
            if roles(training).fingerprint == cell.shared.fingerprint:
                return evaluated_on(training, data), True
    unknown = data.split("pretrain").take(torch.empty(0, dtype=torch.int64))
    return replace(data, splits={**data.splits, "pretrain": unknown}), False


def _terms(
    home: Path, found: list[_Trained], rows: list[dict[str, Any]], image_size: int, device: torch.device
) -> dict[str, Any]:
    """What the report says was equal for all rows: the bench's own words, if there are some."""
    bench = home if (home / "cells").is_dir() else home.parent.parent
    file = bench / "results.json"
    stored = json.loads(file.read_text())["bench"] if found[0].cell and file.is_file() else {}
    return {
        **stored,
        "name": f"{home.name}, evaluated",
        "dataset": rows[0]["dataset"],
        "backbone": rows[0]["backbone"],
        "image_size": image_size,
        "methods": list(dict.fromkeys(row["label"] for row in rows if row["method"] is not None)),
        "seeds": sorted({row["seed"] for row in rows}),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": version("ssl-zoo"),
    }
