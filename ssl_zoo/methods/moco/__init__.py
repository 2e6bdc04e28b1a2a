"""MoCo v2: contrast against a queue of momentum-encoder keys (He et al. 2020; Chen et al. 2020)."""

from ssl_zoo.methods.moco.method import MoCo, MoCoConfig

__all__ = ["MoCo", "MoCoConfig"]
