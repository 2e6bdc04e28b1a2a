"""MAE: pixels of masked patches from the visible ones (He et al. 2022)."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_zoo.draws import uniform
from ssl_zoo.method import Augment, Method, MethodConfig, Step, StepOutput, Views, ViewSpec
from ssl_zoo.nets import TokenBackbone
from ssl_zoo.optim import OptimConfig
from ssl_zoo.registry import register_method

Size = Annotated[int, Field(ge=1)]


class MAEConfig(MethodConfig):
    """Defaults for small images; `decoder_dim` is a multiple of four."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    decoder_dim: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    decoder_depth: Size = 1
    decoder_heads: Size = 2
    optim: OptimConfig = OptimConfig(lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.95))
    views: ViewSpec = ViewSpec(global_views=(Augment(32, scale=(0.2, 1.0), jitter_p=0.0, gray_p=0.0),))


@register_method("mae")
class MAE(Method):
    """Masked autoencoder (He et al. 2022, CVPR); masks are drawn from `views.key` alone."""

    Config = MAEConfig
    config: MAEConfig
    backbone_type = TokenBackbone

    def __init__(self, backbone: TokenBackbone, config: MAEConfig) -> None:
        super().__init__(backbone, config)
        width = config.decoder_dim
        self.backbone = backbone
        self.to_decoder = nn.Linear(backbone.out_dim, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.decoder = nn.Sequential(
            *[
                nn.TransformerEncoderLayer(
                    width, config.decoder_heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
                )
                for _ in range(config.decoder_depth)
            ],
            nn.LayerNorm(width),
        )
        self.to_pixels = nn.Linear(width, 3 * backbone.patch_size**2)

    @property
    def encoder(self) -> nn.Module:
        return self.backbone

    def forward(self, views: Views, step: Step) -> StepOutput:
        images = views.global_crops.flatten(0, 1)
        target = patchify(images, self.backbone.patch_size)
        order = uniform(views.key.repeat(len(views.global_crops)), target.shape[1]).argsort(1)
        kept = max(1, round(order.shape[1] * (1 - self.config.mask_ratio)))
        tokens = self.backbone.tokens(images, keep=order[:, :kept])

        prefix, visible = self.to_decoder(tokens.prefix), self.to_decoder(tokens.patches)
        hidden = self.mask_token.expand(len(images), order.shape[1] - kept, -1)
        patches = torch.cat([visible, hidden.to(visible.dtype)], dim=1)
        patches = patches.gather(1, order.argsort(1).unsqueeze(-1).expand_as(patches))
        patches = patches + positions(tokens.grid, patches.shape[-1], patches.device)
        decoded = self.decoder(torch.cat([prefix, patches], dim=1))[:, prefix.shape[1] :]
        error = (self.to_pixels(decoded).float() - target).square().mean(-1)
        return StepOutput(error.gather(1, order[:, kept:]).mean(), {})


def patchify(images: Tensor, size: int) -> Tensor:
    """Images [B, 3, H, W] -> patches [B, N, 3 * size^2], each with mean 0 and variance 1."""
    batch, channels, height, width = images.shape
    grid = images.float().reshape(batch, channels, height // size, size, width // size, size)
    patches = grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def positions(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """Fixed sine-cosine embeddings of a grid's rows and columns: [N, dim]."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 4, device=device) / (dim // 4))
    rows, columns = (torch.arange(side, device=device).unsqueeze(1) * frequencies for side in grid)
    rows, columns = rows.repeat_interleave(grid[1], 0), columns.repeat(grid[0], 1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)
