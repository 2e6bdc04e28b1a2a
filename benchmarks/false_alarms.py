"""How often the verdict, the cause and the alarm of collapse are wrong: short real runs, judged by k-NN.

SSL_ZOO_DATA=DATA python benchmarks/false_alarms.py trains for twenty minutes on one core and stores what it
found in benchmarks/results/; with --render it only writes the table of docs/collapse.md anew.
"""

import copy
import json
import os
import platform
import re
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ssl_zoo import create_backbone, create_dataset, create_method, fit
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.datasets import Split
from ssl_zoo.evaluation import Encoder, weighted_knn
from ssl_zoo.evaluation.collapse import Alarm, collapse_cause, collapse_verdict, feature_std, rankme
from ssl_zoo.evaluation.features import to_input
from ssl_zoo.nets import Backbone
from ssl_zoo.registry import method_class

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "false-alarms.json"
PAGE = ROOT / "docs" / "collapse.md"

IMAGES, BATCH, STEPS, WIDTH = 1000, 64, 100, 16
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "dino": ("dino", {}),
    "dino, sinkhorn": ("dino", {"centering": "sinkhorn"}),
    "dino, 256 prototypes at 0.04": ("dino", {"out_dim": 256, "teacher_temperature": 0.04}),
    "dino, no batch norm in the head": ("dino", {"use_bn": False, "teacher_temperature": 0.04}),
    "byol": ("byol", {}),
    "byol, momentum 0.9": ("byol", {"target_momentum": 0.9}),
    "moco": ("moco", {"queue_size": 512}),
    "moco, temperature 0.1": ("moco", {"queue_size": 512, "temperature": 0.1}),
}
BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "dino, centering none": ("dino", {"centering": "none", "teacher_momentum": 0.9}),
    "dino, temperature 1": ("dino", {"teacher_temperature": 1.0, "warmup_teacher_temperature": 1.0}),
}


def configs() -> dict[str, Any]:
    """The whole configuration of each label's method, as the code has it now."""
    return {
        label: method_class(name).Config.model_validate(options).model_dump(mode="json")
        for label, (name, options) in (SETTINGS | BROKEN).items()
    }


def run(dataset: str, label: str, seed: int) -> dict[str, Any]:
    """Train once; the row says what was found and what k-NN on held-out images says."""
    name, options = (SETTINGS | BROKEN)[label]
    data = create_dataset(dataset)
    train, test = (_some(data.split(part), IMAGES) for part in ("train", "test"))
    size = max(train.largest_side, 16)
    torch.manual_seed(seed)
    backbone = create_backbone("resnet8", size, width=WIDTH)
    views = adapt(method_class(name).Config().views, size, grey=train.grey, flip=data.flip, patch=4)
    untrained = _scores(_with_statistics(copy.deepcopy(backbone), train), train, test, size)
    method = create_method(name, backbone, views=views, **options)
    alarm, alarmed = Alarm(), []

    def on_log(record: dict[str, float]) -> None:
        if alarm.see(record):
            alarmed.append(int(record["step"]))

    last = fit(
        method,
        train,
        budget={"steps": STEPS},
        batch_size=BATCH,
        seed=seed,
        device="cpu",
        on_log=on_log,
        log_every=5,
    ).metrics
    scores = _scores(method.encoder, train, test, size)
    verdict = collapse_verdict(
        scores["feature_std"], scores["rankme"], random_rankme=untrained["rankme"], steps=STEPS, finite=True
    )
    return {
        "dataset": dataset,
        "label": label,
        "seed": seed,
        **scores,
        "random_knn_top1": untrained["knn_top1"],
        "random_rankme": untrained["rankme"],
        "collapse_verdict": verdict,
        "collapse_cause": collapse_cause(last),
        "alarm": alarm.sign,
        "alarm_step": alarmed[0] if alarmed else None,
        "metrics": {name: value for name, value in last.items() if "second" not in name},
    }


def _with_statistics(backbone: Backbone, split: Split) -> Backbone:
    """The untrained backbone with batch-norm statistics of its own, as the random row of a bench."""
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    backbone.train()
    with torch.no_grad():
        for images in split.images.split(BATCH):
            backbone(to_input(images, None))
    return backbone


def _some(split: Split, count: int) -> Split:
    return split.take(torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count])


