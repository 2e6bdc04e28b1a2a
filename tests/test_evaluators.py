"""Evaluators: values against formulas written out, and the mistakes that make numbers wrong."""

import math
import sys

import numpy as np
import pytest
import torch
from made_features import INF, blobs
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch.nn import functional as F

from ssl_zoo.evaluation import linear, retrieval, search, weighted_knn
from ssl_zoo.evaluation.collapse import collapse_verdict, feature_std, rankme
from ssl_zoo.evaluation.knn import choose_k, knn_scores, top_accuracy
from ssl_zoo.evaluation.linear import balanced_accuracy, choose_c, linear_probe
from ssl_zoo.evaluation.retrieval import map_at_r


def test_weighted_knn_equals_the_official_formula_in_float64():
    (train_x, train_y), (test_x, _) = blobs(120, classes=6), blobs(25, classes=6, seed=1)
    expected = np.zeros((25, 7))
    for i, query in enumerate(test_x.double().numpy()):
        bank = train_x.double().numpy()
        similarity = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
        for j in np.argsort(-similarity)[:15]:
            expected[i, train_y[j]] += math.exp(similarity[j] / 0.07)
    scores = weighted_knn(train_x, train_y, test_x, k=15, num_classes=7)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-5)


def test_scores_of_many_k_come_from_one_search(monkeypatch):
    (x, y), (test_x, _) = blobs(90), blobs(20, seed=1)
    options = {"temperature": 0.1, "num_classes": 3}
    apart = {k: weighted_knn(x, y, test_x, k=k, **options) for k in (1, 5, 90)}
    searches = []
    knn = sys.modules["ssl_zoo.evaluation.knn"]
    monkeypatch.setattr(knn, "search", lambda *a, **k: searches.append(a) or search(*a, **k))
    together = dict(knn_scores(x, y, test_x, ks=[90, 1, 5], **options))
    assert list(together) == [1, 5, 90]
    assert len(searches) == 1
    for k, scores in together.items():
        torch.testing.assert_close(scores, apart[k])


def test_weighted_knn_stays_finite_and_ordered_at_the_smallest_temperature():
    (x, y), (test_x, _) = blobs(60), blobs(30, seed=1)
    sharp = weighted_knn(x, y, test_x, k=60, temperature=0.002, num_classes=3)
    assert sharp.isfinite().all()
    assert (sharp > 0).all()  # all classes have a vote, none underflows
    nearest = weighted_knn(x, y, test_x, k=1, num_classes=3)
    assert torch.equal(sharp.argmax(1), nearest.argmax(1))
    with pytest.raises(ValueError, match=r"0\.002 or more"):
        weighted_knn(x, y, test_x, k=5, temperature=0.001, num_classes=3)


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 3]), torch.tensor([0, -1, 2])])
def test_the_class_count_is_never_guessed(labels):
    with pytest.raises(ValueError, match=r"1 of 3 train labels are outside 0\.\.2"):
        weighted_knn(torch.eye(3), labels, torch.eye(3), k=1, num_classes=3)
    with pytest.raises(ValueError, match="int64"):
        weighted_knn(torch.eye(3), labels.float(), torch.eye(3), k=1, num_classes=3)


def test_top5_counts_no_class_without_a_vote():
    train_x, train_y = torch.eye(10), torch.arange(10)
    scores = weighted_knn(train_x, train_y, torch.eye(10)[:2], k=2, num_classes=10)
    assert top_accuracy(scores, torch.tensor([0, 1]), 5) == 1.0
    assert (
        top_accuracy(scores, torch.tensor([4, 3]), 5) == 0.0
    )  # unvoted classes that would fill ranks 3 to 5
    assert top_accuracy(scores[:, :3], torch.tensor([0, 1]), 5) == 1.0  # fewer than five classes at all


def test_top_accuracy_gives_ties_to_the_lower_class():
    scores = torch.tensor([[2.0, 2.0, 1.0]]).expand(3, 3)
    assert top_accuracy(scores, torch.tensor([0, 1, 2]), 1) == pytest.approx(1 / 3)
    assert top_accuracy(scores, torch.tensor([0, 1, 2]), 2) == pytest.approx(2 / 3)


def test_without_folds_k_is_the_allowed_one_nearest_below_20():
    x, y = blobs(50)
    options = {"temperature": 0.07, "num_classes": 3}
    assert choose_k(x, y, [], ks=[1, 5, 20, 40], **options) == 20
    assert choose_k(x, y, [], ks=[1, 5, 40], **options) == 5
    assert choose_k(x, y, [], ks=[30, 40], **options) == 30


