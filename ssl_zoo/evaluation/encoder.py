"""A trained encoder, and the two files that hold it: encoder.safetensors and encoder.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_zoo.backbones import create_backbone
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.data.loading import fit_size
from ssl_zoo.evaluation.features import extract, to_input
from ssl_zoo.nets import Backbone

_FILE = "encoder.safetensors"
_SPEC = ("backbone", "options", "image_size", "method", "encoder")
_NORMALISATION = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}


class Encoder(nn.Module):
    """A backbone together with the preparation of its images; `out_dim` numbers per image."""

    def __init__(self, backbone: Backbone, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.image_size = image_size
        self.out_dim = backbone.out_dim

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, out_dim] of images [B, 3, S, S] as `transform` returns them."""
        features: Tensor = self.backbone(x)
        return features

    def transform(self, image: Image | Tensor) -> Tensor:
        """The input [3, S, S] float32, normalised, for a PIL image or uint8 tensor [C, H, W] of any size."""
        return to_input(_pixels(image), self.image_size)[0]

    def embed(self, images: Tensor | Sequence[Image | Tensor]) -> Tensor:
        """Features [N, out_dim] float32, on the CPU, of images uint8 [N, C, H, W] or a list of any sizes.

        Raises ValueError for an empty list, or images that are neither PIL nor uint8 with 1 or 3 channels.
        """
        if not len(images):
            raise ValueError("no images to embed; give at least one")
        if not isinstance(images, Tensor):
            images = torch.cat([fit_size(_pixels(image), self.image_size) for image in images])
        device = next(self.parameters()).device
        return extract(self.backbone, images, image_size=self.image_size, device=device)


def save_encoder(folder: Path | str, backbone: nn.Module, spec: dict[str, Any]) -> None:
    """Write encoder.safetensors, the weights of a backbone, and encoder.json: `spec`, out_dim, mean and std.

    `spec` has the backbone's name `backbone` and `options`, `image_size`, `method` and `encoder` (which of
    its networks this is: teacher, online or backbone). Raises ValueError for other keys.
    """
    if set(spec) != set(_SPEC):
        raise ValueError(f"an encoder's spec has {sorted(spec)}; it needs exactly {sorted(_SPEC)}")
    folder = Path(folder)
    weights = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    save_file(weights, folder / _FILE)
    described = {**spec, "out_dim": backbone.out_dim, **_NORMALISATION}
    (folder / _FILE).with_suffix(".json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_encoder(run_or_file: Path | str) -> Encoder:
    """The encoder, on the CPU and in eval mode, of a cell folder or a .safetensors file beside its .json.

    Reads nothing that could run code. Raises FileNotFoundError if there is none, ValueError for a bench
    folder with several (naming them) and for weights that do not fit their description.
    """
    file = _find(Path(run_or_file))
    description = file.with_suffix(".json")
    if not description.is_file():
        raise FileNotFoundError(f"{file} needs {description.name} beside it, which says what the weights are")
    spec = json.loads(description.read_text(encoding="utf-8"))
    missing = sorted({*_SPEC, *_NORMALISATION, "out_dim"} - set(spec))
    if missing:
        raise ValueError(f"{description} lacks {', '.join(missing)}; write it with save_encoder")
    given = {key: spec[key] for key in _NORMALISATION}
    if given != _NORMALISATION:
        raise ValueError(f"{description} normalises by {given}; only {_NORMALISATION} is supported")
    backbone = create_backbone(spec["backbone"], image_size=spec["image_size"], **spec["options"])
    try:
        backbone.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise ValueError(
            f"{file} does not fit the backbone that {description.name} describes: {error}"
        ) from None
    return Encoder(backbone, spec["image_size"]).eval()


def _find(path: Path) -> Path:
    if path.suffix == ".safetensors":
        looked, candidates = f"{path}", [path]
    else:
        looked = f"{path / _FILE} and {path / 'cells' / '*' / _FILE}"
        candidates = [path / _FILE, *sorted(path.glob(f"cells/*/{_FILE}"))]
    found = [file for file in candidates if file.is_file()]
    if not found:
        raise FileNotFoundError(f"no encoder: looked for {looked}; give a finished cell's folder or a file")
    if len(found) > 1:
        cells = "".join(f"\n  {file.parent}" for file in found)
        raise ValueError(f"{path} holds {len(found)} encoders; give one of{cells}")
    return found[0]


def _pixels(image: Image | Tensor) -> Tensor:
    """The image as a batch of one, uint8 [1, C, H, W]."""
    if isinstance(image, Tensor):
        return image.unsqueeze(0)
    if isinstance(image, Image):
        pixels: Tensor = pil_to_tensor(image.convert("RGB"))
        return pixels.unsqueeze(0)
    raise ValueError(f"an image is a {type(image).__name__}; give PIL images or uint8 tensors [C, H, W]")
