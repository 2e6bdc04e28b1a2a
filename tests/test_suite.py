"""The wider suite: few labels, clusters, areas under curves and the spectrum, against what they claim."""

import sys

import numpy as np
import pytest
import torch
from made_features import INF, blobs
from scipy import stats
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import adjusted_mutual_info_score, f1_score, roc_auc_score

from ssl_zoo.draws import permutation, sample
from ssl_zoo.evaluation.clustering import cluster, mutual_information
from ssl_zoo.evaluation.collapse import alpha_req
from ssl_zoo.evaluation.linear import auroc, linear_probe, macro_f1, ridge_top1
from ssl_zoo.evaluation.low_shot import accuracy_of_draws, draw, low_shot, wanted


def test_a_sample_is_all_or_a_fixed_part():
    x = torch.randn(9, 2)
    assert sample(x, 9) is x
    assert torch.equal(sample(x, 4), x[permutation(9, 0)[:4]])


# few labels


def test_a_draw_takes_so_many_of_each_class_or_a_share_of_it():
    labels = torch.tensor([0] * 40 + [2] * 13 + [3] * 200)[torch.randperm(253)]
    for size, counts in (
        (1, [1, 0, 1, 1]),
        (10, [10, 0, 10, 10]),
        (0.01, [1, 0, 1, 2]),
        (0.1, [4, 0, 1, 20]),
    ):
        taken = wanted(labels, size)
        assert taken.tolist() == counts
        drawn = draw(labels, taken, 0)
        assert labels[drawn].bincount().tolist() == counts
        assert len(set(drawn.tolist())) == sum(counts)
        assert torch.equal(drawn, draw(labels, taken, 0))
        assert not torch.equal(drawn, draw(labels, taken, 1))
    assert wanted(labels, 14) is None  # class 2 has 13


def test_every_image_of_a_class_is_drawn_as_often():
    labels = torch.arange(60) % 2
    drawn = torch.cat([draw(labels, wanted(labels, 5), number) for number in range(600)])
    counts = drawn.bincount(minlength=60)
    assert counts.sum() == 6000
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_few_labels_are_classified_as_scikit_learn_would(monkeypatch):
    module = sys.modules["ssl_zoo.evaluation.low_shot"]
    (x, y), (test_x, test_y) = blobs(120, classes=4, spread=2.0), blobs(80, classes=4, spread=2.0, seed=1)
    x, test_x = x**3, test_x**3  # few images would give another mean and deviation
    told = low_shot(x, y, test_x, c=0.1, num_classes=5)
    assert list(told) == ["1", "5", "10", "1%", "10%"]
    mean, std = x.mean(0), x.std(0, correction=0)
    for number in range(5):
        index = draw(y, wanted(y, 5), number)
        model = LogisticRegression(C=0.1).fit(((x - mean) / std)[index].numpy(), y[index].numpy())
        predicted = model.predict(((test_x - mean) / std).numpy())
        assert (predicted != told["5"][number].numpy()).sum() <= 1  # float32
    rates = [accuracy_of_draws(told[size], test_y)["mean"] for size in ("1", "5", "10")]
    assert 0.25 < rates[0] < rates[1] < rates[2]
    monkeypatch.setattr(module, "_MOST_IMAGES", 30)
    assert [
        size for size, classes in low_shot(x, y, test_x, c=0.1, num_classes=5).items() if classes is None
    ] == ["10"]


def test_accuracy_of_draws_has_a_t_interval():
    labels = torch.zeros(10, dtype=torch.int64)
    told = torch.ones(5, 10, dtype=torch.int64)
    for number, hits in enumerate((5, 6, 7, 6, 4)):
        told[number, :hits] = 0
    found = accuracy_of_draws(told, labels)
    low, high = stats.t.interval(0.95, 4, loc=0.56, scale=stats.sem([0.5, 0.6, 0.7, 0.6, 0.4]))
    assert (found["mean"], found["draws"]) == (pytest.approx(0.56), 5)
    assert found["half_width"] == pytest.approx((high - low) / 2)


# clusters


@pytest.mark.parametrize("faiss", [True, False])
def test_k_means_finds_classes_that_lie_apart(faiss, monkeypatch):
    module = sys.modules["ssl_zoo.evaluation.clustering"]
    if not faiss:
        monkeypatch.setattr(module, "has_faiss", lambda: False)
    x, y = blobs(300, classes=5, spread=0.3)
    scaled = x * torch.rand(300, 1) * 10  # only directions count
    clusters = cluster(scaled, 5)
    found = mutual_information(clusters, y)
    assert found["cluster_ami"] == pytest.approx(adjusted_mutual_info_score(y, clusters))
    assert min(found.values()) > 0.95
    assert torch.equal(cluster(scaled, 5), clusters)
    by_chance = mutual_information(clusters, y[torch.randperm(300)])
    assert abs(by_chance["cluster_ami"]) < by_chance["cluster_nmi"] < 0.05
    monkeypatch.setattr(module, "MOST_IMAGES", 50)
    some = cluster(scaled, 5)
    assert len(some) == 50
    assert mutual_information(some, y)["cluster_ami"] > 0.9  # the labels of the same images
    with pytest.raises(ValueError, match="51 clusters of 300 features; give 1 to 50"):
        cluster(scaled, 51)


