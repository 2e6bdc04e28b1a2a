"""An encoder and its files: what comes back is what was saved, for any image and in other runtimes."""

import json
import sys

import numpy as np
import pytest
import torch
from made_features import pixels
from PIL import Image

from ssl_zoo.backbones import create_backbone
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.data.decode import read_rgb
from ssl_zoo.evaluation import Encoder
from ssl_zoo.evaluation.encoder import load_encoder, save_encoder
from ssl_zoo.evaluation.features import extract

CARD = {"backbone": "resnet8", "options": {"width": 8}, "method": "dino", "encoder": "teacher", "seed": 3}
GREY = (0.5, 0.5, 0.5)


def save_cell(folder, seed=0, card=CARD, **changes):
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    backbone = create_backbone("resnet8", image_size=24, width=8).to(memory_format=torch.channels_last)
    backbone(torch.randn(8, 3, 24, 24))
    save_encoder(folder, Encoder(backbone, 24, card=card, **changes))
    return backbone


def vit_encoder(image_size=32):
    torch.manual_seed(0)
    return Encoder(create_backbone("vit_tiny", image_size, depth=1, patch_size=8), image_size).eval()


def test_an_encoder_comes_back_as_it_was_saved(tmp_path):
    backbone = save_cell(tmp_path / "cell")
    images = pixels(4, 40)
    expected = extract(backbone, images, image_size=24, device="cpu")
    for path in (tmp_path / "cell", tmp_path / "cell" / "encoder.safetensors", str(tmp_path / "cell")):
        encoder = load_encoder(path)
        assert (encoder.out_dim, encoder.image_size, encoder.training) == (32, 24, False)
        torch.testing.assert_close(encoder.embed(images), expected)
    as_pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    torch.testing.assert_close(encoder.embed(as_pil), expected)
    torch.testing.assert_close(encoder.embed(list(images)), expected)
    torch.testing.assert_close(
        encoder(torch.stack([encoder.transform(i) for i in as_pil])).detach(), expected
    )
    torch.testing.assert_close(encoder.transform(images[0]), encoder.transform(as_pil[0]))
    card = json.loads((tmp_path / "cell" / "encoder.json").read_text())
    assert encoder.card == card
    assert (card.pop("versions").keys(), card.pop("created")[:2]) == (
        {"ssl-zoo", "torch", "torchvision", "timm"},
        "20",
    )
    sizes = {"image_size": 24, "out_dim": 32, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    assert card == {**CARD, **sizes}


def test_a_saved_encoder_says_the_same_when_saved_again(tmp_path):
    save_cell(tmp_path / "cell")
    encoder = load_encoder(tmp_path / "cell")
    (tmp_path / "again").mkdir()
    save_encoder(tmp_path / "again", encoder)
    first, again = (json.loads((tmp_path / name / "encoder.json").read_text()) for name in ("cell", "again"))
    assert {**first, "created": ""} == {**again, "created": ""}


def test_embed_takes_images_of_any_size_and_mode(tmp_path):
    save_cell(tmp_path / "cell")
    encoder = load_encoder(tmp_path / "cell")
    mixed = [
        Image.new("L", (50, 30), 99),
        Image.new("RGBA", (24, 24)),
        pixels(1, 33)[0],
        pixels(1, channels=1)[0],
    ]
    together = encoder.embed(mixed)
    assert together.shape == (4, 32)
    torch.testing.assert_close(together[2:3], encoder.embed(pixels(1, 33)))
    for embed in (encoder.embed, vit_encoder().embed_tokens):
        with pytest.raises(ValueError, match="no images"):
            embed([])
        with pytest.raises(ValueError, match="ndarray; give PIL images"):
            embed([np.zeros((24, 24, 3), np.uint8)])


def test_an_opened_image_is_read_as_its_file_is(tmp_path):
    save_cell(tmp_path / "cell", card=CARD | {"window": [0, 4095]})
    encoder = load_encoder(tmp_path / "cell")
    assert encoder.window == (0, 4095)
    deep = Image.fromarray(np.arange(24 * 30, dtype=np.uint16).reshape(24, 30) * 5)
    turned, clear = (Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels(2, 30))
    clear.putalpha(Image.new("L", clear.size, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    for name, image, options in (("a", deep, {}), ("b", turned, {"exif": exif}), ("c", clear, {})):
        image.save(tmp_path / f"{name}.png", **options)
        file = read_rgb(tmp_path / f"{name}.png", encoder.window)
        with Image.open(tmp_path / f"{name}.png") as opened:
            assert torch.equal(encoder.transform(opened), encoder.transform(file))


def test_images_are_normalised_by_the_encoders_own_statistics(tmp_path):
    backbone = save_cell(tmp_path / "cell", mean=GREY, std=GREY)
    encoder, images = load_encoder(tmp_path / "cell"), pixels(3, 24)
    assert (encoder.mean, encoder.std) == (GREY, GREY)
    expected = backbone.eval()(images / 255 * 2 - 1).detach()
    torch.testing.assert_close(encoder.embed(images), expected)
    torch.testing.assert_close(encoder.transform(images[0]), images[0] / 255 * 2 - 1)
    assert (Encoder(backbone, 24).embed(images) - expected).abs().max() > 0.01


def test_patch_tokens_come_row_by_row():
    encoder, images = vit_encoder(), pixels(3, 32)
    tokens = encoder.embed_tokens(images)
    assert (tokens.shape, tokens.dtype) == ((3, 16, 192), torch.float32)
    x = torch.stack([encoder.transform(image) for image in images])
    torch.testing.assert_close(tokens, encoder.backbone.tokens(x).patches.detach())
    torch.testing.assert_close(encoder.embed_tokens(list(images)), tokens)
    with pytest.raises(
        ValueError, match="resnet8 has no patch tokens; take an encoder whose backbone is a ViT"
    ):
        Encoder(create_backbone("resnet8", 32), 32, card={"backbone": "resnet8"}).embed_tokens(images)


def test_the_mask_token_stays_out_of_the_file(tmp_path):
    encoder = vit_encoder()
    encoder.card = {"backbone": "vit_tiny", "options": {"depth": 1, "patch_size": 8}}
    encoder.backbone.mask_token.requires_grad_(True)
    save_encoder(tmp_path, encoder)
    torch.testing.assert_close(load_encoder(tmp_path).embed(pixels(2, 32)), encoder.embed(pixels(2, 32)))


def test_a_bench_folder_names_the_cells_to_choose_from(tmp_path):
    save_cell(tmp_path / "cells" / "dino-seed0")
    assert load_encoder(tmp_path).out_dim == 32  # the only one
    save_cell(tmp_path / "cells" / "byol-seed0")
    with pytest.raises(ValueError, match=r"2 encoders; give one of\n.*byol-seed0\n.*dino-seed0"):
        load_encoder(tmp_path)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for .*encoder\.safetensors and .*cells"):
        load_encoder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"looked for .*nothing\.safetensors"):
        load_encoder(tmp_path / "nothing.safetensors")
    save_cell(tmp_path / "wide", card={**CARD, "options": {"width": 16}})
    with pytest.raises(ValueError, match="size mismatch"):
        load_encoder(tmp_path / "wide")
    save_cell(tmp_path / "deep", card={**CARD, "backbone": "resnet18", "options": {}})
    with pytest.raises(ValueError, match=r"does not fit the backbone that encoder\.json describes"):
        load_encoder(tmp_path / "deep")
    save_cell(tmp_path / "alone")
    file = tmp_path / "alone" / "encoder.json"
    card = json.loads(file.read_text())
    file.write_text(json.dumps({key: card[key] for key in card if key != "options"}))
    with pytest.raises(ValueError, match="lacks options; write it with save_encoder"):
        load_encoder(tmp_path / "alone")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"encoder\.json beside it"):
        load_encoder(tmp_path / "alone")
    with pytest.raises(ValueError, match="card lacks backbone, options"):
        save_encoder(tmp_path, Encoder(create_backbone("resnet8"), 32))


# ONNX


@pytest.mark.parametrize("name", ["resnet8", "vit_tiny"])
def test_onnxruntime_gives_the_same_features(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra: pip install 'ssl-zoo[onnx]'")
    encoder = vit_encoder() if name == "vit_tiny" else Encoder(create_backbone("resnet8", 32, width=8), 32)
    encoder(torch.randn(8, 3, 32, 32))  # batch norms that have seen images
    encoder.train()
    encoder.to_onnx(tmp_path / "encoder.onnx")
    assert encoder.training
    session = runtime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        images = pixels(batch, 40)
        x = torch.stack([encoder.transform(image) for image in images]).numpy()
        (features,) = session.run(None, {"images": x})
        np.testing.assert_allclose(features, encoder.embed(images).numpy(), rtol=1e-4, atol=1e-4)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["encoder.onnx"]


def test_without_the_extra_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ssl-zoo\[onnx\]'"):
        vit_encoder().to_onnx(tmp_path / "encoder.onnx")
