"""What a ViT looks at: its attention, the patches that get most of it, and their overlap with the truth."""

from typing import Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock
from torch import Tensor, nn

from ssl_zoo.backbones.external import TimmEva
from ssl_zoo.backbones.vit import TimmViT
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.features import evaluating, to_input
from ssl_zoo.nets import Backbone

_SOFTMAX = (Attention, AttentionRope, EvaAttention, ParallelScalingBlock)  # with one softmax over all tokens


def has_attention(backbone: Backbone) -> bool:
    """Whether `attention` can be read from the last block of `backbone`."""
    return isinstance(backbone, TimmViT | TimmEva) and len(_softmaxes(backbone.net.blocks[-1])) == 1


def attention(backbone: Backbone, x: Tensor, layer: int = -1) -> Tensor:
    """Attention weights [B, heads, T, T] of block `layer` for input images [B, 3, H, W]; a row sums to 1.

    T counts class token and registers first, then patches row by row. Computed by the block itself, which for
    this call is not fused. Raises ValueError for a backbone without such blocks, or without block `layer`.
    """
    if not isinstance(backbone, TimmViT | TimmEva):
        name = type(backbone.net).__name__
        raise ValueError(
            f"the attention of a {name}, if it has any, cannot be read; what fits is timm's "
            "VisionTransformer or Eva: vit_tiny, vit_small, vit_base, or timm:NAME of a ViT, DeiT, EVA-02 or "
            "DINOv3"
        )
    blocks = backbone.net.blocks
    if not -len(blocks) <= layer < len(blocks):
        raise ValueError(f"layer={layer}: there are {len(blocks)} blocks; give 0 to {len(blocks) - 1}, or -1")
    modules = _softmaxes(blocks[layer])
    if len(modules) != 1:
        raise ValueError(
            f"{type(blocks[layer]).__name__} has no single softmax over its tokens; give a plain ViT"
        )
    module, weights = modules[0], list[Tensor]()
    fused, module.fused_attn = module.fused_attn, False
    hook = module.attn_drop.register_forward_pre_hook(lambda _, inputs: weights.append(inputs[0]))
    try:
        with evaluating(backbone), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            backbone.net.forward_features(x)
    finally:
        hook.remove()
        module.fused_attn = fused
    return weights[0]


def attention_maps(encoder: Encoder, images: Tensor, layer: int = -1) -> Tensor:
    """How much of the class token's attention each patch gets: [N, heads, h, w] of images uint8 [N, C, H, W].

    Sides are whole patches. The rest up to 1 falls on the class token and registers. Of a ViT without class
    token it is the mean over the queries of all patches, which is what its pooled features are made of.
    Raises as `attention`.
    """
    backbone = encoder.backbone
    x = to_input(images, None, encoder.mean, encoder.std).to(next(encoder.parameters()).device)
    weights = attention(backbone, x, layer)
    assert isinstance(backbone, TimmViT | TimmEva)  # else there would be no weights
    prefix = backbone.net.num_prefix_tokens
    query = weights[:, :, prefix:].mean(2) if backbone.net.cls_token is None else weights[:, :, 0]
    rows, columns = (side // backbone.patch_size for side in x.shape[-2:])
    maps: Tensor = query[:, :, prefix:].cpu()
    return maps.view(*maps.shape[:2], rows, columns)


def mass_mask(maps: Tensor, threshold: float = 0.6) -> Tensor:
    """The heaviest patches, which together hold the share `threshold` of a map's mass: bool [..., h, w].

    As visualize_attention.py of facebookresearch/dino: sort, keep where the cumulated share exceeds
    1 - threshold, undo the sort. Raises ValueError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold:g}; give the share of the mass to keep, such as 0.6")
    values, order = maps.flatten(-2).sort(-1)
    kept = (values / values.sum(-1, keepdim=True)).cumsum(-1) > 1 - threshold
    kept[..., -1] = True  # also where rounding hides so small a share
    return kept.gather(-1, order.argsort(-1)).view_as(maps)


def jaccard(masks: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union [...] of `masks` and `truth`, bool [..., H, W]; 1 where both are empty."""
    both = (masks & truth).sum((-2, -1))
    either = (masks | truth).sum((-2, -1))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def _softmaxes(block: nn.Module) -> list[Any]:
    return [module for module in block.modules() if isinstance(module, _SOFTMAX)]
