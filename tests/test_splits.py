"""Who is trained on, chosen on, tested on, and in which order."""

import json
from pathlib import Path

import pytest
import torch
from made_data import made, rows

from ssl_zoo.data.datasets import Dataset, Split, create_dataset
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.data.splits import roles


@pytest.fixture(scope="module")
def large() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2000, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return images, torch.arange(2000) % 2


def test_selection_is_a_tenth_left_out_of_pretraining(large) -> None:
    dataset = made(*large)
    parts = roles(dataset)
    ((fit, validate),) = parts.folds
    assert (len(fit), len(validate), len(parts.pretrain), len(parts.train)) == (1800, 200, 1800, 2000)
    assert sorted([*fit.tolist(), *validate.tolist()]) == list(range(2000))
    assert torch.equal(parts.pretrain.images, parts.train.images[fit])
    assert torch.equal(parts.pretrain.labels, parts.train.labels[fit])
    assert parts.train is dataset.split("train")
    assert parts.test is dataset.split("test")
    assert 70 < parts.train.labels[validate].sum() < 130  # no tie between hash and label


def test_selection_does_not_depend_on_the_order(large) -> None:
    images, labels = large
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    first, second = roles(made(images, labels)), roles(made(images[order], labels[order]))
    assert rows(images[first.folds[0][1]]) == rows(images[order][second.folds[0][1]])
    few, few_order = images[:300], order[order < 300]
    first, second = roles(made(few, labels[:300])), roles(made(few[few_order], labels[:300][few_order]))
    for (_, one), (_, other) in zip(first.folds, second.folds, strict=True):
        assert rows(few[one]) == rows(few[few_order][other])


@pytest.mark.parametrize("count", [2000, 300])
def test_exact_duplicates_stay_on_one_side(large, count: int) -> None:
    images, labels = large[0][:count].clone(), large[1][:count]
    half = count // 2
    images[half:] = images[:half]
    for fit, validate in roles(made(images, labels)).folds:
        side = torch.zeros(count)
        side[validate] = 1
        assert torch.equal(side[half:], side[:half])
        assert len(fit) + len(validate) == count
        assert 0.09 * count < len(validate) < 0.25 * count


def test_images_for_pretraining_only_are_all_kept_but_the_selected_ones(large) -> None:
    images, labels = large
    unlabelled = Split(255 - images[:50], None, (), "another")
    parts = roles(made(images, labels, pretrain=unlabelled))
    assert parts.pretrain is unlabelled
    assert "excluded" not in parts.rule
    everything = Split(torch.cat([images, unlabelled.images]), None, (), "both")
    parts = roles(made(images, labels, pretrain=everything))
    assert len(parts.pretrain) == 2050 - 200
    assert "excluded from pretrain" in parts.rule
    selected = set(rows(images[parts.folds[0][1]]))
    assert not selected & set(rows(parts.pretrain.images))


@pytest.mark.parametrize("count", [2000, 300])
def test_groups_stay_on_one_side_with_the_duplicates_of_their_images(large, count: int) -> None:
    images, labels = large[0][:count].clone(), large[1][:count]
    groups = torch.arange(count) // 3
    images[-1] = images[0]  # ties the last group to the first
    dataset = made(images, labels, groups=groups)
    for _, validate in roles(dataset).folds:
        side = torch.zeros(count, dtype=torch.bool)
        side[validate] = True
        assert all(len(side[groups == group].unique()) == 1 for group in groups.unique())
        assert side[0] == side[-1]
        assert 0.08 * count < len(validate) < 0.25 * count


def in_groups(large, *sizes: int) -> Dataset:
    return made(*large, groups=torch.repeat_interleave(torch.tensor(sizes)))


def test_a_large_group_is_not_selected(large) -> None:
    parts = roles(in_groups(large, 1700, 200, 100))
    ((_, validate),) = parts.folds
    assert len(parts.pretrain) == 2000 - len(validate) >= 1800
    assert parts.rule.startswith(f"selection: {len(validate) / 2000:.0%} of train")


