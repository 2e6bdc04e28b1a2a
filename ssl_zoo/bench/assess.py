"""How one encoder is evaluated: the same in a bench and after it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from ssl_zoo.bench.cells import PREDICTIONS
from ssl_zoo.bench.maps import save_map
from ssl_zoo.bench.plan import SHARED_VIEWS
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import fitted_images
from ssl_zoo.data.splits import Roles
from ssl_zoo.draws import sample
from ssl_zoo.evaluation.attention import attention_maps, has_attention
from ssl_zoo.evaluation.attention_files import Looked, contact_sheet
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.features import extract_by_ranks
from ssl_zoo.evaluation.finetune import finetune
from ssl_zoo.evaluation.predict import Predictions
from ssl_zoo.evaluation.scores import score
from ssl_zoo.evaluation.spread import view_alignment
from ssl_zoo.evaluation.transfer import evaluate_transfer
from ssl_zoo.files import replace_file

_QUERIES = 6
_NEIGHBOURS = 6
_THUMB = 48  # px
_WHITE = 255
_TILE = 64  # px
_THRESHOLD = 0.6  # of the attention, as the paper keeps


def extract_parts(encoder: Encoder, parts: Roles, workers: int | None = None) -> tuple[Tensor, Tensor]:
    """Features of the images of `train` and `test`, [N, D] and [M, D], which ranks extract together."""
    train_x, test_x = (
        extract_by_ranks(partial(encoder.embed, workers=workers), part.images, encoder.out_dim)
        for part in (parts.train, parts.test)
    )
    return train_x, test_x


def assess(
    encoder: Encoder,
    parts: Roles,
    features: tuple[Tensor, Tensor],
    folder: Path,
    *,
    flip: bool,
    knn_k: tuple[int, ...],
    knn_temperature: float,
    finetuned: bool,
    seed: int,
    mapped: bool = False,
    transfer: Mapping[str, Roles] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Every score of an encoder, where it lies; writes `predictions.npz` and pictures into `folder`.

    `features` are those of `extract_parts`. The arrays, int64 [M] over the test images, are `label`, `knn`
    and `linear`, the classes told, and `group` where there are groups; without labels there is no file. The
    pictures are `neighbours.png` and of a ViT `attention.png`. `flip` says whether mirrored images mean the
    same; `finetuned` asks for `finetune` from `seed` as well, `mapped` for `map.npz`; `transfer` are other
    data sets by name, to classify with the encoder as it is; photos are decoded by `workers` processes.
    Raises as `score` and `evaluate_transfer` do.
    """
    train_x, test_x = features
    test_y = parts.test.labels
    scores, predictions = score(
        train_x,
        parts.train.labels,
        test_x,
        test_y,
        folds=parts.folds,
        num_classes=len(parts.train.classes),
        knn_k=knn_k,
        knn_temperature=knn_temperature,
    )
    if predictions is not None and test_y is not None:
        _save_predictions(predictions, test_y, parts.test.groups, folder / PREDICTIONS)
    views = adapt(SHARED_VIEWS, encoder.image_size, grey=parts.test.grey, flip=flip)
    scores["alignment"] = view_alignment(encoder, parts.test, views, workers=workers)
    _save_neighbours(test_x, parts.test, folder / "neighbours.png")
    if mapped:
        save_map(test_x, parts.test, folder)
    if has_attention(encoder.backbone):
        _save_attention(encoder, parts.test, folder / "attention.png")
    scores["transfer"] = {
        name: evaluate_transfer(encoder, other, knn_k=knn_k, knn_temperature=knn_temperature, workers=workers)
        for name, other in (transfer or {}).items()
    } or None
    scores["finetune_top1"] = None
    if finetuned and parts.train.labels is not None:
        device = str(next(encoder.parameters()).device)
        scores |= finetune(
            encoder, parts.train, parts.test, seed=seed, flip=flip, device=device, workers=workers
        )
    return scores


def _save_predictions(predictions: Predictions, labels: Tensor, groups: Tensor | None, file: Path) -> None:
    told = {"label": labels, "knn": predictions.knn, "linear": predictions.linear}
    arrays: dict[str, Any] = told if groups is None else {**told, "group": groups}
    replace_file(file, lambda handle: np.savez_compressed(handle, **arrays))


def _save_neighbours(x: Tensor, split: Split, file: Path) -> None:
    """Write a row for each of six fixed images: it, a gap, its nearest others by cosine of `x` [N, D]."""
    queries = sample(torch.arange(len(split)), _QUERIES)
    count = min(_NEIGHBOURS, len(split) - 1)
    if count < 1:
        return
    x = F.normalize(x)
    similarity = (x[queries] @ x.T).scatter(1, queries[:, None], -torch.inf)
    nearest = similarity.topk(count).indices
    thumbs = fitted_images(split.images, torch.cat([queries, nearest.flatten()]), _THUMB)
    left, right = (
        make_grid(part, nrow=columns, pad_value=_WHITE)
        for part, columns in ((thumbs[: len(queries)], 1), (thumbs[len(queries) :], count))
    )
    gap = torch.full((3, left.shape[1], _THUMB // 4), _WHITE, dtype=torch.uint8)
    to_pil_image(torch.cat([left, gap, right], 2)).save(file)


def _save_attention(encoder: Encoder, split: Split, file: Path) -> None:
    """Write a row for each image that `_save_neighbours` asks for: it, and what the encoder looks at."""
    queries = sample(torch.arange(len(split)), _QUERIES)
    images = fitted_images(split.images, queries, encoder.image_size)
    maps = attention_maps(encoder, images)
    rows = [Looked(str(query), *pair) for query, *pair in zip(queries.tolist(), images, maps, strict=True)]
    contact_sheet(rows, _THRESHOLD, _TILE).save(file)
