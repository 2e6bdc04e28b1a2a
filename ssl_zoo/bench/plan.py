"""The plan of a bench: everything is decided here, frozen and hashed, before anything is trained."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from ssl_zoo.backbones import create_backbone
from ssl_zoo.bench.budget import Cost, measure
from ssl_zoo.bench.config import BackboneEntry, BenchConfig, DataConfig, MethodEntry
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.datasets import Dataset, create_dataset
from ssl_zoo.data.splits import Roles, roles
from ssl_zoo.draws import seed_from
from ssl_zoo.errors import explain
from ssl_zoo.method import Augment, Method, MethodConfig, ViewSpec
from ssl_zoo.nets import Backbone
from ssl_zoo.registry import create_method, method_class
from ssl_zoo.train import resolve_device, resolve_precision

SMALL_IMAGE = 64  # px
_SHARED_VIEW = Augment(32, scale=(0.2, 1.0), blur_p=0.5)
SHARED_VIEWS = ViewSpec(global_views=(_SHARED_VIEW, _SHARED_VIEW))


class Shared(BaseModel):
    """What is equal for every cell of a bench, by construction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    fingerprint: str
    images: int
    backbone: BackboneEntry
    image_size: int
    batch_size: int
    steps: int
    views: str
    precision: str
    knn_k: tuple[int, ...]
    knn_temperature: float
    primary_metric: str


class Cell(BaseModel):
    """One training and its evaluation: a method (None: the untrained backbone) and a seed.

    `options` is the method's whole configuration; what follows `config_hash` is where and how it runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    method: str | None
    seed: int
    options: dict[str, Any]
    shared: Shared
    flops_per_image: int
    config_hash: str
    source: str
    data: DataConfig
    device: str
    threads: int
    workers: int | None
    checkpoint_seconds: float
    log_every: int
    plugins: list[str]

    @property
    def folder(self) -> str:
        return f"{self.label}-seed{self.seed}"


class Plan(NamedTuple):
    """The cells in the order in which they run, the data they run on, and what one image costs per label."""

    cells: list[Cell]
    shared: Shared
    roles: Roles
    dataset: Dataset
    costs: dict[str, Cost]


def plan(config: BenchConfig) -> Plan:
    """Decide everything that a bench does; raises ValueError for what cannot be done as asked."""
    source, data = _absolute(config.dataset), _absolute_data(config.data)
    dataset = open_dataset(source, data)
    parts = roles(dataset)
    native = max(parts.pretrain.largest_side, 16)
    image_size = config.image_size or (native if native <= SMALL_IMAGE else 96)
    small = image_size <= SMALL_IMAGE
    backbone = config.backbone or BackboneEntry(name="resnet8" if small else "resnet18")
    batch_size = config.batch_size or min(256, len(parts.pretrain) // 4)
    if batch_size > len(parts.pretrain):
        raise ValueError(
            f"batch_size={batch_size} exceeds the {len(parts.pretrain)} images to train on; lower it"
        )
    device = resolve_device(config.run.device)
    shared = Shared(
        dataset=short_name(config.dataset),
        fingerprint=parts.fingerprint,
        images=len(parts.pretrain),
        backbone=backbone,
        image_size=image_size,
        batch_size=batch_size,
        steps=config.budget.steps_for(len(parts.pretrain), batch_size),
        views=config.views,
        precision=resolve_precision(config.run.precision, device),
        knn_k=config.evaluation.knn_k,
        knn_temperature=config.evaluation.knn_temperature,
        primary_metric=config.evaluation.primary_metric,
    )
    configs: dict[str, MethodConfig] = {}
    costs: dict[str, Cost] = {}
    for entry in config.methods:
        method_config = _method_config(entry, config.views, len(parts.pretrain))
        views = adapt(method_config.views, image_size, grey=parts.pretrain.grey, flip=dataset.flip)
        configs[entry.label] = method_config.model_copy(update={"views": views})
        method = build(shared, entry.method, configs[entry.label], seed=config.seeds[0])[1]
        costs[entry.label] = measure(method, parts.pretrain, device, shared.precision)  # type: ignore[arg-type]

    def cell(label: str, method: str | None, seed: int) -> Cell:
        options = configs[label].model_dump(mode="json") if method else {}
        asked = {
            "label": label,
            "method": method,
            "seed": seed,
            "options": options,
            "shared": shared.model_dump(mode="json"),
        }
        return Cell(
            label=label,
            method=method,
            seed=seed,
            options=options,
            shared=shared,
            flops_per_image=costs[label].flops_per_image if method else 0,
            config_hash=hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16],
            source=source,
            data=data,
            device=str(device),
            threads=config.run.threads or torch.get_num_threads(),
            workers=config.run.workers,
            checkpoint_seconds=config.run.checkpoint_seconds,
            log_every=config.run.log_every,
            plugins=config.plugins,
        )

    entries = [("random", None), *((entry.label, entry.method) for entry in config.methods)]
    cells = [cell(label, method, seed) for seed in config.seeds for label, method in entries]
    return Plan(cells, shared, parts, dataset, costs)


def open_dataset(source: str, data: DataConfig) -> Dataset:
    """The data set `source`, read as the configuration says."""
    return create_dataset(
        source,
        data.dir,
        labels=data.labels,
        on_bad_image=data.on_bad_image,
        window=data.window,
        transductive=data.transductive,
    )


def short_name(source: str) -> str:
    """A data set's name without the folders above it: `folder:/home/me/photos` is `folder:photos`."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).name}" if colon and kind != "hf" else source


