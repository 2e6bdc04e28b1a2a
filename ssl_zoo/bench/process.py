"""The process of a cell: its signals, threads and words on stdout; and the spare that it is forked from."""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ssl_zoo.attached import THREADS
from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.runner import run_cell
from ssl_zoo.evaluation.search import has_faiss, load_faiss

# what cells import as they go along
_LATER = (
    "pytorch_metric_learning.utils.accuracy_calculator",
    "sklearn.datasets",
    "sklearn.linear_model",
)
_LONGEST = 65536  # bytes of a path


def run_alone(file: Path, gone: Callable[[], bool] = lambda: False) -> int:
    """Run the cell of `file`, a cell.json, in this process, which is its own; returns the exit code.

    Progress is JSON lines on stdout. SIGTERM, SLURM's SIGUSR2, Ctrl-C and `gone()` end the training after the
    current step, with a checkpoint; a second Ctrl-C ends it at once.
    """
    asked: list[int] = []

    def stop(received: int, _frame: object) -> None:
        if received == signal.SIGINT and received in asked:
            os._exit(130)  # asked twice: now
        asked.append(received)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, stop)
    _limit_threads(Cell.model_validate_json(file.read_text()).threads)

    def emit(event: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the bench is gone, which the training learns before its next step
            print(json.dumps(event), flush=True)

    status = run_cell(file.parent, emit, lambda: bool(asked) or gone())
    return {"done": 0, "collapsed": 0, "failed": 1, "stopped": 130}[status]


def _limit_threads(threads: int) -> None:
    """Of the libraries beside torch, which the runner sees to: those here now, and those imported later."""
    threadpool_limits(threads)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))


def _next_cell(bench: socket.socket) -> Path:
    """Fork a process for each cell that the bench names, one after the other; returns in these alone.

    No thread may run here: a fork copies but the one that calls it, and the locks that the others hold.
    """
    while True:
        name, files, *_ = socket.recv_fds(bench, _LONGEST, 2)
        if not name:
            os._exit(0)  # the bench has ended; taking Python down would take seconds
        pid = os.fork()
        if pid == 0:
            for file, place in zip(files, (sys.stdout, sys.stderr), strict=True):
                os.dup2(file, place.fileno())
                os.close(file)
            bench.send(f"pid {os.getpid()}".encode())  # not by the spare, which may be dead by now
            return Path(os.fsdecode(name))
        for file in files:
            os.close(file)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(BrokenPipeError):
            bench.send(f"code {code}".encode())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, meant for the bench and the cell
    bench = socket.socket(fileno=int(sys.argv[1]))
    if has_faiss():
        load_faiss()
    for module in _LATER:
        import_module(module)
    bench.send(b"ready")
    cell = _next_cell(bench)
    # the bench says nothing while a cell runs, so what can be read then is its end
    sys.exit(run_alone(cell, gone=lambda: bool(select.select([bench], [], [], 0)[0])))
