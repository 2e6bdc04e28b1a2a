"""Labels from a CSV file: a row for each image that has one."""

import csv
import posixpath
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ssl_zoo.data.decode import shown
from ssl_zoo.data.listing import PARTS, Listing, some
from ssl_zoo.errors import unknown

_COLUMNS = ("path", "label", "group", "split")
_SPLITS = "train, test, val or pretrain"


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    group: str
    split: str

    @property
    def told(self) -> tuple[str, str, str]:
        return self.label, self.group, self.split


def apply_labels(listing: Listing, file: Path) -> Listing:
    """Label the images of `listing` that the CSV `file` names, and only those; classes are sorted by name.

    The file is UTF-8 with a header `path,label` and optional columns `group` and `split`. `path` is an
    image's name, relative to its source; images of one `group` stay in one split, an empty cell is no group;
    `split` (train, test, val or pretrain, in every row or in none) goes before the source's own part. Images
    without a row are for pretraining only, or for nothing if they lie in the source's test part. Raises
    FileNotFoundError without the file, and ValueError, naming the line, for what cannot be read or
    contradicts itself or the source.
    """
    rows = _assign(listing, list(_read(file)), file)
    classes = sorted({row.label for row in rows.values()})
    number = {name: index for index, name in enumerate(classes)}
    split = any(row.split for row in rows.values())
    count = len(listing.names)
    parts = list(listing.parts)
    for index, row in rows.items():
        parts[index] = PARTS[row.split] if split else parts[index].replace("pretrain", "train")
    grouped = any(row.group for row in rows.values())
    return listing._replace(
        parts=tuple(parts),
        labels=torch.tensor([number[rows[i].label] if i in rows else -1 for i in range(count)]),
        classes=tuple(classes),
        groups=tuple(rows[i].group if i in rows else "" for i in range(count)) if grouped else None,
        rule=f"train and {{}} as told by {file.name}" if split else listing.rule,
    )


def _read(file: Path) -> Iterator[_Row]:
    if not file.is_file():
        raise FileNotFoundError(
            f"labels {shown(file)}: there is no such file; give a CSV file with a header path,label"
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            columns = _columns(next(reader, []), file)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _row(cells, columns, file, reader.line_num)
    except UnicodeDecodeError as error:
        raise ValueError(f"labels {shown(file)} is not UTF-8 ({error}); save it as CSV UTF-8") from error
    except csv.Error as error:
        where = f"{shown(file)}, line {reader.line_num}"
        raise ValueError(f"labels {where}: {error}; quote cells with commas, quotes or line ends") from error


def _columns(header: list[str], file: Path) -> list[str]:
    columns = [name.strip() for name in header]
    place = f"labels {shown(file)}, line 1"
    for name in columns:
        if name not in _COLUMNS:
            commas = "; separate columns by commas" if any(sign in name for sign in ";\t|") else ""
            raise ValueError(f"{place}: {unknown('column', name, _COLUMNS)}{commas}")
    if not {"path", "label"} <= {*columns} or len({*columns}) < len(columns):
        raise ValueError(f"{place}: the header is {','.join(columns)}; write path,label[,group][,split]")
    return columns


def _row(cells: list[str], columns: list[str], file: Path, line: int) -> _Row:
    place = f"labels {shown(file)}, line {line}"
    if len(cells) != len(columns):
        raise ValueError(f"{place}: {len(cells)} cells for {len(columns)} columns; quote cells with commas")
    told = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
    row = _Row(line, told["path"], told["label"], told.get("group", ""), told.get("split", "").lower())
    if not row.path or not row.label:
        raise ValueError(
            f"{place}: an empty {'label' if row.path else 'path'}; fill it, or leave the row out: images "
            "without a row are used for pretraining"
        )
    if "split" in columns and row.split not in PARTS:
        raise ValueError(f"{place}: split {row.split!r}; write {_SPLITS} in every row, or omit the column")
    return row


def _assign(listing: Listing, rows: list[_Row], file: Path) -> dict[int, _Row]:
    """The row of each image by its index."""
    place = f"labels {shown(file)}"
    if not rows:
        raise ValueError(f"{place} has no rows; label some images, or omit it")
    index = {name: i for i, name in enumerate(listing.names)}
    composed = {unicodedata.normalize("NFC", name): i for name, i in index.items()}
    found: dict[int, _Row] = {}
    missing = []
    for row in rows:
        image = index.get(row.path)
        if image is None:
            image = composed.get(_normal(row, place))
        if image is None:
            missing.append(row)
        elif found.setdefault(image, row).told != row.told:
            raise ValueError(
                f"{place}, line {row.line}: line {found[image].line} says otherwise of {row.path}; keep one"
            )
    if missing:
        raise ValueError(
            f"{place}, line {missing[0].line}: {missing[0].path} is none of the {len(index):,} images ("
            f"{some(listing.names)}); give paths like these, or remove the {len(missing):,} rows of no image"
        )
    return found


def _normal(row: _Row, place: str) -> str:
    """The path as a listing has it; macOS writes accents as letters of their own, Windows backslashes."""
    path = posixpath.normpath(unicodedata.normalize("NFC", row.path).replace("\\", "/"))
    if f"{path}/".startswith(("/", "../")) or path[1:3] == ":/":
        raise ValueError(
            f"{place}, line {row.line}: {row.path} leaves the source; give the path relative to its folder"
        )
    return path
