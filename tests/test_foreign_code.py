"""Files from elsewhere hold data: a pickle that would act is refused, and what it would do is not done."""

import json
import logging
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from made_command import run_here
from made_files import draw_classes
from safetensors.torch import save_file

from ssl_zoo.backbones import create_backbone
from ssl_zoo.backbones.weights import load_weights
from ssl_zoo.bench.results import Results
from ssl_zoo.checkpoint import Checkpoint
from ssl_zoo.evaluation.encoder import Encoder, load_encoder, save_encoder

BENCH = ["bench", "--methods", "byol", "--dataset", "digits"]
CARD = {"backbone": "resnet8", "options": {"width": 8}}
SMALL = ["--backbone", "resnet8", "--set", "backbone.width=8", "run.threads=1", "run.device=cpu"]


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def by_torch(content, file: Path) -> None:
    torch.save(content, file)


def by_old_torch(content, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def by_pickle(content, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))


@pytest.fixture(params=[by_torch, by_old_torch, by_pickle], ids=lambda write: write.__name__)
def evil(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A file, and the mark that it makes where it is trusted."""
    file, mark = tmp_path / "weights.pth", tmp_path / "mark"
    request.param({"conv1.weight": Payload(mark)}, file)
    torch.load(file, weights_only=False) if request.param is not by_pickle else pickle.loads(
        file.read_bytes()
    )
    assert mark.exists()  # it works
    mark.unlink()
    return file, mark


def test_weights_that_would_act_are_refused(evil, tmp_path, capsys, monkeypatch) -> None:
    file, mark = evil
    monkeypatch.chdir(tmp_path)
    for flags in (["--init", file, *SMALL], [*SMALL, f"frozen=[{file}]"]):
        assert run_here(*BENCH, "--out", "run", *flags) == 2
        assert "cannot be read as tensors, and anything else could run code" in capsys.readouterr().err
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_would_act_is_not_used(evil, tmp_path, caplog) -> None:
    file, mark = evil
    folder = tmp_path / "cell"
    folder.mkdir()
    file.rename(folder / "checkpoint.pt")
    method = create_backbone("resnet8", width=8)
    with caplog.at_level(logging.WARNING):
        assert Checkpoint(folder, {"seed": 0}).load(method, torch.optim.SGD(method.parameters())) == (
            0,
            (0.0, 0.0),
        )
    assert "checkpoint.pt is damaged" in caplog.text
    assert not mark.exists()


def test_encoders_are_safetensors_only(evil, tmp_path) -> None:
    file, mark = evil
    folder = tmp_path / "cell"
    folder.mkdir()
    save_encoder(folder, Encoder(create_backbone("resnet8", width=8), 16, card=CARD))
    (folder / "encoder.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"does not fit the backbone that encoder\.json describes"):
        load_encoder(folder)
    assert not mark.exists()


def test_a_zip_of_a_foreign_pickle_under_a_known_name_is_refused(tmp_path) -> None:
    file, mark = tmp_path / "weights.pt", tmp_path / "mark"
    torch.save({"x": torch.ones(2)}, file)
    with zipfile.ZipFile(file) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(file, "w") as changed:
        for name, data in parts.items():
            changed.writestr(name, pickle.dumps(Payload(mark)) if name.endswith("data.pkl") else data)
    with pytest.raises(ValueError, match="could run code"):
        load_weights(create_backbone("resnet8", width=8), file)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights_are_named(tmp_path, suffix) -> None:
    backbone = create_backbone("resnet8", width=8)
    file, chance = tmp_path / f"w{suffix}", random.Random(0)
    state = backbone.net.state_dict()
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    whole, refusals = file.read_bytes(), list[str]()
    for number in range(60):
        data = bytearray(whole)
        if number % 4 == 0:
            data = data[: chance.randrange(len(data))]
        for _ in range(chance.choice([1, 4, 40])):
            data[chance.randrange(min(len(data), 3000))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        try:
            load_weights(backbone, file)
        except ValueError as error:  # whatever else is raised is not in words
            refusals.append(str(error))
    assert len(refusals) >= 15  # what is cut off at least
    assert all(file.name in refusal for refusal in refusals)


@pytest.mark.parametrize("text", ["", "{", "3", "[]", "null", '{"backbone": 3}', "\x00"])
def test_damaged_descriptions_of_encoders_are_named(tmp_path, text) -> None:
    save_encoder(tmp_path, Encoder(create_backbone("resnet8", width=8), 16, card=CARD))
    card = json.loads((tmp_path / "encoder.json").read_text())
    for broken in (text, json.dumps({**card, "options": {"widht": 8}}), json.dumps({**card, "options": 3})):
        (tmp_path / "encoder.json").write_text(broken)
        with pytest.raises(ValueError, match=r"encoder\.json"):
            load_encoder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "3", "[]", '{"rows": []}', '{"bench": 3, "rows": [3]}'])
@pytest.mark.parametrize("name", ["results.json", "plan.json"])
def test_damaged_files_of_a_bench_are_named(tmp_path, name, text, capsys) -> None:
    (tmp_path / name).write_text(text)
    if name == "results.json":
        command = ["report", tmp_path]
    else:
        command = [*BENCH, "--budget", "steps=1", "--out", tmp_path, "--quiet", *SMALL]
    assert run_here(*command) == 2
    assert f"{name} is damaged" in capsys.readouterr().err


def test_names_and_labels_stay_text_in_the_report(home, tmp_path) -> None:
    evil = "<script>document.title='x'<"
    draw_classes(home / "<img src=x onerror=alert(1)>", {evil: 8, "b&amp;'\"": 8}, side=16)
    out = tmp_path / "run"
    source = home / "<img src=x onerror=alert(1)>"
    command = ["bench", "--methods", "byol", "--dataset", f"folder:{source}", "--budget", "steps=1"]
    assert run_here(*command, "--executor", "inline", "--out", out, "--quiet", *SMALL) == 0
    assert {row["status"] for row in Results.load(out).rows} == {"done"}
    page = (out / "report.html").read_text()
    assert "<img src=x" not in page
    assert "<script>document" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
