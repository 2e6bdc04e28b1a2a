"""How one encoder is evaluated: the same in a bench and after it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from ssl_zoo.bench.maps import save_map
from ssl_zoo.bench.plan import SHARED_VIEWS
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import fitted_images
from ssl_zoo.data.splits import Roles
from ssl_zoo.draws import permutation
from ssl_zoo.evaluation import score
from ssl_zoo.evaluation.attention import attention_maps, has_attention
from ssl_zoo.evaluation.attention_files import Looked, contact_sheet
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.finetune import finetune
from ssl_zoo.evaluation.spread import view_alignment

_QUERIES = 6
_NEIGHBOURS = 6
_THUMB = 48  # px
_WHITE = 255
_TILE = 64  # px
_THRESHOLD = 0.6  # of the attention, as the paper keeps


def assess(
    encoder: Encoder,
    parts: Roles,
    folder: Path,
    *,
    flip: bool,
    knn_k: tuple[int, ...],
    knn_temperature: float,
    finetuned: bool,
    seed: int,
    workers: int | None = None,
) -> dict[str, Any]:
    """Every score of an encoder, where it lies; writes `neighbours.png` and of a ViT `attention.png`.

    The pictures go into `folder`.
    `flip` says whether mirrored images mean the same; `finetuned` asks for `finetune` from `seed` as well;
    photos are decoded by `workers` processes.
    Raises as `score` does.
    """
    train_x, test_x = (encoder.embed(part.images, workers=workers) for part in (parts.train, parts.test))
    scores: dict[str, Any] = {"finetune_top1": None} | score(
        train_x,
        parts.train.labels,
        test_x,
        parts.test.labels,
        folds=parts.folds,
        num_classes=len(parts.train.classes),
        knn_k=knn_k,
        knn_temperature=knn_temperature,
    )
    views = adapt(SHARED_VIEWS, encoder.image_size, grey=parts.test.grey, flip=flip)
    scores["alignment"] = view_alignment(encoder, parts.test, views, workers=workers)
    _save_neighbours(test_x, parts.test, folder / "neighbours.png")
    save_map(test_x, parts.test, folder)
    if has_attention(encoder.backbone):
        _save_attention(encoder, parts.test, folder / "attention.png")
    if finetuned and parts.train.labels is not None:
        device = str(next(encoder.parameters()).device)
        scores |= finetune(
            encoder, parts.train, parts.test, seed=seed, flip=flip, device=device, workers=workers
        )
    return scores


def _save_neighbours(x: Tensor, split: Split, file: Path) -> None:
    """Write a row for each of six fixed images: it, a gap, its nearest others by cosine of `x` [N, D]."""
    queries = permutation(len(split), 0)[:_QUERIES]
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
    queries = permutation(len(split), 0)[:_QUERIES]
    images = fitted_images(split.images, queries, encoder.image_size)
    maps = attention_maps(encoder, images)
    rows = [Looked(str(query), *pair) for query, *pair in zip(queries.tolist(), images, maps, strict=True)]
    contact_sheet(rows, _THRESHOLD, _TILE).save(file)
