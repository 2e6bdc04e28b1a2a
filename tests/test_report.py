"""The page, read as HTML; `test_report_browser.py` opens it."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from made_bench import made_up_results, made_up_row, made_up_rows, page_of, write_bench
from PIL import Image

from ssl_zoo.bench.report import accuracy, summary, write_report
from ssl_zoo.bench.report.figures import POINTS, curve_figure, score_figure, tones
from ssl_zoo.bench.report.html import MOST_BYTES


def test_figures_are_valid_plotly():
    summaries = summary(made_up_rows(["dino", "byol"], 3))
    log = [{"step": i, "images_seen": 8 * i, "loss": 1 / (i + 1), "lr": None} for i in range(3 * POINTS)]
    curve = curve_figure({0: log, 1: log}, "loss", "0")
    assert curve["caption"] == "loss: 1 at first, 0.0008333 after 9,592 images, mean of 2 seeds"
    assert len(curve["data"]) == 3
    assert len(curve["data"][0]["x"]) <= POINTS + 1
    assert curve_figure({0: log}, "lr", "0") is None
    broken_off = curve_figure({0: log, 1: log[:50]}, "loss", "0")
    assert broken_off["caption"] == "loss: 1 at first, 0.0008333 after 9,592 images"
    assert len(broken_off["data"]) == 2
    for figure in (score_figure(summaries, "knn_top1", tones(["dino", "byol"])), curve):
        go.Figure({"data": figure["data"], "layout": figure["layout"]})


def test_of_a_run_that_has_not_ended_the_flops_are_not_drawn():
    """Its row has no FLOPs: the other seeds are the mean, and alone it is no line."""
    done, stopped = made_up_row("dino", 0, 0.6), made_up_row("dino", 1, None, train_flops=None)
    log = [{"step": step, "images_seen": 128 * step, "curve_knn_top1": 0.5} for step in (20, 40)]
    for rows, drawn in (([done, stopped], [2]), ([stopped], [])):
        found = accuracy.curves([(row, log) for row in rows], "curve_knn_top1")
        figure = accuracy.accuracy_figure(found, "curve_knn_top1", "flops", tones(["dino"]))
        assert [len(trace["x"]) for trace in figure["data"]] == drawn
        assert len(accuracy.accuracy_figure(found, "curve_knn_top1", "images", tones(["dino"]))["data"]) == 1


# the page


def test_page_tells_everything(tmp_path: Path):
    results = made_up_results(made_up_rows(["dino", "byol", "moco"], 3), notes=["stored as JPEG"])
    page = page_of(write_bench(tmp_path, results))
    for words in (
        "A made-up bench",
        "dino, byol, moco on made-up",
        "At equal images dino is 7.1 \N{PLUS-MINUS SIGN} 1.5 points above byol (p = .0024, 3 seeds) at 4.0x",
        "p adjusted over 2 methods (Holm)",
        "stored as JPEG",
        "3 epochs",
        "each method's own views",
        "8 views of every image",
        "Views seen differs 4.0x dino 102,400, byol 25,600, moco 25,600",
        "Images seen equal 12,800",
        "0123456789abcdef",
        "10.4 TFLOP",
        "768 MiB",
        "test reads",
        "only 400 labelled test images: a score moves by 4.9 points or so",
        "an imaginary one",
        "ssl-zoo bench --config",
        "2026-01-02",
        "loss: 8.",
    ):
        assert words in page.text, words
    options = [tag for tag, _ in page.tags if tag == "option"]
    assert len(options) == 3 + 2 * 3  # metrics, and methods twice: confusion and map


def test_page_is_offline_and_accessible(tmp_path: Path):
    page = page_of(write_bench(tmp_path, made_up_results(made_up_rows(["dino", "byol"], 3))))
    references = [attrs.get(name) for _, attrs in page.tags for name in ("src", "href", "srcset", "action")]
    assert all(value.startswith("data:image/png;base64,") for value in references if value is not None)
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert ("html", {"lang": "en"}) in page.tags
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 2
    assert all(attrs["alt"] for attrs in images)
    charts = [attrs for tag, attrs in page.tags if "chart" in (attrs.get("class") or "").split()]
    assert len(charts) == 1 + 1 + 2 + 1 + 2  # scores, cost, a method's curves, confusion, map
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_page_escapes_everything(tmp_path: Path):
    evil = '<script>document.title="x"</script>&amp;"\''
    rows = made_up_rows([evil, "byol"], 1)
    rows.append(made_up_row("moco", 0, None, status="failed", error=evil, device=evil, config_hash=evil))
    fields = dict.fromkeys(("name", "dataset", "backbone", "created", "version", "command"), evil)
    folder = write_bench(tmp_path, made_up_results(rows, **fields, notes=[evil]))
    for name in ("environment", "splits", "plan"):
        (folder / f"{name}.json").write_text(json.dumps({evil: evil}))
    page = page_of(folder)
    assert [tag for tag, _ in page.tags].count("script") == 4
    assert page.text.count('document.title="x"') > 10
    assert "</script>&amp;amp;" not in (folder / "report.html").read_text()


def test_page_says_what_is_missing(tmp_path: Path):
    nothing = dict.fromkeys(made_up_row("moco", 0, None))
    rows = [
        made_up_row("random", 0, None, rankme=None),
        made_up_row("dino", 0, None),
        nothing
        | {"label": "moco", "method": "moco", "seed": 0, "status": "failed", "error": "OSError: gone"},
        nothing | {"label": "byol", "method": "byol", "seed": 0, "status": "stopped"},
    ]
    page = page_of(write_bench(tmp_path, made_up_results(rows), cells=False))
    for words in (
        "Without labels no method is ranked; label about 100 images and run: ssl-zoo eval --encoder RUN",
        "No k-NN top-1 was measured",
        "No training metrics were logged",
        "No crops were kept for dino",
        "moco seed 0 failed: OSError: gone",
        "byol seed 0 stopped: run the same command again",
        "no splits.json",
        "no environment.json",
    ):
        assert words in page.text, words


def test_page_of_many_runs_and_large_pictures_stays_below_its_limit(tmp_path: Path):
    labels = [f"dino-{number}" for number in range(8)]
    folder = write_bench(tmp_path, made_up_results(made_up_rows(labels, 2)), cells=False)
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "views.png", compress_level=0)
    metrics = dict.fromkeys([f"metric{number}" for number in range(9)], 1 / 3)
    log = "\n".join(json.dumps({"step": i, "images_seen": 8 * i, **metrics}) for i in range(999))
    for label in labels:
        for seed in range(2):
            cell = folder / "cells" / f"{label}-seed{seed}"
            cell.mkdir(parents=True)
            (cell / "views.png").hardlink_to(tmp_path / "views.png")  # 2.4 MB
            (cell / "metrics.jsonl").write_text(log)
    page = page_of(folder)
    assert (folder / "report.html").stat().st_size < MOST_BYTES
    assert "Left out to keep this page below 8 MB" in page.text
    assert "No crops were kept" not in page.text
    assert any(tag == "img" for tag, _ in page.tags)


def test_page_of_failures_only(tmp_path: Path):
    rows = [made_up_row("dino", 0, None, status="failed", error=None)]
    page = page_of(write_bench(tmp_path, made_up_results(rows), cells=False))
    assert "No method finished: there is nothing to rank." in page.text
    assert "No run finished, so there is nothing to compare" in page.text
    assert "dino seed 0 failed: no reason was recorded" in page.text


def test_page_of_nothing(tmp_path: Path):
    page = page_of(write_bench(tmp_path, {"bench": {"name": "empty"}, "rows": []}, cells=False))
    assert "No method was trained." in page.text


def test_report_without_results_names_the_next_step(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="write one with: ssl-zoo bench --out"):
        write_report(tmp_path)
