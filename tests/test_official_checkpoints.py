"""Checkpoints of facebookresearch/dino: read safely and completely, used everywhere, written as theirs."""

import os
import shutil

import numpy as np
import official_dino as official
import pytest
import timm
import torch
from made_run import small_bench, small_data
from timm.layers import resample_abs_pos_embed

import ssl_zoo
from ssl_zoo.backbones.weights import load_weights
from ssl_zoo.evaluation.encoder import frozen_encoder
from ssl_zoo.methods.dino import export_official_checkpoint, load_official_checkpoint

VIT = {"dim": official.DIM, "heads": official.HEADS, "depth": official.DEPTH}


def vit(image_size=official.SIDE):
    options = {"embed_dim": official.DIM, "num_heads": official.HEADS, "depth": official.DEPTH}
    return ssl_zoo.create_backbone(
        "timm:vit_tiny_patch16_224", image_size, patch_size=official.PATCH, **options
    )


def dino(options, image_size=official.SIDE):
    return ssl_zoo.create_method("dino", vit(image_size), **options)


def saved(tmp_path, content=None, **how):
    torch.save(official.checkpoint(**how) if content is None else content, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# in


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_checkpoint_is_read_whole(tmp_path, legacy):
    content = official.checkpoint()
    file = tmp_path / "checkpoint.pth"
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    read = load_official_checkpoint(file)
    assert same(read.teacher.backbone, official.vit_weights(2))
    assert same(read.student.backbone, official.vit_weights(1))
    assert torch.equal(read.center, content["dino_loss"]["center"])
    assert (read.epoch, read.args["arch"], str(read.args["output_dir"])) == (7, "vit_small", "/checkpoint/1")
    assert read.options == {
        **{"out_dim": official.K, "hidden_dim": official.HIDDEN, "bottleneck_dim": official.BOTTLENECK},
        **{"num_layers": 3, "use_bn": False, "norm_last_layer": False},
    }


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_method_gives_the_official_logits(tmp_path, layers):
    content = official.checkpoint(layers)
    read = load_official_checkpoint(saved(tmp_path, content))
    method = dino(read.options).eval()
    read.load_into(method)
    images = torch.randn(3, 3, official.SIDE, official.SIDE)
    for branch, seed in ((method.student, 1), (method.teacher.module, 2)):
        features, _ = official.forward(official.vit_weights(seed), images)
        torch.testing.assert_close(branch.backbone(images), features, rtol=1e-5, atol=1e-5)
        logits = official.head_forward(official.head_weights(seed, layers), features)
        torch.testing.assert_close(branch(images), logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(method.loss.center, content["dino_loss"]["center"])


def test_positions_are_official_at_native_size_and_timms_elsewhere(tmp_path):
    weights = official.vit_weights(2)
    backbone = vit()
    backbone.net.load_state_dict(load_official_checkpoint(saved(tmp_path)).teacher.backbone)
    native = backbone.net._pos_embed(torch.zeros(1, 4, 4, official.DIM))
    expected = weights["pos_embed"].clone()
    expected[:, :1] += weights["cls_token"]
    torch.testing.assert_close(native, expected)
    wide = backbone.net._pos_embed(torch.zeros(1, 5, 7, official.DIM))[:, 1:]
    timms = resample_abs_pos_embed(weights["pos_embed"], (5, 7), num_prefix_tokens=1)[:, 1:]
    torch.testing.assert_close(wide, timms)
    theirs = official.position_embeddings(weights["pos_embed"], columns=7, rows=5)[:, 1:]
    assert (wide - theirs).abs().max() > 1e-3  # the official grid is shifted by its 0.1


def test_a_backbone_alone_has_timms_names_and_does_not_pass_for_a_training(tmp_path):
    weights = official.vit_weights(3)
    options = {"embed_dim": official.DIM, "num_heads": official.HEADS, "depth": official.DEPTH}
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=16, patch_size=4, **options)
    for prefix in ("", "module.", "backbone.", "module.backbone."):
        read = load_official_checkpoint(
            saved(tmp_path, {prefix + key: value for key, value in weights.items()})
        )
        theirs.load_state_dict(read.teacher.backbone)
        assert same(read.teacher.backbone, weights)
        assert (read.student, read.center, read.epoch, read.args) == (None, None, None, {})
    method = dino({})
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(ValueError, match="so nothing was loaded; it is a backbone alone") as caught:
        read.load_into(method)
    assert "missing: student.backbone.cls_token, student.backbone.pos_embed" in str(caught.value)
    assert same(method.state_dict(), before)
    with pytest.raises(ValueError, match="there is no head"):
        _ = read.options


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path):
    content = official.checkpoint()
    content["teacher"]["backbone.extra"] = torch.zeros(1)
    del content["student"]["module.backbone.norm.bias"]
    read = load_official_checkpoint(saved(tmp_path, content))
    method = dino({**read.options, "out_dim": 13})
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        read.load_into(method)
    message = str(caught.value)
    assert "\n  missing: student.backbone.norm.bias\n  unexpected: teacher.backbone.extra\n" in message
    assert "of another shape: loss.center [1, 12] for [1, 13], student.head" in message
    assert same(method.state_dict(), before)


