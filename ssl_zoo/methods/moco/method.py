"""MoCo v2 as a method: configuration, training step, queue."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

import torch
from lightly.models.modules import MoCoProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo import ranks
from ssl_zoo.batch_norm import group_batch_norms, groups_of_two_or_more
from ssl_zoo.ema import EMA, horizon
from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import (
    Backbone,
    Branch,
    cross_view_pairs,
    each_view,
    feature_std,
)
from ssl_zoo.optim import Fraction, OptimConfig
from ssl_zoo.registry import register_method

Size = Annotated[int, Field(ge=1)]

_VIEW = Augment(32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.5)


class MoCoConfig(MethodConfig):
    """Defaults for 5,000 to 50,000 small images; the paper's stand in `benchmarks/recipes`.

    `batch_norm_groups` parts of the batch are normalised apart, as on several devices; keys are dealt to them
    differently from queries, so that no statistic gives the positive away (Shuffle BN).
    """

    hidden_dim: Size = 512
    out_dim: Size = 128
    queue_size: Size = 4096
    temperature: Annotated[float, Field(gt=0)] = 0.2
    key_momentum: Fraction = 0.99
    batch_norm_groups: Size = 8
    optim: OptimConfig = OptimConfig(lr=2e-3, weight_decay=0.04)
    views: ViewSpec = ViewSpec(global_views=(_VIEW, _VIEW))

    def for_data(self, images: int) -> Self:
        return self.model_copy(update={"queue_size": max(1, min(self.queue_size, images // 2))})

    def space(self) -> dict[str, list[Any]]:
        return super().space() | {
            "out_dim": [64, 128, 256],
            "temperature": [0.07, 0.1, 0.2],
            "key_momentum": [0.97, 0.98, 0.99, 0.996],
        }


@register_method("moco")
class MoCo(Method):
    """Momentum contrast, symmetric over the views; evaluates the online network."""

    Config = MoCoConfig
    config: MoCoConfig
    queue: Tensor
    queue_pointer: Tensor

    def __init__(self, backbone: Backbone, config: MoCoConfig) -> None:
        super().__init__(backbone, config)
        group_batch_norms(backbone, config.batch_norm_groups)
        head = MoCoProjectionHead(backbone.out_dim, config.hidden_dim, config.out_dim, batch_norm=False)
        self.online = Branch(backbone, head)
        self.key = EMA(self.online)
        self.register_buffer("queue", F.normalize(torch.randn(config.queue_size, config.out_dim), dim=1))
        self.register_buffer("queue_pointer", torch.zeros((), dtype=torch.int64))

    @property
    def encoder(self) -> nn.Module:
        return self.online.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        with torch.no_grad():
            dealt = deal(len(views.index) * ranks.count(), self.config.batch_norm_groups, views.index.device)
            crops = ranks.gather(views.global_crops, 1)[:, ranks.own(dealt)]
            keys = ranks.gather(each_view(self.key.module, crops), 1)[:, ranks.own(dealt.argsort())]
            keys = F.normalize(keys.float(), dim=-1)
        queries = each_view(self.online, views.global_crops, views.local_crops)
        queries = F.normalize(queries.float(), dim=-1)
        losses = [
            contrastive_loss(queries[j], keys[i], self.queue, self.config.temperature)
            for i, j in cross_view_pairs(len(keys), len(queries))
        ]
        metrics = {
            "key_std": feature_std(keys.flatten(0, 1)),
            "momentum": torch.tensor(self.config.key_momentum),
            "horizon": torch.tensor(horizon(self.config.key_momentum)),
        }
        return StepOutput(torch.stack(losses).mean(), metrics, carry=keys)

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        keys = torch.cat([output.carry for output in outputs], dim=1)
        self.enqueue(ranks.gather(keys, 1).flatten(0, 1))
        self.key.update(self.online, self.config.key_momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Write keys [N, D] over the oldest of the queue; the last ones stay where N exceeds the queue."""
        size = len(self.queue)
        slots = (self.queue_pointer + torch.arange(len(keys), device=keys.device)) % size
        self.queue[slots[-size:]] = keys[-size:]
        self.queue_pointer.copy_((self.queue_pointer + len(keys)) % size)


def deal(batch: int, groups: int, device: torch.device) -> Tensor:
    """Order [batch] that puts positions equal modulo `groups` side by side, as cards are dealt to players.

    Small batches have as many groups as their batch norms.
    """
    groups = groups_of_two_or_more(batch, groups)
    return (torch.arange(batch, device=device) % groups).argsort(stable=True)


def contrastive_loss(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE (He et al., eq. 1): unit queries [B, D], positives `keys` [B, D], negatives `queue` [K, D]."""
    with torch.autocast(queries.device.type, enabled=False):
        positive = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([positive, queries @ queue.T], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.int64, device=queries.device))
