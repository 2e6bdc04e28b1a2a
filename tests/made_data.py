"""Small made-up sources for the tests of data."""

import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ssl_zoo.data.datasets import Dataset, Split

DATA = os.environ.get("SSL_ZOO_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="SSL_ZOO_DATA names no folder with real data sets")
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)  # [N, H, W, C]
GREY = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 10


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write_parquet(path: Path, images, labels=LABELS, *, column="img", kind="PNG", names=None) -> None:
    data = [image if isinstance(image, bytes) else encode(image, kind) for image in images]
    cells = [{"bytes": image, "path": None} for image in data]
    columns = {column: pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    if labels is not None:
        columns["label"] = pa.array(labels[: len(images)])
    table = pa.table(columns)
    if names:
        hub = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(hub)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_cifar(folder: Path, images=COLOUR, **options) -> None:
    write_parquet(folder / "train-00000-of-00001.parquet", images, **options)
    write_parquet(folder / "test-00000-of-00001.parquet", images[:4], **options)


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    data = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fashion(folder: Path, suffix: str = "") -> None:
    for prefix, count in (("train", 12), ("t10k", 4)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", GREY[:count])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", LABELS[:count])


def made(images: np.ndarray | torch.Tensor, labels, pretrain: Split | None = None, groups=None) -> Dataset:
    labels = None if labels is None else torch.as_tensor(labels)
    train = Split(torch.as_tensor(images), labels, ("a", "b"), "f", groups=groups)
    return Dataset("made", {"pretrain": pretrain or train, "train": train, "test": train}, (), flip=True)


def rows(images: torch.Tensor) -> list[bytes]:
    return sorted(image.tobytes() for image in images.numpy())
