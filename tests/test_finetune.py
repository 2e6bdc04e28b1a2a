"""Fine-tuning: what it learns, what it leaves alone, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from made_run import SMALL
from PIL import Image

import ssl_zoo
from ssl_zoo.backbones import create_backbone
from ssl_zoo.batch_norm import GroupedBatchNorm2d, group_batch_norms
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.photos import Photos
from ssl_zoo.evaluation import Encoder
from ssl_zoo.evaluation import finetune as module
from ssl_zoo.evaluation.finetune import finetune

CLASSES = ("rows", "columns")


def striped(count, seed, side=16):
    """Noise with bright rows or columns at a random place, which pixels alone do not tell."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (count, 3, side, side), dtype=torch.uint8, generator=random)
    labels = torch.arange(count) % 2
    for image, label, start in zip(images, labels, torch.randint(4, (count,), generator=random), strict=True):
        (image if label else image.transpose(1, 2))[:, :, start::4] += 80
    return Split(images, labels, CLASSES, f"striped-{seed}")


def small_encoder():
    torch.manual_seed(0)
    return Encoder(create_backbone(SMALL["name"], 16, width=SMALL["width"]), 16).eval()


@pytest.fixture(scope="module")
def learned():
    return finetune(small_encoder(), striped(80, 0), striped(60, 1), epochs=15, device="cpu")


def test_it_learns_and_gives_three_shares(learned):
    assert list(learned) == ["finetune_top1", "finetune_top5", "finetune_balanced_accuracy"]
    assert learned["finetune_top1"] > 0.8
    assert learned["finetune_balanced_accuracy"] == pytest.approx(learned["finetune_top1"])
    assert learned["finetune_top5"] == 1


def test_norms_that_a_method_split_are_whole_again(learned):
    encoder = small_encoder()
    group_batch_norms(encoder.backbone, 8)
    assert finetune(encoder, striped(80, 0), striped(60, 1), epochs=15, device="cpu") == learned
    assert {norm.groups for norm in encoder.modules() if isinstance(norm, GroupedBatchNorm2d)} == {8}


def test_the_same_seed_gives_the_same_numbers_and_nothing_else_changes(learned):
    encoder = small_encoder()
    before = copy.deepcopy(encoder.state_dict())
    encoder.requires_grad_(False)  # as a teacher's: the copy is trained all the same
    random = torch.get_rng_state()
    again = finetune(encoder, striped(80, 0), striped(60, 1), epochs=15, device="cpu")
    assert again == learned
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder.training
    assert not any(p.requires_grad or p.grad is not None for p in encoder.parameters())


def test_permuted_test_labels_score_at_chance():
    test = striped(200, 1)
    shuffled = Split(test.images, test.labels[torch.randperm(200)], CLASSES, "shuffled")
    scores = finetune(small_encoder(), striped(80, 0), shuffled, epochs=10, device="cpu")
    assert abs(scores["finetune_top1"] - 0.5) < 0.15


def test_a_backbone_takes_the_images_as_they_are(learned):
    backbone = small_encoder().backbone
    scores = ssl_zoo.finetune(backbone, striped(80, 0), striped(60, 1), epochs=15, device="cpu")
    assert scores == learned


def test_photos_are_cut_by_the_loader(tmp_path):
    def photos(count, seed):
        split = striped(count, seed, side=24)
        files = [tmp_path / f"{seed}-{i}.png" for i in range(count)]
        for file, image in zip(files, split.images, strict=True):
            Image.fromarray(np.asarray(image.permute(1, 2, 0))).save(file)
        sides = torch.full((count, 2), 24)
        images = Photos(files, split.content_hash(), sides, grey=False)
        return Split(images, split.labels, CLASSES, split.fingerprint)

    encoder = small_encoder()
    scores = finetune(encoder, photos(40, 0), photos(20, 1), epochs=2, device="cpu", workers=0)
    assert scores == finetune(encoder, photos(40, 0), photos(20, 1), epochs=2, device="cpu", workers=1)


@pytest.mark.parametrize(
    ("epochs", "images", "batch_size", "steps"),
    [
        (None, 300, 75, 500),
        (None, 5_000, 128, 781),
        (None, 50_000, 128, 4_000),
        (3, 300, 75, 12),
        (0.001, 300, 75, 1),
    ],
)
def test_steps_are_bounded_unless_epochs_are_given(epochs, images, batch_size, steps):
    assert module._steps(epochs, images, batch_size) == steps


def test_what_cannot_be_learned_is_refused():
    encoder, train, test = small_encoder(), striped(8, 0), striped(8, 1)
    with pytest.raises(ValueError, match="needs labels"):
        finetune(encoder, Split(train.images, None, CLASSES, ""), test)
    with pytest.raises(ValueError, match="give both the same"):
        finetune(encoder, train, Split(test.images, test.labels, ("a", "b"), ""))
    with pytest.raises(ValueError, match="one class"):
        finetune(encoder, train.take(torch.tensor([0, 2, 4])), test)
    with pytest.raises(FloatingPointError, match="lower lr"):
        finetune(encoder, train, test, lr=1e30, epochs=3, device="cpu")
