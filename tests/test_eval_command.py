"""A finished run evaluated on other data or labels: `ssl-zoo eval` and `--eval-data`."""

import json
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_data import write_cifar
from made_photos import write_photos
from made_run import TEST, TRAIN, command, on, small_bench, small_data

import ssl_zoo
from ssl_zoo.bench.results import FIELDS, Results
from ssl_zoo.data.splits import evaluated_on

SEEN = "20 of 40 test images are also pretrained on, without their labels"
SCORES = ("knn_top1", "knn_k", "linear_top1", "map_at_r", "rankme", "feature_std", "alignment", "uniformity")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, own_cache):
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory, own_cache):
    """Other data, of whose 40 test images half were trained on in `run`."""
    return small_data(tmp_path_factory.mktemp("other"), train=slice(140, 220), test=slice(80, 120))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("runs") / "run"
    small_bench(folder, data_dir)
    return folder


def by_cell(results):
    return {(row["label"], row["seed"]): row for row in results.rows}


def test_a_bench_is_evaluated_as_it_was_at_its_end(run, data_dir, capsys):
    assert command("eval", "--encoder", run, *on(data_dir)) == 0
    folder = run / "evaluations" / "fashion-mnist"
    before, after = by_cell(Results.load(run)), by_cell(Results.load(folder))
    assert before.keys() == after.keys()
    assert len(after) == 3
    for cell, row in after.items():
        assert list(row) == list(FIELDS)
        for name in SCORES:
            assert row[name] == pytest.approx(before[cell][name], rel=1e-4), (cell, name)
        kept = ("collapse_verdict", "images_seen", "steps", "encoder", "config_hash", "backbone", "method")
        assert all(row[name] == before[cell][name] for name in kept)
    said = capsys.readouterr().out
    assert "evaluated on fashion-mnist" in said
    assert "one seed: too few seeds to rank" in said
    assert "also pretrained on" not in said
    for name in ("results.csv", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert command("report", folder) == 0
    page = (folder / "report.html").read_text()
    assert "Nearest neighbours" in page
    assert "Learning curves" not in page


def test_another_source_has_scores_of_its_own_and_seen_images_are_counted(run, other_dir, tmp_path):
    assert command("eval", "--encoder", run, *on(other_dir), "--out", tmp_path) == 0
    results = Results.load(tmp_path)
    assert SEEN in results.bench["notes"]
    assert results.bench["eval_data"] == "fashion-mnist"
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert [splits[name]["images"] for name in ("pretrain", "train", "test")] == [TRAIN, 80, TEST]
    assert "cross-validation" in splits["rule"]
    for (label, seed), row in by_cell(results).items():
        encoder = ssl_zoo.load_encoder(run / "cells" / f"{label}-seed{seed}")
        data = ssl_zoo.create_dataset("fashion-mnist", other_dir)
        scores = ssl_zoo.evaluate(encoder, data.split("train"), data.split("test"), device="cpu")
        assert row["knn_top1"] == pytest.approx(scores["knn_top1"])
        assert row["linear_top1"] == pytest.approx(scores["linear_top1"])


def test_training_data_that_has_changed_is_not_counted(run, other_dir, tmp_path):
    copy = shutil.copytree(run / "cells" / "byol-seed0", tmp_path / "cell")
    cell = json.loads((copy / "cell.json").read_text())
    cell["shared"]["fingerprint"] = "of other images"
    (copy / "cell.json").write_text(json.dumps(cell))
    assert command("eval", "--encoder", copy, *on(other_dir)) == 0
    folder = copy / "evaluations" / "fashion-mnist"
    (row,) = Results.load(folder).rows
    assert (row["label"], row["status"]) == ("byol", "done")
    assert not any("pretrained" in note for note in Results.load(folder).bench["notes"])
    assert "pretrain" not in json.loads((folder / "splits.json").read_text())


def test_a_bare_file_is_evaluated_without_a_bench(run, data_dir, tmp_path):
    for name in ("encoder.safetensors", "encoder.json"):
        shutil.copy(run / "cells" / "dino-seed0" / name, tmp_path)
    assert command("eval", "--encoder", tmp_path / "encoder.safetensors", *on(data_dir)) == 0
    (row,) = Results.load(tmp_path / "evaluations" / "fashion-mnist").rows
    known = by_cell(Results.load(run))["dino", 0]
    assert row["knn_top1"] == pytest.approx(known["knn_top1"])
    assert (row["label"], row["encoder"], row["collapse_verdict"]) == ("dino", "teacher", "undecided")
    assert all(row[name] == known[name] for name in ("steps", "dataset", "seed", "config_hash"))
    assert row["train_seconds"] is None


def test_open_cells_are_named(run, data_dir, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    for path in copy.glob("cells/*o-seed0/encoder.safetensors"):
        path.unlink()
    assert command("eval", "--encoder", copy, *on(data_dir)) == 0
    results = Results.load(copy / "evaluations" / "fashion-mnist")
    assert [row["label"] for row in results.rows] == ["byol", "random"]
    assert "not evaluated, because not finished: dino-seed0" in results.bench["notes"]


def test_wrong_commands_leave_with_2(run, tmp_path, capsys):
    for arguments, words in (
        (("--encoder", run, "--data", "digits", "--out", run), "is a bench; give another --out"),
        (("--encoder", tmp_path, "--data", "digits"), "no encoder"),
        (("--encoder", run, "--data", "digitz"), "did you mean 'digits'"),
        (("--encoder", run), "--data"),
    ):
        assert command("eval", *arguments) == 2
        assert words in capsys.readouterr().err


def test_eval_data_of_a_bench_comes_from_the_command_line(data_dir, capsys):
    arguments = ("--methods", "byol", "--dataset", "fashion-mnist", "--data-dir", data_dir)
    assert command("bench", *arguments, "--eval-data", "digitz", "--dry-run") == 2
    assert "unknown dataset 'digitz'" in capsys.readouterr().err


def test_fine_tuning_adds_a_column(run, data_dir, tmp_path, monkeypatch, capsys):
    module = sys.modules["ssl_zoo.evaluation.finetune"]
    monkeypatch.setattr(module, "_FEWEST_STEPS", 2)
    monkeypatch.setattr(module, "_MOST_STEPS", 2)
    cell = run / "cells" / "byol-seed0"
    assert command("eval", "--encoder", cell, *on(data_dir), "--finetune", "--out", tmp_path) == 0
    (row,) = Results.load(tmp_path).rows
    data = ssl_zoo.create_dataset("fashion-mnist", data_dir)
    parts = (data.split("train"), data.split("test"))
    expected = ssl_zoo.finetune(ssl_zoo.load_encoder(cell), *parts, flip=data.flip, device="cpu")
    assert row["finetune_top1"] == expected["finetune_top1"]
    assert "tuned top-1 %" in capsys.readouterr().out

    results = small_bench(tmp_path / "bench", data_dir, methods=["byol"], evaluation={"finetune": True})
    assert all(0 <= row["finetune_top1"] < 1 for row in results.rows)
    assert all(row["finetune_top1"] is None for row in Results.load(run).rows)


def test_a_bench_may_be_evaluated_on_another_source(run, data_dir, tmp_path):
    colours = ssl_zoo.create_dataset("fashion-mnist", data_dir).split("train").images[:, 0].numpy()
    write_cifar(data_dir / "cifar10", np.stack([colours] * 3, 3), labels=np.arange(TRAIN) % 10)
    data = {"dir": str(data_dir), "eval": "cifar10"}
    results = small_bench(tmp_path / "run", data_dir, methods=["byol"], data=data)
    assert (results.bench["dataset"], results.bench["eval_data"]) == ("fashion-mnist", "cifar10")
    arguments = ("--data", "cifar10", "--data-dir", data_dir, "--device", "cpu", "--out", tmp_path / "after")
    assert command("eval", "--encoder", run, *arguments) == 0
    mine, theirs = (by_cell(each)["byol", 0] for each in (results, Results.load(tmp_path / "after")))
    assert mine["map_at_r"] is theirs["map_at_r"] is None  # four test images of four classes
    for name in {*SCORES} - {"map_at_r"}:  # the same training, so the same scores
        assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name
    with pytest.raises(ValueError, match="eval_data: cifar10 there, None asked"):
        small_bench(tmp_path / "run", data_dir, methods=["byol"])


def test_images_seen_in_pretraining_are_told_by_a_bench_too(data_dir, other_dir):
    first, second = (ssl_zoo.create_dataset("fashion-mnist", place) for place in (data_dir, other_dir))
    joined = evaluated_on(first, second)
    assert joined.notes == (SEEN,)
    assert joined.split("pretrain") is first.split("pretrain")
    assert (joined.split("train"), joined.split("test")) == (second.split("train"), second.split("test"))
    assert evaluated_on(second, first).notes == ()


def test_without_labels_nothing_is_ranked_until_some_are_given(data_dir, tmp_path, capsys):
    colours = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    write_cifar(tmp_path / "cifar10", colours, labels=None)
    run = tmp_path / "run"
    arguments = ("--methods", "byol", "--dataset", "cifar10", "--data-dir", tmp_path, "--budget", "steps=2")
    arguments += ("--batch-size", "8", "--executor", "inline", "--device", "cpu", "--out", run)
    assert command("bench", *arguments, "--set", "backbone.width=8", "--backbone", "resnet8") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "without labels no method is ranked; label about 100 images and run: ssl-zoo eval" in said
    assert "feature std RankMe alignment uniformity verdict" in said
    assert "k-NN" not in said.partition("seed ")[2]
    results = Results.load(run)
    for row in results.rows:
        assert all(row[name] is None for name in ("knn_top1", "linear_top1", "map_at_r", "finetune_top1"))
        assert 0 < row["feature_std"] < 1
        assert 0 < row["alignment"] < 4
        assert -4 < row["uniformity"] < 0
    assert "alignment" in (run / "report.html").read_text()

    assert command("eval", "--encoder", run, *on(data_dir)) == 0
    assert all(row["knn_top1"] > 0 for row in Results.load(run / "evaluations" / "fashion-mnist").rows)


def test_a_folder_of_photos_is_benched_without_labels_then_labelled_then_embedded(own_cache, tmp_path):
    photos, run, labels = tmp_path / "photos", tmp_path / "run", tmp_path / "some.csv"
    files = write_photos(photos)
    fields = {
        "data": {"labels": "none", "on_bad_image": "skip"},
        "image_size": 32,
        "batch_size": 8,
        "run": {"executor": "inline", "threads": 1, "device": "cpu", "workers": 0},
    }
    results = small_bench(run, tmp_path, methods=["byol"], dataset=f"folder:{photos}", **fields)
    assert {row["knn_top1"] for row in results.rows} == {None}
    assert "--set report.images=show" in (run / "report.html").read_text()
    (photos / "cat" / "broken.jpg").write_bytes(b"")  # skipped here, as the run would have

    names = [file.relative_to(photos).as_posix() for file in files]
    given = [name for name in names if int(name.partition("-")[2][:3]) < 12]
    labels.write_text("path,label\n" + "".join(f"{name},{name.partition('/')[0]}\n" for name in given))
    on_photos = ("--data", f"folder:{photos}", "--device", "cpu")
    assert command("eval", "--encoder", run, *on_photos, "--labels", labels) == 0
    evaluated = Results.load(run / "evaluations" / "folder-photos-some")
    assert all(row["knn_top1"] is not None for row in evaluated.rows)
    assert evaluated.bench["eval_data"] == "folder:photos"

    out = tmp_path / "photos.parquet"
    assert command("embed", "--encoder", run / "cells" / "byol-seed0", *on_photos, "--out", out) == 0
    table = pq.read_table(out)
    assert sorted(table["path"].to_pylist()) == sorted(names)
    assert set(table["label"].to_pylist()) == {"cat", "dog"}
    transformer = ssl_zoo.SSLTransformer(run / "cells" / "byol-seed0", device="cpu")
    own = transformer.transform([photos / name for name in table["path"].to_pylist()])
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), own, atol=1e-4)


def test_images_of_a_folder_that_were_pretrained_on_are_counted(own_cache, tmp_path):
    photos, labels = tmp_path / "photos", tmp_path / "some.csv"
    write_photos(photos, count=10)
    before = ssl_zoo.create_dataset(f"folder:{photos}", labels="none")
    given = [f"{name},{name[:3]}\n" for name in before.split("pretrain").names]
    labels.write_text("path,label\n" + "".join(given))
    after = ssl_zoo.create_dataset(f"folder:{photos}", labels=labels)
    note = "4 of 4 test images are also pretrained on, without their labels"
    assert evaluated_on(before, after).notes == (*after.notes, note)
