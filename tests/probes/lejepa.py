"""LeJEPA: views predict their global mean, embeddings are kept Gaussian (Balestriero and LeCun 2025)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import Backbone, Branch
from ssl_zoo.optim import Fraction, OptimConfig
from ssl_zoo.registry import register_method

Size = Annotated[int, Field(ge=1)]

_VIEWS = ViewSpec(
    global_views=(Augment(32, scale=(0.3, 1.0)),) * 2, local=Augment(16, scale=(0.05, 0.3)), local_count=2
)


class LeJEPAConfig(MethodConfig):
    """Defaults for small images; `weight` balances the Gaussian term against invariance."""

    hidden_dim: Size = 128
    out_dim: Size = 32
    slices: Size = 64
    weight: Fraction = 0.05
    optim: OptimConfig = OptimConfig(lr=1e-3, weight_decay=0.05)
    views: ViewSpec = _VIEWS


@register_method("lejepa")
class LeJEPA(Method):
    """Joint embedding without teacher, centre or queue; SIGReg prevents collapse (arXiv 2511.08544)."""

    Config = LeJEPAConfig
    config: LeJEPAConfig

    def __init__(self, backbone: Backbone, config: LeJEPAConfig) -> None:
        super().__init__(backbone, config)
        head = nn.Sequential(
            nn.Linear(backbone.out_dim, config.hidden_dim),
            nn.BatchNorm1d(config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden_dim, config.out_dim),
        )
        self.branch = Branch(backbone, head)

    @property
    def encoder(self) -> nn.Module:
        return self.branch.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        embeddings = self.branch.by_resolution(views.global_crops, views.local_crops).float()
        mean = embeddings[: len(views.global_crops)].mean(0)
        invariance = (embeddings - mean).square().mean()
        directions = torch.randn(embeddings.shape[-1], self.config.slices, device=embeddings.device)
        gaussian = torch.stack([sigreg(view, directions) for view in embeddings]).mean()
        loss = (1 - self.config.weight) * invariance + self.config.weight * gaussian
        return StepOutput(loss, {"invariance": invariance.detach(), "gaussian": gaussian.detach()})


def sigreg(embeddings: Tensor, directions: Tensor, points: int = 17, width: float = 5.0) -> Tensor:
    """Epps-Pulley distance of projections to a standard normal: [B, D], [D, M] -> scalar, mean over slices.

    B times the integral of |empirical characteristic function - exp(-t^2 / 2)|^2 exp(-t^2 / 2) over t.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        t = torch.linspace(-width, width, points, device=embeddings.device)
        target = (-t.square() / 2).exp()
        angles = (embeddings @ (directions / directions.norm(dim=0))).unsqueeze(-1) * t  # [B, M, points]
        error = (angles.cos().mean(0) - target).square() + angles.sin().mean(0).square()
        return len(embeddings) * torch.trapezoid(error * target, t).mean()
