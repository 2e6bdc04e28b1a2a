"""Backbones: widths, stems for small images, tokens, masks and position embeddings."""

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.backbones import create_backbone, list_backbones
from ssl_zoo.backbones.vit import ViT
from ssl_zoo.batch_norm import batch_statistics_only
from ssl_zoo.nets import Branch, cross_view_pairs, each_view


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vit(image_size: int = 32, **options) -> ViT:
    torch.manual_seed(0)
    net = ViT(image_size, **{"dim": 24, "heads": 2, "depth": 2, **options})
    nn.init.normal_(net.net.cls_token)
    return net


# Backbones by name


@pytest.mark.parametrize(
    ("name", "width"),
    {
        "resnet8": 256,
        "resnet18": 512,
        "resnet34": 512,
        "resnet50": 2048,
        "vit_tiny": 192,
        "vit_small": 384,
        "vit_base": 768,
    }.items(),
)
def test_backbone_states_its_width(name: str, width: int) -> None:
    small = {"depth": 1} if name.startswith("vit") else {}
    backbone = create_backbone(name, image_size=32, **small).eval()
    assert backbone.out_dim == width
    with torch.no_grad():
        assert backbone(random(1, 3, 32, 32)).shape == (1, width)


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'resnet81'; did you mean 'resnet8'"):
        create_backbone("resnet81")
    assert {"resnet8", "resnet18", "vit_small"} <= set(list_backbones())


def test_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="depht"):
        create_backbone("vit_tiny", 32, depht=1)


