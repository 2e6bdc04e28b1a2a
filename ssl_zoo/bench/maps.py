"""The map of a cell's features, and one sheet of thumbnails for the maps of all cells."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import fitted_images
from ssl_zoo.evaluation.projection import map_index, project
from ssl_zoo.files import replace_file

MAP, THUMBNAILS = "map.npz", "thumbnails.jpg"
THUMB = 32  # px
COLUMNS = 50
_SHEET_BYTES = 600_000


def save_map(x: Tensor, split: Split, cell: Path) -> None:
    """Write `map.npz` into the folder of a cell, and `thumbnails.jpg` into its bench where it is not there.

    `x` [N, D] are the features of the images of `split`. The
    map holds `index` [M] into the split, `label` [M], -1 without labels, `pca` and `tsne` [M, 2] and the
    names of the `classes`.
    """
    index = map_index(len(split))
    pca, tsne = project(x[index])
    labels = torch.full_like(index, -1) if split.labels is None else split.labels[index]
    arrays = {"index": index, "label": labels, "pca": pca, "tsne": tsne}
    held: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
    held["classes"] = np.array(split.classes, dtype=np.str_)
    replace_file(cell / MAP, lambda handle: np.savez_compressed(handle, **held))
    _save_thumbnails(split, index, cell.parent.parent / THUMBNAILS)


def _save_thumbnails(split: Split, index: Tensor, file: Path) -> None:
    """Write the images at `index` in rows of 50, in the best quality that stays below 600 kB.

    A file that shows the same images is left as it is: decoding photos takes time.
    """
    if file.is_file():
        with Image.open(file) as known:
            if known.info.get("comment") == split.fingerprint.encode():
                return
    sheet = to_pil_image(make_grid(fitted_images(split.images, index, THUMB), nrow=COLUMNS, padding=0))
    for quality in (90, 75, 60, 40, 20):
        encoded = BytesIO()
        sheet.save(encoded, "JPEG", quality=quality, comment=split.fingerprint)
        if encoded.tell() <= _SHEET_BYTES:
            break
    replace_file(file, lambda handle: handle.write(encoded.getvalue()))
