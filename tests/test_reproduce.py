"""A bench, run again from its plan."""

import json
import shutil

import pytest
from made_run import command, small_bench, small_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data_dir = small_data(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("bench") / "run"
    small_bench(folder, data_dir, methods=["byol"], seeds=2)
    return folder


def said(capsys, *arguments):
    code = command("reproduce", *arguments)
    return code, " ".join(capsys.readouterr().out.split())


def test_the_same_machine_gives_the_same_bits(run, tmp_path, capsys):
    code, words = said(capsys, run, "--cells", "byol-seed0", "--out", tmp_path / "again")
    assert code == 0
    assert "byol-seed0 bit-equal: every score, and the encoder's weights" in words
    first, second = (folder / "cells/byol-seed0/encoder.safetensors" for folder in (run, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()

    result = run / "cells/byol-seed0/result.json"
    kept = result.read_text()
    other = json.loads((run / "cells/byol-seed1/result.json").read_text())["knn_top1"]
    try:
        far = json.loads(kept) | {
            "knn_top1": other + 0.3
        }  # two seeds: their noise is t(1) * 0.15 * 2, and more
        result.write_text(json.dumps(far))
        code, words = said(capsys, run, "--cells", "byol-seed0", "--out", tmp_path / "again")
        assert (code, "byol-seed0 within seed noise: knn_top1" in words) == (0, True)
        (run / "cells/byol-seed1/result.json").rename(run / "aside.json")
        code, words = said(capsys, run, "--cells", "byol-seed0", "--out", tmp_path / "again")
        assert code == 1
        assert "byol-seed0 different: knn_top1" in words
        assert "one seed tells no noise; machine and versions are the same" in words
        (run / "environment.json").write_text(
            json.dumps(json.loads((run / "environment.json").read_text()) | {"torch": "1.0"})
        )
        _, words = said(capsys, run, "--cells", "byol-seed0", "--out", tmp_path / "again")
        assert "torch 1.0 then," in words
    finally:
        result.write_text(kept)
        (run / "aside.json").rename(run / "cells/byol-seed1/result.json")


def test_code_that_a_plan_names_is_loaded_only_if_it_is_given(run, tmp_path, capsys):
    plan = json.loads((run / "plan.json").read_text())
    for cell in plan["cells"]:
        cell["plugins"] = [str(tmp_path / "foreign.py")]
    foreign = tmp_path / "run"
    shutil.copytree(run, foreign)
    (foreign / "plan.json").write_text(json.dumps(plan))
    asked = ["reproduce", foreign, "--cells", "random-seed0"]
    assert command(*asked) == 2
    assert f"foreign.py', which is code; if you trust it, add --plugin {tmp_path}" in capsys.readouterr().err
    (tmp_path / "foreign.py").write_text("LOADED = True")
    assert command(*asked, "--plugin", tmp_path / "foreign.py") == 0


def test_what_is_not_there_is_named(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "begun")
    for result in (tmp_path / "begun").glob("cells/*/result.json"):
        result.unlink()
    assert command("reproduce", tmp_path / "begun") == 2
    assert "begun has no finished cell" in capsys.readouterr().err
    assert command("reproduce", run, "--cells", "dino-seed0", "--out", tmp_path / "again") == 2
    assert (
        "has no finished cell dino-seed0; there are byol-seed0, byol-seed1, random" in capsys.readouterr().err
    )
    assert command("reproduce", tmp_path / "nothing") == 2
    assert "give the folder of a bench" in capsys.readouterr().err
