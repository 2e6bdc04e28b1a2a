"""How a cell is evaluated: which labels are read when, what is kept, other data sets, and poor data."""

import sys

import numpy as np
import pytest
import torch
from made_data import write_cifar
from made_photos import write_photos
from made_run import TEST, TRAIN, command, small_bench, small_data
from torch import nn

import ssl_zoo
from ssl_zoo.backbones import create_backbone
from ssl_zoo.bench import runner
from ssl_zoo.bench.assess import assess, extract_parts
from ssl_zoo.bench.cells import Cell
from ssl_zoo.bench.transfer import open_transfer, planned_transfer
from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.data.splits import roles
from ssl_zoo.evaluation import Encoder
from ssl_zoo.evaluation.curve import curve_scores, curve_splits
from ssl_zoo.evaluation.transfer import evaluate_transfer

EVENTS: list[str] = []


class Watched(torch.Tensor):
    """Labels that note each operation on them."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        EVENTS.append("test labels are read")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def noting(patch, module, name):
    inner = getattr(module, name)

    def outer(*arguments, **options):
        result = inner(*arguments, **options)
        EVENTS.append(name)
        return result

    patch.setattr(module, name, outer)


def watched(dataset):
    parts = roles(dataset)
    object.__setattr__(parts.test, "labels", parts.test.labels.as_subclass(Watched))
    return parts


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, own_cache):
    """A Fashion-MNIST of digits, and a CIFAR-10 of the same images with other labels."""
    folder = small_data(tmp_path_factory.mktemp("data"))
    images = ssl_zoo.create_dataset("fashion-mnist", folder).split("train").images[:, 0].numpy()
    write_cifar(folder / "cifar10", np.stack([images] * 3, 3), labels=np.arange(TRAIN) % 10)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """A bench of one method, and what happened in its cells in this order, without repetitions."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    EVENTS.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "roles", watched)
        noting(patch, runner, "fit")
        noting(patch, runner, "_save_views")
        for module, names in (
            ("ssl_zoo.evaluation.predict", ("choose_k", "choose_c", "linear_probe")),
            ("ssl_zoo.evaluation.scores", ("low_shot", "cluster", "map_at_r")),
        ):
            for name in names:
                noting(patch, sys.modules[module], name)
        results = small_bench(folder, data_dir, methods=["byol"], evaluation={"transfer": ["cifar10"]})
    events = [event for event, before in zip(EVENTS, [None, *EVENTS], strict=False) if event != before]
    return folder, results, events


def test_test_labels_are_read_once_after_training_and_when_all_is_chosen_and_predicted(run):
    chosen_and_told = ["choose_k", "choose_c", "linear_probe", "low_shot", "cluster"]
    evaluated = [*chosen_and_told, "test labels are read", "map_at_r", "test labels are read"]
    elsewhere = ["choose_k", "choose_c", "linear_probe"]  # cifar10
    hashed = ["test labels are read"]  # by the fingerprint, which must tell other data from the planned
    assert run[2] == [
        *(*hashed, "fit", "_save_views", *evaluated, *elsewhere),
        *(*hashed, *evaluated, *elsewhere),  # the random row
    ]


def test_a_cell_keeps_what_was_told_of_each_test_image(run, data_dir):
    folder, results, _ = run
    labels = ssl_zoo.create_dataset("fashion-mnist", data_dir).split("test").labels.numpy()
    for row in results.rows:
        with np.load(folder / "cells" / f"{row['label']}-seed0" / "predictions.npz") as file:
            kept = dict(file)
        assert sorted(kept) == ["knn", "label", "linear"]
        assert all(values.dtype == np.int64 and values.shape == (TEST,) for values in kept.values())
        np.testing.assert_array_equal(kept["label"], labels)
        for name in ("knn", "linear"):
            assert (kept[name] == labels).mean() == pytest.approx(row[f"{name}_top1"])


