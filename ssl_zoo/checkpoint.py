"""The checkpoint of a training: everything that the next step depends on, and how to know it is whole."""

import json
import logging
import os
import zlib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_zoo import ranks
from ssl_zoo.files import explained, replace_file

logger = logging.getLogger(__name__)

_PACKAGES = ("ssl-zoo", "torch")


class Spent(NamedTuple):
    """Seconds of a training so far, and those of them in which it waited for views."""

    seconds: float
    data_seconds: float


class Checkpoint:
    """The folder of one run: `metrics.jsonl`, `checkpoint.pt` and the one before it, or nothing (None).

    `run` says which training it is: a checkpoint of another one is refused. All ranks read, the first writes.
    """

    def __init__(self, folder: Path | None, run: dict[str, Any]) -> None:
        self.folder = folder
        self.run = run
        self._writes = folder is not None and ranks.index() == 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def load(self, method: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, Spent]:
        """Restore method, optimizer and log; returns the step to go on from and the seconds spent before.

        A damaged checkpoint is named in a warning and the one before it used, without one the run starts
        anew. Raises ValueError for a checkpoint of another run.
        """
        if self.folder is None:
            return 0, Spent(0.0, 0.0)
        metrics = self.folder / "metrics.jsonl"
        for name in ("checkpoint.pt", "checkpoint.previous.pt"):
            file = self.folder / name
            state = _read(file) if file.exists() else None
            if state is None:
                continue
            if state["run"] != self.run:
                difference = _difference(state["run"], self.run)
                raise ValueError(f"{file} belongs to another run: {difference}; use another folder")
            method.load_state_dict(state["method"])
            optimizer.load_state_dict(state["optimizer"])
            if self._writes:
                with metrics.open("r+b") as log:
                    log.truncate(state["metrics_bytes"])  # what was logged after it will be logged again
            if (here := _versions()) != state["versions"]:
                logger.warning(
                    "%s was written with %s, here is %s: the run may end with other bits",
                    file,
                    state["versions"],
                    here,
                )
            logger.info("continuing from step %d of %d", state["step"], self.run["total"])
            return state["step"], Spent(state["seconds"], state["data_seconds"])
        if self._writes:
            metrics.write_bytes(b"")
        return 0, Spent(0.0, 0.0)

    def save(self, method: nn.Module, optimizer: torch.optim.Optimizer, step: int, spent: Spent) -> None:
        """Write the checkpoint; the one before it stays beside it. Raises OSError when the disk is full."""
        if not self._writes:
            return
        assert self.folder is not None
        state = {
            "run": self.run,
            "versions": _versions(),
            "step": step,
            **spent._asdict(),
            "metrics_bytes": self._logged_bytes(),
            "method": method.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        state["checksum"] = _checksum(state)
        file = self.folder / "checkpoint.pt"
        replace_file(file, lambda handle: torch.save(state, handle), self.folder / "checkpoint.previous.pt")

    def log(self, record: dict[str, float]) -> None:
        """Append a record to `metrics.jsonl`."""
        if not self._writes:
            return
        assert self.folder is not None
        file = self.folder / "metrics.jsonl"
        try:
            with file.open("a") as log:
                log.write(json.dumps(record) + "\n")
        except OSError as error:
            raise explained(error, file) from error

    def _logged_bytes(self) -> int:
        """How long `metrics.jsonl` is, once it is on the disk."""
        assert self.folder is not None
        with (self.folder / "metrics.jsonl").open("ab") as log:
            os.fsync(log.fileno())
            return log.tell()


def logged_records(folder: Path) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl` in `folder`; none without it, NaN is None, a torn line is left out."""
    file, records = folder / "metrics.jsonl", []
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                records.append(json.loads(line, parse_constant=lambda _: None))
    return records


def _read(file: Path) -> dict[str, Any] | None:
    """What a checkpoint holds, or None and a warning if it is damaged."""
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        whole = state.pop("checksum") == _checksum(state)
    except Exception as error:  # a flipped bit may break the archive, its index or what torch makes of them
        logger.warning("%s is damaged (%s: %s): it is not used", file, type(error).__name__, error)
        return None
    if not whole:
        logger.warning("%s is damaged (its checksum differs): it is not used", file)
    return state if whole else None


def _checksum(value: Any, start: int = 0) -> int:
    """CRC-32 of nested dicts, lists, numbers, text and tensors, in order."""
    if isinstance(value, dict):
        for key, item in value.items():
            start = _checksum(item, zlib.crc32(repr(key).encode(), start))
        return start
    if isinstance(value, list | tuple):
        for item in value:
            start = _checksum(item, start)
        return start
    if isinstance(value, Tensor):
        start = zlib.crc32(f"{value.dtype} {tuple(value.shape)}".encode(), start)
        flat = value.detach().cpu().contiguous().flatten()
        return zlib.crc32(flat.view(torch.uint8).numpy().data, start) if flat.numel() else start
    return zlib.crc32(repr(value).encode(), start)


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return ", ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in names)
