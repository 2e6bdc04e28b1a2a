"""Cells on a Ray cluster, as many at once as its CPUs and GPUs allow."""

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_zoo.attached import RayWorker
from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.executors import Attempt, Ended, Follow, reason

try:
    import ray
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("run.executor=ray needs an extra: pip install 'ssl-zoo[ray]'") from error

_ACTOR: Any = ray.remote(RayWorker)

logger = logging.getLogger(__name__)


def on_ray(todo: deque[Cell], cells: Path, follow: Follow, *, address: str | None) -> Ended:
    """Run the cells in actors that hold the CPUs and GPU of one; all machines have to see the folder `cells`.

    `address` names a cluster; None: one on this machine, from the beginning to the end. Closed before the
    end, it stops the cells with a checkpoint. Raises ConnectionError if there is no such cluster.
    """
    if not todo:
        return
    with _connected(address):
        _warn_if_too_large(todo[0])
        idle: dict[Any, Any] = {}  # workers, by what is there once they can work
        busy: dict[Any, tuple[Any, Attempt]] = {}  # workers and their cells, by the stream of what those say
        try:
            while todo or busy:
                if not todo:
                    _dismiss(idle)
                for cell in [*todo][len(idle) :]:
                    worker = _worker(cell)
                    idle[worker.__ray_ready__.remote()] = worker
                first: Any = ray.wait([*idle, *busy])[0][0]
                if first in idle:
                    worker, cell = idle.pop(first), todo.popleft()
                    folder = (cells / cell.folder).absolute()
                    words = worker.run.remote(str(folder / "cell.json"), cell.ranks)
                    busy[words] = worker, Attempt(cell, folder, follow(cell))
                    continue
                worker, attempt = busy[first]
                try:
                    word: Any = ray.get(next(first))
                    if isinstance(word, bytes):
                        attempt.hear(word)
                        continue
                    how = reason(word)
                    idle[worker.__ray_ready__.remote()] = worker
                except ray.exceptions.RayError as error:
                    ray.kill(worker)
                    how = f"the loss of its Ray worker ({_words(error)})"
                del busy[first]
                yield attempt.cell, attempt.end(how)
        finally:
            _dismiss(idle)
            for worker, _ in busy.values():
                worker.stop.remote()
            for words in busy:
                for _ in words:
                    pass  # until the process has left


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Within, Ray can be used; one that is connected already stays so."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it calls home
    ray.init(
        address=address or "local",
        include_dashboard=False if address is None else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def _worker(cell: Cell) -> Any:
    """An actor with what a cell needs, and room for two calls: `stop` is heard while `run` waits."""
    actor = _ACTOR.options(num_cpus=_cpus(cell), num_gpus=_gpus(cell), max_concurrency=2)
    return actor.remote(cell.threads)


def _cpus(cell: Cell) -> int:
    return cell.threads * cell.num_devices


def _dismiss(workers: dict[Any, Any]) -> None:
    for worker in workers.values():
        ray.kill(worker)
    workers.clear()


def _gpus(cell: Cell) -> int:
    return cell.num_devices if cell.device.startswith("cuda") else 0


def _warn_if_too_large(cell: Cell) -> None:
    """Ray itself waits for what may never come; but a cluster may also grow when it is asked for more."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if not any(it.get("CPU", 0) >= _cpus(cell) and it.get("GPU", 0) >= _gpus(cell) for it in machines):
        logger.warning(
            "no machine of this Ray has %d CPUs and %d GPUs, which every cell waits for; lower run.threads, "
            "or add one",
            _cpus(cell),
            _gpus(cell),
        )


def _words(error: ray.exceptions.RayError) -> str:
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
