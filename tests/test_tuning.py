"""Tuning: as many trials for each method, scored without the test, and then fresh seeds."""

import json

import pytest
from made_run import small_bench, small_data

from ssl_zoo.bench.config import TRIAL_SEED, MethodEntry, load
from ssl_zoo.bench.results import Results
from ssl_zoo.bench.tuning import _settings, _with
from ssl_zoo.registry import method_class


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data_dir = small_data(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("bench") / "run"
    fields = {
        "methods": ["byol", {"method": "moco", "label": "moco", "temperature": 0.3}],
        "tuning": {"trials": 3},
    }
    return folder, data_dir, fields, small_bench(folder, data_dir, **fields)


def test_every_method_has_its_trials_and_the_best_is_compared(run):
    folder, _, _, results = run
    tuning = results.bench["tuning"]
    assert (tuning["trials"], tuning["metric"]) == (3, "curve_knn_top1")
    for label in ("byol", "moco"):
        report = tuning["methods"][label]
        stored = [
            json.loads(
                (folder / f"tuning/cells/{label}-trial{n:02d}-seed{TRIAL_SEED}/result.json").read_text()
            )
            for n in range(3)
        ]
        assert report["scores"] == [result["final_metrics"]["curve_knn_top1"] for result in stored]
        assert report["scores"][report["chosen"]] == max(report["scores"])
        assert report["train_flops"] == sum(result["train_flops"] for result in stored) > 0
        assert not any(name.startswith(("knn", "linear")) for result in stored for name in result)  # no test
        cell = json.loads((folder / f"cells/{label}-seed0/cell.json").read_text())
        for name, value in report["setting"].items():
            section, _, field = name.rpartition(".")
            assert (cell["options"][section] if section else cell["options"])[field] == value
    assert {row["seed"] for row in results.rows} == {0}


def test_the_same_command_does_not_try_again(run):
    folder, data_dir, fields, first = run
    files = sorted((folder / "tuning").glob("cells/*/result.json"))
    written = [file.stat().st_mtime_ns for file in files]
    grown = small_bench(folder, data_dir, **fields, seeds=2)
    assert [file.stat().st_mtime_ns for file in files] == written
    assert grown.bench["tuning"] == first.bench["tuning"]
    assert Results.load(folder).bench["seeds"] == [0, 1]


def test_a_folder_grows_by_as_many_trials_only_and_keeps_what_they_found(run, tmp_path):
    folder, data_dir, fields, first = run
    with pytest.raises(ValueError, match="tuning_trials: 3 there, 0 asked"):
        small_bench(folder, data_dir, methods=["dino"])
    grown = small_bench(folder, data_dir, **fields | {"methods": ["dino"]})
    assert list(grown.bench["tuning"]["methods"]) == ["byol", "moco", "dino"]
    assert grown.bench["tuning"]["methods"]["byol"] == first.bench["tuning"]["methods"]["byol"]
    assert grown.bench["given"] == {"moco": ["temperature"]}
    assert [*grown.bench["steps"]] == ["byol", "moco", "dino"]


def test_what_was_given_is_not_drawn():
    entry = MethodEntry(method="moco", label="m", options={"temperature": 0.3, "optim": {"lr": 1e-3}})
    drawn = _settings(entry, 5)
    assert len(drawn) == 5
    assert drawn[0] == {}
    assert all(drawn[1:])
    assert not {"temperature", "optim.lr"} & {name for setting in drawn for name in setting}
    assert _with(entry.options, {"optim.clip": 1.0, "out_dim": 64}) == {
        "temperature": 0.3,
        "optim": {"lr": 1e-3, "clip": 1.0},
        "out_dim": 64,
    }
    with pytest.raises(ValueError, match=r"tuning.trials=10000, but m has \d+ settings"):
        _settings(entry, 10_000)


def test_the_seed_of_the_trials_is_not_compared():
    with pytest.raises(ValueError, match="compare with fresh ones"):
        load(
            fields={"methods": ["byol"], "dataset": "digits", "seeds": [TRIAL_SEED], "tuning": {"trials": 2}}
        )


@pytest.mark.parametrize("name", ["dino", "byol", "moco"])
def test_every_value_of_a_space_is_a_configuration_and_the_default_is_among_them(name):
    default = method_class(name).Config()
    for field, values in default.space().items():
        section, _, option = field.rpartition(".")
        for value in values:
            built = method_class(name).Config(**_with({}, {field: value}))
            assert getattr(getattr(built, section) if section else built, option) == value
        assert getattr(getattr(default, section) if section else default, option) in values