def build(
    shared: Shared, name: str | None, config: MethodConfig | None, seed: int
) -> tuple[Backbone, Method | None]:
    """The backbone, whose weights depend on the seed alone, and the method over it."""
    torch.manual_seed(seed_from(seed, 0))
    backbone = create_backbone(shared.backbone.name, shared.image_size, **shared.backbone.options)
    if name is None or config is None:
        return backbone, None
    torch.manual_seed(seed_from(seed, 1))
    return backbone, create_method(
        name, backbone, **{f: getattr(config, f) for f in type(config).model_fields}
    )


def write_plan(folder: Path, cells: list[Cell], *, overwrite: bool = False) -> list[Cell]:
    """Write plan.json and each cell.json; a folder may grow by cells that share everything declared equal.

    Returns all cells of the folder. Raises ValueError with the difference if the folder holds another bench.
    """
    file = folder / "plan.json"
    known: dict[str, Cell] = {}
    if file.exists() and not overwrite:
        stored = [Cell.model_validate(raw) for raw in json.loads(file.read_text())["cells"]]
        known = {cell.folder: cell for cell in stored}
        differences = _differences(stored[0].shared, cells[0].shared)
        for cell in cells:
            if cell.folder in known and known[cell.folder].config_hash != cell.config_hash:
                differences += _option_differences(known[cell.folder], cell)
        if differences:
            raise ValueError(
                f"{folder} holds another bench:\n  "
                + "\n  ".join(dict.fromkeys(differences))
                + "\nuse another --out, or --overwrite to discard what is there"
            )
    merged = list({**known, **{cell.folder: cell for cell in cells}}.values())
    for cell in cells:
        place = folder / "cells" / cell.folder
        place.mkdir(parents=True, exist_ok=True)
        write_text(place / "cell.json", cell.model_dump_json(indent=1))
    write_text(file, json.dumps({"cells": [cell.model_dump(mode="json") for cell in merged]}, indent=1))
    return merged


def write_text(file: Path, text: str) -> None:
    """Replace a file atomically."""
    temporary = file.with_suffix(file.suffix + ".tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, file)


def _absolute(source: str) -> str:
    """The source with its path absolute, so that a cell runs from anywhere."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if colon and kind != "hf" else source


def _absolute_data(data: DataConfig) -> DataConfig:
    paths = {name: getattr(data, name) for name in ("dir", "labels")}
    return data.model_copy(
        update={
            name: str(Path(path).expanduser().absolute())
            for name, path in paths.items()
            if path not in (None, "none")
        }
    )


def _method_config(entry: MethodEntry, views: str, images: int) -> MethodConfig:
    cls = method_class(entry.method)
    options = {**entry.options, "views": SHARED_VIEWS} if views == "shared" else entry.options
    try:
        return cls.Config(**options).for_data(images)
    except ValidationError as error:
        raise explain(error, cls.Config, entry.label) from None


def _differences(old: Shared, new: Shared) -> list[str]:
    return [
        f"{f}: {getattr(old, f)} there, {getattr(new, f)} asked"
        for f in Shared.model_fields
        if getattr(old, f) != getattr(new, f)
    ]


def _option_differences(old: Cell, new: Cell) -> list[str]:
    keys = sorted(old.options.keys() | new.options.keys())
    return [
        f"{new.label}.{key}: {old.options.get(key)} there, {new.options.get(key)} asked"
        for key in keys
        if old.options.get(key) != new.options.get(key)
    ]
