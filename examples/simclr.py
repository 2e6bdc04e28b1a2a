"""A method of your own in one file: SimCLR (Chen et al. 2020).

    ssl-zoo bench --plugin examples/simclr.py --methods simclr byol --dataset digits

To ship it as a package instead, name it under the entry points `ssl_zoo.methods`:

    [project.entry-points."ssl_zoo.methods"]
    simclr = "your_package.simclr:SimCLR"
"""

import torch
from lightly.models.modules import SimCLRProjectionHead
from pytorch_metric_learning.losses import NTXentLoss

from ssl_zoo import Augment, ViewSpec, ranks, register_method
from ssl_zoo.method import Method, MethodConfig, Step, StepOutput, Views
from ssl_zoo.nets import Backbone, Branch, each_view
from ssl_zoo.optim import OptimConfig

VIEW = Augment(32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur_p=0.5)


class SimCLRConfig(MethodConfig):
    hidden_dim: int = 512
    out_dim: int = 128
    temperature: float = 0.2
    optim: OptimConfig = OptimConfig(lr=2e-3)
    views: ViewSpec = ViewSpec(global_views=(VIEW, VIEW))


@register_method("simclr")
class SimCLR(Method):
    """Each view's positive is the other view of its image, all others in the batch are negatives."""

    Config = SimCLRConfig
    config: SimCLRConfig

    def __init__(self, backbone: Backbone, config: SimCLRConfig) -> None:
        super().__init__(backbone, config)
        self.online = Branch(
            backbone, SimCLRProjectionHead(backbone.out_dim, config.hidden_dim, config.out_dim)
        )
        self.loss = NTXentLoss(config.temperature)

    @property
    def encoder(self) -> torch.nn.Module:
        return self.online.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        projected = ranks.gather(each_view(self.online, views.global_crops).float(), 1)  # all GPUs' images
        images = torch.arange(projected.shape[1], device=projected.device)
        with torch.autocast(projected.device.type, enabled=False):  # losses are summed in float32
            loss = self.loss(projected.flatten(0, 1), images.repeat(len(projected)))
        return StepOutput(loss, {})
