"""Backbones of timm by `timm:NAME`: convnets, ViTs, Swin and whatever else maps images to features."""

from difflib import get_close_matches
from typing import Any, NamedTuple

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model_in_modules
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_zoo.backbones.vit import TimmViT
from ssl_zoo.nets import Backbone, TokenBackbone, Tokens

PREFIX = "timm:"
# Modules of timm whose networks take further sizes than their own, and the keyword that asks for it
_ANY_SIZE: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({"dynamic_img_size": True}, ["vision_transformer", "vision_transformer_hybrid", "deit", "eva"]),
    ({"strict_img_size": False}, ["swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"]),
)
_NO_OPTIONS = {
    "pretrained": "give init: timm:NAME",
    "checkpoint_path": "give init: FILE",
    "num_classes": "a backbone has no classifier",
    "in_chans": "images are RGB here",
    "features_only": "a backbone gives one vector per image",
}


class Native(NamedTuple):
    """How a network was trained by timm: the `options` that build it so, and its images' `mean` and `std`."""

    options: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Timm(Backbone):
    """A network of timm without classifier; `only_size` in pixels if it takes images of no other size."""

    def __init__(self, net: nn.Module, only_size: int | None = None) -> None:
        super().__init__()
        self.net = net
        self.out_dim = int(net.head_hidden_size)  # type: ignore[arg-type]  # what the classifier would see
        self.only_size = only_size

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, out_dim]; raises ValueError for images of another size than `only_size`."""
        height, width = x.shape[-2:]
        if self.only_size is not None and (height, width) != (self.only_size, self.only_size):
            raise ValueError(
                f"{type(self.net).__name__} takes images of {self.only_size} px alone, got {height}x{width}; "
                "for local crops give a backbone that takes two sizes, such as a convnet, ViT or Swin"
            )
        features: Tensor = self.net(x)
        return features


class TimmEva(TokenBackbone):
    """A ViT of timm with rotary positions (EVA-02, DINOv3), built with `dynamic_img_size=True`."""

    net: Eva

    def __init__(self, net: Eva) -> None:
        super().__init__()
        self.net = net
        self.out_dim = net.head_hidden_size
        self.patch_size = net.patch_embed.patch_size[0]

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x)
        return features

    def tokens(self, x: Tensor, *, mask: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
        """Tokens of images [B, C, H, W]; raises ValueError for `mask` or `keep`, which this net cannot do."""
        if mask is not None or keep is not None:
            raise ValueError(
                "timm's Eva neither masks nor drops patches; give another ViT, such as vit_small"
            )
        out: Tensor = self.net.forward_features(x)
        prefix = self.net.num_prefix_tokens
        grid = self.net.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1]))
        return Tokens(out[:, :prefix], out[:, prefix:], grid)


def create(name: str, image_size: int, **options: Any) -> Backbone:
    """timm's network `name` with fresh weights, for images of `image_size` pixels.

    `options` are keywords of timm's constructor. Raises ValueError for an unknown name, with the nearest, and
    for patches that do not divide the image, TypeError for options that the network does not have.
    """
    fixed, more_sizes = _config(name).fixed_input_size, _more_sizes(name)
    if ours := sorted(_NO_OPTIONS.keys() & options.keys()):
        raise TypeError(f"{PREFIX}{name} takes no option {ours[0]!r}: {_NO_OPTIONS[ours[0]]}")
    sizes = {"img_size": image_size, **more_sizes} if fixed or more_sizes else {}
    try:
        net = timm.create_model(name, pretrained=False, num_classes=0, **{**sizes, **options})
    except (TypeError, AssertionError) as error:
        raise TypeError(f"{PREFIX}{name} cannot be built with {options}: {error}") from error
    size = options.get("img_size", image_size)
    if isinstance(net, VisionTransformer):
        return _divided(TimmViT(net), name, size)
    if isinstance(net, Eva):
        return _divided(TimmEva(net), name, size)
    return Timm(net, only_size=size if fixed and not more_sizes else None)


def native(name: str) -> Native:
    """How timm trained its network `name`; raises ValueError for an unknown name."""
    config = _config(name)
    sized = config.fixed_input_size or _more_sizes(name)
    return Native({"img_size": config.input_size[-1]} if sized else {}, config.mean, config.std)


def pretrained_weights(name: str) -> dict[str, Tensor]:
    """timm's weights for its network `name`, classifier included, from the cache or by a download.

    Raises ValueError for an unknown name and for weights that cannot be had.
    """
    _config(name)
    try:
        net = timm.create_model(name, pretrained=True)  # with its classifier, so that timm loads strictly
    except Exception as error:  # the hub's client raises errors of many libraries
        raise ValueError(
            f"the weights of {PREFIX}{name} cannot be had; check the network, or give a file: {error}"
        ) from error
    weights: dict[str, Tensor] = net.state_dict()
    return weights


def _config(name: str) -> PretrainedCfg:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=1, cutoff=0.5)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else "."
        raise ValueError(f"unknown timm model {architecture!r}{hint} timm.list_models() names them all")
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in known:
        raise ValueError(
            f"timm has no weights {name!r}; it has {', '.join(known) or f'none of {architecture}'}"
        )
    return get_pretrained_cfg(name) or PretrainedCfg()


def _more_sizes(name: str) -> dict[str, Any]:
    for keyword, modules in _ANY_SIZE:
        if is_model_in_modules(name, modules):
            return keyword
    return {}


def _divided(backbone: TimmViT | TimmEva, name: str, image_size: int) -> Backbone:
    if image_size % backbone.patch_size:
        raise ValueError(
            f"{PREFIX}{name} has patches of {backbone.patch_size} px, which do not divide "
            f"image_size={image_size}; give a multiple"
        )
    return backbone
