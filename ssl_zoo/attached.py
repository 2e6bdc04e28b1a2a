"""A cell's process that starts by itself, `ssl-zoo run-cell`, and what holds one on another machine.

Nothing here imports torch: that is up to the process of the cell.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ssl_zoo.spare import Forked, fork, spare

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STARTING = json.dumps({"event": "starting"})


def start(
    file: Path, log: IO[bytes], threads: int, stdout: int | None = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """The process of the cell in `file`, a cell.json; it leaves with a checkpoint when its parent is gone."""
    command = [sys.executable, "-m", "ssl_zoo.cli", "run-cell", str(file), "--attached"]
    env = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    return subprocess.Popen(command, stdout=stdout, stderr=log, env=env)


class RayWorker:
    """What a Ray actor does: it runs the processes of cells, one after the other, and stops one when told."""

    def __init__(self, threads: int) -> None:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))  # Ray has set them for itself
        self._spare = spare()
        self._spare.__enter__()  # ends with this process
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._stopped = False

    def run(self, file: str, threads: int) -> Iterator[bytes | int | None]:
        """What the process of a cell says, line by line, and at last its exit code."""
        yield STARTING.encode()
        with Path(file).with_name("log.txt").open("ab") as log:
            self._process = fork(Path(file), log) or start(Path(file), log, threads)
        if self._stopped:  # meanwhile
            self.stop()
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            yield from (line for line in lines)  # a generator, as Ray sends to what it iterates
        yield self._process.wait()

    def stop(self) -> None:
        """End the training after the current step, with a checkpoint."""
        self._stopped = True
        if self._process:
            self._process.send_signal(signal.SIGTERM)


class SlurmJob:
    """What a SLURM job does: it runs the process of a cell, whose words go to the job's own stdout."""

    _process: subprocess.Popen[bytes] | None = None

    def __call__(self, file: str, threads: int) -> int:
        """The exit code of the process."""
        print(STARTING, flush=True)
        with Path(file).with_name("log.txt").open("ab") as log:
            self._process = start(Path(file), log, threads, stdout=None)
        return self._process.wait()

    def checkpoint(self, file: str, threads: int) -> "DelayedSubmission":
        """Stop the process and return the job to requeue; submitit calls it when SLURM is about to end it."""
        from submitit.core.utils import DelayedSubmission

        if self._process:
            self._process.terminate()
            with suppress(ChildProcessError):  # has been waited for
                # this runs in the handler of a signal, on top of wait(), whose lock it cannot have
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(SlurmJob(), file, threads)
