"""The pictures of a bench: crops as the methods saw them, nearest neighbours in their features, attention."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import unpack
from typing import Any, NamedTuple

from ssl_zoo.bench.report.summaries import Row, Summary
from ssl_zoo.bench.report.words import quantity

_PNG = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """One picture of one label: `uri` is None where no image was kept."""

    label: str
    uri: str | None
    width: int
    height: int
    caption: str


def are_shown(bench: Mapping[str, Any]) -> bool:
    """Whether images may stand in the page; `auto` leaves out those of one's own (folder:, parquet:, hf:)."""
    wish = bench.get("report_images") or "auto"
    own = any(":" in (bench.get(source) or "") for source in ("dataset", "eval_data"))
    return wish == "show" or (wish == "auto" and not own)


def crops(folder: Path, rows: Sequence[Row], summaries: Sequence[Summary]) -> list[Picture]:
    """Of each trained label the crops that its first seed saw."""
    return [
        _picture(folder, rows, item, "views.png", _views_per_image(item))
        for item in summaries
        if not item.is_reference
    ]


def neighbours(folder: Path, rows: Sequence[Row], summaries: Sequence[Summary]) -> list[Picture]:
    """Of each label, untrained ones too, the neighbours of a few images; none that was not kept."""
    return _kept(folder, rows, summaries, "neighbours.png")


def attention(folder: Path, rows: Sequence[Row], summaries: Sequence[Summary]) -> list[Picture]:
    """Of each label whose encoder is a ViT, untrained ones too, where it looks in the same images."""
    return _kept(folder, rows, summaries, "attention.png")


def cell(folder: Path, row: Row) -> Path:
    """The folder of a row's cell."""
    return folder / "cells" / f"{row['label']}-seed{row['seed']}"


def _views_per_image(item: Summary) -> str:
    per_image = item.costs.get("views_seen", 0) / (item.costs.get("images_seen") or 1)
    return f"{quantity(per_image)} views of every image" if per_image else ""


def _kept(folder: Path, rows: Sequence[Row], summaries: Sequence[Summary], name: str) -> list[Picture]:
    pictures = [_picture(folder, rows, item, name, "") for item in summaries]
    return [picture for picture in pictures if picture.uri]


def _picture(folder: Path, rows: Sequence[Row], item: Summary, name: str, caption: str) -> Picture:
    for row in rows:
        file = cell(folder, row) / name
        if row["label"] == item.label and file.is_file() and (png := file.read_bytes()).startswith(_PNG):
            width, height = unpack(">II", png[16:24])
            uri = f"data:image/png;base64,{b64encode(png).decode()}"
            return Picture(item.label, uri, width, height, caption)
    return Picture(item.label, None, 0, 0, caption)
