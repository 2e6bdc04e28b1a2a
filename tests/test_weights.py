"""Weights from elsewhere: strict, under the names of their library, in a bench with a row of their own."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

import ssl_zoo
from ssl_zoo.backbones import create_backbone
from ssl_zoo.backbones.weights import load_weights, name_weights
from ssl_zoo.evaluation.encoder import Encoder, save_encoder

VIT = {"depth": 1, "patch_size": 8}


def vit(image_size=32, seed=0, **options):
    torch.manual_seed(seed)
    return create_backbone("vit_tiny", image_size, **{**VIT, **options})


def same(backbone, state):
    own = backbone.net.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


def refused(backbone, source):
    """The message with which weights are refused; nothing may have been loaded."""
    before = name_weights("", backbone)
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        load_weights(backbone, source)
    assert name_weights("", backbone) == before
    return str(caught.value)


# what fits


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "encoder."])
def test_files_of_every_kind_with_prefixes(tmp_path, suffix, prefix):
    state = vit(seed=1).net.state_dict()
    file = tmp_path / f"weights{suffix}"
    wrapped = {prefix + key: value for key, value in state.items()}
    save_file(wrapped, file) if suffix == ".safetensors" else torch.save(wrapped, file)
    backbone = vit()
    assert load_weights(backbone, file) == []
    assert same(backbone, state)


def test_a_checkpoint_of_dino_gives_its_teacher_without_the_head(tmp_path):
    student, teacher = ({f"backbone.{k}": v for k, v in vit(seed=s).net.state_dict().items()} for s in (1, 2))
    teacher["head.mlp.0.weight"] = torch.zeros(3)
    student = {f"module.{key}": value for key, value in student.items()}
    content = {"student": student, "teacher": teacher, "epoch": 3, "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "checkpoint.pth")
    backbone = vit()
    notes = load_weights(backbone, tmp_path / "checkpoint.pth")
    assert same(backbone, vit(seed=2).net.state_dict())
    assert "the part 'teacher' is taken" in notes[0]
    assert "is left out: head.mlp.0.weight" in notes[1]


def test_torchvisions_resnet_loads_and_its_classifier_is_left_out(tmp_path):
    theirs = torchvision.models.resnet18()
    state = {
        k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")
    }  # as of old
    torch.save(state, tmp_path / "resnet18.pth")
    backbone = create_backbone("resnet18", 96).eval()
    notes = load_weights(backbone, tmp_path / "resnet18.pth")
    assert ["is left out: fc.weight, fc.bias" in note for note in notes] == [True]
    theirs.fc = nn.Identity()
    x = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(backbone(x), theirs.eval()(x))


def test_position_embeddings_are_resized_and_said(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224", depth=1).state_dict(), tmp_path / "vit.pth")
    backbone = vit(96, patch_size=16)
    notes = load_weights(backbone, tmp_path / "vit.pth")
    assert notes[1].endswith("is resized to [1, 37, 192]")
    smaller = vit(96, patch_size=8)
    notes = load_weights(smaller, tmp_path / "vit.pth")
    assert [note.rpartition(" to ")[2] for note in notes[1:]] == ["[1, 145, 192]", "[192, 3, 8, 8]"]


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple")  # timm's interpolation
def test_windows_of_a_swin_are_resized(tmp_path):
    small = {"depths": (1, 1, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 2, 2)}
    theirs = timm.create_model("swin_tiny_patch4_window7_224", **small)
    torch.save(theirs.state_dict(), tmp_path / "swin.pth")
    backbone = create_backbone("timm:swin_tiny_patch4_window7_224", 64, **small)
    notes = load_weights(backbone, tmp_path / "swin.pth")
    assert "head.fc.weight" in notes[0]
    assert ["relative_position_bias_table" in note for note in notes[1:]] == [
        True,
        True,
    ]  # of 4 x 4 and 2 x 2
    assert torch.equal(
        backbone.net.layers[3].downsample.reduction.weight, theirs.layers[3].downsample.reduction.weight
    )


# what does not


def test_missing_and_unexpected_names_are_listed(tmp_path):
    state = vit().net.state_dict()
    renamed = {key.replace("blocks.0.attn", "blocks.0.attention"): value for key, value in state.items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    message = refused(vit(), tmp_path / "renamed.safetensors")
    assert "missing in the file: blocks.0.attn.proj.bias, blocks.0.attn.proj.weight" in message
    assert "unexpected in the file: blocks.0.attention.proj.bias" in message
    save_file({"a": torch.zeros(1)}, tmp_path / "nothing.safetensors")
    assert "and 8 more" in refused(vit(), tmp_path / "nothing.safetensors")
    mixed = {("module." if key == "cls_token" else "") + key: value for key, value in state.items()}
    save_file(mixed, tmp_path / "mixed.safetensors")
    assert "unexpected in the file: module.cls_token" in refused(vit(), tmp_path / "mixed.safetensors")


def test_other_shapes_are_listed(tmp_path):
    save_file(create_backbone("resnet8", width=8).net.state_dict(), tmp_path / "narrow.safetensors")
    message = refused(create_backbone("resnet8", width=16), tmp_path / "narrow.safetensors")
    assert "0.weight [8, 3, 4, 4] for [16, 3, 4, 4]" in message
    save_file(vit().net.state_dict(), tmp_path / "vit.safetensors")
    assert "has other shapes" in refused(
        create_backbone("vit_small", 32, **VIT), tmp_path / "vit.safetensors"
    )
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    assert "up to 64 px its stem is 3x3" in refused(
        create_backbone("resnet18", 32), tmp_path / "resnet18.pth"
    )


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("/tmp/ssl-zoo-must-not-exist",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as tensors"),
        (b"not a checkpoint", "cannot be read as tensors"),
        ({"model": Harmful()}, "anything else could run code"),
        ({"method": {"a": torch.zeros(1)}, "step": 3}, "holds method, step; .* give encoder.safetensors"),
        ([torch.zeros(1)], "it holds list"),
        ({}, "it holds nothing"),
    ],
)
def test_what_is_no_state_dict_says_what_to_write(tmp_path, content, words):
    file = tmp_path / "weights.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(ValueError, match=words):
        load_weights(vit(), file)
    assert not Path("/tmp/ssl-zoo-must-not-exist").exists()


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*; give timm:NAME or a"):
        load_weights(vit(), tmp_path / "no.pth")
    with pytest.raises(ValueError, match="did you mean timm:resnet18"):
        load_weights(vit(), "timm:resnet19")


OFFLINE = """
import sys, timm, torch
from pathlib import Path
from safetensors.torch import save_file
from ssl_zoo.evaluation.encoder import frozen_encoder
commit = Path(sys.argv[1]) / "hub" / "models--timm--test_vit.r160_in1k" / "snapshots" / ("0" * 40)
commit.mkdir(parents=True)
(commit.parents[1] / "refs").mkdir()
(commit.parents[1] / "refs" / "main").write_text("0" * 40)
theirs = timm.create_model("test_vit").eval()
save_file(theirs.state_dict(), commit / "model.safetensors")
encoder, notes = frozen_encoder("timm:test_vit", backbone="resnet8", options={}, image_size=150)
assert (encoder.image_size, encoder.mean, encoder.std) == (144, (0.5,) * 3, (0.5,) * 3)
assert "sees images of 144 px, normalised by its own mean (0.5, 0.5, 0.5)" in notes[1], notes
theirs.reset_classifier(0)
white = torch.full((1, 3, 160, 160), 255, dtype=torch.uint8)
encoder.image_size = 160
torch.testing.assert_close(encoder.embed(white), theirs(torch.ones(1, 3, 160, 160)).detach())
try:
    frozen_encoder("timm:test_resnet", backbone="resnet8", options={}, image_size=32)
