"""Backbones of timm: widths, sizes, tokens, and errors that name the way out."""

from importlib import import_module

import pytest
import timm
import torch
from torch import Tensor

from ssl_zoo.backbones import create_backbone
from ssl_zoo.backbones.external import TimmEva
from ssl_zoo.backbones.vit import TimmViT
from ssl_zoo.batch_norm import batch_statistics_only
from ssl_zoo.bench.config import load
from ssl_zoo.bench.plan import plan
from ssl_zoo.nets import TokenBackbone
from ssl_zoo.registry import method_class
from ssl_zoo.testing import check_method

SWIN = {"depths": (1, 1, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 2, 2)}
EVA = {"depth": 1, "embed_dim": 48, "num_heads": 2}
SMALL = [  # name, options, sizes, width
    ("resnet10t", {}, (32, 16), 512),
    ("test_resnet", {}, (32, 16), 96),
    ("test_efficientnet", {}, (32, 12), 256),
    ("mobilenetv3_small_050", {}, (32, 16), 1024),  # its head widens the 288 channels of the last stage
    ("convnext_atto", {"depths": (1, 1, 1, 1)}, (64, 32), 320),
    ("test_vit", {}, (32, 16), 64),
    ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 48, "patch_size": 8}, (32, 16), 48),
    ("deit_tiny_distilled_patch16_224", {"depth": 1}, (32, 16), 192),
    ("vit_small_patch16_dinov3", EVA, (32, 16), 48),
    ("swin_tiny_patch4_window7_224", SWIN, (32, 12), 96),
    ("swinv2_tiny_window8_256", SWIN, (32, 16), 96),
]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def made(name: str, image_size: int = 32, **options):
    torch.manual_seed(0)
    return create_backbone(f"timm:{name}", image_size, **options)


@pytest.mark.parametrize(("name", "options", "sizes", "width"), SMALL, ids=[row[0] for row in SMALL])
def test_two_sizes_the_stated_width_and_gradients(name, options, sizes, width) -> None:
    backbone = made(name, sizes[0], **options)
    assert backbone.out_dim == width
    features = [backbone(random(2, 3, size, size)) for size in sizes]
    assert [f.shape for f in features] == [(2, width)] * 2
    sum(f.square().sum() for f in features).backward()
    unreached = [key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert unreached == []
    assert not any(
        key.startswith(("net.fc.", "net.head.fc", "net.classifier")) for key in backbone.state_dict()
    )


def test_weights_come_from_torchs_generator_and_names_are_timms() -> None:
    first, again = made("test_vit"), made("test_vit")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    theirs = timm.create_model("test_vit", num_classes=0, img_size=32)
    assert first.net.state_dict().keys() == theirs.state_dict().keys()


def test_features_are_timms_own_whatever_the_pooling() -> None:
    x = random(2, 3, 32, 32)
    for name in ("test_vit", "test_vit2", "test_vit3"):  # class token, average, attention pooling
        backbone = made(name).eval()
        theirs = timm.create_model(name, num_classes=0, img_size=32).eval()
        theirs.load_state_dict(backbone.net.state_dict())
        torch.testing.assert_close(backbone(x), theirs(x))


def test_batch_norms_move_for_global_crops_alone() -> None:
    backbone = made("test_resnet")
    before = backbone.net.bn1.running_mean.clone()
    with batch_statistics_only(backbone):
        backbone(random(4, 3, 16, 16))
    assert torch.equal(backbone.net.bn1.running_mean, before)
    backbone(random(4, 3, 32, 32))
    assert not torch.equal(backbone.net.bn1.running_mean, before)


# tokens


@pytest.mark.parametrize(
    ("name", "options", "kind", "prefix"),
    [
        ("test_vit", {}, TimmViT, 1),
        ("vit_base_patch16_siglip_224", {"depth": 1, "embed_dim": 48, "num_heads": 2}, TimmViT, 0),
        ("deit_tiny_distilled_patch16_224", {"depth": 1}, TimmViT, 2),
        ("vit_small_patch16_dinov3", EVA, TimmEva, 5),  # the class token and four registers
    ],
)
def test_tokens_of_any_size(name, options, kind, prefix) -> None:
    backbone = made(name, 64, **options).eval()
    assert type(backbone) is kind
    assert backbone.patch_size == 16
    for height, width in ((64, 64), (32, 48)):
        tokens = backbone.tokens(random(2, 3, height, width))
        assert tokens.grid == (height // 16, width // 16)
        assert tokens.prefix.shape[1] == prefix
        assert tokens.patches.shape[1] == tokens.grid[0] * tokens.grid[1]
    torch.testing.assert_close(
        torch.cat([tokens.prefix, tokens.patches], 1), backbone.net.forward_features(random(2, 3, 32, 48))
    )


def test_masked_patches_are_not_seen_and_kept_ones_alone_are() -> None:
    backbone, x = made("test_vit", 64).eval(), random(2, 3, 64, 64)
    changed, mask = x.clone(), torch.zeros(2, 16, dtype=torch.bool)
    changed[:, :, :16, :16] += 1  # patch 0
    mask[:, 0] = True
    assert torch.equal(backbone.tokens(x, mask=mask).patches, backbone.tokens(changed, mask=mask).patches)
    keep = torch.tensor([[3, 7], [1, 15]])
    kept = backbone.tokens(x, keep=keep)
    assert kept.patches.shape == (2, 2, 64)
    assert torch.equal(kept.patches, backbone.tokens(changed, keep=keep).patches)
    assert not torch.equal(backbone(x), backbone(changed))


def test_what_cannot_be_masked_says_so() -> None:
    backbone, x = made("vit_small_patch16_dinov3", **EVA), random(1, 3, 32, 32)
    for asked in (
        {"mask": torch.ones(1, 4, dtype=torch.bool)},
        {"keep": torch.zeros(1, 1, dtype=torch.long)},
    ):
        with pytest.raises(ValueError, match="neither masks nor drops patches; give another ViT"):
            backbone.tokens(x, **asked)
    assert not isinstance(made("test_resnet"), TokenBackbone)


# errors


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("resnet19", {}, ValueError, "unknown timm model 'resnet19'; did you mean timm:resnet18?"),
        ("resnet18.a1_in2k", {}, ValueError, "no weights 'resnet18.a1_in2k'; it has resnet18.a1_in1k"),
        ("test_vit", {"depht": 1}, TypeError, "'depht'"),
        ("test_resnet", {"depht": 1}, TypeError, "'depht'"),
        ("test_efficientnet", {"depht": 1}, TypeError, "'depht'"),
        ("swin_tiny_patch4_window7_224", {"depht": 1}, TypeError, "'depht'"),
        ("test_vit", {"num_heads": 7}, TypeError, "divisible by num_heads"),
        ("test_resnet", {"pretrained": True}, TypeError, "no option 'pretrained': give init: timm:NAME"),
        ("test_resnet", {"num_classes": 3}, TypeError, "a backbone has no classifier"),
        ("vit_small_patch14_dinov2", {"depth": 1}, ValueError, "14 px, which do not divide image_size=32"),
    ],
)
def test_what_cannot_be_built_says_what_to_write(name, options, error, words) -> None:
    with pytest.raises(error) as caught:
        made(name, **options)
    assert words in str(caught.value)


