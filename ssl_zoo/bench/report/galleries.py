"""The pictures of a bench: crops as the methods saw them, nearest neighbours in their features, attention."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.bench.report.summaries import Row, Summary
from ssl_zoo.bench.report.words import quantity

_LIGHT = 150_000  # bytes: a heavier picture stands in the page as JPEG
_WIDEST = 900  # px of such a JPEG


class Picture(NamedTuple):
    """One picture of one label: `uri` is None where none was kept, "" where the page has no room for it."""

    label: str
    uri: str | None
    width: int
    height: int
    caption: str


class Album:
    """Takes pictures into a page as long as there is `room` for them, in bytes."""

    def __init__(self, sources: Sources, rows: Sequence[Row], room: int) -> None:
        self.sources = sources
        self.rows = rows
        self.room = room

    def crops(self, summaries: Sequence[Summary]) -> list[Picture]:
        """Of each trained label the crops that its first seed saw."""
        trained = [item for item in summaries if not item.is_reference]
        return [self._picture(item, "views.png", _views_per_image(item)) for item in trained]

    def kept(self, summaries: Sequence[Summary], name: str) -> list[Picture]:
        """Of each label, untrained ones too, the picture `name` of its first seed; none that was not kept."""
        pictures = [self._picture(item, name, "") for item in summaries]
        return [picture for picture in pictures if picture.uri is not None]

    def _picture(self, item: Summary, name: str, caption: str) -> Picture:
        for row in self.rows:
            file = self.sources.cell(row) / name
            if row["label"] != item.label or not file.is_file():
                continue
            try:
                uri, (width, height) = _inlined(file.read_bytes())
            except (UnidentifiedImageError, OSError):
                continue  # torn, as a killed process leaves it
            if len(uri) > self.room:
                return Picture(item.label, "", 0, 0, caption)
            self.room -= len(uri)
            return Picture(item.label, uri, width, height, caption)
        return Picture(item.label, None, 0, 0, caption)


def are_shown(bench: Mapping[str, Any]) -> bool:
    """Whether images may stand in the page; `auto` leaves out those of one's own (folder:, parquet:, hf:)."""
    wish = bench.get("report_images") or "auto"
    own = any(":" in (bench.get(source) or "") for source in ("dataset", "eval_data"))
    return wish == "show" or (wish == "auto" and not own)


def _inlined(png: bytes) -> tuple[str, tuple[int, int]]:
    """A picture as a data URI, and its size in pixels as it is to be shown."""
    with Image.open(BytesIO(png)) as image:
        size = image.size
        if len(png) <= _LIGHT:
            image.verify()
            return f"data:image/png;base64,{b64encode(png).decode()}", size
        small = image.convert("RGB")
        small.thumbnail((_WIDEST, 4 * _WIDEST))
    encoded = BytesIO()
    small.save(encoded, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(encoded.getvalue()).decode()}", size


def _views_per_image(item: Summary) -> str:
    per_image = item.costs.get("views_seen", 0) / (item.costs.get("images_seen") or 1)
    return f"{quantity(per_image)} views of every image" if per_image else ""
