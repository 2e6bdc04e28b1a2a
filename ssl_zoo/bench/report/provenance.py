"""Where numbers come from: the terms of the bench, its data, machine and the commands that repeat it."""

import json
import shlex
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.bench.report.words import VIEWS, budget, count, tuned
from ssl_zoo.data.splits import SELECTION_FROM

_MANY = 1000  # test images; with fewer, a score of 50 % is known to no better than 3 points (95 %)
_LONG_PLAN = 100_000  # characters; a longer one stays in its file

Pairs = list[tuple[str, str]]


class Run(NamedTuple):
    """What one bench of the report was made of: `name` is "" where nothing was merged."""

    name: str
    roles: Pairs
    environment: Pairs
    commands: list[str]
    config: str
    plan: str


def facts(bench: Mapping[str, Any]) -> Pairs:
    """What was equal for all rows, as the page's head names it."""
    size, seeds = bench.get("image_size"), bench.get("seeds") or []
    named = {
        "Dataset": bench.get("dataset"),
        "Evaluated on": bench.get("eval_data"),
        "Encoders from": bench.get("evaluation_of"),
        "Backbone": bench.get("backbone"),
        "Starting from": bench.get("init"),
        "Image size": size and f"{size} px",
        "Batch size": bench.get("batch_size"),
        "Budget": budget(bench.get("budget") or {}),
        "Views": VIEWS.get(bench.get("views", "")),
        "Tuning": tuned(bench),
        "Seeds": ", ".join(map(str, seeds)),
        "Precision": bench.get("precision"),
        "Device": bench.get("device"),
        "Threads": bench.get("threads"),
    }
    return [(name, str(value)) for name, value in named.items() if value not in (None, "")]


def provenance(sources: Sources) -> list[Run]:
    """One entry per bench behind the report; what a folder does not hold is empty."""
    runs = []
    for name, folder in sources.runs.items():
        config, plan = _text(folder / "bench.yaml"), load_json(folder / "plan.json")
        written = json.dumps(plan, indent=1, ensure_ascii=False) if plan else ""
        runs.append(
            Run(
                name=name,
                roles=list(_flat(load_json(folder / "splits.json"))),
                environment=list(_flat(load_json(folder / "environment.json"))),
                commands=_commands(folder, config),
                config=config,
                plan=written if len(written) <= _LONG_PLAN else "",
            )
        )
    return runs


def few_labels(sources: Sources) -> list[str]:
    """A sentence for each part of the data that is too small to settle much."""
    parts = load_json(next(iter(sources.runs.values())) / "splits.json")
    found = []
    for part, enough, what in (
        ("train", SELECTION_FROM, "k and the linear probe were chosen by cross-validation on them"),
        ("test", _MANY, "a score moves by {:.1f} points or so with another draw of them"),
    ):
        known = parts.get(part) or {}
        if known.get("labelled") and known["images"] < enough:
            images = known["images"]
            found.append(f"only {count(images)} labelled {part} images: {what.format(98 / sqrt(images))}")
    return found


def load_json(file: Path) -> dict[str, Any]:
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


def _commands(folder: Path, config: str) -> list[str]:
    """What makes the same again."""
    commands = []
    if config:
        plugins = (yaml.safe_load(config) or {}).get("plugins") or []
        file, again = shlex.quote(str(folder / "bench.yaml")), shlex.quote(f"{folder}-again")
        asked = "".join(f" --plugin {shlex.quote(plugin)}" for plugin in plugins)
        commands.append(f"ssl-zoo reproduce {shlex.quote(str(folder))}{asked}")
        commands.append(f"ssl-zoo bench --config {file}{asked} --out {again}")
    return commands


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


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
