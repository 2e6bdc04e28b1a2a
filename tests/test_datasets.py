"""Data sets by name."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from made_data import DATA, needs_data, rows

from ssl_zoo.data.datasets import create_dataset, list_datasets
from ssl_zoo.data.splits import roles


def test_digits_scales_to_bytes_and_keeps_a_stratified_test_part() -> None:
    from sklearn.datasets import load_digits

    digits = create_dataset("digits")
    train, test = digits.split("train"), digits.split("test")
    assert (train.images.shape, test.images.shape) == ((1438, 1, 8, 8), (359, 1, 8, 8))
    assert (train.images.dtype, train.labels.dtype) == (torch.uint8, torch.int64)
    original = load_digits()
    expected = torch.from_numpy(np.floor(original.images * 255 / 16 + 0.5).astype(np.uint8))
    assert rows(torch.cat([train.images, test.images])) == rows(expected)
    share = test.labels.bincount() / torch.from_numpy(original.target).bincount()
    assert ((share - 0.2).abs() < 0.003).all()
    assert test.classes == tuple("0123456789")
    assert not digits.flip
    assert "own choice" in digits.notes[0]
    assert digits.split("pretrain") is train
    assert digits.rule == "test: 20 % per class by content hash"
    assert test.fingerprint == create_dataset("digits").split("test").fingerprint != train.fingerprint


@needs_data
def test_cifar10_is_whole_with_the_right_names_and_a_jpeg_note() -> None:
    cifar = create_dataset("cifar10")
    train, test = cifar.split("train"), cifar.split("test")
    assert (train.images.shape, test.images.shape) == ((50000, 3, 32, 32), (10000, 3, 32, 32))
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    mean = test.images.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4942, 0.4851, 0.4504]), atol=0.002, rtol=0)
    paths = pq.read_table(Path(DATA, "cifar10/test-00000-of-00001.parquet"))["img"].to_pylist()
    assert [test.classes[label] for label in test.labels] == [cell["path"].split("/")[0] for cell in paths]
    assert (cifar.flip, cifar.rule) == (True, "the source's own train and test")
    assert cifar.split("pretrain") is train
    expected = "cifar10: images are stored as JPEG, so scores lie slightly below those on the original pixels"
    assert cifar.notes == (expected,)
    parts = roles(cifar)
    fit, validate = parts.folds[0]
    assert (len(parts.pretrain), len(fit), len(validate)) == (45000, 45000, 5000)
    assert not set(train.content_hash()[validate].tolist()) & set(parts.pretrain.content_hash().tolist())
    assert train.labels[validate].bincount().min() > 400


@needs_data
def test_fashion_mnist_is_whole_with_the_right_names() -> None:
    fashion = create_dataset("fashion-mnist")
    train, test = fashion.split("train"), fashion.split("test")
    assert (train.images.shape, test.images.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.labels.bincount().tolist() == [6000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    assert train.images.float().mean().item() / 255 == pytest.approx(0.2860, abs=1e-4)
    assert train.classes == tuple(torchvision.datasets.FashionMNIST.classes)
    assert (fashion.flip, fashion.notes) == (True, ())


def test_unknown_names_are_answered_with_the_nearest_and_the_list(tmp_path: Path) -> None:
    names = ["cifar10", "cifar100", "digits", "fashion-mnist", "imagenette", "mnist", "stl10"]
    assert list_datasets() == [*names, "folder:PATH", "parquet:PATH", "hf:NAME"]
    for given, hint in (
        ("CIFAR-10", "did you mean 'cifar10'"),
        ("foldr:photos", "did you mean 'folder:PATH'"),
        ("folder:", "did you mean 'folder:PATH'"),
        (str(tmp_path), f"did you mean 'folder:{tmp_path}'"),
    ):
        with pytest.raises(
            ValueError, match=rf"unknown dataset '{given}' \({hint}\?\); .* cifar10, .* hf:NAME"
        ):
            create_dataset(given)
    with pytest.raises(ValueError, match="no split 'val'; it has pretrain, train, test"):
        create_dataset("digits").split("val")


def test_transductive_data_sets_pretrain_on_test_images_too() -> None:
    digits, more = create_dataset("digits"), create_dataset("digits", transductive=True)
    both = torch.cat([digits.split("train").images, digits.split("test").images])
    assert torch.equal(more.split("pretrain").images, both)
    assert more.split("pretrain").labels is None
    assert torch.equal(more.split("train").images, digits.split("train").images)
    assert more.notes[1:] == (
        "transductive: the 359 test images are also pretrained on, without their labels",
    )


def test_labels_can_be_forgotten() -> None:
    digits, bare = create_dataset("digits"), create_dataset("digits", labels="none")
    assert all((split.labels, split.classes) == (None, ()) for split in bare.splits.values())
    assert torch.equal(bare.split("test").images, digits.split("test").images)
    assert roles(bare).folds == []


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"labels": "my.csv"}, r"labels=my\.csv: .*; give labels=none or nothing"),
        ({"on_bad_image": "skip"}, r"on_bad_image=skip: .*; give on_bad_image=error or nothing"),
        ({"window": (0, 255)}, r"window=\(0, 255\): .*; give window=dtype or nothing"),
    ],
)
def test_an_option_without_effect_is_an_error(option: dict, told: str) -> None:
    with pytest.raises(ValueError, match=f"^digits cannot use {told}$"):
        create_dataset("digits", **option)


def test_data_sets_of_tensors_can_be_pickled() -> None:
    digits = create_dataset("digits")
    copy = pickle.loads(pickle.dumps(digits))
    assert torch.equal(copy.split("test").images, digits.split("test").images)
    assert copy.split("pretrain") is copy.split("train")
