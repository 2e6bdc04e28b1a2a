"""The curve in training: scored at its steps, outside of the clock, and without a trace."""

import json

import pytest
import torch

import ssl_zoo
from ssl_zoo import watch
from ssl_zoo.bench.selection import curve_steps, selection_curve
from ssl_zoo.data.splits import roles
from ssl_zoo.train import TrainingStopped
from ssl_zoo.watch import Clock

SCORES = ("curve_knn_top1", "curve_ridge_top1")


@pytest.fixture(scope="module")
def parts():
    return roles(ssl_zoo.create_dataset("digits"))


def train(parts, folder, name="byol", curve=None, **options):
    torch.manual_seed(0)
    method = ssl_zoo.create_method(name, ssl_zoo.create_backbone("resnet8", 16, width=8))
    fit = {"budget": {"steps": 6}, "batch_size": 32, "device": "cpu", "out": folder, "log_every": 4}
    return ssl_zoo.fit(method, parts.pretrain, **fit, curve=curve, **options)


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["dino", "byol", "moco"])
def test_weights_are_the_same_bits_with_a_curve_and_without(name, parts, tmp_path):
    curve = selection_curve(parts, 16, None)
    with_curve = train(parts, tmp_path / "with", name, curve, curve_steps=curve_steps(6, 3))
    without = train(parts, tmp_path / "without", name)
    states = [result.method.state_dict() for result in (with_curve, without)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    assert with_curve.method.training
    records, plain = logged(tmp_path / "with"), logged(tmp_path / "without")
    assert [record["step"] for record in records] == [1, 2, 4, 6]
    assert [record["step"] for record in plain] == [1, 4, 6]
    assert [set(SCORES) <= set(record) for record in records] == [False, True, True, True]
    assert [record["loss"] for record in records if record["step"] != 2] == [r["loss"] for r in plain]


def test_a_resumed_training_has_the_same_curve(parts, tmp_path):
    curve = selection_curve(parts, 16, None)
    train(parts, tmp_path / "whole", curve=curve, curve_steps={2, 5})
    left = iter([False, False, False, True])
    with pytest.raises(TrainingStopped):
        train(parts, tmp_path / "cut", curve=curve, curve_steps={2, 5}, should_stop=lambda: next(left))
    train(parts, tmp_path / "cut", curve=curve, curve_steps={2, 5})
    curves = [
        [(r["step"], *(r[score] for score in SCORES)) for r in logged(folder) if SCORES[0] in r]
        for folder in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert curves[0] == curves[1]
    assert [point[0] for point in curves[0]] == [2, 5]


def test_the_clock_leaves_out_what_is_paused(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(watch.time, "perf_counter", lambda: now[0])
    clock = Clock(5.0, 2.0)
    with clock.waiting():
        now[0] += 3
    with clock.paused():
        now[0] += 50
    now[0] += 1
    assert (clock.seconds, clock.data_seconds) == (9.0, 5.0)


def test_a_curve_has_equal_parts_of_the_budget():
    assert curve_steps(100, 5) == {20, 40, 60, 80, 100}
    assert curve_steps(2, 5) == {1, 2}
    assert curve_steps(7, 0) == set()


def test_there_is_no_curve_without_two_classes_to_tell_apart(parts):
    fit, validation = parts.folds[0]
    one = fit[parts.train.labels[fit] == 3]
    parts.folds[0] = (one, validation)
    try:
        assert selection_curve(parts, 16, None) is None
    finally:
        parts.folds[0] = (fit, validation)
