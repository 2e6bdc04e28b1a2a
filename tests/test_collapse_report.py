"""Collapse in a bench, in its report, and how often it was told wrongly on real data."""

import json
import math
import runpy
from pathlib import Path

import plotly.graph_objects as go
import pytest
from made_bench import made_up_results, made_up_row, made_up_rows, page_of, write_bench
from made_pages import ROOT
from made_run import small_bench, small_data

from ssl_zoo.bench.report.figures import overlay_figure
from ssl_zoo.bench.report.summaries import remarks
from ssl_zoo.evaluation.collapse import collapse_cause, collapse_verdict

FLAT = {"method": "dino", "label": "flat", "teacher_temperature": 1.0, "warmup_teacher_temperature": 1.0}
AS_ASKED = {
    "methods": ["byol", {**FLAT, "optim": {"lr": 0.01, "warmup_fraction": 0}}],
    "budget": {"steps": 50},
    "run": {"executor": "inline", "threads": 1, "device": "cpu", "log_every": 5, "on_collapse": "stop"},
    "dino": {"out_dim": 64, "hidden_dim": 32, "bottleneck_dim": 64, "use_bn": False},
}


@pytest.fixture(scope="module")
def bench_of_collapses(tmp_path_factory, own_cache):
    folder = tmp_path_factory.mktemp("collapse")
    return small_bench(folder / "run", small_data(folder / "data"), **AS_ASKED)


def test_stop_ends_the_cell_and_keeps_its_row(bench_of_collapses) -> None:
    rows = {row["label"]: row for row in bench_of_collapses.rows}
    flat = rows["flat"]
    signs = flat["status"], flat["collapse_cause"], flat["collapse_alarm"]
    assert signs == ("collapsed", "uniform", "uniform")
    assert flat["steps"] < 50
    assert flat["images_seen"] == flat["views_seen"] / 2 == flat["steps"] * 25
    assert flat["final_loss"] == pytest.approx(math.log(64), abs=0.02)
    assert flat["knn_top1"] is not None  # a collapse is a result
    assert flat["lr"] == 0.01
    assert (rows["byol"]["status"], rows["byol"]["steps"], rows["byol"]["collapse_cause"]) == (
        "done",
        50,
        None,
    )
    assert (rows["random"]["lr"], rows["byol"]["lr"]) == (None, 2e-3)


