"""Image files that tests draw."""

import os
from pathlib import Path

import numpy as np
from PIL import Image


def draw(path: Path, number: int, side: int = 8, *, grey: bool = False) -> Path:
    """A PNG of noise: one `number`, one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side) if grey else (side, side, 3)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(path, "PNG")
    return path


def draw_classes(root: Path, counts: dict[str, int], start: int = 0, **options) -> None:
    """`root/<name>/<i>.png`, every picture another one."""
    for name, count in counts.items():
        for index in range(count):
            draw(root / name / f"{index}.png", start + index, **options)
        start += count


def draw_flat(root: Path, count: int, start: int = 0, **options) -> None:
    for index in range(count):
        draw(root / f"{index:03}.png", start + index, **options)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, path)
