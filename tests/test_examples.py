"""The examples run as they stand."""

import json
import re
import runpy
from pathlib import Path

import pytest

from ssl_zoo.bench.plugins import import_plugin
from ssl_zoo.registry import method_class
from ssl_zoo.testing import check_method

EXAMPLES = Path("examples").resolve()
NOTEBOOK = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize(("name", "steps"), [("custom_loop", 22), ("lightly_loader", 8)])
def test_loop_is_short_and_trains(name: str, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    file = EXAMPLES / f"{name}.py"
    assert len(file.read_text().splitlines()) < 60
    assert f"python examples/{name}.py" in file.read_text()
    left = runpy.run_path(str(file))
    assert re.fullmatch(rf"{steps} steps, loss \d\.\d{{3}}\n", capsys.readouterr().out)
    assert int(left["method"].loss.center.count_nonzero()) > 0  # moved by the last on_step_end


def test_lightly_views_are_sorted_by_size() -> None:
    views = runpy.run_path(str(EXAMPLES / "lightly_loader.py"))["views"]
    assert views.global_crops.shape == (2, 32, 3, 32, 32)
    assert views.local_crops.shape == (4, 32, 3, 16, 16)
    assert len(set(views.index.tolist())) == 32


def test_the_one_file_method_keeps_the_contract() -> None:
    import_plugin(str(EXAMPLES / "simclr.py"))
    assert len(check_method(method_class("simclr"))) >= 8


def test_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(CODE, 1):
        exec(compile("".join(cell["source"]), f"quickstart.ipynb, cell {number}", "exec"), names)
    results = names["results"]
    assert [row["status"] for row in results.rows] == ["done"] * 3
    assert results._repr_html_().count("<tr") == 4
    by_k = next(row for row in results.rows if row["label"] == "dino")["knn_by_k"]
    assert names["accuracy"] == pytest.approx(by_k["5"], abs=0.02)  # the table's vote is weighted
    assert re.search(r"5-NN accuracy \d+\.\d%\n", capsys.readouterr().out)


def test_notebook_is_committed_as_executed() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"display_data", "execute_result", "stream"}
    (table,) = [cell["outputs"][0] for cell in CODE if cell["source"] == ["results"]]
    assert "<table" in "".join(table["data"]["text/html"])
    assert "image/png" in outputs[-1]["data"]