def _scores(network: torch.nn.Module, train: Split, test: Split, size: int) -> dict[str, float]:
    train_x, test_x = (Encoder(network, size, card={}).embed(part.images) for part in (train, test))
    votes = weighted_knn(train_x, train.labels, test_x, k=10, num_classes=len(train.classes))
    accuracy = (votes.argmax(1) == test.labels).float().mean().item()
    return {"knn_top1": accuracy, "feature_std": feature_std(test_x), "rankme": rankme(test_x)}


def render(page: str, stored: dict[str, Any]) -> str:
    """The page with the block between `<!-- false alarms -->` and `<!-- end -->` written from the results."""
    return re.sub(
        r"(<!-- false alarms -->\n).*?(<!-- end -->)",
        lambda found: found[1] + table(stored["runs"]) + found[2],
        page,
        flags=re.DOTALL,
    )


def table(runs: list[dict[str, Any]]) -> str:
    """Counts in a sentence, then a row per run."""
    header = [
        "data",
        "run",
        "seed",
        "k-NN %",
        "random %",
        "feature std",
        "RankMe",
        "random",
        "ln K - h",
        "KL",
        "verdict",
        "cause",
        "alarm",
    ]
    numbers = header.index("verdict")
    rule = ["---:" if 2 <= column < numbers else "---" for column in range(len(header))]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *map(_cells, runs))]
    return "\n".join([counts(runs), "", *lines]) + "\n"


def counts(runs: list[dict[str, Any]]) -> str:
    """How many runs were judged wrongly."""
    healthy = [row for row in runs if row["label"] in SETTINGS and row["knn_top1"] >= row["random_knn_top1"]]
    broken = [row for row in runs if row["label"] in BROKEN]

    def told(rows: list[dict[str, Any]]) -> list[int]:
        verdicts = sum(row["collapse_verdict"] != "healthy" for row in rows)
        return [
            verdicts,
            *(sum(row[name] is not None for row in rows) for name in ("collapse_cause", "alarm")),
        ]

    false, found = told(healthy), told(broken)
    return (
        f"{len(healthy)} healthy runs, by k-NN not below the untrained backbone: {false[0]} false verdicts, "
        f"{false[1]} false causes, {false[2]} false alarms during training. {len(broken)} runs broken on "
        f"purpose: {found[1]} causes named, {found[2]} alarms, {found[0]} verdicts other than healthy. "
        f"{len(runs) - len(healthy) - len(broken)} ended below the untrained backbone and are not counted."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    logged, gap, kl = row["metrics"], "-", "-"
    if "kl" in logged:
        gap = f"{logged['uniform_entropy'] - logged['teacher_entropy']:.3f}"
        kl = f"{logged['kl']:.3f}"
    return [
        row["dataset"],
        row["label"],
        str(row["seed"]),
        f"{100 * row['knn_top1']:.1f}",
        f"{100 * row['random_knn_top1']:.1f}",
        f"{row['feature_std']:.3f}",
        f"{row['rankme']:.1f}",
        f"{row['random_rankme']:.1f}",
        gap,
        kl,
        row["collapse_verdict"],
        row["collapse_cause"] or "-",
        f"{row['alarm']}, step {row['alarm_step']}" if row["alarm"] else "-",
    ]


def main() -> None:
    torch.set_num_threads(1)
    wanted = [*product(("digits", "fashion-mnist", "cifar10"), SETTINGS, (0, 1))]
    wanted += [*product(("digits", "fashion-mnist"), BROKEN, (0, 1))]
    runs = []
    for dataset, label, seed in wanted:
        runs.append(run(dataset, label, seed))
        print(" | ".join(_cells(runs[-1])), flush=True)
    environment = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    environment |= {package: version(package) for package in ("ssl-zoo", "torch")}
    made = {"command": "python benchmarks/false_alarms.py", "environment": environment}
    made |= {"images": IMAGES, "batch_size": BATCH, "steps": STEPS, "backbone": f"resnet8, width {WIDTH}"}
    RESULTS.write_text(json.dumps({"made": made, "configs": configs(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    if "--render" not in sys.argv:
        main()
    PAGE.write_text(render(PAGE.read_text(), json.loads(RESULTS.read_text())))
