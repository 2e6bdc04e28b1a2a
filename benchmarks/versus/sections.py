"""The sections of the report, each measured into plain numbers: seconds, and what was done in them."""

import os
import statistics
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.versus.ours import Ours
from benchmarks.versus.peer import Batches, Peer
from benchmarks.versus.tasks import LARGE, TASKS, Task, made_up_images
from benchmarks.versus.timing import Block, interleaved, timed
from ssl_zoo.method import Augment, ViewSpec
from ssl_zoo.train import resolve_precision

HAS_BF16 = resolve_precision("auto", torch.device("cpu")) == "bf16"
BEST = "bf16" if HAS_BF16 else "fp32"
IMAGES = 2048
GEMM = 2048  # side of the square matrices: large enough for the peak

Row = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """How often everything is measured."""

    rounds: int
    steps: int
    batch_size: int = 128

    @property
    def quick(self) -> bool:
        return self.rounds <= 2


def gemm(effort: Effort) -> Row:
    """Matrix products per precision, in FLOP/s: what the cores can do at most."""
    found = {}
    for name, kind in {"fp32": torch.float32, **({"bf16": torch.bfloat16} if HAS_BF16 else {})}.items():
        a, b = (torch.randn(GEMM, GEMM).to(kind) for _ in range(2))
        a @ b
        found[name] = [2 * GEMM**3 / timed(lambda a=a, b=b: a @ b) for _ in range(5 * effort.rounds)]
    return found


def training(effort: Effort, task: Task) -> Row:
    """Seconds per step of lightly and ours, in turns; lightly with the workers that suit it best."""
    images, batch_size = made_up_images(IMAGES), effort.batch_size
    most = 0 if task is LARGE else min(2, os.cpu_count() or 1)  # views are a few percent of a large step
    supplies = [Batches(task, images, batch_size, workers) for workers in range(most + 1)]
    plain = Peer(task)
    probed = [statistics.median(supply.training(plain)(effort.steps)) for supply in supplies]
    best = supplies[probed.index(min(probed))]

    ours = Ours(task, images, batch_size)
    blocks: dict[str, Block] = {"lightly": best.training(plain), "ssl_zoo, fp32": ours}
    if HAS_BF16 or task.method != "moco":
        blocks["lightly, tuned"] = best.training(Peer(task, tuned=True, bf16=HAS_BF16))
    if HAS_BF16:
        blocks["ssl_zoo, bf16"] = Ours(task, images, batch_size, "bf16")
    return {
        "task": task.name,
        "batch_size": batch_size,
        "workers": best.workers,
        "probed": probed,
        "flops": ours.flops(),
        "seconds": interleaved(blocks, effort.rounds, 1 if task is LARGE else effort.steps),
    }


def parts(effort: Effort, task: Task) -> Row:
    """Seconds of each part of our step."""
    ours = Ours(task, made_up_images(IMAGES), effort.batch_size, BEST)
    ours.step()
    samples = [ours.parts() for _ in range(effort.rounds * effort.steps)]
    return {"task": task.name, "seconds": {name: [sample[name] for sample in samples] for name in samples[0]}}


def growth(effort: Effort) -> list[Row]:
    """Seconds of a DINO step as batch, crops, prototypes and image size grow, one at a time."""
    two, many = TASKS[2:]
    ends = slice(None, None, 3) if effort.quick else slice(None)
    cases: list[tuple[str, int, Ours]] = []
    for batch_size in (32, 64, 128, 256)[ends]:
        cases.append(("images in a batch", batch_size, Ours(two, made_up_images(IMAGES), batch_size, BEST)))
    for local in (0, 2, 4, 6)[ends]:
        task = many._replace(local=local)
        cases.append(("16 px crops beside two of 32 px", local, Ours(task, made_up_images(IMAGES), 64, BEST)))
    for prototypes in (1024, 4096, 16384, 65536)[ends]:
        ours = Ours(two, made_up_images(IMAGES), 64, BEST, out_dim=prototypes)
        cases.append(("prototypes K", prototypes, ours))
    for size in (16, 32, 48, 64)[ends]:
        view = Augment(size, (0.4, 1.0))
        ours = Ours(two, made_up_images(256, size), 64, BEST, views=ViewSpec((view, view)))
        cases.append(("image size in px", size, ours))
    blocks = {f"{what}: {value}": ours for what, value, ours in cases}
    seconds = interleaved(blocks, effort.rounds, 1)
    return [
        {"what": what, "value": value, "images": ours.batch_size, "seconds": seconds[f"{what}: {value}"]}
        for what, value, ours in cases
    ]
