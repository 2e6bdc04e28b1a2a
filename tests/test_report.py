"""The report, on made-up bench folders: every number in here is synthetic."""

import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from ssl_zoo.bench.report import render_table, results_table, summary, to_markdown, write_report
from ssl_zoo.bench.report.figures import POINTS, curve_figure, score_figure, tones
from ssl_zoo.bench.report.summaries import finding
from ssl_zoo.bench.report.words import budget, reason, scaled
from ssl_zoo.bench.statistics import mean_interval, paired_interval

SCORES = {"dino": 0.62, "byol": 0.55, "moco": 0.54, "random": 0.31}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def made_up_row(label: str, seed: int, score: float | None, **fields: Any) -> dict[str, Any]:
    trained = label != "random"
    images = 12_800 if trained else 0
    views = {"dino": 8, "random": 0}.get(label, 2)
    return {
        "label": label,
        "method": label if trained else None,
        "dataset": "made-up",
        "backbone": "resnet8",
        "seed": seed,
        "status": "done",
        "images_seen": images,
        "views_seen": images * views,
        "steps": images // 128,
        "batch_size": 128,
        "train_flops": 1.3e12 * views,
        "train_seconds": 10.0 * views,
        "images_per_second": images / (10 * views) if trained else None,
        "peak_memory_bytes": 3 * 2**28,
        "precision": "fp32",
        "threads": 2,
        "device": "cpu",
        "knn_top1": score,
        "knn_top5": score and min(score + 0.3, 1),
        "knn_by_k": {"1": score},
        "knn_k": score and 20,
        "knn_temperature": 0.07,
        "linear_top1": score and score + 0.03,
        "linear_top5": None,
        "linear_balanced_accuracy": score and score + 0.02,
        "map_at_r": score and score / 2,
        "rankme": 41.25,
        "feature_std": 0.043,
        "collapse_verdict": "healthy" if trained else None,
        "collapse_cause": None,
        "final_loss": 1.5 if trained else None,
        "encoder": "teacher" if label == "dino" else "online",
        "config_hash": "0123456789abcdef",
        "error": None,
    } | fields


def made_up_rows(labels: list[str], seeds: int) -> list[dict[str, Any]]:
    return [
        made_up_row(label, seed, SCORES.get(label, 0.5) + 0.004 * math.sin(5 * seed + len(label)))
        for seed in range(seeds)
        for label in ["random", *labels]
    ]


