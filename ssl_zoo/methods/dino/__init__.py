"""DINO: a student matches a centred and sharpened momentum teacher across crops (Caron et al. 2021)."""

from ssl_zoo.methods.dino.head import DINOHead
from ssl_zoo.methods.dino.loss import DINOLoss
from ssl_zoo.methods.dino.method import DINO, DINOConfig

__all__ = ["DINO", "DINOConfig", "DINOHead", "DINOLoss"]
