"""Pieces measured alone: the search, DINO's loss, the compiled colour kernel, and what the user waits for."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from lightly.loss import DINOLoss as LightlyLoss
from torch import Tensor

from benchmarks.versus.timing import interleaved, repeated, timed
from ssl_zoo.data import colour
from ssl_zoo.data.parameters import Look, draw_look
from ssl_zoo.draws import hash64
from ssl_zoo.evaluation import search
from ssl_zoo.method import Augment
from ssl_zoo.methods.dino import DINOLoss

Row = dict[str, object]
COMMAND = [sys.executable, "-m", "ssl_zoo.cli"]


def searches(rounds: int, bank: int = 45_000, queries: int = 2000, width: int = 256, k: int = 200) -> Row:
    """Seconds of an exact k-NN search by faiss and by torch."""
    x, q = torch.randn(bank, width), torch.randn(queries, width)
    blocks = {name: repeated(lambda name=name: search(q, x, k, backend=name)) for name in ("faiss", "torch")}
    return {
        "bank": bank,
        "queries": queries,
        "width": width,
        "k": k,
        "seconds": interleaved(blocks, rounds, 1),
    }


def losses(rounds: int, widths: tuple[int, ...] = (4096, 65536), batch_size: int = 32) -> list[Row]:
    """Seconds of DINO's loss of 2 + 6 crops, forward and backward, by lightly and ours."""
    return [
        {
            "K": width,
            "batch_size": batch_size,
            "seconds": interleaved(_losses(width, batch_size), rounds, 1),
        }
        for width in widths
    ]


def _losses(width: int, batch_size: int) -> dict[str, Callable[[int], list[float]]]:
    # cosines of 256 numbers, as a head makes them; logits of any size would end in denormal probabilities
    student, teacher = (torch.randn(views, batch_size, width) / 16 for views in (8, 2))
    student.requires_grad_()
    theirs, ours = LightlyLoss(output_dim=width), DINOLoss(width)

    def peer() -> None:
        theirs(list(teacher), list(student), epoch=0).backward()

    def mine() -> None:
        ours(student, teacher).backward()
        ours.update_center(teacher)

    return {"lightly": repeated(peer), "ssl_zoo": repeated(mine)}


def compiled_colour(rounds: int, crops: int = 256) -> Row:
    """Seconds per view of the colour operations as they are and compiled, and what compiling costs at first.

    Compiled code cannot work on some of the crops: it computes every operation for all of them and selects.
    """
    views = [Augment(32, (0.4, 1.0))] * 2
    look = draw_look(views, hash64(0, 0, torch.arange(crops // 2)), 0)
    planes = torch.rand(3, crops, 32, 32)
    plain = repeated(lambda: colour.apply_look(planes.clone(), look, views))
    with (
        tempfile.TemporaryDirectory() as empty,  # what is compiled lies in a cache otherwise
        mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=empty),
        mock.patch.object(colour, "_change", _change_all),
    ):
        kernel = torch.compile(lambda x, *parts: colour.apply_look(x, Look(*parts), views), dynamic=False)
        compiling = timed(lambda: kernel(planes.clone(), *look))
    compiled = repeated(lambda: kernel(planes.clone(), *look))
    seconds = interleaved({"eager": plain, "compiled": compiled}, rounds, 5)
    return {
        "compile_seconds": compiling,
        "seconds": {name: [value / crops for value in values] for name, values in seconds.items()},
    }


def _change_all(planes: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    every = torch.arange(planes.shape[1])
    planes.copy_(torch.where(chosen[:, None, None], change(planes.clone(), every), planes))


def waits(rounds: int) -> dict[str, list[float]]:
    """Seconds from a command to its answer, or to the first training step of a bench on digits."""
    seconds: dict[str, list[float]] = {"--help": [], "list methods": [], "first step": []}
    for _ in range(rounds):
        for command in ("--help", "list methods"):
            call = [*COMMAND, *command.split()]
            seconds[command].append(
                timed(lambda call=call: subprocess.run(call, check=True, capture_output=True))
            )
        seconds["first step"].append(_first_step())
    return seconds


def _first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "run", "cells", "dino-seed0", "metrics.jsonl")
        call = [*COMMAND, "bench", "--methods", "dino", "--dataset", "digits", "--out", str(log.parents[2])]
        began = time.perf_counter()
        bench = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not log.exists() or not log.stat().st_size:
                if bench.poll() is not None:
                    raise RuntimeError(
                        f"{' '.join(call)} ended with {bench.returncode} before its first step"
                    )
                time.sleep(0.02)
            return time.perf_counter() - began
        finally:
            bench.send_signal(signal.SIGINT)  # its cell leaves before it, and the folder can go
            bench.wait()
