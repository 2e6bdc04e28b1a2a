"""`section.field=value` and what sections hold, merged into one."""

from collections.abc import Mapping
from typing import Any

import yaml

from ssl_zoo.bench.yaml_text import MOST_LEVELS, parse
from ssl_zoo.errors import shortened


def merge(base: dict[str, Any], update: Mapping[str, Any]) -> None:
    """Change `base` to what `update` says, section by section."""
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


def leaves(options: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their dotted paths."""
    found = {}
    for key, value in options.items():
        inner = leaves(value) if isinstance(value, Mapping) else {"": value}
        found.update({f"{key}.{path}".rstrip("."): leaf for path, leaf in inner.items()})
    return found


def nested(assignment: str) -> dict[str, Any]:
    """`section.field=value` as a dict in a dict."""
    path, equals, text = assignment.partition("=")
    parts = path.split(".")
    if not equals or not all(parts) or len(parts) > MOST_LEVELS:
        raise ValueError(
            f"--set {shortened(assignment)}: write section.field=value, such as dino.out_dim=4096"
        )
    value = _scalar(text, f"--set {path}")
    for part in reversed(parts):
        value = {part: value}
    sections: dict[str, Any] = value
    return sections


def _scalar(text: str, place: str) -> Any:
    try:
        value = parse(text, place)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value
