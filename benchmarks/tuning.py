"""Random search for defaults at 32 px: as many trials for each method, all scored on the selection split.

SSL_ZOO_DATA=FOLDER python -m benchmarks.tuning search confirm crops
Each run is a line of `results/tuning/STUDY.jsonl`; a run that is there is not run again, so that the same
command continues a study that was interrupted.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice, product
from pathlib import Path
from typing import Any

from scipy.stats import loguniform
from sklearn.model_selection import ParameterSampler

from benchmarks.trial import Run, execute

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
CHOSEN = {"dino": "dino-03", "byol": "byol-05", "moco": "moco-02"}  # the best of six trials each
FASHION: dict[str, Any] = {"dataset": "fashion-mnist"}
VIT: dict[str, Any] = {
    "backbone": "timm:vit_tiny_patch16_224",
    "backbone_options": {"patch_size": 8, "depth": 4, "embed_dim": 96, "num_heads": 3},
}
WIDE: dict[str, Any] = {"backbone_options": {"width": 32}}
EQUAL_FLOPS = 60_032  # images with two crops that cost what 40,000 do with four local crops of 16 px besides


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


def chosen(method: str) -> dict[str, Any]:
    """The options of the trial that was chosen."""
    return next(run.options for run in search() if run.label == CHOSEN[method])


def _chosen_and_default(where: str = "", methods: Iterable[str] = METHODS, **setting: Any) -> Iterator[Run]:
    for method, seed in product(methods, (1, 2, 3)):
        for name, options in (("default", START[method]), ("chosen", chosen(method))):
            yield Run(f"{method} {name}{where}", method, options, seed, test=True, **setting)


def confirm() -> Iterator[Run]:
    """What was chosen against the defaults it started from, with seeds that no choice has seen."""
    yield from _chosen_and_default()


def crops() -> Iterator[Run]:
    """Local crops at equal images, and two global crops for as many FLOPs as those cost."""
    options = chosen("dino")
    for seed in (1, 2, 3):
        locals_ = {**options, "views.local_count": 4, "views.local_size": 16}
        yield Run("dino, 4 local crops", "dino", locals_, seed, test=True)
        yield Run("dino, as many FLOPs", "dino", options, seed, budget=EQUAL_FLOPS, test=True)


def untrained() -> Iterator[Run]:
    """Weights that no step moves: what every setting's encoder is before training."""
    still = {"optim.lr": 0.0, "optim.min_lr": 0.0}
    yield Run("untrained", "byol", still, budget=50 * 128)
    yield Run("untrained, 3 classes", "byol", still, budget=50 * 128, classes=3)
    yield Run("untrained, Fashion", "byol", still, budget=50 * 128, **FASHION)
    yield Run("untrained, ViT", "byol", still, budget=50 * 128, **VIT)
    yield Run("untrained, width 32", "byol", still, budget=50 * 128, **WIDE)


def robust() -> Iterator[Run]:
    """Few images, small batches and few classes: does anything collapse?"""
    for name, options in (("chosen", chosen("dino")), ("default", START["dino"])):
        yield Run(f"dino {name}, 1,000 images", "dino", options, budget=20_000, subset=1000)
        yield Run(f"dino {name}, batch 32", "dino", options, budget=20_000, batch_size=32)
        yield Run(f"dino {name}, 3 classes", "dino", options, budget=20_000, classes=3)


def longer() -> Iterator[Run]:
    """Four times the images: does the choice outlast the budget that it was made at?"""
    for name, options in (("chosen", chosen("dino")), ("default", START["dino"])):
        yield Run(f"dino {name}, 4x images", "dino", options, seed=1, budget=160_000, test=True)


def fashion() -> Iterator[Run]:
    """What was chosen on CIFAR-10, on images of another kind."""
    yield from _chosen_and_default(", Fashion", **FASHION)


def vit() -> Iterator[Run]:
    """A small ViT (0.5 M parameters, 16 patches): does what was chosen with a convnet serve it too?"""
    yield from _chosen_and_default(", ViT", **VIT)


def wide() -> Iterator[Run]:
    """The one choice that changed a default, with a backbone of twice the width."""
    yield from _chosen_and_default(", width 32", ["dino"], **WIDE)


STUDIES = {
    study.__name__: study for study in (search, untrained, confirm, robust, longer, crops, fashion, wide, vit)
}


def stored(study: str) -> list[dict[str, Any]]:
    """The finished runs of a study, as {"run": ..., "result": ...}."""
    file = FOLDER / f"{study}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main(study: str) -> None:
    """Run what of a study is not there yet."""
    for run in STUDIES[study]():
        asked = json.loads(json.dumps(asdict(run)))
        if asked in [line["run"] for line in stored(study)]:
            continue
        result = execute(run)
        with (FOLDER / f"{study}.jsonl").open("a") as file:
            file.write(json.dumps({"run": asked, "result": result}) + "\n")
        print(study, run.label, run.seed, result.get("knn_top1"), result.get("cpu_seconds"), flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(name)
