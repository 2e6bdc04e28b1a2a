"""DINO: a student matches a centred and sharpened momentum teacher across crops (Caron et al. 2021)."""

from ssl_zoo.methods.dino.head import DINOHead
from ssl_zoo.methods.dino.loss import DINOLoss
from ssl_zoo.methods.dino.method import DINO, DINOConfig
from ssl_zoo.methods.dino.official import (
    OfficialCheckpoint,
    export_official_checkpoint,
    load_official_checkpoint,
)

__all__ = [
    "DINO",
    "DINOConfig",
    "DINOHead",
    "DINOLoss",
    "OfficialCheckpoint",
    "export_official_checkpoint",
    "load_official_checkpoint",
]
