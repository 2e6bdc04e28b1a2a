"""Residual networks: torchvision's with the stem that small images need, and a small one for CPUs."""

import torchvision.models
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from ssl_zoo.nets import Backbone

SMALL_IMAGE = 64  # px; up to here the ImageNet stem would throw most of the image away
MOST_WIDTH = 4096


class ResNet(Backbone):
    """torchvision's ResNet without classifier; 3x3 stem, no pooling up to 64 px (as SimCLR on CIFAR-10)."""

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        net = torchvision.models.get_model(name, weights=None)
        self.out_dim = net.fc.in_features
        net.fc = nn.Identity()
        if image_size <= SMALL_IMAGE:
            net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
            net.maxpool = nn.Identity()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x)
        return features


class ResNet8(Backbone):
    """4x4 stride-2 stem, three basic blocks of 1, 2 and 4 times `width`: learns much per CPU second."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        if not 1 <= width <= MOST_WIDTH:
            raise ValueError(f"width={width}; give 1 to {MOST_WIDTH}")
        self.out_dim = 4 * width
        self.net = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            BasicBlock(width, width),
            BasicBlock(width, 2 * width, stride=2, downsample=_shortcut(width, 2 * width)),
            BasicBlock(2 * width, 4 * width, stride=2, downsample=_shortcut(2 * width, 4 * width)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x)
        return features


def _shortcut(fan_in: int, fan_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(fan_out)
    )
