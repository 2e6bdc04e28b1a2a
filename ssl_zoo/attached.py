"""A cell's process that starts by itself, `ssl-zoo run-cell`, and what holds one on another machine.

Nothing here imports torch: that is up to the process of the cell.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STARTING = json.dumps({"event": "starting"})


def start(
    file: Path, log: IO[bytes], threads: int, num_devices: int, stdout: int | None = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """The process of the cell in `file`, a cell.json, or torchrun with one for each of `num_devices`.

    They leave with a checkpoint when the process that started them is gone, and their stdin with it.
    """
    module = ["-m", "ssl_zoo.cli", "run-cell", str(file), "--attached"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_devices)]
    command = [sys.executable, *(torchrun if num_devices > 1 else []), *module]
    env = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=log, env=env)


def left() -> bool:
    """Whether the process that started this one is gone."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


class RayWorker:
    """What a Ray actor does: it runs the process of a cell, and stops it when it is told."""

    def run(self, file: str, threads: int, num_devices: int) -> Iterator[bytes | int]:
        """What the process says, line by line, and at last its exit code."""
        with Path(file).with_name("log.txt").open("ab") as log:
            self._process = start(Path(file), log, threads, num_devices)
        yield STARTING.encode()
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:  # Ray sends to what it iterates, which a file does not take from `yield from`
                yield line
        yield self._process.wait()

    def stop(self) -> None:
        """End the training after the current step, with a checkpoint."""
        self._process.terminate()


class SlurmJob:
    """What a SLURM job does: it runs the process of a cell, whose words go to the job's own stdout."""

    _process: subprocess.Popen[bytes] | None = None

    def __call__(self, file: str, threads: int, num_devices: int) -> int:
        """The exit code of the process."""
        print(STARTING, flush=True)
        with Path(file).with_name("log.txt").open("ab") as log:
            self._process = start(Path(file), log, threads, num_devices, stdout=None)
        return self._process.wait()

    def checkpoint(self, file: str, threads: int, num_devices: int) -> "DelayedSubmission":
        """Stop the process and return the job to requeue; submitit calls it when SLURM is about to end it."""
        from submitit.core.utils import DelayedSubmission

        if self._process:
            self._process.terminate()
            with suppress(ChildProcessError):  # has been waited for
                # this runs in the handler of a signal, on top of wait(), whose lock it cannot have
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(SlurmJob(), file, threads, num_devices)
