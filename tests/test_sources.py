"""Sources: every layout is read exactly, every broken file is named."""

import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from made_data import COLOUR, GREY, LABELS, RNG, encode, write_cifar, write_fashion, write_idx, write_parquet

from ssl_zoo.data.datasets import create_dataset
from ssl_zoo.data.splits import roles


@pytest.mark.parametrize("below", ["", "data", "plain_text"])
def test_parquet_of_png_is_read_exactly(home: Path, below: str) -> None:
    write_cifar(home / "cifar10" / below)
    cifar = create_dataset("cifar10", home)
    train = cifar.split("train")
    assert (train.images.permute(0, 2, 3, 1).numpy() == COLOUR).all()
    assert train.labels.tolist() == LABELS.tolist()
    assert train.classes[1] == "automobile"
    assert len(cifar.split("test")) == 4
    assert cifar.notes == ("4 of 4 test images also lie in training",)


def test_parquet_takes_names_from_the_hub_and_the_folder_from_the_environment(home, monkeypatch) -> None:
    names = [f"class {index}" for index in range(10)]
    write_cifar(home / "fashion-mnist", GREY, column="image", names=names)
    monkeypatch.setenv("SSL_ZOO_DATA", str(home))
    train = create_dataset("fashion-mnist").split("train")
    assert (train.images[:, 0].numpy() == GREY).all()
    assert train.classes == tuple(names)


def test_parquet_parts_are_joined_in_order_and_all_needed(home: Path) -> None:
    write_cifar(home / "cifar10")
    (home / "cifar10/train-00000-of-00001.parquet").unlink()
    write_parquet(home / "cifar10/train-00001-of-00002.parquet", COLOUR[5:], LABELS[5:])
    with pytest.raises(ValueError, match=r"holds train-00001-of-00002.parquet; it needs every part"):
        create_dataset("cifar10", home)
    write_parquet(home / "cifar10/train-00000-of-00002.parquet", COLOUR[:5])
    train = create_dataset("cifar10", home).split("train")
    assert (train.images.permute(0, 2, 3, 1).numpy() == COLOUR).all()
    assert train.labels.tolist() == LABELS.tolist()


def test_jpeg_bytes_are_noted_and_labels_may_be_absent(home: Path) -> None:
    write_cifar(home / "cifar10", labels=None, kind="JPEG")
    cifar = create_dataset("cifar10", home)
    assert cifar.split("train").labels is None
    assert "cifar10: images are stored as JPEG" in cifar.notes[0]
    assert create_dataset("cifar10", home).notes == cifar.notes  # from the cache
    assert roles(cifar).folds == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["fashion-mnist", "FashionMNIST/raw"])
def test_idx_files_are_read_exactly(home: Path, folder: str, suffix: str) -> None:
    write_fashion(home / folder, suffix)
    train = create_dataset("fashion-mnist", home).split("train")
    assert (train.images[:, 0].numpy() == GREY).all()
    assert train.labels.tolist() == LABELS.tolist()
    assert train.classes[9] == "Ankle boot"


