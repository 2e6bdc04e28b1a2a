"""BYOL: an online network predicts its momentum target's projection of another view (Grill et al. 2020)."""

from ssl_zoo.methods.byol.method import BYOL, BYOLConfig

__all__ = ["BYOL", "BYOLConfig"]
