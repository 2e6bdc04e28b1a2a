"""Evaluators: values against formulas written out, and the mistakes that make numbers wrong."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from ssl_zoo.backbones import create_backbone
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.data.datasets import Split
from ssl_zoo.evaluation import Encoder, evaluate, linear, retrieval, score, search, weighted_knn
from ssl_zoo.evaluation.collapse import collapse_verdict, feature_std, rankme
from ssl_zoo.evaluation.encoder import load_encoder, save_encoder
from ssl_zoo.evaluation.features import extract, fit_size, to_input
from ssl_zoo.evaluation.knn import choose_k, knn_scores, top_accuracy
from ssl_zoo.evaluation.linear import balanced_accuracy, choose_c, linear_probe
from ssl_zoo.evaluation.retrieval import map_at_r

INF = math.inf


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def blobs(count, classes=3, dim=8, spread=1.0, seed=0):
    """Features around one random centre per class, and their labels."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99)) * 2
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (count,), generator=random)
    return centres[y] + spread * torch.randn(count, dim, generator=random), y


def holdout(count, share=5):
    index = torch.arange(count)
    return [(index[index % share != 0], index[index % share == 0])]


# search


def brute_force(queries, bank, k):
    products = queries.double() @ bank.double().T
    rows = [sorted(range(len(bank)), key=lambda j, row=row: (-row[j], j))[:k] for row in products.tolist()]
    return torch.tensor(rows)


@pytest.mark.parametrize("backend", ["auto", "faiss", "torch"])
@pytest.mark.parametrize("k", [1, 7, 150, 300])
def test_search_orders_by_score_then_index_even_across_the_border(backend, k):
    # products of small integers are exact in float32, and tie very often
    queries, bank = torch.randint(-2, 3, (40, 4)).float(), torch.randint(-2, 3, (300, 4)).float()
    scores, index = search(queries, bank, k, backend=backend)
    expected = brute_force(queries, bank, k)
    assert torch.equal(index, expected)
    assert torch.equal(scores, (queries @ bank.T).gather(1, expected))
    assert (scores.dtype, index.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_search_keeps_the_first_of_a_bank_of_equal_rows(backend, monkeypatch):
    monkeypatch.setattr(sys.modules["ssl_zoo.evaluation.search"], "_CHUNK_SCORES", 1)  # 32 queries at once
    _, index = search(torch.ones(70, 5), torch.ones(2000, 5), 10, backend=backend)
    assert torch.equal(index, torch.arange(10).expand(70, 10))


def test_search_backends_agree_and_do_not_depend_on_chunks(monkeypatch):
    queries, bank = torch.randn(150, 32), torch.randn(400, 32)
    scores, index = search(queries, bank, 20, backend="faiss")
    for name in ("_CHUNK_SCORES", "_FAISS_ROWS"):
        monkeypatch.setattr(sys.modules["ssl_zoo.evaluation.search"], name, 64)
    for backend in ("faiss", "torch"):
        other, same = search(queries, bank, 20, backend=backend)
        assert torch.equal(index, same)
        torch.testing.assert_close(scores, other)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_row_finds_itself_and_no_query_finds_nothing(backend):
    x = F.normalize(torch.randn(200, 16))
    scores, index = search(x, x, 1, backend=backend)
    assert torch.equal(index.squeeze(1), torch.arange(200))
    torch.testing.assert_close(scores.squeeze(1), torch.ones(200))
    assert search(x[:0], x, 3, backend=backend)[1].shape == (0, 3)


def test_search_falls_back_to_torch_where_faiss_is_missing_or_clashes(monkeypatch):
    x = torch.randn(30, 4)
    expected = search(x, x, 5)[1]
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import would fail
    monkeypatch.setattr(sys, "platform", "darwin")
    assert torch.equal(search(x, x, 5)[1], expected)


@pytest.mark.parametrize(
    ("queries", "bank", "options", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 3), {"k": 5}, "from 1 to 4"),
        (torch.zeros(2, 3), torch.zeros(4, 3), {"k": 0}, "from 1 to 4"),
        (torch.zeros(2, 3), torch.zeros(4, 2), {"k": 1}, "3 numbers wide, the bank 2"),
        (torch.zeros(2, 3, 1), torch.zeros(4, 3), {"k": 1}, r"\[N, D\]"),
        (torch.zeros(2, 3), torch.zeros(4, 3), {"k": 1, "backend": "fais"}, "allowed: auto, faiss, torch"),
    ],
)
def test_search_refuses_what_has_no_answer(queries, bank, options, message):
    with pytest.raises(ValueError, match=message):
        search(queries, bank, **options)


