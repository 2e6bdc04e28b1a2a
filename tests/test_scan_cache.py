"""What a scan keeps for the next start: nothing is decoded twice, nothing wrong is believed."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from made_photos import quadrants, write_dark, write_photos

from ssl_zoo.data import cache
from ssl_zoo.data import scan as scan_module
from ssl_zoo.data.photos import Photos, write_pack
from ssl_zoo.data.scan import scan


def look(files: list[Path], **options):
    return scan(files, None, [path.name for path in files], **options)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions that are decoded from here on."""
    positions: list[int] = []
    original = Photos.decode

    def decode(photos: Photos, position: int, at_least: int = 0) -> torch.Tensor:
        positions.append(position)
        return original(photos, position, at_least)

    monkeypatch.setattr(Photos, "decode", decode)
    return positions


def test_a_second_scan_decodes_nothing_until_something_changes(home: Path, decoded: list[int]) -> None:
    paths = [*write_photos(home, count=3), write_dark(home / "dark.png")]
    first = look(paths)
    assert sorted(decoded) == list(range(7))
    decoded.clear()
    second = look(paths)
    assert decoded == []
    assert torch.equal(first[0].content, second[0].content)
    assert torch.equal(first[0].sides, second[0].sides)
    assert (first[0].grey, first[2]) == (second[0].grey, second[2])
    assert len(first[2]) == 1
    look(paths, window="percentile")
    look(paths[:3])
    assert len(decoded) == 7 + 3
    decoded.clear()
    status = paths[2].stat()
    os.utime(paths[2], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    look(paths)
    assert len(decoded) == 7
    decoded.clear()
    quadrants().save(paths[2])
    os.utime(paths[2], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert paths[2].stat().st_size != status.st_size
    assert look(paths)[0].sides[2].tolist() == [40, 60]
    assert len(decoded) == 7


def test_bad_images_are_looked_at_again_and_only_they(home: Path, decoded: list[int], monkeypatch) -> None:
    paths = write_photos(home, count=2)
    original, locked = Path.open, paths[1]

    def refuse(path: Path, *args):
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match="permission denied"):
        look(paths)
    decoded.clear()
    _, positions, notes = look(paths, on_bad_image="skip")
    assert decoded == [1]
    assert positions.tolist() == [0, 2, 3]
    assert notes == (f"1 of 4 images could not be read and was left out: {locked.name} (permission denied)",)
    decoded.clear()
    locked = None
    assert look(paths)[1].tolist() == [0, 1, 2, 3]
    look(paths)
    assert decoded == [1]


@pytest.mark.parametrize("damage", ["missing", "short", "bits", "empty", "shape"])
def test_a_damaged_entry_is_built_again(home: Path, damage: str, caplog, decoded: list[int]) -> None:
    paths = write_photos(home, count=2)
    good = look(paths)[0]
    (entry,) = (cache.cache_dir() / "scans").glob("*/*")
    facts = entry / "facts.npz"
    whole = facts.read_bytes()
    if damage == "missing":
        facts.unlink()
    elif damage == "short":
        os.truncate(facts, len(whole) - 30)
    elif damage == "bits":
        at = whole.index(good.content.numpy().tobytes())
        facts.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    elif damage == "empty":
        os.truncate(facts, 0)
    else:
        np.savez(facts, content=np.ones(3), sides=np.ones((3, 2)), traits=np.ones((3, 3)))
    decoded.clear()
    again = look(paths)[0]
    assert len(decoded) == 4
    assert "is damaged" in caplog.text
    assert torch.equal(again.content, good.content)
    look(paths)
    assert len(decoded) == 4
    assert list(entry.parent.iterdir()) == [entry]


def test_a_pack_is_kept_by_its_spans(home: Path, decoded: list[int]) -> None:
    paths = write_photos(home, count=3)
    spans = write_pack(home / "a.pack", [path.read_bytes() for path in paths])
    names = [f"row {row}" for row in range(6)]
    first = scan([home / "a.pack"], spans, names)[0]
    assert sorted(decoded) == list(range(6))
    decoded.clear()
    assert torch.equal(scan([home / "a.pack"], spans, names)[0].content, first.content)
    assert decoded == []
    turned = scan([home / "a.pack"], spans.flip(0), names)[0]
    assert sorted(decoded) == list(range(6))
    assert torch.equal(turned.content, first.content.flip(0))


def test_an_interrupted_scan_continues_where_it_was(home: Path, decoded: list[int], monkeypatch) -> None:
    paths = write_photos(home, count=4)
    monkeypatch.setattr(scan_module, "_CHUNK", 2)
    original = scan_module._inspect

    def interrupt(photos: Photos, position: int):
        if position == 5:
            raise KeyboardInterrupt
        return original(photos, position)

    monkeypatch.setattr(scan_module, "_inspect", interrupt)
    with pytest.raises(KeyboardInterrupt):
        look(paths)
    monkeypatch.setattr(scan_module, "_inspect", original)
    decoded.clear()
    assert len(look(paths)[0]) == 8
    assert sorted(decoded) == [5, 6, 7]


def test_a_cache_that_cannot_be_written_says_what_to_set(home: Path, monkeypatch) -> None:
    paths = write_photos(home, count=1)
    monkeypatch.setenv("SSL_ZOO_CACHE", str(paths[0]))
    with pytest.raises(OSError, match=r"cannot be written: .*; set SSL_ZOO_CACHE"):
        look(paths)
