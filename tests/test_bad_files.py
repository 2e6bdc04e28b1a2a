"""Files that cannot be decoded: every error names the file, what is wrong and what to do."""

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_photos import draw, encoded, write_empty, write_plain, write_text, write_truncated
from PIL import Image

from ssl_zoo.data.decode import BadImage, read_rgb, shown


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (write_empty, "a.jpg", "zero bytes; copy it again"),
        (write_text, "a.png", "not an image; convert it"),
        (Path.mkdir, "a.jpg", "a folder; rename it"),
        (lambda path: path.symlink_to("nowhere.jpg"), "a.jpg", "missing, or a link to nothing; restore it"),
        (lambda path: path.symlink_to(path), "a.jpg", "too many levels of symbolic links; see that"),
        (lambda path: None, "a.jpg", "missing"),
        *((write_truncated, f"a{suffix}", "truncated; copy it again") for suffix in (".jpg", ".png", ".bmp")),
        *((write_truncated, f"a{suffix}", "truncated; copy it again") for suffix in (".gif", ".tif", ".ppm")),
        (write_truncated, "a.webp", "cannot be decoded: could not create decoder object; copy or convert"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong_and_what_to_do(tmp_path, write, name, message) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(BadImage) as caught:
        read_rgb(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_permission_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadImage, match=r"a.png: permission denied; allow this user to read it"):
        read_rgb(tmp_path / "a.png")


def test_corrupt_pixels_are_an_error() -> None:
    data = bytearray(encoded(draw(0, 90, 70, np.random.default_rng(0)), "PNG"))
    data[2000:2100] = bytes(100)
    with pytest.raises(BadImage, match=r"cannot be decoded: .*; copy or convert it again"):
        read_rgb(bytes(data))


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("limit", [59, 40, 15])  # Pillow warns above its limit and refuses above twice of it
def test_a_decompression_bomb_is_an_error_with_and_without_warnings(
    tmp_path, monkeypatch, action, limit
) -> None:
    path = write_plain(tmp_path / "a.png", 10, 6)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(BadImage, match=f"a.png: more than {limit} pixels, .*bombs; make it smaller"):
            read_rgb(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    assert read_rgb(path).shape == (3, 6, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_rgb(path).shape == (3, 6, 10)


def test_errors_survive_the_way_back_from_workers_and_names_of_any_bytes_can_be_printed() -> None:
    error = pickle.loads(pickle.dumps(BadImage("truncated", "copy it again", "a.jpg")))
    assert (str(error), error.reason) == ("a.jpg: truncated; copy it again", "truncated")
    assert str(BadImage("truncated")) == "truncated"
    assert shown(os.fsdecode(b"ph\xf6to \xc3\xa4.jpg")) == "ph\\xf6to ä.jpg" or os.name == "nt"
