"""The speed benchmark compares like with like, and its page is what was measured."""

import json

import pytest
import torch

from benchmarks.versus import page, pieces
from benchmarks.versus.augmentation import CASES, measure
from benchmarks.versus.ours import Ours
from benchmarks.versus.peer import Batches, Peer
from benchmarks.versus.tasks import LARGE, TASKS, made_up_images
from benchmarks.versus.timing import interleaved

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")  # lightly

STORED = {
    "made": {
        "command": "python -m benchmarks.speed --out x.json",
        "minutes": 9.6,
        "threads": 2,
        "packages": ["torch"],
        "environment": {
            "processor": "EPYC",
            "system": "Linux",
            "started": "2026-01-02T03:04",
            "torch": "2.9",
        },
    },
    "left_out": ["bf16, which this CPU cannot multiply"],
    "gemm": {"fp32": [1.0e11, 2.0e11]},
    "augmentation": [
        {"views": "2 x 32 px", "seconds": {"lightly": [1e-3, 3e-3], "ssl_zoo": [1e-4, 1e-4]}},
        {"views": "large", "seconds": {"ssl_zoo": [1e-4]}},
    ],
    "training": [
        {
            "task": "BYOL",
            "batch_size": 128,
            "workers": 1,
            "flops": 1.6e10,
            "seconds": {
                "lightly": [1.0, 2.0, 4.0],
                "lightly, tuned": [1.0, 1.0, 1.0],
                "ssl_zoo, fp32": [0.5, 0.5, 0.8],
            },
        },
        {
            "task": "MoCo",
            "batch_size": 128,
            "workers": 0,
            "flops": 1e10,
            "seconds": {"lightly": [1.0], "ssl_zoo, fp32": [0.25]},
        },
    ],
    "parts": [{"task": "BYOL", "seconds": {"views": [0.001, 0.003, 0.001], "forward": [0.009]}}],
    "losses": [{"K": 4096, "batch_size": 32, "seconds": {"lightly": [0.2, 0.4], "ssl_zoo": [0.1, 0.1]}}],
    "search": {
        "bank": 45000,
        "queries": 2000,
        "width": 256,
        "k": 200,
        "seconds": {"torch": [3.0], "faiss": [2.0]},
    },
    "compiled": {"compile_seconds": 30.0, "seconds": {"eager": [40e-6], "compiled": [25e-6]}},
    "waits": {"--help": [0.3, 0.4, 0.2]},
    "growth": [{"what": "prototypes K", "value": 1024, "images": 64, "seconds": [0.064, 0.128, 0.192]}],
}


def test_page_is_rendered_from_the_results_file():
    assert page.PAGE.read_text() == page.render(json.loads(page.RESULTS.read_text()))


def test_page_shows_medians_spread_and_ratios_of_rounds():
    text = page.render(STORED)
    for line in (
        "- Left out: bf16, which this CPU cannot multiply",
        "| 2 x 32 px | 2000 (1000 to 3000) | 100 (100 to 100) | 20.0 (10.0 to 30.0) |",
        "| large | - | 100 | - |",
        "| BYOL | 1 | 64 (32 to 128) | 128 (128 to 128) | 256 (160 to 256) | 4.0 (2.0 to 5.0) | "
        "2.0 (1.2 to 2.0) |",
        "| MoCo | 0 | 128 | - | 512 | 4.0 | - |",
        "| BYOL | 125 | 16% |",
        "| BYOL | 1.0 (10%) | 9.0 (90%) |",
        "| prototypes K | 1024 | 2.00 (1.00 to 3.00) |",
        "| 4096 | 300 (200 to 400) | 100 (100 to 100) | 3.0 (2.0 to 4.0) |",
        "| 3000 | 2000 | 1.5 |",
        "compiling takes 30 s where it has not been done before, so it pays from 2.0 million views on.",
        "| --help | 0.3 (0.2 to 0.4) |",
    ):
        assert line in text.splitlines()
    assert "reached 150 (100 to 200) GFLOP/s in fp32" in text


@pytest.mark.parametrize("task", [*TASKS, LARGE], ids=lambda task: task.name)
def test_both_sides_train_as_many_parameters(task):
    """But for DINO's bias before batch norm, which the official head has and lightly's has not."""
    counts = [
        sum(parameter.numel() for parameter in side.parameters() if parameter.requires_grad)
        for side in (Peer(task), Ours(task, made_up_images(16), 16).method)
    ]
    assert counts[1] - counts[0] == (2048 if task.method == "dino" else 0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_both_sides_take_steps_on_the_same_number_of_crops(task):
    images = made_up_images(20)
    supply, ours = Batches(task, images, 16, workers=0), Ours(task, images, 16)
    peer = Peer(task, tuned=True)
    before = [next(side.parameters()).clone() for side in (peer.student, ours.method)]
    assert len(supply.training(peer)(2)) == len(ours(2)) == 2
    for side, start in zip((peer.student, ours.method), before, strict=True):
        assert not torch.equal(next(side.parameters()), start)
    shapes = [tuple(crop.shape) for crop in supply.next()]
    views = ours.views()
    local = [] if views.local_crops is None else views.local_crops
    assert shapes == [tuple(crop.shape) for crop in [*views.global_crops, *local]]
    assert ours.flops() > 1e9
    assert set(ours.parts()) == {"views", "forward", "backward", "optimizer", "state"}


def test_augmentation_is_measured_for_every_library_on_one_thread():
    small = {name: case._replace(images=4) for name, case in CASES.items()}
    rows = measure(small, rounds=2, repetitions=1)
    assert [row["views"] for row in rows] == list(CASES)
    for row in rows:
        assert {"official DINO", "torchvision v2", "lightly", "ssl_zoo"} <= set(row["seconds"])
        assert all(len(values) == 2 and min(values) > 0 for values in row["seconds"].values())


def test_contenders_take_turns():
    order = []

    def contender(name):
        return lambda repetitions: [order.append(name) or float(i) for i in range(repetitions)]

    seconds = interleaved({name: contender(name) for name in "ab"}, rounds=2, repetitions=3)
    assert "".join(order) == "aaabbbaaabbb"
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_learning_is_shown_with_differences_by_seed():
    runs = [
        {"method": "moco", "seed": seed, "variant": variant, "knn_top1": 0.4 + 0.1 * seed + better}
        for seed in range(3)
        for variant, better in (("fast views", 0.0), ("exact views", 0.02))
    ]
    runs += [{"method": "dino", "seed": 0, "variant": "fast views", "knn_top1": 0.9}]
    made = {"images": 5000, "epochs": 3, "backbone": "resnet8", "batch_size": 64}
    made["environment"] = {"processor": "EPYC"}
    text = page.learning({"made": made, "runs": runs})
    assert "| moco | 50.0 ± 24.8 | 52.0 ± 24.8 | +2.0 ± 0.0 |\n| dino | 90.0 | - | - |" in text
    assert "batch 64, on EPYC" in text


def test_losses_and_searches_that_are_timed_agree():
    losses, found = pieces.losses(1, widths=(64,), batch_size=2), pieces.searches(1, 300, 20, 8, 5)
    assert set(losses[0]["seconds"]) == {"lightly", "ssl_zoo"}
    assert set(found["seconds"]) == {"faiss", "torch"}


def test_waits_end_with_a_training_step():
    assert pieces._first_step() > 0
