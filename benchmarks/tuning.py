"""Random search for defaults at 32 px: as many trials for each method, all scored on the selection split.

SSL_ZOO_DATA=FOLDER python benchmarks/tuning.py search
Each run is a line of `results/tuning/STUDY.jsonl`; a run that is there is not run again, so that the same
command continues a study that was interrupted.
"""

import dataclasses
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from scipy.stats import loguniform
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import ParameterSampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ssl_zoo import create_backbone, create_dataset, create_method, fit
from ssl_zoo.bench.budget import measure
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.splits import roles
from ssl_zoo.draws import seed_from
from ssl_zoo.evaluation.collapse import feature_std, rankme
from ssl_zoo.evaluation.features import extract
from ssl_zoo.evaluation.knn import top_accuracy, weighted_knn
from ssl_zoo.method import Method, MethodConfig, ViewSpec
from ssl_zoo.registry import method_class

FOLDER = Path(__file__).parent / "results" / "tuning"
TRIALS = 13  # of each method, the first of them its defaults
STATE = 4  # of the first eight the one that draws DINO's two-valued fields evenly; set before the first run
METHODS = ("dino", "byol", "moco")

_MOMENTA = [0.95, 0.97, 0.98, 0.99, 0.996]
_SHARED = {
    "optim.clip": [None, 1.0, 3.0],
    "views.smallest": [0.08, 0.14, 0.25, 0.4],  # share of the image that a global crop shows at least
}
_ADAMW = {
    "optim.name": ["adamw"],
    "optim.lr": loguniform(1e-3, 1e-2),
    "optim.weight_decay": [0.01, 0.04, 0.1],
    "optim.weight_decay_end": [None, 0.4],
}
_SGD = {
    "optim.name": ["sgd"],
    "optim.lr": loguniform(0.03, 0.5),
    "optim.weight_decay": [1e-4, 5e-4],
    "optim.weight_decay_end": [None],
}
_OWN: dict[str, dict[str, list[Any]]] = {
    "dino": {
        "out_dim": [512, 1024, 2048, 4096],
        "bottleneck_dim": [64, 256],
        "use_bn": [True, False],
        "centering": ["mean", "sinkhorn"],
        "teacher_momentum": _MOMENTA,
        "teacher_temperature": [0.04, 0.05, 0.06, 0.07],
        "teacher_temperature_warmup_fraction": [0.0, 0.3],  # from 0.04
        "views.local_count": [0, 0, 2, 4],
        "views.local_size": [16, 20],
    },
    "byol": {
        "hidden_dim": [256, 512, 1024],
        "out_dim": [64, 128, 256],
        "target_momentum": _MOMENTA,
    },
    "moco": {
        "out_dim": [64, 128, 256],
        "temperature": [0.07, 0.1, 0.2, 0.3],
        "key_momentum": _MOMENTA,
        "queue_size": [1024, 4096, 16384],
        "batch_norm_groups": [2, 4, 8],
    },
}
_START_OPTIM = {
    "optim.name": "adamw",
    "optim.lr": 2e-3,
    "optim.weight_decay": 0.04,
    "optim.weight_decay_end": None,
    "optim.clip": None,
    "views.smallest": 0.2,
}
START: dict[str, dict[str, Any]] = {  # the defaults when the study began
    "dino": {
        **_START_OPTIM,
        "optim.weight_decay_end": 0.4,
        "optim.clip": 3.0,
        "views.smallest": 0.25,
        "out_dim": 2048,
        "bottleneck_dim": 64,
        "use_bn": True,
        "centering": "mean",
        "teacher_momentum": 0.99,
        "teacher_temperature": 0.07,
        "teacher_temperature_warmup_fraction": 0.3,
    },
    "byol": {**_START_OPTIM, "hidden_dim": 512, "out_dim": 64, "target_momentum": 0.98},
    "moco": {
        **_START_OPTIM,
        "out_dim": 128,
        "temperature": 0.2,
        "key_momentum": 0.99,
        "queue_size": 4096,
        "batch_norm_groups": 8,
    },
}
_LOCAL_SCALE = (0.08, 0.4)


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


def search() -> Iterator[Run]:
    """Trials in turns, so that at any moment every method has had as many."""
    drawn = {}
    for method in METHODS:
        space = [{**optimizer, **_SHARED, **_OWN[method]} for optimizer in (_ADAMW, _ADAMW, _SGD)]
        trials = ParameterSampler(space, TRIALS, random_state=STATE)
        drawn[method] = [START[method], *islice(trials, TRIALS - 1)]
    for number in range(TRIALS):
        for method in METHODS:
            options = {
                name: float(f"{value:.3g}") if isinstance(value, float) else value
                for name, value in drawn[method][number].items()
            }
            yield Run(f"{method}-{number:02d}", method, options)


