"""Do fast views and bf16 learn as well? The same trainings with slow exact views, and in fp32.

SSL_ZOO_DATA=... python -m benchmarks.learning

Images, crop boxes and colours are drawn alike: variants of a seed differ in how pixels or products are
computed, and in nothing else. A finished training stands in benchmarks/results/learning.json and is not
repeated.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cyclopts import App
from torch import Tensor
from tqdm import trange

from ssl_zoo import create_backbone, create_method
from ssl_zoo.bench import environment
from ssl_zoo.data.augment import adapt, normalize
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import create_dataset
from ssl_zoo.data.parameters import draw_boxes, draw_look
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.draws import sample, seed_from
from ssl_zoo.evaluation import weighted_knn
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import top_accuracy
from ssl_zoo.method import Augment, Step, Views, ViewSpec
from ssl_zoo.optim import create_optimizer
from ssl_zoo.train import train_step
from tests.reference_views import reference_crop, reference_look

RESULTS = Path(__file__).parent / "results" / "learning.json"
VARIANTS = {"fast views": "fp32", "exact views": "fp32", "fast views, bf16": "bf16"}
app = App(name="python -m benchmarks.learning")


@app.default
def main(
    *,
    method: str = "moco",
    images: int = 2_000,
    epochs: int = 3,
    width: int = 16,
    batch_size: int = 32,
    seeds: int = 3,
) -> None:
    """Train `method` on CIFAR-10 with every variant and seed; print and store k-NN accuracies on its test."""
    torch.set_num_threads(1)
    asked = {
        "method": method,
        "images": images,
        "epochs": epochs,
        "backbone": f"resnet8 width {width}",
        "batch_size": batch_size,
    }
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"made": asked, "runs": []}
    if {name: stored["made"].get(name) for name in asked} != asked:
        raise SystemExit(f"{RESULTS} holds {stored['made']}; move it away to measure {asked}")
    dataset = create_dataset("cifar10")
    train, test = dataset.split("train"), dataset.split("test")
    chosen = sample(torch.arange(len(train)), images)
    bank, labels = train.images[chosen], train.labels[chosen]
    for seed in range(seeds):
        for variant, precision in VARIANTS.items():
            if any(run["seed"] == seed and run["variant"] == variant for run in stored["runs"]):
                continue
            began = time.perf_counter()
            encoder = trained(
                method,
                bank,
                seed,
                epochs,
                width,
                batch_size,
                exact=variant == "exact views",
                precision=precision,
            )
            features, queries = (
                extract(encoder, x, image_size=32, device="cpu") for x in (bank, test.images)
            )
            scores = weighted_knn(features, labels, queries, k=20, num_classes=10)
            stored["runs"].append(
                {
                    "seed": seed,
                    "variant": variant,
                    "knn_top1": top_accuracy(scores, test.labels, 1),
                    "seconds": time.perf_counter() - began,
                }
            )
            print(stored["runs"][-1], flush=True)
            stored["made"] |= {"environment": environment()}
            RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def trained(
    method: str,
    images: Tensor,
    seed: int,
    epochs: int,
    width: int,
    batch_size: int,
    *,
    exact: bool,
    precision: str,
) -> torch.nn.Module:
    """The encoder after training on uint8 `images` [N, 3, 32, 32]."""
    torch.manual_seed(seed)
    network = create_backbone("resnet8", image_size=32, width=width)
    views = adapt(create_method(method, network).config.views, 32, grey=False, flip=True)
    torch.manual_seed(seed)
    learner = create_method(method, network, views=views).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer(learner.param_groups(), learner.config.optim)
    collate, sampler = MultiCropCollate(views, seed), Sampler(len(images), batch_size, seed)
    make: Callable[[Tensor, Tensor, Tensor], Views] = one_by_one(views, collate) if exact else collate.batch
    total = epochs * len(images) // batch_size
    for index in trange(total, mininterval=30, desc=f"seed {seed}, exact={exact}, {precision}"):
        positions, epoch = sampler.batch(index)
        torch.manual_seed(seed_from(seed, index, 0))
        made = make(images[positions], positions, epoch)
        train_step(learner, learner, optimizer, made, Step(index, total), precision)
    return learner.encoder


def one_by_one(views: ViewSpec, collate: MultiCropCollate) -> Callable[[Tensor, Tensor, Tensor], Views]:
    """`collate.batch` by the tests' oracle: torchvision, image after image."""

    def crops(images: Tensor, key: Tensor, view: Augment, slot: int) -> Tensor:
        boxes, look = draw_boxes([view], key, slot, *images.shape[-2:]), draw_look([view], key, slot)
        rows = [reference_crop(image, boxes, row, view) for row, image in enumerate(images)]
        return normalize(torch.stack([reference_look(crop, look, row) for row, crop in enumerate(rows)]))

    def make(images: Tensor, index: Tensor, epoch: Tensor) -> Views:
        key = collate.key(index, epoch)
        made = [crops(images, key, view, slot) for slot, view in enumerate(views.global_views)]
        return Views(torch.stack(made), None, index, key)

    return make


if __name__ == "__main__":
    app()
