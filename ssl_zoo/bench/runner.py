"""One cell from its frozen plan to its result: the runner decides nothing."""

import json
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn
from torchvision.utils import make_grid, save_image

from ssl_zoo import ranks
from ssl_zoo.bench.assess import assess, extract_parts
from ssl_zoo.bench.cells import FINISHED, Cell, Emit, identity, read_result
from ssl_zoo.bench.lock import LOCK
from ssl_zoo.bench.plan import build, build_supervised, open_dataset
from ssl_zoo.bench.plugins import import_plugin
from ssl_zoo.bench.references import as_given, card
from ssl_zoo.bench.selection import curve_steps, selection_curve
from ssl_zoo.bench.supervised import SupervisedConfig, to_learn
from ssl_zoo.bench.transfer import planned_transfer
from ssl_zoo.budget import Budget
from ssl_zoo.checkpoint import logged_records
from ssl_zoo.data.augment import IMAGENET_MEAN, IMAGENET_STD
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Split
from ssl_zoo.data.loading import views_of
from ssl_zoo.data.splits import Roles, roles
from ssl_zoo.evaluation.collapse import Alarm, Sign, collapse_cause, explain_collapse
from ssl_zoo.evaluation.encoder import Encoder, save_encoder
from ssl_zoo.files import is_disk_full, sweep, write_text
from ssl_zoo.method import Method
from ssl_zoo.nets import Backbone
from ssl_zoo.registry import method_class
from ssl_zoo.train import FitResult, TrainingStopped, fit, resolve_device

_SHOWN = 8  # images in views.png
_BACKENDS = ("gloo", "NCCL")


def run_cell(folder: Path, emit: Emit, should_stop: Callable[[], bool] = lambda: False) -> str:
    """Run the cell in `folder` to its `result.json`; returns its status: done, collapsed, failed or stopped.

    A failure is recorded with its reason, the traceback in `error.txt`; a stopped cell keeps its checkpoint.
    Of ranks that torchrun started, each runs its part, and the first writes and tells.
    Raises OSError when the disk is full, which could not be recorded.
    """
    cell = Cell.model_validate_json((folder / "cell.json").read_text())
    ranks.join(resolve_device(cell.device))
    if ranks.index():
        try:
            return str(run(cell, folder, lambda _: None, should_stop)["status"])
        except TrainingStopped:
            return "stopped"
        except FloatingPointError:
            return "failed"  # on all ranks alike
    with FileLock(folder / LOCK):  # the process of a killed bench may still be at its last step
        sweep(folder)
        if read_result(folder).get("status") not in FINISHED:
            for name in ("result.json", "error.txt"):  # of an attempt that failed
                (folder / name).unlink(missing_ok=True)
        try:
            result = run(cell, folder, emit, should_stop)
        except TrainingStopped as stopped:
            emit({"event": "stopped", "step": stopped.step})
            return "stopped"
        except Exception as error:
            if is_disk_full(error):
                emit({"event": "disk full", "error": str(error)})
                raise
            write_text(folder / "error.txt", traceback.format_exc())
            result = {
                "status": "failed",
                "error": _reason(error),
                "final_metrics": (logged_records(folder) or [{}])[-1],
            }
        write_text(folder / "result.json", json.dumps({**identity(cell), **result}, indent=1))
    emit({"event": "finished", "status": result["status"]})
    return str(result["status"])


def _reason(error: Exception) -> str:
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, RuntimeError) and ranks.count() > 1 and any(name in words for name in _BACKENDS):
        return f"another rank is gone, see above in log.txt; the same command goes on from here ({words})"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"{words}; out of memory: lower batch_size or image_size, or take a smaller backbone"
    return words


