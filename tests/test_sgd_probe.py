"""The linear probe of the DINO paper: its features, its training written out, its column."""

import math

import pytest
import torch
from made_run import command, on, small_data
from torch.nn import functional as F

import ssl_zoo
from ssl_zoo.bench.results import Results
from ssl_zoo.draws import permutation
from ssl_zoo.evaluation import extract
from ssl_zoo.evaluation.encoder import Encoder, save_encoder
from ssl_zoo.evaluation.sgd_probe import LastBlocks, _features, sgd_probe

SMALL = {"depth": 3, "patch_size": 8}


def digits(train=150, test=100):
    split = ssl_zoo.create_dataset("digits").split("train")
    return split.take(torch.arange(train)), split.take(torch.arange(train, train + test))


def test_the_class_tokens_of_the_last_blocks_are_normalised_and_in_order():
    backbone = ssl_zoo.create_backbone("vit_tiny", 32, **SMALL).eval()
    outputs = []
    for block in backbone.net.blocks:
        block.register_forward_hook(lambda _m, _x, out: outputs.append(out))
    x = torch.randn(2, 3, 32, 32)
    whole = backbone(x)
    tokens = [backbone.net.norm(out) for out in outputs]
    one, two = (_features(backbone, LastBlocks(count))(x) for count in (1, 2))
    torch.testing.assert_close(one, whole)
    torch.testing.assert_close(two, torch.cat([tokens[-2][:, 0], tokens[-1][:, 0]], 1))
    pooled = _features(backbone, LastBlocks(1, True))(x)
    torch.testing.assert_close(pooled, torch.cat([whole, tokens[-1][:, 1:].mean(1)], 1))


