"""Checkpoints: what is damaged is noticed, named and not used; what is there is whole."""

import io
import json
import logging

import pytest
import torch

from ssl_zoo import checkpoint as module
from ssl_zoo.backbones import create_backbone
from ssl_zoo.checkpoint import Checkpoint, logged_records
from ssl_zoo.data.datasets import Split
from ssl_zoo.method import Augment, ViewSpec
from ssl_zoo.optim import create_optimizer
from ssl_zoo.registry import create_method
from ssl_zoo.train import TrainingStopped, fit

IMAGES = Split(torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8), None, (), "made")
VIEWS = ViewSpec((Augment(16, (0.5, 1.0)),) * 2)
STEPS = 6


def trained(folder, *, stop=None, steps=STEPS, checkpoint_seconds=0.0):
    """A method after training; with `stop`, its training ended after that step."""
    torch.manual_seed(0)
    method = create_method("moco", create_backbone("resnet8", width=8), views=VIEWS)
    records = []
    fit(
        method,
        IMAGES,
        budget={"steps": steps},
        batch_size=4,
        out=folder,
        log_every=1,
        checkpoint_seconds=checkpoint_seconds,
        on_log=records.append,
        should_stop=lambda: stop is not None and len(records) == stop,
    )
    return method


def interrupted(folder, step):
    with pytest.raises(TrainingStopped):
        trained(folder, stop=step)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def some_weight(data):
    method = torch.load(io.BytesIO(data), weights_only=True)["method"]
    return next(value for value in method.values() if value.numel() > 100).numpy(force=True).tobytes()


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "in the index": lambda data: flipped(data, data.rindex(b"PK\x05\x06")),
    "in the structure": lambda data: flipped(data, data.index(b"data.pkl") + 120),
    "in a weight": lambda data: flipped(data, data.index(some_weight(data)) + 17),
    "in the middle": lambda data: flipped(data, len(data) // 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(damage, tmp_path, caplog):
    expected = trained(tmp_path / "whole").state_dict()
    interrupted(tmp_path / "run", 4)
    file = tmp_path / "run" / "checkpoint.pt"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with caplog.at_level(logging.INFO):
        again = trained(tmp_path / "run").state_dict()
    assert f"{file} is damaged" in caplog.text
    assert "continuing from step 3 of 6" in caplog.text
    assert all(torch.equal(again[name], value) for name, value in expected.items())
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "run")]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS


def test_without_a_whole_checkpoint_the_run_starts_anew(tmp_path, caplog):
    interrupted(tmp_path, 3)
    for file in tmp_path.glob("checkpoint*.pt"):
        file.write_bytes(file.read_bytes()[:-30])
    again = trained(tmp_path)
    assert caplog.text.count("is damaged") == 2
    expected = trained(None).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


def test_killed_between_two_renames_the_one_before_is_used(tmp_path, caplog):
    interrupted(tmp_path, 4)
    (tmp_path / "checkpoint.pt").unlink()
    with caplog.at_level(logging.INFO):
        trained(tmp_path)
    assert "continuing from step 3 of 6" in caplog.text


def test_a_checkpoint_holds_what_it_should_and_loads_without_code(tmp_path):
    interrupted(tmp_path, 2)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(state) == {
        "run", "versions", "step", "seconds", "data_seconds", "metrics_bytes", "method", "optimizer",
        "checksum",
    }  # fmt: skip
    assert (state["step"], state["run"]["total"], state["run"]["method"]) == (2, STEPS, "moco")
    assert state["metrics_bytes"] > 0
    assert {"queue", "queue_pointer"} <= set(state["method"])


def test_another_run_is_refused_with_the_difference(tmp_path):
    interrupted(tmp_path, 2)
    with pytest.raises(ValueError, match="another run: total 6 there, 7 here; use another folder"):
        trained(tmp_path, steps=7)


def test_other_versions_are_said(tmp_path, caplog, monkeypatch):
    interrupted(tmp_path, 2)
    monkeypatch.setattr(module, "version", lambda package: "0.0")
    trained(tmp_path)
    assert "'torch': '0.0'" in caplog.text


def test_the_checksum_sees_any_change():
    value = {"x": torch.ones(3), "steps": [1, None], "empty": torch.zeros(0)}
    same = module._checksum(value)
    assert same == module._checksum({**value, "x": torch.ones(3)})
    for change in (
        {"x": torch.tensor([1.0, 1.0, 1.0000001])},
        {"x": torch.ones(3, 1)},
        {"x": torch.ones(3, dtype=torch.int32)},
        {"steps": [1, 0]},
        {"empty": torch.zeros(0, 1)},
        {"more": 1},
    ):
        assert module._checksum({**value, **change}) != same


def test_checkpoints_come_more_rarely_where_they_cost_much(tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, *arguments: saves.append(arguments[2]))
    trained(tmp_path / "cheap", checkpoint_seconds=1e-9)
    cheap = list(saves)
    clock = iter(range(10**6))
    monkeypatch.setattr("ssl_zoo.train.time.perf_counter", lambda: float(next(clock)))
    saves.clear()
    trained(tmp_path / "dear", checkpoint_seconds=1e-9)
    assert cheap[-1] == STEPS
    assert saves == [1, STEPS]  # a save took a second of this clock: the next would come after a hundred


def test_a_line_cut_short_is_no_record(tmp_path):
    assert logged_records(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1.0}\n{"lo')
    assert logged_records(tmp_path) == [{"loss": 1.0}]


def test_a_method_without_a_folder_leaves_nothing_behind():
    method = create_method("byol", create_backbone("resnet8", width=8), views=VIEWS)
    optimizer = create_optimizer(method.param_groups(), method.config.optim)
    nowhere = Checkpoint(None, {})
    nowhere.save(method, optimizer, 1, 0.0)
    nowhere.log({"loss": 1.0})
    assert nowhere.load(method, optimizer) == (0, (0.0, 0.0))
