"""References: encoders that no method has trained, and what encoder.json says of every encoder."""

from itertools import islice
from typing import Any

import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_zoo.backbones.linear import MOST_SIDE, Linear
from ssl_zoo.backbones.weights import check_weights
from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.plan import build_backbone
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import fitted_images
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.data.splits import Roles
from ssl_zoo.draws import sample
from ssl_zoo.evaluation.encoder import Encoder, frozen_encoder
from ssl_zoo.evaluation.features import to_input

_NORM_BATCHES = 50
_PCA_IMAGES = 5000
_PCA_DIM = 128


def as_given(cell: Cell, parts: Roles, device: torch.device) -> Encoder:
    """What a cell without training evaluates.

    An encoder trained elsewhere, the principal components of the pixels, or the backbone before training.
    """
    shared = cell.shared
    if cell.label == "pixels":
        return _principal_components(cell, parts.train).to(device)
    if cell.frozen:
        encoder, _ = frozen_encoder(
            cell.frozen,
            backbone=shared.backbone.name,
            options=shared.backbone.options,
            image_size=shared.image_size,
        )
        check_weights(cell.frozen, encoder.backbone, cell.options["weights"])
        encoder.card = {"method": None, "encoder": "backbone", **cell.options, **encoder.card}
        return encoder.to(device).to(memory_format=torch.channels_last)
    backbone = build_backbone(shared, cell.seed, cell.init)
    backbone.to(device).to(memory_format=torch.channels_last)
    if cell.init is None:
        _estimate_batch_norms(backbone, parts.pretrain, cell)
    return Encoder(backbone, shared.image_size, card=card(cell, "backbone", 0))


def _principal_components(cell: Cell, split: Split) -> Encoder:
    """PCA of the images (scikit-learn), shrunk to 32 px at most, as a linear backbone of up to 128 units."""
    size = cell.shared.image_size
    chosen = sample(torch.arange(len(split)), _PCA_IMAGES)
    most = min(_PCA_DIM, len(chosen), 3 * min(size, MOST_SIDE) ** 2)
    backbone = Linear(size, out_dim=most)
    batches = (fitted_images(split.images, part, size) for part in torch.split(chosen, 500))
    pixels = torch.cat([backbone.pixels(to_input(batch, None)) for batch in batches])
    pca = PCA(most, svd_solver="randomized", random_state=0).fit(pixels.numpy())
    weight = torch.from_numpy(pca.components_)
    backbone.net.load_state_dict({"weight": weight, "bias": -weight @ torch.from_numpy(pca.mean_)})
    described = card(cell, "backbone", 0) | {"backbone": "linear", "options": {"out_dim": most}}
    return Encoder(backbone, size, card=described)


def _estimate_batch_norms(backbone: nn.Module, split: Split, cell: Cell) -> None:
    """Give an untrained backbone batch-norm statistics of its own, from plain training images."""
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # cumulative average
    sampler = Sampler(len(split), cell.shared.batch_size, cell.seed)
    backbone.train()
    with torch.no_grad():
        for step in islice(range(_NORM_BATCHES), _NORM_BATCHES if norms else 0):
            images = fitted_images(split.images, sampler.batch(step)[0], cell.shared.image_size)
            backbone(to_input(images, None).to(next(backbone.parameters()).device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def card(cell: Cell, role: str, steps: int) -> dict[str, Any]:
    """What encoder.json says of how an encoder was made."""
    shared = cell.shared
    return {
        "backbone": shared.backbone.name,
        "options": shared.backbone.options,
        "init": shared.init if cell.init else None,
        "method": cell.method,
        "encoder": role,
        "budget": {"images": steps * shared.batch_size, "batch_size": shared.batch_size},
        "steps": steps,
        "seed": cell.seed,
        "dataset": shared.dataset,
        "window": cell.data.window,
        "data_fingerprint": shared.fingerprint,
        "config_hash": cell.config_hash,
    }