def test_stopped_cell_is_kept_and_its_log_ends_with_it(bench_of_collapses) -> None:
    cell = bench_of_collapses.folder / "cells" / "flat-seed0"
    before = (cell / "result.json").stat().st_mtime_ns
    assert json.loads((cell / "encoder.json").read_text())["steps"] < 50
    small_bench(bench_of_collapses.folder, bench_of_collapses.folder.parent / "data", **AS_ASKED)
    assert (cell / "result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("on_collapse", ["stop", "warn"])
def test_a_run_killed_while_it_was_evaluated_ends_with_the_same_row(on_collapse, tmp_path) -> None:
    asked = {
        **AS_ASKED,
        "methods": AS_ASKED["methods"][1:],
        "run": {**AS_ASKED["run"], "on_collapse": on_collapse},
    }
    rows = []
    for _ in range(2):
        results = small_bench(tmp_path / "run", small_data(tmp_path / "data"), **asked)
        row = next(row for row in results.rows if row["label"] == "flat")
        rows.append(
            {name: row[name] for name in ("status", "steps", "collapse_alarm", "final_loss", "knn_top1")}
        )
        (tmp_path / "run" / "cells" / "flat-seed0" / "result.json").unlink()
    assert rows[0] == rows[1]
    assert rows[0]["collapse_alarm"] == "uniform"
    assert rows[0]["status"] == ("collapsed" if on_collapse == "stop" else "done")


def test_report_plots_prototypes_and_says_what_to_do(bench_of_collapses) -> None:
    page = page_of(bench_of_collapses.folder)
    assert f"flat seed 0 was ended at step {bench_of_collapses.rows[-1]['steps']}: " in page.text
    assert "prototypes uniform, the teacher gives every prototype the same share" in page.text
    assert "Lower the teacher's temperature" in page.text
    assert "teacher_entropy: flat 4.1" in page.text
    assert "kl: flat " in page.text
    assert sum("prototype" in (attrs.get("class") or "").split() for _, attrs in page.tags) == 2


def test_page_without_prototypes_has_no_such_section(tmp_path: Path) -> None:
    page = page_of(write_bench(tmp_path, made_up_results(made_up_rows(["byol"], 1))))
    assert "prototypes" not in [attrs.get("id") for _, attrs in page.tags]


def test_collapsed_rows_are_remarked_and_healthy_ones_are_not() -> None:
    rows = [
        made_up_row("a", 0, 0.5),
        made_up_row("b", 1, 0.1, collapse_verdict="complete", collapse_cause="one-dimension"),
        made_up_row("c", 0, 0.5, collapse_cause="uniform", collapse_alarm="constant"),
        made_up_row("d", 0, 0.5, status="collapsed", collapse_alarm="constant", steps=70),
    ]
    said = remarks(rows, "knn_top1")
    assert [line.partition(":")[0] for line in said] == [
        "b seed 1",
        "c seed 0",
        "d seed 0 was ended at step 70",
    ]
    assert "features complete, all images" in said[0]
    assert "prototypes one-dimension, the teacher" in said[0]
    assert "constant" not in said[1]
    assert "in training constant, the teacher gives all images the same targets" in said[2]


def test_overlay_has_a_line_per_label_under_its_ceiling() -> None:
    def log(height: float, steps: int = 3) -> list[dict[str, float]]:
        return [{"images_seen": i, "kl": height * i, "uniform_entropy": 4.0} for i in range(steps)]

    logs = {
        "<a>": {0: log(1.0), 1: log(3.0)},
        "b": {0: log(5.0, 2)},
        "c": {0: [{"images_seen": 0, "loss": 1.0}]},
    }
    figure = overlay_figure(logs, "kl", {"<a>": "0", "b": "1", "c": "2"}, ceiling="uniform_entropy")
    assert [(line["name"], line["y"]) for line in figure["data"]] == [
        ("&lt;a&gt;", [0.0, 2.0, 4.0]),
        ("b", [0.0, 5.0]),
        ("uniform_entropy", [4.0, 4.0, 4.0]),
    ]
    assert figure["caption"].startswith(
        "kl: <a> 0 at first, 4 after 2 images, mean of 2 seeds; b 0 at first, 5 after"
    )
    go.Figure({"data": figure["data"], "layout": figure["layout"]})
    assert overlay_figure({"c": logs["c"]}, "kl", {"c": "2"}) is None


# What was measured


@pytest.fixture(scope="module")
def measured():
    script = runpy.run_path(str(ROOT / "benchmarks" / "false_alarms.py"))
    return script, json.loads((ROOT / "benchmarks" / "results" / "false-alarms.json").read_text())


def test_page_shows_the_measured_false_alarms(measured) -> None:
    script, stored = measured
    page = (ROOT / "docs" / "collapse.md").read_text()
    assert script["render"](page, stored) == page, "run python benchmarks/false_alarms.py --render"


def test_page_shows_the_measured_corners() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "collapse_study.py"))
    stored = json.loads(script["STORED"].read_text())
    page = script["PAGE"].read_text()
    assert script["render"](page, stored) == page, "run python benchmarks/collapse_study.py"
    rows = {row["label"]: row for row in stored["rows"]}
    assert rows["both"]["logged"]["kl"] > 0.1
    assert all(
        rows[label]["logged"]["kl"] < 0.01 for label in ("centering-only", "sharpening-only", "neither")
    )


def test_runs_are_those_of_the_code_as_it_is(measured) -> None:
    script, stored = measured
    assert stored["configs"] == script["configs"](), "run python benchmarks/false_alarms.py"
    corners = runpy.run_path(str(ROOT / "benchmarks" / "collapse_study.py"))
    kept = {row["label"]: row["config"] for row in json.loads(corners["STORED"].read_text())["rows"][1:]}
    assert kept == corners["configs"](), "run the recipe and python benchmarks/collapse_study.py FOLDER"


def test_stored_runs_are_judged_as_the_code_judges_now(measured) -> None:
    script, stored = measured
    for row in stored["runs"]:
        verdict = collapse_verdict(
            row["feature_std"],
            row["rankme"],
            random_rankme=row["random_rankme"],
            steps=script["STEPS"],
            finite=True,
        )
        assert (row["collapse_verdict"], row["collapse_cause"]) == (verdict, collapse_cause(row["metrics"]))


def test_at_least_twenty_healthy_runs_were_counted(measured) -> None:
    script, stored = measured
    healthy = [row for row in stored["runs"] if row["label"] in script["SETTINGS"]]
    assert sum(row["knn_top1"] >= row["random_knn_top1"] for row in healthy) >= 20
