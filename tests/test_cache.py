"""The cache of decoded images."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_data import COLOUR, LABELS, write_cifar
from PIL import Image

from ssl_zoo.data import cache
from ssl_zoo.data.datasets import create_dataset


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
    if (maps := Path("/proc/self/maps")).exists():  # Linux tells which files are mapped
        assert maps.read_text().count(os.path.realpath(cache.cache_dir())) == 2
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
import logging, pathlib, sys, time
import numpy as np
from ssl_zoo.data import cache

def decode():
    here = pathlib.Path(sys.argv[1])
    (here / f"decoded by {sys.argv[2]}").touch()
    while "waiting for another process" not in (here / "log").read_text():
        time.sleep(0.01)
    return cache.Decoded(np.full((4, 3, 8, 8), 7, np.uint8), np.arange(4), ("a", "b", "c", "d"))

logging.basicConfig(level=logging.INFO, filename=pathlib.Path(sys.argv[1]) / "log")
got = cache.load("race", decode)
assert (got.images == 7).all() and got.labels.tolist() == [0, 1, 2, 3]
"""


def test_of_two_processes_one_makes_the_entry_and_the_other_waits(home: Path) -> None:
    commands = [[sys.executable, "-c", RACE, str(home), name] for name in ("one", "two")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    assert len(list(home.glob("decoded by *"))) == 1
    assert [path.name for path in (cache.cache_dir() / "images").glob("*/*")] == ["race"]


def test_a_cache_that_cannot_be_written_says_what_to_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(home / "cifar10")
    monkeypatch.setenv("SSL_ZOO_CACHE", str(home / "cifar10/train-00000-of-00001.parquet"))
    with pytest.raises(OSError, match=r"cannot be written: .*; set SSL_ZOO_CACHE"):
        create_dataset("cifar10", home)
