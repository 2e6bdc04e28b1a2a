"""Public data sets with something of their own: fine labels, unlabelled images, photos."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from made_data import GREY, LABELS, RNG, write_cifar, write_fashion, write_parquet
from made_files import draw_classes

from ssl_zoo.data.datasets import create_dataset


def test_cifar100_takes_its_fine_labels_from_parquet_and_torchvision(home: Path, monkeypatch) -> None:
    write_cifar(home / "cifar100")
    for path in (home / "cifar100").iterdir():
        table = pq.read_table(path)
        coarse = table["label"]
        table = table.rename_columns(["img", "coarse_label"])
        pq.write_table(table.append_column("fine_label", pc.add(coarse, 90)), path)
    train = create_dataset("cifar100", home).split("train")
    assert train.labels.tolist() == (LABELS + 90).tolist()
    assert (len(train.classes), train.classes[0], train.classes[90]) == (100, "apple", "train")

    cifar100 = torchvision.datasets.CIFAR100
    folder = home / "other" / "cifar-100-python"
    folder.mkdir(parents=True)
    images = RNG.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    for name, part in (("train", slice(4)), ("test", slice(4, 6))):
        labels = LABELS[part].tolist()
        batch = {
            "data": images[part].reshape(-1, 3072),
            "fine_labels": labels,
            "coarse_labels": [9] * len(labels),
        }
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list("abcdefghij")}))
    with pytest.raises(ValueError, match=r"cifar-100-python is not what torchvision expects: .*corrupted"):
        create_dataset("cifar100", home / "other")
    monkeypatch.setattr(cifar100, "train_list", [["train", None]])
    monkeypatch.setattr(cifar100, "test_list", [["test", None]])
    monkeypatch.setattr(cifar100, "meta", {**cifar100.meta, "md5": None})
    dataset = create_dataset("cifar100", home / "other")
    for name, part in (("train", slice(4)), ("test", slice(4, 6))):
        split = dataset.split(name)
        assert (split.images.numpy() == images[part]).all()
        assert split.labels.tolist() == LABELS[part].tolist()
    assert dataset.split("test").classes == tuple("abcdefghij")


def test_mnist_is_idx_and_not_flipped(home: Path) -> None:
    write_fashion(home / "MNIST/raw", ".gz")
    mnist = create_dataset("mnist", home)
    assert (mnist.split("train").images[:, 0].numpy() == GREY).all()
    assert mnist.split("train").classes == tuple("0123456789")
    assert not mnist.flip


def write_stl10(folder: Path, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Files as the authors wrote them, in Matlab: columns before rows; labels from 1."""
    folder.mkdir(parents=True)
    images = {
        name: RNG.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8) for name, count in counts.items()
    }
    for name, values in images.items():
        (folder / f"{name}_X.bin").write_bytes(values.transpose(0, 1, 3, 2).tobytes())
        if name != "unlabeled":
            (folder / f"{name}_y.bin").write_bytes((LABELS[: len(values)] + 1).astype(np.uint8).tobytes())
    return images


def test_stl10_pretrains_on_its_unlabelled_part_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "stl10_binary"
    images = write_stl10(folder, {"train": 6, "test": 4, "unlabeled": 5})
    stl10 = create_dataset("stl10", home)
    pretrain, train, test = (stl10.split(name) for name in ("pretrain", "train", "test"))
    assert (pretrain.images.numpy() == np.concatenate([images["train"], images["unlabeled"]])).all()
    assert (train.images.numpy() == images["train"]).all()
    assert (test.images.numpy() == images["test"]).all()
    assert (pretrain.labels, train.labels.tolist(), test.labels.tolist()) == (None, [*range(6)], [*range(4)])
    assert train.images.data_ptr() == pretrain.images.data_ptr()  # held once
    assert len({pretrain.fingerprint, train.fingerprint, test.fingerprint}) == 3
    assert (train.classes[7], stl10.rule, stl10.notes) == ("monkey", "the source's own train and test", ())

    theirs = torchvision.datasets.STL10
    monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)  # our images are not Stanford's
    loaded = theirs(home, split="train+unlabeled")
    assert (loaded.data == pretrain.images.numpy()).all()
    assert loaded.labels.tolist() == [*range(6), *[-1] * 5]

    every = create_dataset("stl10", home, transductive=True, labels="none")
    assert torch.equal(every.split("pretrain").images, torch.cat([pretrain.images, test.images]))
    assert torch.equal(every.split("train").images, pretrain.images)
    (folder / "unlabeled_X.bin").unlink()
    small = create_dataset("stl10", home)
    assert small.split("pretrain") is small.split("train")
    assert len(small.split("train")) == 6


