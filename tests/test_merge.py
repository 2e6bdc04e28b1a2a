"""Reports made anew, and of several benches."""

import json
import os

import pytest
from made_bench import PLANNED, Page, made_up_results, made_up_rows, write_bench
from made_run import command

from ssl_zoo.bench.report.merge import merge
from ssl_zoo.bench.results import Results


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two benches of one seed each of dino and byol, a third of dino's next seed."""
    folder = tmp_path_factory.mktemp("runs")
    for name, labels, seed in (("a", ["dino"], 0), ("b", ["byol"], 0), ("c", ["dino"], 1)):
        rows = [row for row in made_up_rows(labels, seed + 1) if row["seed"] == seed]
        write_bench(folder / name, made_up_results(rows, notes=[f"from {name}"]))
    return folder


def variant(runs, tmp_path, plan=None, **fields):
    """Bench b with other terms."""
    results = json.loads((runs / "b" / "results.json").read_text())
    results["bench"] |= fields
    folder = write_bench(tmp_path / "b", results)
    if plan:
        (folder / "plan.json").write_text(json.dumps({"cells": [plan]}))
    return folder


def test_merged_rows_find_their_logs_and_pictures(runs, tmp_path):
    out = tmp_path / "new" / "merged"
    assert command("report", runs / "a", runs / "b", runs / "c", "--out", out) == 0
    merged = Results.load(out)
    names = [(row["label"], row["seed"]) for row in merged.rows]
    assert names == [("random", 0), ("dino", 0), ("byol", 0), ("random", 1), ("dino", 1)]
    assert merged.bench["methods"] == ["dino", "byol"]
    assert merged.bench["seeds"] == [0, 1]
    assert merged.bench["notes"] == ["from a", "from b", "from c"]
    assert (out / "results.csv").read_text().count("\n") == 6
    page = Page((out / "report.html").read_text())
    assert sum(tag == "img" for tag, _ in page.tags) == 2  # the crops of dino and byol
    assert "loss: 8." in page.text
    assert "No accuracy was logged" not in page.text
    before = (out / "results.json").read_text()
    assert command("report", out) == 0  # a merged folder is a bench folder
    assert (out / "results.json").read_text() == before
    assert command("report", out, runs / "b", "--out", tmp_path / "again") == 2  # byol seed 0 twice


@pytest.mark.parametrize("kind", ["md", "latex"])
def test_a_merged_table_tells_noise_and_where_to_add_seeds(runs, capsys, kind):
    assert command("report", runs / "a", runs / "b", "--format", kind) == 0
    told = capsys.readouterr().out
    assert "another draw of the 60 test images would move byol over dino by" in told
    added = (f"--config {os.path.relpath(runs / name)}/bench.yaml --seeds 3" for name in "ab")
    assert all(words in told for words in added)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"budget": {"epochs": 4}}, "budget: epochs=3 in .*a, epochs=4 in .*b"),
        ({"precision": "bf16"}, "precision: fp32 in .*a, bf16 in .*b"),
        ({"backbone": "resnet18"}, "backbone: resnet8"),
        ({"image_size": 64}, "image size: 32"),
        ({"dataset": "digits"}, "data: made-up in .*a, digits in .*b"),
        ({"tuning": {"trials": 8}}, "tuning: none in .*a, trials=8 in .*b"),
        ({"plan": {**PLANNED, "shared": {"fingerprint": "2"}}}, "fingerprint: 1 in .*a, 2 in .*b"),
        ({"plan": {**PLANNED, "options": {"lr": 2}}}, "dino.lr: none in .*a, 2 in .*b"),
    ],
)
def test_what_is_not_comparable_is_refused_with_the_difference(runs, tmp_path, fields, words):
    with pytest.raises(ValueError, match=rf"not comparable:\n  {words}"):
        merge([runs / "a", variant(runs, tmp_path, **fields)], tmp_path / "out")


def test_benches_tested_on_other_images_or_labels_are_refused(runs, tmp_path):
    first = write_bench(tmp_path / "a", json.loads((runs / "a" / "results.json").read_text()))
    other = variant(runs, tmp_path)
    for number, folder in enumerate((first, other)):
        splits = json.loads((folder / "splits.json").read_text())
        (folder / "splits.json").write_text(json.dumps(splits | {"evaluation": str(number)}))
    with pytest.raises(ValueError, match=r"images or labels evaluated on: they differ in .*a and .*b"):
        merge([first, other], tmp_path / "out")


def test_what_was_tuned_or_given_in_any_of_them_is_told(runs, tmp_path):
    def tuned(label):
        return {"trials": 2, "metric": "curve_knn_top1", "methods": {label: {"chosen": 1}}}

    first = json.loads((runs / "a" / "results.json").read_text())
    first["bench"] |= {"tuning": tuned("dino"), "given": {"dino": ["optim"]}, "plugins": ["one"]}
    second = variant(runs, tmp_path, tuning=tuned("byol"), given={"byol": ["views"]}, plugins=["two"])
    merged = merge([write_bench(tmp_path / "a", first), second], tmp_path / "out").bench
    assert merged["tuning"] == tuned("dino") | {"methods": {"dino": {"chosen": 1}, "byol": {"chosen": 1}}}
    assert merged["given"] == {"dino": ["optim"], "byol": ["views"]}
    assert merged["plugins"] == ["one", "two"]


def test_of_a_shared_reference_the_row_that_finished_is_taken(runs, tmp_path):
    first = json.loads((runs / "a" / "results.json").read_text())
    for row in first["rows"]:
        row |= {"status": "failed"} if row["label"] == "random" else {}
    merged = merge([write_bench(tmp_path / "a", first), runs / "b"], tmp_path / "out")
    assert [row["status"] for row in merged.rows if row["label"] == "random"] == ["done"]


def test_a_label_and_seed_in_two_runs_is_refused(runs, tmp_path):
    again = write_bench(tmp_path / "b", json.loads((runs / "a" / "results.json").read_text()))
    with pytest.raises(ValueError, match=r"a and .*b both hold dino seed 0; leave one of them out"):
        merge([runs / "a", again], tmp_path)


def test_a_differing_machine_is_noted(runs, tmp_path):
    merged = merge([runs / "a", variant(runs, tmp_path, threads=8)], tmp_path / "out")
    assert merged.bench["threads"] == "2 or 8"
    assert "threads differs between the merged benches: 2 or 8" in merged.bench["notes"]


def test_wrong_targets_are_refused(runs, capsys):
    for out, words in (
        ((), "give --out FOLDER"),
        (("--out", runs / "a"), "is one of the runs"),
        (("--out", runs), "holds something else"),
    ):
        assert command("report", runs / "a", runs / "b", *out) == 2
        assert words in capsys.readouterr().err
    assert command("report") == 2


@pytest.mark.parametrize(("kind", "words"), [("md", "| dino |"), ("csv", "dino"), ("latex", "\\\\")])
def test_tables_are_printed_or_written(runs, tmp_path, capsys, kind, words):
    assert command("report", runs / "a", runs / "b", "--format", kind) == 0
    printed = capsys.readouterr().out
    assert words in printed
    assert command("report", runs / "a", runs / "b", "--format", kind, "--out", tmp_path / "table") == 0
    assert (tmp_path / "table").read_text() == printed