def test_weights_come_from_torchs_generator() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(create_backbone("resnet8", width=4).net[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# Residual networks


@pytest.mark.parametrize(("pixels", "stem", "final"), [(32, 3, 4), (64, 3, 8), (96, 7, 3)])
def test_resnet_keeps_a_map_of_small_images(pixels: int, stem: int, final: int) -> None:
    backbone = create_backbone("resnet18", image_size=pixels).eval()
    maps = []
    backbone.net.layer4.register_forward_hook(lambda *arguments: maps.append(arguments[2].shape))
    with torch.no_grad():
        backbone(random(1, 3, pixels, pixels))
    assert backbone.net.conv1.kernel_size == (stem, stem)
    assert maps == [(1, 512, final, final)]
    assert isinstance(backbone.net.maxpool, nn.Identity) == (pixels <= 64)


def test_resnet8_has_three_blocks_of_growing_width() -> None:
    backbone = create_backbone("resnet8", width=6)
    maps = []
    for block in backbone.net[3:6]:
        block.register_forward_hook(lambda *arguments: maps.append(tuple(arguments[2].shape)))
    backbone(random(2, 3, 32, 32))
    assert maps == [(2, 6, 16, 16), (2, 12, 8, 8), (2, 24, 4, 4)]
    assert backbone.out_dim == 24


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_gradients_reach_all_of_a_resnet(name: str) -> None:
    backbone = create_backbone(name, 32)
    backbone(random(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in backbone.parameters())


# Vision transformers


@pytest.mark.parametrize(
    ("pixels", "patch_size", "shape", "grid"),
    [
        (32, None, (32, 32), (8, 8)),
        (96, None, (96, 96), (6, 6)),
        (32, 8, (32, 32), (4, 4)),
        (32, None, (16, 16), (4, 4)),
        (32, 8, (16, 40), (2, 5)),
    ],
)
def test_tokens_of_any_size(pixels: int, patch_size: int | None, shape: tuple, grid: tuple) -> None:
    net = vit(pixels, patch_size=patch_size)
    tokens = net.tokens(random(2, 3, *shape))
    assert tokens.prefix.shape == (2, 1, 24)
    assert tokens.patches.shape == (2, grid[0] * grid[1], 24)
    assert tokens.grid == grid
    assert net.patch_size == shape[0] // grid[0]
    assert torch.equal(net(random(2, 3, *shape)), tokens.prefix[:, 0])


def test_patch_size_must_divide_the_image() -> None:
    with pytest.raises(ValueError, match="patch_size=5 does not divide image_size=32; give one that does"):
        vit(patch_size=5)


def test_keeping_all_patches_equals_keeping_none_out() -> None:
    net, x = vit().eval(), random(2, 3, 32, 32)
    full = net.tokens(x)
    order = torch.stack([torch.randperm(64, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    for keep in (torch.arange(64).expand(2, -1), order):
        tokens = net.tokens(x, keep=keep)
        torch.testing.assert_close(tokens.prefix, full.prefix, rtol=1e-4, atol=1e-5)
        expected = torch.stack([full.patches[i, keep[i]] for i in range(2)])
        torch.testing.assert_close(tokens.patches, expected, rtol=1e-4, atol=1e-5)


def test_only_kept_patches_are_seen() -> None:
    net, x = vit(patch_size=8).eval(), random(1, 3, 32, 32)
    changed = x.clone()
    changed[..., :8, :8] += 1  # patch 0
    keep = torch.tensor([[3, 7, 1]])
    assert torch.equal(net.tokens(x, keep=keep).patches, net.tokens(changed, keep=keep).patches)
    assert net.tokens(x, keep=keep).patches.shape == (1, 3, 24)
    assert not torch.equal(net(x), net(changed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_masked_patches_are_replaced_by_the_mask_token(layout: torch.memory_format) -> None:
    net, x = vit(patch_size=8).to(memory_format=layout).eval(), random(2, 3, 32, 32)
    x = x.contiguous(memory_format=layout)
    changed, mask = x.clone(), torch.zeros(2, 16, dtype=torch.bool)
    changed[0, :, :8, :8] += 1  # patch 0
    changed[1, :, 8:16, 24:] += 1  # patch 7
    mask[0, 0] = mask[1, 7] = True
    masked = net.tokens(x, mask=mask)
    assert torch.equal(masked.patches, net.tokens(changed, mask=mask).patches)
    assert masked.patches.shape == (2, 16, 24)
    torch.testing.assert_close(net.tokens(x, mask=torch.zeros_like(mask)).patches, net.tokens(x).patches)
    nn.init.ones_(net.mask_token)
    assert not torch.equal(masked.patches, net.tokens(x, mask=mask).patches)


def test_position_embeddings_are_interpolated_to_small_crops() -> None:
    net = vit().eval()
    embeddings = net.net.pos_embed
    patches = torch.zeros(1, 4, 4, 24)
    with torch.no_grad():
        embeddings[:, 0] = 5.0
        embeddings[:, 1:] = torch.arange(8.0).repeat_interleave(8).view(64, 1)  # the row of each patch
        small = net.net._pos_embed(patches)[0, 1:].view(4, 4, 24)
        full = net.net._pos_embed(torch.zeros(1, 8, 8, 24))[0, 1:]
    assert torch.equal(full, embeddings[0, 1:])
    torch.testing.assert_close(small, small[:, :1, :1].expand(4, 4, 24))  # constant along columns
    rows = torch.tensor([0.5, 2.5, 4.5, 6.5])  # centres of pairs of rows; borders bend a little
    torch.testing.assert_close(small[:, 0, 0], rows, rtol=0, atol=0.15)


def test_gradients_reach_all_of_a_vit_but_the_mask_token() -> None:
    net = vit()
    net(random(2, 3, 32, 32)).square().sum().backward()
    unreached = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert unreached == ["mask_token"]
    assert not net.mask_token.requires_grad
    assert not net.mask_token.any()


def test_mask_token_learns_where_a_method_wants_it() -> None:
    net = vit(patch_size=8)
    net.mask_token.requires_grad_(True)
    net.tokens(random(2, 3, 32, 32), mask=torch.eye(16, dtype=torch.bool)[:2]).patches.sum().backward()
    assert net.mask_token.grad is not None


# What methods share


@pytest.mark.parametrize(
    ("targets", "students", "pairs"),
    [(2, 2, [(0, 1), (1, 0)]), (2, 3, [(0, 1), (0, 2), (1, 0), (1, 2)])],
)
def test_cross_view_pairs_leave_the_same_view_out(targets: int, students: int, pairs: list) -> None:
    assert cross_view_pairs(targets, students) == pairs
    assert len(cross_view_pairs(2, 10)) == 18
    with pytest.raises(ValueError, match="give two global_views"):
        cross_view_pairs(1, 1)


def test_each_view_is_its_own_batch() -> None:
    norm, views = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12, affine=False)), random(3, 8, 3, 2, 2)
    out = each_view(norm, views[:2] + 5, views[2:])
    torch.testing.assert_close(out.mean(1), torch.zeros(3, 12), atol=1e-6, rtol=0)
    assert norm[1].num_batches_tracked == 2


def test_batch_statistics_only_restores_what_it_found() -> None:
    tracked, untracked = nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)
    with batch_statistics_only(nn.Sequential(tracked, untracked)):
        assert not tracked.track_running_stats
    assert tracked.track_running_stats
    assert not untracked.track_running_stats


def test_branch_is_backbone_then_head() -> None:
    backbone, head, x = create_backbone("resnet8", width=4).eval(), nn.Linear(16, 5), random(2, 3, 32, 32)
    torch.testing.assert_close(Branch(backbone, head)(x), head(backbone(x)))
