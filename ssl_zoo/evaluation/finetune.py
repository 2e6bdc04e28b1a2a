"""Fine-tuning: the encoder and a linear head trained together on the labelled images."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from ssl_zoo.batch_norm import group_batch_norms
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import train_views
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.draws import seed_from
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import check_labelled, top_accuracy
from ssl_zoo.evaluation.linear import balanced_accuracy
from ssl_zoo.method import Augment, ViewSpec
from ssl_zoo.nets import Backbone
from ssl_zoo.optim import OptimConfig, create_optimizer, set_schedule, split_by_decay

_EPOCHS = 20
_FEWEST_STEPS = 500  # so that 300 images are seen often enough
_MOST_STEPS = 4_000  # so that 50,000 do not take forever


def finetune(
    encoder: Encoder | Backbone,
    train: Split,
    test: Split,
    *,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float = 1e-3,
    seed: int = 0,
    flip: bool = True,
    device: str = "auto",
    workers: int | None = None,
) -> dict[str, float]:
    """Train a copy of the encoder with a linear head on all of `train`; returns accuracies on `test`.

    `finetune_top1`, `finetune_top5` and `finetune_balanced_accuracy` are shares in [0, 1]. AdamW in float32
    on random crops, mirrored if `flip`; nothing is chosen, and `test` is read once, after the last step.
    `epochs` None: 20, but at least 500 and at most 4,000 steps; `batch_size` None: 128, at most a quarter of
    the images. The same seed gives the same numbers; the encoder itself does not change. An `Encoder` resizes
    the images, a backbone takes their own size; photos are decoded by `workers` processes.
    Raises ValueError for missing labels, labels of one class or splits of different classes,
    FloatingPointError when the loss is no longer finite.
    """
    train_y, test_y = check_labelled(train, test)
    classes = len(train.classes)
    if not isinstance(encoder, Encoder):
        encoder = Encoder(encoder, train.largest_side)
    batch_size = batch_size or max(2, min(128, len(train) // 4))
    total = _steps(epochs, len(train), batch_size)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)

    view = Augment(encoder.image_size, scale=(0.5, 1.0), flip=0.5 if flip else 0.0, jitter_p=0.0, gray_p=0.0)
    collate = MultiCropCollate(ViewSpec(global_views=(view,)), seed)
    sampler = Sampler(len(train), batch_size, seed)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(seed_from(seed, 0))
        model = nn.Sequential(copy.deepcopy(encoder.backbone), nn.Linear(encoder.out_dim, classes))
        model.requires_grad_(True)  # a teacher's weights had none
        group_batch_norms(model, 1)  # a method may have split them
        model.to(place).to(memory_format=torch.channels_last).train()
        config = OptimConfig(lr=lr, weight_decay=0.05, warmup_fraction=0.1)
        optimizer = create_optimizer(split_by_decay(model.named_parameters()), config)
        steps = range(total)
        loaded = train_views(train, sampler, collate, steps, device=place, workers=workers)
        for step, views in zip(steps, loaded, strict=True):
            torch.manual_seed(seed_from(seed, 1, step))  # dropout
            set_schedule(optimizer, config, step, total)
            labels = train_y[views.index.cpu()].to(place)
            with torch.autocast(place.type, enabled=False):
                loss = F.cross_entropy(model(encoder.from_views(views.global_crops[0])), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss of fine-tuning is {float(loss.detach())}; lower lr={lr:g}")

    scores = extract(
        model,
        test.images,
        image_size=encoder.image_size,
        device=place,
        workers=workers,
        mean=encoder.mean,
        std=encoder.std,
    )
    return {
        "finetune_top1": top_accuracy(scores, test_y, 1, floor=-torch.inf),
        "finetune_top5": top_accuracy(scores, test_y, 5, floor=-torch.inf),
        "finetune_balanced_accuracy": balanced_accuracy(scores, test_y),
    }


def _steps(epochs: float | None, images: int, batch_size: int) -> int:
    if epochs is not None:
        return max(1, round(epochs * images / batch_size))
    return min(max(_EPOCHS * images // batch_size, _FEWEST_STEPS), _MOST_STEPS)
