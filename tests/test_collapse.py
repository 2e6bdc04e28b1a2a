"""Collapse: cause and alarm on constructed logits and in real short runs."""

import math

import pytest
import torch
from torch import Tensor

from ssl_zoo import create_backbone, create_dataset, create_method, fit
from ssl_zoo.evaluation.collapse import Alarm, collapse_cause, explain_collapse
from ssl_zoo.method import Augment, Method, ViewSpec
from ssl_zoo.methods.dino import DINOLoss
from ssl_zoo.methods.dino.loss import prototype_metrics
from ssl_zoo.optim import OptimConfig

WIDTH = 64
PLAIN = OptimConfig(lr=2e-3, warmup_fraction=0.0)
VIEW = Augment(16, (0.6, 1.0), flip=0.0)


def metrics(student: Tensor, teacher: Tensor, **options) -> dict[str, float]:
    """What DINO logs for the logits of two student views and two teacher views."""
    loss = DINOLoss(WIDTH, **options)
    targets = loss.teacher_distribution(teacher, 0.04)
    return {
        name: value.item()
        for name, value in prototype_metrics(loss.cross_entropy(student, targets), targets).items()
    }


def sharp(prototypes: Tensor) -> Tensor:
    """Logits of two views that give image i to prototype `prototypes[i]` alone."""
    return torch.nn.functional.one_hot(prototypes, WIDTH).float().expand(2, -1, -1)


# Constructed logits


def test_equal_logits_are_a_uniform_collapse() -> None:
    logged = metrics(torch.zeros(2, 8, WIDTH), torch.zeros(2, 8, WIDTH))
    assert logged["teacher_entropy"] == pytest.approx(math.log(WIDTH))
    assert logged["loss_gap"] == pytest.approx(0, abs=1e-5)
    assert collapse_cause(logged) == "uniform"


def test_one_prototype_for_all_images_is_a_collapse_to_one_dimension() -> None:
    one = sharp(torch.zeros(8, dtype=torch.int64))
    logged = metrics(one, one, centering="none")
    assert logged["teacher_entropy"] == pytest.approx(0, abs=1e-6)
    assert collapse_cause(logged) == "one-dimension"


def test_a_sharp_teacher_that_spreads_over_prototypes_is_healthy() -> None:
    logged = metrics(sharp(torch.arange(8)), sharp(torch.arange(8)))
    assert logged["teacher_entropy"] < 1e-3
    assert logged["batch_entropy"] == pytest.approx(math.log(8), rel=1e-3)
    assert collapse_cause(logged) is None


def test_a_uniform_teacher_that_the_student_does_not_match_is_not_there_yet() -> None:
    logged = metrics(sharp(torch.arange(8)), torch.zeros(2, 8, WIDTH))
    assert logged["kl"] > 1
    assert collapse_cause(logged) is None


@pytest.mark.parametrize(
    ("entropy", "kl", "batch", "cause"),
    [
        (0.985, 0.015, 1.0, "uniform"),
        (0.975, 0.015, 1.0, None),
        (0.985, 0.025, 1.0, None),
        (0.09, 0.5, 0.09, "one-dimension"),
        (0.09, 0.5, 0.11, None),
        (0.11, 0.0, 0.11, None),
    ],
)
def test_causes_have_limits(entropy: float, kl: float, batch: float, cause: str | None) -> None:
    """With ln K = 1 nat."""
    logged = {"teacher_entropy": entropy, "kl": kl, "batch_entropy": batch, "uniform_entropy": 1.0}
    assert collapse_cause(logged) == cause


def test_a_method_without_prototypes_has_no_cause() -> None:
    assert collapse_cause({"loss": 0.0, "target_std": 0.5}) is None


# The alarm

UNIFORM = {
    "teacher_entropy": 4.0,
    "kl": 0.0,
    "batch_entropy": 4.0,
    "uniform_entropy": 4.0,
    "teacher_std": 0.4,
}
HEALTHY = UNIFORM | {"teacher_entropy": 2.0, "kl": 1.0}
SAME_VECTOR = HEALTHY | {"teacher_std": 0.001}
SAME_TARGETS = HEALTHY | {"batch_entropy": 2.01}


