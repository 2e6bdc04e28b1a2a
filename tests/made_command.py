"""The command line as a user runs it: real processes, real files."""

import subprocess
import sys

import pytest

from ssl_zoo.bench.results import MEASURED
from ssl_zoo.cli import main

SMALL = ["--set", "backbone.width=8", "run.log_every=5", "run.threads=1", "--backbone", "resnet8"]
DIGITS = ["bench", "--dataset", "digits", "--batch-size", "64", *SMALL]
TIMED = set(MEASURED)


def command_line(*arguments):
    return [sys.executable, "-m", "ssl_zoo.cli", *map(str, arguments)]


def ssl_zoo_command(*arguments, **options):
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=1800, **options
    )  # only against a hang


def run_here(*arguments):
    """The exit code of a command that runs in this process, which saves importing torch anew."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def timeless(row):
    """A row without what differs from run to run."""
    return {k: v for k, v in row.items() if k not in TIMED and k != "final_metrics"}