STUDIES = {"search": search}


def configure(run: Run, default: MethodConfig, *, grey: bool, flip: bool) -> MethodConfig:
    """The method's configuration: its defaults with the run's options, for images of 32 px."""
    parts: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in run.options.items():
        part, _, field_name = name.rpartition(".")
        parts[part][field_name] = value
    views = adapt(_views(default.views, **parts["views"]), 32, grey=grey, flip=flip)
    optim = {**default.optim.model_dump(), **parts["optim"]}
    return type(default)(**{**default.model_dump(), **parts[""], "optim": optim, "views": views})


def _views(
    spec: ViewSpec, smallest: float | None = None, local_count: int = 0, local_size: int = 16
) -> ViewSpec:
    views = spec.global_views
    if smallest is not None:
        views = tuple(dataclasses.replace(view, scale=(smallest, 1.0)) for view in views)
    local = dataclasses.replace(views[0], size=local_size, scale=_LOCAL_SCALE) if local_count else None
    return ViewSpec(views, local, local_count)


def execute(run: Run) -> dict[str, Any]:
    """Train and score: k-NN (k = 20) and ridge regression on the selection images, banked on the rest."""
    torch.set_num_threads(1)
    dataset = create_dataset(run.dataset)
    parts = roles(dataset)
    pretrain = parts.pretrain
    (bank, selection), train = parts.folds[0], parts.train
    if run.classes is not None and pretrain.labels is not None and train.labels is not None:
        pretrain = pretrain.take((pretrain.labels < run.classes).nonzero().flatten())
        bank, selection = (part[train.labels[part] < run.classes] for part in (bank, selection))
    if run.subset is not None:
        pretrain = pretrain.take(torch.arange(run.subset))
    config = configure(run, method_class(run.method).Config(), grey=pretrain.grey, flip=dataset.flip)
    config = config.for_data(len(pretrain))

    def build() -> Method:
        torch.manual_seed(seed_from(run.seed, 0))
        backbone = create_backbone(run.backbone, 32, **run.backbone_options)
        torch.manual_seed(seed_from(run.seed, 1))
        fields = {name: getattr(config, name) for name in type(config).model_fields}
        return create_method(run.method, backbone, **fields)

    cost = measure(build(), pretrain, torch.device("cpu"), "fp32")
    method, began = build(), time.process_time()
    budget = {"images": run.budget}
    try:
        fitted = fit(
            method,
            pretrain,
            budget=budget,
            batch_size=run.batch_size,
            seed=run.seed,
            device="cpu",
            precision="fp32",
        )
    except FloatingPointError:
        return {"status": "diverged", "config": config.model_dump(mode="json")}
    result = {
        "status": "done",
        "steps": fitted.steps,
        "train_flops": cost.flops_per_image * fitted.images_seen,
        "cpu_seconds": round(time.process_time() - began, 1),
        "final_metrics": fitted.metrics,
        "config": config.model_dump(mode="json"),
    }

    def embed(images: Tensor) -> Tensor:
        return extract(method.encoder, images, image_size=None, device="cpu")

    assert isinstance(train.images, Tensor)
    assert train.labels is not None
    x, y = embed(train.images[bank]), train.labels[bank]
    chosen_x, chosen_y = embed(train.images[selection]), train.labels[selection]
    votes = weighted_knn(x, y, chosen_x, k=20, num_classes=len(train.classes))
    ridge = make_pipeline(StandardScaler(), RidgeClassifier()).fit(x, y)
    result |= {
        "knn_top1": top_accuracy(votes, chosen_y, 1),
        "ridge_top1": ridge.score(chosen_x, chosen_y),
        "rankme": rankme(x),
        "feature_std": feature_std(x),
    }
    if run.test:
        test = parts.test
        assert isinstance(test.images, Tensor)
        assert test.labels is not None
        whole = torch.cat([x, chosen_x]), torch.cat([y, chosen_y])
        votes = weighted_knn(*whole, embed(test.images), k=20, num_classes=len(train.classes))
        result["test_knn_top1"] = top_accuracy(votes, test.labels, 1)
    return result


def stored(study: str) -> list[dict[str, Any]]:
    """The finished runs of a study, as {"run": ..., "result": ...}."""
    file = FOLDER / f"{study}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main(study: str) -> None:
    for run in STUDIES[study]():
        asked = json.loads(json.dumps(asdict(run)))
        if asked in [line["run"] for line in stored(study)]:
            continue
        result = execute(run)
        with (FOLDER / f"{study}.jsonl").open("a") as file:
            file.write(json.dumps({"run": asked, "result": result}) + "\n")
        print(study, run.label, run.seed, result.get("knn_top1"), result.get("cpu_seconds"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