def test_torchvision_batches_are_read_exactly(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "cifar-10-batches-py"
    folder.mkdir()
    images = RNG.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    for index, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        part = slice(2 * index, 2 * index + 2)
        batch = {"data": images[part].reshape(2, -1), "labels": LABELS[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is not what torchvision expects: .*corrupted"):
        create_dataset("cifar10", home)
    cifar10 = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar10, "train_list", [["data_batch_1", None], ["data_batch_2", None]])
    monkeypatch.setattr(cifar10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(cifar10, "meta", {**cifar10.meta, "md5": None})
    cifar = create_dataset("cifar10", home)
    assert (cifar.split("train").images.numpy() == images[:4]).all()
    assert (cifar.split("test").images.numpy() == images[4:]).all()
    assert cifar.split("test").labels.tolist() == [4, 5]
    assert cifar.split("test").classes == tuple("abcdefghij")


def test_missing_data_names_every_place_and_the_ways_out(home: Path) -> None:
    write_parquet(home / "cifar10/train-0.parquet", COLOUR)
    with pytest.raises(FileNotFoundError) as caught:
        create_dataset("cifar10", home)
    message = str(caught.value)
    assert f"{home / 'cifar10'}: {{train,test}}-*.parquet, here or one folder below (only train)" in message
    assert str(home / "cifar-10-batches-py") in message
    assert all(way in message for way in ("--data-dir", "SSL_ZOO_DATA", "omit both"))
    with pytest.raises(FileNotFoundError, match="FashionMNIST/raw"):
        create_dataset("fashion-mnist", home / "absent")


def test_download_happens_once_and_only_without_a_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(root: Path, download: bool) -> None:
        calls.append(root)
        if len(calls) == 1:
            raise URLError("no route")
        write_fashion(root / "FashionMNIST/raw")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    with pytest.raises(FileNotFoundError, match="omit both"):
        create_dataset("fashion-mnist", home)
    assert calls == []
    with pytest.raises(FileNotFoundError, match=r"download failed: .*no route(.|\n)*set SSL_ZOO_DATA"):
        create_dataset("fashion-mnist")
    assert len(create_dataset("fashion-mnist").split("train")) == 12
    assert len(create_dataset("fashion-mnist").split("test")) == 4
    assert len(calls) == 2


def test_broken_files_are_named_with_what_is_wrong(home: Path) -> None:
    write_cifar(home / "cifar10")
    train = home / "cifar10/train-00000-of-00001.parquet"
    whole = train.read_bytes()

    def fails(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            create_dataset("cifar10", home)

    train.write_bytes(whole[: len(whole) // 2])
    fails(r"train-00000-of-00001.parquet cannot be read: .*; copy or download it again")
    write_parquet(train, [COLOUR[0], encode(COLOUR[1])[:60]])
    fails(r"train-00000-of-00001.parquet, row 1: the image cannot be read: image file is truncated")
    write_parquet(train, [COLOUR[0], b"no image"])
    fails(r"row 1: the image cannot be read: cannot identify")
    write_parquet(train, [*COLOUR[:3], COLOUR[0, :4]])
    fails(r"row 3: size 5x4, the images before 5x6; make them one size")
    write_parquet(train, [COLOUR[0], COLOUR[0, ..., 0].astype(np.uint16)])
    fails(r"row 1: .*more than 8 bits")
    write_parquet(train, COLOUR, LABELS + 3)
    fails(r"labels up to 12, not 0 to 9")
    write_parquet(train, COLOUR, LABELS / 2)
    fails(r"`label` is double")
    write_parquet(train, COLOUR, column="picture")
    fails(r"columns \['picture', 'label'\]; it needs `img` or `image`")
    write_parquet(train, [])
    fails(r"parquet holds no images")
    write_parquet(train, COLOUR[:, :4])
    fails(r"train has images \[3, 4, 5\] .* test \[3, 6, 5\]")
    train.unlink()
    write_cifar(home / "cifar10/a")
    write_cifar(home / "cifar10/b")
    fails(r"several folders hold train-\*.parquet")


def test_broken_idx_files_are_named_with_what_is_wrong(home: Path) -> None:
    folder = home / "fashion-mnist"

    def fails(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            create_dataset("fashion-mnist", home)

    write_fashion(folder)
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-7])
    fails(r"train-images-idx3-ubyte holds 353 values, its header says \[12, 6, 5\]")
    images.write_bytes(b"<html>")
    fails(r"train-images-idx3-ubyte starts with 3c68746d, an idx file of this kind with 00000803")
    write_idx(images, GREY[:9])
    fails(r"train-images-idx3-ubyte holds 9 images, .*train-labels-idx1-ubyte 12 labels")
    images.unlink()
    write_idx(folder / "train-images-idx3-ubyte.gz", GREY)
    packed = (folder / "train-images-idx3-ubyte.gz").read_bytes()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(packed[:-20])
    fails(r"train-images-idx3-ubyte.gz cannot be read")


def test_images_without_labels_among_others_are_an_error_in_a_known_data_set(home: Path) -> None:
    write_cifar(home / "cifar10", labels=np.where(LABELS == 3, -1, LABELS))
    with pytest.raises(ValueError, match="1 of 12 images have no label; label all of them or none"):
        create_dataset("cifar10", home)
    write_parquet(home / "cifar10/train-00000-of-00001.parquet", COLOUR, np.full(12, -1))
    write_parquet(home / "cifar10/test-00000-of-00001.parquet", COLOUR)
    with pytest.raises(
        ValueError, match=r"cifar10: train has images \[3, 6, 5\] of classes \(\), test .*same classes"
    ):
        create_dataset("cifar10", home)
