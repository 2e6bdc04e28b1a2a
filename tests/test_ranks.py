"""1 x 128 = 2 x 64 = 4 x 32: real processes over gloo compute what one does."""

import copy
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_command import timeless
from torch import nn

from benchmarks.harm.kills import children
from ssl_zoo.attached import torchrun
from ssl_zoo.batch_norm import join_batch_norms
from ssl_zoo.bench.cells import read_result, write_plan
from ssl_zoo.bench.config import load
from ssl_zoo.bench.devices import shared_by
from ssl_zoo.bench.executors import local
from ssl_zoo.bench.plan import plan
from ssl_zoo.data.sampler import Sampler
from tests import made_ranks
from tests.made_ranks import STEPS, TRAININGS, made, trained

_ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def alone():
    return made_ranks.everything()


@pytest.fixture(
    scope="module",
    params=[(2, 1, list(TRAININGS)), (1, 4, ["dino", "dino-vit", "moco-3"])],
    ids=["2 machines", "4 ranks"],
)
def folder(request, tmp_path_factory):
    """What ranks have written, on so many machines, which are all this one, and so many on each."""
    machines, here, names = request.param
    out = tmp_path_factory.mktemp("ranks")
    launched = []
    for machine in range(machines):
        place = ["--node-rank", machine, "--master-addr", "127.0.0.1", "--master-port", 29_517]
        launcher = torchrun(here, *(["--nnodes", machines, *place] if machines > 1 else []))
        command = [sys.executable, *launcher, "-m", "tests.made_ranks", out, *names]
        launched.append(subprocess.Popen(list(map(str, command)), cwd=_ROOT))
    assert [process.wait() for process in launched] == [0] * machines
    return out


@pytest.fixture(scope="module")
def shared(folder):
    """What each rank ended with, the first one first."""
    return [torch.load(file, weights_only=True) for file in sorted(folder.glob("rank*.pt"))]


def assert_same(mine, theirs, tolerance=1e-7):
    """States or gradients agree, up to rounding in the order of sums.

    Networks are float64 and losses float32: a sum in another order may round what goes into a loss to the
    next float32.
    """
    assert mine.keys() == theirs.keys()
    largest = max(value.abs().max().item() for value in mine.values())
    for key, value in mine.items():
        difference = (value.double() - theirs[key].double()).abs().max().item()
        assert difference <= tolerance * largest, key


def test_each_method_is_trained():
    ours = {file.parent.name for file in (_ROOT / "ssl_zoo" / "methods").glob("*/method.py")}
    assert {method for method, *_ in TRAININGS.values()} == {*ours, "simclr"}