def run(cell: Cell, folder: Path, emit: Emit, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Data, training, evaluation, in this order; labels appear in the last only."""
    torch.set_num_threads(cell.threads)
    torch.backends.cudnn.benchmark = True  # batches have one shape: the fastest convolutions are found once
    for plugin in cell.plugins:
        import_plugin(plugin)
    shared = cell.shared
    dataset = open_dataset(cell.source, cell.data)
    parts = roles(dataset)
    if parts.fingerprint != shared.fingerprint:
        raise ValueError(
            f"{shared.dataset} is not the data that was planned with; plan again in a new folder"
        )
    others = planned_transfer(cell)
    device = resolve_device(cell.device)
    emit({"event": "training", "total": cell.steps})
    fitted: FitResult | None = None
    alarm: Sign | None = None
    if not cell.steps:
        encoder = as_given(cell, parts, device)
    else:
        method, split = _untrained(cell, parts)
        network = method.encoder
        if not isinstance(network, Backbone):
            raise TypeError(
                f"the encoder of {cell.method} is no Backbone; return the one it was given or a copy"
            )
        told = cell.method is None and len(parts.folds) > 1  # the labels of what would be chosen on
        curve = None if told else selection_curve(parts, shared.image_size, cell.workers)
        fitted, alarm = _train(cell, method, split, curve, folder, emit, should_stop)
        if cell.trial:
            return {"status": "done", **_training(cell, fitted, device)}
        encoder = Encoder(network, shared.image_size, card=card(cell, _role(method), fitted.steps))
        if ranks.index() == 0:
            _save_views(method, split, cell.seed, folder)

    emit({"event": "evaluating"})
    began = time.perf_counter()
    features = extract_parts(encoder, parts, cell.workers)
    if ranks.index():
        return {"status": "done"}  # the first goes on by itself
    with ranks.alone():
        scores = assess(
            encoder,
            parts,
            features,
            folder,
            flip=dataset.flip,
            knn_k=shared.knn_k,
            knn_temperature=shared.knn_temperature,
            finetuned=shared.finetune,
            seed=cell.seed,
            mapped=cell.mapped,
            transfer=others,
            workers=cell.workers,
        )
    save_encoder(folder, encoder)
    return {
        "status": "collapsed" if alarm and cell.on_collapse == "stop" else "done",
        **_training(cell, fitted, device),
        "collapse_alarm": alarm,
        **scores,
        "backbone": encoder.card["backbone"],
        "encoder": encoder.card["encoder"],
        "evaluation_seconds": time.perf_counter() - began,
    }


def _untrained(cell: Cell, parts: Roles) -> tuple[Method, Split]:
    """The method of a cell, or the reference that learns labels, and the images that it is trained on."""
    if cell.method is None:
        split = to_learn(parts, cell.shared.batch_size)
        labels = SupervisedConfig(**cell.options)
        return build_supervised(cell.shared, labels, cell.seed, cell.init, split), split
    config = method_class(cell.method).Config(**cell.options)
    return build(cell.shared, cell.method, config, cell.seed, cell.init), parts.pretrain


def _train(
    cell: Cell,
    method: Method,
    split: Split,
    curve: Callable[[nn.Module], dict[str, float]] | None,
    folder: Path,
    emit: Emit,
    should_stop: Callable[[], bool],
) -> tuple[FitResult, Sign | None]:
    """Train to the end, or to the collapse that was asked to end it; returns the result and what set in."""
    shared, alarm = cell.shared, Alarm()
    replayed: list[bool] = []

    def on_log(record: dict[str, float]) -> None:
        emit({"event": "log", **record})
        if alarm.see(record) and alarm.sign:
            words = f"{alarm.sign} collapse: {explain_collapse(alarm.sign)}"
            emit({"event": "collapse", "step": record["step"], "words": words})

    def collapsed() -> bool:
        if not replayed:  # what was logged before a resume; only now is the log cut to the checkpoint
            replayed.append(True)
            for record in logged_records(folder):
                alarm.see(record)
        return cell.on_collapse == "stop" and alarm.sign is not None

    try:
        fitted = fit(
            method,
            split,
            budget=Budget(steps=cell.steps),
            batch_size=shared.batch_size,
            seed=cell.seed,
            device=cell.device,
            precision=shared.precision,
            out=folder,
            on_log=on_log,
            log_every=cell.log_every,
            checkpoint_seconds=cell.checkpoint_seconds,
            workers=cell.workers,
            compile_backbones=cell.compile,
            accumulate=shared.accumulate,
            curve=curve,
            curve_steps=curve_steps(cell.steps, cell.curve),
            should_stop=lambda: collapsed() or should_stop(),
        )
        collapsed()  # a training that was complete before a resume took no step, and its log is not seen yet
    except TrainingStopped:
        if not ranks.anywhere(collapsed(), torch.device("cpu")):
            raise
        fitted = FitResult.after(method, shared.batch_size, logged_records(folder)[-1])
    return fitted, alarm.sign


def _training(cell: Cell, fitted: FitResult | None, device: torch.device) -> dict[str, Any]:
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak_memory()
    images = fitted.images_seen if fitted else 0
    return {
        "images_seen": images,
        "views_seen": fitted.views_seen if fitted else 0,
        "steps": fitted.steps if fitted else 0,
        "batch_size": cell.shared.batch_size,
        "view_pixels_seen": fitted.view_pixels_seen if fitted else 0,
        "train_flops": cell.step_flops * fitted.steps if fitted else 0,
        "train_seconds": fitted.seconds if fitted else 0.0,
        "data_seconds": fitted.data_seconds if fitted else 0.0,
        "images_per_second": images / fitted.seconds if fitted else None,
        "peak_memory_bytes": peak,
        "precision": cell.shared.precision,
        "threads": cell.threads,
        "device": str(device),
        "ranks": ranks.count() if fitted else 1,
        "lr": cell.options["optim"]["lr"] if fitted else None,
        "collapse_cause": collapse_cause(fitted.metrics) if fitted else None,
        "final_loss": fitted.metrics["loss"] if fitted else None,
        "final_metrics": fitted.metrics if fitted else {},
    }


def _peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss holds that of the process which started this one as well
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _role(method: Method) -> str:
    """Where in the method its encoder lives, such as teacher or online: the first part of its module path."""
    path: str = next(name for name, module in method.named_modules() if module is method.encoder)
    return path.split(".")[0]


def _save_views(method: Method, split: Split, seed: int, folder: Path) -> None:
    """Write views.png: a row of real crops per image, as the method saw them in its first epoch."""
    index = torch.arange(min(_SHOWN, len(split)))
    collate = MultiCropCollate(method.config.views, seed)
    views = views_of(split, index, 0, collate, torch.device("cpu"))
    size = views.global_crops.shape[-1]
    crops = list(views.global_crops)
    for local in views.local_crops if views.local_crops is not None else []:
        crops.append(nn.functional.pad(local, (0, size - local.shape[-1], 0, size - local.shape[-2])))
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    grid = make_grid(
        torch.stack(crops, 1).flatten(0, 1) * std + mean, nrow=len(crops), padding=2, pad_value=1.0
    )
    save_image(grid, folder / "views.png")
