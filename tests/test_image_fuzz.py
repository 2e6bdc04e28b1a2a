"""Generated broken images, tables and label files: each is named or read whole, and none stops a bench."""

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from made_command import run_here
from made_data import COLOUR, LABELS, encode
from made_files import draw_classes

from benchmarks.harm.images import FORMATS, bomb, broken_images, encoded, judged
from ssl_zoo.data.datasets import create_dataset
from ssl_zoo.data.decode import BadImage, read_rgb

MANY = settings(
    deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate]
)
PHOTOS = [encode(image) for image in COLOUR]


@pytest.mark.filterwarnings("ignore")  # Pillow's words on broken files
@settings(MANY, max_examples=150)
@given(broken_images())
def test_broken_images_are_named_or_read_whole(tmp_path: Path, made: tuple[str, bytes]) -> None:
    kind, data = made
    assert judged(kind, data, tmp_path / f"image.{kind}") in ("read", "refused")


@pytest.mark.parametrize(("kind", "mode"), FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_sizes_of_every_format_are_read(kind: str, mode: str, size: tuple[int, int]) -> None:
    if kind == "webp" and max(size) > 16_383:
        pytest.skip("WebP holds no more than 16,383 pixels a side")
    window = (0.0, 255.0) if mode == "F" else "dtype"
    assert read_rgb(encoded(kind, mode, size), window).shape == (3, size[1], size[0])


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path: Path) -> None:
    for side in (20_000, 2**31 - 1):
        (tmp_path / "a.png").write_bytes(bomb(side, side))
        with pytest.raises(BadImage, match=r"a.png: .*(decompression bombs|cannot be decoded)"):
            read_rgb(tmp_path / "a.png")


@pytest.mark.skipif(os.name == "nt", reason="named pipes and devices are POSIX")
def test_pipes_and_devices_do_not_hang(home: Path) -> None:
    os.mkfifo(home / "pipe.png")
    (home / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(BadImage, match=f"{name}: a pipe or a device; remove it"):
            read_rgb(home / name)


def test_a_folder_of_everything_becomes_a_bench(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_classes(home, {"cat": 12, "dog": 12}, side=16)
    bad = home / "cat"
    (bad / "empty.png").write_bytes(b"")
    (bad / "text.png").write_text("no image")
    (bad / "cut.png").write_bytes(PHOTOS[0][:50])
    (bad / "bomb.png").write_bytes(bomb(30_000, 30_000))
    (bad / "folder.png").mkdir()
    (home / "nothing").mkdir()
    (bad / "loop.png").symlink_to("loop.png")
    (bad / "gone.png").symlink_to("nowhere.png")
    (bad / "device.png").symlink_to("/dev/zero")
    (home / "dog" / "up").symlink_to(home)
    os.mkfifo(bad / "pipe.png")
    name = os.fsencode(bad) + b"/ph\xf6to.png"
    Path(os.fsdecode(name)).write_bytes(PHOTOS[1])
    small = ["--backbone", "resnet8", "--image-size", "16", "--set", "backbone.width=8", "run.device=cpu"]
    command = ["bench", "--methods", "byol", "--dataset", f"folder:{home}", "--dry-run", *small]
    assert run_here(*command) == 2
    assert "data.on_bad_image=skip (7 of" in capsys.readouterr().err
    assert run_here(*command, "data.on_bad_image=skip") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "7 of 32 images could not be read and were left out" in out


# Tables and label files


def table(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@settings(MANY, max_examples=60)
@given(st.integers(0, 2**32))
def test_damaged_parquet_files_are_named(tmp_path: Path, number: int) -> None:
    os.environ["SSL_ZOO_CACHE"] = str(tmp_path / "cache")
    path = table(tmp_path / "x.parquet", img=PHOTOS, label=LABELS % 2, split=["train", "test"] * 6)
    chance, data = random.Random(number), bytearray(path.read_bytes())
    if chance.random() < 0.3:
        data = data[: chance.randrange(len(data))]
    else:
        start = chance.choice([0, len(data) - 900])  # pages, or the footer
        for _ in range(chance.choice([1, 3, 30])):
            data[chance.randrange(start, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    with contextlib.suppress(ValueError):  # whatever else is raised is not in words
        dataset = create_dataset(f"parquet:{path}", on_bad_image="skip")
        assert len(dataset.split("train")) + len(dataset.split("test")) <= len(PHOTOS)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"img": [1, 2]}, "it needs `img` or `image`, binary"),
        ({"img": pa.array([{"bytes": "text"}] * 2)}, "it needs `img` or `image`, binary"),
        ({"img": pa.array([{"bytes": {"bytes": b"x"}}] * 2)}, "it needs `img` or `image`, binary"),
        ({"img": pa.array([None] * 12, pa.binary()), "label": LABELS % 2}, "none of 12 images can be read"),
        ({"img": PHOTOS, "label": [None] * 11 + [1]}, "too few|one class|no labelled"),
        ({"img": PHOTOS, "label": [True] * 12}, "it needs whole numbers or text"),
        ({"img": PHOTOS, "label": [[1]] * 12}, "it needs whole numbers or text"),
        ({"img": PHOTOS, "split": [None] * 12}, "row 0: split 'none'; allowed are"),
    ],
)
def test_wrong_schemas_are_told(home: Path, columns: dict, words: str) -> None:
    path = table(home / "x.parquet", **columns)
    with pytest.raises(ValueError, match=words):
        create_dataset(f"parquet:{path}")


@pytest.mark.parametrize("words", [b"[]", b"{", b'{"info": 3}', b'{"info": {"features": [1]}}', b"\xff"])
def test_broken_metadata_are_told(home: Path, words: bytes) -> None:
    made = pa.table({"img": PHOTOS, "label": LABELS % 2}).replace_schema_metadata({b"huggingface": words})
    pq.write_table(made, home / "x.parquet")
    with pytest.raises(ValueError, match=r"x.parquet has broken Hugging Face metadata"):
        create_dataset(f"parquet:{home / 'x.parquet'}")


def test_columns_of_one_name_are_told(home: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(PHOTOS)] * 2, ["img", "img"]), home / "x.parquet")
    with pytest.raises(ValueError, match="give each a name of its own"):
        create_dataset(f"parquet:{home / 'x.parquet'}")