def made_up_results(rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    bench = {
        "name": "A made-up bench",
        "dataset": "made-up",
        "backbone": "resnet8",
        "image_size": 32,
        "batch_size": 128,
        "budget": {"epochs": 3},
        "seeds": sorted({row["seed"] for row in rows}),
        "methods": [label for label in dict.fromkeys(row["label"] for row in rows) if label != "random"],
        "views": "recipe",
        "primary_metric": "knn_top1",
        "precision": "fp32",
        "device": "cpu",
        "threads": 2,
        "notes": [],
        "created": "2026-01-02T03:04:05",
        "version": "0.1.0",
        "command": "ssl-zoo bench --methods dino byol --dataset made-up --seeds 3",
    }
    return {"bench": bench | fields, "rows": rows}


def write_bench(folder: Path, results: dict[str, Any], cells: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    if cells:
        (folder / "plan.json").write_text(json.dumps({"cells": [{"label": "dino", "seed": 0}]}))
        (folder / "environment.json").write_text(json.dumps({"python": "3.11.0", "cpu": "an imaginary one"}))
        splits = {"pretrain": {"images": 11_520, "source": "train"}, "test": {"images": 2_000, "reads": 1}}
        (folder / "splits.json").write_text(json.dumps(splits))
        for row in results["rows"]:
            if row["label"] != "random":
                write_cell(folder / "cells" / f"{row['label']}-seed{row['seed']}", row)
    return folder


def write_cell(cell: Path, row: dict[str, Any]) -> None:
    cell.mkdir(parents=True)
    views = 8 if row["label"] == "dino" else 2
    with (cell / "metrics.jsonl").open("w") as file:
        for step in range(5, 101, 5):
            loss = 1.5 + views * math.exp(-step / 30) + 0.1 * math.sin(step + row["seed"])
            logged = {"step": step, "images_seen": 128 * step, "loss": loss, "lr": 0.1 * (1 - step / 100)}
            logged |= {"teacher_entropy": 7 - step / 50} if row["label"] == "dino" else {}
            file.write(json.dumps(logged) + "\n")
        file.write('{"step": 105, "images_se')  # as a killed process leaves it
    noise = np.random.default_rng(row["seed"]).integers(60, 200, (8, views, 4, 4, 3), dtype=np.uint8)
    crops = noise.repeat(8, axis=2).repeat(8, axis=3)
    pixels = np.pad(crops, ((0, 0), (0, 0), (2, 0), (2, 0), (0, 0)), constant_values=255)
    Image.fromarray(pixels.transpose(0, 2, 1, 3, 4).reshape(8 * 34, views * 34, 3)).save(cell / "views.png")


class Page(HTMLParser):
    """What a browser would take from the page: texts, tags, headings and references."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(folder: Path) -> Page:
    report = write_report(folder)
    assert report == folder / "report.html"
    return Page(report.read_text(encoding="utf-8"))


def terminal(results: dict[str, Any], width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    console.print(render_table(results))
    return console.file.getvalue()  # type: ignore[attr-defined]


# statistics


def test_mean_interval_is_students_t():
    values = [0.61, 0.64, 0.6, 0.66]
    low, high = stats.t.interval(0.9, df=3, loc=np.mean(values), scale=stats.sem(values))
    interval = mean_interval(values, confidence=0.9)
    assert interval.ends == pytest.approx((low, high))
    assert interval.mean == pytest.approx(np.mean(values))


def test_one_value_has_no_interval_and_none_is_an_error():
    assert mean_interval([0.5]) == (0.5, None)
    assert mean_interval([0.5]).ends == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_paired_interval_uses_shared_seeds_only():
    first, second = {0: 3.0, 1: 5.0, 2: 9.0}, {1: 4.0, 2: 7.0, 7: 100.0}
    assert paired_interval(first, second) == mean_interval([1.0, 2.0])
    assert paired_interval({0: 1.0}, {1: 1.0}) is None


# summary


def test_summary_orders_by_primary_metric_and_puts_the_baseline_last():
    summaries = summary(made_up_rows(["byol", "moco", "dino"], 3))
    assert [item.label for item in summaries] == ["dino", "byol", "moco", "random"]
    assert summaries[0].gain.mean == pytest.approx(31, abs=1)
    assert summaries[-1].gain == (0, 0)
    by_linear = summary([made_up_row("a", 0, 0.5, linear_top1=0.1), made_up_row("b", 0, 0.4)], "linear_top1")
    assert [item.label for item in by_linear] == ["b", "a"]


def test_a_collapsed_run_counts_and_a_stopped_or_failed_one_does_not():
    rows = [
        made_up_row("dino", 0, 0.6),
        made_up_row("dino", 1, 0.2, status="collapsed", collapse_verdict="complete"),
        made_up_row("dino", 2, 0.9, status="stopped"),
        made_up_row("dino", 3, None, status="failed", error="RuntimeError: out of memory"),
    ]
    (dino,) = summary(rows)
    assert dino.scores["knn_top1"].mean == pytest.approx(0.4)
    assert dino.status == "1 done, 1 collapsed, 1 stopped, 1 failed"
    assert dino.verdict == "1 healthy, 1 complete"


def test_nan_counts_as_not_measured():
    (dino,) = summary([made_up_row("dino", 0, float("nan"))])
    assert "knn_top1" not in dino.scores


# who is ahead


def said(scores: dict[str, list[float]]) -> str:
    rows = [made_up_row(label, s, score) for label, own in scores.items() for s, score in enumerate(own)]
    return " ".join(finding(summary(rows), "knn_top1"))


def test_three_seeds_apart_name_the_leader_with_the_paired_interval():
    low, high = mean_interval([10.0, 11.0, 12.0]).ends
    sentence = said({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.49, 0.58], "random": [0.3, 0.3, 0.3]})
    assert f"the leader is a, ahead of b by 11.0 points (95 %: {low:+.1f} to {high:+.1f})" in sentence
    assert "a +30.0 points, b +19.0 points" in sentence


def test_an_interval_with_zero_in_it_names_no_winner():
    sentence = said({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.7, 0.6]})
    assert "no clear winner: a leads b by 3.3 points" in sentence


def test_more_methods_widen_the_intervals():
    two = {"a": [0.5, 0.51, 0.52], "b": [0.45, 0.47, 0.45]}
    assert "the leader is a" in said(two)
    assert "no clear winner" in said(two | {"c": [0.2, 0.21, 0.22], "d": [0.1, 0.12, 0.12]})


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"a": [0.5], "b": [0.4]}, "one seed: too few seeds to rank (use --seeds 3)"),
        ({"a": [0.5, 0.5], "b": [0.4, 0.4]}, "two seeds: too few seeds to rank (use --seeds 3)"),
        ({"a": [0.5] * 3, "b": [0.4] * 2}, "only 2 of 3 seeds were finished by every method: too few"),
        ({"a": [0.2], "random": [0.3]}, "No method is above the untrained backbone on k-NN top-1: a -10.0"),
        ({"a": [0.5], "random": [0.3]}, "only a has a score: there is nothing to rank"),
        ({"a": [None], "b": [None]}, "no labels: there is nothing to rank"),
    ],
)
def test_nobody_is_named_without_grounds(scores: Any, words: str):
    assert words in said(scores)


def test_all_failed_says_so():
    rows = [made_up_row("a", 0, None, status="failed", error="ValueError: no")]
    assert finding(summary(rows), "knn_top1").line == "no method finished: there is nothing to rank"


# tables


def test_terminal_table_marks_the_best_from_three_seeds_on():
    one, three = (terminal(made_up_results(made_up_rows(["dino", "byol"], seeds))) for seeds in (1, 3))
    best = re.compile(r"\x1b\[1m\s*6\d\.\d")
    assert not best.search(one)
    assert best.search(three)
    assert "one seed: too few seeds to rank (use --seeds 3)" in one
    assert "the leader is dino, ahead of byol" in three
    assert re.search(r"\x1b\[2m.*random", three)


def test_terminal_table_says_what_failed_and_repeats_the_notes():
    rows = made_up_rows(["dino"], 1)
    error = "Traceback (most recent call last):\n  File x\nRuntimeError: [red]out of memory[/red]"
    rows.append(made_up_row("by[b]ol", 0, None, status="failed", error=error))
    text = terminal(made_up_results(rows, notes=["images are stored as JPEG"]))
    assert "by[b]ol seed 0 failed: RuntimeError: [red]out of memory[/red]" in text
    assert "note: images are stored as JPEG" in text
    assert "A made-up bench" not in text
    assert (
        "dino, by[b]ol on made-up \N{MIDDLE DOT} resnet8 \N{MIDDLE DOT} 32 px \N{MIDDLE DOT} 3 epochs" in text
    )


def test_no_number_is_cut_in_a_narrow_terminal():
    text = terminal(made_up_results(made_up_rows(["dino", "byol"], 3)), width=80)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "12,800" in text


def test_markdown_is_the_same_table():
    rows = [
        made_up_row("random", 0, 0.3, knn_k=20),
        made_up_row("dino|2", 0, 0.6, map_at_r=None),
        made_up_row("<b>", 0, None, status="failed", error="OSError: gone", collapse_verdict=None),
    ]
    assert to_markdown(made_up_results(rows, notes=["a *small* set"])) == (
        "dino\\|2, &lt;b&gt; on made-up \N{MIDDLE DOT} resnet8 \N{MIDDLE DOT} 32 px \N{MIDDLE DOT} 3 epochs "
        "\N{MIDDLE DOT} each method's own views \N{MIDDLE DOT} 1 seed\n"
        "\n"
        "| label | k-NN top-1 % | over random | linear top-1 % | mAP@R % | RankMe | verdict | images seen "
        "| seconds | images/s | status |\n"
        "| :--- | ---: | ---: | ---: | ---: | ---: | :--- | ---: | ---: | ---: | :--- |\n"
        "| dino\\|2 | 60.0 | +30.0 | 63.0 | - | 41.2 | healthy | 12,800 | 20 | 640 | done |\n"
        "| &lt;b&gt; | - | - | - | - | - | - | 12,800 | 20 | 640 | failed |\n"
        "| random | 30.0 | +0.0 | 33.0 | 15.0 | 41.2 | - | 0 | 0 | - | done |\n"
        "\n"
        "- only dino\\|2 has a score: there is nothing to rank\n"
        "- &lt;b&gt; seed 0 failed: OSError: gone\n"
        "- note: a \\*small\\* set\n"
    )


def test_markdown_bolds_the_best_with_its_interval():
    text = to_markdown(made_up_results(made_up_rows(["dino", "byol"], 3)))
    assert re.search(r"\| dino \| \*\*6\d\.\d \N{PLUS-MINUS SIGN} \d\.\d\*\* \|", text)
    assert text.count("**") == 6  # k-NN, linear, mAP@R


def test_notebook_table_escapes_and_names_the_finding():
    page = Page(results_table(made_up_results(made_up_rows(["dino", "<i>x"], 3))))
    assert "i" not in [tag for tag, _ in page.tags]
    assert "<i>x" in page.text
    assert "the leader is dino, ahead of <i>x" in page.text


def test_words():
    assert budget({"epochs": 1}) == "1 epoch"
    assert budget({"flops": 2.5e15}) == "2.5e+15 flops"
    assert scaled(2.5e15, "FLOP") == "2.5 PFLOP"
    assert scaled(3 * 2**28, "B", base=1024) == "768 MiB"
    assert scaled(0, "B") == "0 B"
    assert reason(None, "stopped") == "run the same command again to finish it"


# figures


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


# the page


def test_page_tells_everything(tmp_path: Path):
    results = made_up_results(made_up_rows(["dino", "byol", "moco"], 3), notes=["stored as JPEG"])
    page = page_of(write_bench(tmp_path, results))
    for words in (
        "A made-up bench",
        "dino, byol, moco against an untrained backbone",
        "The leader is dino, ahead of byol by",
        "stored as JPEG",
        "3 epochs",
        "each method's own recipe",
        "8 views of every image",
        "Views seen differs dino 102,400, byol 25,600, moco 25,600",
        "Images seen equal 12,800",
        "0123456789abcdef",
        "10.4 TFLOP",
        "768 MiB",
        "test reads",
        "an imaginary one",
        "ssl-zoo bench --methods dino byol",
        "2026-01-02",
        "loss: 8.",
    ):
        assert words in page.text, words
    options = [tag for tag, _ in page.tags if tag == "option"]
    assert len(options) == 3


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
    assert len(charts) == 3
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
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert page.text.count('document.title="x"') > 10
    assert "</script>&amp;amp;" not in (folder / "report.html").read_text()


def test_page_says_what_is_missing(tmp_path: Path):
    nothing = dict.fromkeys(made_up_row("moco", 0, None))
    rows = [
        made_up_row("random", 0, None, rankme=None),
        made_up_row("dino", 0, None),
        nothing | {"label": "moco", "seed": 0, "status": "failed", "error": "OSError: gone"},
        nothing | {"label": "byol", "seed": 0, "status": "stopped"},
    ]
    page = page_of(write_bench(tmp_path, made_up_results(rows), cells=False))
    for words in (
        "No labels: there is nothing to rank.",
        "No k-NN top-1 was measured",
        "No training metrics were logged",
        "No crops were kept for dino",
        "moco seed 0 failed: OSError: gone",
        "byol seed 0 stopped: run the same command again",
        "no splits.json",
        "no environment.json",
    ):
        assert words in page.text, words


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


def browse(report: Path, profile: Path) -> tuple[Page, list[str]]:
    """The page after its scripts ran, and what they wrote to the console."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}", "--virtual-time-budget=4000"),
        *("--dump-dom", report.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return Page(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def drawn(page: Page, name: str) -> int:
    return sum(name in (attrs.get("class") or "").split() for _, attrs in page.tags)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_draws_the_charts_without_errors(tmp_path: Path):
    folder = write_bench(tmp_path / "bench", made_up_results(made_up_rows(["dino", "<b>byol"], 3)))
    report = write_report(folder)
    page, console = browse(report, tmp_path / "profile")
    assert not console
    assert drawn(page, "plot-container") == 3  # scores, and a panel for each of two methods
    # scores: mean and seeds of two methods and the baseline; panels: three seeds and their mean
    assert drawn(page, "scatter") == 3 * 2 + 2 * 4
    assert "b" not in [tag for tag, _ in page.tags]

    change = (
        "metric.value = 'teacher_entropy'; metric.dispatchEvent(new Event('change')); throw Error('seen')"
    )
    report.write_text(report.read_text().replace("</body>", f"<script>{change}</script></body>"))
    page, console = browse(report, tmp_path / "profile")
    assert len(console) == 1  # the error thrown on purpose: others would have been seen above
    assert "seen" in console[0]
    assert "teacher_entropy: 6.9 at first, 5 after 12,800 images, mean of 3 seeds" in page.text
    assert "teacher_entropy was not logged" in page.text
