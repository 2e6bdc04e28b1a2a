"""Features on a plane, and what of it is kept for the report."""

import numpy as np
import pytest
import torch
from made_bench import made_up_results, made_up_row, write_bench
from PIL import Image
from sklearn.decomposition import PCA

from ssl_zoo.bench.maps import save_map
from ssl_zoo.bench.report.confusion import confusions
from ssl_zoo.bench.report.maps import maps
from ssl_zoo.bench.report.sources import Sources
from ssl_zoo.data.datasets import Split
from ssl_zoo.evaluation.projection import map_index, project


def blobs(count=60):
    centers = 5 * torch.randn(3, 8)
    return centers[torch.arange(count) % 3] + 0.1 * torch.randn(count, 8)


def split(count=60):
    images = torch.randint(0, 255, (count, 1, 8, 8), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 3, ("a", "b", "<script>"), "print")


def test_neighbours_stay_together_and_numbers_stay_the_same():
    x = blobs()
    first, second = project(x), project(x)
    assert torch.equal(first.tsne, second.tsne)
    expected = PCA(2).fit_transform(torch.nn.functional.normalize(x).numpy())
    np.testing.assert_allclose(first.pca.abs(), np.abs(expected), atol=1e-5)
    for places in first:
        distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
        assert torch.equal(distances.argmin(1) % 3, torch.arange(60) % 3)


@pytest.mark.parametrize(
    "x", [torch.ones(9, 4), torch.randn(1, 4), torch.randn(3, 4), torch.randn(9, 1), torch.randn(9, 2)]
)
def test_collapsed_and_few_features_have_finite_places(x):
    for places in project(x):
        assert places.shape == (len(x), 2)
        assert places.isfinite().all()


def test_the_same_images_stand_on_every_map():
    assert torch.equal(map_index(5), torch.arange(5))
    index = map_index(3000)
    assert len(index) == len(index.unique()) == 1000
    assert torch.equal(index, index.sort().values)


def test_a_map_is_kept_with_its_thumbnails(tmp_path):
    data, x, cell = split(), blobs(), tmp_path / "cells" / "dino-seed2"
    cell.mkdir(parents=True)
    save_map(x, data, cell)
    with Image.open(tmp_path / "thumbnails.jpg") as sheet:
        assert sheet.size == (50 * 32, 2 * 32)
        shown = np.asarray(sheet.convert("L"))[32:64, 9 * 32 : 10 * 32]  # image 59
    exact = data.images[59, 0].float()[None, None]
    expected = torch.nn.functional.interpolate(exact, 32, mode="bicubic", antialias=True)[0, 0].clamp(0, 255)
    assert np.corrcoef(shown.ravel(), expected.numpy().ravel())[0, 1] > 0.99
    before = (tmp_path / "thumbnails.jpg").stat().st_mtime_ns
    save_map(x, data, cell)
    assert (tmp_path / "thumbnails.jpg").stat().st_mtime_ns == before
    save_map(x, Split(data.images, None, (), "other"), cell)
    assert (tmp_path / "thumbnails.jpg").stat().st_mtime_ns > before
    with np.load(cell / "map.npz") as kept:
        assert set(kept["label"]) == {-1}


def test_a_map_has_a_marker_per_class_and_many_classes_share_one(tmp_path):
    rows = [made_up_row("dino", 0, 0.5)]
    folder = write_bench(tmp_path, made_up_results(rows))
    names = [str(i) for i in range(30)]
    label, places = np.arange(60) % 30, np.zeros((60, 2))
    np.savez(
        folder / "cells" / "dino-seed0" / "map.npz",
        index=np.arange(60),
        label=label,
        classes=names,
        pca=places,
        tsne=places,
    )
    found = maps(Sources(folder, {}), rows, ["dino"])
    assert len(found.legend) == 21
    assert found.legend[-1] == ("other classes", "baseline", "circle-open")
    assert len({key[1:] for key in found.legend}) == 21  # no colour and symbol twice
    points = sorted(
        place for trace in found.figures[0]["pca"]["data"] for place in trace.get("customdata", ())
    )
    assert points == list(range(60))
    assert found.images[31] == ("1", 31)


def kept(folder, rows, label, knn):
    """The bench with other predictions, and without names of classes."""
    for row in rows:
        cell = folder / "cells" / f"{row['label']}-seed{row['seed']}"
        np.savez(cell / "predictions.npz", label=label, knn=knn, linear=label)
        (cell / "map.npz").unlink()
    return Sources(folder, {})


def test_confusions_add_up_over_seeds(tmp_path):
    rows = [made_up_row("dino", seed, 0.5) for seed in (0, 1)]
    folder = write_bench(tmp_path, made_up_results(rows))
    found = confusions(kept(folder, rows, [0, 0, 0, 0, 2], [0, 0, 0, 2, 2]), rows, ["dino"], "knn_top1")
    assert [tuple(line) for line in found.lines] == [("0", 4, ["75.0"]), ("1", 0, ["-"]), ("2", 1, ["100.0"])]
    assert found.figures[0]["data"][0]["z"] == [[75.0, 0.0, 25.0], [0.0, 0.0, 0.0], [0.0, 0.0, 100.0]]
    assert found.pairs == [[("0", "2", 2, "25.0 %")]]
    assert confusions(Sources(folder, {}), rows, ["dino"], "linear_top1").pairs == [[]]
    assert confusions(Sources(tmp_path / "none", {}), rows, ["dino"], "knn_top1") is None


def test_many_classes_are_listed_by_what_is_confused_most(tmp_path):
    rows = [made_up_row("dino", 0, 0.5)]
    folder = write_bench(tmp_path, made_up_results(rows))
    label = np.arange(120) % 60
    taken = np.where(label == 7, 8, label)
    found = confusions(kept(folder, rows, label, taken), rows, ["dino"], "knn_top1")
    assert found.figures is None
    assert found.pairs == [[("7", "8", 2, "100.0 %")]]
    assert len(found.lines) == 50
    assert found.lines[0] == ("7", 2, ["0.0"])


def test_a_torn_file_is_as_if_it_were_not_there(tmp_path):
    rows = [made_up_row("dino", 0, 0.5)]
    folder = write_bench(tmp_path, made_up_results(rows))
    for name in ("map.npz", "predictions.npz"):
        file = folder / "cells" / "dino-seed0" / name
        file.write_bytes(file.read_bytes()[:100])
    assert maps(Sources(folder, {}), rows, ["dino"]) is None
    assert confusions(Sources(folder, {}), rows, ["dino"], "knn_top1") is None
