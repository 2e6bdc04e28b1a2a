"""The fault campaign in short: `make faults` is the long one."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.faults import judge_images, refuse_configs
from benchmarks.harm.kills import Campaign

KILLS = 3
SEED = 2712  # draws a cell in training, the spare process in evaluation, and the group in the report


@pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")
def test_a_bench_that_is_killed_ends_like_one_left_alone(tmp_path: Path) -> None:
    told = []
    campaign = Campaign(tmp_path, ["dino", "moco"], steps=6, seed=SEED)
    counts = campaign.run(KILLS, lambda counts: told.append(counts["kills"]))
    assert counts["kills"] == told[-1] == KILLS
    assert counts["bit-equal ends"] >= 1
    assert sum(count for name, count in counts.items() if name.startswith("kills at")) == KILLS


def test_a_wrong_end_is_noticed(tmp_path: Path) -> None:
    campaign = Campaign.__new__(Campaign)
    campaign.folder = tmp_path
    for name in ("whole", "killed"):
        (tmp_path / name / "cells").mkdir(parents=True)
        row = {"label": "moco", "knn_top1": 0.5 if name == "whole" else 0.6}
        (tmp_path / name / "results.json").write_text(json.dumps({"bench": {}, "rows": [row]}))
    with pytest.raises(AssertionError):
        campaign._compare(tmp_path / "killed")


def test_configs_and_images_are_counted(home: Path, tmp_path: Path) -> None:
    assert refuse_configs(tmp_path, 20, seed=1)["refused"] >= 20
    counts = judge_images(tmp_path, 20, seed=1)
    assert counts["read"] + counts["refused"] >= 20
    assert counts["bench on the folder"] == 1
