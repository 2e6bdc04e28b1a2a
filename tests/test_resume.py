"""Interrupted by hand: nothing is lost. What is killed and started again: test_faults.py."""

import signal
import subprocess
import time

import pytest
from made_command import DIGITS, command_line

from ssl_zoo.bench.results import Results


def wait_for_lines(log, count, process):
    deadline = time.monotonic() + 1200  # only against a hang
    while not (log.exists() and len(log.read_text().splitlines()) >= count):
        assert process.poll() is None, "the bench ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_a_checkpoint_and_130(tmp_path, asked):
    command = [*DIGITS, "--methods", "byol", "--budget", "steps=3000", "--out", tmp_path / "run"]
    process = subprocess.Popen(command_line(*command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    cell = tmp_path / "run" / "cells" / "byol-seed0"
    wait_for_lines(cell / "metrics.jsonl", 1, process)
    process.send_signal(asked)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert (cell / "checkpoint.pt").exists()
    rows = Results.load(tmp_path / "run").rows
    assert [row["status"] for row in rows] == ["stopped", "stopped"]  # references run last
    assert b"the same command goes on" in err