# linear probe


def test_linear_probe_equals_scikit_learn():
    (train_x, train_y), (test_x, test_y) = blobs(300, classes=4), blobs(200, classes=4, seed=1)
    probe = linear_probe(train_x, train_y, test_x, c=0.1, num_classes=4)
    mean, std = train_x.mean(0), train_x.std(0, correction=0)
    model = LogisticRegression(C=0.1, max_iter=500)
    model.fit(((train_x - mean) / std).double().numpy(), train_y.numpy())
    expected = model.decision_function(((test_x - mean) / std).double().numpy())
    np.testing.assert_allclose(probe.scores.numpy(), expected, atol=5e-3)
    assert probe.converged
    assert top_accuracy(probe.scores, test_y, 1, floor=-INF) > 0.95


def test_linear_probe_standardises_by_the_bank_alone():
    x, y = blobs(200)
    shift = torch.full((8,), 50.0)
    alone = linear_probe(x, y, x[:5], c=0.1, num_classes=3)
    among = linear_probe(x, y, torch.cat([x[:5], x + 100 * shift]), c=0.1, num_classes=3)
    torch.testing.assert_close(alone.scores, among.scores[:5])
    scaled = linear_probe(x * 1000 + shift, y, x[:5] * 1000 + shift, c=0.1, num_classes=3)
    torch.testing.assert_close(alone.scores, scaled.scores, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("present", [2, 3])
def test_linear_probe_leaves_absent_classes_out(present):
    x, y = blobs(200, classes=present)
    y = y + 1  # class 0 is absent
    probe = linear_probe(x, y, x, c=1.0, num_classes=6)
    assert probe.scores.shape == (200, 6)
    assert (probe.scores == -INF).all(0).tolist() == [True] + [False] * present + [True] * (5 - present)
    assert top_accuracy(probe.scores, y, 1, floor=-INF) > 0.95
    assert top_accuracy(probe.scores, torch.full_like(y, 5), 5, floor=-INF) == 0.0


def test_linear_probe_on_random_labels_is_at_chance():
    x, test_x = torch.randn(1000, 8), torch.randn(2000, 8)
    probe = linear_probe(x, torch.randint(4, (1000,)), test_x, c=0.1, num_classes=4)
    assert abs(top_accuracy(probe.scores, torch.randint(4, (2000,)), 1, floor=-INF) - 0.25) < 0.05


def test_a_fit_that_does_not_converge_says_so_without_a_warning(monkeypatch):
    monkeypatch.setattr(linear, "_MAX_ITERATIONS", 2)
    x, y = blobs(200)
    assert not linear_probe(x, y, x, c=1.0, num_classes=3).converged


def test_a_probe_of_one_class_is_refused():
    with pytest.raises(ValueError, match="two classes"):
        linear_probe(torch.randn(5, 2), torch.ones(5).long(), torch.randn(5, 2), c=1.0, num_classes=2)


def test_c_is_chosen_on_folds_with_a_limited_fit(monkeypatch):
    # 40 noisy images in 60 dimensions: only strong regularisation generalises
    random = torch.Generator().manual_seed(0)
    x = torch.randn(400, 60, generator=random)
    y = (x[:, 0] + 2 * torch.randn(400, generator=random) > 0).long()
    fit, validation = torch.arange(40), torch.arange(40, 400)

    def accuracy(c):
        probe = linear_probe(x[fit], y[fit], x[validation], c=c, num_classes=2)
        return top_accuracy(probe.scores, y[validation], 1, floor=-INF)

    best = max(linear.GRID, key=accuracy)
    assert choose_c(x, y, [(fit, validation)], num_classes=2) == best == 0.01
    assert choose_c(x, y, [], num_classes=2) == 0.1
    sizes = []
    monkeypatch.setattr(linear, "_CHOICE_IMAGES", 25)
    fits = linear.fits
    monkeypatch.setattr(linear, "fits", lambda by, x, *rest: sizes.append(len(x)) or fits(by, x, *rest))
    choose_c(x, y, [(fit, validation)] * 2, num_classes=2)
    assert sizes == [25, 25]


def test_balanced_accuracy_is_scikit_learns_over_the_classes_present():
    labels, scores = torch.tensor([0, 0, 0, 1]), torch.eye(3)[[0, 0, 1, 1]]
    assert balanced_accuracy(scores, labels) == pytest.approx((2 / 3 + 1) / 2)
    assert balanced_accuracy(scores, labels) == balanced_accuracy_score(labels, scores.argmax(1))
    assert balanced_accuracy(torch.eye(3)[[0, 0, 2, 1]], labels) == pytest.approx((2 / 3 + 1) / 2)


# retrieval


def test_map_at_r_by_hand():
    # angles on a circle, classes a a a b b: R is 2 for a and 1 for b
    angles = torch.tensor([0.0, 10, 60, 25, 100]) * math.pi / 180
    x, y = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0, 0, 0, 1, 1])
    # queries and their nearest R: 0: a b -> 1/2; 10: a b (10 and 15 away) -> 1/2; 60: b, then b -> 0;
    # 25: a -> 0; 100: a -> 0
    assert map_at_r(3 * x, y) == pytest.approx((0.5 + 0.5 + 0 + 0 + 0) / 5)


