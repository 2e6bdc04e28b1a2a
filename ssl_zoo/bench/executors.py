"""How cells run: in a process each (`local`), in this one for debugging (`inline`), or on many machines."""

import errno
import json
import shutil
import signal
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from subprocess import Popen

from ssl_zoo import ranks
from ssl_zoo.attached import STARTING, start, torchrun
from ssl_zoo.bench.cells import FINISHED, Cell, Emit, identity, read_result
from ssl_zoo.bench.run_config import RunConfig
from ssl_zoo.files import write_text
from ssl_zoo.spare import fork

Follow = Callable[[Cell], Emit]
Ended = Generator[tuple[Cell, str], None, None]  # cells and their statuses, as they end
# takes cells until there are none; the one that calls it puts those back that are to run again. The path is
# that of the folder which holds theirs.
Executor = Callable[[deque[Cell], Path, Follow], Ended]


def create_executor(run: RunConfig) -> Executor:
    """The executor that `run` names.

    Raises ModuleNotFoundError without the extra that it needs, ValueError where there is no SLURM or torchrun
    has chosen the processes.
    """
    if ranks.launched() > 1:
        from ssl_zoo.bench.on_ranks import on_ranks

        if run.executor not in ("local", "inline"):
            raise ValueError(
                f"run.executor={run.executor} under torchrun, on whose ranks cells run; give one"
            )
        return on_ranks
    if run.executor == "ray":
        from ssl_zoo.bench.on_ray import on_ray

        return partial(on_ray, address=run.ray_address)
    if run.executor == "slurm":
        from ssl_zoo.bench.on_slurm import on_slurm

        if run.slurm.cluster == "slurm" and shutil.which("sbatch") is None:
            raise ValueError(
                "run.executor=slurm: no sbatch here; run the bench where jobs are submitted from"
            )
        return partial(on_slurm, run=run)
    return partial(_one_by_one, local if run.executor == "local" else inline)


def _one_by_one(
    run_one: Callable[[Cell, Path, Emit], str], todo: deque[Cell], cells: Path, follow: Follow
) -> Ended:
    while todo:
        cell = todo.popleft()
        yield cell, run_one(cell, cells / cell.folder, follow(cell))


class Attempt:
    """A try at a cell, as its bench hears of it; `status` is empty until the process says one."""

    def __init__(self, cell: Cell, folder: Path, emit: Emit) -> None:
        self.cell = cell
        self.status = ""
        self._folder = folder
        self._emit = emit

    def hear(self, line: bytes | str) -> None:
        """Take a line that the process of the cell has said; what is no event is a library's own word.

        Raises OSError when the disk is full.
        """
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            return
        if kind == "disk full":
            raise OSError(errno.ENOSPC, event["error"])
        self._emit(event)
        self.status = event.get("status", kind) if kind in ("finished", "stopped") else ""

    def end(self, how: str) -> str:
        """The status once the process has ended, for the reason `how`; failed, if it leaves no result."""
        if self.status not in ("", "stopped"):
            return self.status
        self._emit({"event": "lost"})
        written = str(read_result(self._folder).get("status"))
        if written in FINISHED:
            return written  # it died after its last word was written, before it was said
        error = f"the process of this cell ended by {how}; see {self._folder / 'log.txt'}"
        failed = {**identity(self.cell), "status": "failed", "error": error}
        write_text(self._folder / "result.json", json.dumps(failed))
        return "failed"


def local(cell: Cell, folder: Path, emit: Emit) -> str:
    """Run the cell in a process of its own; its log goes to `log.txt`.

    Raises OSError when the disk is full: what is there is whole, and the cell goes on from its checkpoint.
    """
    attempt = Attempt(cell, folder, emit)
    with (folder / "log.txt").open("ab") as log:
        file = folder / "cell.json"
        attempt.hear(STARTING)
        forked = fork(file, log) if cell.ranks == 1 else None
        process = forked or start(file, log, cell.threads, torchrun(cell.ranks))
        assert process.stdout is not None
        try:
            with process.stdout as lines:
                for line in lines:
                    attempt.hear(line)
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)  # it checkpoints after the current step and leaves
            try:
                process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGKILL)
            raise
        finally:
            if isinstance(process, Popen) and process.stdin:
                process.stdin.close()
    if attempt.status == "stopped":
        raise KeyboardInterrupt
    return attempt.end(reason(code))


def reason(code: int | None) -> str:
    """How a process ended, in words; None if that is not known."""
    if code is None:
        return "an unknown cause, and the process it was forked from with it"
    if code == 130:
        return "a signal that asked it to stop"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def inline(cell: Cell, folder: Path, emit: Emit) -> str:
    """Run the cell in this process."""
    from ssl_zoo.bench.runner import run_cell  # a bench whose cells have their own processes starts sooner

    return run_cell(folder, emit)