# weighted k-NN


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
    monkeypatch.setattr(knn, "search", lambda *a: searches.append(a) or search(*a))
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
    path = linear._path
    monkeypatch.setattr(linear, "_path", lambda x, *rest: sizes.append(len(x)) or path(x, *rest))
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
    monkeypatch.setattr(collapse, "_RANKME_FEATURES", 3)
    assert rankme(x) == rankme(x) < 3.0


def test_feature_std_is_0_for_constant_and_1_for_isotropic_features():
    assert feature_std(torch.full((50, 8), 3.0)) == 0.0
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


# features


def small_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with torch.no_grad():
        net(torch.randn(64, 3, 16, 16))  # running statistics that differ from a batch's
    return net


def pixels(count, size=16, channels=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=random)


def test_extract_equals_the_computation_by_hand_whatever_the_batches():
    net, images = small_net(), pixels(9)
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    x = (images / 255 - mean) / std
    with torch.no_grad():
        expected = net.eval()(x)
        in_train_mode = net.train()(x)
    net = small_net()
    for batch_size in (512, 4):  # 9 = 4 + 4 + 1: the rest is a batch of one
        features = extract(net, images, image_size=None, device="cpu", batch_size=batch_size)
        torch.testing.assert_close(features, expected)
    assert (features.dtype, features.requires_grad, features.is_inference()) == (torch.float32, False, False)
    # the probe of a backbone left in train mode, lightly issue 1440, would have seen other features
    assert (features - in_train_mode).abs().max() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_extract_restores_every_mode_and_changes_no_buffer(training):
    net = small_net().train(training)
    net[1].eval()  # a part frozen on its own
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [part.training for part in net.modules()]
    first = extract(net, pixels(5), image_size=16, device="cpu")
    assert torch.equal(
        first, extract(net, pixels(5), image_size=16, device="cpu")
    )  # no augmentation, no dropout
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(RuntimeError):
        extract(nn.Sequential(net, nn.Linear(1, 1)), pixels(2), image_size=16, device="cpu")
    assert [part.training for part in net.modules()] == modes


def test_extract_computes_in_float32_under_autocast():
    net = small_net()
    plain = extract(net, pixels(5), image_size=None, device="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extract(net, pixels(5), image_size=None, device="cpu"), plain)


def test_images_are_fitted_as_torchvision_does_and_only_where_needed():
    image = Image.fromarray(pixels(1, 40)[0].permute(1, 2, 0).numpy()).crop((0, 0, 40, 30))
    reference = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(24, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(24),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    tensor = v2.functional.pil_to_tensor(image)
    torch.testing.assert_close(to_input(tensor[None], 24)[0], reference(image))
    assert torch.equal(fit_size(tensor[None], 30)[0], tensor[:, :, 5:35])  # cropped, not resampled
    assert fit_size(tensor[None], None).shape == (1, 3, 30, 40)
    grey = fit_size(pixels(2, 24, channels=1), 24)
    assert torch.equal(grey, pixels(2, 24, channels=1).repeat(1, 3, 1, 1))
    for wrong in (pixels(2, channels=4), pixels(2).float(), pixels(2)[0]):
        with pytest.raises(ValueError, match="uint8"):
            fit_size(wrong, 16)


# encoder

SPEC = {
    "backbone": "resnet8",
    "options": {"width": 8},
    "image_size": 24,
    "method": "dino",
    "encoder": "teacher",
}


def save_cell(folder, seed=0, **changes):
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    backbone = create_backbone("resnet8", image_size=24, width=8).to(memory_format=torch.channels_last)
    backbone(torch.randn(8, 3, 24, 24))
    save_encoder(folder, backbone, {**SPEC, **changes})
    return backbone


def test_an_encoder_comes_back_as_it_was_saved(tmp_path):
    backbone = save_cell(tmp_path / "cell")
    images = pixels(4, 40)
    expected = extract(backbone, images, image_size=24, device="cpu")
    for path in (tmp_path / "cell", tmp_path / "cell" / "encoder.safetensors", str(tmp_path / "cell")):
        encoder = load_encoder(path)
        assert (encoder.out_dim, encoder.image_size, encoder.training) == (32, 24, False)
        torch.testing.assert_close(encoder.embed(images), expected)
    as_pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    torch.testing.assert_close(encoder.embed(as_pil), expected)
    torch.testing.assert_close(encoder.embed(list(images)), expected)
    torch.testing.assert_close(
        encoder(torch.stack([encoder.transform(i) for i in as_pil])).detach(), expected
    )
    torch.testing.assert_close(encoder.transform(images[0]), encoder.transform(as_pil[0]))
    description = json.loads((tmp_path / "cell" / "encoder.json").read_text())
    assert description == {
        **SPEC,
        "out_dim": 32,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }


def test_embed_takes_images_of_any_size_and_mode(tmp_path):
    save_cell(tmp_path / "cell")
    encoder = load_encoder(tmp_path / "cell")
    mixed = [
        Image.new("L", (50, 30), 99),
        Image.new("RGBA", (24, 24)),
        pixels(1, 33)[0],
        pixels(1, channels=1)[0],
    ]
    together = encoder.embed(mixed)
    assert together.shape == (4, 32)
    torch.testing.assert_close(together[2:3], encoder.embed(pixels(1, 33)))
    with pytest.raises(ValueError, match="no images"):
        encoder.embed([])
    with pytest.raises(ValueError, match="ndarray; give PIL images"):
        encoder.embed([np.zeros((24, 24, 3), np.uint8)])


def test_a_bench_folder_names_the_cells_to_choose_from(tmp_path):
    save_cell(tmp_path / "cells" / "dino-seed0")
    assert load_encoder(tmp_path).out_dim == 32  # the only one
    save_cell(tmp_path / "cells" / "byol-seed0")
    with pytest.raises(ValueError, match=r"2 encoders; give one of\n.*byol-seed0\n.*dino-seed0"):
        load_encoder(tmp_path)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for .*encoder\.safetensors and .*cells"):
        load_encoder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"looked for .*nothing\.safetensors"):
        load_encoder(tmp_path / "nothing.safetensors")
    save_cell(tmp_path / "wide", options={"width": 16})
    with pytest.raises(ValueError, match="size mismatch"):
        load_encoder(tmp_path / "wide")
    save_cell(tmp_path / "deep", backbone="resnet18", options={})
    with pytest.raises(ValueError, match=r"does not fit the backbone that encoder\.json describes"):
        load_encoder(tmp_path / "deep")
    save_cell(tmp_path / "alone")
    file = tmp_path / "alone" / "encoder.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps({**description, "mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(ValueError, match="normalises by"):
        load_encoder(tmp_path / "alone")
    file.write_text(json.dumps({key: description[key] for key in description if key != "options"}))
    with pytest.raises(ValueError, match="lacks options"):
        load_encoder(tmp_path / "alone")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"encoder\.json beside it"):
        load_encoder(tmp_path / "alone")
    with pytest.raises(ValueError, match="exactly"):
        save_encoder(tmp_path, create_backbone("resnet8"), {"backbone": "resnet8"})


