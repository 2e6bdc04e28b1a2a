"""The spare process: it imports what cells need while a bench is planned, and each is forked from it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_CAN_FORK = sys.platform.startswith("linux")  # Windows has no fork, and macOS's own libraries break in one
_MESSAGE = 64  # bytes; a word and a number


class Forked:
    """The process of a cell, with those of Popen's names that its bench uses."""

    def __init__(self, pid: int, stdout: IO[bytes], connection: socket.socket) -> None:
        self.pid = pid
        self.stdout = stdout
        self._connection = connection

    def wait(self) -> int | None:
        """Its exit code once it has ended, negative for a signal; None if the spare has died, which knew."""
        with suppress(ConnectionError):
            if words := self._connection.recv(_MESSAGE).split():
                return int(words[1])
        return None

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class _Spare:
    def __init__(self) -> None:
        self._ready = False
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ssl_zoo.bench.process", str(theirs.fileno())],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # threads that a library starts as it is loaded do not survive a fork
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )

    def wait_until_ready(self) -> None:
        if not self._ready:
            self._ready = bool(self._connection.recv(_MESSAGE))

    def fork(self, cell: Path, log: IO[bytes]) -> Forked:
        """Raises ConnectionError if that cannot be done any more."""
        self.wait_until_ready()
        reading, writing = os.pipe()
        stdout = os.fdopen(reading, "rb")
        try:
            socket.send_fds(self._connection, [os.fsencode(cell)], [writing, log.fileno()])
            words = self._connection.recv(_MESSAGE).split()
            if words[:1] != [b"pid"]:
                raise ConnectionError("the spare process, or what was forked from it, is dead")
        except BaseException:
            stdout.close()
            raise
        finally:
            os.close(writing)
        return Forked(int(words[1]), stdout, self._connection)

    def stop(self) -> None:
        self._connection.close()  # a cell that still runs leaves after its step
        self._process.kill()
        self._process.wait()


_kept: list[_Spare] = []  # at most one


@contextmanager
def spare(wanted: bool = True) -> Iterator[None]:
    """Within, cells can be forked from a process that begins to get ready now; an outer one is shared."""
    ranked = "LOCAL_RANK" in os.environ  # by torchrun, on whose ranks cells run
    if not wanted or not _CAN_FORK or _kept or ranked:
        yield
        return
    _kept.append(_Spare())
    try:
        yield
    finally:
        _kept.pop().stop()


def wait_until_ready() -> None:
    """Return once the spare, if there is one, takes no time from what is measured here."""
    for kept in _kept:
        with suppress(ConnectionError):  # it is replaced when a cell needs it
            kept.wait_until_ready()


def fork(cell: Path, log: IO[bytes]) -> Forked | None:
    """A process of its own for `cell`, a cell.json, its stderr in `log`; None if none can be had now.

    A spare that has died is replaced, for the cells to come.
    """
    if not _kept:
        return None
    try:
        return _kept[0].fork(cell, log)
    except ConnectionError:
        _kept.pop().stop()
        _kept.append(_Spare())
        return None
