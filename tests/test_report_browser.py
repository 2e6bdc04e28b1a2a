"""The page in a headless Chromium, used as a person does: with keys, in the dark, on a phone."""

import json

import pytest
from made_bench import CHROMIUM, made_up_results, made_up_rows, write_bench
from made_browser import browser

from ssl_zoo.bench.report import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

DRAWN = "document.querySelectorAll('.plot-container').length"
COST = "document.querySelector('[data-chart^=cost]')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rows = made_up_rows(["dino", "<b>byol"], 3)
    made = write_bench(tmp_path_factory.mktemp("bench") / "run", made_up_results(rows, notes=["a leak"]))
    write_report(made)
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def page(running, folder):
    """The page as it opens, 1000 px wide; nothing may complain or load, whatever a test does."""
    running.resize(1000)
    running.prefer("light")
    running.open(folder / "report.html")
    yield running
    assert not running.complaints
    assert not running.requests


def visible(page, chart):
    """Names of the traces of a chart that are shown."""
    return page.run(f"{chart}.data.filter(trace => trace.visible).map(trace => trace.name)")


def unfold(page):
    page.run("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    page.until(f"{DRAWN} === 7")  # scores, cost, curves of two methods, confusion, two maps


def test_sections_stand_in_order_and_folds_open_by_keyboard(page):
    heads = page.run("[...document.querySelectorAll('h2')].map(head => head.textContent)")
    assert heads == [
        "Scores",
        "Accuracy against cost",
        "Warnings",
        "What the methods saw",
        "More, folded",
        "Loss and diagnostics",
        "Audit: what was equal, and what was not",
        "More scores",
        "Classes: accuracy and confusion",
        "Nearest neighbours",
        "Map of the features",
        "Every run",
        "Data roles and environment",
        "The command that makes it again",
        "The data behind this page",
    ]
    told = page.run("document.body.innerText")
    assert told.index("At equal images dino is") < told.index("Scores")
    assert page.run("document.querySelectorAll('details[open]').length") == 0
    assert page.run(DRAWN) == 2  # what is folded is not drawn yet
    page.run("document.querySelector('#curves summary').focus()")
    page.press("Enter")
    page.until(f"document.querySelector('#curves').open && {DRAWN} === 4")
    assert page.run("[...document.querySelectorAll('#curves .main-svg')].every(svg => svg.clientWidth > 200)")
    page.run("document.querySelector('#curves select').focus()")
    page.press("ArrowDown")
    page.until("document.querySelector('#curves figcaption').textContent.startsWith('lr: ')")


def test_legend_and_axis_follow_the_keyboard(page):
    assert visible(page, COST) == ["dino"] * 2 + ["&lt;b&gt;byol"] * 2  # a band and a line each
    assert page.run(f"{COST}.layout.xaxis.title.text") == "images seen"
    page.run("document.querySelector('[data-of=cost] button').focus()")
    page.press("Space")
    assert page.run("document.activeElement.ariaPressed") == "false"
    assert visible(page, COST) == ["&lt;b&gt;byol"] * 2
    page.run("document.querySelector('[name=cost-axis]').focus()")
    page.press("ArrowRight")
    assert page.run(f"{COST}.layout.xaxis.title.text") == "training FLOPs"
    assert visible(page, COST) == ["&lt;b&gt;byol"] * 2
    assert page.run("document.querySelector('#cost ~ figure figcaption').textContent").startswith(
        "k-NN top-1 against training FLOPs; at the end dino 61.0 %"
    )


def test_images_of_the_map_are_walked_through_and_classes_stay_text(page):
    unfold(page)
    page.run("document.querySelector('[name=map-image]').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    name = page.run("document.querySelector('[name=map-name]').value")
    assert name == "<script>alert(1)</script>, test image 2"
    assert page.run("getComputedStyle(document.querySelector('.thumb')).backgroundPosition") == "-192px 0px"
    ring = page.run("[...document.querySelectorAll('.map')].map(node => node.data.at(-1).x.length)")
    assert ring == [1, 1]


def test_data_is_downloaded_as_it_lies_in_the_folder(page, folder, tmp_path):
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    unfold(page)
    page.run("document.querySelector('[data-download=\"results.json\"]').click()")
    loaded = tmp_path / "results.json"
    page.wait(loaded.is_file)
    assert loaded.read_bytes() == (folder / "results.json").read_bytes()


def test_dark_mode_paints_page_and_charts_anew(page):
    ink = f"[getComputedStyle(document.body).color, {COST}.layout.font.color]"
    light = page.run(ink)
    page.prefer("dark")
    page.until(f"{COST}.layout.font.color !== {json.dumps(light[1])}")
    assert page.run(ink)[0] != light[0]


def test_a_phone_scrolls_down_only(page):
    page.resize(360, 740)
    unfold(page)
    page.until("document.documentElement.scrollWidth === 360")  # charts that were drawn wider follow
    assert page.run("document.documentElement.scrollWidth") == 360


def test_prototypes_have_a_legend_of_their_own(page, tmp_path):
    folder = write_bench(tmp_path, made_up_results(made_up_rows(["dino"], 1)))
    record = {"step": 5, "images_seen": 5, "loss": 1, "teacher_entropy": 2, "kl": 1, "uniform_entropy": 4}
    (folder / "cells" / "dino-seed0" / "metrics.jsonl").write_text(json.dumps(record))
    page.open(write_report(folder))
    page.run("document.querySelector('#prototypes').open = true")
    page.until(f"{DRAWN} === 3")  # scores, entropy and KL: no accuracy was logged
    page.run("document.querySelector('[data-of=prototypes] button').click()")
    assert visible(page, "document.querySelector('.prototype')") == ["uniform_entropy"]
