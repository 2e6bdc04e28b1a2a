"""Parquet files of images, as the Hugging Face hub lays them out or any other program writes them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_zoo.data.listing import PARTS, Listing, some
from ssl_zoo.data.tables import Table, list_tables


def list_parquet(path: Path, label: str = "label") -> Listing:
    """List the rows of a Parquet file, or of the files in a folder or in folders of it, see list_tables.

    Files that are called train, test, validation and the like, up to a `-`, are parts, and so are folders;
    otherwise all are one table. Raises FileNotFoundError without files, and ValueError for files of which
    only some are parts or some are missing.
    """
    files = _files(path)
    parts = {file: "" if file == path else _part(file, path) for file in files}
    others = [str(file) for file, part in parts.items() if not part]
    if others and any(parts.values()):
        raise ValueError(
            f"parquet:{path} holds files of a split and others: {some(others)}; move these away or begin "
            f"their names with one of {', '.join(PARTS)}"
        )
    for folder, part in {(file.parent, part) for file, part in parts.items()}:
        check_shards([file for file in files if (file.parent, parts[file]) == (folder, part)])
    return list_tables([open_parquet(file, part) for file, part in parts.items()], label)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"parquet:{path}: there is no such file, nor a folder with *.parquet in it")
    folders = {str(file.parent) for file in files if file.parent.name.lower() not in PARTS}
    if len(folders) > 1:
        raise ValueError(f"parquet:{path}: several folders hold *.parquet: {some(sorted(folders))}; give one")
    return files


def _part(file: Path, root: Path) -> str:
    words = [file.stem.partition("-")[0], *file.relative_to(root).parts[:-1]]
    return next((PARTS[word.lower()] for word in words if word.lower() in PARTS), "")


def check_shards(files: list[Path]) -> None:
    """Raise ValueError if the files' own count, as in 00000-of-00002, says that one of them is missing."""
    shards = [match.groups() for path in files if (match := re.search(r"-(\d{5})-of-(\d{5})", path.name))]
    if shards and shards != [(f"{index:05}", f"{len(files):05}") for index in range(len(files))]:
        names = ", ".join(path.name for path in files)
        raise ValueError(f"{files[0].parent} holds {names}; it needs every part once, so copy it again")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}; copy or download it again") from error


def open_parquet(path: Path, part: str = "") -> Table:
    """A Parquet file as a table, of which never more than a row group is in memory.

    Raises ValueError, then and while it is read, for a file that is broken.
    """

    def read(columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        with _reading(path), pq.ParquetFile(path, memory_map=True) as file:
            yield from file.iter_batches(rows, columns=columns)

    with _reading(path), pq.ParquetFile(path) as file:
        status = path.stat()
        stamp = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
        return Table(str(path), part, file.schema_arrow, file.metadata.num_rows, read, stamp)
