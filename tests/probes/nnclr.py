"""NNCLR: the positive is the nearest neighbour of a view in a queue of embeddings (Dwibedi et al. 2021)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import Backbone, Branch, cross_view_pairs, each_view
from ssl_zoo.optim import OptimConfig
from ssl_zoo.registry import register_method

Size = Annotated[int, Field(ge=1)]

_VIEW = Augment(32, scale=(0.2, 1.0))


class NNCLRConfig(MethodConfig):
    """Defaults for small images."""

    hidden_dim: Size = 128
    out_dim: Size = 32
    queue_size: Size = 64
    temperature: Annotated[float, Field(gt=0)] = 0.1
    optim: OptimConfig = OptimConfig(lr=1e-3, weight_decay=1e-6)
    views: ViewSpec = ViewSpec(global_views=(_VIEW, _VIEW))


@register_method("nnclr")
class NNCLR(Method):
    """Nearest-neighbour contrast with a support queue (Dwibedi et al. 2021, ICCV)."""

    Config = NNCLRConfig
    config: NNCLRConfig
    queue: Tensor

    def __init__(self, backbone: Backbone, config: NNCLRConfig) -> None:
        super().__init__(backbone, config)
        head = NNCLRProjectionHead(backbone.out_dim, config.hidden_dim, config.out_dim)
        self.branch = Branch(backbone, head)
        self.predictor = NNCLRPredictionHead(config.out_dim, config.hidden_dim, config.out_dim)
        self.register_buffer("queue", F.normalize(torch.randn(config.queue_size, config.out_dim), dim=1))

    @property
    def encoder(self) -> nn.Module:
        return self.branch.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        projections = each_view(self.branch, views.global_crops)
        predictions = torch.stack([self.predictor(view) for view in projections])
        projections, predictions = (F.normalize(x.float(), dim=-1) for x in (projections, predictions))
        losses = [
            nt_xent(self.neighbours(projections[i]), predictions[j], self.config.temperature)
            for i, j in cross_view_pairs(len(projections), len(predictions))
        ]
        return StepOutput(torch.stack(losses).mean(), {}, carry=projections[0].detach())

    @torch.no_grad()
    def neighbours(self, embeddings: Tensor) -> Tensor:
        """The nearest of the queue to each unit embedding: [B, D] -> [B, D]."""
        return self.queue[(embeddings @ self.queue.T).argmax(1)]

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        fresh = [output.carry for output in outputs]
        self.queue.copy_(torch.cat([*fresh, self.queue])[: self.config.queue_size])


def nt_xent(neighbours: Tensor, predictions: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each image's prediction: unit neighbours and predictions [B, D] -> scalar."""
    with torch.autocast(predictions.device.type, enabled=False):
        logits = neighbours @ predictions.T / temperature
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
