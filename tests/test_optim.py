"""Optimizers, parameter groups and clipping against their formulas."""

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones.vit import ViT
from ssl_zoo.optim import (
    OptimConfig,
    ParamGroup,
    clip_gradients,
    create_optimizer,
    set_schedule,
    split_by_decay,
)


def parameters_with_gradients(*norms: float) -> list[nn.Parameter]:
    parameters = []
    for norm in norms:
        parameter = nn.Parameter(torch.zeros(4))
        parameter.grad = torch.tensor([norm / 2] * 4)
        parameters.append(parameter)
    return parameters


def norms_of(parameters: list[nn.Parameter]) -> Tensor:
    return torch.stack([parameter.grad.norm() for parameter in parameters])


# Groups


def test_biases_and_vectors_are_not_decayed_but_tokens_are() -> None:
    net = ViT(32, dim=16, heads=2, depth=1)
    decayed, plain = split_by_decay(net.named_parameters())
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    decayed_names, plain_names = ({names[id(p)] for p in group.params} for group in (decayed, plain))
    assert decayed.decay
    assert not plain.decay
    assert {"net.cls_token", "net.pos_embed", "net.patch_embed.proj.weight"} <= decayed_names
    assert {"net.norm.weight", "net.blocks.0.mlp.fc1.bias", "net.blocks.0.attn.qkv.bias"} <= plain_names
    assert decayed_names | plain_names == set(names.values()) - {"mask_token"}


def test_weight_decay_moves_by_cosine_for_decayed_groups_only() -> None:
    config = OptimConfig(weight_decay=0.04, weight_decay_end=0.4)
    optimizer = create_optimizer(split_by_decay(nn.Linear(2, 2).named_parameters()), config)
    for index, value in [(0, 0.04), (5, 0.22), (10, 0.4)]:
        set_schedule(optimizer, config, index, total=10)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(value), 0.0]


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_learning_rate_is_used_as_written(name: str) -> None:
    config = OptimConfig(name=name, lr=0.3, min_lr=0.1, warmup_fraction=0.25)
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(3)]
    groups = [
        ParamGroup(weights[:1], decay=True),
        ParamGroup(weights[1:2], decay=True, lr_scale=0.5),
        ParamGroup(weights[2:], decay=False, fixed_lr=True),
        ParamGroup([], decay=True),
    ]
    optimizer = create_optimizer(groups, config)
    for index, lr in [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.3), (10, 0.2), (16, 0.1)]:
        set_schedule(optimizer, config, index, total=16)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr, lr / 2, 0.3])


# Clipping


def test_each_parameter_is_clipped_by_itself() -> None:
    parameters = parameters_with_gradients(6.0, 1.0, 3.0, 30.0)
    clip_gradients(parameters, OptimConfig(clip=3.0))
    expected = [6 * 3 / (6 + 1e-6), 1.0, 3 * 3 / (3 + 1e-6), 30 * 3 / (30 + 1e-6)]
    torch.testing.assert_close(norms_of(parameters), torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("clip", "factor"), [(2.5, 2.5 / (5 + 1e-6)), (10.0, 1.0)])
def test_all_parameters_are_clipped_together(clip: float, factor: float) -> None:
    parameters = parameters_with_gradients(3.0, 4.0)
    clip_gradients(parameters, OptimConfig(clip=clip, clip_mode="global"))
    expected = torch.tensor([3.0, 4.0]) * factor
    torch.testing.assert_close(norms_of(parameters), expected, rtol=1e-6, atol=0)


def test_clipping_skips_missing_gradients() -> None:
    parameters = [*parameters_with_gradients(6.0), nn.Parameter(torch.zeros(2))]
    clip_gradients(parameters, OptimConfig(clip=3.0))
    clip_gradients(parameters[1:], OptimConfig(clip=3.0))
    assert parameters[0].grad.norm() == pytest.approx(3.0)
    assert parameters[1].grad is None


def test_no_clip_leaves_gradients_alone() -> None:
    parameters = parameters_with_gradients(100.0)
    clip_gradients(parameters, OptimConfig())
    assert torch.equal(parameters[0].grad, torch.full((4,), 50.0))


# Steps


def one_step(config: OptimConfig, decay: bool) -> Tensor:
    """A weight of ones after one step with a gradient of twos, in mid-warm-up: at half the learning rate."""
    weight = nn.Parameter(torch.ones(4))
    optimizer = create_optimizer([ParamGroup([weight], decay=decay)], config)
    set_schedule(optimizer, config, index=2, total=50)
    weight.grad = torch.full((4,), 2.0)
    optimizer.step()
    return weight.data


@pytest.mark.parametrize("end", [None, 0.0])
def test_lars_needs_decay_to_scale_its_steps(end: float | None) -> None:
    with pytest.raises(ValueError, match="lars scales only what decays; give a weight_decay above 0"):
        OptimConfig(name="lars", weight_decay=0.0 if end is None else 1e-6, weight_decay_end=end)


@pytest.mark.parametrize(
    ("name", "decay", "expected"),
    [
        ("adamw", True, 1 - 0.1 * 0.5 - 0.1),
        ("adamw", False, 1 - 0.1),
        ("sgd", True, 1 - 0.1 * (2 + 0.5)),
        ("sgd", False, 1 - 0.1 * 2),
        ("lars", True, 1 - 0.1 * (2 + 0.5) * 1e-3 * 2 / (4 + 0.5 * 2)),  # |w| = 2, |g| = 4
        ("lars", False, 1 - 0.1 * 2),  # no decay, no adaptation
    ],
)
def test_first_step_follows_the_formula(name: str, decay: bool, expected: float) -> None:
    config = OptimConfig(name=name, lr=0.2, warmup_fraction=0.1, weight_decay=0.5)
    torch.testing.assert_close(one_step(config, decay), torch.full((4,), expected))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_parameter_may_get_its_first_gradient_later(name: str) -> None:
    config = OptimConfig(name=name, lr=0.1, weight_decay=0.5)
    weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    optimizer = create_optimizer([ParamGroup(weights, decay=True)], config)
    for late in (None, torch.ones(3)):
        set_schedule(optimizer, config, index=5, total=50)
        weights[0].grad, weights[1].grad = torch.ones(3), late
        before = weights[1].detach().clone()
        optimizer.step()
        assert torch.equal(weights[1], before) is (late is None)
