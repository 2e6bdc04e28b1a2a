"""Sources, cache, data roles and the sampler: real values of real and made-up data."""

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.datasets
from PIL import Image

from ssl_zoo.data import cache
from ssl_zoo.data.datasets import Dataset, Split, create_dataset, list_datasets
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.data.splits import roles

DATA = os.environ.get("SSL_ZOO_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="SSL_ZOO_DATA names no folder with real data sets")
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)  # [N, H, W, C]
GREY = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 10


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder; the cache lies beside it and SSL_ZOO_DATA is not set."""
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


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


def made(images: np.ndarray | torch.Tensor, labels, pretrain: Split | None = None) -> Dataset:
    train = Split(
        torch.as_tensor(images), None if labels is None else torch.as_tensor(labels), ("a", "b"), "f"
    )
    return Dataset("made", {"pretrain": pretrain or train, "train": train, "test": train}, (), flip=True)


def rows(images: torch.Tensor) -> list[bytes]:
    return sorted(image.tobytes() for image in images.numpy())


# Data sets


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
    assert cifar.flip
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


def test_unknown_names_are_answered_with_the_nearest_and_the_list() -> None:
    assert list_datasets() == ["cifar10", "digits", "fashion-mnist"]
    with pytest.raises(
        ValueError, match=r"'CIFAR-10' \(did you mean 'cifar10'\?\); .* cifar10, digits, fash"
    ):
        create_dataset("CIFAR-10")
    with pytest.raises(ValueError, match="no split 'val'; it has pretrain, train, test"):
        create_dataset("digits").split("val")


# Sources


@pytest.mark.parametrize("below", ["", "data", "plain_text"])
def test_parquet_of_png_is_read_exactly(home: Path, below: str) -> None:
    write_cifar(home / "cifar10" / below)
    cifar = create_dataset("cifar10", home)
    train = cifar.split("train")
    assert (train.images.permute(0, 2, 3, 1).numpy() == COLOUR).all()
    assert train.labels.tolist() == LABELS.tolist()
    assert train.classes[1] == "automobile"
    assert len(cifar.split("test")) == 4
    assert cifar.notes == ()


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
    fails(r"labels 3 to 12, not 0 to 9")
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


# Cache


def test_fingerprint_follows_content_and_not_place(home: Path) -> None:
    write_cifar(home / "cifar10")
    write_cifar(home / "elsewhere/cifar10/data")
    changed = COLOUR.copy()
    changed[7, 0, 0, 0] ^= 1
    write_cifar(home / "changed/cifar10", changed)
    prints = [
        create_dataset("cifar10", home / at).split("train").fingerprint
        for at in (".", "elsewhere", "changed")
    ]
    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 64


def test_images_are_decoded_once_and_mapped_afterwards(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(home / "cifar10")
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *args: opened.append(args) or original(*args))
    first = create_dataset("cifar10", home).split("train")
    assert len(opened) == 12 + 4
    second = create_dataset("cifar10", home).split("train")
    assert len(opened) == 12 + 4
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    first.images[0] = 0  # copy on write: nobody else sees it
    assert not torch.equal(first.images, second.images)
    assert torch.equal(create_dataset("cifar10", home).split("train").images, second.images)


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "shape", "labels", "json"])
def test_a_damaged_entry_is_built_again(home: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    write_cifar(home / "cifar10")
    good = create_dataset("cifar10", home).split("train")
    (entry,) = (cache.cache_dir() / "images").glob("*/cifar10-train-*")
    images = entry / "images.npy"
    if damage == "missing":
        images.unlink()
    elif damage == "short":
        os.truncate(images, images.stat().st_size - 1)
    elif damage == "empty":
        os.truncate(images, 0)
    elif damage == "shape":
        np.save(images, np.zeros((12, 3, 5, 6), np.uint8))
    elif damage == "labels":
        np.save(entry / "labels.npy", LABELS[:5])
    else:
        (entry / "meta.json").write_text("{")
    again = create_dataset("cifar10", home).split("train")
    assert "is damaged" in caplog.text
    assert (again.images.permute(0, 2, 3, 1).numpy() == COLOUR).all()
    assert again.labels.tolist() == good.labels.tolist()
    assert len(list(entry.parent.iterdir())) == 2  # train and test, nothing left over


RACE = """
import pathlib, sys, time
import numpy as np
from ssl_zoo.data import cache

def decode():
    here = pathlib.Path(sys.argv[1])
    (here / sys.argv[2]).touch()
    while len(list(here.iterdir())) < 2:
        time.sleep(0.01)
    return cache.Decoded(np.full((4, 3, 8, 8), 7, np.uint8), np.arange(4), ("a", "b", "c", "d"))