def test_ranks_compute_what_one_process_does(alone, shared):
    for name, first in shared[0]["trainings"].items():
        one = alone["trainings"][name]
        assert len(one["logged"]) == STEPS
        for mine, theirs in zip(one["logged"], first["logged"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6), name
        assert_same(one["gradients"], first["gradients"])
        assert_same(one["state"], first["state"])


def test_ranks_end_with_equal_states(shared):
    first, *others = (rank["trainings"] for rank in shared)
    assert others
    for other in others:
        assert other.keys() == first.keys()
        for name, training in first.items():
            assert_same(training["state"], other[name]["state"], tolerance=0)


def test_ranks_extract_the_features_of_one_process_bit_for_bit(alone, shared):
    assert torch.equal(shared[0]["features"], alone["features"])


def test_one_process_goes_on_with_what_ranks_began(alone, folder, tmp_path):
    out = tmp_path / "stopped"
    shutil.copytree(folder / "stopped", out)
    resumed = trained(made("moco"), out=out)
    assert resumed["logged"][0]["step"] == 3
    assert_same(alone["trainings"]["moco"]["state"], resumed["state"])


def test_accumulating_equals_the_large_batch_where_images_do_not_meet(alone, caplog):
    once = trained(made("dino-vit"), accumulate=4)
    assert_same(alone["trainings"]["dino-vit"]["gradients"], once["gradients"])
    assert_same(alone["trainings"]["dino-vit"]["state"], once["state"])
    assert not caplog.records


def test_accumulating_says_that_batch_norm_sees_less(alone, caplog):
    trained(made("byol"), accumulate=4)
    assert "accumulate=4: the first loss of byol" in caplog.text


def test_a_cell_of_which_a_rank_died_says_so_and_goes_on(tmp_path):
    run = {"num_devices": 2, "threads": 1, "checkpoint_seconds": 0, "log_every": 5}
    fields = {"methods": ["byol"], "dataset": "digits", "batch_size": 64, "budget": {"steps": 20}, "run": run}
    backbone = {"name": "resnet8", "width": 8}
    planned = plan(load(fields={**fields, "backbone": backbone})).cells
    cell = next(cell for cell in planned if cell.method)
    for name in ("disturbed", "undisturbed"):
        write_plan(tmp_path / name, [cell])
    disturbed, undisturbed = (
        tmp_path / name / "cells" / "byol-seed0" for name in ("disturbed", "undisturbed")
    )

    def kill(event):
        if event["event"] == "log" and event["step"] == 10:
            os.kill(_process_of_rank(1), signal.SIGKILL)

    assert local(cell, disturbed, kill) == "failed"
    error = read_result(disturbed)["error"]
    assert "another rank is gone" in error or "ended by exit code 1" in error
    went_on = []
    assert [local(cell, folder, went_on.append) for folder in (disturbed, undisturbed)] == ["done", "done"]
    assert went_on[2]["step"] > 5  # after what said that it starts and trains
    assert timeless(read_result(disturbed)) == timeless(read_result(undisturbed))


def _process_of_rank(rank):
    """The process that torchrun, which this one started, gave this rank."""
    ranked = (pid for launcher in children(os.getpid()) for pid in children(launcher))
    variable = f"RANK={rank}".encode()
    return next(pid for pid in ranked if variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def test_batch_norms_are_joined_in_place_and_once():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(16))
    names, x = [*network.state_dict()], torch.randn(8, 3, 4, 4)
    before = copy.deepcopy(network)(x)
    for _ in range(2):
        join_batch_norms(network, torch.device("cpu"))
    assert [type(network[1]).__name__, type(network[3]).__name__] == [
        "BatchNorm2dAcrossRanks",
        "BatchNorm1dAcrossRanks",
    ]
    assert [*network.state_dict()] == names
    assert torch.equal(network(x), before)  # of a process by itself


def test_the_batch_norm_of_gpus_is_torchs_own_for_a_process_by_itself():
    network, x = nn.Sequential(nn.BatchNorm2d(4)), torch.randn(8, 4, 3, 3)
    before = copy.deepcopy(network)(x)
    join_batch_norms(network, torch.device("cuda"))
    assert isinstance(network[0], nn.SyncBatchNorm)
    assert torch.equal(network(x), before)


def test_a_batch_norm_that_cannot_be_joined_is_refused():
    with pytest.raises(ValueError, match="BatchNorm3d normalises each rank's part"):
        join_batch_norms(nn.Sequential(nn.BatchNorm3d(4)), torch.device("cpu"))


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match="batch_size=10 for 4 ranks; give a multiple of 4"):
        Sampler(100, 10, 0, rank=0, ranks=4)
    sliced = torch.cat([Sampler(100, 12, 0, rank, 4).batch(9)[0] for rank in range(4)])
    assert torch.equal(sliced, Sampler(100, 12, 0).batch(9)[0])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"num_devices": 3}, "batch_size=64 on 3 devices with run.accumulate=1; give a multiple of 3"),
        ({"accumulate": 5}, "batch_size=64 on 1 devices with run.accumulate=5; give a multiple of 5"),
        ({"num_nodes": 2}, "run.num_nodes=2: give run.executor=slurm, or start torchrun on each machine"),
        ({"num_devices": 2, "executor": "inline"}, "run.num_devices=2 in one process"),
    ],
)
def test_devices_that_cannot_share_are_refused(run, message):
    config = load(fields={"methods": ["byol"], "dataset": "digits", "run": run})
    with pytest.raises(ValueError, match=message):
        shared_by(config, 64)


def test_seconds_are_not_measured_on_several_devices():
    fields = {"methods": ["byol"], "dataset": "digits", "run": {"num_devices": 2}, "budget": {"seconds": 9}}
    with pytest.raises(ValueError, match="a budget in seconds is measured on one device"):
        shared_by(load(fields=fields), 64)
