"""What is refused, in its own words: docs/methods shows these messages as they are raised now."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from ssl_zoo import create_backbone, create_dataset, create_method, fit
from ssl_zoo.method import Method
from ssl_zoo.methods.dino import DINO, load_official_checkpoint


def backbone_alone() -> None:
    """Resuming DINO from a file that holds a backbone."""
    method = _small_dino()
    assert isinstance(method, DINO)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "backbone.pth"
        torch.save(method.teacher.module.backbone.net.state_dict(), file)
        load_official_checkpoint(file).load_into(method)


def not_finite() -> None:
    """A learning rate that no float survives."""
    data = create_dataset("digits")
    fit(_small_dino(lr=1e30), data, budget={"steps": 5}, batch_size=8, device="cpu", log_every=1)


def one_size() -> None:
    """Local crops for a network whose positions have one size."""
    create_backbone("timm:mixer_s32_224", 224)(torch.zeros(2, 3, 96, 96))


def odd_patches() -> None:
    """A global crop that is not made of whole patches."""
    create_backbone("vit_tiny", 30)


def _small_dino(lr: float = 1e-3) -> Method:
    torch.manual_seed(0)
    backbone = create_backbone("resnet8", 32, width=8)
    optim = {"lr": lr, "warmup_fraction": 0.0}
    return create_method("dino", backbone, out_dim=64, use_bn=False, optim=optim)


def _raised(refused: Callable[[], None]) -> Callable[[], str]:
    def words() -> str:
        try:
            refused()
        except (ValueError, FloatingPointError) as error:
            return f"{type(error).__name__}: {error}"
        raise AssertionError(f"{refused.__name__} was not refused")

    return words


REFUSALS = {call.__name__: _raised(call) for call in (backbone_alone, not_finite, one_size, odd_patches)}
