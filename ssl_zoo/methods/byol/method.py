"""BYOL as a method: configuration, training step and state."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo.ema import EMA, horizon
from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import Backbone, Branch, cross_view_pairs, each_view, feature_std
from ssl_zoo.optim import Fraction, OptimConfig
from ssl_zoo.registry import register_method
from ssl_zoo.schedules import cosine

Size = Annotated[int, Field(ge=1)]

_VIEWS = ViewSpec(
    global_views=(
        Augment(32, scale=(0.2, 1.0), blur_p=1.0),
        Augment(32, scale=(0.2, 1.0), blur_p=0.1, solarize_p=0.2),
    ),
)


class BYOLConfig(MethodConfig):
    """Defaults for 5,000 to 50,000 small images; the paper's stand in `benchmarks/recipes`."""

    hidden_dim: Size = 512
    out_dim: Size = 64
    target_momentum: Fraction = 0.98
    optim: OptimConfig = OptimConfig(lr=2e-3, weight_decay=0.04)
    views: ViewSpec = _VIEWS

    def space(self) -> dict[str, list[Any]]:
        return super().space() | {
            "hidden_dim": [256, 512, 1024],
            "out_dim": [64, 128, 256],
            "target_momentum": [0.95, 0.97, 0.98, 0.99],
        }


@register_method("byol")
class BYOL(Method):
    """Bootstrap your own latent (Grill et al. 2020); evaluates the online network."""

    Config = BYOLConfig
    config: BYOLConfig

    def __init__(self, backbone: Backbone, config: BYOLConfig) -> None:
        super().__init__(backbone, config)
        self.online = Branch(
            backbone, BYOLProjectionHead(backbone.out_dim, config.hidden_dim, config.out_dim)
        )
        self.predictor = BYOLPredictionHead(config.out_dim, config.hidden_dim, config.out_dim)
        self.target = EMA(self.online)

    @property
    def encoder(self) -> nn.Module:
        return self.online.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        with torch.no_grad():
            targets = each_view(self.target.module, views.global_crops)
        predictions = each_view(
            nn.Sequential(self.online, self.predictor), views.global_crops, views.local_crops
        )
        momentum = self.momentum(step)
        metrics = {
            "target_std": feature_std(targets.flatten(0, 1)),
            "momentum": torch.tensor(momentum),
            "horizon": torch.tensor(horizon(momentum)),
        }
        return StepOutput(byol_loss(predictions, targets), metrics)

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        self.target.update(self.online, self.momentum(step))

    def momentum(self, step: Step) -> float:
        return cosine(step.progress, self.config.target_momentum, 1.0)


def byol_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of 2 - 2 cos over cross-view pairs (eq. 2): predictions [S, B, D], targets [T, B, D] -> scalar."""
    p = F.normalize(predictions.float(), dim=-1)
    z = F.normalize(targets.detach().float(), dim=-1)
    pairs = cross_view_pairs(len(z), len(p))
    return torch.stack([2 - 2 * (p[j] * z[i]).sum(-1).mean() for i, j in pairs]).mean()
