"""Vision transformers through timm, for any image and patch size."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_zoo.nets import TokenBackbone, Tokens


class TimmViT(TokenBackbone):
    """A VisionTransformer of timm, built with `dynamic_img_size=True` and without classifier.

    Features are what its own pooling gives. Position embeddings are interpolated to each crop's grid.
    `mask_token` [D] is frozen at zero until a method that masks patches sets `requires_grad`.
    """

    net: VisionTransformer

    def __init__(self, net: VisionTransformer) -> None:
        super().__init__()
        self.net = net
        self.out_dim = net.head_hidden_size
        self.patch_size = net.patch_embed.feat_ratio()
        self.mask_token = nn.Parameter(torch.zeros(net.embed_dim), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x)
        return features

    def tokens(self, x: Tensor, *, mask: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
        patches: Tensor = self.net.patch_embed(x)  # [B, h, w, D]
        height, width = patches.shape[1:3]
        if mask is not None:
            patches = torch.where(mask.view(-1, height, width, 1), self.mask_token.to(patches.dtype), patches)
        out: Tensor = self.net._pos_embed(patches)
        prefix = self.net.num_prefix_tokens
        if keep is not None:
            chosen = out[:, prefix:].gather(1, keep.unsqueeze(-1).expand(-1, -1, out.shape[-1]))
            out = torch.cat([out[:, :prefix], chosen], dim=1)
        out = self.net.norm(self.net.blocks(self.net.norm_pre(out)))
        return Tokens(out[:, :prefix], out[:, prefix:], (height, width))


class ViT(TimmViT):
    """A plain ViT with the class token as features; `patch_size` is 4 up to 64 px and 16 above unless given.

    Raises ValueError if `patch_size` does not divide the image.
    """

    def __init__(
        self,
        image_size: int,
        dim: int,
        heads: int,
        depth: int = 12,
        patch_size: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        patch_size = patch_size or (4 if image_size <= 64 else 16)
        if image_size % patch_size:
            raise ValueError(
                f"patch_size={patch_size} does not divide image_size={image_size}; give one that does"
            )
        super().__init__(
            VisionTransformer(
                img_size=image_size,
                patch_size=patch_size,
                embed_dim=dim,
                depth=depth,
                num_heads=heads,
                num_classes=0,
                drop_path_rate=drop_path,
                dynamic_img_size=True,
            )
        )
