"""The contract: every method passes `check_method`, and each seeded fault fails it with a telling message."""

from importlib import import_module

import pytest
import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from ssl_zoo.backbones.vit import ViT
from ssl_zoo.draws import hash64
from ssl_zoo.method import Augment, Method, Step, StepOutput, Views, ViewSpec
from ssl_zoo.methods.dino import DINO, DINOConfig
from ssl_zoo.nets import Backbone
from ssl_zoo.optim import OptimConfig, ParamGroup, split_by_decay
from ssl_zoo.registry import list_methods, method_class
from ssl_zoo.testing import check_method

PROBES = ["lejepa", "mae", "nnclr", "supervised", "swav"]
for probe in PROBES:
    import_module(f"probes.{probe}")

CHECKS = [
    "class_and_config",
    "param_groups_hold_each_trainable_parameter_once",
    "forward_returns_loss_metrics_and_carry",
    "encoder_maps_images_to_features",
    "forward_changes_no_state",
    "state_dict_is_the_whole_truth",
    "on_step_end_leaves_trained_parameters_alone",
    "trained_and_untrained_share_no_storage",
    "gradients_reach_every_parameter",
    "resume_is_bit_exact",
    "schedules_follow_progress",
    "one_step_two_images_and_bf16_work",
]
OPTIONS = {"supervised": {"labels": (0, 1, 2, 3, 3, 2, 1, 0)}}
MULTI_CROP = ViewSpec(
    global_views=(Augment(32, scale=(0.3, 1.0)),) * 3, local=Augment(16, scale=(0.1, 0.3)), local_count=2
)


@pytest.mark.parametrize("name", list_methods())
def test_method_keeps_the_contract(name: str) -> None:
    assert check_method(method_class(name), **OPTIONS.get(name, {})) == CHECKS


@pytest.mark.parametrize("name", ["byol", "dino", "moco"])
def test_method_keeps_the_contract_on_a_vit_with_three_global_and_two_local_crops(name: str) -> None:
    backbone = ViT(32, dim=32, heads=2, depth=2, patch_size=8, drop_path=0.2)
    assert check_method(method_class(name), backbone, views=MULTI_CROP) == CHECKS


@pytest.mark.parametrize(("name", "optimizer"), [("dino", "sgd"), ("swav", "lars")])
def test_freezing_method_keeps_the_contract_with_other_optimizers(name: str, optimizer: str) -> None:
    optim = OptimConfig(name=optimizer, lr=0.1, clip=1.0, clip_mode="global")
    assert check_method(method_class(name), optim=optim) == CHECKS


def test_random_state_of_the_caller_is_left_alone() -> None:
    backbone, before = Tiny(), torch.get_rng_state()
    check_method(DINO, backbone, **SMALL)
    assert torch.equal(before, torch.get_rng_state())


# Seeded faults: DINO with one thing wrong each.


class Tiny(Backbone):
    out_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean((2, 3))


SMALL = {"out_dim": 16, "hidden_dim": 16, "bottleneck_dim": 8, "teacher_temperature_warmup_fraction": 1.0}


class CenterIsNoBuffer(DINO):
    def __init__(self, backbone, config):
        super().__init__(backbone, config)
        center = self.loss.center
        del self.loss.center
        self.loss.center = center


