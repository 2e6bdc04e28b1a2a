"""What is trained on both sides: the same backbone, heads, views, loss and optimizer.

They follow lightly's own `docs/source/getting_started/benchmarks/cifar10_benchmark.py`. Its ResNet-18 takes
seconds a step on a few cores, so most tasks have lightly's ResNet-9 at a quarter of its width.
"""

from typing import NamedTuple

import torch
from lightly.models import ResNetGenerator
from torch import Tensor, nn

from ssl_zoo.method import Augment, ViewSpec

LR, MOMENTUM, WEIGHT_DECAY = 0.06, 0.9, 5e-4
TEACHER_MOMENTUM = 0.99
QUEUE, TEMPERATURE, SPLITS = 4096, 0.1, 8  # MoCo's; batch norm sees each of 8 parts of a batch alone

CPU = torch.device("cpu")

_JITTER = (0.4, 0.4, 0.2, 0.1)
_BYOL = Augment(32, (0.08, 1.0), interpolation="bilinear", jitter=_JITTER)
_MOCO = Augment(32, (0.08, 1.0), interpolation="bilinear", jitter=(0.4, 0.4, 0.4, 0.1))
_DINO = Augment(32, (0.4, 1.0), jitter=_JITTER)
_LOCAL = Augment(16, (0.05, 0.4), jitter=_JITTER)


class Task(NamedTuple):
    """A method, the number of its 16 px crops beside two of 32 px, and the backbone."""

    name: str
    method: str
    local: int = 0
    net: str = "resnet-9"
    width: float = 0.25

    @property
    def views(self) -> ViewSpec:
        first = {"byol": _BYOL, "moco": _MOCO, "dino": _DINO}[self.method]
        solarize = 0.0 if self.method == "moco" else 0.2
        second = Augment(
            32, first.scale, first.ratio, first.interpolation, jitter=first.jitter, solarize_p=solarize
        )
        return ViewSpec((first, second), _LOCAL if self.local else None, self.local)


TASKS = (
    Task("BYOL", "byol"),
    Task("MoCo", "moco"),
    Task("DINO, 2 crops", "dino"),
    Task("DINO, 2 + 6 crops", "dino", local=6),
)
LARGE = Task("BYOL, ResNet-18", "byol", net="resnet-18", width=1)


def backbone(task: Task, splits: int = 0) -> nn.Sequential:
    """lightly's ResNet as its benchmark uses it: [B, 3, H, W] -> [B, width(task)]."""
    layers = list(ResNetGenerator(task.net, width=task.width, num_splits=splits).children())[:-1]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def width(task: Task) -> int:
    return int(512 * task.width)


def made_up_images(count: int, size: int = 32) -> Tensor:
    """uint8 [count, 3, size, size]: smooth random fields, which take as long as photos do."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear").mul(255).byte()
