"""Images as vectors in a file: `ssl-zoo embed`."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_data import write_cifar
from made_run import TEST, command, on, small_bench, small_data

import ssl_zoo
from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.evaluation.embed import _parts


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, own_cache):
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("runs") / "run"
    small_bench(folder, data_dir, methods=["byol"])
    return folder


@pytest.mark.parametrize("split", ["all", "test"])
@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_embed_writes_path_label_and_vector(run, data_dir, tmp_path, ending, split, monkeypatch, capsys):
    monkeypatch.setattr("ssl_zoo.evaluation.embed._CHUNK", 70)
    out, cell = tmp_path / "new" / f"vectors.{ending}", run / "cells" / "byol-seed0"
    assert command("embed", "--encoder", cell, *on(data_dir), "--out", out, "--split", split) == 0
    data = ssl_zoo.create_dataset("fashion-mnist", data_dir)
    parts = {name: data.split(name) for name in (("train", "test") if split == "all" else ("test",))}
    vectors = torch.cat([ssl_zoo.load_encoder(cell).embed(part.images) for part in parts.values()])
    paths = [f"{name}/{i}" for name, part in parts.items() for i in range(len(part))]
    labels = [part.classes[label] for part in parts.values() for label in part.labels]
    if ending == "parquet":
        table = pq.read_table(out)
        assert str(table.schema.field("vector").type) == "list<element: float>"
        found = (table["path"].to_pylist(), table["label"].to_pylist(), np.array(table["vector"].to_pylist()))
    else:
        with np.load(out) as arrays:
            found = (arrays["paths"].tolist(), arrays["labels"].tolist(), arrays["vectors"])
        assert found[2].dtype == np.float32
    assert found[:2] == (paths, labels)
    np.testing.assert_allclose(found[2], vectors.numpy(), atol=1e-5)
    assert f"{len(paths):,} vectors of 32 numbers" in capsys.readouterr().out
    assert list(out.parent.iterdir()) == [out]


def test_a_split_that_begins_with_another_gives_its_rest(tmp_path):
    """As in STL-10, whose images to pretrain on begin with the labelled ones."""
    images = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8)
    whole = Split(images, None, (), "whole")
    train = Split(images[:4], torch.arange(4) % 2, ("a", "b"), whole.fingerprint_of(torch.arange(4)))
    splits = {"train": train, "pretrain": whole, "test": Split(images[:2], None, (), "test")}
    parts = _parts(Dataset("made", splits, (), flip=True), ["train", "pretrain", "test"])
    assert [path for part in parts for path in part.paths] == [
        *(f"train/{i}" for i in range(4)),
        *(f"pretrain/{i}" for i in range(4, 10)),
        *("test/0", "test/1"),
    ]


def test_images_without_labels_have_none(run, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    write_cifar(tmp_path / "cifar10", colours, labels=None)
    arguments = ("--encoder", run / "cells" / "byol-seed0", "--data", "cifar10", "--data-dir", tmp_path)
    for name in ("x.parquet", "x.npz"):
        assert command("embed", *arguments, "--out", tmp_path / name) == 0
    assert pq.read_table(tmp_path / "x.parquet")["label"].to_pylist() == [None] * 10
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["labels"].tolist() == [""] * 10


def test_embed_replaces_nothing_unless_told_and_keeps_the_old_file_on_failure(
    run, data_dir, tmp_path, monkeypatch, capsys
):
    out, cell = tmp_path / "x.npz", run / "cells" / "byol-seed0"
    out.write_bytes(b"precious")
    arguments = ("--encoder", cell, *on(data_dir), "--split", "test", "--out", out)
    assert command("embed", *arguments) == 2
    assert "--overwrite to replace it" in capsys.readouterr().err
    assert command("embed", *arguments[:-1], tmp_path / "x.csv") == 2
    assert "ends in .parquet or .npz" in capsys.readouterr().err
    assert command("embed", "--encoder", run, *arguments[2:-1], tmp_path / "y.npz") == 2
    assert "holds 2 encoders; give one of" in capsys.readouterr().err

    def broken(*_, **__):
        raise ValueError("no second batch")

    with monkeypatch.context() as patch:
        patch.setattr("ssl_zoo.evaluation.encoder.extract", broken)
        assert command("embed", *arguments, "--overwrite") == 2
    assert out.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [out]
    assert command("embed", *arguments, "--overwrite") == 0
    with np.load(out) as arrays:
        assert arrays["vectors"].shape == (TEST, 32)
