"""Benches on a real Ray: the rows of one without it, whatever happens to cells and workers."""

import sys

import pytest
import ray
from made_command import run_here
from made_mortal import MORTAL_AT, RUN, STEPS, assert_bit_equal, small, spare_them, steps_taken
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
        patch.setenv("RAY_worker_niceness", "0")  # else they wait for the other tests
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
    labels = [{"method": "mortal", "label": end, "end": end} for end in ("killed", "orphaned")]
    fields = small(tmp_path, methods=labels, seeds=2)
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
    assert_bit_equal(tmp_path / "inline", out)


def test_an_interrupt_stops_the_cells_with_a_checkpoint(cluster, tmp_path, monkeypatch):
    logged = set()

    def follow(self, cell):
        def emit(event):
            if event["event"] == "log":
                logged.add(cell.folder)
            if len(logged) == 2:
                raise KeyboardInterrupt

        return emit

    monkeypatch.setattr(Progress, "follow", follow)
    monkeypatch.chdir(tmp_path)
    [command] = commands(ROOT / "docs" / "scaling.md", "ray")
    assert run_here(*command, "--set", "run.threads=1", "run.log_every=1") == 130
    cells = [*(tmp_path / "runs" / "ray" / "cells").iterdir()]
    assert len(cells) == 6
    assert logged == {"dino-seed0", "byol-seed0"}, "two run at once, the others wait"
    assert {cell.name for cell in cells if (cell / "log.txt").exists()} == logged
    assert {cell.name for cell in cells if (cell / "checkpoint.pt").exists()} == logged
    assert {row["status"] for row in Results.load(tmp_path / "runs" / "ray").rows} == {"stopped"}


def test_a_gpu_is_not_given_by_number(capsys):
    command = ["bench", "--methods", "byol", "--dataset", "digits", "--executor", "ray"]
    assert run_here(*command, "--device", "cuda:0") == 2
    assert "device=cuda:0: ray gives each cell its GPU; write cuda" in capsys.readouterr().err


def test_without_ray_the_extra_is_named_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ssl_zoo.bench.on_ray", raising=False)
    command = ["bench", "--methods", "byol", "--dataset", "digits", "--executor", "ray"]
    assert run_here(*command, "--out", tmp_path / "run") == 2
    assert "pip install 'ssl-zoo[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
