"""SimSiam: the prediction of one view matches the projection of another (Chen & He 2021, Algorithm 1)."""

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from torch import nn

from ssl_zoo import Augment, ViewSpec, register_method
from ssl_zoo.method import Method, MethodConfig, Step, StepOutput, Views
from ssl_zoo.nets import Backbone, Branch, cross_view_pairs, each_view
from ssl_zoo.optim import OptimConfig, ParamGroup, split_by_decay

VIEW = Augment(32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.5)


class SimSiamConfig(MethodConfig):
    """Defaults for small images; the paper has 2048 and 512 units."""

    out_dim: int = 512
    hidden_dim: int = 128
    optim: OptimConfig = OptimConfig(name="sgd", lr=0.06, weight_decay=5e-4)
    views: ViewSpec = ViewSpec(global_views=(VIEW, VIEW))


@register_method("simsiam")
class SimSiam(Method):
    """Twins without negatives and without a momentum network; evaluates the online network."""

    Config = SimSiamConfig
    config: SimSiamConfig

    def __init__(self, backbone: Backbone, config: SimSiamConfig) -> None:
        super().__init__(backbone, config)
        head = SimSiamProjectionHead(backbone.out_dim, config.out_dim, config.out_dim)
        self.online = Branch(backbone, head)
        self.predictor = SimSiamPredictionHead(config.out_dim, config.hidden_dim, config.out_dim)
        self.loss = NegativeCosineSimilarity()

    @property
    def encoder(self) -> nn.Module:
        return self.online.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        z = each_view(self.online, views.global_crops, views.local_crops).float()  # one batch per view
        p = torch.stack([self.predictor(view) for view in z]).float()
        pairs = cross_view_pairs(len(views.global_crops), len(z))  # targets are global crops only
        loss = torch.stack([self.loss(p[j], z[i].detach()) for i, j in pairs]).mean()
        return StepOutput(loss, {})

    def param_groups(self) -> list[ParamGroup]:
        """The predictor keeps its learning rate (section 4.2)."""
        predictor = [
            group._replace(fixed_lr=True) for group in split_by_decay(self.predictor.named_parameters())
        ]
        return [*split_by_decay(self.online.named_parameters()), *predictor]
