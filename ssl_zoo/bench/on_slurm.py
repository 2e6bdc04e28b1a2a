"""Cells as jobs of a SLURM cluster, by submitit."""

import time
from collections import deque
from pathlib import Path
from typing import Any

from ssl_zoo.attached import SlurmJob
from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.executors import Attempt, Ended, Follow, reason
from ssl_zoo.bench.run_config import RunConfig

try:
    import submitit
    from submitit.core.utils import UncompletedJobError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("run.executor=slurm needs an extra: pip install 'ssl-zoo[slurm]'") from error

_PAUSE = 1.0  # seconds between two looks at what jobs have said


def on_slurm(todo: deque[Cell], cells: Path, follow: Follow, *, run: RunConfig) -> Ended:
    """Submit the cells as one array of jobs, whose files lie in `slurm`, beside the folder `cells`.

    All machines have to see both. A job whose time is up, or whose place another needs, is requeued and goes
    on from the checkpoint of its cell. Closed before the end, it cancels the jobs.
    """
    held: list[_Job] = []
    try:
        while todo or held:
            if todo:
                batch = [*todo]
                todo.clear()
                held += _submit(batch, cells.absolute(), follow, run)
            time.sleep(_PAUSE)
            for job in [*held]:
                if (how := job.listen()) is not None:
                    held.remove(job)
                    yield job.attempt.cell, job.attempt.end(how)
    finally:
        for job in held:
            job.handle.cancel(check=False)
        while not all(job.handle.done(force_check=True) for job in held):
            time.sleep(_PAUSE)


def create_jobs(folder: Path, run: RunConfig, cell: Cell) -> submitit.AutoExecutor:
    """What submits jobs that each run one cell, such as `cell`; their files go to `folder`."""
    slurm = run.slurm
    jobs = submitit.AutoExecutor(
        folder, slurm.cluster, slurm_max_num_timeout=run.restarts, local_max_num_timeout=run.restarts
    )
    jobs.update_parameters(
        name="ssl-zoo",
        timeout_min=slurm.minutes,
        nodes=cell.num_nodes,
        cpus_per_task=cell.threads * cell.num_devices,
        gpus_per_node=cell.num_devices if cell.device.startswith("cuda") else None,
        slurm_partition=slurm.partition,
        slurm_srun_args=[
            f"--cpus-per-task={cell.threads * cell.num_devices}"
        ],  # srun does not inherit it since SLURM 22.05
        slurm_additional_parameters=slurm.parameters,
    )
    return jobs


class _Job:
    """A job that was submitted, and how far its bench has read what it says."""

    def __init__(self, handle: Any, attempt: Attempt) -> None:
        self.handle = handle
        self.attempt = attempt
        self._read = 0  # bytes

    def listen(self) -> str | None:
        """Take what the job has said since; returns how it has ended, None if it has not."""
        done = self.handle.done()
        if self.handle.paths.stdout.exists():
            with self.handle.paths.stdout.open("rb") as lines:
                lines.seek(self._read)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break  # is being written
                    self._read += len(line)
                    self.attempt.hear(line)
        if not done:
            return None
        try:
            return reason(self.handle.result())
        except UncompletedJobError:
            return f"the end of its job {self.handle.job_id} (see {self.handle.paths.stderr})"


def _submit(batch: list[Cell], cells: Path, follow: Follow, run: RunConfig) -> list[_Job]:
    jobs = create_jobs(cells.parent / "slurm", run, batch[0])
    files = [str(cells / cell.folder / "cell.json") for cell in batch]
    given = ((cell.threads, cell.ranks, cell.num_nodes) for cell in batch)
    handles = jobs.map_array(SlurmJob(), files, *zip(*given, strict=True))
    return [
        _Job(handle, Attempt(cell, cells / cell.folder, follow(cell)))
        for handle, cell in zip(handles, batch, strict=True)
    ]
