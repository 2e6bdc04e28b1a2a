"""What a training step costs: measured once per method before planning."""

import statistics
import time
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ssl_zoo.budget import StepCost
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import views_of
from ssl_zoo.method import Method, Step, Views
from ssl_zoo.optim import create_optimizer
from ssl_zoo.train import Precision, train_step

_SAMPLE = 64  # images: enough to scale from, cheap enough to measure before every bench
_COUNTED = 16  # images: FLOPs are counted on one, two and three times as many
_TIMED = 3  # whole steps, of which the median is taken


class Cost(NamedTuple):
    """What a method costs: `step`, and the `checkpoint_bytes` of its weights and optimizer."""

    step: StepCost
    checkpoint_bytes: int


def measure(
    method: Method,
    split: Split,
    device: torch.device,
    precision: Precision,
    batch_size: int,
    *,
    threads: int,
    calibrate: bool = False,
) -> Cost:
    """Take real steps on images of `split` with so many `threads` and say what one of `batch_size` costs.

    FLOPs by torch's counter in fp32, eager, with attention as plain matrix products: 2 per multiply-add,
    teacher included, elementwise operations and augmentation excluded. A step's FLOPs are a polynomial of
    the batch size of degree two (products with weights, and of images with each other), so that three small
    steps tell a large one's exactly. Seconds are scaled from a small step; with `calibrate` they are the
    median of three whole ones, views included, after one to warm up.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _measured(method, split, device, precision, batch_size, calibrate)
    finally:
        torch.set_num_threads(before)


def _measured(
    method: Method,
    split: Split,
    device: torch.device,
    precision: Precision,
    batch_size: int,
    calibrate: bool,
) -> Cost:
    method.to(device).to(memory_format=torch.channels_last).train()
    collate = MultiCropCollate(method.config.views)
    optimizer = create_optimizer(method.param_groups(), method.config.optim)

    def look(images: int, number: int) -> Views:
        return views_of(split, torch.arange(images) % len(split), number, collate, device)

    def take(views: Views, number: int, precision: Precision) -> None:
        train_step(method, method, optimizer, views, Step(number, _TIMED + 5), precision)

    def count(images: int, number: int) -> int:
        views = look(images, number)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            take(views, number, "fp32")
        return int(counter.get_total_flops())

    def timed(images: int, number: int) -> float:
        began = time.perf_counter()
        take(look(images, number), number, precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    if batch_size <= 3 * _COUNTED:
        flops = count(batch_size, 0)
    else:
        one, two, three = (count(size * _COUNTED, size - 1) for size in (1, 2, 3))
        times = batch_size / _COUNTED - 1
        flops = round(one + times * (two - one) + times * (times - 1) / 2 * (three - 2 * two + one))
    size = batch_size if calibrate else min(batch_size, _SAMPLE)
    timed(size, 3)  # warms up
    seconds = statistics.median(timed(size, 4 + step) for step in range(_TIMED if calibrate else 1))
    parameters = sum(p.numel() * (3 if p.requires_grad else 1) for p in method.parameters())
    return Cost(StepCost(flops, seconds * batch_size / size), 4 * parameters)
