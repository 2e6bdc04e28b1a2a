"""The main job as a user runs it: cells in real processes, real files."""

import csv
import json
import os
import re

import pytest
from made_command import DIGITS, run_here, ssl_zoo_command, timeless
from safetensors.torch import load_file

import ssl_zoo
from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.config import load
from ssl_zoo.bench.results import FIELDS, Results


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "run"
    done = ssl_zoo_command(*DIGITS, "--methods", "dino", "byol", "moco", "--budget", "steps=30", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_bench_writes_the_folder_of_the_design(digits):
    out, _ = digits
    for name in ("bench.yaml", "plan.json", "environment.json", "splits.json"):
        assert (out / name).stat().st_size > 0
    for name in ("results.json", "results.csv", "report.html"):
        assert (out / name).stat().st_size > 0
    cells = sorted(path.name for path in (out / "cells").iterdir())
    assert cells == ["byol-seed0", "dino-seed0", "moco-seed0", "random-seed0"]
    for name in ("cell.json", "encoder.safetensors", "encoder.json", "result.json"):
        assert all((out / "cells" / cell / name).stat().st_size > 0 for cell in cells)
    for name in ("metrics.jsonl", "checkpoint.pt", "views.png"):
        assert (out / "cells" / "dino-seed0" / name).stat().st_size > 0


def test_rows_have_every_field_and_equal_budgets(digits):
    results = Results.load(digits[0])
    assert [row["label"] for row in results.rows] == ["random", "dino", "byol", "moco"]
    for row in results.rows:
        assert set(row) == set(FIELDS)
        assert row["status"] == "done"
        assert 0 < row["knn_top1"] <= 1
        assert row["knn_by_k"][str(row["knn_k"])] == row["knn_top1"]
        assert row["config_hash"]
    trained = results.rows[1:]
    assert {row["images_seen"] for row in trained} == {30 * 64}
    assert {row["steps"] for row in trained} == {30}
    assert all(row["train_flops"] > 0 and row["final_loss"] > 0 for row in trained)
    assert [row["encoder"] for row in results.rows] == ["backbone", "teacher", "online", "online"]
    rows = list(csv.DictReader((digits[0] / "results.csv").read_text().splitlines()))
    assert [float(row["knn_top1"]) for row in rows] == [row["knn_top1"] for row in results.rows]


def test_terminal_shows_plan_and_table(digits):
    out = digits[1]
    assert "4 cells: random, dino, byol, moco; 1 seed" in out
    assert re.search(r"about \d+\.\d minutes of training", out)
    for label in ("dino", "byol", "moco", "random"):
        assert label in out
    assert "too few seeds" in out
    assert str(digits[0] / "report.html") in out.replace("\n", "")


def test_backbones_start_equal_and_end_different(digits):
    cells = digits[0] / "cells"
    random, dino = (load_file(cells / f"{name}-seed0" / "encoder.safetensors") for name in ("random", "dino"))
    assert random.keys() == dino.keys()
    assert any(not random[key].equal(dino[key]) for key in random)


def test_encoder_loads_and_scores_as_in_the_table(digits):
    out, _ = digits
    encoder = ssl_zoo.load_encoder(out / "cells" / "byol-seed0")
    data = ssl_zoo.create_dataset("digits")
    scores = ssl_zoo.evaluate(encoder, data.split("train"), data.split("test"), device="cpu")
    row = next(row for row in Results.load(out).rows if row["label"] == "byol")
    assert scores["knn_top1"] == pytest.approx(row["knn_top1"], abs=0.003)
    assert encoder.embed(data.split("test").images[:3]).shape == (3, encoder.out_dim)


def test_growing_a_folder_keeps_finished_cells(digits, capsys):
    out, _ = digits
    before = (out / "cells" / "dino-seed0" / "result.json").stat().st_mtime_ns
    cell = out / "cells" / "dino-seed0" / "cell.json"
    grown = ["--methods", "dino", "--budget", "steps=30", "--seeds", 2, "--out", out]
    assert run_here(*DIGITS, *grown, "--set", "run.log_every=7") == 0
    assert (out / "cells" / "dino-seed0" / "result.json").stat().st_mtime_ns == before
    rows = Results.load(out).rows
    assert [(row["label"], row["seed"]) for row in rows] == [
        *(("random", 0), ("dino", 0), ("byol", 0), ("moco", 0)),
        *(("random", 1), ("dino", 1)),
    ]
    assert "finished before, kept" in capsys.readouterr().out
    assert Cell.model_validate_json(cell.read_text()).log_every == 5  # as it was run
    named = load(out / "bench.yaml")  # what the commands of the report name: the whole folder
    assert [entry.label for entry in named.methods] == ["dino", "byol", "moco"]
    assert named.seeds == [0, 1]


def test_another_bench_in_the_same_folder_is_refused_with_the_difference(digits, capsys):
    out, _ = digits
    kept = (out / "results.json").read_bytes()
    command = [*DIGITS, "--executor", "inline", "--methods", "dino", "--out", out, "--budget"]
    assert run_here(*command, "steps=40") == 2
    assert "budget: steps=30.0 there, steps=40.0 asked" in capsys.readouterr().err
    assert run_here(*command, "steps=30", "--set", "dino.out_dim=64") == 2
    assert "dino.out_dim: 1024 there, 64 asked" in capsys.readouterr().err
    assert (out / "results.json").read_bytes() == kept


def test_bench_yaml_reproduces_the_bench(digits, tmp_path, capsys):
    out = tmp_path / "again"
    assert run_here("bench", "--config", digits[0] / "bench.yaml", "--out", out, "--dry-run") == 0
    assert not out.exists()
    assert "30 steps of 64 images" in capsys.readouterr().out


def test_a_failed_cell_is_one_row_and_the_others_finish(tmp_path):
    plugin = tmp_path / "broken_method.py"
    plugin.write_text(
        "from ssl_zoo.registry import register_method\n"
        "from ssl_zoo.methods.byol import BYOL\n\n"
        "@register_method('broken')\n"
        "class Broken(BYOL):\n"
        "    def forward(self, views, step):\n"
        "        if step.index == 7:\n"
        "            raise RuntimeError('no seventh step')\n"
        "        return super().forward(views, step)\n"
    )
    command = [*DIGITS, "--methods", "broken", "byol", "--plugin", plugin, "--budget", "steps=10"]
    assert run_here(*command, "--out", tmp_path / "run") == 1
    rows = {row["label"]: row for row in Results.load(tmp_path / "run").rows}
    assert {label: row["status"] for label, row in rows.items()} == {
        "random": "done",
        "broken": "failed",
        "byol": "done",
    }
    assert "no seventh step" in rows["broken"]["error"]
    assert "no seventh step" in (tmp_path / "run" / "cells" / "broken-seed0" / "error.txt").read_text()


def test_inline_equals_local(digits, tmp_path):
    results = ssl_zoo.bench(
        ["byol"],
        "digits",
        backbone={"name": "resnet8", "width": 8},
        batch_size=64,
        budget={"steps": 30},
        run={"executor": "inline", "threads": 1, "log_every": 5},
        out=tmp_path / "inline",
        quiet=True,
    )
    mine = next(row for row in results.rows if row["label"] == "byol")
    theirs = next(row for row in Results.load(digits[0]).rows if row["label"] == "byol")
    assert timeless(mine) == timeless(theirs)
    assert "<table" in results._repr_html_()
    assert results.to_csv().splitlines()[0] == ",".join(FIELDS)


@pytest.mark.skipif("SSL_ZOO_DATA" not in os.environ, reason="needs CIFAR-10: set SSL_ZOO_DATA")
def test_cifar10_trained_methods_beat_the_untrained_backbone(tmp_path):
    code = run_here(
        *("bench", "--methods", "dino", "byol", "moco", "--dataset", "cifar10", "--budget", "steps=175"),
        *("--batch-size", 128, "--backbone", "resnet8", "--set", "backbone.width=8"),
        *("run.threads=1", "evaluation.curve=1"),
        *("--out", tmp_path / "run"),
    )
    assert code == 0
    results = Results.load(tmp_path / "run")
    scores = {row["label"]: row["knn_top1"] for row in results.rows}
    assert all(scores[label] > scores["random"] + 0.015 for label in ("dino", "byol", "moco")), scores
    assert any("JPEG" in note for note in results.bench["notes"])
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert (splits["pretrain"]["images"], splits["train"]["images"], splits["test"]["images"]) == (
        45_000,
        50_000,
        10_000,
    )
    assert {row["images_seen"] for row in results.rows[1:]} == {175 * 128}
