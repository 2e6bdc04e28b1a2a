"""What `python -m benchmarks.data` makes and measures; the measurement itself takes minutes."""

import sys

import pytest
import torch
from PIL import Image

from benchmarks.data import SIDES, memory, write_photos
from ssl_zoo.data.folders import list_folder


def test_the_same_photos_are_made_again(tmp_path):
    sizes = [write_photos(tmp_path / name, 4) for name in ("first", "second")]
    first, second = (sorted((tmp_path / name).rglob("*.jpg")) for name in ("first", "second"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert sizes == [sum(file.stat().st_size for file in first)] * 2
    assert len({file.read_bytes() for file in first}) == 4
    for file in first:
        with Image.open(file) as image:
            assert SIDES[0] <= min(image.size) <= max(image.size) <= SIDES[1]
    assert list_folder(tmp_path / "first").classes == ()  # nobody labelled them


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_memory_counts_what_is_held():
    before = memory()
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert 60 * 2**20 < memory() - before < 70 * 2**20
    del held
