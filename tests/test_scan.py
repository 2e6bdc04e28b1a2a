"""The scan: facts by value, what is bad, constant or dark, and what is kept for the next start."""

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from made_photos import (
    quadrants,
    write_dark,
    write_empty,
    write_long,
    write_photos,
    write_plain,
    write_rotated,
    write_text,
    write_truncated,
)
from PIL import Image

from ssl_zoo.data import cache
from ssl_zoo.data import scan as scan_module
from ssl_zoo.data.decode import read_rgb
from ssl_zoo.data.photos import write_pack
from ssl_zoo.data.scan import scan


def look(files: list[Path], **options):
    return scan(files, None, [path.name for path in files], **options)


def test_every_image_is_good_and_its_facts_are_those_of_its_pixels(home: Path) -> None:
    paths = write_photos(home)
    paths += [write_rotated(home / "turned.jpg", 6), write_long(home / "long.png", 300)]
    photos, positions, notes = look(paths)
    assert positions.tolist() == list(range(38))
    assert notes == ()
    assert not photos.grey
    for position, path in enumerate(paths):
        rgb = read_rgb(path)
        assert photos.sides[position].tolist() == list(rgb.shape[1:])
        shape = np.array(rgb.shape, "<i8").tobytes()
        digest = hashlib.blake2b(shape + rgb.numpy().tobytes(), digest_size=8).digest()
        assert photos.content[position] == np.frombuffer(digest, "<i8")[0]
    assert photos.sides[36].tolist() == [40, 60]
    assert photos.content.dtype == photos.sides.dtype == positions.dtype == torch.int64


def test_content_is_equal_for_equal_pixels_and_tells_shapes_apart(home: Path) -> None:
    quadrants().save(home / "a.png")
    quadrants().save(home / "b.bmp")
    write_plain(home / "c.png", 4, 6)
    write_plain(home / "d.png", 6, 4)
    photos, _, notes = look(sorted(home.iterdir()))
    a, b, c, d = photos.content.tolist()
    assert a == b
    assert len({a, c, d}) == 3
    assert notes == ("2 of 4 images are constant (one colour): c.png, d.png",)


def test_grey_is_judged_by_the_pixels(home: Path) -> None:
    quadrants().convert("L").save(home / "a.png")
    quadrants().convert("L").convert("RGB").save(home / "b.png")
    assert look([home / "a.png", home / "b.png"])[0].grey
    spot = quadrants().convert("L").convert("RGB")
    spot.putpixel((30, 30), (9, 9, 10))
    spot.save(home / "c.png")
    assert not look([home / "a.png", home / "c.png"])[0].grey


def test_bad_images_are_an_error_or_left_out_and_counted(home: Path) -> None:
    good = write_photos(home, count=2)
    bad = [
        write_truncated(home / "a.jpg"),
        write_empty(home / "b.png"),
        write_text(home / "c.png"),
        home / "d.gif",
        home / "e.bmp",
        home / "f.jpg",
    ]
    bad[3].mkdir()
    bad[4].symlink_to("nowhere.bmp")
    write_truncated(bad[5])
    paths = [good[0], *bad[:3], *good[1:3], *bad[3:], good[3]]
    match = (
        r"a.jpg: truncated; copy it again, or leave bad images out with data.on_bad_image=skip "
        r"\(6 of 10 images are bad\)"
    )
    with pytest.raises(ValueError, match=f"^{home}/{match}$"):
        look(paths)
    photos, positions, notes = look(paths, on_bad_image="skip")
    assert positions.tolist() == [0, 4, 5, 9]
    assert [os.fsdecode(name) for name in photos.files] == [str(path) for path in good]
    assert all(torch.equal(photos.decode(i), read_rgb(path)) for i, path in enumerate(good))
    assert photos.sides.tolist() == [list(read_rgb(path).shape[1:]) for path in good]
    assert notes == (
        "6 of 10 images could not be read and were left out: a.jpg (truncated), b.png (zero bytes), "
        "c.png (not an image), d.gif (a folder), e.bmp (missing, or a link to nothing), and 1 more",
    )
    _, _, notes = look([good[0], bad[1]], on_bad_image="skip")
    assert notes == ("1 of 2 images could not be read and was left out: b.png (zero bytes)",)
    with pytest.raises(ValueError, match=r"b.png: zero bytes; copy it again, or .*=skip$"):
        look([good[0], bad[1]])


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_without_a_good_image_there_is_nothing_to_skip(home: Path, on_bad_image: str) -> None:
    paths = [write_empty(home / "a.jpg"), write_text(home / "b.jpg")]
    with pytest.raises(
        ValueError, match=r"^none of 2 images can be read; .*a.jpg: zero bytes; copy it again$"
    ):
        look(paths, on_bad_image=on_bad_image)
    assert not (cache.cache_dir() / "scans").exists()


