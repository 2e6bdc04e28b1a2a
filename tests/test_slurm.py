"""Benches of SLURM jobs, on submitit's own cluster of this machine; what is asked of a real one is read."""

import sys
from types import SimpleNamespace

from made_command import run_here
from made_mortal import MORTAL_AT, RUN, STEPS, assert_bit_equal, small, spare_them, steps_taken

import ssl_zoo
from ssl_zoo.bench.on_slurm import create_jobs
from ssl_zoo.bench.run_config import RunConfig

COMMAND = ["bench", "--methods", "byol", "--dataset", "digits", "--executor", "slurm"]


def test_a_preempted_job_is_requeued_and_goes_on_to_the_rows_of_a_bench_without_jobs(tmp_path):
    out, whole = tmp_path / "slurm", [*range(STEPS)]
    run = {**RUN, "executor": "slurm", "slurm": {"cluster": "local"}}
    results = ssl_zoo.bench(**small(tmp_path), run=run, out=out, quiet=True)
    assert [row["status"] for row in results.rows] == ["done", "done"]
    # the step in which the signal came is ended, and taken once
    assert steps_taken(tmp_path, "requeued") == [whole[: MORTAL_AT + 1], whole[MORTAL_AT + 1 :]]
    said = "".join(log.read_text() for log in (out / "slurm").glob("*_log.out"))
    assert said.count("this job is preempted") == said.count("Requeued job") == 1

    spare_them(tmp_path)
    ssl_zoo.bench(**small(tmp_path), run={**RUN, "executor": "inline"}, out=tmp_path / "inline", quiet=True)
    assert_bit_equal(tmp_path / "inline", out)


def test_what_a_job_asks_for(tmp_path, monkeypatch):
    (tmp_path / "srun").touch(mode=0o755)  # as submitit looks for it
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    cell = SimpleNamespace(device="cuda", threads=6, num_devices=4, num_nodes=2)
    slurm = {"partition": "gpu", "minutes": 90, "parameters": {"account": "vision", "mem": "16GB"}}
    jobs = create_jobs(tmp_path, RunConfig(executor="slurm", slurm=slurm), cell)
    script = jobs._executor._make_submission_file_text("COMMAND", "0").splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert asked >= {
        *("partition=gpu", "time=90", "cpus-per-task=24", "gpus-per-node=4", "nodes=2"),
        *("account=vision", "mem=16GB", "signal=USR2@90", "open-mode=append"),
    }
    assert any(line.startswith("srun ") and "--cpus-per-task=24 COMMAND" in line for line in script)


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