except ValueError as error:
    print(error)
"""


def test_timms_weights_come_from_its_cache_and_offline_says_what_to_do(tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, tmp_path], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "the weights of timm:test_resnet cannot be had; check the network, or give a file" in done.stdout


# under their own names elsewhere


def test_encoders_load_into_timm_and_torchvision(tmp_path):
    x = torch.randn(1, 3, 96, 96)
    small_stem = torchvision.models.resnet18()
    small_stem.conv1, small_stem.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    for name, size, options, theirs in (
        ("timm:test_vit", 96, {}, timm.create_model("test_vit", num_classes=0, img_size=96)),
        ("timm:test_efficientnet", 96, {}, timm.create_model("test_efficientnet", num_classes=0)),
        (
            *("vit_tiny", 96, {"depth": 2}),
            timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=96, depth=2),
        ),
        ("resnet18", 96, {}, torchvision.models.resnet18()),
        ("resnet18", 32, {}, small_stem),
    ):
        backbone = create_backbone(name, size, **options).eval()
        save_encoder(tmp_path, Encoder(backbone, size, card={"backbone": name, "options": options}))
        if name == "resnet18":
            theirs.fc = nn.Identity()
        theirs.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
        torch.testing.assert_close(theirs.eval()(x), backbone(x))
        assert ssl_zoo.load_encoder(tmp_path).embed(torch.zeros(1, 3, 96, 96).byte()).shape[0] == 1
