"""Benches on a real Ray: the rows of one without it, whatever happens to cells and workers."""

import sys

import pytest
import ray
from made_command import run_here, timeless
from made_mortal import MORTAL_AT, RUN, SMALL, STEPS, assert_bit_equal, mortal_method, spare_them, steps_taken
from made_pages import ROOT, commands

import ssl_zoo
from ssl_zoo.bench import run_bench
from ssl_zoo.bench.config import load
from ssl_zoo.bench.progress import Progress
from ssl_zoo.bench.results import Results


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs, which all benches of this file share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


class Watching(Progress):
    """Notes what is heard of each cell, and whether its result was there by then."""

    def __init__(self, cells):
        super().__init__(quiet=True)
        self.cells = cells
        self.heard = []

    def follow(self, cell):
        def emit(event):
            there = (self.cells / cell.folder / "result.json").exists()
            self.heard.append((cell.folder, event["event"], event.get("step"), there))

        return emit


def test_a_bench_whose_cells_and_workers_are_killed_ends_with_the_rows_of_one_left_alone(cluster, tmp_path):
    fields = {
        **SMALL,
        "methods": [{"method": "mortal", "label": end, "end": end} for end in ("killed", "orphaned")],
        "seeds": 2,
        "plugins": [mortal_method(tmp_path)],
    }
    out = tmp_path / "ray"
    progress = Watching(out / "cells")
    config = load(fields={**fields, "run": {**RUN, "executor": "ray"}})
    rows = run_bench(config, out=out, progress=progress).rows
    assert [row["status"] for row in rows] == ["done"] * 6

    whole, rest = [*range(STEPS)], [*range(MORTAL_AT, STEPS)]
    before = whole[: MORTAL_AT + 1]
    assert steps_taken(tmp_path, "killed") == [before, whole, rest]  # the step it died in is taken again
    assert steps_taken(tmp_path, "orphaned") == [before, whole, rest[1:]]  # it ended the step, and left
    assert sum(kind == "lost" for _, kind, *_ in progress.heard) == 2
    first_steps = [there for _, kind, step, there in progress.heard if kind == "log" and step == 1]
    assert first_steps == [False] * 4, "what a cell says is heard while it runs"

    spare_them(tmp_path)
    ssl_zoo.bench(**fields, run={**RUN, "executor": "inline"}, out=tmp_path / "inline", quiet=True)
    assert_bit_equal(tmp_path / "inline", out, timeless)


def test_an_interrupt_stops_the_cells_with_a_checkpoint(cluster, tmp_path, monkeypatch):
    def follow(self, cell):
        def emit(event):
            if event["event"] == "log":
                raise KeyboardInterrupt

        return emit

    monkeypatch.setattr(Progress, "follow", follow)
    monkeypatch.chdir(tmp_path)
    [command] = commands(ROOT / "docs" / "scaling.md", "ray")
    assert run_here(*command, "--set", "run.threads=2") == 130  # one runs, the others wait
    cells = {path.name: path for path in (tmp_path / "runs" / "ray" / "cells").iterdir()}
    assert len(cells) == 6
    assert [name for name, cell in cells.items() if (cell / "checkpoint.pt").exists()] == ["dino-seed0"]
    assert [name for name, cell in cells.items() if (cell / "log.txt").exists()] == ["dino-seed0"]
    assert {row["status"] for row in Results.load(tmp_path / "runs" / "ray").rows} == {"stopped"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "run.ray_address=127.0.0.1:1"], "127.0.0.1:1"),
        (["--device", "cuda:0"], "ray gives each cell its GPU; write cuda"),
    ],
)
def test_what_cannot_be_is_refused(flags, words, tmp_path, capsys):
    command = ["bench", "--methods", "byol", "--dataset", "digits", "--executor", "ray", "--dry-run", *flags]
    assert run_here(*command, "--out", tmp_path / "run") == 2
    assert words in capsys.readouterr().err


def test_without_ray_the_extra_is_named_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ssl_zoo.bench.on_ray", raising=False)
    command = ["bench", "--methods", "byol", "--dataset", "digits", "--executor", "ray"]
    assert run_here(*command, "--out", tmp_path / "run") == 2
    assert "pip install 'ssl-zoo[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
