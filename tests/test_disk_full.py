"""A full disk: a clear message, nothing half written, and the same command goes on."""

import os
import subprocess
import sys

import pytest
from made_command import DIGITS, run_here, timeless

from ssl_zoo.bench.results import Results


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 KiB in memory, and how to make it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", disk], check=False)

    if not sys.platform.startswith("linux") or os.geteuid() != 0 or mount("size=600k").returncode:
        pytest.skip("mounting a small file system needs root on Linux")
    yield disk, lambda: mount("remount", "size=200m")
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_and_the_bench_goes_on_once_there_is_space(small_disk, tmp_path, capsys):
    disk, enlarge = small_disk
    command = [*DIGITS, "--methods", "byol", "moco", "--budget", "steps=12"]
    assert run_here(*command, "--out", disk / "run") == 1
    said = capsys.readouterr().err
    assert "no space left to write" in said
    assert "make space and run the same command again" in said
    assert "Traceback" not in said
    assert not list(disk.rglob("*.tmp"))
    assert not list((disk / "run" / "cells").glob("*/result.json")) or Results.load(disk / "run").rows
    assert enlarge().returncode == 0

    ends = (disk / "run", tmp_path / "undisturbed")
    assert [run_here(*command, "--executor", "inline", "--out", out) for out in ends] == [0, 0]
    rows = [list(map(timeless, Results.load(out).rows)) for out in ends]
    assert rows[0] == rows[1]
