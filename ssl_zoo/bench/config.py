"""The configuration of a bench: a YAML file, flags and `--set` assignments, merged and checked."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator, model_validator

from ssl_zoo.bench.assignments import leaves, merge, nested
from ssl_zoo.bench.plugins import anywhere, check_trusted, import_plugin
from ssl_zoo.bench.run_config import STRICT, Count, RunConfig
from ssl_zoo.bench.yaml_text import MOST_BYTES, one_line, parse
from ssl_zoo.budget import Budget
from ssl_zoo.errors import explain
from ssl_zoo.registry import list_methods

T = TypeVar("T")
Seed = Annotated[int, Field(ge=0, lt=2**63)]

RESERVED = ("random", "init", "supervised", "pixels")
TRIAL_SEED = 10**9  # of the trials that tune a method; seeds of a comparison are fresh

_LONGEST_LABEL = 60  # characters: with its seed it names a folder
_MOST_SEEDS = 1000
_OPTIONS = TypeAdapter(dict[str, Any])
_NAMES = TypeAdapter(list[str])


class Section(BaseModel):
    model_config = STRICT


class MethodEntry(Section):
    """A row of the comparison: a method under a label, with options that differ from its defaults."""

    method: str
    label: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"method": value, "label": value}
        if isinstance(value, Mapping) and "options" not in value:
            own = {key: value[key] for key in ("method", "label") if key in value}
            rest = {key: item for key, item in value.items() if key not in own}
            return {"label": value.get("method", "?"), **own, "options": rest}
        return value

    @field_validator("label")
    @classmethod
    def _names_a_folder(cls, label: str) -> str:
        if not label or not all(c.isalnum() or c in "-_.+" for c in label) or label[0] == ".":
            raise ValueError("a label names a folder: use letters, digits, '-', '_', '.', '+'")
        if len(label) > _LONGEST_LABEL:
            raise ValueError(f"a label names a folder: use at most {_LONGEST_LABEL} characters")
        if label in RESERVED:
            raise ValueError(f"{', '.join(RESERVED)} label the references")
        return label


class BackboneEntry(Section):
    """A backbone by name, with its options."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and "options" not in value:
            own = {"name": value["name"]} if "name" in value else {}
            return {**own, "options": {k: v for k, v in value.items() if k != "name"}}
        return value


class DataConfig(Section):
    """Where the images lie and how they are read: see `create_dataset`."""

    dir: str | None = None
    labels: str | None = None
    eval: str | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    window: Literal["dtype", "percentile"] | tuple[float, float] = "dtype"
    transductive: bool = False


class EvaluationConfig(Section):
    knn_k: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 5, 10, 20, 100, 200)
    knn_temperature: Annotated[float, Field(ge=0.002)] = 0.07
    primary_metric: Literal["knn_top1", "linear_top1", "map_at_r"] = "knn_top1"
    reference: str | None = None
    curve: Annotated[int, Field(ge=0, le=100)] = 5
    finetune: bool = False
    transfer: list[str] = []


class TuningConfig(Section):
    """How many settings of each method are tried before the comparison; 0: its defaults are compared."""

    trials: Annotated[int, Field(ge=0, le=1000)] = 0


class ReportConfig(Section):
    images: Literal["auto", "show", "hide"] = "auto"


class BenchConfig(Section):
    """Everything a bench was asked; None where the data set decides (image size, backbone, batch size)."""

    methods: Annotated[list[MethodEntry], Field(min_length=1)] = []
    dataset: str = ""
    backbone: BackboneEntry | None = None
    init: str | None = None
    frozen: list[str] = []
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    batch_size: Annotated[int, Field(ge=2)] | None = None
    budget: Budget = Budget(epochs=20)
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=_MOST_SEEDS)] = [0]
    views: Literal["recipe", "shared"] = "recipe"
    references: list[Literal["supervised", "pixels"]] = []
    tuning: TuningConfig = TuningConfig()
    data: DataConfig = DataConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()
    report: ReportConfig = ReportConfig()
    plugins: list[str] = []

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, seeds: Any) -> Any:
        if type(seeds) is not int:
            return seeds
        if seeds < 1:
            raise ValueError("give a number of seeds from 1 on, or a list of them in a YAML file")
        return list(range(min(seeds, _MOST_SEEDS + 1)))

    @model_validator(mode="after")
    def _complete(self) -> "BenchConfig":
        if not self.methods or not self.dataset:
            missing = "methods" if not self.methods else "dataset"
            raise ValueError(f"{missing} is missing; write --{missing}, or give it in --config FILE")
        labels = [*RESERVED, *(m.label for m in self.methods), *map(frozen_label, self.frozen)]
        for what, items in (("labels", labels), ("seeds", self.seeds), ("references", self.references)):
            if len(set(items)) != len(items):
                raise ValueError(f"{what} must differ: {items}; give variants a `label` of their own")
        if self.tuning.trials and TRIAL_SEED in self.seeds:
            raise ValueError(f"seed {TRIAL_SEED} is the one of the tuning trials; compare with fresh ones")
        return self


