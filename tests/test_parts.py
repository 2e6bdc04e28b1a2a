"""Who trains and who is tested: the parts of a folder, and copies among them."""

import shutil
from pathlib import Path

import pytest
from made_files import draw, draw_classes, draw_flat

from ssl_zoo.data.datasets import Dataset, create_dataset

OWN = "the source's own train and {}"


def names(dataset: Dataset, split: str) -> list[str]:
    return list(dataset.split(split).names)


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return tuple(len(dataset.split(split)) for split in ("pretrain", "train", "test"))


@pytest.mark.parametrize(
    ("test", "part"), [("test", "test"), ("val", "val"), ("Valid", "val"), ("validation", "val")]
)
def test_train_and_test_folders_are_taken_as_they_are(home: Path, test: str, part: str) -> None:
    draw_classes(home / "train", {"cat": 3, "dog": 2})
    draw_classes(home / test, {"dog": 2, "cat": 1}, start=5)
    draw_flat(home / "unlabelled/sub", 4, start=8)
    draw(home / "sample.png", 50)
    dataset = create_dataset(f"folder:{home}")
    assert names(dataset, "train") == [
        "train/cat/0.png",
        "train/cat/1.png",
        "train/cat/2.png",
        "train/dog/0.png",
        "train/dog/1.png",
    ]
    assert names(dataset, "test") == [f"{test}/cat/0.png", f"{test}/dog/0.png", f"{test}/dog/1.png"]
    assert names(dataset, "pretrain") == names(dataset, "train") + [
        f"unlabelled/sub/00{i}.png" for i in range(4)
    ]
    assert dataset.split("test").labels.tolist() == [0, 1, 1]
    assert dataset.split("pretrain").labels is None
    assert dataset.rule == OWN.format(part)
    assert dataset.notes == (
        f"images outside of {'/, '.join(sorted([test, 'train', 'unlabelled']))}/, left out: sample.png",
        f"images for pretraining only: {', '.join(f'unlabelled/sub/00{i}.png' for i in range(3))} and 1 more",
    )


def test_validation_images_train_if_there_is_a_labelled_test_and_test_if_it_has_no_labels(home: Path) -> None:
    draw_classes(home / "train", {"cat": 3, "dog": 2})
    draw_classes(home / "val", {"dog": 2, "cat": 1}, start=5)
    draw_classes(home / "test", {"dog": 1, "cat": 3}, start=8)
    both = create_dataset(f"folder:{home}")
    assert (sizes(both), both.rule) == ((8, 8, 4), OWN.format("test"))
    shutil.rmtree(home / "test")
    draw_flat(home / "test", 4, start=8)
    flat = create_dataset(f"folder:{home}")
    assert (sizes(flat), flat.rule) == ((5, 5, 3), OWN.format("val"))
    assert flat.notes == (
        "test images without a label, left out: test/000.png, test/001.png, test/002.png and 1 more",
    )
    shutil.rmtree(home / "val")
    neither = create_dataset(f"folder:{home}")
    assert sizes(neither) == (3, 3, 2)
    assert neither.rule == "test: 20 % per class by content hash"
    assert {name[:5] for name in neither.split("pretrain").names + neither.split("test").names} == {"train"}


def test_copies_of_test_images_in_training_are_counted(home: Path) -> None:
    draw_classes(home / "train", {"cat": 6, "dog": 6})
    draw_classes(home / "test", {"cat": 2, "dog": 3}, start=20)
    shutil.copy(home / "train/cat/0.png", home / "test/cat/other.png")
    shutil.copy(home / "train/cat/0.png", home / "test/dog/third.png")
    draw(home / "unlabeled/1.png", 20)
    dataset = create_dataset(f"folder:{home}")
    assert dataset.notes[-1] == "3 of 7 test images also lie in training"
    every = create_dataset(f"folder:{home}", transductive=True)
    assert every.notes[-1] == "transductive: the 7 test images are also pretrained on, without their labels"
    assert "also lie in" not in " ".join(every.notes)
    assert names(every, "pretrain") == names(dataset, "pretrain") + names(dataset, "test")
    assert every.split("pretrain").labels is None
    assert every.split("train").fingerprint == dataset.split("train").fingerprint
    assert every.split("pretrain").fingerprint != dataset.split("pretrain").fingerprint


def test_what_cannot_be_split_is_an_error_that_says_what_to_do(home: Path) -> None:
    def fails(match: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=match):
            create_dataset(f"folder:{home}")

    fails(r"holds no images, files that end in .bmp, .gif")
    draw(home / "1.png", 1)
    fails(r"1 images are too few to hold some out .* give more")
    shutil.copy(home / "1.png", home / "2.png")
    fails(r"2 images are too few to hold some out")
    draw_classes(home / "train", {"cat": 1, "dog": 1}, start=5)
    (home / "1.png").unlink()
    (home / "2.png").unlink()
    fails(r"2 labelled images are too few to hold some out as a test: no class has two")
    draw_classes(home / "test", {"cow": 1, "dog": 1, "ewe": 1}, start=7)
    fails(r"classes seen in test only: 'cow', 'ewe'; give train images of them, or leave them out")
    shutil.rmtree(home / "train")
    draw_flat(home / "train", 3, start=9)
    fails(r"no labelled images to train on, 3 to test; give train some of them")
    shutil.rmtree(home)
    fails(r"there is no such folder; give the path of one", FileNotFoundError)


def test_rare_classes_stay_in_train_and_are_named(home: Path) -> None:
    draw_classes(home, {"cat": 2, "dog": 1, "emu": 9})
    dataset = create_dataset(f"folder:{home}")
    assert dataset.split("train").labels.bincount().tolist() == [1, 1, 7]
    assert dataset.split("test").labels.tolist() == [0, 2, 2]
    assert dataset.notes == ("classes without an image in test: dog",)
