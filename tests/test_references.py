"""The rows beside the methods: labels told, pixels only."""

import dataclasses

import numpy as np
import pytest
import torch
from made_run import small_bench, small_data
from sklearn.decomposition import PCA

import ssl_zoo
from ssl_zoo.bench.supervised import Supervised, SupervisedConfig, to_learn
from ssl_zoo.checkpoint import logged_records
from ssl_zoo.data.splits import roles
from ssl_zoo.method import Step, Views


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data_dir = small_data(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("bench") / "run"
    fields = {
        "methods": ["byol"],
        "references": ["supervised", "pixels"],
        "seeds": 2,
        "budget": {"steps": 60},
    }
    return folder, data_dir, small_bench(folder, data_dir, **fields)


def test_references_stand_beside_the_methods(run):
    rows = {(row["label"], row["seed"]): row for row in run[2].rows}
    assert set(rows) == {(label, seed) for label in ("random", "byol", "supervised") for seed in (0, 1)} | {
        ("pixels", 0)  # nothing of it depends on the seed
    }
    told, pixels = rows["supervised", 0], rows["pixels", 0]
    assert (told["method"], told["status"], told["encoder"], told["steps"]) == (None, "done", "backbone", 60)
    assert told["train_flops"] > 0
    assert told["knn_top1"] > rows["random", 0]["knn_top1"]
    assert told["collapse_verdict"] is None
    assert (pixels["method"], pixels["steps"], pixels["backbone"]) == (None, 0, "linear")
    assert not any(row["method"] == "supervised" for row in rows.values())
    logged = {label: logged_records(run[0] / f"cells/{label}-seed0") for label in ("byol", "supervised")}
    assert all(logged.values())
    curved = [label for label, records in logged.items() if any("curve_knn_top1" in it for it in records)]
    assert curved == ["byol"]  # of so few images the other was told all labels
    mapped = {file.parent.name for file in run[0].glob("cells/*/map.npz")}
    assert mapped == {"byol-seed0", "random-seed0", "supervised-seed0", "pixels-seed0"}


def test_pixels_are_principal_components(run):
    folder, data_dir, _ = run
    encoder = ssl_zoo.load_encoder(folder / "cells" / "pixels-seed0")
    train = ssl_zoo.create_dataset("fashion-mnist", data_dir).split("train")
    pixels = torch.stack([encoder.transform(image) for image in train.images]).flatten(1).numpy()
    expected = PCA(20, svd_solver="full").fit_transform(pixels)
    found = encoder.embed(train.images).numpy()
    assert found.shape == (100, 100)  # no more components than images
    signs = np.sign((found[:, :20] * expected).sum(0))
    np.testing.assert_allclose(found[:, :20] * signs, expected, atol=1e-2)


def test_labels_come_with_the_images_that_views_count():
    split = ssl_zoo.create_dataset("digits").split("train")
    torch.manual_seed(0)
    method = Supervised(ssl_zoo.create_backbone("resnet8", 16, width=8), SupervisedConfig(), split)
    index = torch.tensor([5, 900, 3])
    crops = torch.randn(2, 3, 3, 16, 16)
    logits = torch.stack([method.head(method.backbone(view)) for view in crops])
    picked = logits.log_softmax(-1).gather(-1, split.labels[index].expand(2, -1).unsqueeze(-1))
    output = method(Views(crops, None, index, index), Step(0, 1))
    torch.testing.assert_close(output.loss, -picked.mean())
    assert "labels" not in method.state_dict()


def test_selection_images_are_not_learned():
    dataset = ssl_zoo.create_dataset("digits")
    parts = roles(dataset)
    assert len(to_learn(parts, 64)) == len(parts.train)  # cross-validation: nothing is selected
    fit, validation = torch.arange(1000), torch.arange(1000, 1200)
    selected = dataclasses.replace(parts, folds=[(fit, validation)])
    assert torch.equal(to_learn(selected, 64).labels, parts.train.labels[:1000])
    with pytest.raises(ValueError, match="has 1000 labelled images and batch_size is 1001"):
        to_learn(selected, 1001)
    unlabelled = dataclasses.replace(parts, train=dataclasses.replace(parts.train, labels=None), folds=[])
    with pytest.raises(ValueError, match="'supervised' needs labels"):
        to_learn(unlabelled, 64)
