"""What methods share: the EMA, equal starts, multi-crop; and BYOL against its formula."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from ssl_zoo.backbones import create_backbone
from ssl_zoo.backbones.vit import ViT
from ssl_zoo.ema import EMA
from ssl_zoo.method import Step, Views
from ssl_zoo.methods.byol import BYOL, BYOLConfig
from ssl_zoo.methods.byol.method import byol_loss
from ssl_zoo.registry import create_method


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views(local: int = 0, batch: int = 4) -> Views:
    crops = [random(batch, 3, 32, 32, seed=i) for i in range(2)]
    return Views.from_list(crops + [random(batch, 3, 16, 16, seed=9 + i) for i in range(local)])


def byol(**options) -> BYOL:
    torch.manual_seed(0)
    return BYOL(
        create_backbone("resnet8", width=4), BYOLConfig(**{"hidden_dim": 16, "out_dim": 8, **options})
    )


# EMA


def test_ema_is_a_weighted_sum_of_the_past() -> None:
    network = nn.Linear(3, 2)
    ema, momenta = EMA(network), [0.9, 0.5, 0.99]
    expected = network.weight.detach().double().clone()
    for step, momentum in enumerate(momenta):
        nn.init.normal_(network.weight, mean=float(step))
        ema.update(network, momentum)
        expected = momentum * expected + (1 - momentum) * network.weight.detach().double()
    torch.testing.assert_close(ema.module.weight.data.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("momentum", "follows"), [(0.0, True), (1.0, False)])
def test_ema_at_its_ends_copies_or_stays(momentum: float, follows: bool) -> None:
    network = nn.Linear(3, 2)
    ema, first = EMA(network), network.weight.detach().clone()
    nn.init.normal_(network.weight)
    ema.update(network, momentum)
    assert torch.equal(ema.module.weight, network.weight if follows else first)


@pytest.mark.parametrize("buffers", ["own", "copy"])
def test_ema_buffers_are_its_own_or_copied(buffers: str) -> None:
    network = nn.BatchNorm1d(3)
    ema = EMA(network, buffers)
    network(random(5, 3) + 7)
    before = ema.module.running_mean.clone()
    ema.update(network, 0.9)
    assert torch.equal(ema.module.running_mean, network.running_mean if buffers == "copy" else before)
    assert ema.module.num_batches_tracked == (1 if buffers == "copy" else 0)


def test_own_buffers_come_from_the_copys_forward_passes() -> None:
    network = nn.BatchNorm1d(3)
    ema, x = EMA(network), random(5, 3) + 7
    ema.module(x)
    torch.testing.assert_close(ema.module.running_mean, 0.1 * x.mean(0))
    assert not network.running_mean.any()


def test_unknown_buffer_mode_names_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="'both'; allowed: 'own', 'copy'"):
        EMA(nn.Linear(2, 2), "both")


def test_copy_is_frozen_and_has_no_dropout_or_drop_path() -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Dropout(0.5), StochasticDepth(0.5, "row"), nn.Linear(3 * 32 * 32, 3 * 16 * 16)
    )
    vit = ViT(16, dim=16, heads=2, depth=3, drop_path=0.9)
    ema = EMA(nn.Sequential(network, nn.Unflatten(1, (3, 16, 16)), vit)).train()
    x = random(4, 3, 32, 32)
    assert torch.equal(ema.module(x), ema.module(x))
    assert not torch.equal(network(x), network(x))
    assert not torch.equal(vit(x[..., :16, :16]), vit(x[..., :16, :16]))
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    small = {"patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 3, "patch_drop_rate": 0.5}
    patches = create_backbone("timm:vit_tiny_patch16_224", 32, **small)
    copied = EMA(patches).train().module
    assert torch.equal(copied(x), copied(x))
    assert not torch.equal(patches(x), patches(x))


@pytest.mark.parametrize(
    ("name", "trained", "copied"),
    [
        ("dino", "student", "teacher.module"),
        ("byol", "online", "target.module"),
        ("moco", "online", "key.module"),
    ],
)
def test_student_and_teacher_start_equal(name: str, trained: str, copied: str) -> None:
    method = create_method(name, create_backbone("resnet8", width=4))
    mine, theirs = method.get_submodule(trained).state_dict(), method.get_submodule(copied).state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())


# Multi-crop


@pytest.mark.parametrize("name", ["byol", "dino", "moco"])
def test_local_crops_count_but_write_no_running_statistics(name: str) -> None:
    torch.manual_seed(0)
    method = create_method(name, create_backbone("resnet8", width=4)).train()
    without, with_local = copy.deepcopy(method), copy.deepcopy(method)
    losses = [without(views(), Step(0, 10)).loss, with_local(views(local=2), Step(0, 10)).loss]
    assert losses[0] != losses[1]
    running = {
        key: buffer for key, buffer in without.named_buffers() if "backbone" in key and "running" in key
    }
    assert running
    for key, buffer in running.items():
        torch.testing.assert_close(with_local.get_buffer(key), buffer)
        assert not torch.equal(buffer, method.get_buffer(key))


# BYOL


@pytest.mark.parametrize("local", [0, 2])
def test_byol_is_the_squared_distance_of_unit_vectors_over_pairs(local: int) -> None:
    method, batch = byol(), views(local)
    online, target = (
        copy.deepcopy(nn.Sequential(method.online, method.predictor)),
        copy.deepcopy(method.target),
    )
    loss = method(batch, Step(0, 10)).loss

    targets = [F.normalize(target.module(view), dim=1) for view in batch.global_crops]
    crops = [*batch.global_crops, *(batch.local_crops if local else ())]
    predictions = [F.normalize(online(view), dim=1) for view in crops]
    distances = [
        ((p[b] - z[b]) ** 2).sum()
        for i, z in enumerate(targets)
        for j, p in enumerate(predictions)
        if i != j
        for b in range(4)
    ]
    assert len(distances) == 4 * (2 + 2 * local)
    torch.testing.assert_close(loss, torch.stack(distances).mean())


def test_byol_detaches_the_target() -> None:
    predictions, targets = random(2, 3, 5).requires_grad_(), random(2, 3, 5, seed=1).requires_grad_()
    byol_loss(predictions, targets).backward()
    assert targets.grad is None
    assert predictions.grad is not None


@pytest.mark.parametrize(("sign", "distance"), [(1, 0.0), (-1, 4.0)])
def test_byol_ranges_from_zero_to_four(sign: int, distance: float) -> None:
    z = random(1, 3, 5).expand(2, 3, 5)
    torch.testing.assert_close(byol_loss(sign * 7 * z, z), torch.tensor(distance), atol=1e-6, rtol=0)


def test_byol_computes_in_float32_under_autocast() -> None:
    predictions, targets = (random(2, 64, 256, seed=i).bfloat16() for i in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = byol_loss(predictions, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == byol_loss(predictions.float(), targets.float()).item()


@pytest.mark.parametrize(("index", "momentum"), [(0, 0.8), (50, 0.9), (100, 1.0)])
def test_byol_target_momentum_follows_a_cosine_to_one(index: int, momentum: float) -> None:
    method = byol(target_momentum=0.8)
    for target, online in zip(method.target.parameters(), method.online.parameters(), strict=True):
        target.data.fill_(1.0)
        online.data.fill_(0.0)
    method.on_step_end([], Step(index, 100))
    for target in method.target.parameters():
        torch.testing.assert_close(target.data, torch.full_like(target, momentum))


def test_byol_normalises_each_view_as_its_own_batch() -> None:
    method, batch = byol(), views()
    seen = []
    method.online.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[0]))
    method(batch, Step(0, 10))
    assert seen == [4, 4]
