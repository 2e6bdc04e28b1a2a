"""What a training step costs: measured once per method before planning."""

import time
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import views_of
from ssl_zoo.method import Method, Step
from ssl_zoo.optim import create_optimizer
from ssl_zoo.train import Precision, train_step

_SAMPLE = 64  # images: enough to scale from, cheap enough to measure before every bench


class Cost(NamedTuple):
    """Cost of training on one image, in FLOPs and seconds here; `checkpoint_bytes` of the whole method.

    FLOPs count 2 per multiply-add, teacher included, elementwise operations and augmentation excluded.
    """

    flops_per_image: int
    seconds_per_image: float
    checkpoint_bytes: int


def measure(method: Method, split: Split, device: torch.device, precision: Precision) -> Cost:
    """Take real steps on images of `split`: one counted in fp32, one to warm up, one timed."""
    method.to(device).to(memory_format=torch.channels_last).train()
    positions = torch.arange(min(_SAMPLE, len(split)))
    collate = MultiCropCollate(method.config.views)
    optimizer = create_optimizer(method.param_groups(), method.config.optim)

    def take(number: int, precision: Precision) -> None:
        views = views_of(split, positions, number, collate, device)
        train_step(method, method, optimizer, views, Step(number, 3), precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with FlopCounterMode(display=False) as counter:
        take(0, "fp32")
    take(1, precision)
    began = time.perf_counter()
    take(2, precision)
    seconds = time.perf_counter() - began
    parameters = sum(p.numel() * (3 if p.requires_grad else 1) for p in method.parameters())
    return Cost(counter.get_total_flops() // len(positions), seconds / len(positions), 4 * parameters)
