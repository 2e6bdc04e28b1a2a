"""Supervised training as a reference: labels reach the method through its configuration, never the loop."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import Backbone, Branch
from ssl_zoo.optim import OptimConfig
from ssl_zoo.registry import register_method


class SupervisedConfig(MethodConfig):
    """`labels`: the class of each image of the training set, in its order."""

    labels: tuple[int, ...] = ()
    optim: OptimConfig = OptimConfig(lr=1e-3, weight_decay=0.04)
    views: ViewSpec = ViewSpec(global_views=(Augment(32, scale=(0.25, 1.0)),))


@register_method("supervised")
class Supervised(Method):
    """Cross-entropy on labels found by `views.index`; raises ValueError without labels."""

    Config = SupervisedConfig
    config: SupervisedConfig
    labels: Tensor

    def __init__(self, backbone: Backbone, config: SupervisedConfig) -> None:
        super().__init__(backbone, config)
        if not config.labels:
            raise ValueError("supervised has no labels; give labels=(...), one for each training image")
        self.branch = Branch(backbone, nn.Linear(backbone.out_dim, max(config.labels) + 1))
        self.register_buffer("labels", torch.tensor(config.labels))

    @property
    def encoder(self) -> nn.Module:
        return self.branch.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        logits = self.branch.by_resolution(views.global_crops, views.local_crops).float()
        labels = self.labels[views.index].repeat(len(logits))
        loss = F.cross_entropy(logits.flatten(0, 1), labels)
        accuracy = (logits.flatten(0, 1).argmax(1) == labels).float().mean()
        return StepOutput(loss, {"accuracy": accuracy})
