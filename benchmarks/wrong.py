"""Methods with one mistake each, as people make them: what `python -m benchmarks.mistakes` trains."""

from collections.abc import Sequence
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ssl_zoo.method import Step, StepOutput, Views
from ssl_zoo.methods.byol import BYOL, BYOLConfig
from ssl_zoo.methods.dino import DINO, DINOConfig, DINOLoss
from ssl_zoo.methods.moco import MoCo
from ssl_zoo.nets import Backbone, cross_view_pairs


class TeacherIsStudent(DINO):
    """`teacher = student`, by reference."""

    def __init__(self, backbone: Backbone, config: DINOConfig) -> None:
        super().__init__(backbone, config)
        self.teacher.module = self.student


class TeacherSeesLocals(DINO):
    """The local crops go through the teacher as well."""

    def forward(self, views: Views, step: Step) -> StepOutput:
        teacher = self.teacher.module
        everything = partial(teacher.features_by_resolution, local_crops=views.local_crops)
        with patch.object(teacher, "features_by_resolution", everything):
            return super().forward(views, step)


class SumOverPairs(DINO):
    """The paper's eq. 3 as it is written: a sum."""

    def forward(self, views: Views, step: Step) -> StepOutput:
        output = super().forward(views, step)
        crops = len(views.global_crops) + (0 if views.local_crops is None else len(views.local_crops))
        return output._replace(loss=output.loss * len(cross_view_pairs(len(views.global_crops), crops)))


class Added(DINOLoss):
    def teacher_distribution(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        return ((teacher_logits.detach() + self.center) / temperature).softmax(-1)


class CenterAdded(DINO):
    """The center is added to the teacher's logits, as the paper's text has it."""

    def __init__(self, backbone: Backbone, config: DINOConfig) -> None:
        super().__init__(backbone, config)
        self.loss = Added(config.out_dim, config.student_temperature, config.center_momentum)


class MovedBeforeUse(DINOLoss):
    def teacher_distribution(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        super().update_center(teacher_logits)
        return super().teacher_distribution(teacher_logits, temperature)

    def update_center(self, teacher_logits: Tensor) -> None:
        pass


class CenterFirst(DINO):
    """The center takes in the batch before it is subtracted from it."""

    def __init__(self, backbone: Backbone, config: DINOConfig) -> None:
        super().__init__(backbone, config)
        self.loss = MovedBeforeUse(config.out_dim, config.student_temperature, config.center_momentum)


class MovedEachMicroBatch(DINO):
    """Teacher and center move once per micro-batch, here of a quarter, and not once per step."""

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        for output in outputs:
            for part in output.carry.chunk(4, dim=1):
                super().on_step_end([output._replace(carry=part)], step)


class NoPredictor(BYOL):
    """The projection itself is compared with the target."""

    def __init__(self, backbone: Backbone, config: BYOLConfig) -> None:
        super().__init__(backbone, config)
        self.predictor = nn.Identity()


class TargetIsOnline(BYOL):
    """`target = online`, by reference."""

    def __init__(self, backbone: Backbone, config: BYOLConfig) -> None:
        super().__init__(backbone, config)
        self.target.module = self.online


class SumOverViews(BYOL):
    """The paper's loss: a sum over both directions."""

    def forward(self, views: Views, step: Step) -> StepOutput:
        output = super().forward(views, step)
        return output._replace(loss=2 * output.loss)


class EnqueuedFirst(MoCo):
    """The batch's keys enter the queue before they are compared with it."""

    def forward(self, views: Views, step: Step) -> StepOutput:
        with torch.no_grad():
            self.enqueue(super().forward(views, step).carry.flatten(0, 1))
        return super().forward(views, step)

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        self.key.update(self.online, self.config.key_momentum)
