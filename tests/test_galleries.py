"""Nearest neighbours as pictures, and whether pictures stand in the page."""

import numpy as np
import pytest
import torch
from made_bench import made_up_results, made_up_rows, page_of, write_bench
from made_run import small_bench, small_data
from PIL import Image
from torch.nn import functional as F

import ssl_zoo
from ssl_zoo.bench.report.galleries import are_shown
from ssl_zoo.data.loading import fitted_images
from ssl_zoo.draws import permutation

STEP = 50  # pixels from one thumbnail to the next
GAP = STEP + 2 + 12  # where the neighbours begin


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, own_cache):
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("runs") / "run"
    small_bench(folder, data_dir)
    return folder


def sheet(run, label):
    with Image.open(run / "cells" / f"{label}-seed0" / "neighbours.png") as image:
        return np.asarray(image)


def thumb(pixels, row, start):
    return pixels[2 + STEP * row : 50 + STEP * row, start + 2 : start + 50]


def test_a_row_is_an_image_and_its_six_nearest_others(run, data_dir):
    test = ssl_zoo.create_dataset("fashion-mnist", data_dir).split("test")
    queries = permutation(len(test), 0)[:6].tolist()
    thumbs = fitted_images(test.images, torch.arange(len(test)), 48).permute(0, 2, 3, 1).numpy()
    pixels = sheet(run, "byol")
    assert pixels.shape == (2 + 6 * STEP, GAP + 2 + 6 * STEP, 3)
    x = F.normalize(ssl_zoo.load_encoder(run / "cells" / "byol-seed0").embed(test.images))
    for row, query in enumerate(queries):
        nearest = [i for i in (x @ x[query]).argsort(descending=True).tolist() if i != query][:6]
        np.testing.assert_array_equal(thumb(pixels, row, 0), thumbs[query])
        for column, image in enumerate(nearest):
            np.testing.assert_array_equal(thumb(pixels, row, GAP + STEP * column), thumbs[image])


def test_all_methods_are_asked_for_the_same_images(run):
    sheets = [sheet(run, label) for label in ("byol", "dino", "random")]
    assert all((pixels[:, :GAP] == sheets[0][:, :GAP]).all() for pixels in sheets)
    assert (sheets[0][:, GAP:] != sheets[2][:, GAP:]).any()
    page = page_of(run)
    shown = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    names = [alt.rpartition(" by ")[2] for alt in shown if alt.startswith("Rows of an image")]
    assert sorted(names) == ["byol", "dino", "random"]
    assert "The same held-out images for every method" in page.text
    assert not list(run.glob("cells/*/attention.png"))  # a convnet has none
    assert "Where the last block" not in page.text


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, True),
        ({"dataset": "cifar10", "eval_data": None}, True),
        ({"dataset": "folder:photos"}, False),
        ({"dataset": "parquet:photos", "report_images": "auto"}, False),
        ({"dataset": "cifar10", "eval_data": "folder:photos"}, False),
        ({"dataset": "hf:someone/photos", "report_images": "show"}, True),
        ({"dataset": "cifar10", "report_images": "hide"}, False),
    ],
)
def test_own_images_are_shown_only_where_asked(tmp_path, fields, shown):
    assert are_shown(fields) == shown
    page = page_of(write_bench(tmp_path, made_up_results(made_up_rows(["dino"], 1), **fields)))
    assert any(tag == "img" for tag, _ in page.tags) == shown
    assert ("--set report.images=show" in page.text) != shown


def test_a_bench_keeps_its_wish_and_takes_another_one_without_training(run, data_dir):
    results = small_bench(run, data_dir, report={"images": "hide"})
    assert results.bench["report_images"] == "hide"
    assert not [tag for tag, _ in page_of(run).tags if tag == "img"]
    small_bench(run, data_dir)
    assert len([tag for tag, _ in page_of(run).tags if tag == "img"]) == 5
