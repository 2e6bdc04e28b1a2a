"""Alignment and uniformity: the paper's formulas, and views that are the same for every encoder."""

import pytest
import torch
from made_features import pixels
from torch.nn import functional as F

from ssl_zoo.backbones import create_backbone
from ssl_zoo.data.augment import normalize
from ssl_zoo.data.datasets import Split
from ssl_zoo.draws import permutation
from ssl_zoo.evaluation import Encoder, spread
from ssl_zoo.evaluation.spread import alignment, uniformity, view_alignment
from ssl_zoo.method import Augment, ViewSpec

VIEW = Augment(16, scale=(0.2, 1.0))
STILL = Augment(16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, gray_p=0.0)


def small_encoder(**statistics):
    torch.manual_seed(0)
    return Encoder(create_backbone("resnet8", 16, width=8), 16, **statistics).train()


def mean_potential(x):
    return torch.pdist(F.normalize(x.double())).square().mul(-2).exp().mean().log().item()


def test_alignment_is_the_mean_squared_distance_on_the_sphere():
    first, second = torch.randn(40, 6), torch.randn(40, 6)
    apart = (F.normalize(first) - F.normalize(second)).norm(dim=1)
    assert alignment(first, second) == pytest.approx(apart.pow(2).mean().item())
    assert alignment(first, 3 * first) == pytest.approx(0, abs=1e-12)
    assert alignment(first, -first) == pytest.approx(4)


def test_uniformity_is_the_log_of_the_mean_gaussian_potential():
    x = torch.randn(40, 6)
    assert uniformity(x) == pytest.approx(mean_potential(x))
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0)
    assert uniformity(torch.zeros(9, 4)) == pytest.approx(0)
    assert uniformity(torch.randn(1500, 64)) == pytest.approx(-4, abs=0.2)
    with pytest.raises(ValueError, match="give two or more"):
        uniformity(x[:1])


def test_uniformity_of_many_features_is_that_of_a_fixed_subset(monkeypatch):
    monkeypatch.setattr(spread, "_UNIFORMITY_FEATURES", 30)
    x = torch.randn(50, 4)
    assert uniformity(x) == pytest.approx(mean_potential(x[permutation(50, 0)[:30]]))


def test_view_alignment_tells_how_far_augmentation_moves_the_features(monkeypatch):
    net, split = small_encoder(), Split(pixels(23), None, (), "made")
    moved = view_alignment(net, split, ViewSpec((VIEW, VIEW)))
    assert 0 < moved < 4
    assert view_alignment(net, split, ViewSpec((VIEW, VIEW))) == moved
    assert view_alignment(net, split, ViewSpec((STILL, STILL))) == pytest.approx(0, abs=1e-9)
    monkeypatch.setattr(spread, "_BATCH", 10)  # three batches of seven images
    seen = view_alignment(net, split, ViewSpec((VIEW, VIEW)))
    assert seen == pytest.approx(moved, rel=0.5)


def test_views_reach_an_encoder_in_its_own_normalisation():
    images = torch.rand(3, 3, 16, 16)
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.6, 0.7)
    ours, theirs = small_encoder(), small_encoder(mean=mean, std=std)
    views = normalize(images)
    assert ours.from_views(views) is views
    torch.testing.assert_close(theirs.from_views(views), normalize(images, mean, std))
    split = Split(pixels(23), None, (), "made")
    alignments = [view_alignment(each, split, ViewSpec((VIEW, VIEW))) for each in (ours, theirs)]
    assert alignments[0] != alignments[1]
    assert ours.training