class Harmful:
    def __reduce__(self):
        return (os.mkdir, (os.environ["SSL_ZOO_HARM"],))


@pytest.mark.parametrize("place", ["args", "teacher", "student", "surplus"])
def test_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path, monkeypatch, place):
    monkeypatch.setenv("SSL_ZOO_HARM", str(tmp_path / "harmed"))
    file = saved(tmp_path, official.checkpoint() | {place: Harmful()})
    with pytest.raises(ValueError, match="anything else could run code"):
        load_official_checkpoint(file)
    with pytest.raises(ValueError, match="anything else could run code"):
        load_weights(vit(), file)
    assert not (tmp_path / "harmed").exists()
    torch.load(file, weights_only=False)  # the payload does bite where it may
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dino_loss": None, "epoch": None}, "has a teacher, but no epoch, center in dino_loss"),
        ({"dino_loss": {"center": 3}}, "has a teacher, but no center in dino_loss"),
        ({"dino_loss": 3}, "has a teacher, but no center in dino_loss"),
        ({"teacher": {"backbone.norm.bias": 3}}, "teacher of .* is no state dict of tensors"),
        ({"teacher": {"backbone.a": torch.zeros(1), "b": torch.zeros(1)}}, "neither backbone nor head: b"),
    ],
)
def test_other_files_say_what_to_give(tmp_path, change, words):
    content = {key: value for key, value in (official.checkpoint() | change).items() if value is not None}
    with pytest.raises(ValueError, match=words):
        load_official_checkpoint(saved(tmp_path, content))
    for content, said in (([1], "holds a list"), ({"epoch": np.float64(1)}, "it holds epoch")):
        with pytest.raises(ValueError, match=said):
            load_official_checkpoint(saved(tmp_path, content))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*no\.pth; give checkpoint\.pth"):
        load_official_checkpoint(tmp_path / "no.pth")


def test_a_training_checkpoint_starts_a_bench_with_its_teacher(tmp_path):
    backbone = vit()
    notes = load_weights(backbone, saved(tmp_path))
    assert same(backbone.net.state_dict(), official.vit_weights(2))
    assert "the part 'teacher' is taken" in notes[0]
    assert "is left out: head.mlp.0.weight" in notes[1]
    options = {"patch_size": 4, "embed_dim": official.DIM, "num_heads": official.HEADS, "depth": 3}
    encoder, notes = frozen_encoder(
        str(tmp_path / "checkpoint.pth"), backbone="timm:vit_tiny_patch16_224", options=options, image_size=24
    )
    assert notes[-1].endswith("is resized to [1, 37, 16]")
    assert encoder.embed(torch.zeros(1, 3, 24, 24).byte()).shape == (1, official.DIM)


# out


@pytest.mark.parametrize("how", [{}, {"layers": 1}, {"use_bn": True}, {"layers": 2, "use_bn": True}])
def test_what_was_read_is_written_as_it_was(tmp_path, how):
    content = official.checkpoint(**how)
    read = load_official_checkpoint(saved(tmp_path, content))
    method = dino(read.options)
    read.load_into(method)
    export_official_checkpoint(method, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert set(again) == {"student", "teacher", "epoch", "dino_loss"}
    for part in ("student", "teacher", "dino_loss"):
        assert same(again[part], content[part])


def test_a_run_is_written_from_its_folder(tmp_path, own_cache):
    data = small_data(tmp_path / "data")
    backbone = {"name": "vit_tiny", "depth": 1, "patch_size": 8}
    small_bench(tmp_path / "run", data, backbone=backbone)
    cell = tmp_path / "run" / "cells" / "dino-seed0"
    export_official_checkpoint(cell, tmp_path / "checkpoint.pth")
    read = load_official_checkpoint(tmp_path / "checkpoint.pth")
    encoder = ssl_zoo.load_encoder(cell)
    assert same(read.teacher.backbone, encoder.backbone.net.state_dict())
    assert not same(read.student.backbone, encoder.backbone.net.state_dict())
    method = ssl_zoo.create_method("dino", ssl_zoo.create_backbone("vit_tiny", 16, depth=1, patch_size=8))
    read.load_into(method)
    state = torch.load(cell / "checkpoint.pt", weights_only=True)["method"]
    state = {key: value for key, value in state.items() if not key.endswith("mask_token")}
    assert all(torch.equal(method.state_dict()[key], value) for key, value in state.items())
    assert read.center.abs().sum() > 0
    with pytest.raises(ValueError, match="byol-seed0 is no run of DINO"):
        export_official_checkpoint(tmp_path / "run" / "cells" / "byol-seed0", tmp_path / "x.pth")
    shutil.rmtree(cell)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint\.pt in .*; give the folder"):
        export_official_checkpoint(cell, tmp_path / "x.pth")
