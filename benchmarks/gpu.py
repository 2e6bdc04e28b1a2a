"""What one GPU does: ResNet-18 trained by each method, beside lightly, and CIFAR-10 learnt for some epochs.

SSL_ZOO_DATA=FOLDER python -m benchmarks.gpu
"""

import json
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from cyclopts import App

from benchmarks.versus import page
from benchmarks.versus.ours import HEADS, OPTIM, Net
from benchmarks.versus.peer import Batches, Peer
from benchmarks.versus.tasks import TASKS, Task, made_up_images
from benchmarks.versus.timing import timed
from ssl_zoo import create_backbone, create_dataset, create_method, fit, list_methods
from ssl_zoo.bench import environment
from ssl_zoo.bench.budget import measure
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.splits import roles
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import top_accuracy, weighted_knn
from ssl_zoo.method import Method
from ssl_zoo.train import Precision

RESULTS = Path(__file__).parent / "results" / "gpu.json"
DEVICE = torch.device("cuda")
BATCH = 256
IMAGES = 50_000  # as many as CIFAR-10 has
PEER_IMAGES = 2048  # lightly's are PIL images, made anew by each worker
WARM, STEPS, PEER_STEPS = 16, 80, 20
AHEAD = 16  # steps whose views are made before they are used: as many as were when the clock started
PACKAGES = ("ssl-zoo", "torch", "torchvision", "lightly")

Record = dict[str, Any]
app = App(name="python -m benchmarks.gpu")


@app.default
def main(
    *,
    out: Path = RESULTS,
    rounds: int = 3,
    epochs: int = 3,
    compiled: bool = True,
    lightly: bool = True,
) -> None:
    """Measure ResNet-18 at batch 256 on the GPU of this machine; what is measured is written at once.

    Parameters
    ----------
    out
        The JSON file to write; `make docs` renders benchmarks/gpu.md from benchmarks/results/gpu.json.
    rounds
        How often each side has its turn.
    epochs
        How long each method learns CIFAR-10 from SSL_ZOO_DATA, once; 0: not at all.
    compiled
        Measure compiled backbones too, and learn with them; compiling takes half a minute a task.
    lightly
        Measure lightly too, fed by as many processes as there are cores.
    """
    warnings.filterwarnings("ignore", ".*weight_norm. is deprecated", FutureWarning)  # lightly's
    torch.backends.cudnn.benchmark = True  # as a bench does
    torch.manual_seed(0)
    made = {
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "environment": {**environment(), **{name: version(name) for name in PACKAGES}},
    }
    stored: Record = {"made": made, "batch_size": BATCH, "training": [], "cifar10": []}
    split = Split(made_up_images(IMAGES), None, (), "made")

    def keep(section: str, row: Record) -> None:
        stored[section].append(row)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(stored, indent=1) + "\n")
        print(table(stored), flush=True)

    for small in TASKS:
        task = small._replace(net="resnet-18", width=1)
        keep("training", training(task, split, rounds, lightly=lightly, compiled=compiled))
    for name in list_methods() if epochs else ():
        keep("cifar10", learnt(name, epochs, compiled=compiled))


def training(task: Task, split: Split, rounds: int, *, lightly: bool, compiled: bool) -> Record:
    """Source images per second of each side, by round, and what a step of ours takes."""
    sides: dict[str, Callable[[], float]] = {
        f"ssl_zoo, {precision}": partial(ours, task, split, precision) for precision in ("fp32", "bf16")
    }
    if compiled:
        sides["ssl_zoo, bf16 compiled"] = partial(ours, task, split, "bf16", compiled=True)
    if lightly:
        supply = Batches(task, split.images[:PEER_IMAGES], BATCH, os.cpu_count() or 1)
        sides |= {name: peer(task, supply, tuned=name != "lightly") for name in ("lightly", "lightly, tuned")}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    cost = measure(_method(task), split, DEVICE, "bf16", BATCH, threads=torch.get_num_threads())
    return {"task": task.name, "images_per_second": found, "step_flops": cost.step.flops}


