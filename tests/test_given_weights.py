"""A bench that starts from given weights, beside encoders that were trained elsewhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_bench import made_up_results, made_up_row, page_of, terminal, write_bench
from made_data import write_idx
from safetensors.torch import load_file, save_file

import ssl_zoo
from ssl_zoo.backbones import create_backbone
from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.config import frozen_label
from ssl_zoo.bench.plan import build
from ssl_zoo.bench.report import finding, summary, to_markdown
from ssl_zoo.bench.report.summaries import remarks
from ssl_zoo.data.splits import roles
from ssl_zoo.registry import method_class

BACKBONE = {"name": "resnet8", "width": 8}


def save_weights(file: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(create_backbone("resnet8", 16, width=8).net.state_dict(), file)
    return file


@pytest.fixture(scope="module", autouse=True)
def _few_images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for prefix, count in (("train", 60), ("t10k", 40)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 100, (count, 16, 16)) + 20 * labels[:, None, None]
        write_idx(folder / "fashion-mnist" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / "fashion-mnist" / f"{prefix}-labels-idx1-ubyte", labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_ZOO_DATA", str(folder))
        patch.setenv("SSL_ZOO_CACHE", str(folder / "cache"))
        yield


def run(out, **fields):
    base = {"batch_size": 16, "budget": {"steps": 2}, "run": {"executor": "inline", "threads": 1}}
    fields = {**base, "backbone": BACKBONE, **fields}
    return ssl_zoo.bench(["byol"], "fashion-mnist", out=out, quiet=True, **fields)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("started")
    file, other = save_weights(folder / "start.safetensors", 7), save_weights(folder / "other.safetensors", 8)
    results = run(folder / "bench", init=str(file), frozen=[str(file), str(other)], seeds=2)
    return folder, results


def test_step_0_and_frozen_encoders_have_a_row_each(started):
    _, results = started
    rows = {(row["label"], row["seed"]): row for row in results.rows}
    once = [("init", 0), ("start", 0), ("other", 0)]
    assert list(rows) == [("random", 0), *once, ("byol", 0), ("random", 1), ("byol", 1)]
    for key in once:
        row = rows[key]
        assert (row["method"], row["status"], row["steps"], row["images_seen"]) == (None, "done", 0, 0)
        assert (row["encoder"], row["backbone"], row["collapse_verdict"]) == ("backbone", "resnet8", None)
    metrics = ("knn_top1", "linear_top1", "map_at_r", "rankme")
    init, start, other, random = ([rows[key][name] for name in metrics] for key in (*once, ("random", 0)))
    assert init == start  # the same file, read as weights to start from and as an encoder
    assert init != other
    assert init != random
    assert results.bench["init"].startswith("start.safetensors sha256:")


def test_every_method_starts_from_the_weights(started, tmp_path):
    folder, _ = started
    cells = {}
    for label in ("byol-seed1", "random-seed1", "init-seed0"):
        text = (folder / "bench" / "cells" / label / "cell.json").read_text()
        cells[label] = Cell.model_validate_json(text)
    cell, weights = cells["byol-seed1"], load_file(folder / "start.safetensors")
    config = method_class("byol").Config(**cell.options)
    method = build(cell.shared, "byol", config, cell.seed, cell.init)
    assert all(torch.equal(value, weights[key]) for key, value in method.encoder.net.state_dict().items())
    assert cells["random-seed1"].init is None
    stored = load_file(folder / "bench" / "cells" / "init-seed0" / "encoder.safetensors")
    assert all(torch.equal(stored[key], weights[key]) for key in weights)  # batch norms as they came
    changed = save_weights(tmp_path / "start.safetensors", 9)
    with pytest.raises(ValueError, match=r"planned was start\.safetensors sha256:\w+; plan again"):
        build(cell.shared, "byol", config, cell.seed, str(changed))


def test_the_recipe_card_says_how_an_encoder_was_made(started):
    folder, results = started
    card = json.loads((folder / "bench" / "cells" / "byol-seed1" / "encoder.json").read_text())
    data = ssl_zoo.create_dataset("fashion-mnist")
    row = results.rows[-1]
    assert set(card["versions"]) == {"ssl-zoo", "torch", "torchvision", "timm"}
    assert card["created"][:2] == "20"
    assert {
        key: value for key, value in card.items() if key not in ("versions", "created", "mean", "std")
    } == {
        **{"backbone": "resnet8", "options": {"width": 8}, "image_size": 16, "out_dim": 32},
        **{"method": "byol", "encoder": "online", "seed": 1, "steps": 2, "init": results.bench["init"]},
        "budget": {"images": 32, "batch_size": 16},
        **{
            "dataset": "fashion-mnist",
            "window": "dtype",
            "data_fingerprint": roles(data).fingerprint,
            "config_hash": row["config_hash"],
        },
    }
    assert ssl_zoo.load_encoder(folder / "bench" / "cells" / "byol-seed1").card == card
    frozen = json.loads((folder / "bench" / "cells" / "other-seed0" / "encoder.json").read_text())
    assert frozen["weights"].startswith("other.safetensors sha256:")
    assert "dataset" not in frozen


def test_moved_weights_are_the_same_and_changed_ones_are_refused(started, tmp_path):
    folder, results = started
    bench = tmp_path / "bench"
    shutil.copytree(folder / "bench", bench)
    moved = str(shutil.copy(folder / "start.safetensors", tmp_path / "start.safetensors"))
    asked = {"frozen": [str(folder / "start.safetensors"), str(folder / "other.safetensors")], "seeds": 2}
    assert run(bench, init=moved, **asked).rows == results.rows
    save_weights(tmp_path / "start.safetensors", 9)
    with pytest.raises(
        ValueError, match=r"init: start\.safetensors sha256:\w+ there, start\.safetensors sha"
    ):
        run(bench, init=moved, **asked)
    elsewhere = save_weights(tmp_path / "changed" / "other.safetensors", 9)
    with pytest.raises(ValueError, match=r"other\.weights: other\.safetensors sha256:\w+ there, other\."):
        run(bench, init=str(folder / "start.safetensors"), frozen=[str(elsewhere)], seeds=2)


def test_a_run_of_ours_is_evaluated_as_it_was(started, tmp_path):
    folder, results = started
    cell = folder / "bench" / "cells" / "byol-seed0"
    again = run(tmp_path / "again", frozen=[str(cell)])
    row, trained = again.rows[1], next(row for row in results.rows if row["label"] == "byol")
    assert (row["label"], row["method"], row["encoder"]) == ("bench-byol-seed0", None, "online")
    assert row["knn_top1"] == trained["knn_top1"]
    assert row["rankme"] == pytest.approx(trained["rankme"], rel=1e-5)


def test_weights_that_do_not_fit_are_an_error_before_anything_runs(started, tmp_path):
    folder, _ = started
    for fields in (
        {"init": str(folder / "start.safetensors")},
        {"frozen": [str(folder / "start.safetensors")]},
    ):
        with pytest.raises(ValueError, match="has other shapes than the backbone, so nothing was loaded"):
            run(tmp_path / "bench", **fields, **{"backbone": {"name": "resnet8", "width": 16}})
    assert not (tmp_path / "bench").exists()
    with pytest.raises(ValueError, match="labels must differ"):
        run(tmp_path / "bench", frozen=["a/byol.pth"])


def test_frozen_labels_are_short_and_name_a_folder(tmp_path):
    (tmp_path / "first" / "cells" / "dino-seed0").mkdir(parents=True)
    for source, label in (
        ("timm:resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("weights/dino vits16.pth", "dino-vits16"),
        (f"{tmp_path}/first/cells/dino-seed0", "first-dino-seed0"),
        (f"{tmp_path}/first/cells/dino-seed0/encoder.safetensors", "first-dino-seed0"),
    ):
        assert frozen_label(source) == label


# what the report says


def made_up(start: float):
    rows = [made_up_row("random", seed, 0.3) for seed in (0, 1, 2)]
    rows += [made_up_row("dino", seed, score) for seed, score in enumerate((0.60, 0.62, 0.61))]
    rows += [made_up_row("byol", seed, score) for seed, score in enumerate((0.70, 0.72, 0.71))]
    return [
        *rows,
        *(made_up_row(label, 0, score, method=None) for label, score in (("init", start), ("vit", 0.9))),
    ]


def test_a_method_that_ends_below_its_start_is_named_everywhere(tmp_path):
    words = (
        "dino ended 2.1 points below the weights it started from: pretraining on these images made it worse"
    )
    rows = made_up(0.631)
    assert remarks(rows, "knn_top1") == [words]
    results = made_up_results(rows, methods=["dino", "byol"], init="start.pth sha256:0123")
    page = page_of(write_bench(tmp_path, results))
    for text in (terminal(results, width=200), to_markdown(results), page.text):
        assert words in text
        assert "byol ended" not in text
    assert "Starting from start.pth sha256:0123" in page.text
    assert remarks(made_up(0.605), "knn_top1") == []


def test_references_are_compared_with_but_not_ranked():
    summaries = summary(made_up(0.631))
    assert [item.label for item in summaries] == ["byol", "dino", "vit", "init", "random"]
    assert [item.is_reference for item in summaries] == [False, False, True, True, True]
    assert summaries[2].gain.mean == pytest.approx(60)
    found = finding(made_up_results(made_up(0.631))["bench"], summaries)
    assert found.line.startswith("At equal images byol is 10.0 \N{PLUS-MINUS SIGN} 0.0 points above dino")
    assert "vit" not in found.line
    assert "Over vit: byol -19.0, dino -29.0 points. Over init: byol +7.9, dino -2.1 points." in found.context