def test_a_network_of_one_size_refuses_local_crops() -> None:
    backbone = made("coat_lite_tiny", serial_depths=(1, 1, 1, 1))
    assert backbone(random(1, 3, 32, 32)).shape == (1, backbone.out_dim)
    with pytest.raises(ValueError, match=r"CoaT takes images of 32 px alone, got 16x16; .* two sizes"):
        backbone(random(1, 3, 16, 16))


# in methods and benches


@pytest.mark.parametrize(("name", "options"), [("test_resnet", {}), ("test_vit", {"depth": 1})])
def test_dino_keeps_its_contract_on_timms_networks(name, options) -> None:
    ran = check_method(
        method_class("dino"), made(name, **options), out_dim=32, hidden_dim=16, bottleneck_dim=8
    )
    assert len(ran) > 5


CROPS = {"global_views": [{"size": 224, "scale": [0.4, 1]}] * 2, "local_count": 1}
MULTI_CROP = {**CROPS, "local": {"size": 96, "scale": [0.05, 0.4]}}
DINO = {"method": "dino", "views": MULTI_CROP, "out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8}


def planned(backbone):
    fields = {"methods": [DINO], "dataset": "digits", "batch_size": 8, "budget": {"steps": 1}}
    return plan(load(fields={**fields, "image_size": 32, "backbone": backbone}))


def test_local_crops_are_whole_patches() -> None:
    cell = planned({"name": "timm:test_vit", "depth": 1}).cells[-1]
    assert cell.options["views"]["local"]["size"] == 16  # 32 * 96 / 224 = 13.7 in patches of 16
    assert cell.shared.backbone.name == "timm:test_vit"


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("timm:test_convnext", "timm:test_convnext does not take crops of 12 px; change image_size"),
        ({"name": "timm:coat_lite_tiny", "serial_depths": [1, 1, 1, 1]}, "a backbone that takes two sizes"),
        ({"name": "timm:test_vit", "depht": 1}, "'depht'"),
        ({"name": "resnet8", "depht": 1}, "'depht'"),
    ],
)
def test_a_backbone_that_does_not_fit_is_an_error_of_the_plan(backbone, words) -> None:
    with pytest.raises(ValueError, match="backbone") as caught:
        planned(backbone)
    assert words in str(caught.value)


def test_a_method_that_needs_tokens_says_so_in_the_plan() -> None:
    import_module("probes.mae")
    fields = {"methods": ["mae"], "dataset": "digits", "backbone": "resnet8", "budget": {"steps": 1}}
    with pytest.raises(ValueError, match="mae needs a TokenBackbone, resnet8 is none; give one such as vit"):
        plan(load(fields=fields))
