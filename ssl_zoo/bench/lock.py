"""One writer a folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ssl_zoo.files import sweep, write_text

LOCK, _HOLDER = ".lock", ".lock.json"
FILES = (LOCK, _HOLDER)


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if it is not there; the system lets go of it when this process dies, however.

    Raises ValueError that says which process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = _holder(folder)
        raise ValueError(
            f"{folder} is being written by {who}; wait for it to end, stop it, or give another --out"
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        sweep(folder)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        write_text(folder / _HOLDER, json.dumps(holder))
        yield
    finally:
        (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / _HOLDER).read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):  # it holds the folder, and has not said so yet
        return "another process"
