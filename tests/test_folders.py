"""Folders of images: what is found, what its folders mean, and who is tested on what."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from made_data import DATA, needs_data
from made_files import draw, draw_classes, draw_flat, link
from PIL import Image

from ssl_zoo.data.datasets import Dataset, create_dataset
from ssl_zoo.data.photos import Photos

PRETRAIN = "images for pretraining only: {}"
OWN = "the source's own train and {}"


def names(dataset: Dataset, split: str) -> list[str]:
    return list(dataset.split(split).names)


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return tuple(len(dataset.split(split)) for split in ("pretrain", "train", "test"))


def test_images_are_found_by_suffix_in_every_depth_and_sorted_by_relative_path(home: Path) -> None:
    wanted = ["a/x.PNG", "a/z/deep/er/1.png", "b.d/1.jpeg", "b.d/ä ö/北京 ☂.webp", "b/1.png", "b/2.tif"]
    for number, name in enumerate(wanted):
        draw(home / name, number)
    for name in (".hidden.png", ".hidden/1.png", "a/.x/1.png", "a/notes.txt", "a/1.png.bak", "readme.md"):
        draw(home / name, 99)
    dataset = create_dataset(f"folder:{home}", labels="none")
    assert sorted(names(dataset, "train") + names(dataset, "test")) == wanted
    assert names(dataset, "train") == sorted(names(dataset, "train"))
    assert sizes(dataset) == (5, 5, 1)
    for split in (dataset.split("train"), dataset.split("test")):
        for name, image in zip(split.names, split.images, strict=True):
            if not name.endswith("jpeg"):
                assert torch.equal(
                    image, torch.from_numpy(np.array(Image.open(home / name))).permute(2, 0, 1)
                )


def test_class_folders_are_labels_and_a_fifth_of_each_is_held_out(home: Path) -> None:
    draw_classes(home, {"Ünï/one": 20, "Ünï/two/three": 5, "cat": 50, "dog": 10})
    dataset = create_dataset(f"folder:{home}")
    train, test = dataset.split("train"), dataset.split("test")
    assert train.classes == test.classes == ("cat", "dog", "Ünï")
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([40, 8, 20], [10, 2, 5])
    for split in (train, test):
        assert [split.classes[label] for label in split.labels] == [
            name.split("/")[0] for name in split.names
        ]
    assert dataset.split("pretrain") is train
    assert dataset.rule == "test: 20 % per class by content hash"
    assert (dataset.notes, dataset.flip, dataset.name) == ((), True, f"folder:{home}")


def test_held_out_images_follow_from_content_alone(home: Path) -> None:
    draw_classes(home / "one", {"cat": 20, "dog": 30})
    for index in range(30):
        draw(home / f"two/A/{99 - index}.png", 20 + index)
    for index in range(20):
        draw(home / f"two/B/x/{index * 7 % 20}.png", index)
    one, two = (create_dataset(f"folder:{home / name}").split("test") for name in ("one", "two"))
    assert one.names != two.names
    pixels = [sorted(image.numpy().tobytes() for image in split.images) for split in (one, two)]
    assert pixels[0] == pixels[1]
    again = create_dataset(f"folder:{home / 'one'}").split("test")
    assert (again.names, again.fingerprint) == (one.names, one.fingerprint)
    assert one.fingerprint != two.fingerprint


def test_exact_duplicates_stay_on_one_side(home: Path) -> None:
    for index in range(40):
        draw(home / f"{'ab'[index % 2]}/{index}.png", index // 4)  # ten pictures, twice in each class
    dataset = create_dataset(f"folder:{home}")
    train, test = (dataset.split(split) for split in ("train", "test"))
    assert not set(train.content_hash().tolist()) & set(test.content_hash().tolist())
    assert test.labels.bincount().tolist() == [4, 4]
    assert dataset.notes == ()


def test_a_flat_folder_has_no_labels(home: Path) -> None:
    draw_flat(home, 20)
    dataset = create_dataset(f"folder:{home}")
    assert sizes(dataset) == (16, 16, 4)
    assert all((split.labels, split.classes) == (None, ()) for split in dataset.splits.values())
    assert dataset.split("pretrain") is dataset.split("train")
    assert dataset.rule == "test: 20 % by content hash"
    draw_flat(home / "unlabeled", 3, start=20)
    more = create_dataset(f"folder:{home}")
    assert sizes(more) == (19, 19, 4)
    assert more.split("test").names == dataset.split("test").names
    for path in home.glob("0*.png"):
        path.unlink()
    assert sizes(create_dataset(f"folder:{home}")) == (2, 2, 1)  # alone, it is a name like any other


@pytest.mark.parametrize(
    ("paths", "classes", "note"),
    [
        (["a/1", "a/2", "b/1", "b/2", "0"], (), "no classes in {}, as images lie beside its folders: 0.png"),
        (["a/b/1", "a/c/2"], (), "no classes in {}, as all of its images lie in one folder, a/"),
        (["train/1", "train/2", "bus/1", "bus/2"], ("bus", "train"), ""),
        (["train/a/1", "train/a/2", "train/b/1", "train/b/2"], ("a", "b"), ""),
        (["a/1", "a/2", "b/1", "b/2", "Unlabeled/1"], ("a", "b"), PRETRAIN.format("Unlabeled/1.png")),
        (["a/1", "a/2", "test/1", "test/2"], ("a", "test"), ""),
    ],
)  # fmt: skip
def test_which_folders_are_classes(home: Path, paths: list[str], classes: tuple[str, ...], note: str) -> None:
    for number, path in enumerate(paths):
        draw(home / f"{path}.png", number)
    dataset = create_dataset(f"folder:{home}")
    assert dataset.split("train").classes == classes
    assert dataset.notes == ((note.format(home),) if note else ())


def test_folders_without_images_are_no_classes(home: Path) -> None:
    draw_classes(home, {"cat": 4, "dog": 4})
    (home / "empty/.hidden").mkdir(parents=True)
    (home / ".git").mkdir()
    dataset = create_dataset(f"folder:{home}")
    assert dataset.split("train").classes == ("cat", "dog")
    assert dataset.notes == (f"folders of {home} without images, no classes: empty",)


def test_links_are_followed_but_not_in_circles(home: Path) -> None:
    draw_classes(home / "real", {"cat": 3, "dog": 3})
    data = home / "data"
    link(data / "cat", home / "real/cat")
    link(data / "dog/linked.png", home / "real/dog/0.png")
    link(data / "dog/more", home / "real/dog")
    link(data / "dog/up", data)
    link(data / "dog/self", Path("self"))
    link(data / "dog/self.png", Path("self.png"))
    (data / "dog/self.png").unlink()
    dataset = create_dataset(f"folder:{data}")
    found = sorted(dataset.split("train").names + dataset.split("test").names)
    assert found == [
        *(f"cat/{i}.png" for i in range(3)), "dog/linked.png", *(f"dog/more/{i}.png" for i in range(3))
    ]  # fmt: skip
    for target in ("nowhere.png", "broken.png"):
        link(data / "dog/broken.png", Path(target))
        with pytest.raises(ValueError, match=r"dog/broken.png: .*skip"):
            create_dataset(f"folder:{data}")
        assert (
            "1 of 8 images could not be read"
            in create_dataset(f"folder:{data}", on_bad_image="skip").notes[0]
        )
        (data / "dog/broken.png").unlink()


def test_small_images_of_one_size_are_resident_and_others_are_photos(home: Path) -> None:
    draw_classes(home / "grey", {"a": 5, "b": 5}, side=64, grey=True)
    draw_classes(home / "mixed", {"a": 5}, side=64)
    draw_classes(home / "mixed", {"b": 5}, start=5, side=64, grey=True)
    draw_classes(home / "sizes", {"a": 5}, side=8)
    draw_classes(home / "sizes", {"b": 5}, start=5, side=9)
    draw_classes(home / "large", {"a": 5, "b": 5}, side=65)
    made = {name: create_dataset(f"folder:{home / name}") for name in ("grey", "mixed", "sizes", "large")}
    assert {name: type(made[name].split("test").images) for name in made} == {
        "grey": torch.Tensor, "mixed": torch.Tensor, "sizes": Photos, "large": Photos
    }  # fmt: skip
    for name, channels in (("grey", 1), ("mixed", 3)):
        for split in made[name].splits.values():
            assert split.images.shape[1:] == (channels, 64, 64)
            for path, image in zip(split.names, split.images, strict=True):
                stored = torch.from_numpy(np.array(Image.open(home / name / path).convert("RGB"))).permute(
                    2, 0, 1
                )
                assert torch.equal(image.expand(3, -1, -1), stored)
    large = made["large"].split("train")
    assert torch.equal(
        large.images.decode(7),
        torch.from_numpy(np.array(Image.open(home / "large" / large.names[7]))).permute(2, 0, 1),
    )
    assert large.images.sides.tolist() == [[65, 65]] * 8
    assert (large.grey, made["grey"].split("train").grey) == (False, True)


@pytest.mark.parametrize("side", [8, 70])
def test_data_sets_can_be_pickled(home: Path, side: int) -> None:
    draw_classes(home / "train", {"a": 5, "b": 5}, side=side)
    draw_classes(home / "test", {"a": 3, "b": 2}, start=10, side=side)
    draw_flat(home / "unlabeled", 4, start=15, side=side)
    dataset = create_dataset(f"folder:{home}")
    copy = pickle.loads(pickle.dumps(dataset))
    for split in ("pretrain", "train", "test"):
        one, other = dataset.split(split), copy.split(split)
        assert (one.names, one.fingerprint, one.classes) == (other.names, other.fingerprint, other.classes)
        for index in range(len(one)):
            pixels = [part.images[index] if side == 8 else part.images.decode(index) for part in (one, other)]
            assert torch.equal(*pixels)


def test_a_class_all_of_whose_images_are_bad_is_left_out(home: Path) -> None:
    draw_classes(home, {"cat": 5, "dog": 5})
    (home / "cow").mkdir()
    (home / "cow/1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cow/1.png: zero bytes"):
        create_dataset(f"folder:{home}")
    dataset = create_dataset(f"folder:{home}", on_bad_image="skip")
    assert dataset.split("test").classes == ("cat", "dog")
    assert dataset.split("test").labels.tolist() == [0, 1]
    assert dataset.notes[1] == "classes without an image in train, left out: cow"


@needs_data
def test_fashion_mnist_as_a_folder_of_files_is_fashion_mnist(home: Path) -> None:
    def read(name: str, start: int) -> np.ndarray:
        return np.frombuffer(
            gzip.decompress(Path(DATA, "fashion-mnist", name).read_bytes()), np.uint8, offset=start
        )

    images = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:400]
    labels = read("t10k-labels-idx1-ubyte.gz", 8)[:400]
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = home / f"{'test' if index % 4 == 0 else 'train'}/{label}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    dataset = create_dataset(f"folder:{home}")
    for split in (dataset.split("train"), dataset.split("test")):
        index = [int(Path(name).stem) for name in split.names]
        assert (split.images[:, 0].numpy() == images[index]).all()
        assert split.labels.tolist() == labels[index].tolist()
        assert split.classes == tuple("0123456789")
    assert sizes(dataset) == (300, 300, 100)
    assert dataset.notes == ()
