"""Where the logs, predictions and pictures of a report lie: in its bench, or in those it was merged from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ssl_zoo.bench.cells import cell_name
from ssl_zoo.bench.report.summaries import Row

Arrays = dict[str, np.ndarray[Any, Any]]


class Sources:
    """The folders behind a report; `runs` are the benches by name, one without a name if nothing was merged.

    A merged bench has `runs`: {folder of a bench, from its own: [names of the cells there]}.
    """

    def __init__(self, folder: Path, bench: Mapping[str, Any]) -> None:
        merged: Mapping[str, list[str]] = bench.get("runs") or {}
        self.folder = folder
        self.runs = {name: Path(os.path.normpath(folder / name)) for name in merged} or {"": folder}
        self._homes = {cell: self.runs[name] for name, cells in merged.items() for cell in cells}

    def home(self, row: Row) -> Path:
        """The bench that a row comes from."""
        return self._homes.get(cell_name(row["label"], row["seed"]), self.folder)

    def cell(self, row: Row) -> Path:
        """The folder of a row's cell."""
        return self.home(row) / "cells" / cell_name(row["label"], row["seed"])


def read_arrays(file: Path) -> Arrays:
    """The arrays of an `.npz` file; none where it is absent or damaged."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, BadZipFile):
        return {}
