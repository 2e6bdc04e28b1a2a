"""Photos: files and packs decoded on demand, here and in workers."""

import gc
import multiprocessing
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from made_photos import encoded, quadrants, write_long, write_photos, write_plain, write_truncated
from PIL import Image

from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.decode import BadImage, read_rgb
from ssl_zoo.data.photos import Photos, write_pack
from ssl_zoo.method import Augment, ViewSpec


def photos_of(files, spans=None, **options) -> Photos:
    count = len(files) if spans is None else len(spans)
    content = torch.arange(count) * 10
    return Photos(files, content, torch.arange(2 * count).view(count, 2), grey=False, spans=spans, **options)


def test_photos_are_decoded_by_position_and_selected_by_index(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, count=5)
    photos = photos_of(paths)
    assert len(photos) == 10
    for position, path in enumerate(paths):
        assert torch.equal(photos.decode(position), read_rgb(path))
    some = photos[torch.tensor([7, 2, 2])]
    assert len(some) == 3
    assert some.content.tolist() == [70, 20, 20]
    assert some.sides.tolist() == [[14, 15], [4, 5], [4, 5]]
    assert torch.equal(some.decode(0), read_rgb(paths[7]))
    assert torch.equal(some[torch.tensor([1])].decode(0), read_rgb(paths[2]))
    assert len(photos[torch.tensor([], dtype=torch.int64)]) == 0


def test_window_and_draft_reach_the_decoder(tmp_path: Path) -> None:
    quadrants(320, 240).save(tmp_path / "a.jpg")
    assert photos_of([tmp_path / "a.jpg"]).decode(0, at_least=60).shape == (3, 60, 80)
    assert photos_of([tmp_path / "a.jpg"]).decode(0).shape == (3, 240, 320)
    (tmp_path / "b.png").write_bytes(encoded_16_bits())
    assert photos_of([tmp_path / "b.png"], window=(0, 1000)).decode(0)[0].tolist() == [[0, 128, 255]]
    narrow = photos_of([tmp_path / "a.jpg", tmp_path / "b.png"], window=(500, 1000))[torch.tensor([1])]
    assert narrow.decode(0)[0].tolist() == [[0, 0, 255]]


def encoded_16_bits() -> bytes:
    return encoded(Image.fromarray(np.array([[0, 500, 1000]], np.uint16)), "PNG")


def test_a_pack_gives_back_its_images(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "files", count=18)
    first = write_pack(tmp_path / "made/a.pack", (path.read_bytes() for path in paths[:20]))
    second = write_pack(tmp_path / "made/b.pack", [path.read_bytes() for path in paths[20:]])
    assert first.dtype == torch.int64
    assert first[0].tolist() == [0, 0, paths[0].stat().st_size]
    assert first[1].tolist() == [0, paths[0].stat().st_size, paths[1].stat().st_size]
    second[:, 0] = 1
    photos = photos_of([tmp_path / "made/a.pack", tmp_path / "made/b.pack"], torch.cat([first, second]))
    assert len(photos) == 36
    for position, path in enumerate(paths):
        assert torch.equal(photos.decode(position), read_rgb(path))
    some = photos[torch.tensor([30, 3])]
    assert len(some) == 2
    assert torch.equal(some.decode(0), read_rgb(paths[30]))
    assert torch.equal(some.decode(1), read_rgb(paths[3]))


def test_a_pack_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def images():
        yield b"one"
        assert not (tmp_path / "a.pack").exists()
        yield b"three"
        raise KeyError("no more")

    with pytest.raises(KeyError):
        write_pack(tmp_path / "a.pack", images())
    assert list(tmp_path.iterdir()) == []
    assert write_pack(tmp_path / "a.pack", []).shape == (0, 3)
    assert write_pack(tmp_path / "a.pack", [b"one", b"", b"four"]).tolist() == [
        [0, 0, 3],
        [0, 3, 0],
        [0, 3, 4],
    ]
    assert (tmp_path / "a.pack").read_bytes() == b"onefour"
    assert len(list(tmp_path.iterdir())) == 1