def test_clusters_of_equal_features_and_of_too_few():
    assert cluster(torch.ones(6, 3), 3).shape == (6,)
    with pytest.raises(ValueError, match="4 clusters of 3 features; give 1 to 3"):
        cluster(torch.randn(3, 2), 4)


# what is read off the probe


def test_macro_f1_is_scikit_learns_over_the_classes_present():
    labels, scores = torch.tensor([0, 0, 0, 1]), torch.eye(3)[[0, 0, 1, 1]]
    assert macro_f1(scores, labels) == pytest.approx((0.8 + 2 / 3) / 2)
    assert macro_f1(scores, labels) == pytest.approx(f1_score(labels, scores.argmax(1), average="macro"))
    assert macro_f1(torch.eye(3)[[0, 0, 2, 1]], labels) == pytest.approx((0.8 + 1) / 2)
    assert macro_f1(torch.eye(3)[[2, 2, 2, 2]], labels) == 0.0


@pytest.mark.parametrize("classes", [2, 4])
def test_auroc_is_the_mean_over_classes_against_the_rest(classes):
    (x, y), (test_x, test_y) = blobs(200, classes, spread=4.0), blobs(100, classes, spread=4.0, seed=1)
    scores = linear_probe(x, y, test_x, c=0.1, num_classes=classes).scores
    chances = scores.softmax(1)
    expected = [roc_auc_score(test_y == label, chances[:, label]) for label in range(classes)]
    assert auroc(scores, test_y) == pytest.approx(np.mean(expected))
    assert 0.6 < auroc(scores, test_y) < 1
    if classes == 2:
        assert auroc(scores, test_y) == pytest.approx(roc_auc_score(test_y, scores[:, 1]))


def test_auroc_needs_every_class_in_test_but_not_in_train():
    scores = torch.tensor([[2.0, 0, -INF], [1, 0, -INF], [0, 1, -INF], [0, 1, -INF]])
    assert auroc(scores, torch.tensor([0, 0, 1, 1])) is None
    assert auroc(scores[:, :2], torch.tensor([0, 0, 0, 0])) is None
    assert auroc(scores, torch.tensor([0, 0, 1, 2])) == pytest.approx((1 + 5 / 6 + 0.5) / 3)


def test_ridge_is_scikit_learns_on_standardised_features():
    (x, y), (test_x, test_y) = blobs(200, spread=3.0), blobs(100, spread=3.0, seed=1)
    x, test_x = (features * torch.logspace(-3, 1, 8) + 5 for features in (x, test_x))
    mean, std = x.mean(0), x.std(0, correction=0)
    model = RidgeClassifier().fit(((x - mean) / std).numpy(), y.numpy())
    expected = model.score(((test_x - mean) / std).numpy(), test_y.numpy())
    assert ridge_top1(x, y, test_x, test_y, 3) == pytest.approx(expected)
    assert 0.5 < expected < 1
    with pytest.raises(ValueError, match="two classes"):
        ridge_top1(x, torch.zeros_like(y), test_x, test_y, 3)
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        ridge_top1(x, y, test_x, test_y, 2)


# the spectrum


def with_spectrum(values, count=400):
    """Features [count, D] whose covariance has these eigenvalues, around a mean that is not zero."""
    random = torch.randn(count, len(values), dtype=torch.float64)
    whitened = torch.linalg.qr(random - random.mean(0)).Q
    turned = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64)).Q
    return whitened * torch.as_tensor(values).sqrt() @ turned + 3


def test_alpha_req_is_the_exponent_of_the_spectrum():
    rank = np.arange(1, 61.0)
    for alpha in (0.0, 0.5, 1.7):
        assert alpha_req(with_spectrum(rank**-alpha)) == pytest.approx(alpha, abs=1e-6)
    wide = np.concatenate([rank[:100] ** -0.5, np.full(60, 1e-3)])
    assert alpha_req(with_spectrum(wide[:60])) == pytest.approx(0.5)


def test_alpha_req_fits_the_ranks_6_to_100_by_their_inverse():
    rank = np.arange(1, 121.0)
    values = np.sort(np.random.default_rng(0).gamma(1.0, size=120))[::-1].copy()
    inside = (rank >= 6) & (rank <= 100)
    x, y, w = np.log(rank[inside]), np.log(values[inside]), 1 / rank[inside]
    centred = x - np.average(x, weights=w)
    slope = (w * centred * y).sum() / (w * centred**2).sum()
    assert alpha_req(with_spectrum(values)) == pytest.approx(-slope)
    outside = np.concatenate([values[:5] * 100, values[5:100], values[100:] / 100])
    assert alpha_req(with_spectrum(outside)) == pytest.approx(-slope)


def test_alpha_req_of_too_few_directions_is_not_given():
    assert alpha_req(torch.randn(50, 14)) is None  # ranks 6 to 14
    assert alpha_req(torch.randn(50, 15)) is not None
    assert alpha_req(torch.randn(12, 64)) is None
    assert alpha_req(torch.ones(50, 32)) is None
    assert alpha_req(torch.randn(500, 3) @ torch.randn(3, 64)) is None  # what is left is rounding
