"""From images to scores: features, and what may be looked at when."""

import json
import math

import pytest
import torch
from made_features import INF, blobs, holdout, pixels, small_net
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from ssl_zoo.backbones import create_backbone
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.data.datasets import Split
from ssl_zoo.evaluation import Encoder, evaluate, score, search
from ssl_zoo.evaluation.collapse import feature_std, rankme
from ssl_zoo.evaluation.features import extract, fit_size, to_input
from ssl_zoo.evaluation.knn import knn_scores, top_accuracy
from ssl_zoo.evaluation.spread import uniformity


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


# score and evaluate

KEYS = {
    *("knn_top1", "knn_top5", "knn_by_k", "knn_k", "knn_temperature", "linear_top1", "linear_top5"),
    *("linear_balanced_accuracy", "linear_macro_f1", "linear_auroc", "linear_c", "linear_converged"),
    *("low_shot", "map_at_r", "cluster_ami", "cluster_nmi", "rankme", "alpha_req", "feature_std"),
    "uniformity",
}
LABEL_FREE = {"rankme", "alpha_req", "feature_std", "uniformity"}


def scores(*features, **options):
    return score(*features, **options)[0]


def test_score_gives_every_metric():
    (x, y), (test_x, test_y) = blobs(300, classes=6), blobs(150, classes=6, seed=1)
    result = scores(x, y, test_x, test_y, folds=holdout(300), num_classes=6)
    assert set(result) == KEYS
    assert list(result["knn_by_k"]) == ["1", "5", "10", "20", "100", "200"]
    assert result["knn_top1"] == result["knn_by_k"][str(result["knn_k"])] > 0.9
    assert 1 >= result["knn_top5"] >= result["knn_top1"]
    assert min(result["linear_top1"], result["linear_balanced_accuracy"], result["linear_top5"]) > 0.9
    assert result["linear_converged"] is True
    assert 0.5 < result["map_at_r"] <= 1
    assert (result["rankme"], result["feature_std"]) == (rankme(x), feature_std(x))
    assert result["uniformity"] == uniformity(test_x)
    assert json.loads(json.dumps(result)) == result


def test_k_above_the_bank_or_the_folds_is_left_out():
    (x, y), (test_x, test_y) = blobs(110), blobs(60, seed=1)
    result = scores(x, y, test_x, test_y, folds=holdout(110), num_classes=3)
    assert list(result["knn_by_k"]) == ["1", "5", "10", "20", "100"]
    assert result["knn_k"] <= 88  # a fold fits on 88 images
    assert scores(x, y, test_x, test_y, folds=[], num_classes=3)["knn_k"] == 20
    with pytest.raises(ValueError, match="bank of 110 images"):
        scores(x, y, test_x, test_y, folds=[], num_classes=3, knn_k=[200])


def test_k_and_c_are_chosen_on_folds_not_on_test():
    # the test images are the bank's own with their noisy labels, so k = 1 is perfect there and poor elsewhere
    x, y = blobs(400)
    y = torch.where(torch.rand(400) < 0.3, torch.randint(3, (400,)), y)
    fit, validation = holdout(400)[0]
    votes = knn_scores(x[fit], y[fit], x[validation], ks=[1, 5, 50], temperature=0.07, num_classes=3)
    expected = {k: top_accuracy(scores, y[validation], 1) for k, scores in votes}
    options = {"folds": [(fit, validation)], "num_classes": 3, "knn_k": [1, 5, 50]}
    result = scores(x, y, x, y, **options)
    assert result["knn_k"] == max(expected, key=expected.__getitem__) == 50
    assert result["knn_by_k"]["1"] == 1.0 > result["knn_top1"]
    other = scores(x, y, x, y.roll(1), **options)
    assert (other["knn_k"], other["linear_c"]) == (result["knn_k"], result["linear_c"])


def test_a_test_set_without_the_last_class_is_scored_all_the_same():
    (x, y), (test_x, test_y) = blobs(300, classes=4), blobs(200, classes=4, seed=1)
    seen = test_y < 3
    result = scores(x, y, test_x[seen], test_y[seen], folds=holdout(300), num_classes=4)
    assert min(result["knn_top1"], result["linear_top1"], result["linear_balanced_accuracy"]) > 0.9


def test_no_two_test_images_of_one_class_leave_out_retrieval_only():
    x, y = blobs(60)
    result = scores(
        x,
        y,
        *(part[[y.tolist().index(label) for label in range(3)]] for part in (x, y)),
        folds=[],
        num_classes=3,
    )
    assert result["map_at_r"] is None
    assert result["linear_top1"] == 1


def test_permuted_test_labels_score_at_chance():
    (x, y), (test_x, test_y) = blobs(400, classes=4), blobs(1000, classes=4, seed=1)
    shuffled = test_y[torch.randperm(1000)]
    result = scores(x, y, test_x, shuffled, folds=[], num_classes=4)
    for name in ("knn_top1", "linear_top1", "linear_balanced_accuracy"):
        assert abs(result[name] - 0.25) < 0.06, name
    assert result["map_at_r"] < 0.15


def test_without_labels_only_the_spread_is_measured():
    x, y = blobs(50, dim=20)
    result, predictions = score(x, None, x, None, folds=[], num_classes=0)
    assert predictions is None
    assert set(result) == KEYS
    assert {name for name, value in result.items() if value is not None} == LABEL_FREE
    with pytest.raises(ValueError, match="one side only"):
        scores(x, y, x, None, folds=[], num_classes=3)


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
        scores(x, y, torch.randn(30, 4), test_y, folds=[], num_classes=2)


def test_features_of_a_diverged_run_are_an_arithmetic_error():
    good, bad, y = torch.randn(30, 4), torch.randn(30, 4), torch.arange(30) % 2
    bad[3, 1], bad[4, 2] = math.nan, INF
    for train_x, test_x in ((good, bad), (bad, good)):
        with pytest.raises(FloatingPointError, match="2 of 30 features hold NaN or infinity"):
            scores(train_x, y, test_x, y, folds=[], num_classes=2)
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
    assert set(result) == KEYS - {"knn_by_k", "knn_k", "linear_converged", "low_shot"}
    assert all(type(value) is float for value in result.values())
    assert min(result["knn_top1"], result["linear_top1"]) > 0.9
    assert evaluate(Encoder(backbone, 16), train, test, device="cpu") == result
    assert backbone.training


def test_evaluate_without_labels_or_with_different_classes():
    backbone = create_backbone("resnet8", image_size=16, width=8)
    train, test = striped(40, 0, labelled=False), striped(20, 1, labelled=False)
    assert set(evaluate(backbone, train, test)) == LABEL_FREE
    other = Split(test.images, None, ("columns", "rows"), "other")
    with pytest.raises(ValueError, match="same"):
        evaluate(backbone, train, other)
