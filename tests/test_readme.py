"""README is rendered and run, not believed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.publish import README, render
from ssl_zoo.bench.config import import_plugin
from ssl_zoo.registry import method_class
from ssl_zoo.testing import check_method


def test_tables_are_rendered_from_the_results_files():
    text = README.read_text()
    assert text == render(text)


def test_library_block_runs_as_written(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"k-NN 0\.\d{3}, RankMe \d+\.\d\n", capsys.readouterr().out)


def test_own_loop_runs():
    done = subprocess.run([sys.executable, "examples/own_loop.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"22 steps, loss \d", done.stdout)


def test_the_one_file_method_keeps_the_contract():
    import_plugin("examples/simclr.py")
    assert len(check_method(method_class("simclr"))) >= 8


@pytest.mark.parametrize(
    "file", [README, *sorted(Path("docs").glob("*.md")), Path("CONTRIBUTING.md")], ids=str
)
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
        assert (file.parent / target).exists(), target
