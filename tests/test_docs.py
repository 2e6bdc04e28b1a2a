"""Every code block of our pages runs (the rule: made_pages.py), links lead somewhere, cli.md is fresh."""

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_pages import PAGES, ROOT, prepare, run_page, short


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
    run_page(page.read_text())


@pytest.mark.parametrize("page", [*PAGES, ROOT / "examples/plugin/README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_command_line_page_is_generated_from_the_command_line() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["render"]()
    assert (ROOT / "docs" / "cli.md").read_text() == generated, "run python docs/generate.py"


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
