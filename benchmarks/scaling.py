"""What a step costs on several ranks: what a model foretells, beside what passed the loopback device here.

python -m benchmarks.scaling

Ranks of one machine talk over its loopback device, which counts bytes. Nothing else should use it meanwhile.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cyclopts import App
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.versus import page
from ssl_zoo import create_backbone, create_method, ranks
from ssl_zoo.batch_norm import GroupedBatchNorm2d, groups_of_two_or_more, join_batch_norms
from ssl_zoo.bench import environment
from ssl_zoo.bench.budget import measure
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import views_of
from ssl_zoo.method import Method, Step, Views
from ssl_zoo.optim import create_optimizer
from ssl_zoo.registry import method_class
from ssl_zoo.train import train_step

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
METHODS = ("dino", "byol", "moco")
RANKS = (1, 2, 4)
BATCH, IMAGES, SIZE, WIDTH = 128, 512, 32, 32
WARM, STEPS = 2, 8
FLOAT = 4  # bytes
app = App(name="python -m benchmarks.scaling")


@app.default
def main(out: Path = RESULTS) -> None:
    """Run every method on 1, 2 and 4 ranks of this machine, a core each; write what a step took and sent."""
    runs = []
    for count in RANKS:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [sys.executable, *launcher, "-m", "benchmarks.scaling", "worker"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        said = subprocess.run(
            command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        runs += [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    asked = {"batch_size": BATCH, "image_size": SIZE, "backbone": f"resnet8 width {WIDTH}", "steps": STEPS}
    made = {"command": "python -m benchmarks.scaling", **asked, "environment": environment()}
    out.write_text(json.dumps({"made": made, "runs": runs}, indent=1) + "\n")


@app.command
def worker() -> None:
    """One rank: train each method some steps; the first prints a JSON line for each."""
    torch.set_num_threads(1)
    for name in METHODS:
        method, collate, split = _made(name)
        with ranks.alone():
            flops = measure(method, split, torch.device("cpu"), "fp32", BATCH, threads=1).step.flops
            method, collate, split = _made(name)
            foretold = volume(method, views_of(split, torch.arange(BATCH), 0, collate, torch.device("cpu")))
        seconds, sent = _run(method, collate, split)
        if ranks.index() == 0:
            run = {"method": name, "ranks": ranks.count(), "seconds": seconds, "sent": sent, "flops": flops}
            print(json.dumps({**run, **foretold, "foretold": wire(foretold, ranks.count())}), flush=True)


def volume(method: Method, views: Views) -> dict[str, int]:
    """Bytes that one rank puts into all-reduces and all-gathers in a step, by what they are for.

    `gradients`: every trained parameter. `batch_norm`: two numbers per channel (and group) in each pass, and
    two more in its backward pass. `state`: center, its entropy, deviations of features. `gathered` is of the
    whole batch: MoCo's shuffled crops, its keys and those of the queue.
    """
    norms: list[int] = []

    def count(norm: nn.Module, _: Any, __: Any) -> None:
        groups = groups_of_two_or_more(BATCH, norm.groups) if isinstance(norm, GroupedBatchNorm2d) else 1
        norms.append(2 * groups * norm.num_features * (2 if torch.is_grad_enabled() else 1))  # type: ignore[operator]

    hooks = [m.register_forward_hook(count) for m in method.modules() if isinstance(m, _BatchNorm)]
    method.train()(views, Step(0, 1))
    for hook in hooks:
        hook.remove()
    crops, config = views.global_crops, method.config
    state, gathered = {
        "dino": lambda: (2 * config.out_dim + 1 + 4 * method.student.backbone.out_dim, 0),
        "byol": lambda: (2 * config.out_dim, 0),
        "moco": lambda: (
            2 * config.out_dim,
            crops.numel() + 2 * crops.shape[0] * crops.shape[1] * config.out_dim,
        ),
    }[method.name]()
    return {
        "gradients": FLOAT * sum(p.numel() for p in method.parameters() if p.requires_grad),
        "batch_norm": FLOAT * sum(norms),
        "state": FLOAT * state,
        "gathered": FLOAT * gathered,
    }


def wire(foretold: dict[str, int], count: int) -> float:
    """Bytes that all ranks together send: of n bytes, a ring reduces by 2 (W - 1) n, gathers by (W - 1) n."""
    reduced = foretold["gradients"] + foretold["batch_norm"] + foretold["state"]
    return (count - 1) * (2 * reduced + foretold["gathered"])


def _made(name: str) -> tuple[Method, MultiCropCollate, Split]:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    config = method_class(name).Config()
    views = adapt(config.views, SIZE, grey=False, flip=True)
    method = create_method(name, create_backbone("resnet8", SIZE, width=WIDTH), views=views)
    return method, MultiCropCollate(views), Split(images, None, (), "random")


def _run(method: Method, collate: MultiCropCollate, split: Split) -> tuple[list[float], float]:
    """Seconds of each step, and bytes that passed the loopback device in one of them."""
    place = torch.device("cpu")
    if (fabric := ranks.join(place)) is not None:
        join_batch_norms(method, place)
    method.to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer(method.param_groups(), method.config.optim)
    wrapped = ranks.share(fabric, method)
    part = torch.arange(BATCH).chunk(ranks.count())[ranks.index()]
    views = [views_of(split, part, epoch, collate, place) for epoch in range(WARM + STEPS)]
    seconds, before = [], 0
    for index, crops in enumerate(views):
        if ranks.count() > 1:
            dist.barrier()
        if index == WARM:
            before = _looped()
        began = time.perf_counter()
        train_step(wrapped, method, optimizer, crops, Step(index, len(views)), fabric=fabric)
        seconds.append(time.perf_counter() - began)
    if ranks.count() > 1:
        dist.barrier()
    return seconds[WARM:], (_looped() - before) / STEPS


def _looped() -> int:
    """Bytes that have been sent over the loopback device."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).split(":")[1].split()[8])


def table(stored: dict[str, Any]) -> str:
    """What was foretold and measured, a row for each method and number of ranks."""
    kinds = ("gradients", "batch_norm", "state", "gathered")
    head = ["method", "ranks", "GFLOP a step", "seconds", "MB sent, foretold", "measured", *kinds]
    rows = []
    for run in stored["runs"]:
        sent = (run["foretold"], run["sent"], *(run[kind] for kind in kinds))
        flops, took = f"{run['flops'] / 1e9:.0f}", page.spread(run["seconds"], ".2f")
        rows.append([run["method"], str(run["ranks"]), flops, took, *(f"{n / 1e6:.2f}" for n in sent)])
    return page.table(head, rows).replace("_", " ")


if __name__ == "__main__":
    app()
