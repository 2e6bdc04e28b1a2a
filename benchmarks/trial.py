"""One run of a study: a method trained with given options, and its scores on the selection split."""

import dataclasses
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo import create_backbone, create_dataset, create_method, fit
from ssl_zoo.bench.budget import measure
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.data.splits import Roles, roles
from ssl_zoo.draws import seed_from
from ssl_zoo.evaluation.collapse import feature_std, rankme
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import top_accuracy, weighted_knn
from ssl_zoo.evaluation.linear import ridge_top1
from ssl_zoo.method import Method, MethodConfig, ViewSpec
from ssl_zoo.registry import method_class

LOCAL_SCALE = (0.08, 0.4)  # share of the image that a local crop shows


@dataclass(frozen=True)
class Run:
    """One training: `options` are fields of the method's configuration, `budget` is in images seen.

    It learns from the first `subset` images of the first `classes` classes (None: all); `test` asks for the
    score on the test images as well.
    """

    label: str
    method: str
    options: dict[str, Any]
    seed: int = 0
    budget: int = 40_000
    batch_size: int = 128
    dataset: str = "cifar10"
    backbone: str = "resnet8"
    backbone_options: dict[str, Any] = field(default_factory=lambda: {"width": 16})
    subset: int | None = None
    classes: int | None = None
    test: bool = False


def configure(
    run: Run, default: MethodConfig, size: int, *, grey: bool = False, flip: bool = True
) -> MethodConfig:
    """The method's configuration: its defaults with the run's options, for images of `size` px."""
    parts: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in run.options.items():
        part, _, option = name.rpartition(".")
        parts[part][option] = value
    views = adapt(_views(default.views, **parts["views"]), size, grey=grey, flip=flip)
    optim = {**default.optim.model_dump(), **parts["optim"]}
    return type(default)(**{**default.model_dump(), **parts[""], "optim": optim, "views": views})


def _views(
    spec: ViewSpec, smallest: float | None = None, local_count: int = 0, local_size: int = 16
) -> ViewSpec:
    views = spec.global_views
    if smallest is not None:
        views = tuple(dataclasses.replace(view, scale=(smallest, 1.0)) for view in views)
    local = dataclasses.replace(views[0], size=local_size, scale=LOCAL_SCALE) if local_count else None
    return ViewSpec(views, local, local_count)


def execute(run: Run) -> dict[str, Any]:
    """Train on one thread, then score."""
    torch.set_num_threads(1)
    dataset, parts = _load(run.dataset)
    if run.classes is not None:
        parts = _first_classes(parts, run.classes)
    pretrain = parts.pretrain if run.subset is None else parts.pretrain.take(torch.arange(run.subset))
    size = pretrain.largest_side
    default = method_class(run.method).Config()
    config = configure(run, default, size, grey=pretrain.grey, flip=dataset.flip).for_data(len(pretrain))
    cost = measure(
        _build(run, config, size), pretrain, torch.device("cpu"), "fp32", run.batch_size, threads=1
    )
    method, began = _build(run, config, size), time.process_time()
    try:
        fitted = fit(
            method,
            pretrain,
            budget={"images": run.budget},
            batch_size=run.batch_size,
            seed=run.seed,
            device="cpu",
            precision="fp32",
        )
    except FloatingPointError:
        return {"status": "diverged", "config": config.model_dump(mode="json")}
    return {
        "status": "done",
        "steps": fitted.steps,
        "train_flops": cost.step.flops * fitted.steps,
        "cpu_seconds": round(time.process_time() - began, 1),  # wall time would count pauses
        "final_metrics": fitted.metrics,
        "config": config.model_dump(mode="json"),
        **_score(method.encoder, parts, test=run.test),
    }


@lru_cache(maxsize=1)
def _load(name: str) -> tuple[Dataset, Roles]:
    dataset = create_dataset(name)
    return dataset, roles(dataset)


def _first_classes(parts: Roles, classes: int) -> Roles:
    """The parts with images of the first `classes` classes only."""

    def of(split: Split) -> Tensor:
        assert split.labels is not None
        return split.labels < classes

    pretrain, test = (part.take(of(part).nonzero().flatten()) for part in (parts.pretrain, parts.test))
    folds = [tuple(part[of(parts.train)[part]] for part in fold) for fold in parts.folds]
    return dataclasses.replace(parts, pretrain=pretrain, test=test, folds=folds)


def _build(run: Run, config: MethodConfig, size: int) -> Method:
    """The method, whose backbone depends on the seed alone, as in a bench."""
    torch.manual_seed(seed_from(run.seed, 0))
    backbone = create_backbone(run.backbone, size, **run.backbone_options)
    torch.manual_seed(seed_from(run.seed, 1))
    fields = {name: getattr(config, name) for name in type(config).model_fields}
    return create_method(run.method, backbone, **fields)


def _score(encoder: nn.Module, parts: Roles, *, test: bool) -> dict[str, float]:
    """k-NN (k = 20) and ridge regression on the selection images, banked on the rest of train.

    With `test` the test images, banked on all of train, as well.
    """

    def embed(split: Split) -> tuple[Tensor, Tensor]:
        assert isinstance(split.images, Tensor)
        assert split.labels is not None
        return extract(encoder, split.images, image_size=None, device="cpu"), split.labels

    def knn(bank: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor]) -> float:
        votes = weighted_knn(*bank, queries[0], k=20, num_classes=len(parts.train.classes))
        return top_accuracy(votes, queries[1], 1)

    bank, selection = (embed(parts.train.take(part)) for part in parts.folds[0])
    scores = {
        "knn_top1": knn(bank, selection),
        "ridge_top1": ridge_top1(*bank, *selection, len(parts.train.classes)),
        "rankme": rankme(bank[0]),
        "feature_std": feature_std(bank[0]),
    }
    if test:
        whole = tuple(torch.cat(both) for both in zip(bank, selection, strict=True))
        scores["test_knn_top1"] = knn(whole, embed(parts.test))
    return scores
