"""Vision transformers through timm, for any image and patch size."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_zoo.nets import TokenBackbone, Tokens


class ViT(TokenBackbone):
    """timm's ViT with the class token as features; position embeddings are interpolated to each crop's grid.

    `patch_size` is 4 up to 64 px and 16 above unless given. `mask_token` [D] is frozen at zero until a method
    that masks patches sets `requires_grad`. Raises ValueError if `patch_size` does not divide the image.
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
        super().__init__()
        patch_size = patch_size or (4 if image_size <= 64 else 16)
        if image_size % patch_size:
            raise ValueError(
                f"patch_size={patch_size} does not divide image_size={image_size}; give one that does"
            )
        self.out_dim = dim
        self.patch_size = patch_size
        self.net = VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            drop_path_rate=drop_path,
            dynamic_img_size=True,
        )
        self.mask_token = nn.Parameter(torch.zeros(dim), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x).prefix[:, 0]

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