def test_map_at_r_leaves_out_the_query_even_among_equal_images():
    assert map_at_r(torch.ones(6, 2), torch.tensor([0, 0, 0, 0, 0, 0])) == 1.0
    x = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]).repeat(3, 1)
    assert map_at_r(x, torch.tensor([0, 0, 1, 1]).repeat(3)) == 1.0


def test_map_at_r_does_not_depend_on_chunks_and_skips_lone_images(monkeypatch):
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    x, y = blobs(203, classes=5, spread=4.0)
    x, y = torch.cat([x, torch.randn(2, 8)]), torch.cat([y, torch.tensor([5, 6])])  # two alone in their class
    reference = AccuracyCalculator(include=("mean_average_precision_at_r",), k="max_bin_count")
    expected = reference.get_accuracy(F.normalize(x), y)["mean_average_precision_at_r"]
    assert map_at_r(x, y) == pytest.approx(expected)
    monkeypatch.setattr(retrieval, "_CHUNK_NEIGHBOURS", 700)
    assert map_at_r(x, y) == pytest.approx(expected)
    some = map_at_r(x, y, max_queries=50)
    assert some == map_at_r(x, y, max_queries=50) != pytest.approx(expected)
    assert abs(some - expected) < 0.1
    with pytest.raises(ValueError, match="needs pairs"):
        map_at_r(x[:3], torch.tensor([0, 1, 2]))


# collapse


def test_rankme_counts_the_directions_in_use(monkeypatch):
    assert rankme(torch.randn(4000, 20)) == pytest.approx(20, rel=0.01)
    assert rankme(torch.randn(10, 40)) < 10
    assert rankme(torch.randn(500, 1) @ torch.randn(1, 64)) == pytest.approx(1, abs=1e-4)
    assert rankme(torch.zeros(5, 3)) == 1.0
    values = np.array([3.0, 1.0, 0.5])
    shares = values / values.sum()
    assert rankme(torch.diag(torch.tensor(values))) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    x = torch.randn(400, 5)
    collapse = sys.modules["ssl_zoo.evaluation.collapse"]
    monkeypatch.setattr(collapse, "_SPECTRUM_FEATURES", 3)
    assert rankme(x) == rankme(x) < 3.0


def test_feature_std_is_0_for_constant_and_1_for_isotropic_features():
    assert feature_std(torch.full((50, 8), 3.0)) == pytest.approx(0, abs=1e-12)
    assert feature_std(torch.randn(1, 8).expand(50, 8) * torch.rand(50, 1)) == pytest.approx(0, abs=1e-6)
    assert feature_std(torch.randn(5000, 32)) == pytest.approx(1, abs=0.01)
    assert 0 < feature_std(torch.randn(5000, 32) + 3) < 0.5


@pytest.mark.parametrize(
    ("std", "rank", "random_rank", "steps", "finite", "verdict"),
    [
        (0.5, 60.0, 100.0, 1000, True, "healthy"),
        (0.5, 26.0, 100.0, 100, True, "healthy"),
        (0.5, 24.0, 100.0, 1000, True, "dimensional"),
        (0.5, 24.0, None, 1000, True, "healthy"),
        (0.001, 1.1, 100.0, 1000, True, "complete"),
        (0.001, 1.1, None, 1000, True, "complete"),
        (0.5, 60.0, 100.0, 99, True, "undecided"),
        (0.5, 60.0, None, 0, True, "undecided"),
        (0.001, 1.1, 100.0, 5, True, "complete"),
        (0.5, 10.0, 100.0, 5, True, "dimensional"),
        (math.nan, math.nan, 100.0, 5, False, "diverged"),
        (0.5, 60.0, 100.0, 1000, False, "diverged"),
    ],
)
def test_collapse_verdict(std, rank, random_rank, steps, finite, verdict):
    assert collapse_verdict(std, rank, random_rankme=random_rank, steps=steps, finite=finite) == verdict