def test_constant_and_dark_images_are_counted_and_kept(home: Path) -> None:
    paths = [write_plain(home / f"{name}.png", 5, 4, 3 * (ord(name),)) for name in "abcdefg"]
    paths += [write_plain(home / "black.png", 5, 4, (0, 0, 0)), write_dark(home / "dark.png")]
    dim = np.zeros((10, 10, 3), np.uint8)
    dim[0, 0] = (0, 0, 3)  # exactly 99 % at or below 2
    Image.fromarray(dim).save(home / "dim.png")
    photos, _, notes = look([*paths, home / "dim.png"])
    assert len(photos) == 10
    assert notes == (
        "8 of 10 images are constant (one colour): a.png, b.png, c.png, d.png, e.png, and 3 more",
        "1 of 10 images is more than 99% dark (at or below 2 of 255): dark.png",
    )


def test_a_pack_is_scanned_like_its_files(home: Path) -> None:
    paths = [*write_photos(home / "files", count=18), write_dark(home / "dark.png")]
    data = [path.read_bytes() for path in paths]
    pack, spans = home / "a.pack", write_pack(home / "a.pack", data)
    names = [f"rows.parquet, row {row}" for row in range(37)]
    photos, positions, notes = scan([pack], spans, names)
    files = look(paths)[0]
    assert torch.equal(photos.content, files.content)
    assert torch.equal(photos.sides, files.sides)
    assert positions.tolist() == list(range(37))
    assert notes == ("1 of 37 images is more than 99% dark (at or below 2 of 255): rows.parquet, row 36",)
    assert torch.equal(photos[torch.tensor([4])].decode(0), read_rgb(paths[4]))
    spans = write_pack(pack, [data[0], data[1][:50], data[2]])
    with pytest.raises(ValueError, match=r"^rows.parquet, row 1: .*data.on_bad_image=skip$"):
        scan([pack], spans, names[:3])
    photos, positions, _ = scan([pack], spans, names[:3], on_bad_image="skip")
    assert positions.tolist() == [0, 2]
    assert torch.equal(photos.decode(1), read_rgb(paths[2]))


def test_the_window_of_a_scan_stays_with_its_photos(home: Path) -> None:
    Image.fromarray(np.array([[0, 500, 1000]], np.uint16)).save(home / "a.png")
    dim, _, notes = look([home / "a.png"])
    assert notes == ()
    assert dim.decode(0)[0].tolist() == [[0, 2, 4]]
    clear, _, _ = look([home / "a.png"], window=(0, 1000))
    assert clear.decode(0)[0].tolist() == [[0, 128, 255]]
    assert clear.content != dim.content
    with pytest.raises(ValueError, match=r"data.window='minmax'; allowed"):
        look([home / "a.png"], window="minmax")


def test_deep_images_without_a_window_say_what_to_set(home: Path) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(home / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif: its 32-bit floats .*; set data.window to percentile or \["):
        look([home / "a.tif"], on_bad_image="skip")


@pytest.mark.skipif(os.name == "nt", reason="Windows file names are Unicode")
def test_names_of_any_bytes(home: Path) -> None:
    paths = [
        Path(os.fsdecode(os.fsencode(home) + name)) for name in (b"/\xff\xe4.png", b"/\xe4\n.png", b"/c.png")
    ]
    paths += [home / "猫 é.png"]
    for path in paths[1:]:
        write_plain(path, 3, 2)
    write_empty(paths[0])
    with pytest.raises(ValueError, match=r"\\xff\\xe4.png: zero bytes"):
        look(paths)
    photos, _, notes = look(paths, on_bad_image="skip")
    assert [photos.decode(i).shape[0] for i in range(3)] == [3, 3, 3]
    assert "\\xff\\xe4.png (zero bytes)" in notes[0]
    assert "猫 é.png" in notes[1]
    "".join(notes).encode()
    look(paths, on_bad_image="skip")


def test_progress_of_long_scans_is_logged(home: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(scan_module, "_CHUNK", 1)
    caplog.set_level(logging.INFO)
    look(write_photos(home, count=15))
    looked = [record.getMessage() for record in caplog.records if record.name == scan_module.__name__]
    assert looked == [f"looked at {done} of 30 images" for done in range(3, 31, 3)]
