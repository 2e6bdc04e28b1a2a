"""MoCo against its formulas: contrast, queue, and batch norm over parts of the batch."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo.backbones import create_backbone
from ssl_zoo.batch_norm import GroupedBatchNorm2d, batch_statistics_only, group_batch_norms
from ssl_zoo.method import Step, Views
from ssl_zoo.methods.moco import MoCo, MoCoConfig
from ssl_zoo.methods.moco.method import contrastive_loss, deal


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(random(*shape, seed=seed), dim=-1)


def method(**options) -> MoCo:
    torch.manual_seed(0)
    small = {"out_dim": 8, "hidden_dim": 16, "queue_size": 12, "batch_norm_groups": 2}
    return MoCo(create_backbone("resnet8", width=4), MoCoConfig(**{**small, **options})).train()


def views(local: int = 0, batch: int = 4) -> Views:
    crops = [random(batch, 3, 32, 32, seed=i) for i in range(2)]
    return Views.from_list(crops + [random(batch, 3, 16, 16, seed=9 + i) for i in range(local)])


# The loss


def test_loss_is_the_cross_entropy_of_finding_the_positive() -> None:
    queries, keys, queue, temperature = unit(3, 8), unit(3, 8, seed=1), unit(5, 8, seed=2), 0.2
    expected = 0.0
    for b in range(3):
        positive = torch.exp(queries[b].double() @ keys[b].double() / temperature)
        negatives = sum(torch.exp(queries[b].double() @ k.double() / temperature) for k in queue)
        expected = expected - torch.log(positive / (positive + negatives)) / 3
    loss = contrastive_loss(queries, keys, queue, temperature)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


def test_loss_is_computed_in_float32_under_autocast() -> None:
    arguments = unit(3, 64), unit(3, 64, seed=1), unit(500, 64, seed=2), 0.07
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(*arguments)
    assert loss.dtype == torch.float32
    assert loss.item() == contrastive_loss(*arguments).item()


@pytest.mark.parametrize("local", [0, 2])
def test_this_steps_keys_are_positives_but_never_negatives(local: int) -> None:
    moco, batch = method(batch_norm_groups=1), views(local)
    key, online, queue = copy.deepcopy(moco.key.module), copy.deepcopy(moco.online), moco.queue.clone()
    output = moco(batch, Step(0, 10))

    keys = [F.normalize(key(view), dim=1) for view in batch.global_crops]
    crops = [*batch.global_crops, *(batch.local_crops if local else ())]
    queries = [F.normalize(online(view), dim=1) for view in crops]
    losses = []
    for i, positive in enumerate(keys):
        for j, query in enumerate(queries):
            if i != j:
                logits = torch.stack([(query * positive).sum(1), *(query @ k for k in queue)], dim=1) / 0.2
                losses.append(-logits.log_softmax(1)[:, 0].mean())
    assert len(losses) == 2 + 2 * local
    torch.testing.assert_close(output.loss, torch.stack(losses).mean())
    torch.testing.assert_close(output.carry, torch.stack(keys))
    assert not output.carry.requires_grad

    assert torch.equal(moco.queue, queue)
    moco.on_step_end([output], Step(0, 10))
    assert torch.equal(moco.queue, torch.cat([output.carry[0], output.carry[1], queue[8:]]))
    assert moco.queue_pointer == 8


# The queue


@pytest.mark.parametrize("batches", [(3, 3, 3), (5,), (7, 2), (12, 1), (2, 11)])
def test_keys_overwrite_the_oldest(batches: tuple[int, ...]) -> None:
    moco = method(queue_size=5)
    expected, pointer = list(moco.queue.clone()), 0
    for seed, count in enumerate(batches):
        keys = unit(count, 8, seed=seed)
        moco.enqueue(keys)
        for key in keys:
            expected[pointer] = key
            pointer = (pointer + 1) % 5
    assert torch.equal(moco.queue, torch.stack(expected))
    assert moco.queue_pointer == pointer


def test_queue_starts_with_unit_vectors_and_is_saved() -> None:
    moco = method()
    torch.testing.assert_close(moco.queue.norm(dim=1), torch.ones(12))
    assert {"queue", "queue_pointer"} <= moco.state_dict().keys()


@pytest.mark.parametrize(
    ("images", "size"), [(1, 1), (1000, 500), (8191, 4095), (8192, 4096), (50_000, 4096)]
)
def test_queue_holds_at_most_half_of_the_data(images: int, size: int) -> None:
    assert MoCoConfig().for_data(images) == MoCoConfig(queue_size=size)


def test_key_encoder_follows_the_online_network() -> None:
    moco = method(key_momentum=0.75)
    for key, online in zip(moco.key.parameters(), moco.online.parameters(), strict=True):
        key.data.fill_(1.0)
        online.data.fill_(-1.0)
    moco.on_step_end([moco(views(), Step(0, 10))], Step(0, 10))
    assert all(torch.equal(p.data, torch.full_like(p, 0.5)) for p in moco.key.parameters())


# Batch norm over parts of the batch


@pytest.mark.parametrize("batch", range(2, 41))
def test_keys_are_normalised_in_other_company_than_queries(batch: int) -> None:
    groups = max(1, min(8, batch // 2))
    order = deal(batch, 8, torch.device("cpu"))
    assert torch.equal(order[order.argsort()], torch.arange(batch))
    assert torch.equal(random(batch)[order][order.argsort()], random(batch))

    queries = torch.arange(batch).tensor_split(groups)
    keys = order.tensor_split(groups)
    assert [len(part) for part in keys] == [len(part) for part in queries]
    for key in keys:
        for query in queries:
            together = len(set(key.tolist()) & set(query.tolist()))
            assert together <= -(-len(query) // groups)  # as few as there can be


def test_keys_return_to_the_order_of_their_images() -> None:
    torch.manual_seed(0)
    moco, batch = method(batch_norm_groups=2), views(batch=8)
    key = copy.deepcopy(moco.key.module).eval()
    moco.key.eval()
    expected = F.normalize(torch.stack([key(view) for view in batch.global_crops]), dim=-1)
    torch.testing.assert_close(moco(batch, Step(0, 10)).carry, expected)


def test_a_batch_norm_that_cannot_be_split_is_refused() -> None:
    class WithActivation(nn.BatchNorm2d):
        pass

    network = nn.Sequential(WithActivation(4))
    group_batch_norms(network, 1)
    with pytest.raises(ValueError, match="WithActivation cannot be split into 8 groups; take a backbone"):
        group_batch_norms(network, 8)


CPU, GPU = "as on a CPU", "as on a GPU"


@pytest.fixture(params=[CPU, GPU])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == GPU:
        monkeypatch.setattr(GroupedBatchNorm2d, "_part_by_part", GroupedBatchNorm2d._side_by_side)
    return str(request.param)


@pytest.mark.parametrize(("batch", "way"), [(8, CPU), (10, CPU), (8, GPU)], indirect=["way"])
def test_grouped_batch_norm_equals_a_batch_norm_per_part(batch: int, way: str) -> None:
    norm = nn.BatchNorm2d(6, momentum=0.3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    parts = [copy.deepcopy(norm) for _ in range(4)]
    grouped = nn.Sequential(copy.deepcopy(norm))
    group_batch_norms(grouped, 4)
    assert type(grouped[0]) is GroupedBatchNorm2d
    assert grouped.state_dict().keys() == {f"0.{name}" for name in norm.state_dict()}

    for seed in range(2):
        x = random(batch, 6, 5, 5, seed=seed).double().add(seed).requires_grad_()
        copied = x.detach().clone().requires_grad_()
        out = grouped(x)
        expected = torch.cat([part(chunk) for part, chunk in zip(parts, copied.tensor_split(4), strict=True)])
        out.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(x.grad, copied.grad)
    torch.testing.assert_close(grouped[0].weight.grad, sum(part.weight.grad for part in parts))
    for name in ("running_mean", "running_var"):
        mean = torch.stack([getattr(part, name) for part in parts]).mean(0)
        torch.testing.assert_close(getattr(grouped[0], name), mean)
    assert grouped[0].num_batches_tracked == 2


def test_grouped_batch_norm_is_plain_in_eval_mode() -> None:
    grouped, x = nn.Sequential(nn.BatchNorm2d(6)), random(8, 6, 5, 5)
    group_batch_norms(grouped, 4)
    grouped(x)
    plain = nn.BatchNorm2d(6)
    plain.load_state_dict(grouped[0].state_dict())
    assert torch.equal(grouped.eval()(x), plain.eval()(x))


def test_grouped_batch_norm_keeps_channels_last(way: str) -> None:
    grouped = nn.Sequential(nn.BatchNorm2d(6))
    group_batch_norms(grouped, 4)
    x = random(8, 6, 5, 5)
    out = grouped(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, grouped(x))


def test_grouped_batch_norm_writes_no_statistics_of_local_crops(way: str) -> None:
    grouped = nn.Sequential(nn.BatchNorm2d(6))
    group_batch_norms(grouped, 4)
    before, x = copy.deepcopy(grouped.state_dict()), random(8, 6, 5, 5)
    with batch_statistics_only(grouped):
        out = grouped(x)
    assert all(torch.equal(before[name], tensor) for name, tensor in grouped.state_dict().items())
    torch.testing.assert_close(out, grouped(x))
    assert grouped[0].num_batches_tracked == 1


def test_only_two_images_are_normalised_together() -> None:
    grouped = nn.Sequential(nn.BatchNorm2d(6))
    group_batch_norms(grouped, 8)
    torch.testing.assert_close(grouped(random(3, 6, 5, 5)), nn.BatchNorm2d(6)(random(3, 6, 5, 5)))
