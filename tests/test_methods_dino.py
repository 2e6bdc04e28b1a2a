"""DINO against its formulas, the paper's order of operations and lightly's loss."""

import copy
import math

import lightly.loss
import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones import create_backbone
from ssl_zoo.method import Step, Views
from ssl_zoo.methods.dino import DINO, DINOConfig, DINOHead, DINOLoss
from ssl_zoo.methods.dino.loss import sinkhorn
from ssl_zoo.optim import OptimConfig, create_optimizer
from ssl_zoo.train import train_step

STUDENT_T, TEACHER_T = 0.1, 0.05


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def method(**options) -> DINO:
    torch.manual_seed(0)
    small = {"out_dim": 16, "hidden_dim": 24, "bottleneck_dim": 8}
    return DINO(create_backbone("resnet8", width=4), DINOConfig(**{**small, **options})).train()


def views(local: int = 0, batch: int = 4) -> Views:
    crops = [random(batch, 3, 32, 32, seed=i) for i in range(2)]
    return Views.from_list(crops + [random(batch, 3, 16, 16, seed=9 + i) for i in range(local)])


# The loss


@pytest.mark.parametrize("crops", [2, 6, 10])
def test_loss_gradient_and_center_follow_the_paper(crops: int) -> None:
    batch, width = 3, 7
    student, teacher = random(crops, batch, width), random(2, batch, width, seed=1)
    loss = DINOLoss(width, STUDENT_T, center_momentum=0.9)
    loss.center.copy_(random(1, width, seed=2))
    center = loss.center.double().clone()

    value, pairs, gradient = 0.0, 2 * crops - 2, torch.zeros(crops, batch, width, dtype=torch.float64)
    for i in range(2):
        for v in range(crops):
            if i == v:
                continue
            for b in range(batch):
                q = ((teacher[i, b].double() - center[0]) / TEACHER_T).exp()
                q = q / q.sum()
                p = (student[v, b].double() / STUDENT_T).exp()
                p = p / p.sum()
                value = value - (q * p.log()).sum() / pairs / batch
                gradient[v, b] += (p - q) / STUDENT_T / pairs / batch

    student.requires_grad_()
    result = loss(student, teacher, TEACHER_T)
    result.backward()
    torch.testing.assert_close(result.double(), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(student.grad.double(), gradient, rtol=1e-5, atol=1e-7)
    assert torch.equal(loss.center.double(), center)

    loss.update_center(teacher)
    mean = sum(teacher[i, b].double() for i in range(2) for b in range(batch)) / (2 * batch)
    torch.testing.assert_close(loss.center[0].double(), 0.9 * center[0] + 0.1 * mean, rtol=1e-6, atol=1e-7)


def test_loss_equals_lightly_over_three_steps() -> None:
    ours = DINOLoss(32, STUDENT_T, center_momentum=0.9)
    theirs = lightly.loss.DINOLoss(32, student_temp=STUDENT_T, center_momentum=0.9)
    for step in range(3):
        student = random(6, 4, 32, seed=step).requires_grad_()
        copied = student.detach().clone().requires_grad_()
        teacher = random(2, 4, 32, seed=10 + step)
        mine, other = ours(student, teacher, 0.04), theirs(list(teacher), list(copied), teacher_temp=0.04)
        mine.backward()
        other.backward()
        ours.update_center(teacher)
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(student.grad, copied.grad)
        torch.testing.assert_close(ours.center, theirs.center[0])


@pytest.mark.parametrize("centering", ["mean", "sinkhorn", "none"])
def test_loss_of_half_precision_logits_is_summed_in_float32(centering: str) -> None:
    student, teacher = (random(2, 64, 4096, seed=i).mul(2).bfloat16() for i in range(2))
    loss = DINOLoss(4096, centering=centering)
    exact = loss(student.float(), teacher.float(), TEACHER_T)
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(student, teacher, TEACHER_T)
    assert result.dtype == torch.float32
    assert result.item() == exact.item()


def test_loss_detaches_the_teacher() -> None:
    student, teacher = random(2, 3, 5).requires_grad_(), random(2, 3, 5, seed=1).requires_grad_()
    DINOLoss(5)(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_loss_of_one_view_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="give at least two student views"):
        DINOLoss(5)(random(1, 3, 5), random(1, 3, 5))


def test_uniform_collapse_shows_as_log_of_the_width() -> None:
    loss = DINOLoss(64)(torch.zeros(2, 3, 64), torch.zeros(2, 3, 64))
    torch.testing.assert_close(loss, torch.tensor(64.0).log())


def test_sinkhorn_balances_as_in_the_plain_domain() -> None:
    samples, prototypes = 12, 5
    scores = random(samples, prototypes)
    q = scores.double().exp().T  # DINOv2: [K, B]
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / prototypes
        q = q / q.sum(0, keepdim=True) / samples
    torch.testing.assert_close(sinkhorn(scores).double(), (q * samples).T, rtol=1e-5, atol=1e-7)

    balanced = sinkhorn(scores, iterations=50)
    torch.testing.assert_close(balanced.sum(1), torch.ones(samples))
    torch.testing.assert_close(balanced.sum(0), torch.full((prototypes,), samples / prototypes))


def test_sinkhorn_survives_scores_that_overflow_in_the_plain_domain() -> None:
    assert sinkhorn(random(6, 4) * 1000).isfinite().all()


# The head


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("use_bn", [False, True])
def test_head_has_the_official_layers(layers: int, use_bn: bool) -> None:
    head = DINOHead(6, 20, hidden_dim=10, bottleneck_dim=4, num_layers=layers, use_bn=use_bn)
    widths = {1: [(6, 4)], 2: [(6, 10), (10, 4)], 3: [(6, 10), (10, 10), (10, 4)]}[layers]
    linears = [m for m in head.mlp if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == widths
    assert sum(isinstance(m, nn.GELU) for m in head.mlp) == layers - 1
    assert sum(isinstance(m, nn.BatchNorm1d) for m in head.mlp) == (layers - 1) * use_bn
    assert head(random(5, 6)).shape == (5, 20)


def test_head_computes_cosines_with_unit_prototypes() -> None:
    head = DINOHead(6, 20, hidden_dim=10, bottleneck_dim=4)
    x = random(5, 6)
    features, prototypes = head.mlp(x), head.last_layer.parametrizations.weight.original1
    expected = [f @ p / f.norm() / p.norm() for f in features for p in prototypes]
    torch.testing.assert_close(head(x), torch.stack(expected).view(5, 20))


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_norm_last_layer_freezes_the_prototypes_norm_at_one(norm_last_layer: bool) -> None:
    head = DINOHead(6, 20, hidden_dim=10, bottleneck_dim=4, norm_last_layer=norm_last_layer)
    norm = head.last_layer.parametrizations.weight.original0
    assert torch.equal(norm, torch.ones(20, 1))
    assert norm.requires_grad is not norm_last_layer
    torch.testing.assert_close(head.last_layer.weight.norm(dim=1), torch.ones(20))


def test_initial_weights_are_truncated_normal_in_the_mlp_and_torchs_default_in_the_prototypes() -> None:
    torch.manual_seed(0)
    head = DINOHead(200, 300, hidden_dim=200, bottleneck_dim=100)
    for linear in (m for m in head.mlp if isinstance(m, nn.Linear)):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not linear.bias.any()
    prototypes = head.last_layer.parametrizations.weight.original1
    assert prototypes.abs().max() <= 0.1  # uniform in +-1 / sqrt(100), deviation 0.1 / sqrt(3)
    assert prototypes.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_copied_head_is_equal_and_independent() -> None:
    head = DINOHead(6, 20, hidden_dim=10, bottleneck_dim=4)
    copied, x = copy.deepcopy(head), random(5, 6)
    assert torch.equal(head(x), copied(x))
    copied.last_layer.parametrizations.weight.original1.data.neg_()
    assert torch.equal(head(x), -copied(x))


# The method


def test_center_is_used_before_it_moves() -> None:
    dino = method()
    optimizer = create_optimizer(dino.param_groups(), dino.config.optim)
    for index in range(2):
        step, center = Step(index, 10), dino.loss.center.clone()
        teacher = dino.teacher.module.by_resolution(views().global_crops)
        student = dino.student.by_resolution(views().global_crops)
        expected = DINOLoss(16)
        expected.center.copy_(center)
        temperature = 0.04 + (0.07 - 0.04) * step.progress / 0.3
        output = train_step(dino, dino, optimizer, views(), step)
        torch.testing.assert_close(output.loss, expected(student, teacher, temperature).detach())
        torch.testing.assert_close(dino.loss.center, 0.9 * center + 0.1 * teacher.mean((0, 1)))


@pytest.mark.parametrize(("index", "temperature"), [(0, 0.04), (15, 0.055), (30, 0.07), (99, 0.07)])
def test_teacher_temperature_warms_up_over_a_share_of_the_run(index: int, temperature: float) -> None:
    dino = method()
    given = []
    dino.loss.register_forward_pre_hook(lambda _, arguments: given.append(arguments[2]))
    dino(views(), Step(index, 100))
    assert given == [pytest.approx(temperature)]


@pytest.mark.parametrize(("index", "momentum"), [(0, 0.9), (50, 0.95), (99, 0.99997533)])
def test_teacher_momentum_follows_a_cosine_to_one(index: int, momentum: float) -> None:
    dino = method(teacher_momentum=0.9)
    output, step = dino(views(), Step(index, 100)), Step(index, 100)
    for teacher, student in zip(dino.teacher.parameters(), dino.student.parameters(), strict=True):
        teacher.data.fill_(1.0)
        student.data.fill_(0.0)
    dino.on_step_end([output], step)
    for teacher in dino.teacher.parameters():
        torch.testing.assert_close(teacher.data, torch.full_like(teacher, momentum))


def test_center_moves_once_over_all_micro_batches() -> None:
    dino = method()
    outputs = [dino(views(), Step(0, 10))._replace(carry=random(2, n, 16, seed=n)) for n in (3, 5)]
    dino.on_step_end(outputs, Step(0, 10))
    logits = torch.cat([random(2, 3, 16, seed=3), random(2, 5, 16, seed=5)], dim=1)
    torch.testing.assert_close(dino.loss.center[0], 0.1 * logits.mean((0, 1)))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_last_layer_is_frozen_bit_for_bit_for_a_share_of_the_run(name: str) -> None:
    optim = OptimConfig(name=name, lr=0.01, weight_decay=0.5, warmup_fraction=0.0)
    dino = method(freeze_last_layer_fraction=0.5, optim=optim)
    optimizer = create_optimizer(dino.param_groups(), optim)
    prototypes = dino.student.head.last_layer.parametrizations.weight.original1
    first, mlp = prototypes.detach().clone(), dino.student.head.mlp[0].weight.detach().clone()
    moved = []
    for index in range(4):
        train_step(dino, dino, optimizer, views(), Step(index, 4))
        moved.append(not torch.equal(prototypes, first))
    assert moved == [False, False, True, True]
    assert not torch.equal(dino.student.head.mlp[0].weight, mlp)


def test_metrics_split_the_loss_into_entropy_and_divergence() -> None:
    dino, batch, step = method(), views(local=2), Step(15, 100)
    nn.init.normal_(dino.loss.center, std=0.1)
    teacher = dino.teacher.module.by_resolution(batch.global_crops)
    student = dino.student.by_resolution(batch.global_crops, batch.local_crops)
    q = ((teacher - dino.loss.center) / 0.055).softmax(-1)
    log_p = (student / 0.1).log_softmax(-1)
    divergences = [
        (q[i] * (q[i].log() - log_p[v])).sum(-1).mean() for i in range(2) for v in range(4) if i != v
    ]
    output = dino(batch, step)
    expected = {
        "teacher_entropy": -(q * q.log()).sum(-1).mean(),
        "kl": torch.stack(divergences).mean(),
        "center_norm": dino.loss.center.square().sum().sqrt(),
        "teacher_temperature": torch.tensor(0.055),
        "momentum": torch.tensor(1 - 0.01 * (1 + math.cos(0.15 * math.pi)) / 2),
    }
    torch.testing.assert_close(output.metrics, expected, rtol=1e-4, atol=1e-5)


def test_local_crops_reach_the_student_only() -> None:
    dino = method()
    sizes: dict[str, list[int]] = {"student": [], "teacher": []}
    dino.student.backbone.register_forward_pre_hook(lambda _, x: sizes["student"].append(x[0].shape[-1]))
    dino.teacher.module.backbone.register_forward_pre_hook(
        lambda _, x: sizes["teacher"].append(x[0].shape[-1])
    )
    output = dino(views(local=3), Step(0, 10))
    assert sizes == {"student": [32, 16], "teacher": [32]}
    assert output.carry.shape == (2, 4, 16)


def test_crops_of_one_resolution_share_a_pass_and_all_share_the_head() -> None:
    dino, batch = method(use_bn=True), views(local=2)
    student = copy.deepcopy(dino.student)
    features = [student.backbone(torch.cat(list(crops))) for crops in (batch.global_crops, batch.local_crops)]
    expected = student.head(torch.cat(features)).view(4, 4, 16)
    torch.testing.assert_close(dino.student.by_resolution(batch.global_crops, batch.local_crops), expected)