def test_a_huge_row_group_is_read_in_pieces(home: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 300, 300), dtype=np.uint8)
    photos = [encode(image) for image in noise]
    path = home / "x.parquet"
    pq.write_table(
        pa.table({"img": photos}), path, row_group_size=256, compression="none", data_page_size=2**16
    )
    pool, before = pa.default_memory_pool(), pa.total_allocated_bytes()
    del photos, noise
    create_dataset(f"parquet:{path}")
    assert path.stat().st_size > 20e6
    assert pool.max_memory() is None or pa.total_allocated_bytes() - before < 1e6


def test_names_that_leave_the_folder_open_nothing(home: Path) -> None:
    rows = [{"bytes": data, "path": f"../../{index}.png"} for index, data in enumerate(PHOTOS)]
    dataset = create_dataset(f"parquet:{table(home / 'x.parquet', image=rows, label=LABELS % 2)}")
    assert all(name.startswith("../../") for name in dataset.split("train").names)  # names only, never paths
    draw_classes(home / "photos", {"a": 6, "b": 6})
    for path in ("../x.parquet", "/etc/passwd", "C:\\x.png", "a/../../x.png"):
        (home / "labels.csv").write_text(f"path,label\n{path},cat\n")
        with pytest.raises(ValueError, match="leaves the source; give the path relative to its folder"):
            create_dataset(f"folder:{home / 'photos'}", labels=home / "labels.csv")


@settings(MANY, max_examples=150)
@given(
    st.one_of(
        st.binary(max_size=120),
        st.text(max_size=120).map(lambda t: f"path,label\n{t}".encode("utf-8", "replace")),
    )
)
def test_random_label_files_are_told(tmp_path: Path, data: bytes) -> None:
    os.environ["SSL_ZOO_CACHE"] = str(tmp_path / "cache")
    if not (tmp_path / "photos").exists():
        draw_classes(tmp_path / "photos", {"a": 3, "b": 3})
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"labels.*labels\.csv"):
        create_dataset(f"folder:{tmp_path / 'photos'}", labels=tmp_path / "labels.csv")