def test_large_groups_alone_give_folds(large) -> None:
    parts = roles(in_groups(large, 1000, 600, 400))
    assert (len(parts.folds), len(parts.pretrain)) == (3, 2000)
    with pytest.raises(ValueError, match="no class with two distinct"):
        roles(in_groups(large, 2000))


def test_folds_need_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = roles(create_dataset("digits")).folds
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "file"))
    for one, other in zip(roles(create_dataset("digits")).folds, expected, strict=True):
        assert all(map(torch.equal, one, other))


def test_few_labels_give_five_stratified_folds() -> None:
    dataset = create_dataset("digits")
    parts = roles(dataset)
    assert len(parts.folds) == 5
    assert parts.pretrain is dataset.split("train")
    assert torch.cat([validate for _, validate in parts.folds]).sort().values.tolist() == list(range(1438))
    counts = parts.train.labels.bincount()
    for fit, validate in parts.folds:
        assert not set(fit.tolist()) & set(validate.tolist())
        assert len(fit) + len(validate) == 1438
        assert ((parts.train.labels[validate].bincount() - counts / 5).abs() < 2).all()


def test_rare_classes_are_no_error_but_single_images_are(large) -> None:
    images = large[0]
    folds = roles(made(images[:23], [0] * 20 + [1] * 3)).folds
    assert sorted(len(validate) for _, validate in folds) == [4, 4, 5, 5, 5]
    assert len(roles(made(images[:6], [0, 0, 0, 1, 1, 1])).folds) == 3
    with pytest.raises(ValueError, match="no class with two distinct"):
        roles(made(images[:2], [0, 1]))
    assert roles(made(images, None)).folds == []


def test_summary_can_be_written_and_names_each_index_set(large) -> None:
    parts = roles(made(*large))
    summary = json.loads(json.dumps(parts.summary()))
    assert (
        summary["rule"]
        == "selection: 10% of train by the hash of each image's pixels, excluded from pretrain"
    )
    assert summary["split"] == "the source's own train and test"
    assert "test_names" not in summary
    fit, validate = parts.folds[0]
    assert summary["folds"] == [
        {
            "fit": {"images": 1800, "fingerprint": parts.train.take(fit).fingerprint},
            "validate": {"images": 200, "fingerprint": parts.train.take(validate).fingerprint},
        }
    ]
    assert summary["pretrain"] == {
        "images": 1800,
        "labelled": True,
        "fingerprint": parts.pretrain.fingerprint,
    }
    assert summary["train"]["images"] == 2000
    assert parts.pretrain.fingerprint == parts.train.take(fit).fingerprint != parts.train.fingerprint


# Sampler


def test_every_image_comes_once_an_epoch_in_full_batches() -> None:
    sampler = Sampler(size=10, batch_size=4, seed=3)
    batches = [sampler.batch(step) for step in range(10)]
    assert all(len(index) == len(epoch) == 4 for index, epoch in batches)
    assert batches[2][1].tolist() == [0, 0, 1, 1]  # straddles
    stream, epochs = (torch.cat(part) for part in zip(*batches, strict=True))
    assert epochs.tolist() == [epoch for epoch in range(4) for _ in range(10)]
    orders = stream.view(4, 10)
    assert torch.equal(orders.sort(1).values, torch.arange(10).expand(4, 10))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    forward = [Sampler(50, 50, 0).batch(step)[0] for step in range(6)]
    sampler = Sampler(50, 50, 0)
    backward = [sampler.batch(step)[0] for step in reversed(range(6))]
    assert all(map(torch.equal, forward, reversed(backward)))
    assert not torch.equal(forward[0], Sampler(50, 50, 1).batch(0)[0])
    forward[0].zero_()  # a caller's batch is its own
    assert torch.equal(sampler.batch(0)[0], backward[-1])


@pytest.mark.parametrize(("size", "batch_size"), [(0, 1), (5, 0), (5, 6)])
def test_impossible_batches_are_refused(size: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="give"):
        Sampler(size, batch_size, 0)
