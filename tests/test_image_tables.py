"""Images in Parquet files and in Hugging Face data sets."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_data import COLOUR, LABELS, encode, write_parquet

from ssl_zoo.data import cache
from ssl_zoo.data.datasets import Dataset, create_dataset
from ssl_zoo.data.photos import Photos

PHOTOS = np.random.default_rng(1).integers(0, 256, (12, 70, 66, 3), dtype=np.uint8)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def by_name(dataset: Dataset) -> dict[str, tuple[bytes, str | None]]:
    """Pixels and class of every image of train and test."""
    found = {}
    for split in (dataset.split("train"), dataset.split("test")):
        images = split.images
        for index, name in enumerate(split.names):
            image = images.decode(index) if isinstance(images, Photos) else images[index]
            label = None if split.labels is None else split.classes[split.labels[index]]
            found[name] = (image.permute(1, 2, 0).numpy().tobytes(), label)
    return found


def write(path: Path, /, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=5)
    return path


def cells(images=COLOUR, names=None) -> pa.Array:
    data = [encode(image) for image in images]
    paths = [None] * len(data) if names is None else names
    return pa.array([{"bytes": image, "path": name} for image, name in zip(data, paths, strict=True)])


def fails(path: Path, match: str, kind: type[Exception] = ValueError, **options) -> None:
    with pytest.raises(kind, match=match):
        create_dataset(f"parquet:{path}", **options)


@pytest.mark.parametrize("images", [COLOUR, PHOTOS])
def test_one_file_is_split_by_content(home: Path, images: np.ndarray) -> None:
    path = home / "my.parquet"
    write_parquet(path, images, names=WORDS)
    dataset = create_dataset(f"parquet:{path}")
    assert by_name(dataset) == {
        f"my.parquet#{row}": (image.tobytes(), WORDS[label])
        for row, (image, label) in enumerate(zip(images, LABELS, strict=True))
    }
    assert dataset.rule == "test: 20 % per class by content hash"
    assert len(dataset.split("test")) == 2
    assert dataset.split("test").classes == WORDS
    assert isinstance(dataset.split("train").images, torch.Tensor if images is COLOUR else Photos)
    assert by_name(pickle.loads(pickle.dumps(dataset))) == by_name(dataset)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["dög", "cat", None, "cat", "", "dög"] * 2, ["dög", "cat", None, "cat", None, "dög"] * 2),
        ([30, 4, None, 4, -1, 30] * 2, ["30", "4", None, "4", None, "30"] * 2),
        (pa.array(["b", "a"] * 6).dictionary_encode(), ["b", "a"] * 6),
    ],
)
def test_labels_are_text_or_numbers_and_may_be_missing(home: Path, labels, classes: list[str | None]) -> None:
    names = [f"ä/{row}.png" for row in range(12)]
    path = write(
        home / "x.parquet", image=pa.array([encode(image) for image in COLOUR]), label=labels, path=names
    )
    dataset = create_dataset(f"parquet:{path}")
    assert {name: label for name, (_, label) in by_name(dataset).items()} == {
        name: label for name, label in zip(names, classes, strict=True) if label
    }
    order = ("4", "30") if "30" in classes else tuple(sorted({*classes} - {None}))
    assert dataset.split("train").classes == order
    unlabelled = {name for name, label in zip(names, classes, strict=True) if not label}
    assert {*dataset.split("pretrain").names} == {*dataset.split("train").names} | unlabelled


def test_names_of_classes_come_from_the_metadata_and_no_label_is_minus_one(home: Path) -> None:
    labels = np.array([5, 5, 5, 2, 2, -1, 5, 2, 5, 2, -1, 2])
    write_parquet(home / "x.parquet", COLOUR, labels, names=WORDS)
    dataset = create_dataset(f"parquet:{home / 'x.parquet'}")
    assert dataset.split("test").classes == ("two", "five")
    assert len(dataset.split("pretrain")) == len(dataset.split("train")) + 2
    others = "zero, one, three and 5 more"
    assert f"classes without an image in train, left out: {others}" in dataset.notes
    write_parquet(home / "x.parquet", COLOUR, labels + 9, names=WORDS)
    fails(home / "x.parquet", r"x.parquet has labels up to 14, not 0 to 9 as for 10 classes")


@pytest.mark.parametrize(
    "place", ["{}-00000-of-00001", "data/{}-00000-of-00001", "{}", "{}/0000", "{}/part-0"]
)
@pytest.mark.parametrize("test", ["test", "validation"])
def test_splits_of_the_hub_are_known_by_file_or_folder(home: Path, place: str, test: str) -> None:
    write_parquet(home / f"{place.format('train')}.parquet", COLOUR[:8], np.arange(8) % 2)
    write_parquet(home / f"{place.format(test)}.parquet", COLOUR[8:], np.arange(4) % 2)
    dataset = create_dataset(f"parquet:{home}")
    assert (dataset.split("train").images.permute(0, 2, 3, 1).numpy() == COLOUR[:8]).all()
    assert (dataset.split("test").images.permute(0, 2, 3, 1).numpy() == COLOUR[8:]).all()
    assert dataset.rule == f"the source's own train and {'val' if test == 'validation' else 'test'}"
    assert len({*dataset.split("train").names} | {*dataset.split("test").names}) == 12


def test_files_of_one_table_are_joined_and_a_column_may_tell_the_split(home: Path) -> None:
    splits = ["train"] * 4 + ["Test"] * 2 + ["unlabeled"] * 6
    names = [f"{row}.png" for row in range(12)]
    for part in (slice(0, 5), slice(5, 12)):
        labels = np.arange(12)[part] % 2
        write(
            home / f"p{part.start}.parquet",
            img=cells(COLOUR[part], names[part]),
            label=labels,
            split=splits[part],
        )
    dataset = create_dataset(f"parquet:{home}")
    assert dataset.split("train").names == ("0.png", "1.png", "2.png", "3.png")
    assert dataset.split("test").names == ("4.png", "5.png")
    assert dataset.split("pretrain").names == (*names[:4], *names[6:])
    assert (
        dataset.split("pretrain").images.permute(0, 2, 3, 1).numpy() == COLOUR[[*range(4), *range(6, 12)]]
    ).all()
    write(home / "p5.parquet", img=cells(), label=LABELS, split=["train"] * 11 + ["dev"])
    fails(home, r"p5.parquet, row 11: split 'dev'; allowed are train, test, val")


def test_a_csv_file_labels_rows_by_their_path(home: Path) -> None:
    names = [f"a/{row}.png" for row in range(12)]
    path = write(home / "x.parquet", image=cells(names=names), label=["ignored"] * 12)
    labels = home / "labels.csv"
    labels.write_text(
        "path,label\n" + "".join(f"{name},{'xy'[row % 2]}\n" for row, name in enumerate(names[:10]))
    )
    dataset = create_dataset(f"parquet:{path}", labels=labels)
    assert {name: label for name, (_, label) in by_name(dataset).items()} == {
        name: "xy"[row % 2] for row, name in enumerate(names[:10])
    }
    assert len(dataset.split("pretrain")) == 10
    labels.write_text("path,label\na/99.png,x\n")
    fails(path, r"line 2: a/99.png is none of the 12 images \(a/0.png", labels=labels)
    assert create_dataset(f"parquet:{path}", labels="none").split("train").labels is None


def test_names_that_are_not_distinct_or_of_another_computer_are_replaced(home: Path) -> None:
    for names in (["x.png"] * 12, [f"/data/{row}.png" for row in range(12)], [None, *"abcdefghijk"]):
        path = write(home / "x.parquet", image=cells(names=names))
        assert {*by_name(create_dataset(f"parquet:{path}"))} == {f"x.parquet#{row}" for row in range(12)}


def test_images_are_copied_once_and_in_pieces(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(home / "x.parquet", image=cells(PHOTOS), label=LABELS % 2)
    wanted = []
    original = pq.ParquetFile.iter_batches

    def iter_batches(self, rows: int, columns: list[str]):
        wanted.append((rows, tuple(columns)))
        return original(self, 5, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    for method in ("read", "read_row_group", "read_row_groups"):
        monkeypatch.setattr(pq.ParquetFile, method, lambda *_: pytest.fail("all of it at once"))
    first = by_name(create_dataset(f"parquet:{path}"))
    assert [rows for rows, columns in wanted if columns == ("image",)] == [32]
    assert by_name(create_dataset(f"parquet:{path}")) == first
    assert len([rows for rows, columns in wanted if columns == ("image",)]) == 1
    (pack,) = (cache.cache_dir() / "packs").glob("*/*/images")
    pack.write_bytes(pack.read_bytes()[:-1000])
    assert by_name(create_dataset(f"parquet:{path}")) == first
    write(home / "x.parquet", image=cells(PHOTOS[::-1]), label=LABELS % 2)
    again = by_name(create_dataset(f"parquet:{path}"))
    assert again["x.parquet#0"][0] == first["x.parquet#11"][0]


def test_bad_rows_are_named_or_skipped(home: Path) -> None:
    data = [encode(image) for image in COLOUR]
    data[3], data[5] = None, b"no image"
    path = write(home / "x.parquet", img=pa.array(data), label=LABELS % 2)
    fails(path, r"x.parquet#3: zero bytes.*skip \(2 of 12 images are bad\)")
    dataset = create_dataset(f"parquet:{path}", on_bad_image="skip")
    assert {*by_name(dataset)} == {f"x.parquet#{row}" for row in range(12)} - {"x.parquet#3", "x.parquet#5"}
    assert dataset.notes[0].startswith(
        "2 of 12 images could not be read and were left out: x.parquet#3 (zero bytes)"
    )
    labels = {name: label for name, (_, label) in by_name(dataset).items()}
    assert labels == {name: str(LABELS[int(name.split("#")[1])] % 2) for name in labels}


def test_what_is_no_table_of_images_is_told(home: Path) -> None:
    path = home / "x.parquet"
    fails(path, r"there is no such file, nor a folder with \*.parquet in it", FileNotFoundError)
    fails(home, r"there is no such file, nor a folder with \*.parquet in it", FileNotFoundError)
    write(path, picture=cells())
    fails(path, r"x.parquet has columns \['picture'\]; it needs `img` or `image`, binary or \{bytes, path\}")
    write(path, image=["a.png"] * 3)
    fails(path, r"it needs `img` or `image`, binary")
    write(
        path,
        image=pa.array(
            [{"bytes": None, "path": "a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        ),
    )
    fails(
        path,
        r"x.parquet, row 0: the image is a path without bytes \(a.png\); store the bytes, or use folder:PATH",
    )
    write(path, image=cells(), label=LABELS / 2)
    fails(path, r"x.parquet: `label` is double; it needs whole numbers or text")
    write(path, image=cells()[:0])
    fails(path, r"x.parquet holds no images")
    path.write_bytes(b"PAR1" * 9)
    fails(path, r"x.parquet cannot be read: .*; copy or download it again")
    write(path, image=cells(), label=LABELS)
    write(home / "y.parquet", image=cells(), label=["a"] * 12)
    fails(home, r"x.parquet, .*y.parquet: the files differ in class names or the type of labels")
    write(home / "train-0.parquet", image=cells())
    fails(home, r"holds files of a split and others: .*x.parquet, .*y.parquet; move these away")
    for name in ("x", "y", "train-0"):
        (home / f"{name}.parquet").unlink()
    write(home / "train-00001-of-00002.parquet", image=cells())
    fails(home, r"holds train-00001-of-00002.parquet; it needs every part")
    (home / "train-00001-of-00002.parquet").unlink()
    for config in ("one", "two"):
        write(home / f"{config}/0000.parquet", image=cells())
    fails(home, r"several folders hold \*.parquet: .*one, .*two; give one")
    assert len(by_name(create_dataset(f"parquet:{home / 'one'}"))) == len(COLOUR)


def test_columns_are_known_by_the_metadata_too(home: Path) -> None:
    features = {"pixels": {"_type": "Image"}, "labels": {"_type": "ClassLabel", "names": ["no", "yes"]}}

    def save() -> None:
        table = pa.table({"pixels": cells(), **{name: LABELS % 2 for name in features if name != "pixels"}})
        hub = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(hub), home / "x.parquet")

    save()
    assert create_dataset(f"parquet:{home}").split("train").classes == ("no", "yes")
    features["coarse"] = features["labels"]
    save()
    fails(home, r"x.parquet has labels \['labels', 'coarse'\]; rename the one to use to `label`")