# score and evaluate

KEYS = {
    *("knn_top1", "knn_top5", "knn_by_k", "knn_k", "knn_temperature", "linear_top1", "linear_top5"),
    *("linear_balanced_accuracy", "linear_c", "linear_converged", "map_at_r", "rankme", "feature_std"),
}


def test_score_gives_every_metric():
    (x, y), (test_x, test_y) = blobs(300, classes=6), blobs(150, classes=6, seed=1)
    result = score(x, y, test_x, test_y, folds=holdout(300), num_classes=6)
    assert set(result) == KEYS
    assert list(result["knn_by_k"]) == ["1", "5", "10", "20", "100", "200"]
    assert result["knn_top1"] == result["knn_by_k"][str(result["knn_k"])] > 0.9
    assert 1 >= result["knn_top5"] >= result["knn_top1"]
    assert min(result["linear_top1"], result["linear_balanced_accuracy"], result["linear_top5"]) > 0.9
    assert result["linear_converged"] is True
    assert 0.5 < result["map_at_r"] <= 1
    assert (result["rankme"], result["feature_std"]) == (rankme(x), feature_std(x))
    assert json.loads(json.dumps(result)) == result


def test_k_above_the_bank_or_the_folds_is_left_out():
    (x, y), (test_x, test_y) = blobs(110), blobs(60, seed=1)
    result = score(x, y, test_x, test_y, folds=holdout(110), num_classes=3)
    assert list(result["knn_by_k"]) == ["1", "5", "10", "20", "100"]
    assert result["knn_k"] <= 88  # a fold fits on 88 images
    assert score(x, y, test_x, test_y, folds=[], num_classes=3)["knn_k"] == 20
    with pytest.raises(ValueError, match="bank of 110 images"):
        score(x, y, test_x, test_y, folds=[], num_classes=3, knn_k=[200])


def test_k_and_c_are_chosen_on_folds_not_on_test():
    # the test images are the bank's own with their noisy labels, so k = 1 is perfect there and poor elsewhere
    x, y = blobs(400)
    y = torch.where(torch.rand(400) < 0.3, torch.randint(3, (400,)), y)
    fit, validation = holdout(400)[0]
    votes = knn_scores(x[fit], y[fit], x[validation], ks=[1, 5, 50], temperature=0.07, num_classes=3)
    expected = {k: top_accuracy(scores, y[validation], 1) for k, scores in votes}
    options = {"folds": [(fit, validation)], "num_classes": 3, "knn_k": [1, 5, 50]}
    result = score(x, y, x, y, **options)
    assert result["knn_k"] == max(expected, key=expected.__getitem__) == 50
    assert result["knn_by_k"]["1"] == 1.0 > result["knn_top1"]
    other = score(x, y, x, y.roll(1), **options)
    assert (other["knn_k"], other["linear_c"]) == (result["knn_k"], result["linear_c"])


