"""What common mistakes look like in our log: short real runs, each with one thing wrong.

SSL_ZOO_DATA=DATA python -m benchmarks.mistakes [LABEL ...]

Trains what benchmarks/results/mistakes.json lacks or holds of another configuration, seven minutes on one
core for all; named labels are trained anew. `make docs` renders docs/methods/ from it. Only the runs on
CIFAR-10 need the folder.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks import wrong
from ssl_zoo import create_backbone, create_dataset, fit
from ssl_zoo.bench import environment
from ssl_zoo.data.augment import adapt
from ssl_zoo.data.datasets import Split
from ssl_zoo.draws import sample
from ssl_zoo.evaluation import Encoder, weighted_knn
from ssl_zoo.evaluation.collapse import Alarm
from ssl_zoo.evaluation.knn import top_accuracy
from ssl_zoo.method import Augment, Method, MethodConfig, ViewSpec
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.methods.dino import DINO
from ssl_zoo.methods.moco import MoCo

RESULTS = Path(__file__).parent / "results" / "mistakes.json"
IMAGES, BATCH, STEPS, WIDTH, EVERY = 1000, 64, 150, 8, 5

_SLOW = {"lr": 2e-3, "weight_decay": 0.04, "weight_decay_end": 0.4, "clip": 3.0}
_DINO = {"out_dim": 256, "teacher_temperature": 0.04, "teacher_momentum": 0.99, "optim": _SLOW}
_CROPS = tuple(Augment(32, scale=(0.4, 1.0), solarize_p=p) for p in (0.0, 0.2))
_LOCALS = ViewSpec(_CROPS, local=Augment(16, scale=(0.05, 0.4)), local_count=6)
_IMAGENET = {**_DINO, "views": _LOCALS}
_MOCO = {"queue_size": 512}
_STILL = {"lr": 0.0, "min_lr": 0.0}  # only batch norm's statistics move


class Run(NamedTuple):
    """What is trained: a method with options on `dataset`."""

    method: type[Method]
    options: dict[str, Any]
    dataset: str = "digits"
    batch_size: int = BATCH

    @property
    def config(self) -> MethodConfig:
        return self.method.Config(**self.options)

    def made_of(self) -> dict[str, Any]:
        """What a kept run is compared by."""
        asked = {"dataset": self.dataset, "batch_size": self.batch_size}
        return {**asked, "config": self.config.model_dump(mode="json")}


def _dino(method: type[DINO] = DINO, batch_size: int = BATCH, **options: Any) -> Run:
    return Run(method, {**_DINO, **options}, batch_size=batch_size)


RUNS: dict[str, Run] = {
    "dino": _dino(),
    "dino, untrained": _dino(optim={**_SLOW, **_STILL}),
    "dino, 2,048 prototypes": _dino(out_dim=2048),
    "dino, teacher temperature 0.1": _dino(teacher_temperature=0.1, warmup_teacher_temperature=0.1),
    "dino, teacher temperature 0.3": _dino(teacher_temperature=0.3, warmup_teacher_temperature=0.3),
    "dino, temperatures swapped": _dino(
        student_temperature=0.04, teacher_temperature=0.1, warmup_teacher_temperature=0.1
    ),
    "dino, student temperature 0.9": _dino(student_temperature=0.9),
    "dino, teacher is the student": _dino(wrong.TeacherIsStudent),
    "dino, no batch norm": _dino(use_bn=False),
    "dino, teacher is the student, no batch norm": _dino(wrong.TeacherIsStudent, use_bn=False),
    "dino, local crops": _dino(views=_LOCALS),
    "dino, teacher sees local crops": _dino(wrong.TeacherSeesLocals, views=_LOCALS),
    "dino, teacher momentum 0.9": _dino(teacher_momentum=0.9),
    "dino, teacher momentum 0.9996": _dino(teacher_momentum=0.9996),
    "dino, center momentum 0.996": _dino(center_momentum=0.996),
    "dino, center momentum 0.9996": _dino(center_momentum=0.9996),
    "dino, sum over pairs": _dino(wrong.SumOverPairs),
    "dino, sum over pairs of 8 crops": _dino(wrong.SumOverPairs, views=_LOCALS),
    "dino, center added": _dino(wrong.CenterAdded),
    "dino, center moved before use": _dino(wrong.CenterFirst),
    "dino, no center": _dino(centering="none"),
    "dino, batch of 4": _dino(batch_size=4),
    "dino, batch of 4, sinkhorn": _dino(batch_size=4, centering="sinkhorn"),
    "dino, moved at each micro-batch": _dino(wrong.MovedEachMicroBatch),
    "dino on cifar10, untrained": Run(DINO, {**_DINO, "optim": {**_SLOW, **_STILL}}, "cifar10"),
    "dino on cifar10": Run(DINO, _DINO, "cifar10"),
    "dino on cifar10, large crops alone": Run(DINO, {**_DINO, "views": ViewSpec(_CROPS)}, "cifar10"),
    "dino on cifar10, crops of ImageNet": Run(DINO, _IMAGENET, "cifar10"),
    "byol": Run(BYOL, {}),
    "byol, untrained": Run(BYOL, {"optim": _STILL}),
    "byol, no predictor": Run(wrong.NoPredictor, {}),
    "byol, target is the online network": Run(wrong.TargetIsOnline, {}),
    "byol, sum over both views": Run(wrong.SumOverViews, {}),
    "byol, target momentum 0": Run(BYOL, {"target_momentum": 0.0}),
    "byol, the paper's lr in AdamW": Run(BYOL, {"optim": {"lr": 3.2}}),
    "byol, target momentum 0.9996": Run(BYOL, {"target_momentum": 0.9996}),
    "moco": Run(MoCo, _MOCO),
    "moco, untrained": Run(MoCo, {**_MOCO, "optim": _STILL}),
    "moco, enqueued before use": Run(wrong.EnqueuedFirst, _MOCO),
    "moco, one group": Run(MoCo, {**_MOCO, "batch_norm_groups": 1}),
    "moco, key momentum 0": Run(MoCo, {**_MOCO, "key_momentum": 0.0}),
    "moco, key momentum 0.9996": Run(MoCo, {**_MOCO, "key_momentum": 0.9996}),
    "moco, temperature 1": Run(MoCo, {**_MOCO, "temperature": 1.0}),
    "moco, queue of 4,096": Run(MoCo, {"queue_size": 4096}),
}


def train(run: Run) -> dict[str, Any]:
    """What one run logged, at its first and last record, and what its networks are worth."""
    data = create_dataset(run.dataset)
    bank, test = (_some(data.split(part)) for part in ("train", "test"))
    size = max(bank.largest_side, 16)
    torch.manual_seed(0)
    backbone = create_backbone("resnet8", size, width=WIDTH)
    views = adapt(run.config.views, size, grey=bank.grey, flip=data.flip)
    method = run.method(backbone, run.config.model_copy(update={"views": views}))
    alarm, records, rang = Alarm(), list[dict[str, float]](), list[float]()

    def on_log(record: dict[str, float]) -> None:
        records.append({name: value for name, value in record.items() if "second" not in name})
        if alarm.see(record):
            rang.append(record["step"])

    fit(
        method,
        bank,
        budget={"steps": STEPS},
        batch_size=run.batch_size,
        device="cpu",
        on_log=on_log,
        log_every=EVERY,
    )
    networks = {"evaluated": method.encoder}
    if isinstance(method, DINO):
        networks["student"] = method.student.backbone
    if isinstance(method, BYOL):
        networks["target"] = method.target.module.backbone
    return {
        **run.made_of(),
        "first": records[0],
        "last": records[-1],
        "alarm": alarm.sign,
        "alarm_step": rang[0] if rang else None,
        "knn_top1": {name: _score(network, bank, test, size) for name, network in networks.items()},
    }


def _some(split: Split) -> Split:
    return split.take(sample(torch.arange(len(split)), IMAGES))


def _score(network: nn.Module, bank: Split, test: Split, size: int) -> float:
    x, y = (Encoder(network, size, card={}).embed(part.images) for part in (bank, test))
    return top_accuracy(weighted_knn(x, bank.labels, y, k=10, num_classes=len(bank.classes)), test.labels, 1)


def main(labels: list[str]) -> None:
    torch.set_num_threads(1)
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    for label, run in RUNS.items():
        kept = stored["runs"].get(label, {})
        if label not in labels and run.made_of().items() <= kept.items():
            continue
        stored["runs"][label] = train(run)
        last = stored["runs"][label]["last"]
        print(label, stored["runs"][label]["alarm"], stored["runs"][label]["knn_top1"], last, flush=True)
        stored["made"] = {
            "command": "python -m benchmarks.mistakes",
            "environment": environment(),
            "images": IMAGES,
            "steps": STEPS,
            "backbone": f"resnet8, width {WIDTH}",
        }
        stored["runs"] = {name: stored["runs"][name] for name in RUNS if name in stored["runs"]}
        RESULTS.write_text(json.dumps({"made": stored["made"], "runs": stored["runs"]}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
