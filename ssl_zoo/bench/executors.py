"""How cells run: in a process each (`local`), or in this one for debugging (`inline`)."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_zoo.bench.cells import Cell, read_result
from ssl_zoo.bench.runner import Emit, identity, run_cell
from ssl_zoo.files import write_text

Executor = Callable[[Cell, Path, Emit], str]


def local(cell: Cell, folder: Path, emit: Emit) -> str:
    """Run the cell by `ssl-zoo run-cell` in a process of its own; its log goes to `log.txt`.

    Raises OSError when the disk is full: what is there is whole, and the cell goes on from its checkpoint.
    """
    command = [sys.executable, "-m", "ssl_zoo.cli", "run-cell", str(folder / "cell.json"), "--attached"]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(cell.threads))
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **threads})
        assert process.stdout is not None
        try:
            status = _follow(process.stdout, emit)
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)  # it checkpoints after the current step and leaves
            try:
                process.wait()
            except KeyboardInterrupt:
                process.kill()
            raise
    if status == "stopped":
        raise KeyboardInterrupt
    if status == "" and read_result(folder).get("status") == "done":
        return "done"  # it died after its last word was written, before it was said
    if status == "":  # it died without a word, such as by the out-of-memory killer
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        error = f"the process of this cell ended by {reason}; see {folder / 'log.txt'}"
        status = "failed"
        write_text(folder / "result.json", json.dumps({**identity(cell), "status": status, "error": error}))
    return status


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
    return run_cell(folder, emit)


EXECUTORS: dict[str, Executor] = {"local": local, "inline": inline}
