"""Made-up features, images and networks for the tests of evaluation."""

import math

import torch
from torch import nn

INF = math.inf


def blobs(count, classes=3, dim=8, spread=1.0, seed=0):
    """Features around one random centre per class, and their labels."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99)) * 2
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (count,), generator=random)
    return centres[y] + spread * torch.randn(count, dim, generator=random), y


def holdout(count, share=5):
    index = torch.arange(count)
    return [(index[index % share != 0], index[index % share == 0])]


def small_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with torch.no_grad():
        net(torch.randn(64, 3, 16, 16))  # running statistics that differ from a batch's
    return net


def pixels(count, size=16, channels=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=random)