class CenterMovesInForward(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        output = super().forward(views, step)
        self.loss.update_center(output.carry)
        return output


class TeacherIsTheStudent(DINO):
    def __init__(self, backbone, config):
        super().__init__(backbone, config)
        self.teacher.module = self.student


class TeacherSharesWeights(DINO):
    def __init__(self, backbone, config):
        super().__init__(backbone, config)
        for teacher, student in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            teacher.data = student.data


class TeacherMovesInForward(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        self.teacher.update(self.student, 0.9)
        return super().forward(views, step)


class CountsForwardPasses(DINO):
    calls = 0

    def forward(self, views: Views, step: Step) -> StepOutput:
        self.calls += 1
        return super().forward(views, Step(self.calls, 100))


class CountsSteps(DINO):
    steps = 0

    def forward(self, views: Views, step: Step) -> StepOutput:
        return super().forward(views, Step(self.steps, 100))

    def on_step_end(self, outputs, step: Step) -> None:
        super().on_step_end(outputs, step)
        self.steps += 1


class CountsStepsForTheMomentum(DINO):
    steps = 0

    def on_step_end(self, outputs, step: Step) -> None:
        super().on_step_end(outputs, Step(self.steps, 100))
        self.steps += 1


class WarmsUpOverHundredSteps(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        return super().forward(views, Step(min(step.index, 99), 100))


class CarryKeepsTheGraph(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        output = super().forward(views, step)
        return output._replace(carry=[output.carry * output.loss])


class MetricKeepsTheGraph(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        output = super().forward(views, step)
        return output._replace(metrics={"twice": output.loss * 2})


class LossPerImage(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        output = super().forward(views, step)
        return output._replace(loss=output.loss.expand(8))


class LossInHalfPrecision(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        output = super().forward(views, step)
        return output._replace(loss=output.loss.bfloat16())


class HasUnusedParameter(DINO):
    def __init__(self, backbone, config):
        super().__init__(backbone, config)
        self.unused = nn.Parameter(torch.zeros(3))


class FreezesTheStudent(DINO):
    def __init__(self, backbone, config):
        super().__init__(backbone, config)
        self.student.requires_grad_(False)


class ForgetsTheHead(DINO):
    def param_groups(self) -> list[ParamGroup]:
        return split_by_decay(self.student.backbone.named_parameters())


class ListsTheHeadTwice(DINO):
    def param_groups(self) -> list[ParamGroup]:
        return [*super().param_groups(), ParamGroup(list(self.student.head.mlp.parameters()), decay=False)]


class ClampsWeights(DINO):
    def on_step_end(self, outputs, step: Step) -> None:
        super().on_step_end(outputs, step)
        self.student.backbone.net[0].weight.clamp_(-0.01, 0.01)


class EncoderIsTheHead(DINO):
    @property
    def encoder(self) -> nn.Module:
        return self.teacher.module


class EncoderIsNoBackbone(DINO):
    @property
    def encoder(self) -> nn.Module:
        return nn.Sequential(self.teacher.module.backbone)


class EncoderIsAnotherNetwork(DINO):
    @property
    def encoder(self) -> nn.Module:
        return Tiny()


class NeedsFourImages(DINO):
    def forward(self, views: Views, step: Step) -> StepOutput:
        if views.global_crops.shape[1] < 4:
            raise RuntimeError("give me four images")
        return super().forward(views, step)


class ConfigThaws(DINO):
    class Config(DINOConfig):
        model_config = ConfigDict(frozen=False)


class ConfigTakesAnything(DINO):
    class Config(DINOConfig):
        model_config = ConfigDict(extra="allow")


class ConfigAsks(DINO):
    class Config(DINOConfig):
        heads: int


class ConfigHoldsATensor(DINO):
    class Config(DINOConfig):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        weights: Tensor = torch.ones(3)


FAULTS: dict[type[Method], str] = {
    CenterIsNoBuffer: "state_dict_is_the_whole_truth: its state_dict in a new one computes something else",
    CenterMovesInForward: r"forward_changes_no_state: .* moved \['loss.center'\]",
    TeacherIsTheStudent: r"on_step_end_leaves_.*: on_step_end wrote to trained \['student.backbone.*EMA",
    TeacherSharesWeights: r"share_no_storage: \['teacher.module.backbone.*share storage with trained",
    TeacherMovesInForward: r"forward_changes_no_state: .* moved \['teacher.module.backbone",
    CountsForwardPasses: "state_dict_is_the_whole_truth: the same method computes something else.*hidden",
    CountsSteps: "state_dict_is_the_whole_truth: its state_dict in a new one .* counters from step",
    CountsStepsForTheMomentum: r"resume_is_bit_exact: .* differ from 6 in .* State is hidden",
    WarmsUpOverHundredSteps: r"schedules_follow_progress: .* differ in \['the loss'.*step.progress",
    CarryKeepsTheGraph: "forward_returns_.*: carry holds the graph",
    MetricKeepsTheGraph: "forward_returns_.*: metric 'twice' is no detached scalar",
    LossPerImage: r"forward_returns_.*: the loss is \[.*return a finite scalar",
    LossInHalfPrecision: "one_step_.*: the loss is torch.bfloat16 .*float",
    HasUnusedParameter: r"gradients_reach_every_parameter: \['unused'\] got no gradient in 3 steps",
    ForgetsTheHead: r"param_groups_hold_.*: param_groups leaves out \['student.head",
    ListsTheHeadTwice: r"param_groups_hold_.*: param_groups holds \['student.head.* more than once",
    FreezesTheStudent: "param_groups_hold_.*: no parameter requires a gradient; freeze a copy",
    ClampsWeights: r"on_step_end wrote to trained \['student.backbone.net.0.weight'\].*`projected`",
    EncoderIsNoBackbone: "encoder_maps_.*: encoder is a Sequential; return the backbone it was given",
    EncoderIsTheHead: r"encoder_maps_.*; encoder maps to \(8, 16\); it must be \[B, out_dim\] = \(8, 4\)",
    EncoderIsAnotherNetwork: "encoder_maps_.*: encoder holds .* which the method does not",
    NeedsFourImages: "one_step_two_images_.*: raised RuntimeError: give me four images",
    ConfigThaws: "class_and_config: Config can be changed",
    ConfigTakesAnything: "class_and_config: Config takes unknown keys",
    ConfigAsks: r"class_and_config: Config fields \['heads'\] have no default",
    ConfigHoldsATensor: "class_and_config: raised PydanticSerializationError",
}


@pytest.mark.parametrize(("cls", "message"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_fault_is_found(cls: type[Method], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_method(cls, Tiny(), **SMALL)


def test_masks_of_mae_follow_the_key_alone() -> None:
    torch.manual_seed(0)
    method = method_class("mae")(ViT(32, dim=32, heads=2, depth=1), method_class("mae").Config())
    images, index = torch.randn(1, 4, 3, 32, 32), torch.arange(4)

    def loss(key: Tensor, seed: int) -> float:
        torch.manual_seed(seed)
        return method(Views(images, None, index, key), Step(0, 1)).loss.item()

    key = hash64(0, 0, index)
    assert loss(key, seed=1) == loss(key, seed=2)
    assert loss(key, seed=1) != loss(hash64(0, 1, index), seed=1)
