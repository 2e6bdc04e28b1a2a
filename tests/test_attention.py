"""Attention of ViTs: equal to timm's own, as masks and pictures of any size, and against drawn masks."""

import json

import numpy as np
import official_dino as official
import pytest
import timm
import torch
from made_bench import page_of
from made_run import command, small_bench, small_data
from PIL import Image
from timm.layers import set_fused_attn
from timm.utils import AttentionExtract

import ssl_zoo
from benchmarks.attention import PAGE, RESULTS, made_of, render
from ssl_zoo.evaluation.attention import attention, attention_maps, has_attention, jaccard, mass_mask
from ssl_zoo.evaluation.encoder import Encoder, save_encoder
from ssl_zoo.evaluation.features import to_input

SMALL = {"embed_dim": 24, "num_heads": 3, "depth": 2, "patch_size": 8}
VITS = {  # the name, options of a small one, tokens before the patches
    "timm:vit_tiny_patch16_224": (SMALL, 1),
    "timm:vit_small_patch14_reg4_dinov2": (SMALL, 5),
    "timm:vit_base_patch16_siglip_gap_224": (SMALL, 0),
    "timm:deit_tiny_distilled_patch16_224": (SMALL, 2),
    "timm:vit_huge_plus_patch16_dinov3": ({**SMALL, "embed_dim": 48}, 5),
    "timm:eva02_tiny_patch14_224": ({**SMALL, "embed_dim": 48}, 1),
}


def saved(folder, name="timm:vit_tiny_patch16_224", image_size=32, seed=1, **options):
    torch.manual_seed(seed)
    options = options or SMALL
    backbone = ssl_zoo.create_backbone(name, image_size, **options).eval()
    with torch.no_grad():  # fresh weights attend to all alike
        for parameter in backbone.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(backbone, image_size, card={"backbone": name, "options": options})
    save_encoder(folder, encoder)
    return encoder


def photo(file, width, height, seed=0, where=None):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if where is not None:
        pixels[:] = 20
        pixels[where] = 230
    Image.fromarray(pixels).save(file)
    return file


def opened(file):
    with Image.open(file) as image:
        return np.asarray(image)


# the weights


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("size", [(32, 32), (40, 64)])
def test_weights_equal_timms_unfused_attention(name, size):
    options, prefix = VITS[name]
    fused = ssl_zoo.create_backbone(name, 32, **options).train()
    set_fused_attn(False)
    try:
        plain = ssl_zoo.create_backbone(name, 32, **options).eval()
    finally:
        set_fused_attn(True)
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(2, 3, *size)
    timms = AttentionExtract(plain.net, method="hook")(x)
    tokens = prefix + size[0] // 8 * size[1] // 8
    for layer in (0, 1, -1):
        weights = attention(fused, x, layer)
        assert weights.shape == (2, 3, tokens, tokens)
        torch.testing.assert_close(weights, timms[f"blocks.{layer % 2}.attn.attn_drop"], rtol=0, atol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, tokens), rtol=0, atol=1e-5)
    assert fused.training
    assert all(block.attn.fused_attn for block in fused.net.blocks)
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in fused.net.blocks)


def test_weights_are_those_of_the_official_network():
    options = {"embed_dim": official.DIM, "num_heads": official.HEADS, "depth": official.DEPTH}
    name = "timm:vit_tiny_patch16_224"
    backbone = ssl_zoo.create_backbone(name, official.SIDE, patch_size=official.PATCH, **options)
    backbone.net.load_state_dict(official.vit_weights(0))
    x = torch.randn(2, 3, official.SIDE, official.SIDE)
    torch.testing.assert_close(attention(backbone, x), official.forward(official.vit_weights(0), x)[1])


def test_maps_are_the_class_tokens_row_without_registers():
    for name, (options, prefix) in VITS.items():
        encoder = Encoder(ssl_zoo.create_backbone(name, 32, **options).eval(), 32)
        images = torch.randint(0, 256, (2, 3, 24, 48)).byte()
        maps = attention_maps(encoder, images)
        assert maps.shape == (2, 3, 3, 6)
        weights = attention(encoder.backbone, to_input(images, None))
        row = weights[:, :, 0] if prefix else weights.mean(2)
        torch.testing.assert_close(maps.flatten(2), row[..., prefix:])


def test_what_has_no_attention_says_what_fits():
    x = torch.zeros(1, 3, 32, 32)
    with pytest.raises(
        ValueError, match=r"of a ResNet, if it has any, cannot be read; what fits is timm.* vit_tiny"
    ):
        attention(ssl_zoo.create_backbone("resnet18"), x)
    vit = ssl_zoo.create_backbone("timm:vit_tiny_patch16_224", 32, **SMALL)
    with pytest.raises(ValueError, match="layer=2: there are 2 blocks; give 0 to 1, or -1"):
        attention(vit, x, 2)
    different = ssl_zoo.create_backbone("timm:vit_tiny_patch16_224", 32, attn_layer="diff", **SMALL)
    with pytest.raises(ValueError, match="Block has no single softmax over its tokens; give a plain ViT"):
        attention(different, x)
    assert [has_attention(b) for b in (vit, different, ssl_zoo.create_backbone("resnet8"))] == [1, 0, 0]


