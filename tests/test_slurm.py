"""Benches of SLURM jobs, on submitit's own cluster of this machine; what is asked of a real one is read."""

import sys

import pytest
from made_command import run_here
from made_mortal import MORTAL_AT, RUN, STEPS, assert_bit_equal, small, spare_them, steps_taken

import ssl_zoo
from ssl_zoo.bench.cells import read_plan
from ssl_zoo.bench.on_slurm import create_jobs
from ssl_zoo.bench.run_config import RunConfig

COMMAND = ["bench", "--methods", "byol", "--dataset", "digits", "--executor", "slurm"]


@pytest.fixture(scope="module")
def requeued(tmp_path_factory):
    """The folder of a bench whose job is told once, in the middle, that its place is needed."""
    folder = tmp_path_factory.mktemp("jobs")
    run = {**RUN, "executor": "slurm", "slurm": {"cluster": "local"}}
    results = ssl_zoo.bench(**small(folder), run=run, out=folder / "slurm", quiet=True)
    assert [row["status"] for row in results.rows] == ["done", "done"]
    return folder


def test_a_job_that_is_preempted_is_requeued_and_goes_on_from_the_checkpoint(requeued):
    # the step in which the signal came is ended, and taken once
    whole = [*range(STEPS)]
    assert steps_taken(requeued, "requeued") == [whole[: MORTAL_AT + 1], whole[MORTAL_AT + 1 :]]
    said = "".join(log.read_text() for log in (requeued / "slurm" / "slurm").glob("*_log.out"))
    assert said.count("this job is preempted") == said.count("Requeued job") == 1


def test_the_rows_are_those_of_a_bench_without_jobs(requeued):
    spare_them(requeued)
    run = {**RUN, "executor": "inline"}
    ssl_zoo.bench(**small(requeued), run=run, out=requeued / "inline", quiet=True)
    assert_bit_equal(requeued / "inline", requeued / "slurm")


def test_what_a_job_asks_for(requeued, tmp_path, monkeypatch):
    (tmp_path / "srun").touch(mode=0o755)  # as submitit looks for it
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    cell = read_plan(requeued / "slurm")[0].model_copy(update={"device": "cuda", "threads": 6})
    slurm = {"partition": "gpu", "minutes": 90, "parameters": {"account": "vision", "mem": "16GB"}}
    jobs = create_jobs(tmp_path, RunConfig(executor="slurm", slurm=slurm), cell)
    script = jobs._executor._make_submission_file_text("COMMAND", "0").splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert asked >= {
        *("partition=gpu", "time=90", "cpus-per-task=6", "gpus-per-node=1"),
        *("account=vision", "mem=16GB", "signal=USR2@90", "open-mode=append"),
    }
    assert any(line.startswith("srun ") and "--cpus-per-task=6 COMMAND" in line for line in script)


def test_without_sbatch_or_submitit_the_way_out_is_named_and_nothing_is_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_here(*COMMAND, "--out", tmp_path / "run") == 2
    assert "no sbatch here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "ssl_zoo.bench.on_slurm")
    assert run_here(*COMMAND, "--out", tmp_path / "run") == 2
    assert "pip install 'ssl-zoo[slurm]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
