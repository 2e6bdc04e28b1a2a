"""The page, read as HTML and opened in a browser."""

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import plotly.graph_objects as go
import pytest
from made_bench import CHROMIUM, Page, made_up_results, made_up_row, made_up_rows, page_of, write_bench

from ssl_zoo.bench.report import summary, write_report
from ssl_zoo.bench.report.figures import POINTS, curve_figure, score_figure, tones


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
        "At equal images dino is 7.1 \N{PLUS-MINUS SIGN} 1.5 points above byol (p = .0024, 3 seeds) at 4.0x",
        "p adjusted over 2 methods (Holm)",
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
