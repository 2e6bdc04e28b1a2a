"""SwAV: views predict each other's balanced cluster assignments (Caron et al. 2020)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from lightly.models.modules import SwaVProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import Backbone, Branch, cross_view_pairs
from ssl_zoo.optim import Fraction, OptimConfig
from ssl_zoo.registry import register_method

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

_VIEWS = ViewSpec(
    global_views=(Augment(32, scale=(0.3, 1.0)),) * 2, local=Augment(16, scale=(0.05, 0.3)), local_count=2
)


class SwAVConfig(MethodConfig):
    """Defaults for small images; the queue takes part after `queue_start_fraction` of the run."""

    hidden_dim: Size = 128
    out_dim: Size = 32
    prototypes: Size = 64
    queue_size: Size = 64
    queue_start_fraction: Fraction = 0.3
    freeze_prototypes_fraction: Fraction = 0.01
    temperature: Positive = 0.1
    epsilon: Positive = 0.05
    optim: OptimConfig = OptimConfig(name="sgd", lr=0.06, weight_decay=1e-4)
    views: ViewSpec = _VIEWS


@register_method("swav")
class SwAV(Method):
    """Swapped assignments between views (Caron et al. 2020, NeurIPS)."""

    Config = SwAVConfig
    projected = frozenset({"prototypes.weight"})
    config: SwAVConfig
    queue: Tensor

    def __init__(self, backbone: Backbone, config: SwAVConfig) -> None:
        super().__init__(backbone, config)
        head = SwaVProjectionHead(backbone.out_dim, config.hidden_dim, config.out_dim)
        self.branch = Branch(backbone, head)
        self.prototypes = nn.Linear(config.out_dim, config.prototypes, bias=False)
        self.normalize_prototypes()
        views = len(config.views.global_views)
        queue = F.normalize(torch.randn(views, config.queue_size, config.out_dim), dim=-1)
        self.register_buffer("queue", queue)

    @property
    def encoder(self) -> nn.Module:
        return self.branch.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        embeddings = self.branch.by_resolution(views.global_crops, views.local_crops).float()
        embeddings = F.normalize(embeddings, dim=-1)
        log_p = (self.prototypes(embeddings).float() / self.config.temperature).log_softmax(-1)
        carry = embeddings[: len(views.global_crops)].detach()
        targets = self.assignments(carry, step)
        pairs = cross_view_pairs(len(targets), len(log_p))
        loss = torch.stack([-(targets[i] * log_p[j]).sum(-1).mean() for i, j in pairs]).mean()
        return StepOutput(loss, {}, carry)

    @torch.no_grad()
    def assignments(self, embeddings: Tensor, step: Step) -> Tensor:
        """Balanced assignments [G, B, K] of the global crops' embeddings [G, B, D]."""
        batch = embeddings.shape[1]
        if step.progress >= self.config.queue_start_fraction:
            embeddings = torch.cat([embeddings, self.queue], dim=1)
        with torch.autocast(embeddings.device.type, enabled=False):
            scores = self.prototypes(embeddings) / self.config.epsilon
        return torch.stack([sinkhorn(view)[:batch] for view in scores])

    def on_grads_ready(self, step: Step) -> None:
        if step.progress < self.config.freeze_prototypes_fraction:
            self.prototypes.weight.grad = None

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        self.normalize_prototypes()
        fresh = torch.cat([output.carry for output in outputs], dim=1)
        self.queue.copy_(torch.cat([fresh, self.queue], dim=1)[:, : self.config.queue_size])

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))


def sinkhorn(scores: Tensor, iterations: int = 3) -> Tensor:
    """Assignments [N, K] whose rows sum to 1 and columns nearly to N / K, from scores / epsilon [N, K]."""
    for _ in range(iterations):
        scores = scores.log_softmax(0).log_softmax(1)
    return scores.exp()