def test_a_test_set_without_the_last_class_is_scored_all_the_same():
    (x, y), (test_x, test_y) = blobs(300, classes=4), blobs(200, classes=4, seed=1)
    seen = test_y < 3
    result = score(x, y, test_x[seen], test_y[seen], folds=holdout(300), num_classes=4)
    assert min(result["knn_top1"], result["linear_top1"], result["linear_balanced_accuracy"]) > 0.9


def test_permuted_test_labels_score_at_chance():
    (x, y), (test_x, test_y) = blobs(400, classes=4), blobs(1000, classes=4, seed=1)
    shuffled = test_y[torch.randperm(1000)]
    result = score(x, y, test_x, shuffled, folds=[], num_classes=4)
    for name in ("knn_top1", "linear_top1", "linear_balanced_accuracy"):
        assert abs(result[name] - 0.25) < 0.06, name
    assert result["map_at_r"] < 0.15


def test_without_labels_only_the_spread_is_measured():
    x, y = blobs(50)
    result = score(x, None, x, None, folds=[], num_classes=0)
    assert set(result) == KEYS
    assert {name for name, value in result.items() if value is not None} == {"rankme", "feature_std"}
    with pytest.raises(ValueError, match="one side only"):
        score(x, y, x, None, folds=[], num_classes=3)


@pytest.mark.parametrize(
    ("x", "y", "test_y", "message"),
    [
        (torch.randn(30, 4), torch.zeros(30).long(), torch.zeros(30).long(), "two classes"),
        (torch.randn(30, 4), torch.arange(30) % 2, torch.arange(30) % 3, "10 of 30 test labels"),
        (torch.randn(30, 4), torch.arange(30) % 2 - 1, torch.arange(30) % 2, "15 of 30 train labels"),
    ],
)
def test_score_refuses_what_has_no_meaning(x, y, test_y, message):
    with pytest.raises(ValueError, match=message):
        score(x, y, torch.randn(30, 4), test_y, folds=[], num_classes=2)


def test_features_of_a_diverged_run_are_an_arithmetic_error():
    good, bad, y = torch.randn(30, 4), torch.randn(30, 4), torch.arange(30) % 2
    bad[3, 1], bad[4, 2] = math.nan, INF
    for train_x, test_x in ((good, bad), (bad, good)):
        with pytest.raises(FloatingPointError, match="2 of 30 features hold NaN or infinity"):
            score(train_x, y, test_x, y, folds=[], num_classes=2)
        with pytest.raises(FloatingPointError, match="2 of 30"):
            search(test_x, train_x, 1)


def striped(count, seed, labelled=True):
    """Images of two classes, horizontal and vertical stripes, that any convolution tells apart."""
    labels = torch.arange(count) % 2
    stripes = torch.where((torch.arange(16) // 2) % 2 > 0, 180, 60).expand(3, 16, 16)
    clean = torch.stack([stripes if label else stripes.transpose(1, 2) for label in labels])
    noise = torch.randint(-50, 50, clean.shape, generator=torch.Generator().manual_seed(seed))
    images = (clean + noise).to(torch.uint8)
    return Split(images, labels if labelled else None, ("rows", "columns"), f"striped-{seed}")


def test_evaluate_takes_a_backbone_or_an_encoder_and_gives_floats():
    torch.manual_seed(0)
    backbone = create_backbone("resnet8", image_size=16, width=8)
    train, test = striped(60, 0), striped(40, 1)
    result = evaluate(backbone, train, test)
    assert set(result) == KEYS - {"knn_by_k", "knn_k", "linear_converged"}
    assert all(type(value) is float for value in result.values())
    assert min(result["knn_top1"], result["linear_top1"]) > 0.9
    assert evaluate(Encoder(backbone, 16), train, test, device="cpu") == result
    assert backbone.training


def test_evaluate_without_labels_or_with_different_classes():
    backbone = create_backbone("resnet8", image_size=16, width=8)
    train, test = striped(40, 0, labelled=False), striped(20, 1, labelled=False)
    assert set(evaluate(backbone, train, test)) == {"rankme", "feature_std"}
    other = Split(test.images, None, ("columns", "rows"), "other")
    with pytest.raises(ValueError, match="same"):
        evaluate(backbone, train, other)
