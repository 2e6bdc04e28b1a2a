"""Other data sets on which a bench evaluates its frozen encoders."""

from collections.abc import Mapping

from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.config import DataConfig
from ssl_zoo.data.datasets import create_dataset
from ssl_zoo.data.splits import Roles, roles
from ssl_zoo.evaluation.knn import check_labelled


def open_transfer(sources: Mapping[str, str], data: DataConfig) -> dict[str, Roles]:
    """The data sets `sources`, by name; images of the user's own are read as `data` says.

    Raises ValueError, which names the data set, for one that lacks labels or has one class only, and what
    `create_dataset` raises.
    """
    opened = {}
    for name, source in sources.items():
        how = data if ":" in source else DataConfig()  # a public data set needs no reading
        try:
            parts = roles(create_dataset(source, data.dir, on_bad_image=how.on_bad_image, window=how.window))
            check_labelled(parts.train, parts.test)
        except ValueError as error:
            raise ValueError(f"evaluation.transfer: {name}: {error}") from error
        opened[name] = parts
    return opened


def planned_transfer(cell: Cell) -> dict[str, Roles]:
    """The data sets that the cell was planned to evaluate on; ValueError for one that has changed since."""
    opened = open_transfer(cell.transfer, cell.data)
    for name, parts in opened.items():
        if parts.fingerprint != cell.shared.transfer[name]:
            raise ValueError(f"{name} is not the data that was planned with; plan again in a new folder")
    return opened
