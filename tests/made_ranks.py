"""Trainings that several ranks share: run by torchrun, each rank writes what it ended with into a folder.

torchrun --standalone --nproc-per-node 2 -m tests.made_ranks OUT NAME...
"""

import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo import create_backbone, create_dataset, create_method, fit, ranks
from ssl_zoo.bench.plugins import import_plugin
from ssl_zoo.evaluation.encoder import Encoder
from ssl_zoo.evaluation.features import extract_by_ranks
from ssl_zoo.method import Method, Step, Views
from ssl_zoo.optim import OptimConfig
from ssl_zoo.train import TrainingStopped

BATCH, STEPS = 128, 3
SIMCLR = str(Path(__file__).parent.parent / "examples" / "simclr.py")  # its negatives are other ranks' images
_OPTIM = OptimConfig(name="sgd", lr=0.05, momentum=0.5)  # AdamW would blow rounding up to whole steps
_DINO = {"out_dim": 64, "hidden_dim": 32, "bottleneck_dim": 16, "teacher_temperature_warmup_fraction": 0.0}

_VIT = {"patch_size": 8, "depth": 1}

# name -> method, its options, backbone and its options
TRAININGS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "dino": ("dino", _DINO, "resnet8", {"width": 8}),
    "dino-sinkhorn": ("dino", {**_DINO, "centering": "sinkhorn"}, "resnet8", {"width": 8}),
    "byol": ("byol", {"hidden_dim": 32, "out_dim": 16}, "resnet8", {"width": 8}),
    "moco": ("moco", {"hidden_dim": 32, "out_dim": 16, "queue_size": 256}, "resnet8", {"width": 8}),
    "dino-vit": ("dino", {**_DINO, "use_bn": False}, "vit_tiny", _VIT),
    "simclr": ("simclr", {"hidden_dim": 32, "out_dim": 16}, "resnet8", {"width": 8}),
    "moco-3": ("moco", {"hidden_dim": 32, "out_dim": 16, "batch_norm_groups": 3}, "resnet8", {"width": 8}),
}


def made(name: str) -> Method:
    """The method of a training, from seed 0."""
    kind, options, backbone, shape = TRAININGS[name]
    import_plugin(SIMCLR)
    torch.manual_seed(0)
    network = create_backbone(backbone, 16, **shape)
    method = create_method(kind, network, **{"optim": _OPTIM, **options}).double()
    if kind == "moco":
        method.queue = method.queue.float()  # losses are computed in float32
    method.register_forward_pre_hook(_in_double)
    return method


def _in_double(_: nn.Module, given: tuple[Views, Step]) -> tuple[Views, Step]:
    """Rounding of float32 would hide what is wrong by a thousandth."""
    views, step = given
    local = None if views.local_crops is None else views.local_crops.double()
    return views._replace(global_crops=views.global_crops.double(), local_crops=local), step


def trained(method: Method, **given: Any) -> dict[str, Any]:
    """Losses, first gradients and final state."""
    gradients: dict[str, Tensor] = {}
    ready = method.on_grads_ready

    def keep(step: Step) -> None:
        if step.index == 0:
            gradients.update({n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None})
        ready(step)

    method.on_grads_ready = keep  # type: ignore[method-assign]
    records: list[dict[str, float]] = []
    fit(
        method,
        create_dataset("digits"),
        budget={"steps": STEPS},
        batch_size=BATCH,
        device="cpu",
        precision="fp32",
        log_every=1,
        on_log=records.append,
        **given,
    )
    timed = ("seconds", "data_seconds", "images_per_second")
    logged = [{n: v for n, v in record.items() if n not in timed} for record in records]
    return {"logged": logged, "gradients": gradients, "state": method.state_dict()}


def everything(names: Iterable[str] = TRAININGS) -> dict[str, Any]:
    """Trainings, that without batch norm in as many micro-batches as there are ranks; and features."""
    torch.set_num_threads(1)
    parts = {"dino-vit": {"accumulate": ranks.count()}}
    trainings = {name: trained(made(name), **parts.get(name, {})) for name in names}
    torch.manual_seed(0)
    encoder = Encoder(create_backbone("resnet8", 16, width=8), 16)
    features = extract_by_ranks(encoder.embed, create_dataset("digits").split("train").images, 32)
    return {"trainings": trainings, "features": features}


def stopped(out: Path) -> None:
    """Train MoCo for two steps, where it is stopped, with a checkpoint in `out`."""
    asked: list[int] = []
    with suppress(TrainingStopped):
        trained(made("moco"), out=out, should_stop=lambda: asked.append(1) or len(asked) > 2)


def main(out: Path, names: list[str]) -> None:
    torch.save(everything(names), out / f"rank{ranks.index()}.pt")
    stopped(out / "stopped")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
