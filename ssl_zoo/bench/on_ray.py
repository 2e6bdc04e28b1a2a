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
_CALLS = (
    2  # at once: `stop` is heard while `run` waits, where a task would be interrupted after its next word
)

logger = logging.getLogger(__name__)


def on_ray(todo: deque[Cell], cells: Path, follow: Follow, *, address: str | None) -> Ended:
    """Run each cell in an actor that holds its CPUs and GPU; all machines have to see the folder `cells`.

    `address` names a cluster; None: one on this machine, from the beginning to the end. Closed before the
    end, it stops the cells with a checkpoint. Raises ConnectionError if there is no such cluster.
    """
    if not todo:
        return
    with _connected(address):
        _warn_if_too_large(todo[0])
        held: dict[Any, tuple[Any, Attempt]] = {}  # by the stream of what a process says
        try:
            while todo or held:
                while todo:
                    cell = todo.popleft()
                    folder = (cells / cell.folder).absolute()
                    worker = _worker(cell)
                    words: Any = worker.run.remote(str(folder / "cell.json"), cell.threads, cell.num_devices)
                    held[words] = worker, Attempt(cell, folder, follow(cell))
                words = ray.wait([*held], num_returns=1)[0][0]
                worker, attempt = held[words]
                try:
                    word: Any = ray.get(next(words))
                    if isinstance(word, bytes):
                        attempt.hear(word)
                        continue
                    how = reason(word)
                except ray.exceptions.RayError as error:
                    how = f"the loss of its Ray worker ({_words(error)})"
                del held[words]
                ray.kill(worker)  # its CPUs are free at once
                yield attempt.cell, attempt.end(how)
        finally:
            for worker, attempt in held.values():
                _ = worker.stop.remote() if attempt.begun else ray.kill(worker)
            for words in held:
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
    return _ACTOR.options(num_cpus=_cpus(cell), num_gpus=_gpus(cell), max_concurrency=_CALLS).remote()


def _cpus(cell: Cell) -> int:
    return cell.threads * cell.num_devices


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