got = cache.load("race", decode)
assert (got.images == 7).all() and got.labels.tolist() == [0, 1, 2, 3]
"""


def test_two_processes_may_build_one_entry_at_once(home: Path) -> None:
    commands = [[sys.executable, "-c", RACE, str(home), name] for name in ("one", "two")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    assert {path.name for path in home.iterdir()} == {"one", "two"}  # both decoded, neither waited
    assert [path.name for path in (cache.cache_dir() / "images").glob("*/*")] == ["race"]


def test_a_cache_that_cannot_be_written_says_what_to_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(home / "cifar10")
    monkeypatch.setenv("SSL_ZOO_CACHE", str(home / "cifar10/train-00000-of-00001.parquet"))
    with pytest.raises(OSError, match=r"cannot be written: .*; set SSL_ZOO_CACHE"):
        create_dataset("cifar10", home)


# Roles


@pytest.fixture(scope="module")
def large() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2000, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return images, torch.arange(2000) % 2


def test_selection_is_a_tenth_left_out_of_pretraining(large) -> None:
    dataset = made(*large)
    parts = roles(dataset)
    ((fit, validate),) = parts.folds
    assert (len(fit), len(validate), len(parts.pretrain), len(parts.train)) == (1800, 200, 1800, 2000)
    assert sorted([*fit.tolist(), *validate.tolist()]) == list(range(2000))
    assert torch.equal(parts.pretrain.images, parts.train.images[fit])
    assert torch.equal(parts.pretrain.labels, parts.train.labels[fit])
    assert parts.train is dataset.split("train")
    assert parts.test is dataset.split("test")
    assert 70 < parts.train.labels[validate].sum() < 130  # no tie between hash and label


def test_selection_does_not_depend_on_the_order(large) -> None:
    images, labels = large
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    first, second = roles(made(images, labels)), roles(made(images[order], labels[order]))
    assert rows(images[first.folds[0][1]]) == rows(images[order][second.folds[0][1]])
    few, few_order = images[:300], order[order < 300]
    first, second = roles(made(few, labels[:300])), roles(made(few[few_order], labels[:300][few_order]))
    for (_, one), (_, other) in zip(first.folds, second.folds, strict=True):
        assert rows(few[one]) == rows(few[few_order][other])


@pytest.mark.parametrize("count", [2000, 300])
def test_exact_duplicates_stay_on_one_side(large, count: int) -> None:
    images, labels = large[0][:count].clone(), large[1][:count]
    half = count // 2
    images[half:] = images[:half]
    for fit, validate in roles(made(images, labels)).folds:
        side = torch.zeros(count)
        side[validate] = 1
        assert torch.equal(side[half:], side[:half])
        assert len(fit) + len(validate) == count
        assert 0.09 * count < len(validate) < 0.25 * count


def test_images_for_pretraining_only_are_all_kept(large) -> None:
    images, labels = large
    extra = Split(images[:50], None, (), "another")
    parts = roles(made(images, labels, pretrain=extra))
    assert parts.pretrain is extra
    assert "excluded" not in parts.rule


def test_few_labels_give_five_stratified_folds() -> None:
    dataset = create_dataset("digits")
    parts = roles(dataset)
    assert len(parts.folds) == 5
    assert parts.pretrain is dataset.split("train")
    assert torch.cat([validate for _, validate in parts.folds]).sort().values.tolist() == list(range(1438))
    counts = parts.train.labels.bincount()
    for fit, validate in parts.folds:
        assert not set(fit.tolist()) & set(validate.tolist())
        assert len(fit) + len(validate) == 1438
        assert ((parts.train.labels[validate].bincount() - counts / 5).abs() < 2).all()


def test_rare_classes_are_no_error_but_single_images_are(large) -> None:
    images = large[0]
    folds = roles(made(images[:23], [0] * 20 + [1] * 3)).folds
    assert sorted(len(validate) for _, validate in folds) == [4, 4, 5, 5, 5]
    assert len(roles(made(images[:6], [0, 0, 0, 1, 1, 1])).folds) == 3
    with pytest.raises(ValueError, match="no class with two distinct"):
        roles(made(images[:2], [0, 1]))
    assert roles(made(images, None)).folds == []


def test_summary_can_be_written_and_names_each_index_set(large) -> None:
    parts = roles(made(*large))
    summary = json.loads(json.dumps(parts.summary()))
    assert (
        summary["rule"]
        == "selection: 10% of train by the hash of each image's pixels, excluded from pretrain"
    )
    fit, validate = parts.folds[0]
    assert summary["folds"] == [
        {
            "fit": {"images": 1800, "fingerprint": parts.train.take(fit).fingerprint},
            "validate": {"images": 200, "fingerprint": parts.train.take(validate).fingerprint},
        }
    ]
    assert summary["pretrain"] == {
        "images": 1800,
        "labelled": True,
        "fingerprint": parts.pretrain.fingerprint,
    }
    assert summary["train"]["images"] == 2000
    assert parts.pretrain.fingerprint == parts.train.take(fit).fingerprint != parts.train.fingerprint


# Sampler


def test_every_image_comes_once_an_epoch_in_full_batches() -> None:
    sampler = Sampler(size=10, batch_size=4, seed=3)
    batches = [sampler.batch(step) for step in range(10)]
    assert all(len(index) == len(epoch) == 4 for index, epoch in batches)
    assert batches[2][1].tolist() == [0, 0, 1, 1]  # straddles
    stream, epochs = (torch.cat(part) for part in zip(*batches, strict=True))
    assert epochs.tolist() == [epoch for epoch in range(4) for _ in range(10)]
    orders = stream.view(4, 10)
    assert torch.equal(orders.sort(1).values, torch.arange(10).expand(4, 10))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    forward = [Sampler(50, 50, 0).batch(step)[0] for step in range(6)]
    sampler = Sampler(50, 50, 0)
    backward = [sampler.batch(step)[0] for step in reversed(range(6))]
    assert all(map(torch.equal, forward, reversed(backward)))
    assert not torch.equal(forward[0], Sampler(50, 50, 1).batch(0)[0])
    forward[0].zero_()  # a caller's batch is its own
    assert torch.equal(sampler.batch(0)[0], backward[-1])


@pytest.mark.parametrize(("size", "batch_size"), [(0, 1), (5, 0), (5, 6)])
def test_impossible_batches_are_refused(size: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="give"):
        Sampler(size, batch_size, 0)
