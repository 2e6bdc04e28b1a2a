"""Every code block of our pages runs (the rule: made_pages.py), links lead somewhere, cli.md is fresh."""

import json
import math
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_pages import PAGES, ROOT, blocks, prepare, run_page, short

from ssl_zoo.registry import describe_methods


@pytest.fixture(autouse=True)
def _reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of a reader's own to work in, with a cache; what is imported from there is dropped."""
    desk = tmp_path / "desk"
    desk.mkdir()
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    monkeypatch.syspath_prepend(str(desk))
    monkeypatch.chdir(desk)
    monkeypatch.setattr("ssl_zoo.data.loading.MOST_WORKERS", 0)  # a few photos need no processes
    loaded = set(sys.modules)
    yield
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(desk)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_run(page: Path) -> None:
    prepare(Path.cwd())
    text = page.read_text()
    assert run_page(text) == sum(
        block.file is not None or block.language in ("bash", "python") for block in blocks(text)
    )


@pytest.mark.parametrize("page", [*PAGES, ROOT / "examples/plugin/README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


GENERATE = ROOT / "docs" / "generate.py"


def test_command_line_page_is_generated_from_the_command_line() -> None:
    generated = runpy.run_path(str(GENERATE))["render"]()
    assert (ROOT / "docs" / "cli.md").read_text() == generated, "run python docs/generate.py"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "methods").glob("*.md")), ids=lambda page: page.stem)
def test_pages_of_methods_are_generated_from_code_recipes_and_runs(page: Path) -> None:
    text = page.read_text()
    assert runpy.run_path(str(GENERATE))["render_blocks"](text) == text, "run python docs/generate.py"
    kinds = re.findall(r"^<!-- (\w+): ", text, flags=re.M)
    assert {"fields", "recipes", "log"} <= set(kinds)
    assert len(kinds) == text.count("<!-- end -->")


@pytest.mark.parametrize("page", ["docs/scaling.md", "docs/data.md", "benchmarks/gpu.md"])
def test_measured_tables_are_those_of_the_results(page: str) -> None:
    name, text = Path(page).stem, (ROOT / page).read_text()
    assert f"<!-- measured: {name} -->\n| " in text
    assert runpy.run_path(str(GENERATE))["render_blocks"](text) == text, "run python docs/generate.py"


def test_what_is_said_of_the_gpu_follows_from_its_tables() -> None:
    text = " ".join((ROOT / "benchmarks" / "gpu.md").read_text().split())
    found = json.loads((ROOT / "benchmarks" / "results" / "gpu.json").read_text())
    eager, graphs = (
        {row["task"][:4]: row["images_per_second"][f"ssl_zoo, {side}"][0] for row in found["training"]}
        for side in ("bf16", "bf16 compiled")
    )
    epochs = {name: math.ceil(30 / (1 / eager[name] - 1 / graphs[name]) / 45_000) for name in eager}
    assert f"BYOL saves within {epochs['BYOL']} epochs of CIFAR-10, DINO within {epochs['DINO']} and" in text
    assert f"small calls, within {epochs['MoCo']}." in text
    minutes = {name: 200 * 50_000 / rate / 60 for name, rate in graphs.items()}
    assert f"would take {min(minutes.values()):.0f} (DINO) to {max(minutes.values()):.0f} minutes" in text
    runs = found["cifar10"]
    together = sum(run["images"] for run in runs) / max(run["seconds"] for run in runs)
    assert f"together had {round(together, -2):,.0f} images per second" in text


def test_every_method_of_ours_has_its_page() -> None:
    ours = {method.name for method in describe_methods() if method.owner.startswith("ssl_zoo.")}
    assert ours == {page.stem for page in (ROOT / "docs" / "methods").glob("*.md")}


def test_a_field_without_a_row_and_a_stale_default_are_noticed() -> None:
    fields = runpy.run_path(str(GENERATE))["fields"]
    table = (ROOT / "docs" / "methods" / "byol.md").read_text()
    rows = re.search(r"<!-- fields: byol -->\n(.*?)<!-- end -->", table, flags=re.S)[1]
    assert fields("byol", rows.replace("| 0.98 |", "| 0.5 |")) == rows
    with pytest.raises(KeyError, match="out_dim"):
        fields("byol", re.sub(r"\| `out_dim`.*\n", "", rows))


@pytest.mark.parametrize(("page", "more"), [("dino", 0), ("moco", 1)])
def test_logarithms_in_the_text_are_right(page: str, more: int) -> None:
    text = (ROOT / "docs" / "methods" / f"{page}.md").read_text()
    named = re.findall(r"(\d+\.\d{4}) for ([\d,]+\d)", text)
    assert len(named) >= 2
    for value, count in named:
        assert value == f"{math.log(int(count.replace(',', '')) + more):.4f}", count


def test_every_run_of_a_mistake_stands_in_a_page() -> None:
    from benchmarks.mistakes import RESULTS, RUNS

    pages = "".join(page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md"))
    shown = {
        run for runs in re.findall(r"^<!-- log: (.+) -->$", pages, flags=re.M) for run in runs.split(" | ")
    }
    kept = json.loads(RESULTS.read_text())["runs"]
    assert shown == RUNS.keys() == kept.keys()
    for label, run in RUNS.items():
        of = {name: kept[label][name] for name in run.made_of()}
        assert of == run.made_of(), f"{label}: run python -m benchmarks.mistakes, then make docs"


# The rule itself


def test_blocks_are_saved_or_share_their_names() -> None:
    page = "```python\n# mine.py: a module\nA = 3\n```\n\n```python\nfrom mine import A\nB = A + 1\n```\n"
    assert run_page(page + "```python\nassert B == 4\n```\n\n```\nshown only\n```\n") == 3
    assert Path("mine.py").read_text() == "# mine.py: a module\nA = 3\n"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("```python\nassert 1 + 1 == 3, 'of the page'\n```\n", "of the page"),
        ("```bash\nssl-zoo list nothing\n```\n", "exit code 2 of ssl-zoo list nothing"),
        ("```bash\nssl-zoo bench --methods dinoo --dataset digits\n```\n", "exit code 2 of ssl-zoo bench"),
        ("```bash\nssl-zoo list methods\ncurl example.org\n```\n", "no rule for curl example.org"),
        ("1. First\n   ```bash\n   ssl-zoo list\n   ```\n", "a fence is indented"),
        ("```bash\nssl-zoo list\n", "not closed"),
    ],
)
def test_a_wrong_block_is_noticed(page: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        run_page(page)


def test_a_bench_is_shortened_and_otherwise_as_written() -> None:
    assert short(["--methods", "dino", "--budget", "epochs=3", "--seeds", "3"])[:4] == [
        *("--methods", "dino", "--seeds", "3")
    ]
    assert "epochs=3" not in short(["--budget", "epochs=3"])
    assert short(["--backbone", "vit_tiny"])[:2] == ["--backbone", "vit_tiny"]
    assert "resnet8" not in short(["--backbone", "vit_tiny"])
