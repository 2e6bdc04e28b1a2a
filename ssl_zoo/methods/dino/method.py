"""DINO as a method: configuration, training step and state."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from ssl_zoo.ema import EMA, horizon
from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.methods.dino.head import DINOHead
from ssl_zoo.methods.dino.loss import Centering, DINOLoss, prototype_metrics
from ssl_zoo.nets import Backbone, Branch, feature_std
from ssl_zoo.optim import Fraction, Momentum, OptimConfig
from ssl_zoo.registry import register_method
from ssl_zoo.schedules import cosine, linear

Positive = Annotated[float, Field(gt=0)]
Size = Annotated[int, Field(ge=1)]

_VIEWS = ViewSpec(
    global_views=(
        Augment(32, scale=(0.25, 1.0), blur_p=1.0),
        Augment(32, scale=(0.25, 1.0), blur_p=0.1, solarize_p=0.2),
    ),
)


class DINOConfig(MethodConfig):
    """Defaults for 5,000 to 50,000 small images; the paper's stand in `benchmarks/recipes`.

    `teacher_temperature_plateaus` warms up in so many steps, as the official code does once per epoch.
    """

    out_dim: Annotated[int, Field(ge=2)] = 1024
    hidden_dim: Size = 512
    bottleneck_dim: Size = 64
    num_layers: Annotated[int, Field(ge=1, le=3)] = 3
    use_bn: bool = True
    norm_last_layer: bool = True
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.06
    warmup_teacher_temperature: Positive = 0.04
    teacher_temperature_warmup_fraction: Fraction = 0.3
    teacher_temperature_plateaus: Size | None = None
    center_momentum: Momentum = 0.9
    centering: Centering = "mean"
    teacher_momentum: Fraction = 0.98
    freeze_last_layer_fraction: Fraction = 0.01
    optim: OptimConfig = OptimConfig(lr=4.4e-3, weight_decay=0.1, clip=3.0)
    views: ViewSpec = _VIEWS

    def space(self) -> dict[str, list[Any]]:
        return super().space() | {
            "out_dim": [512, 1024, 2048, 4096],
            "teacher_momentum": [0.97, 0.98, 0.99, 0.996],
            "teacher_temperature": [0.04, 0.05, 0.06, 0.07],
            "centering": ["mean", "sinkhorn"],
        }


@register_method("dino")
class DINO(Method):
    """Self-distillation with no labels (Caron et al. 2021); evaluates the teacher."""

    Config = DINOConfig
    config: DINOConfig

    def __init__(self, backbone: Backbone, config: DINOConfig) -> None:
        super().__init__(backbone, config)
        head = DINOHead(
            backbone.out_dim,
            config.out_dim,
            config.hidden_dim,
            config.bottleneck_dim,
            config.num_layers,
            config.use_bn,
            config.norm_last_layer,
        )
        self.student = Branch(backbone, head)
        self.teacher = EMA(self.student)
        self.loss = DINOLoss(
            config.out_dim, config.student_temperature, config.center_momentum, config.centering
        )

    @property
    def encoder(self) -> nn.Module:
        return self.teacher.module.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        temperature, momentum = self.temperature(step), self.momentum(step)
        with torch.no_grad():
            teacher_features = self.teacher.module.features_by_resolution(views.global_crops)
            teacher = self.teacher.module.project(teacher_features)
        features = self.student.features_by_resolution(views.global_crops, views.local_crops)
        student = self.student.project(features)
        targets = self.loss.teacher_distribution(teacher, temperature)
        loss = self.loss.cross_entropy(student, targets)
        metrics = {
            **prototype_metrics(loss, targets),
            "student_std": feature_std(features[: len(teacher)].detach().flatten(0, 1)),
            "teacher_std": feature_std(teacher_features.flatten(0, 1)),
            "center_norm": self.loss.center.norm(),
            "teacher_temperature": torch.tensor(temperature),
            "momentum": torch.tensor(momentum),
            "horizon": torch.tensor(horizon(momentum)),
        }
        return StepOutput(loss, metrics, carry=teacher)

    def on_grads_ready(self, step: Step) -> None:
        if step.progress < self.config.freeze_last_layer_fraction:
            for parameter in self.student.head.last_layer.parameters():
                parameter.grad = None  # not zero: AdamW would still decay the prototypes

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        self.loss.update_center(torch.cat([output.carry for output in outputs], dim=1))
        self.teacher.update(self.student, self.momentum(step))

    def momentum(self, step: Step) -> float:
        return cosine(step.progress, self.config.teacher_momentum, 1.0)

    def temperature(self, step: Step) -> float:
        c = self.config
        start, end = c.warmup_teacher_temperature, c.teacher_temperature
        duration, plateaus = c.teacher_temperature_warmup_fraction, c.teacher_temperature_plateaus
        return linear(step.progress, start, end, duration, plateaus)
