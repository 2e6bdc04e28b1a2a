"""DINO's head against the official one, and its training step against the paper's order of operations."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones import create_backbone
from ssl_zoo.method import Step, Views
from ssl_zoo.methods.dino import DINO, DINOConfig, DINOHead, DINOLoss
from ssl_zoo.optim import OptimConfig, create_optimizer
from ssl_zoo.train import train_step


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def method(**options) -> DINO:
    torch.manual_seed(0)
    small = {"out_dim": 16, "hidden_dim": 24, "bottleneck_dim": 8}
    small |= {"teacher_temperature": 0.07, "teacher_momentum": 0.99}
    return DINO(create_backbone("resnet8", width=4), DINOConfig(**{**small, **options})).train()


def views(local: int = 0, batch: int = 4) -> Views:
    crops = [random(batch, 3, 32, 32, seed=i) for i in range(2)]
    return Views.from_list(crops + [random(batch, 3, 16, 16, seed=9 + i) for i in range(local)])


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
def test_teacher_temperature_warms_up_over_a_share_of_the_run(
    index: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    dino, given = method(), []
    sharpen = dino.loss.teacher_distribution
    monkeypatch.setattr(dino.loss, "teacher_distribution", lambda x, t: given.append(t) or sharpen(x, t))
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


def deviation(branch: nn.Module, batch: Views) -> Tensor:
    """The feature std of the backbone over both global views."""
    x = branch.backbone(batch.global_crops.flatten(0, 1)).detach()
    x = x / x.norm(dim=1, keepdim=True)
    return (x - x.mean(0)).square().mean(0).sqrt().mean() * math.sqrt(x.shape[1])


def test_metrics_split_the_loss_into_entropy_and_divergence() -> None:
    dino, batch, step = method(), views(local=2), Step(15, 100)
    nn.init.normal_(dino.loss.center, std=0.1)
    nn.init.normal_(dino.student.backbone.net[0].weight)  # apart from the teacher
    teacher = dino.teacher.module.by_resolution(batch.global_crops)
    student = dino.student.by_resolution(batch.global_crops, batch.local_crops)
    q = ((teacher - dino.loss.center) / 0.055).softmax(-1)
    log_p = (student / 0.1).log_softmax(-1)
    divergences = [
        (q[i] * (q[i].log() - log_p[v])).sum(-1).mean() for i in range(2) for v in range(4) if i != v
    ]
    output, mean = dino(batch, step), q.mean((0, 1))
    momentum = 1 - 0.01 * (1 + math.cos(0.15 * math.pi)) / 2
    expected = {
        "teacher_entropy": -(q * q.log()).sum(-1).mean(),
        "kl": torch.stack(divergences).mean(),
        "batch_entropy": -(mean * mean.log()).sum(),
        "uniform_entropy": torch.tensor(16.0).log(),
        "loss_gap": (output.loss.detach() - math.log(16)).abs(),
        "student_std": deviation(dino.student, batch),
        "teacher_std": deviation(dino.teacher.module, batch),
        "center_norm": dino.loss.center.square().sum().sqrt(),
        "teacher_temperature": torch.tensor(0.055),
        "momentum": torch.tensor(momentum),
        "horizon": torch.tensor(1 / (1 - momentum)),
    }
    torch.testing.assert_close(output.metrics, expected, rtol=1e-4, atol=1e-5)
    assert output.loss.item() == pytest.approx(
        (expected["teacher_entropy"] + expected["kl"]).item(), rel=1e-5
    )


def test_metrics_of_a_momentum_of_one_stay_finite() -> None:
    output = method(teacher_momentum=1.0)(views(), Step(9, 10))
    assert all(value.isfinite() for value in output.metrics.values())


def test_metrics_need_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    dino, batch = method(), views(local=2)
    for reads in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(
            Tensor, reads, lambda *_: pytest.fail("a value was read: the device would be waited for")
        )
    output = dino(batch, Step(3, 10))
    assert output.loss.requires_grad
    assert {"kl", "teacher_entropy", "center_norm", "horizon"} <= output.metrics.keys()


def test_drop_path_is_the_students_only() -> None:
    vit = create_backbone("vit_tiny", 32, depth=4, patch_size=8, drop_path=0.9)
    dino = DINO(vit, DINOConfig(out_dim=16, hidden_dim=24, bottleneck_dim=8)).train()
    crops = views().global_crops
    student, teacher = (
        [branch.features_by_resolution(crops) for _ in range(2)]
        for branch in (dino.student, dino.teacher.module)
    )
    assert not torch.equal(*student)
    assert torch.equal(*teacher)


def test_weight_decay_spares_biases_and_vectors_but_neither_tokens_nor_free_norms() -> None:
    vit = create_backbone("vit_tiny", 32, depth=1, patch_size=8)
    dino = DINO(
        vit, DINOConfig(out_dim=16, hidden_dim=24, bottleneck_dim=8, norm_last_layer=False, use_bn=False)
    )
    names = {id(parameter): name for name, parameter in dino.named_parameters()}
    decayed, plain = ({names[id(p)] for p in group.params} for group in dino.param_groups())
    prototypes = "student.head.last_layer.parametrizations.weight"
    assert {"student.backbone.net.cls_token", "student.backbone.net.pos_embed"} <= decayed
    assert {f"{prototypes}.original0", f"{prototypes}.original1"} <= decayed  # weight_g has two dimensions
    assert all(name.endswith("bias") or ".norm" in name for name in plain)
    assert not any(name.startswith("teacher") for name in decayed | plain)


def test_frozen_prototypes_have_no_gradient_when_the_optimizer_steps() -> None:
    dino = method(freeze_last_layer_fraction=0.5)
    optimizer, prototypes = (
        create_optimizer(dino.param_groups(), dino.config.optim),
        dino.student.head.last_layer,
    )
    missing: list[bool] = []
    optimizer.register_step_pre_hook(
        lambda *_: missing.append(all(p.grad is None for p in prototypes.parameters()))
    )
    for index in range(4):
        train_step(dino, dino, optimizer, views(), Step(index, 4))
    assert missing == [True, True, False, False]


def test_sinkhorn_needs_no_center_and_balances_a_batch_that_one_prototype_would_take() -> None:
    dino, alone = method(centering="sinkhorn", out_dim=8), method(centering="none", out_dim=8)
    logits = 0.1 * random(2, 64, 8) + torch.tensor([1.0, *[0.0] * 7])
    targets, lost = (m.loss.teacher_distribution(logits, 0.04) for m in (dino, alone))
    assert lost.mean((0, 1))[0] > 0.99
    torch.testing.assert_close(targets.mean((0, 1)), torch.full((8,), 1 / 8), rtol=0.3, atol=0)
    torch.testing.assert_close(targets.sum(-1), torch.ones(2, 64))
    dino.loss.center.fill_(3.0)
    assert torch.equal(dino.loss.teacher_distribution(logits, 0.04), targets)


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
