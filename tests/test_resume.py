"""Killed, interrupted, started again: nothing is lost, and the numbers are the same."""

import json
import os
import signal
import subprocess
import time

from made_command import DIGITS, command_line, run_here, ssl_zoo_command, timeless

from ssl_zoo.bench.results import Results


def wait_for_lines(log, count, process):
    deadline = time.monotonic() + 1200  # only against a hang
    while not (log.exists() and len(log.read_text().splitlines()) >= count):
        assert process.poll() is None, "the bench ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def timeless_log(cell):
    records = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if "second" not in k} for record in records]


def test_killed_in_each_method_and_started_again_ends_with_the_same_numbers(tmp_path):
    command = [*DIGITS, "--methods", "dino", "moco", "--budget", "steps=40"]
    command += ["--set", "run.checkpoint_seconds=0"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_here(*command, "--executor", "inline", "--out", whole) == 0

    for method in ("dino", "moco"):
        process = subprocess.Popen(
            command_line(*command, "--out", killed), stdout=subprocess.DEVNULL, start_new_session=True
        )
        cell = killed / "cells" / f"{method}-seed0"
        wait_for_lines(cell / "metrics.jsonl", 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (cell / "result.json").exists()
    again = ssl_zoo_command(*command, "--out", killed)
    assert again.returncode == 0, again.stderr
    assert "dino-seed0         finished before, kept" in again.stdout

    rows = [list(map(timeless, Results.load(folder).rows)) for folder in (whole, killed)]
    assert rows[0] == rows[1]
    for method in ("dino", "moco"):
        cells = [folder / "cells" / f"{method}-seed0" for folder in (whole, killed)]
        first, second = ((cell / "encoder.safetensors").read_bytes() for cell in cells)
        assert first == second
        assert timeless_log(cells[0]) == timeless_log(cells[1])


def test_interrupt_leaves_a_checkpoint_and_130(tmp_path):
    command = [*DIGITS, "--methods", "byol", "--budget", "steps=3000", "--out", tmp_path / "run"]
    process = subprocess.Popen(command_line(*command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    cell = tmp_path / "run" / "cells" / "byol-seed0"
    wait_for_lines(cell / "metrics.jsonl", 1, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert (cell / "checkpoint.pt").exists()
    rows = Results.load(tmp_path / "run").rows
    assert [row["status"] for row in rows] == ["stopped", "stopped"]  # references run last
    assert b"the same command goes on" in err
