"""The linear probe of the DINO paper: SGD on the class tokens of the last blocks of a ViT."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo.backbones.external import TimmEva
from ssl_zoo.backbones.vit import TimmViT
from ssl_zoo.data.datasets import Split
from ssl_zoo.draws import permutation
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import check_labelled, top_accuracy
from ssl_zoo.evaluation.linear import balanced_accuracy
from ssl_zoo.nets import Backbone


class LastBlocks(NamedTuple):
    """What the probe sees of a ViT: the normalised class tokens of its `n_last_blocks`, one behind the other,
    and with `avgpool_patch_tokens` the mean of the last block's patches. The paper: 4 without for ViT-S, 1
    with for ViT-B. Any other backbone, and a ViT without class token, gives its own features."""

    n_last_blocks: int = 4
    avgpool_patch_tokens: bool = False


_PAPER = LastBlocks()


def sgd_probe(
    encoder: Encoder | Backbone,
    train: Split,
    test: Split,
    blocks: LastBlocks = _PAPER,
    *,
    epochs: int = 100,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
) -> dict[str, float]:
    """Train a linear layer on frozen features of all of `train` by SGD; returns accuracies on `test`.

    `sgd_probe_top1`, `sgd_probe_top5` and `sgd_probe_balanced_accuracy` are shares in [0, 1]. As
    eval_linear.py of facebookresearch/dino: weights from N(0, 0.01), bias 0, learning rate `lr` x
    batch_size / 256, momentum 0.9, no weight decay, cosine to 0 by epoch. Two things differ: features are
    computed once, so images are not cropped and mirrored at random, and the last epoch counts, not the best
    one on `test`. The same seed gives the same numbers; images are treated as in `finetune`.
    Raises ValueError for missing labels, labels of one class, splits of different classes, and more blocks
    than there are; FloatingPointError for features or weights that are not finite.
    """
    train_y, test_y = check_labelled(train, test)
    if not isinstance(encoder, Encoder):
        encoder = Encoder(encoder, train.largest_side)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    network = _features(encoder.backbone, blocks).to(place)
    train_x, test_x = (
        extract(
            network,
            split.images,
            image_size=encoder.image_size,
            device=place,
            workers=workers,
            mean=encoder.mean,
            std=encoder.std,
        ).to(place)
        for split in (train, test)
    )

    layer = nn.Linear(train_x.shape[1], len(train.classes), device="meta").to_empty(device="cpu")
    nn.init.normal_(layer.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(layer.bias)
    layer, train_y = layer.to(place), train_y.to(place)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr * batch_size / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for batch in torch.split(permutation(len(train), seed, epoch).to(place), batch_size):
            loss = F.cross_entropy(layer(train_x[batch]), train_y[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        scores = layer(test_x).cpu()
    if not torch.isfinite(scores).all():
        raise FloatingPointError(f"the scores of the SGD probe are not finite; lower lr={lr:g}")
    return {
        "sgd_probe_top1": top_accuracy(scores, test_y, 1, floor=-torch.inf),
        "sgd_probe_top5": top_accuracy(scores, test_y, 5, floor=-torch.inf),
        "sgd_probe_balanced_accuracy": balanced_accuracy(scores, test_y),
    }


class _LastBlocks(nn.Module):
    def __init__(self, backbone: TimmViT | TimmEva, blocks: LastBlocks) -> None:
        super().__init__()
        self.net = backbone.net
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        layers: list[tuple[Tensor, Tensor]] = self.net.forward_intermediates(  # type: ignore[assignment]
            x,
            indices=self.blocks.n_last_blocks,
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        features = [prefix[:, 0] for _, prefix in layers]
        if self.blocks.avgpool_patch_tokens:
            features.append(layers[-1][0].mean(1))
        if isinstance(self.net.norm, nn.Identity):  # such as EVA-02's, which normalises what it has pooled
            features = [self.net.fc_norm(feature) for feature in features]
        return torch.cat(features, dim=1)


def _features(backbone: Backbone, blocks: LastBlocks) -> nn.Module:
    if blocks.n_last_blocks < 1:
        raise ValueError(f"n_last_blocks={blocks.n_last_blocks}; give 1 or more")
    if not isinstance(backbone, TimmViT | TimmEva) or backbone.net.cls_token is None:
        return backbone
    depth = len(backbone.net.blocks)
    if blocks.n_last_blocks > depth:
        raise ValueError(f"n_last_blocks={blocks.n_last_blocks}: the backbone has {depth}; give 1 to {depth}")
    return _LastBlocks(backbone, blocks)
