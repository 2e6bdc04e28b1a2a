"""Budgets in FLOPs and seconds: each method has its own steps, and what they cost is what was measured."""

import json
import sys

import pytest
import torch
from made_run import SMALL, command, small_bench, small_data
from torch.utils.flop_counter import FlopCounterMode

import ssl_zoo
from ssl_zoo.bench.budget import measure
from ssl_zoo.budget import Budget, StepCost
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.loading import views_of
from ssl_zoo.method import Step
from ssl_zoo.optim import create_optimizer
from ssl_zoo.train import train_step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp("data"))


def digits_method(name):
    torch.manual_seed(0)
    return ssl_zoo.create_method(name, ssl_zoo.create_backbone("resnet8", 16, width=8))


@pytest.mark.parametrize("name", ["dino", "byol", "moco"])
def test_flops_of_a_large_step_are_told_by_small_ones(name):
    split = ssl_zoo.create_dataset("digits").split("pretrain")
    method = digits_method(name)
    views = views_of(split, torch.arange(112), 0, MultiCropCollate(method.config.views), CPU)
    optimizer = create_optimizer(method.param_groups(), method.config.optim)
    with FlopCounterMode(display=False) as counter:
        train_step(method, method, optimizer, views, Step(0, 10))
    cost = measure(digits_method(name), split, CPU, "fp32", 112, threads=1)
    assert cost.step.flops == counter.get_total_flops() > 0
    assert cost.step.seconds > 0


def test_a_measured_budget_buys_whole_steps():
    cost = StepCost(flops=300, seconds=0.5)
    assert Budget(flops=1000).steps_for(images=50, batch_size=10, cost=cost) == 3
    assert Budget(seconds=10).steps_for(images=50, batch_size=10, cost=cost) == 20
    with pytest.raises(ValueError, match=r"a budget of 299 flops is less than one step, which costs 300"):
        Budget(flops=299).steps_for(images=50, batch_size=10, cost=cost)
    with pytest.raises(ValueError, match="needs the cost of a step, which `bench` measures"):
        Budget(seconds=10).steps_for(images=50, batch_size=10)


def test_equal_flops_give_each_method_its_own_steps(tmp_path, data_dir):
    results = small_bench(tmp_path / "run", data_dir, budget={"flops": 2e9})
    rows = {row["label"]: row for row in results.rows}
    cells = {cell["label"]: cell for cell in json.loads((tmp_path / "run/plan.json").read_text())["cells"]}
    steps = results.bench["steps"]
    assert steps["byol"] > steps["dino"] > 1
    assert set(steps) == {"byol", "dino"}
    for label in steps:
        one = cells[label]["step_flops"]
        assert rows[label]["steps"] == cells[label]["steps"] == steps[label]
        assert rows[label]["train_flops"] == one * steps[label] <= 2e9 < one * (steps[label] + 1)
        assert rows[label]["view_pixels_seen"] == steps[label] * 25 * 2 * 16**2
        assert 0 < rows[label]["data_seconds"] < rows[label]["train_seconds"]
    assert rows["random"]["steps"] == rows["random"]["train_flops"] == 0
    assert results.bench["budget"] == {"flops": 2e9}


def test_a_bench_that_goes_on_keeps_the_steps_that_its_seconds_bought(tmp_path, data_dir, monkeypatch):
    def at(seconds):
        def measured(method, split, device, precision, batch_size, *, threads, calibrate=False):
            cost = measure(method, split, device, precision, batch_size, threads=threads)
            return cost._replace(step=StepCost(cost.step.flops, seconds if calibrate else 1e9))

        monkeypatch.setattr(sys.modules["ssl_zoo.bench.plan"], "measure", measured)

    at(0.5)
    first = small_bench(tmp_path / "run", data_dir, budget={"seconds": 2}, methods=["byol"])
    assert {row["steps"] for row in first.rows} == {0, 4}
    at(0.1)  # the machine has become faster
    grown = small_bench(tmp_path / "run", data_dir, budget={"seconds": 2}, methods=["byol"], seeds=2)
    assert {row["seed"]: row["steps"] for row in grown.rows if row["method"]} == {0: 4, 1: 4}


def test_a_budget_below_one_step_is_refused_before_anything_is_written(tmp_path, data_dir, capsys):
    flags = ["bench", "--methods", "byol", "--dataset", "fashion-mnist", "--data-dir", data_dir, "--quiet"]
    flags += ["--backbone", "resnet8", "--set", f"backbone.width={SMALL['width']}"]
    assert command(*flags, "--budget", "flops=10", "--out", tmp_path / "run") == 2
    assert "less than one step" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_part_of_optim_keeps_the_rest_of_the_methods_own():
    config = ssl_zoo.create_method("dino", ssl_zoo.create_backbone("resnet8"), optim={"lr": 1e-3}).config
    assert (config.optim.lr, config.optim.clip, config.optim.weight_decay) == (1e-3, 3.0, 0.1)