def ours(task: Task, split: Split, precision: Precision, *, compiled: bool = False) -> float:
    """Images per second of `fit`, once it is under way."""
    logged: list[dict[str, float]] = []
    torch.compiler.reset()  # each training compiles anew, as in a process of its own
    fit(
        _method(task),
        split,
        budget={"steps": WARM + STEPS + AHEAD},
        batch_size=BATCH,
        device=str(DEVICE),
        precision=precision,
        compile_backbones=compiled,
        log_every=WARM,
        on_log=logged.append,
    )
    seconds = {record["step"]: record["seconds"] for record in logged}
    return STEPS * BATCH / (seconds[WARM + STEPS] - seconds[WARM])


def peer(task: Task, supply: Batches, *, tuned: bool) -> Callable[[], float]:
    """A turn of lightly's step: images per second."""
    there = Peer(task, tuned=tuned, bf16=tuned, device=DEVICE)

    def steps(count: int) -> None:
        for _ in range(count):
            there.step(supply.next())
        torch.cuda.synchronize()

    def turn() -> float:
        steps(2 + supply.workers)  # what was prefetched while others had their turns
        return PEER_STEPS * BATCH / timed(partial(steps, PEER_STEPS))

    return turn


def learnt(name: str, epochs: int, *, compiled: bool) -> Record:
    """A method's defaults trained on CIFAR-10, and k-NN (k = 20) on the test images; one seed."""
    parts = roles(create_dataset("cifar10"))
    torch.manual_seed(0)
    method = create_method(name, create_backbone("resnet18", parts.pretrain.largest_side))
    torch.compiler.reset()
    torch.cuda.reset_peak_memory_stats(DEVICE)
    fitted = fit(
        method,
        parts.pretrain,
        budget={"epochs": epochs},
        batch_size=BATCH,
        device=str(DEVICE),
        compile_backbones=compiled,
    )
    peak = torch.cuda.max_memory_allocated(DEVICE)
    features = [
        extract(method.encoder, split.images, image_size=None, device=DEVICE)
        for split in (parts.train, parts.test)
    ]
    votes = weighted_knn(features[0], parts.train.labels, features[1], k=20, num_classes=10)
    return {
        "method": name,
        "epochs": epochs,
        "images": fitted.images_seen,
        "seconds": fitted.seconds,
        "data_seconds": fitted.data_seconds,
        "peak_memory_bytes": peak,
        "knn_top1": top_accuracy(votes, parts.test.labels, 1),
    }


def table(stored: Record) -> str:
    """The page's tables: images per second, how many times lightly's, and what CIFAR-10 took."""
    rows = stored["training"]
    sides = list(dict.fromkeys(side for row in rows for side in row["images_per_second"]))
    peers = [side for side in sides if side.startswith("lightly")]

    def cells(row: Record) -> Iterable[str]:
        found = row["images_per_second"]
        yield row["task"]
        for side in sides:
            yield page.spread(found[side], ",.0f") if side in found else "-"
        fastest = max((found[side] for side in found if side not in peers), key=statistics.median)
        for side in peers:
            yield page.spread(page.ratio(fastest, found[side]), ".1f")
        steps = statistics.median(fastest) / stored["batch_size"]
        yield f"{row['step_flops'] * steps / 1e12:.0f}"

    def learning(row: Record) -> Iterable[str]:
        seconds = row["seconds"]
        yield from (row["method"], str(row["epochs"]), f"{row['images']:,}", f"{seconds:.1f}")
        yield from (f"{row['images'] / seconds:,.0f}", f"{row['data_seconds'] / seconds:.0%}")
        yield from (f"{row['peak_memory_bytes'] / 2**30:.1f}", f"{100 * row['knn_top1']:.1f}")

    ratios = [f"fastest: times {side}" for side in peers]
    first = page.table(["task", *sides, *ratios, "TFLOP/s, fastest"], map(cells, rows))
    head = ["CIFAR-10", "epochs", "images", "seconds", "images/s", "waiting for views", "GiB", "k-NN, %"]
    return f"{first}\n{page.table(head, map(learning, stored['cifar10']))}"


def _method(task: Task) -> Method:
    torch.manual_seed(0)
    return create_method(task.method, Net(task), views=task.views, optim=OPTIM, **HEADS[task.method])


if __name__ == "__main__":
    app()
