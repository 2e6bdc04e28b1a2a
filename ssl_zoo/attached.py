"""A cell's process that starts by itself, `ssl-zoo run-cell`, and what holds one on another machine.

Nothing here imports torch: that is up to the process of the cell.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ssl_zoo.spare import Forked, fork, spare

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STARTING = json.dumps({"event": "starting"})


def start(
    file: Path,
    log: IO[bytes],
    threads: int,
    launcher: Sequence[str] = (),
    stdout: int | None = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """The process of the cell in `file`, a cell.json, or a `launcher` of several that share its training.

    They leave with a checkpoint when the process that started them is gone, and their stdin with it.
    """
    command = [sys.executable, *launcher, "-m", "ssl_zoo.cli", "run-cell", str(file), "--attached"]
    env = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=log, env=env)


def torchrun(ranks: int, *where: str) -> Sequence[str]:
    """What launches so many ranks on this machine, of others `where` they are; nothing for one by itself."""
    if ranks == 1 and not where:
        return ()
    return ("-m", "torch.distributed.run", *(where or ["--standalone"]), "--nproc-per-node", str(ranks))


def left() -> bool:
    """Whether the process that started this one is gone."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


class RayWorker:
    """What a Ray actor does: it runs the processes of cells, one after the other, and stops one when told."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        os.environ.update(dict.fromkeys(THREADS, str(threads)))  # Ray has set them for itself
        self._spare = spare()
        self._spare.__enter__()  # ends with this process
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._stopped = False

    def run(self, file: str, ranks: int) -> Iterator[bytes | int | None]:
        """What the process of a cell says, line by line, and at last its exit code."""
        yield STARTING.encode()
        with Path(file).with_name("log.txt").open("ab") as log:
            forked = fork(Path(file), log) if ranks == 1 else None
            self._process = forked or start(Path(file), log, self._threads, torchrun(ranks))
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

    def __call__(self, file: str, threads: int, ranks: int, nodes: int) -> int:
        """The exit code of the process; on each of several machines there is one."""
        where = _machines(nodes) if nodes > 1 else ()
        print(STARTING, flush=True)
        with Path(file).with_name("log.txt").open("ab") as log:
            self._process = start(Path(file), log, threads, torchrun(ranks, *where), stdout=None)
        return self._process.wait()

    def checkpoint(self, file: str, threads: int, ranks: int, nodes: int) -> "DelayedSubmission":
        """Stop the process and return the job to requeue; submitit calls it when SLURM is about to end it."""
        from submitit.core.utils import DelayedSubmission

        if self._process:
            self._process.terminate()
            with suppress(ChildProcessError):  # has been waited for
                # this runs in the handler of a signal, on top of wait(), whose lock it cannot have
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(SlurmJob(), file, threads, ranks, nodes)


def _machines(nodes: int) -> Sequence[str]:
    """How torchrun on this machine of a job finds that on the first."""
    from submitit.helpers import TorchDistributedEnvironment

    job = TorchDistributedEnvironment()
    first = ("--master-addr", str(job.master_addr), "--master-port", str(job.master_port))
    return ("--nnodes", str(nodes), "--node-rank", str(job.rank), *first)
