"""What a person sees while a cell runs."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from ssl_zoo.bench.config import load
from ssl_zoo.bench.plan import plan
from ssl_zoo.bench.progress import Progress


def test_a_collapse_is_one_line() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    progress = Progress(console=console)
    with progress:
        emit = progress.follow(SimpleNamespace(folder="dino-seed0"))
        emit({"event": "training", "total": 80})
        emit({"event": "collapse", "step": 60, "words": "uniform collapse: lower it"})
        emit({"event": "finished", "status": "collapsed"})
    shown = console.file.getvalue()
    assert shown.count("dino-seed0         step 60: uniform collapse: lower it") == 1


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"status": "done", "lr": 0.002}, "dino-seed0         k-NN 50.0%  9 s training, lr 0.002"),
        ({"status": "done", "lr": None}, "dino-seed0         k-NN 50.0%  9 s training"),
        (
            {"status": "done", "lr": None, "knn_top1": None},
            "dino-seed0         no labels  9 s training",
        ),
        (
            {"status": "collapsed", "lr": 1.0},
            "dino-seed0         collapsed at step 62, k-NN 50.0%  9 s training, lr 1",
        ),
    ],
)
def test_a_finished_cell_says_its_score_and_learning_rate(row, line) -> None:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    result = {"knn_top1": 0.5, "train_seconds": 9.0, "steps": 62, **row}
    Progress(console=console).finished(SimpleNamespace(folder="dino-seed0"), row["status"], result)
    assert console.file.getvalue() == line + "\n"


@pytest.mark.parametrize("say", ["finished", "restarting"])
def test_an_error_is_shown_as_it_is_written(say) -> None:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    cell, error = SimpleNamespace(folder="dino-seed0"), "[/usr/lib/gloo/pair.cc:545] closed by [127.0.0.1]"
    given = ("failed", {"error": error}) if say == "finished" else (error,)
    getattr(Progress(console=console), say)(cell, *given)
    assert error in console.file.getvalue()


def test_a_finished_trial_says_how_it_did_on_the_selection() -> None:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    result = {"final_metrics": {"curve_knn_top1": 0.25}, "train_seconds": 9.0, "steps": 62, "lr": 0.002}
    Progress(console=console).finished(SimpleNamespace(folder="dino-trial01-seed9"), "done", result)
    assert console.file.getvalue() == "dino-trial01-seed9 selection k-NN 25.0%  9 s training, lr 0.002\n"


def test_bar_shows_throughput_loss_and_the_methods_own_metrics():
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    progress = Progress(console=console)
    logged = {"step": 40, "images_seen": 5120, "loss": 7.25, "lr": 0.001, "seconds": 4.0}
    metrics = {"teacher_entropy": 6.125, "kl": 1.125, "center_norm": 9.0}
    with progress:
        emit = progress.follow(SimpleNamespace(folder="dino-seed0"))
        emit({"event": "training", "total": 80})
        emit({"event": "log", **logged, **metrics, "images_per_second": 1234.5})
        progress.bars.refresh()
        shown = console.file.getvalue()
        emit({"event": "finished", "status": "done"})
    assert "50%" in shown
    assert "1,234 images/s  loss 7.25  teacher_entropy 6.12  kl 1.12" in shown
    assert "center_norm" not in shown
    assert not progress.bars.tasks


@pytest.mark.parametrize(("compiled", "words"), [(True, " (measured without run.compile)"), (False, "")])
def test_minutes_of_eager_steps_say_so_where_backbones_are_compiled(compiled, words) -> None:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    backbone, run = {"name": "resnet8", "width": 8}, {"compile": compiled, "threads": 1}
    fields = {"methods": ["byol"], "dataset": "digits", "budget": {"steps": 2}, "backbone": backbone}
    planned = plan(load(fields={**fields, "run": run}))
    cost = {"minutes": 1.0, "bytes": 2e6, "long_minutes": 10.0}
    Progress(console=console).planned(planned, Path("runs/x"), cost)
    assert f"about 1.0 minutes of training{words}, 2 MB, in runs/x\n" in console.file.getvalue()