def test_broken_stl10_files_are_named_with_what_is_wrong(home: Path) -> None:
    folder = home / "stl10_binary"
    write_stl10(folder, {"train": 2, "test": 2})

    def fails(match: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=match):
            create_dataset("stl10", home)

    (folder / "test_y.bin").write_bytes(bytes((1, 0)))
    fails(r"test_y.bin holds the label 0, lower than 1")
    (folder / "test_y.bin").write_bytes(bytes((1, 11)))
    fails(r"test_X.bin has labels up to 10, not 0 to 9")
    (folder / "test_y.bin").write_bytes(bytes((1, 2, 3)))
    fails(r"test_X.bin holds 2 images, .*test_y.bin 3 labels")
    data = (folder / "train_X.bin").read_bytes()
    (folder / "train_X.bin").write_bytes(data[:-1])
    fails(r"train_X.bin has 55295 bytes, not a multiple of 27648")
    (folder / "train_X.bin").unlink()
    fails(r"stl10_binary: \{train,test\}_\{X,y\}.bin and unlabeled_X.bin \(only test\)", FileNotFoundError)


def test_imagenette_folders_have_readable_classes(home: Path) -> None:
    for part, count, start in (("train", 3, 0), ("val", 2, 30)):
        draw_classes(
            home / "imagenette2-160" / part, {"n02102040": count, "n03888257": count}, start, side=70
        )
    imagenette = create_dataset("imagenette", home)
    test = imagenette.split("test")
    assert test.classes == ("English springer", "parachute")
    assert (test.names[0], test.labels.tolist()) == ("val/n02102040/0.png", [0, 0, 1, 1])
    assert (len(imagenette.split("train")), imagenette.name) == (6, "imagenette")
    assert imagenette.rule == "the source's own train and val"
    shutil.rmtree(home / "imagenette2-160/val")
    with pytest.raises(FileNotFoundError, match=r"imagenette2-160: \{train,val\}/CLASS/"):
        create_dataset("imagenette", home)


def test_photos_in_parquet_are_found_by_name(home: Path) -> None:
    photos = RNG.integers(0, 256, (12, 70, 66, 3), dtype=np.uint8)
    for part, count in (("train", 12), ("validation", 3)):
        write_parquet(
            home / f"imagenette/data/{part}-00000-of-00001.parquet",
            photos[-count:],
            column="image",
            names=list("abcdefghij"),
        )
    imagenette = create_dataset("imagenette", home, on_bad_image="skip")
    train = imagenette.split("train")
    assert (train.images.decode(3).permute(1, 2, 0).numpy() == photos[3]).all()
    assert (train.labels.tolist(), train.classes) == (LABELS.tolist(), tuple("abcdefghij"))
    assert imagenette.split("test").labels.tolist() == [0, 1, 2]
    assert imagenette.notes[-1] == "3 of 3 test images also lie in training"
    (home / "imagenette/data/validation-00000-of-00001.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="imagenette was not found"):  # not a test part of our own
        create_dataset("imagenette", home)


def test_imagenette_is_downloaded_in_one_size(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(root: Path, size: str, download: bool) -> None:
        assert (size, download) == ("320px", True)
        for part, start in (("train", 0), ("val", 30)):
            draw_classes(root / "imagenette2-320" / part, {"n01440764": 2, "n03394916": 2}, start, side=70)

    monkeypatch.setattr(torchvision.datasets, "Imagenette", download)
    test = create_dataset("imagenette").split("test")
    assert (test.classes, test.labels.tolist()) == (("tench", "French horn"), [0, 0, 1, 1])