def test_tokens_of_a_vit_that_normalises_what_it_pooled_are_normalised_as_well():
    small = {"patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 2}
    backbone = ssl_zoo.create_backbone("timm:eva02_tiny_patch14_224", 32, **small).eval()
    features = _features(backbone, LastBlocks(2, True))(torch.randn(2, 3, 32, 32))
    for part in features.split(24, dim=1):
        torch.testing.assert_close(part.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.var(1, unbiased=False), torch.ones(2), atol=1e-2, rtol=0)


def test_registers_are_no_patches_and_other_backbones_give_their_own_features():
    x, small = torch.randn(1, 3, 32, 32), {"patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 2}
    backbone = ssl_zoo.create_backbone("timm:vit_small_patch14_reg4_dinov2", 32, **small).eval()
    tokens = backbone.tokens(x)
    expected = torch.cat([tokens.prefix[:, 0], tokens.patches.mean(1)], 1)
    torch.testing.assert_close(_features(backbone, LastBlocks(1, True))(x), expected)
    for name, options in (("timm:vit_base_patch16_siglip_gap_224", small), ("resnet8", {"width": 8})):
        other = ssl_zoo.create_backbone(name, 32, **options)
        assert _features(other, LastBlocks()) is other


def by_hand(encoder, train, test, *, epochs, batch_size=128, lr=1e-3):
    """eval_linear.py's training, written out on the encoder's own features."""
    train_x, test_x = (extract(encoder, s.images, image_size=16, device="cpu") for s in (train, test))
    w = torch.randn(10, train_x.shape[1], generator=torch.Generator().manual_seed(0)) * 0.01
    b, moved = torch.zeros(10), [0.0, 0.0]
    for epoch in range(epochs):
        rate = lr * batch_size / 256 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        for batch in permutation(len(train), 0, epoch).split(batch_size):
            x, y = train_x[batch], F.one_hot(train.labels[batch], 10)
            error = ((x @ w.T + b).softmax(1) - y) / len(batch)
            moved = [0.9 * moved[0] + error.T @ x, 0.9 * moved[1] + error.sum(0)]
            w, b = w - rate * moved[0], b - rate * moved[1]
    hits = (test_x @ w.T + b).argmax(1) == test.labels
    per_class = [hits[test.labels == label].float().mean() for label in range(10)]
    return float(hits.float().mean()), float(torch.stack(per_class).mean())


@pytest.mark.parametrize(("epochs", "batch_size", "lr"), [(3, 128, 5.0), (12, 32, 2.0), (100, 128, 1.0)])
def test_training_is_the_papers_written_out(epochs, batch_size, lr):
    train, test = digits()
    backbone = ssl_zoo.create_backbone("resnet8", 16, width=8).eval()
    scores = sgd_probe(
        Encoder(backbone, 16), train, test, epochs=epochs, batch_size=batch_size, lr=lr, device="cpu"
    )
    top1, balanced = by_hand(backbone, train, test, epochs=epochs, batch_size=batch_size, lr=lr)
    assert scores["sgd_probe_top1"] == pytest.approx(top1)
    assert scores["sgd_probe_balanced_accuracy"] == pytest.approx(balanced)
    assert 0.15 < top1 < 0.95  # neither chance nor perfect, so that a wrong step would show


def test_defaults_are_official_and_nothing_else_changes():
    train, test = digits(60, 40)
    encoder = Encoder(ssl_zoo.create_backbone("vit_tiny", 16, depth=4, patch_size=8), 16)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    scores = sgd_probe(encoder, train, test, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    official = {"epochs": 100, "batch_size": 128, "lr": 0.001, "seed": 0}
    assert scores == sgd_probe(encoder, train, test, LastBlocks(4, False), **official, device="cpu")
    assert set(scores) == {f"sgd_probe_{name}" for name in ("top1", "top5", "balanced_accuracy")}


def test_what_cannot_be_probed_is_an_error():
    train, test = digits(30, 30)
    shallow = ssl_zoo.create_backbone("vit_tiny", 16, **SMALL)
    with pytest.raises(ValueError, match="n_last_blocks=4: the backbone has 3; give 1 to 3"):
        sgd_probe(Encoder(shallow, 16), train, test)
    backbone = ssl_zoo.create_backbone("resnet8", width=8)
    with pytest.raises(ValueError, match="n_last_blocks=0; give 1 or more"):
        sgd_probe(backbone, train, test, LastBlocks(0))
    with pytest.raises(ValueError, match="all 1 labels of train are one class"):
        sgd_probe(backbone, train.take(torch.tensor([0])), test)
    with pytest.raises(FloatingPointError, match=r"not finite; lower lr=1e\+38"):
        sgd_probe(Encoder(backbone, 16), train, test, epochs=50, lr=1e38, device="cpu")


def test_the_command_adds_a_column_and_says_on_what(tmp_path, own_cache, capsys):
    data = small_data(tmp_path / "data")
    options = {"patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 2}
    cell, name = tmp_path / "vit", "timm:vit_tiny_patch16_224"
    cell.mkdir()
    backbone = ssl_zoo.create_backbone(name, 16, **options)
    save_encoder(cell, Encoder(backbone, 16, card={"backbone": name, "options": options}))
    asked = ("eval", "--encoder", cell, *on(data), "--sgd-probe", "--out", tmp_path / "out")
    assert command(*asked) == 2
    assert "n_last_blocks=4: the backbone has 2" in capsys.readouterr().err
    assert command(*asked, "--n-last-blocks", "2", "--avgpool-patch-tokens") == 0
    (row,) = Results.load(tmp_path / "out").rows
    splits = ssl_zoo.create_dataset("fashion-mnist", data)
    parts = splits.split("train"), splits.split("test")
    expected = sgd_probe(ssl_zoo.load_encoder(cell), *parts, LastBlocks(2, True), device="cpu")
    assert row["sgd_probe_top1"] == expected["sgd_probe_top1"]
    said = capsys.readouterr().out
    assert "SGD probe top-1 %" in said
    notes = Results.load(tmp_path / "out").bench["notes"]
    assert notes[-1].endswith("class tokens of its last 2 blocks and its mean patch token")
    assert command(*asked[:-3], "--out", tmp_path / "plain") == 0
    assert Results.load(tmp_path / "plain").rows[0]["sgd_probe_top1"] is None
    assert "SGD probe" not in capsys.readouterr().out
