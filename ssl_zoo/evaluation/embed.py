"""The images of a data set as vectors in a file, for use by any other program."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.evaluation.encoder import Encoder

SPLITS = ("pretrain", "train", "test")
_CHUNK = 8192  # images whose vectors are held at once: 64 MiB at 2,048 numbers
_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("vector", pa.list_(pa.float32()))])


class _Part(NamedTuple):
    """Images of one split, by position, with their paths and labels (None: not labelled)."""

    split: str
    positions: Tensor
    paths: list[str]
    labels: list[str | None]


def check_target(out: Path, *, overwrite: bool) -> None:
    """Raise ValueError unless `out` ends in .parquet or .npz and may be written."""
    if out.suffix not in (".parquet", ".npz"):
        raise ValueError(f"--out {out}: write a file that ends in .parquet or .npz")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; give another --out, or --overwrite to replace it")


def embed_dataset(
    encoder: Encoder,
    dataset: Dataset,
    out: Path,
    *,
    split: str = "all",
    overwrite: bool = False,
    device: torch.device | str = "cpu",
) -> int:
    """Write path, label and vector of each image to `out`; returns the number of images.

    Parquet has the columns `path`, `label` (class name or null) and `vector` (list of float32); npz the
    arrays `paths` [N], `labels` [N] ("" for none) and `vectors` [N, D] float32. `split` "all" writes every
    image once, labelled ones first; images without a name have their split and position for a path. Memory
    does not grow with the images, and the file appears when it is complete.
    Raises ValueError for another ending, a file that exists (unless `overwrite`) or an unknown split.
    """
    check_target(out, overwrite=overwrite)
    parts = _parts(dataset, ("train", "test", "pretrain") if split == "all" else (split,))
    encoder = encoder.to(device)
    write = _write_parquet if out.suffix == ".parquet" else _write_npz
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        write(temporary, parts, _vectors(encoder, dataset, parts), encoder.out_dim)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return sum(len(part.paths) for part in parts)


def _parts(dataset: Dataset, names: Sequence[str]) -> list[_Part]:
    """Every image of the splits once: known by its name, or else by its split's content and position.

    A split may begin with those of another, as STL-10's pretrain does with train.
    """
    parts, seen = [], set[object]()
    splits = [dataset.split(name) for name in names]
    for place, (name, split) in enumerate(zip(names, splits, strict=True)):
        keys = split.names or list(enumerate(_known_by(split, splits[:place])))
        new = [position for position, key in enumerate(keys) if key not in seen]
        seen.update(keys)
        paths = [split.names[i] if split.names else f"{name}/{i}" for i in new]
        labels = [None if split.labels is None else split.classes[split.labels[i]] for i in new]
        parts.append(_Part(name, torch.tensor(new, dtype=torch.int64), paths, labels))
    return parts


def _known_by(split: Split, before: Sequence[Split]) -> list[str]:
    """Per image the fingerprint of its split, or of that in `before` with which this one begins."""
    known = [split.fingerprint] * len(split)
    for other in before:
        if other.fingerprint == split.fingerprint_of(torch.arange(len(other))):
            known[: len(other)] = [other.fingerprint] * len(other)
    return known


def _vectors(encoder: Encoder, dataset: Dataset, parts: Sequence[_Part]) -> Iterator[Tensor]:
    for part in parts:
        for positions in torch.split(part.positions, _CHUNK) if len(part.positions) else ():
            images = dataset.split(part.split).images[positions]
            yield encoder.embed(images)


def _write_parquet(file: Path, parts: Sequence[_Part], vectors: Iterator[Tensor], width: int) -> None:
    paths = [path for part in parts for path in part.paths]
    labels = [label for part in parts for label in part.labels]
    start = 0
    with pq.ParquetWriter(file, _SCHEMA) as writer:
        for chunk in vectors:
            stop = start + len(chunk)
            ends = np.arange(0, (len(chunk) + 1) * width, width, dtype=np.int32)
            lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(chunk.numpy().ravel()))
            columns = [pa.array(paths[start:stop], pa.string()), pa.array(labels[start:stop], pa.string())]
            writer.write_table(pa.Table.from_arrays([*columns, lists], schema=_SCHEMA))
            start = stop


def _write_npz(file: Path, parts: Sequence[_Part], vectors: Iterator[Tensor], width: int) -> None:
    paths = np.array([path for part in parts for path in part.paths], dtype=np.str_)
    labels = np.array([label or "" for part in parts for label in part.labels], dtype=np.str_)
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), width)}
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in (("paths", paths), ("labels", labels)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
        # as np.savez would, but without the whole array in memory
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for chunk in vectors:
                member.write(chunk.numpy().astype("<f4", copy=False).tobytes())