def test_other_data_sets_are_classified_with_the_encoder_as_it_is(run, data_dir):
    folder, results, _ = run
    other = roles(ssl_zoo.create_dataset("cifar10", data_dir))
    row = next(row for row in results.rows if row["label"] == "byol")
    encoder = ssl_zoo.load_encoder(folder / "cells" / "byol-seed0")
    found = evaluate_transfer(encoder, other)
    assert list(row["transfer"]) == ["cifar10"]
    assert row["transfer"]["cifar10"] == pytest.approx(found)
    whole = ssl_zoo.evaluate(encoder, other.train, other.test, device="cpu")
    assert found == pytest.approx({name: whole[name] for name in ("knn_top1", "linear_top1")})


def test_other_data_sets_are_opened_and_fingerprinted_by_the_plan(run, data_dir, tmp_path, capsys):
    asked = ("bench", "--methods", "byol", "--dataset", "fashion-mnist", "--data-dir", data_dir, "--dry-run")
    for value, words in (
        ("[digitz]", "did you mean 'digits'"),
        ("[cifar10,cifar10]", "give data sets of different names"),
        (f"['folder:{tmp_path}']", "holds no images"),
    ):
        assert command(*asked, "--set", f"evaluation.transfer={value}") == 2
        assert words in capsys.readouterr().err
    cell = Cell.model_validate_json((run[0] / "cells" / "byol-seed0" / "cell.json").read_text())
    fingerprint = roles(ssl_zoo.create_dataset("cifar10", data_dir)).fingerprint
    assert cell.shared.transfer == {"cifar10": fingerprint}
    changed = cell.shared.model_copy(update={"transfer": {"cifar10": "of other images"}})
    with pytest.raises(ValueError, match="cifar10 is not the data that was planned with"):
        planned_transfer(cell.model_copy(update={"shared": changed}))
    write_cifar(tmp_path / "cifar10", np.zeros((5, 8, 8, 3), np.uint8), labels=None)
    with pytest.raises(ValueError, match=r"evaluation\.transfer: cifar10: .* needs labels"):
        open_transfer({"cifar10": "cifar10"}, cell.data.model_copy(update={"dir": str(tmp_path)}))


# Made-up images: a class is a brightness


def split(labels, seed, classes=3, **fields):
    labels = torch.tensor(labels)
    random = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 40, (len(labels), 3, 16, 16), generator=random)
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    return Split(images, labels, tuple("abcdef"[:classes]), f"made-{seed}", **fields)


def parts(train, test, **fields):
    bank = split(train, 0)
    splits = {"pretrain": bank, "train": bank, "test": split(test, 1, **fields)}
    return roles(Dataset("made", splits, (), flip=True))


def encoder():
    torch.manual_seed(0)
    return Encoder(create_backbone("resnet8", 16, width=8), 16).eval()


def assessed(data, folder, network=None):
    options = {"flip": False, "knn_k": (1, 5), "knn_temperature": 0.07, "finetuned": False, "seed": 0}
    network = network or encoder()
    return assess(network, data, extract_parts(network, data), folder, **options)


def test_five_images_a_class_are_enough_and_what_they_do_not_allow_is_none(tmp_path):
    groups = torch.tensor([7, 7, 8, 9, 9, 9])
    scores = assessed(parts([0, 1, 2] * 5, [0, 1, 2] * 2, groups=groups), tmp_path)
    few = scores["low_shot"]
    assert few["10"] is None
    assert all(few[size]["mean"] > 0.6 for size in ("1", "5", "1%", "10%"))
    assert few["1"] == few["1%"] == few["10%"]  # at least one label a class, and the same draws
    assert few["5"]["half_width"] == 0  # all there are
    assert scores["knn_top1"] == scores["linear_top1"] == scores["linear_auroc"] == 1
    assert 0 < scores["cluster_ami"] <= scores["cluster_nmi"] <= 1
    assert scores["transfer"] is None
    with np.load(tmp_path / "predictions.npz") as kept:
        np.testing.assert_array_equal(kept["group"], groups)


