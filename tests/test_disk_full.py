"""A full disk: a clear message, nothing half written, and the same command goes on."""

import os
import subprocess
import sys

import pytest
from made_command import DIGITS, run_here, ssl_zoo_command, timeless

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


def test_a_full_disk_is_said_and_the_bench_goes_on_once_there_is_space(small_disk, tmp_path):
    disk, enlarge = small_disk
    command = [*DIGITS, "--methods", "byol", "moco", "--budget", "steps=12"]
    full = ssl_zoo_command(*command, "--out", disk / "run")
    assert full.returncode == 1
    assert "no space left to write" in full.stderr
    assert "make space and run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(disk.rglob("*.tmp"))
    assert not list((disk / "run" / "cells").glob("*/result.json")) or Results.load(disk / "run").rows
    assert enlarge().returncode == 0

    again = ssl_zoo_command(*command, "--out", disk / "run")
    assert again.returncode == 0, again.stderr
    assert run_here(*command, "--executor", "inline", "--out", tmp_path / "undisturbed") == 0
    rows = [
        list(map(timeless, Results.load(folder).rows)) for folder in (disk / "run", tmp_path / "undisturbed")
    ]
    assert rows[0] == rows[1]