def alarms(*records: dict[str, float]) -> tuple[list[bool], str | None]:
    alarm = Alarm()
    return [alarm.see(record) for record in records], alarm.sign


def test_alarm_rings_once_at_the_third_record_in_a_row() -> None:
    assert alarms(HEALTHY, *[UNIFORM] * 5) == ([False, False, False, True, False, False], "uniform")
    assert alarms(UNIFORM, UNIFORM, HEALTHY, UNIFORM, UNIFORM) == ([False] * 5, None)
    assert alarms(UNIFORM, SAME_VECTOR, SAME_VECTOR) == ([False] * 3, None)
    assert alarms(*[SAME_VECTOR] * 3)[1] == "complete"
    assert alarms(*[{"key_std": 0.2, "loss": 0.001}] * 9)[1] is None


def test_same_targets_for_all_images_ring_after_ten_records() -> None:
    assert alarms(*[SAME_TARGETS] * 9)[1] is None
    assert alarms(*[SAME_TARGETS] * 12) == ([False] * 9 + [True, False, False], "constant")
    assert alarms(*[SAME_TARGETS, SAME_TARGETS, UNIFORM] * 4)[1] == "constant"
    assert alarms(*[SAME_TARGETS] * 9, HEALTHY, *[SAME_TARGETS] * 9)[1] is None
    assert alarms(*[SAME_TARGETS] * 5, *[UNIFORM] * 3)[1] == "uniform"
    assert alarms(*[UNIFORM | {"kl": 0.5}] * 20)[1] is None


def test_every_sign_is_explained_and_health_is_not() -> None:
    for sign in ("complete", "dimensional", "diverged", "uniform", "one-dimension", "constant"):
        assert ". " in explain_collapse(sign)  # what it is. What to do
    assert not explain_collapse("healthy")
    assert not explain_collapse("undecided")


# Real short runs


def dino(**options) -> Method:
    torch.manual_seed(0)
    small = {"out_dim": WIDTH, "hidden_dim": 32, "bottleneck_dim": 16, "num_layers": 2, "use_bn": False}
    sharp = {"teacher_temperature": 0.04, "warmup_teacher_temperature": 0.04, "optim": PLAIN}
    backbone = create_backbone("resnet8", 16, width=8)
    return create_method("dino", backbone, **{"views": ViewSpec((VIEW, VIEW)), **small, **sharp, **options})


def train(method: Method, steps: int = 60) -> tuple[Alarm, dict[str, float]]:
    alarm = Alarm()
    split = create_dataset("digits").split("pretrain")
    result = fit(
        method, split, budget={"steps": steps}, batch_size=32, device="cpu", on_log=alarm.see, log_every=5
    )
    return alarm, result.metrics


def test_without_centering_one_dimension_wins() -> None:
    alarm, last = train(dino(centering="none", teacher_momentum=0.9))
    assert alarm.sign == collapse_cause(last) == "one-dimension"


def test_without_sharpening_the_teacher_becomes_uniform() -> None:
    fast = OptimConfig(lr=5e-3, warmup_fraction=0.0)
    alarm, last = train(dino(teacher_temperature=1.0, warmup_teacher_temperature=1.0, optim=fast))
    assert alarm.sign == collapse_cause(last) == "uniform"


def test_a_teacher_that_is_the_student_collapses() -> None:
    method = dino()
    method.teacher.module = method.student
    alarm, last = train(method, steps=90)
    assert alarm.sign == "constant"
    assert last["batch_entropy"] - last["teacher_entropy"] < 0.01  # no image gets targets of its own
    assert collapse_cause(last) is None  # centering chases them from prototype to prototype


def test_both_together_ring_no_alarm() -> None:
    alarm, last = train(dino())
    assert alarm.sign is None
    assert collapse_cause(last) is None
    assert last["kl"] > 0.1
    assert min(last["student_std"], last["teacher_std"]) > 0.1
