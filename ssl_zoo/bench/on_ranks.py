"""A bench that torchrun started on several ranks: the first plans and reports, all share each cell."""

from collections import deque
from pathlib import Path

from ssl_zoo import ranks
from ssl_zoo.bench.cells import Cell, read_result
from ssl_zoo.bench.executors import Ended, Follow
from ssl_zoo.bench.results import Results
from ssl_zoo.bench.runner import run_cell


def on_ranks(todo: deque[Cell], cells: Path, follow: Follow) -> Ended:
    """Run one cell after the other on all ranks; to be called on the first.

    Raises ChildProcessError after a failure of this rank, which others may not know of.
    """
    while todo:
        cell = todo.popleft()
        folder = (cells / cell.folder).absolute()
        with ranks.alone(False):
            ranks.first_of(folder)
            status = run_cell(folder, follow(cell))
        yield cell, status
        if status == "failed" and not read_result(folder)["error"].startswith("FloatingPointError"):
            raise ChildProcessError(f"{cell.folder} failed on one of the ranks; the same command goes on")


def follow_first() -> Results:
    """Take part in each cell that the first rank runs, and return the results that it ends with."""
    while isinstance(word := ranks.first_of(None), Path):
        run_cell(word, lambda _: None)
    assert isinstance(word, Results)
    return word
