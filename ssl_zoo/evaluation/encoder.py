"""A trained encoder, and the two files that hold it: encoder.safetensors and encoder.json."""

import json
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from ssl_zoo.backbones import create_backbone
from ssl_zoo.backbones.external import PREFIX, Timm, native
from ssl_zoo.backbones.weights import load_weights
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from ssl_zoo.data.decode import Window, as_rgb
from ssl_zoo.data.loading import fit_size
from ssl_zoo.data.photos import Photos
from ssl_zoo.evaluation.features import evaluating, extract, to_input
from ssl_zoo.files import replace_file, write_text
from ssl_zoo.nets import Backbone, TokenBackbone

_FILE = "encoder.safetensors"
_NEEDED = ("backbone", "options", "image_size", "mean", "std", "out_dim")
_PACKAGES = ("ssl-zoo", "torch", "torchvision", "timm")

Images = Tensor | Photos | Sequence[Image | Tensor]


class Encoder(nn.Module):
    """A backbone together with the preparation of its images; `out_dim` numbers per image.

    Images are fitted to `image_size` pixels and normalised by `mean` and `std` per channel. `card` tells what
    the encoder is and how it was made: the content of encoder.json.
    """

    def __init__(
        self,
        backbone: Backbone,
        image_size: int,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.image_size = image_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.out_dim = backbone.out_dim
        self.card = card or {}

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, out_dim] of images [B, 3, S, S] as `transform` returns them."""
        features: Tensor = self.backbone(x)
        return features

    def transform(self, image: Image | Tensor) -> Tensor:
        """The input [3, S, S] float32, normalised, for a PIL image or uint8 tensor [C, H, W] of any size."""
        return to_input(_pixels(image, self.window), self.image_size, self.mean, self.std)[0]

    @property
    def window(self) -> Window:
        """How grey images of more than 8 bits are read, as `read_rgb` takes it: as in the training."""
        known: Any = self.card.get("window", "dtype")
        window: Window = tuple(known) if isinstance(known, list) else known
        return window

    def from_views(self, x: Tensor) -> Tensor:
        """Views [B, 3, S, S], which come normalised for ImageNet, normalised as the encoder expects them."""
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return x
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return normalize(x * std + mean, self.mean, self.std)

    def embed(self, images: Images, *, workers: int | None = None) -> Tensor:
        """Features [N, out_dim] float32, on the CPU, of images uint8 [N, C, H, W], photos or a list.

        Photos are decoded by `workers` processes (None: one per core, up to 8). Raises ValueError for an
        empty list, or images that are neither PIL nor uint8 with 1 or 3 channels.
        """
        return self._extract(self.backbone, images, workers)

    def embed_tokens(self, images: Images) -> Tensor:
        """Patch tokens [N, P, D] float32, on the CPU, row by row from the top left; `images` as in `embed`.

        Raises ValueError for a backbone without tokens.
        """
        if not isinstance(self.backbone, TokenBackbone):
            raise ValueError(
                f"{self.card.get('backbone', type(self.backbone).__name__)} has no patch tokens; "
                "take an encoder whose backbone is a ViT"
            )
        return self._extract(_Patches(self.backbone), images, None)

    def to_onnx(self, path: Path | str) -> None:
        """Write an ONNX file: `images` float32 [B, 3, S, S] as from `transform` -> `features` [B, out_dim].

        Any batch size. Raises ModuleNotFoundError without the extra `onnx`.
        """
        try:
            import onnxscript  # noqa: F401  # torch's exporter imports it late
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("ONNX files need an extra: pip install 'ssl-zoo[onnx]'") from error
        example = torch.zeros(2, 3, self.image_size, self.image_size, device=next(self.parameters()).device)
        with evaluating(self):
            torch.onnx.export(
                self,
                (example,),
                path,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )

    def _extract(self, network: nn.Module, images: Images, workers: int | None) -> Tensor:
        if not len(images):
            raise ValueError("no images to embed; give at least one")
        if not isinstance(images, Tensor | Photos):
            images = torch.cat([fit_size(_pixels(image, self.window), self.image_size) for image in images])
        device = next(self.parameters()).device
        return extract(
            network,
            images,
            image_size=self.image_size,
            device=device,
            workers=workers,
            mean=self.mean,
            std=self.std,
        )


class _Patches(nn.Module):
    def __init__(self, backbone: TokenBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.tokens(x).patches


def save_encoder(folder: Path | str, encoder: Encoder) -> None:
    """Write encoder.safetensors, weights under the names of timm or torchvision, and encoder.json, the card.

    Raises ValueError for a card that does not name the `backbone` and its `options`.
    """
    card = {
        **encoder.card,
        "image_size": encoder.image_size,
        "mean": encoder.mean,
        "std": encoder.std,
        "out_dim": encoder.out_dim,
        "versions": {package: version(package) for package in _PACKAGES},
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    if missing := [key for key in _NEEDED if key not in card]:
        raise ValueError(
            f"the encoder's card lacks {', '.join(missing)}; give Encoder(..., card=...) with it"
        )
    file = Path(folder) / _FILE
    weights = encoder.backbone.net.state_dict()
    whole = save({name: value.detach().cpu().contiguous() for name, value in weights.items()})
    replace_file(file, lambda handle: handle.write(whole))
    write_text(file.with_suffix(".json"), json.dumps(card, indent=2) + "\n")


def load_encoder(run_or_file: Path | str) -> Encoder:
    """The encoder, on the CPU and in eval mode, of a cell folder or a .safetensors file beside its .json.

    Reads nothing that could run code. Raises FileNotFoundError if there is none, ValueError for a bench
    folder with several (naming them) and for weights that do not fit their description.
    """
    file = _find(Path(run_or_file))
    description = file.with_suffix(".json")
    if not description.is_file():
        raise FileNotFoundError(f"{file} needs {description.name} beside it, which says what the weights are")
    try:
        card = json.loads(description.read_text(encoding="utf-8"))
        missing = sorted(set(_NEEDED) - set(card))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{description} is damaged ({error}); copy it again") from error
    if missing:
        raise ValueError(f"{description} lacks {', '.join(missing)}; write it with save_encoder")
    try:
        backbone = create_backbone(card["backbone"], image_size=card["image_size"], **card["options"])
        backbone.net.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError, TypeError, AttributeError, OSError) as error:
        raise ValueError(
            f"{file} does not fit the backbone that {description.name} describes: {error}"
        ) from None
    return Encoder(backbone, card["image_size"], mean=card["mean"], std=card["std"], card=card).eval()


def frozen_encoder(
    source: str, *, backbone: str, options: dict[str, Any], image_size: int
) -> tuple[Encoder, list[str]]:
    """An encoder trained elsewhere and notes on how it was read: `timm:NAME`, one that we saved, or weights.

    timm's network is built as it was trained, with its mean and std, and sees images of `image_size` pixels
    or the nearest size that it takes; our own prepares images as in its training; weights without a card go
    into the `backbone` with its `options`. Raises as `load_encoder` and `load_weights`.
    """
    path = Path(source)
    if source.startswith(PREFIX):
        return _from_timm(source, image_size)
    if path.is_dir() or (path.suffix == ".safetensors" and path.with_suffix(".json").is_file()):
        return load_encoder(path), []
    network = create_backbone(backbone, image_size, **options)
    notes = load_weights(network, path)
    return Encoder(network, image_size, card={"backbone": backbone, "options": options}).eval(), notes


def _from_timm(source: str, image_size: int) -> tuple[Encoder, list[str]]:
    options, mean, std = native(source.removeprefix(PREFIX))
    network = create_backbone(source, image_size, **options)
    notes = load_weights(network, source)
    if isinstance(network, TokenBackbone):
        image_size = network.patch_size * max(1, round(image_size / network.patch_size))
    elif isinstance(network, Timm) and network.only_size is not None:
        image_size = network.only_size
    notes.append(f"{source} sees images of {image_size} px, normalised by its own mean {mean} and std {std}")
    card = {"backbone": source, "options": options}
    return Encoder(network, image_size, mean=mean, std=std, card=card).eval(), notes


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


def _pixels(image: Image | Tensor, window: Window) -> Tensor:
    """The image as a batch of one, uint8 [1, C, H, W]."""
    if isinstance(image, Tensor):
        return image.unsqueeze(0)
    if isinstance(image, Image):
        pixels: Tensor = pil_to_tensor(as_rgb(image, window))
        return pixels.unsqueeze(0)
    raise ValueError(f"an image is a {type(image).__name__}; give PIL images or uint8 tensors [C, H, W]")
