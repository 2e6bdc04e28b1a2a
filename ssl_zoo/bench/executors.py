"""How cells run: in a process each (`local`), or in this one for debugging (`inline`)."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ssl_zoo.bench.cells import Cell, Emit, identity, read_result
from ssl_zoo.files import write_text
from ssl_zoo.spare import fork

Executor = Callable[[Cell, Path, Emit], str]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def local(cell: Cell, folder: Path, emit: Emit) -> str:
    """Run the cell in a process of its own; its log goes to `log.txt`.

    Raises OSError when the disk is full: what is there is whole, and the cell goes on from its checkpoint.
    """
    with (folder / "log.txt").open("ab") as log:
        file = folder / "cell.json"
        process = fork(file, log) or _started(file, log, cell.threads)
        assert process.stdout is not None
        try:
            with process.stdout:
                status = _follow(process.stdout, emit)
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)  # it checkpoints after the current step and leaves
            try:
                process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGKILL)
            raise
    if status == "stopped":
        raise KeyboardInterrupt
    if status == "" and read_result(folder).get("status") == "done":
        return "done"  # it died after its last word was written, before it was said
    if status == "":  # it died without a word, such as by the out-of-memory killer
        error = f"the process of this cell ended by {_reason(code)}; see {folder / 'log.txt'}"
        status = "failed"
        write_text(folder / "result.json", json.dumps({**identity(cell), "status": status, "error": error}))
    return status


def _started(file: Path, log: IO[bytes], threads: int) -> subprocess.Popen[bytes]:
    """`ssl-zoo run-cell`, where no process can be forked."""
    command = [sys.executable, "-m", "ssl_zoo.cli", "run-cell", str(file), "--attached"]
    env = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env)


def _reason(code: int | None) -> str:
    if code is None:
        return "an unknown cause, and the process it was forked from with it"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _follow(lines: Any, emit: Emit) -> str:
    status = ""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a library's own words
        if event["event"] == "disk full":
            raise OSError(errno.ENOSPC, event["error"])
        emit(event)
        if event["event"] in ("finished", "stopped"):
            status = event.get("status", "stopped")
    return status


def inline(cell: Cell, folder: Path, emit: Emit) -> str:
    """Run the cell in this process."""
    from ssl_zoo.bench.runner import run_cell  # a bench whose cells have their own processes starts sooner

    return run_cell(folder, emit)


EXECUTORS: dict[str, Executor] = {"local": local, "inline": inline}
