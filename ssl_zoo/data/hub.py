"""Data sets of the Hugging Face hub, or of its library's files on disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssl_zoo.data.listing import PARTS, Listing, some
from ssl_zoo.data.tables import Table, list_tables


def list_hub(name: str) -> Listing:
    """List a data set `NAME[:CONFIG]` of the hub, or one in a local folder, see list_tables.

    Splits called train, test, validation and the like are parts, others are left out unless there is only
    one. Raises ValueError without the package `datasets`, and for what it cannot load.
    """
    splits = _load(name)
    known = {split: PARTS.get(split.lower(), "") for split in splits}
    if len(known) == 1:
        known = dict.fromkeys(known, "train")
    others = [split for split, part in known.items() if not part]
    if len(others) == len(known):
        raise ValueError(f"hf:{name} has the splits {some(others)}; it needs some of {', '.join(PARTS)}")
    listing = list_tables([_table(name, split, splits[split], part) for split, part in known.items() if part])
    return listing._replace(notes=(f"splits left out: {some(others)}",) if others else ())


def _load(name: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"hf:{name} needs the package `datasets`; run: pip install 'ssl-zoo[hf]'") from error
    folder = Path(name).expanduser()
    saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    path, _, config = (str(folder), "", "") if folder.exists() else name.partition(":")
    try:
        loaded = datasets.load_from_disk(path) if saved else datasets.load_dataset(path, config or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"hf:{name} cannot be loaded: {error}; give hf:NAME[:CONFIG] as on the hub, or a local folder"
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _table(name: str, split: str, rows: Any, part: str) -> Table:
    schema = rows.features.arrow_schema

    def read(columns: list[str], count: int) -> Iterator[pa.Table]:
        names = [column.partition(".")[0] for column in columns]
        for batch in rows.select_columns(names).with_format("arrow").iter(batch_size=count):
            yield batch if columns != names else _with_bytes(batch, rows.features)

    return Table(f"hf:{name}/{split}", part, schema, len(rows), read, f"hf {rows._fingerprint}")


def _with_bytes(batch: pa.Table, features: Any) -> pa.Table:
    """The batch with the bytes of images that are paths; nothing is decoded."""
    import datasets

    for place, column in enumerate(batch.schema.names):
        if isinstance(features[column], datasets.Image):
            stored = features[column].embed_storage(batch.column(column).combine_chunks())
            batch = batch.set_column(place, column, stored)
    return batch