def frozen_label(source: str) -> str:
    """The label of an encoder trained elsewhere: timm's name, the file's, or bench and cell of a run."""
    path = Path(source)
    folder = path.parent if path.name == "encoder.safetensors" else path
    if source.startswith("timm:"):
        name = source.removeprefix("timm:")
    elif path.is_dir() or folder != path:
        name = "-".join([part for part in folder.absolute().parts if part != "cells"][-2:])
    else:
        name = path.stem
    return "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name).strip("-.")


def load(
    file: str | Path | None = None,
    fields: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
) -> BenchConfig:
    """Merge a YAML file, given fields and `section.field=value` assignments, in this order, and check them.

    A section named like a method (`dino: {out_dim: 8192}`) holds options for all entries of that method, an
    entry may differ from it, and an assignment (`dino.out_dim=8192`) changes both; not where entries differ.
    Imports the plugins given; a file alone may not name any, as files are passed on and plugins are code.
    Raises ValueError saying which field is wrong, what was given, what is allowed.
    """
    raw = _read(Path(file)) if file is not None else {}
    named = raw.pop("plugins", None)
    _change(raw, fields or {})
    asked = [nested(assignment) for assignment in assignments]
    for change in asked:
        if "plugins" in change:  # they may register the methods that other assignments are about
            merge(raw, change)
    plugins, named = (_checked(_NAMES, names or [], "plugins") for names in (raw.get("plugins"), named))
    check_trusted(named, plugins, str(file))
    for plugin in plugins:
        import_plugin(plugin)
    raw["plugins"] = [anywhere(plugin) for plugin in plugins]
    names, assigned = set(list_methods()), dict[str, Any]()
    sections = {name: _checked(_OPTIONS, raw.pop(name), name) for name in names & raw.keys()}
    for change in asked:
        if change.keys() & names:
            merge(assigned, change)
        elif "plugins" not in change:
            _change(raw, change)
    try:
        config = BenchConfig.model_validate(raw)
    except ValidationError as error:
        raise explain(error, BenchConfig) from None
    unused = (sections.keys() | assigned.keys()) - {entry.method for entry in config.methods}
    if unused:
        raise ValueError(f"options for {sorted(unused)}, which this bench does not run; add it to methods")
    return config.model_copy(update={"methods": _with_options(config.methods, sections, assigned)})


def _with_options(
    entries: list[MethodEntry], sections: dict[str, dict[str, Any]], assigned: dict[str, Any]
) -> list[MethodEntry]:
    """The entries with their section's options below their own and what was assigned above."""
    for name, options in assigned.items():
        given: dict[str, Any] = _checked(_OPTIONS, options, name)
        own = [leaves(entry.options) for entry in entries if entry.method == name]
        for path in leaves(given):
            if any(values.get(path) != own[0].get(path) for values in own):
                raise ValueError(
                    f"--set {name}.{path}: variants of {name} differ in it; change it in each of them"
                )
    whole = []
    for entry in entries:
        merged = copy.deepcopy(sections.get(entry.method, {}))
        for update in (entry.options, assigned.get(entry.method, {})):
            merge(merged, copy.deepcopy(update))
        whole.append(entry.model_copy(update={"options": merged}))
    return whole


def dump(config: BenchConfig) -> str:
    """The configuration as YAML that `load` reads back to the same."""
    raw = config.model_dump(mode="json", exclude_none=True)
    raw["methods"] = [{"method": m.method, "label": m.label, **m.options} for m in config.methods]
    if config.backbone:
        raw["backbone"] = {"name": config.backbone.name, **config.backbone.options}
    return yaml.safe_dump(raw, sort_keys=False)


def grown(config: BenchConfig, file: Path) -> BenchConfig:
    """`config` with what the bench.yaml of its folder, `file`, named before: what is there stays."""
    try:
        before = BenchConfig.model_validate(_read(file))
    except ValueError:  # none there, or none that can be read
        return config

    def both(name: str) -> list[Any]:
        return [*getattr(before, name), *getattr(config, name)]

    methods = {entry.label: entry for entry in both("methods")}
    frozen = {frozen_label(source): source for source in both("frozen")}
    lists = {
        "methods": list(methods.values()),
        "frozen": list(frozen.values()),
        "seeds": sorted({*both("seeds")}),
    }
    once = {name: list(dict.fromkeys(both(name))) for name in ("references", "plugins")}
    return config.model_copy(update={**lists, **once})


def _change(raw: dict[str, Any], update: Mapping[str, Any]) -> None:
    """Merge `update` into `raw`: a budget has one field, a backbone may be a name."""
    if isinstance(raw.get("backbone"), str) and isinstance(update.get("backbone"), Mapping):
        raw["backbone"] = {"name": raw["backbone"]}
    if "budget" in update:
        raw.pop("budget", None)
    merge(raw, update)


def _checked(kind: TypeAdapter[T], value: Any, path: str) -> T:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise explain(error, BenchConfig, path) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES + 1).decode("utf-8-sig")
        raw = parse(text, f"--config {file}")
    except FileNotFoundError:
        raise ValueError(f"--config {file}: no such file") from None
    except UnicodeDecodeError:
        raise ValueError(f"--config {file}: not UTF-8 text; give a YAML file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"--config {file}: not valid YAML: {one_line(error)}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"--config {file}: expected `field: value` lines, got {type(raw).__name__}")
    return raw