# masks


def official_mask(attentions, threshold):
    """The lines of visualize_attention.py, for maps [heads, patches]."""
    values, index = torch.sort(attentions)
    values /= torch.sum(values, dim=1, keepdim=True)
    mask = torch.cumsum(values, dim=1) > (1 - threshold)
    back = torch.argsort(index)
    for head in range(len(mask)):
        mask[head] = mask[head][back[head]]
    return mask


@pytest.mark.parametrize("threshold", [0.1, 0.6, 0.95])
def test_masks_are_the_official_ones_and_hold_the_mass(threshold):
    maps = torch.rand(5, 7, 9)
    mask = mass_mask(maps, threshold)
    assert torch.equal(mask.flatten(1), official_mask(maps.flatten(1).clone(), threshold))
    share = maps / maps.sum((1, 2), keepdim=True)
    for one, kept in zip(share, mask, strict=True):
        assert one[kept].sum() >= threshold - 1e-6  # and one patch fewer would not do
        assert one[kept].sum() - one[kept].min() < threshold + 1e-6
        assert one[kept].min() > one[~kept].max()
    assert mass_mask(maps, 1e-9).sum((1, 2)).tolist() == [1] * 5
    with pytest.raises(ValueError, match="threshold=60; give the share"):
        mass_mask(maps, 60)


def test_jaccard_by_hand():
    masks = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]).bool()
    truth = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 1]]]).bool()
    assert jaccard(masks, truth).tolist() == pytest.approx([1 / 3, 1, 1 / 4])
    assert jaccard(masks, truth[0]).tolist() == pytest.approx([1 / 3, 0, 1 / 2])


# the command


def sheet_size(heads, tile, images):
    """Height, width and channels of a contact sheet."""
    return (14 + (tile + 2) * images, (tile + 2) * (heads + 3) - 2, 3)


def test_pictures_of_one_image_of_odd_size(tmp_path, capsys):
    encoder = saved(tmp_path / "cell")
    file = photo(tmp_path / "wide.png", 150, 71)
    assert command("attention", "--encoder", tmp_path / "cell", "--image", file, "--device", "cpu") == 0
    out = tmp_path / "cell" / "attention"
    assert f"1 image: {out / 'attention.png'}" in capsys.readouterr().out
    names = {path.name for path in (out / "wide").iterdir()}
    assert names == {"head0.png", "head1.png", "head2.png", "mean.png", "mask.png", "overlay.png"}
    sizes = {opened(out / "wide" / name).shape[:2] for name in names}
    assert sizes == {(32, 64)}  # 67 wide at 32 high, in whole patches of 8
    with Image.open(file) as whole:
        image = np.asarray(whole.resize((67, 32), Image.Resampling.BICUBIC))[:, :64]
    maps = attention_maps(encoder, torch.from_numpy(image.copy()).permute(2, 0, 1)[None])[0]
    mask = opened(out / "wide" / "mask.png") > 0
    expected = mass_mask(maps.mean(0)).repeat_interleave(8, 0).repeat_interleave(8, 1).numpy()
    assert (mask == expected).mean() > 0.9  # Pillow resizes a little differently
    brightest = opened(out / "wide" / "mean.png")[..., 1].reshape(4, 8, 8, 8)[:, 0, :, 0]
    assert brightest.argmax() == maps.mean(0).argmax()
    assert opened(out / "attention.png").shape == sheet_size(3, 128, 1)