def test_bad_images_in_files_and_packs_are_named(tmp_path: Path) -> None:
    path = write_truncated(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match=r"a.jpg: truncated; copy it again"):
        photos_of([path]).decode(0)
    spans = write_pack(tmp_path / "b.pack", [b"12345", path.read_bytes()])
    with pytest.raises(BadImage, match=rf"b.pack, bytes 5 to {5 + path.stat().st_size}: truncated"):
        photos_of([tmp_path / "b.pack"], spans).decode(1)
    with pytest.raises(FileNotFoundError, match=r"c.pack"):
        photos_of([tmp_path / "c.pack"], spans).decode(0)


def decoded_bytes(photos: Photos, position: int) -> bytes:
    return photos.decode(position).numpy().tobytes()


def test_spawned_workers_decode_the_same(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, classes=("cat",), count=3)
    spans = write_pack(tmp_path / "a.pack", [path.read_bytes() for path in paths])
    for photos in (photos_of(paths), photos_of([tmp_path / "a.pack"], spans)):
        copy = pickle.loads(pickle.dumps(photos))
        assert torch.equal(copy.content, photos.content)
        assert torch.equal(copy.sides, photos.sides)
        assert (copy.grey, copy.window) == (photos.grey, photos.window)
        assert copy.files.tolist() == photos.files.tolist()
        assert all(torch.equal(copy.decode(i), photos.decode(i)) for i in range(3))
    everything = photos_of([*paths, write_truncated(tmp_path / "bad.jpg")])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        *good, bad = (pool.submit(decoded_bytes, everything, position) for position in range(4))
        assert [future.result() for future in good] == [decoded_bytes(everything, i) for i in range(3)]
        with pytest.raises(BadImage, match=r"bad.jpg: truncated"):
            bad.result()


def test_a_hundred_thousand_photos_are_light(tmp_path: Path) -> None:
    files = [f"/data/photos/class-{index % 10}/image-{index:06}.jpg" for index in range(100_000)]
    photos = photos_of(files)
    assert len(pickle.dumps(photos)) < 100_000 * 100
    for held in (photos, photos[torch.arange(99_999)]):
        assert held.files.dtype.kind == "S"  # strings would be copied into each worker that reads them
        assert os.fsdecode(held.files[99_998]) == files[99_998]


def test_no_file_stays_open(tmp_path: Path) -> None:
    good, bad = write_plain(tmp_path / "a.tif", 3, 2), write_truncated(tmp_path / "b.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photos_of([good]).decode(0)
        with pytest.raises(BadImage):
            photos_of([bad]).decode(0)
        gc.collect()
    if os.path.isdir("/proc/self/fd"):
        opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        assert not [path for path in opened if str(tmp_path) in path]


def test_crops_of_tiny_and_long_images(tmp_path: Path) -> None:
    paths = [
        write_plain(tmp_path / "pixel.png", 1, 1, (10, 200, 30)),
        write_long(tmp_path / "high.png"),
        write_plain(tmp_path / "wide.jpg", 20_000, 1, (128, 128, 128)),
    ]
    photos = photos_of(paths)
    spec = ViewSpec((Augment(32, (0.2, 1.0)), Augment(32, (0.2, 1.0))), Augment(16, (0.05, 0.2)), 2)
    images = [photos.decode(position, at_least=96) for position in range(3)]
    crops = MultiCropCollate(spec).cut(images, torch.arange(3))
    assert crops.global_crops.shape == (2, 3, 3, 32, 32)
    assert crops.local_crops.shape == (2, 3, 3, 16, 16)
    colour = torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1)
    assert (crops.global_crops[:, 0] == colour).all()
    assert (crops.local_crops[:, 0] == colour).all()
    assert (crops.global_crops[:, 2] == 128).all()
    assert crops.global_crops[:, 1].float().std(-1).eq(0).all()  # one pixel wide: rows are of one colour
