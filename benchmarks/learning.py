"""Do fast views and bf16 learn as well? The same trainings with slow exact views, and in fp32.

SSL_ZOO_DATA=... python -m benchmarks.learning

Images, crop boxes and colours are drawn alike: variants of a seed differ in how pixels or products are
computed, and in nothing else. A finished training stands in benchmarks/results/learning.json and is not
repeated.
"""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_zoo import create_backbone, create_method
from ssl_zoo.bench import environment
from ssl_zoo.data.augment import adapt, normalize
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split, create_dataset
from ssl_zoo.data.loading import train_views
from ssl_zoo.data.parameters import draw_boxes, draw_look
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.draws import sample, seed_from
from ssl_zoo.evaluation import weighted_knn
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import top_accuracy
from ssl_zoo.method import Augment, Step, Views, ViewSpec
from ssl_zoo.optim import create_optimizer
from ssl_zoo.registry import method_class
from ssl_zoo.train import train_step
from tests.reference_views import reference_crop, reference_look

RESULTS = Path(__file__).parent / "results" / "learning.json"
VARIANTS = {"fast views": "fp32", "exact views": "fp32", "fast views, bf16": "bf16"}
app = App(name="python -m benchmarks.learning")


@dataclass(frozen=True)
class Effort:
    """How long and on what each training learns.

    Parameters
    ----------
    images
        A fixed random subset of CIFAR-10's training images.
    workers
        Processes that make the exact views of each training; 0: its own.
    """

    images: int = 2_000
    epochs: int = 3
    width: int = 16
    batch_size: int = 32
    device: str = "cpu"
    workers: int = 0


@app.default
def main(
    *,
    methods: Annotated[list[str], Parameter(consume_multiple=True)] = ["moco"],  # noqa: B006
    seeds: int = 3,
    at_once: int = 1,
    out: Path = RESULTS,
    effort: Annotated[Effort, Parameter(name="*")] = Effort(),
) -> None:
    """Train `methods` on CIFAR-10 with every variant and seed; store k-NN accuracies on its test images.

    Parameters
    ----------
    at_once
        Trainings at once, each in a process with one thread.
    out
        The JSON file to write; docs/performance.md is rendered from benchmarks/results/learning*.json.
    """
    asked = {"backbone": f"resnet8 width {effort.width}", **vars(effort)}
    del asked["workers"]  # they change no result
    stored = json.loads(out.read_text()) if out.exists() else {"made": asked, "runs": []}
    if {name: stored["made"].get(name) for name in asked} != asked:
        raise SystemExit(f"{out} holds {stored['made']}; move it away to measure {asked}")
    stored["made"] |= {"command": " ".join(["python -m benchmarks.learning", *sys.argv[1:]])}
    stored["made"] |= {"environment": environment()}
    create_dataset("cifar10")  # into the cache, before others look for it
    done = {(run["method"], run["seed"], run["variant"]) for run in stored["runs"]}
    left = [run for run in product(methods, range(seeds), VARIANTS) if run not in done]
    with ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
        for run in as_completed([pool.submit(scored, *run, effort) for run in left]):
            stored["runs"].append(run.result())
            print(stored["runs"][-1], flush=True)
            out.write_text(json.dumps(stored, indent=1) + "\n")


def scored(method: str, seed: int, variant: str, effort: Effort) -> dict[str, Any]:
    """k-NN accuracy on the test images after one training."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # fp32 is meant
    began, dataset = time.perf_counter(), create_dataset("cifar10")
    train, test = dataset.split("train"), dataset.split("test")
    chosen = sample(torch.arange(len(train)), effort.images)
    bank = Split(train.images[chosen], train.labels[chosen], train.classes, "chosen")
    encoder = trained(method, bank, seed, variant, effort)
    features, queries = (
        extract(encoder, split.images, image_size=32, device=effort.device) for split in (bank, test)
    )
    scores = weighted_knn(features, bank.labels, queries, k=20, num_classes=10)
    return {
        "method": method,
        "seed": seed,
        "variant": variant,
        "knn_top1": top_accuracy(scores, test.labels, 1),
        "seconds": time.perf_counter() - began,
    }


def trained(method: str, split: Split, seed: int, variant: str, effort: Effort) -> torch.nn.Module:
    """The encoder after training on the 32 px images of `split`."""
    device = torch.device(effort.device)
    views = adapt(method_class(method).Config().views, 32, grey=False, flip=True)
    torch.manual_seed(seed)
    network = create_backbone("resnet8", image_size=32, width=effort.width)
    learner = create_method(method, network, views=views)
    learner.to(device).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer(learner.param_groups(), learner.config.optim)
    sampler, collate = Sampler(len(split), effort.batch_size, seed), MultiCropCollate(views, seed)
    steps = range(effort.epochs * len(split) // effort.batch_size)
    made: Iterator[Views]
    if variant == "exact views":
        exact = Exact(split.images, sampler, collate, views)
        made = iter(DataLoader(exact, None, sampler=steps, num_workers=effort.workers))
    else:
        made = train_views(split, sampler, collate, steps, device=device)
    for index, batch in zip(steps, made, strict=True):
        torch.manual_seed(seed_from(seed, index, 0))
        sent = Views(*(part if part is None else part.to(device) for part in batch))
        train_step(learner, learner, optimizer, sent, Step(index, len(steps)), VARIANTS[variant])
    return learner.encoder


@dataclass(frozen=True)
class Exact(Dataset[Views]):
    """The views of a step, made by the tests' oracle: torchvision, image after image."""

    images: Tensor
    sampler: Sampler
    collate: MultiCropCollate
    views: ViewSpec

    def __getitem__(self, step: int) -> Views:
        index, epoch = self.sampler.batch(step)
        images, key = self.images[index], self.collate.key(index, epoch)

        def crops(view: Augment, slot: int) -> Tensor:
            boxes, look = draw_boxes([view], key, slot, *images.shape[-2:]), draw_look([view], key, slot)
            rows = [reference_crop(image, boxes, row, view) for row, image in enumerate(images)]
            return normalize(torch.stack([reference_look(crop, look, row) for row, crop in enumerate(rows)]))

        made = [crops(view, slot) for slot, view in enumerate(self.views.views)]
        count = len(self.views.global_views)
        local = torch.stack(made[count:]) if made[count:] else None
        return Views(torch.stack(made[:count]), local, index, key)


if __name__ == "__main__":
    app()
