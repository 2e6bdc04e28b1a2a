"""Weights from elsewhere, loaded strictly, under the names that timm and torchvision give them."""

import argparse
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import timm.models.eva as eva
import timm.models.swin_transformer as swin
import timm.models.vision_transformer as vit
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_zoo.backbones.external import PREFIX, pretrained_weights
from ssl_zoo.backbones.resnet import ResNet
from ssl_zoo.nets import Backbone

Weights = dict[str, Tensor]

_NESTED = (
    "teacher",
    "state_dict",
    "model",
)  # where DINO, torch's examples and timm keep weights in a checkpoint
_WRAPPERS = ("module.", "backbone.", "encoder.")
_HEADS = ("fc.", "head.", "head_dist.", "classifier.")
_SIZED = (
    "pos_embed",
    "patch_embed.proj.weight",
    "relative_position_bias_table",
)  # their shape depends on sizes
_RESIZE: tuple[tuple[type[nn.Module], Callable[[Weights, Any], Weights]], ...] = (
    (vit.VisionTransformer, vit.checkpoint_filter_fn),
    (eva.Eva, eva.checkpoint_filter_fn),
    (swin.SwinTransformer, swin.checkpoint_filter_fn),
)
_SHOWN = 10


def load_weights(backbone: Backbone, source: str | Path) -> list[str]:
    """Load `timm:NAME`, or a file: .safetensors, or .pt and .pth that hold nothing but tensors.

    Names are those of `backbone.net`, so files of timm, torchvision and our own encoder.safetensors fit, with
    or without `module.`, `backbone.` or `encoder.` before them all. A head that the backbone lacks is left
    out; position embeddings, patches and windows of another size are resized by timm. Returns notes on both.
    Raises FileNotFoundError; ValueError listing the names that are missing or unexpected and the shapes that
    differ, and for weights that cannot be had or read.
    """
    name, notes = str(source), list[str]()
    if name.startswith(PREFIX):
        weights = pretrained_weights(name.removeprefix(PREFIX))
    else:
        weights = _read(Path(source), notes)
    expected: Weights = backbone.net.state_dict()
    weights = _unwrapped(weights, expected)
    head = [key for key in weights if _is_head(key, expected)]
    weights = {key: value for key, value in weights.items() if key not in head}
    counters = {key: expected[key] for key in expected if key.endswith(".num_batches_tracked")}
    weights = {**counters, **weights}  # files of old lack them
    _check_names(name, weights, expected)
    if head:
        notes.append(f"the head of {name} is left out: {_some(head)}")
    resized = _resized(backbone, name, weights, expected)
    notes += [f"{key} of {name} is resized to {list(value.shape)}" for key, value in resized.items()]
    backbone.net.load_state_dict({**weights, **resized})
    return notes


def name_weights(source: str, backbone: Backbone) -> str:
    """What tells loaded weights apart: the name of their source, without its folder, and their sha256."""
    digest = hashlib.sha256()
    for key, value in sorted(backbone.net.state_dict().items()):
        digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    name = source if source.startswith(PREFIX) else Path(source).name
    return f"{name} sha256:{digest.hexdigest()[:16]}"


def check_weights(source: str, backbone: Backbone, planned: str | None) -> None:
    """Raise ValueError if `backbone` has other weights from `source` than those `planned` with."""
    found = name_weights(source, backbone)
    if found != planned:
        raise ValueError(f"{source} holds {found}, planned was {planned}; plan again in a new folder")


def absolute(source: str) -> str:
    """The source as any working directory understands it."""
    return source if source.startswith(PREFIX) else str(Path(source).absolute())


def _read(file: Path, notes: list[str]) -> Weights:
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}; give timm:NAME or a .safetensors, .pt or .pth file")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):  # DINO and timm keep their arguments
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make torch raise anything
        raise ValueError(
            f"{file} cannot be read as tensors, and anything else could run code; write the weights with "
            f"torch.save(model.state_dict(), FILE): {str(error).partition(chr(10))[0]}"
        ) from error
    while nested := next((key for key in _NESTED if isinstance(_get(content, key), Mapping)), None):
        content = content[nested]
        notes.append(f"of {file} the part {nested!r} is taken")
    if not (
        content and isinstance(content, Mapping) and all(isinstance(v, Tensor) for v in content.values())
    ):
        held = _some(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"{file} is no state dict of tensors, it holds {held or 'nothing'}; write one with "
            "torch.save(model.state_dict(), FILE); of a bench's cell give encoder.safetensors"
        )
    return dict(content)


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def _unwrapped(weights: Weights, expected: Weights) -> Weights:
    """Without the prefixes that all names share, heads aside."""
    while True:
        body = [key for key in weights if not _is_head(key, expected)]
        shared = [prefix for prefix in _WRAPPERS if body and all(key.startswith(prefix) for key in body)]
        if not shared:
            return weights
        weights = {key.removeprefix(shared[0]): value for key, value in weights.items()}


def _is_head(key: str, expected: Weights) -> bool:
    return key.startswith(_HEADS) and key not in expected


def _check_names(name: str, weights: Weights, expected: Weights) -> None:
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or unexpected:
        raise ValueError(
            f"{name} does not fit the backbone, so nothing was loaded; give weights of the same network"
            + (f"\n  missing in the file: {_some(sorted(missing))}" if missing else "")
            + (f"\n  unexpected in the file: {_some(sorted(unexpected))}" if unexpected else "")
        )


def _resized(backbone: Backbone, name: str, weights: Weights, expected: Weights) -> Weights:
    """Those of the weights that have another shape, fitted; raises ValueError if that cannot be."""
    wrong = {key: value for key, value in weights.items() if value.shape != expected[key].shape}
    if wrong and all(key.endswith(_SIZED) for key in wrong):
        for kind, resize in _RESIZE:
            if isinstance(backbone.net, kind):
                fitted = resize(weights, backbone.net)
                wrong = {key: fitted[key] for key in wrong}
    if all(value.shape == expected[key].shape for key, value in wrong.items()):
        return wrong
    shapes = [f"{key} {list(value.shape)} for {list(expected[key].shape)}" for key, value in wrong.items()]
    small = isinstance(backbone, ResNet) and "conv1.weight" in wrong
    stem = "up to 64 px its stem is 3x3: take image_size above 64, or timm's resnet of that name"
    raise ValueError(
        f"{name} has other shapes than the backbone, so nothing was loaded; "
        f"{stem if small else 'give weights of the same network'}\n  {_some(shapes)}"
    )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
