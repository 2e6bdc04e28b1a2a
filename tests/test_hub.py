"""Data sets of the Hugging Face library."""

import sys
from pathlib import Path

import pytest
import torch
from made_data import COLOUR, LABELS, encode, write_parquet
from made_files import draw_classes

from ssl_zoo.data.datasets import create_dataset


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home.parent / "hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


def features(datasets):
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})


def part(datasets, start: int, stop: int):
    images = [
        {"bytes": encode(image), "path": f"{start + row}.png"} for row, image in enumerate(COLOUR[start:stop])
    ]
    labels = [row % 2 for row in range(stop - start)]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features(datasets))


def test_saved_data_sets_are_read_without_decoding(home: Path, hub, monkeypatch: pytest.MonkeyPatch) -> None:
    both = hub.DatasetDict({"train": part(hub, 0, 8), "test": part(hub, 8, 12), "extra": part(hub, 0, 2)})
    both.save_to_disk(home / "saved")
    monkeypatch.setattr(hub.Image, "decode_example", lambda *_, **__: pytest.fail("decoded"))
    dataset = create_dataset(f"hf:{home / 'saved'}")
    assert dataset.split("train").names == tuple(f"{row}.png" for row in range(8))
    assert (dataset.split("train").images.permute(0, 2, 3, 1).numpy() == COLOUR[:8]).all()
    assert (dataset.split("test").images.permute(0, 2, 3, 1).numpy() == COLOUR[8:]).all()
    assert (dataset.split("test").labels.tolist(), dataset.split("test").classes) == (
        [0, 1, 0, 1],
        ("no", "yes"),
    )
    assert dataset.rule == "the source's own train and test"
    assert dataset.notes == ("splits left out: extra",)
    part(hub, 0, 12).save_to_disk(home / "single")
    single = create_dataset(f"hf:{home / 'single'}")
    assert (len(single.split("train")), len(single.split("test"))) == (10, 2)
    hub.DatasetDict({"a": part(hub, 0, 6), "b": part(hub, 6, 12)}).save_to_disk(home / "others")
    with pytest.raises(ValueError, match=r"others has the splits a, b; it needs some of train, test"):
        create_dataset(f"hf:{home / 'others'}")


def test_local_folders_are_loaded_as_the_library_does(home: Path, hub) -> None:
    for split, rows in (("train", slice(8)), ("test", slice(8, 12))):
        write_parquet(home / f"tables/data/{split}-00000-of-00001.parquet", COLOUR[rows], LABELS[rows])
    tables = create_dataset(f"hf:{home / 'tables'}", on_bad_image="skip", labels="none")
    assert (tables.split("train").images.permute(0, 2, 3, 1).numpy() == COLOUR[:8]).all()
    assert tables.split("train").names[0] == "train#0"
    draw_classes(home / "files/train", {"cat": 4, "dog": 4})
    draw_classes(home / "files/test", {"cat": 1, "dog": 2}, start=8)
    files = create_dataset(f"hf:{home / 'files'}")
    same = create_dataset(f"folder:{home / 'files'}")
    for split in ("train", "test"):
        assert torch.equal(files.split(split).images, same.split(split).images)
        assert torch.equal(files.split(split).labels, same.split(split).labels)
        assert files.split(split).classes == same.split(split).classes == ("cat", "dog")


def test_a_data_set_that_cannot_be_loaded_is_told(home: Path, hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"hf:nobody/nothing cannot be loaded: .*; give hf:NAME\[:CONFIG\] as on the hub"
    ):
        create_dataset("hf:nobody/nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"hf:x needs the package `datasets`; run: pip install 'ssl-zoo\[hf\]'"
    ):
        create_dataset("hf:x")


def test_a_configuration_follows_a_colon(home: Path, hub) -> None:
    for config, rows in (("one", slice(4)), ("two", slice(4, 12))):
        write_parquet(
            home / f"{config}/train-00000-of-00001.parquet", COLOUR[rows], LABELS[: len(COLOUR[rows])] % 2
        )
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/train-*\n" for name in ("one", "two"))
    (home / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    dataset = create_dataset(f"hf:{home}:two")
    assert len(dataset.split("train")) + len(dataset.split("test")) == 8
    with pytest.raises(
        ValueError, match=r"cannot be loaded: Config name is missing(.|\n)*give hf:NAME\[:CONFIG\]"
    ):
        create_dataset(f"hf:{home}")
