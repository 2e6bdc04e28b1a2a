"""Tables of encoded images: the columns that are read, and the file their images are copied to."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ssl_zoo.data import cache
from ssl_zoo.data.listing import PARTS, Listing, some
from ssl_zoo.data.photos import write_pack

_PHOTOS, _CELLS = 32, 4096  # rows read at once: photos are large


class Table(NamedTuple):
    """Rows of images: `read(columns, rows)` yields them in batches of so many, all together `size`.

    `place` names the table in messages, `part` is a value of PARTS or "", `stamp` changes with the content.
    """

    place: str
    part: str
    schema: pa.Schema
    size: int
    read: Callable[[list[str], int], Iterable[pa.RecordBatch | pa.Table]]
    stamp: str

    def feature(self, column: str) -> dict[str, Any]:
        """What the Hugging Face metadata say of a column, if there are any.

        Raises ValueError for metadata that are none.
        """
        try:
            found: Any = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))
            for part in ("info", "features", column):
                found = found.get(part) or {}
            names = found.get("names") or []
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise ValueError(f"class names {names!r}")
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"{self.place} has broken Hugging Face metadata ({error}); write the file without them"
            ) from error
        feature: dict[str, Any] = found
        return feature

    def image_column(self) -> str:
        """`img`, `image` or the one column that the metadata call an image; raises ValueError without any."""
        names: list[str] = self.schema.names
        if len({*names}) < len(names):
            raise ValueError(f"{self.place} has columns {names}; give each a name of its own")
        images = [name for name in names if self.feature(name).get("_type") == "Image"]
        found = next((name for name in ("img", "image", *images) if name in names), None)
        if found is None or not _is_encoded(self.schema.field(found).type):
            raise ValueError(
                f"{self.place} has columns {names}; it needs `img` or `image`, binary or {{bytes, path}}"
            )
        return found

    def label_column(self, wanted: str) -> str | None:
        """`wanted`, or else the one column that the metadata call a class label, if any.

        Raises ValueError for several of these, and for a column of neither whole numbers nor text.
        """
        names: list[str] = self.schema.names
        labels = [name for name in names if self.feature(name).get("_type") == "ClassLabel"]
        if wanted not in names and len(labels) > 1:
            raise ValueError(f"{self.place} has labels {labels}; rename the one to use to `{wanted}`")
        found = wanted if wanted in names else next(iter(labels), None)
        if found is not None and not _is_label(kind := self.schema.field(found).type):
            raise ValueError(f"{self.place}: `{found}` is {kind}; it needs whole numbers or text")
        return found

    def images(self) -> Iterator[bytes]:
        """The encoded images, row by row; an empty cell is no bytes. Raises ValueError for a mere path."""
        column, row = self.image_column(), 0
        for batch in self.read([column], _PHOTOS):
            for cell in batch.column(column).to_pylist():
                data = cell.get("bytes") if isinstance(cell, dict) else cell
                if data is None and isinstance(cell, dict) and cell.get("path"):
                    raise ValueError(
                        f"{self.place}, row {row}: the image is a path without bytes ({cell['path']}); store "
                        "the bytes, or use folder:PATH for the files"
                    )
                yield data or b""
                row += 1


def _is_encoded(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_binary(kind.field(place).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string))


def list_tables(tables: list[Table], label: str = "label") -> Listing:
    """List the rows of tables, whose images are copied into one file in the cache folder.

    Parts are those of the tables, else of a column `split`. Classes are those of the Hugging Face metadata,
    else what the column `label` holds; empty and negative labels are none. Names are the images' paths, or a
    column `path` or `name`, if all are there and differ, else table#row. Raises ValueError naming the table
    for what cannot be read.
    """
    if not any(table.size for table in tables):
        raise ValueError(f"{some([table.place for table in tables])} holds no images")
    labels, classes = number_labels(tables, label)
    pack, spans = _packed(tables)
    return Listing(
        files=[pack],
        spans=spans,
        names=_names(tables),
        parts=tuple(chain.from_iterable(map(_parts, tables))),
        labels=labels,
        classes=classes,
    )


def _cells(table: Table, column: str) -> list[Any]:
    """The values of a column, or of a field of one."""
    name, _, field = column.partition(".")
    batches = (batch.column(name) for batch in table.read([column], _CELLS))
    return [
        value
        for batch in batches
        for value in (pc.struct_field(batch, field) if field else batch).to_pylist()
    ]


def _parts(table: Table) -> list[str]:
    if table.part or "split" not in table.schema.names:
        return [table.part or "train"] * table.size
    given = [str(value).strip().lower() for value in _cells(table, "split")]
    for row, value in enumerate(given):
        if value not in PARTS:
            raise ValueError(f"{table.place}, row {row}: split {value!r}; allowed are {', '.join(PARTS)}")
    return [PARTS[value] for value in given]


def _names(tables: list[Table]) -> tuple[str, ...]:
    names: list[str | None] = []
    for table in tables:
        image = table.image_column()
        kind = table.schema.field(image).type
        inner = [f"{image}.path"] if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else []
        columns = [*inner, *(name for name in ("path", "name") if name in table.schema.names)]
        found = (cells for column in columns if all(map(_is_name, cells := _cells(table, column))))
        names += next(found, [None] * table.size)
    if all(names) and len({*names}) == len(names):
        return tuple(map(str, names))
    short = [PurePath(table.place).name for table in tables]
    if len({*short}) < len(short):
        short = ["/".join(PurePath(table.place).parts[-2:]) for table in tables]
    return tuple(
        f"{place}#{row}" for place, table in zip(short, tables, strict=True) for row in range(table.size)
    )


def _is_name(cell: str | None) -> bool:
    return bool(cell) and not os.path.isabs(str(cell))  # another computer has other places


def number_labels(
    tables: list[Table], label: str, default: tuple[str, ...] = ()
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels [N] int64, -1 for none, and the classes: of the metadata, or `default`, or what the labels are.

    Raises ValueError for tables that disagree and for numbers that have no class.
    """
    columns = [(table, table.label_column(label)) for table in tables]
    named = {tuple(table.feature(column).get("names") or default) for table, column in columns if column}
    values: list[Any] = []
    for table, column in columns:
        values += _cells(table, column) if column else [None] * table.size
    given = {value for value in values if value not in (None, "") and not (type(value) is int and value < 0)}
    place = some([table.place for table in tables])
    if len(named) > 1 or len({type(value) for value in given}) > 1:
        raise ValueError(f"{place}: the files differ in class names or the type of labels; make them agree")
    classes = next(iter(named), default)
    known = sorted(given)
    if classes and all(type(value) is int for value in given):
        if known and known[-1] >= len(classes):
            raise ValueError(
                f"{place} has labels up to {known[-1]}, not 0 to {len(classes) - 1} as for {len(classes)} "
                "classes; correct them"
            )
        return torch.tensor([value if value in given else -1 for value in values]), classes
    number = {value: index for index, value in enumerate(known)}
    return torch.tensor([number.get(value, -1) for value in values]), tuple(map(str, known))


def _packed(tables: list[Table]) -> tuple[Path, Tensor]:
    """The file in the cache folder that holds the images of all tables, and its spans."""
    size = sum(table.size for table in tables)

    def read(folder: Path) -> tuple[Path, Tensor]:
        pack, spans = folder / "images", torch.from_numpy(np.load(folder / "spans.npy"))
        if len(spans) != size or int(spans[:, 2].sum()) != pack.stat().st_size:
            raise ValueError(f"{pack} is not what spans.npy says")
        return pack, spans

    def write(folder: Path) -> None:
        encoded = chain.from_iterable(table.images() for table in tables)
        np.save(folder / "spans.npy", write_pack(folder / "images", encoded).numpy())

    stamp = "\0".join(table.stamp for table in tables)
    return cache.entry("packs", hashlib.sha256(stamp.encode()).hexdigest()[:32], read, write)
