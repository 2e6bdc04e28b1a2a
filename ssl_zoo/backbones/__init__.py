"""Backbones by name, for the image size they will see."""

from collections.abc import Callable
from typing import Any

from ssl_zoo.backbones import external
from ssl_zoo.backbones.linear import Linear
from ssl_zoo.backbones.resnet import ResNet, ResNet8
from ssl_zoo.backbones.vit import ViT
from ssl_zoo.errors import unknown
from ssl_zoo.nets import Backbone

_BUILDERS: dict[str, Callable[..., Backbone]] = {
    "linear": lambda image_size, **options: Linear(image_size, **options),
    "resnet8": lambda image_size, **options: ResNet8(**options),
    "resnet18": lambda image_size, **options: ResNet("resnet18", image_size, **options),
    "resnet34": lambda image_size, **options: ResNet("resnet34", image_size, **options),
    "resnet50": lambda image_size, **options: ResNet("resnet50", image_size, **options),
    "vit_tiny": lambda image_size, **options: ViT(image_size, dim=192, heads=3, **options),
    "vit_small": lambda image_size, **options: ViT(image_size, dim=384, heads=6, **options),
    "vit_base": lambda image_size, **options: ViT(image_size, dim=768, heads=12, **options),
}


def create_backbone(name: str, image_size: int = 32, **options: Any) -> Backbone:
    """A backbone with fresh weights from torch's generator, for RGB images of `image_size` pixels.

    `name` is one of `list_backbones()`, or `timm:NAME`, whose options are keywords of timm's constructor.
    Raises ValueError for an unknown name, TypeError for an option that this backbone does not have.
    """
    if name.startswith(external.PREFIX):
        return external.create(name.removeprefix(external.PREFIX), image_size, **options)
    if name not in _BUILDERS:
        raise unknown("backbone", name, [*_BUILDERS, f"{external.PREFIX}NAME"])
    return _BUILDERS[name](image_size, **options)


def list_backbones() -> list[str]:
    """The names that `create_backbone` takes besides `timm:NAME`."""
    return sorted(_BUILDERS)