def test_a_folder_with_masks_gets_a_table_with_the_random_row(tmp_path, capsys):
    saved(tmp_path / "cell")
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    for i in range(3):
        corner = (slice(0, 24), slice(0, 16 + 8 * i))
        photo(tmp_path / "photos" / f"{i}.png", 48 + 8 * i, 40, where=corner)
        mask = np.zeros((40, 48 + 8 * i), dtype=np.uint8)
        mask[corner] = i + 1  # classes, as in VOC
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.gif")
    asked = ["--image", tmp_path / "photos", "--masks", tmp_path / "masks", "--image-size", "40"]
    asked += ["--encoder", tmp_path / "cell" / "encoder.safetensors", "--device", "cpu", "--layer", "0"]
    assert command("attention", *asked, "--out", tmp_path / "out", "--threshold", "0.5") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("3 images: ")
    assert said[1].split() == ["Jaccard", "index", "mean", "map", "best", "head"]
    table = {line.split()[0]: [float(value) for value in line.split()[1:]] for line in said[2:]}
    assert list(table) == ["trained", "random"]
    assert opened(tmp_path / "out" / "attention.png").shape == sheet_size(3, 128, 3)

    def by_hand(encoder):
        scores = []
        for i in range(3):
            image = opened(tmp_path / "photos" / f"{i}.png")
            truth = opened(tmp_path / "masks" / f"{i}.gif") > 0
            maps = attention_maps(encoder, torch.from_numpy(image.copy()).permute(2, 0, 1)[None], 0)[0]
            masks = mass_mask(torch.cat([maps.mean(0)[None], maps]), 0.5)
            pixels = masks.repeat_interleave(8, 1).repeat_interleave(8, 2).numpy()
            scores.append([(p & truth).sum() / (p | truth).sum() for p in pixels])
        return [np.mean([s[0] for s in scores]), np.mean([max(s[1:]) for s in scores])]

    assert table["trained"] == pytest.approx(by_hand(ssl_zoo.load_encoder(tmp_path / "cell")), abs=6e-4)
    torch.manual_seed(0)
    fresh = Encoder(ssl_zoo.create_backbone("timm:vit_tiny_patch16_224", 32, **SMALL).eval(), 32)
    assert table["random"] == pytest.approx(by_hand(fresh), abs=6e-4)


def test_what_cannot_be_drawn_is_an_error(tmp_path, capsys):
    saved(tmp_path / "conv", "resnet8", width=8)
    saved(tmp_path / "vit")
    (tmp_path / "empty").mkdir()
    (tmp_path / "twins").mkdir()
    for name in ("a.png", "a.jpg"):
        photo(tmp_path / "twins" / name, 32, 32)
    (tmp_path / "masks").mkdir()
    wrong = photo(tmp_path / "masks" / "b.png", 32, 33)
    image = photo(tmp_path / "b.png", 32, 32)
    for encoder, asked, words in (
        ("conv", ["--image", image], "of a Sequential, if it has any, cannot be read; what fits is timm"),
        ("vit", ["--image", tmp_path / "no.png"], "no.png: missing"),
        ("vit", ["--image", tmp_path / "empty"], "empty holds no images"),
        ("vit", ["--image", tmp_path / "twins"], "several images named a; rename all but one"),
        ("vit", ["--image", image, "--image-size", "7"], "image_size=7 is less than a patch of 8 px"),
        ("vit", ["--image", image, "--masks", tmp_path / "masks"], "has (32, 33) pixels"),
        ("vit", ["--image", image, "--threshold", "2"], "threshold=2; give the share"),
    ):
        assert command("attention", "--encoder", tmp_path / encoder, "--device", "cpu", *asked) == 2
        assert words in capsys.readouterr().err
    Image.new("L", (32, 32)).save(wrong)
    assert command("attention", "--encoder", tmp_path / "vit", "--image", image, "--masks", wrong) == 2
    assert "marks nothing" in capsys.readouterr().err
    photo(tmp_path / "c.png", 32, 32)
    asked = ["--image", tmp_path / "c.png", "--masks", tmp_path / "masks", "--out", tmp_path / "looks"]
    assert command("attention", "--encoder", tmp_path / "vit", *asked) == 2
    assert "has no mask for c.png" in capsys.readouterr().err
    assert not (tmp_path / "looks").exists()  # masks are looked at before anything is written


# the report


def test_the_report_shows_vits_and_only_where_images_may_be_shown(tmp_path, own_cache):
    data, folder = small_data(tmp_path / "data"), tmp_path / "run"
    backbone = {"name": "timm:vit_tiny_patch16_224", **SMALL}
    small_bench(folder, data, methods=["byol"], backbone=backbone)
    for label in ("byol", "random"):
        picture = opened(folder / "cells" / f"{label}-seed0" / "attention.png")
        assert picture.shape == sheet_size(3, 64, 6)
    alts = [attrs["alt"] for tag, attrs in page_of(folder).tags if tag == "img"]
    shown = [alt.rpartition(" by ")[2] for alt in alts if "attention maps by" in alt]
    assert sorted(shown) == ["byol", "random"]
    small_bench(folder, data, methods=["byol"], backbone=backbone, report={"images": "hide"})
    assert "attention maps" not in page_of(folder).text + str(page_of(folder).tags)


def test_the_page_shows_what_its_code_made():
    stored = json.loads(RESULTS.read_text())
    assert stored["made"] == made_of(), "run python -m benchmarks.attention"
    assert render(PAGE.read_text(), stored) == PAGE.read_text()


def test_timms_own_extraction_is_what_the_test_compares_with():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, **SMALL).eval()
    with pytest.raises(AssertionError):  # fused blocks give timm's hooks nothing to find
        assert AttentionExtract(model, method="hook")(torch.zeros(1, 3, 32, 32))