def test_test_images_of_a_class_that_train_lacks_count_as_wrong(tmp_path):
    scores = assessed(parts([0, 1] * 10, [0, 1, 2, 2]), tmp_path)
    assert scores["knn_top1"] == scores["linear_top1"] == 0.5
    assert scores["linear_balanced_accuracy"] == pytest.approx(2 / 3)
    assert scores["low_shot"]["10"]["mean"] <= 0.5
    assert 0 < scores["linear_auroc"] <= (1 + 1 + 0.5) / 3
    assert np.load(tmp_path / "predictions.npz")["linear"].max() < 2


def test_a_test_of_one_image_has_scores_where_they_have_a_meaning(tmp_path):
    scores = assessed(parts([0, 1, 2] * 5, [1]), tmp_path)
    absent = ("linear_auroc", "map_at_r", "cluster_ami", "cluster_nmi", "uniformity")
    assert {name: scores[name] for name in absent} == dict.fromkeys(absent)
    assert scores["knn_top1"] == scores["linear_top1"] == scores["linear_macro_f1"] == 1


def test_a_class_of_one_training_image_is_no_obstacle(tmp_path):
    data = parts([0] * 20 + [2], [0, 2])
    assert any(len(data.train.labels[fit].unique()) == 1 for fit, _ in data.folds)
    scores = assessed(data, tmp_path)
    assert 0 < scores["linear_top1"] <= 1
    assert {size for size, few in scores["low_shot"].items() if few is None} == {"5", "10"}


def test_one_class_and_features_that_are_not_finite_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"all 20 labels are 1; label other images"):
        assessed(parts([1] * 20, [1] * 4), tmp_path)
    broken = encoder()
    next(broken.parameters()).data.fill_(torch.nan)
    data = parts([0, 1, 2] * 5, [0, 1, 2])
    for evaluation in (lambda: assessed(data, tmp_path, broken), lambda: evaluate_transfer(broken, data)):
        with pytest.raises(FloatingPointError, match="hold NaN or infinity"):
            evaluation()
    with pytest.raises(ValueError, match="are one class"):
        evaluate_transfer(encoder(), parts([1] * 20, [1] * 4))
    assert not (tmp_path / "predictions.npz").exists()


# Along a training


def test_the_curve_is_scored_on_fixed_parts_of_the_first_fold(monkeypatch):
    module = sys.modules["ssl_zoo.evaluation.curve"]
    data = parts([0, 1, 2] * 20, [0])
    fit, validation = data.folds[0]
    bank, queries = curve_splits(data)
    assert torch.equal(bank.labels, data.train.labels[fit])
    assert torch.equal(queries.labels, data.train.labels[validation])
    monkeypatch.setattr(module, "_BANK", 30)
    monkeypatch.setattr(module, "_QUERIES", 7)
    some = curve_splits(data)
    assert [len(part) for part in some] == [30, 7]
    assert [part.fingerprint for part in some] == [part.fingerprint for part in curve_splits(data)]
    assert curve_splits(parts([1] * 20, [1])) is None
    unlabelled = Split(bank.images, None, (), "made")
    splits = dict.fromkeys(("pretrain", "train", "test"), unlabelled)
    assert curve_splits(roles(Dataset("made", splits, (), flip=True))) is None


def test_the_curve_leaves_no_trace_in_the_training(tmp_path, own_cache):
    network = encoder().backbone
    network.train()
    next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    write_photos(tmp_path, count=12)
    photos = curve_splits(roles(ssl_zoo.create_dataset(f"folder:{tmp_path}")))
    small = curve_splits(parts([0, 1, 2] * 40, [0]))
    modes = [module.training for module in network.modules()]
    assert len({*modes}) == 2
    before, state = {key: value.clone() for key, value in network.state_dict().items()}, torch.get_rng_state()
    for bank, queries in (photos, small):  # a loader of photos draws
        scores = curve_scores(network, bank, queries, image_size=16, workers=0)
        assert scores == curve_scores(network, bank, queries, image_size=16, workers=0)
    assert scores["curve_knn_top1"] > 0.8
    assert scores["curve_ridge_top1"] == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network(
        torch.randn(2, 3, 16, 16)
    ).sum().backward()  # nothing that was cached in inference stands in the way
