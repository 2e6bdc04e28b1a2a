"""The training loop, one for all methods, and its checkpoint."""

import hashlib
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import torch
from torch import nn

from ssl_zoo import ranks
from ssl_zoo.accumulate import averaged, micro_batches, warn_if_coupled
from ssl_zoo.batch_norm import join_batch_norms
from ssl_zoo.budget import Budget
from ssl_zoo.checkpoint import Checkpoint, Spent, logged_records
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.data.loading import train_views
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.draws import seed_from
from ssl_zoo.method import Method, Step, StepOutput, Views
from ssl_zoo.nets import CompiledBackbones
from ssl_zoo.optim import OptimConfig, clip_gradients, create_optimizer, set_schedule
from ssl_zoo.watch import Clock, Watch, require_finite

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["fp32", "bf16"]

_PAUSE = 100  # times what a checkpoint took: they cost below one percent


class FitResult(NamedTuple):
    """A finished training: the `method` and what it cost, added up over resumed parts.

    `data_seconds` is the share of `seconds` in which the step waited for its views; `metrics` what was
    logged last.
    """

    method: Method
    steps: int
    images_seen: int
    views_seen: int
    view_pixels_seen: int
    seconds: float
    data_seconds: float
    metrics: dict[str, float]

    @classmethod
    def after(cls, method: Method, batch_size: int, metrics: dict[str, float]) -> Self:
        """The result of a training whose last record is `metrics`."""
        steps, views = int(metrics["step"]), method.config.views.views
        images = steps * batch_size
        return cls(
            method=method,
            steps=steps,
            images_seen=images,
            views_seen=images * len(views),
            view_pixels_seen=images * sum(view.size**2 for view in views),
            seconds=metrics["seconds"],
            data_seconds=metrics["data_seconds"],
            metrics=metrics,
        )


class TrainingStopped(Exception):
    """Training was asked to stop; the checkpoint holds everything up to `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}; the same command continues here")
        self.step = step


def resolve_device(device: str) -> torch.device:
    """`auto` is the GPU if there is one, else the CPU; raises ValueError for what is not there."""
    gpus = torch.cuda.device_count()
    allowed = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{index}" for index in range(gpus))]
    if device == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if device not in allowed:
        raise ValueError(f"device={device!r}; here are: auto, {', '.join(allowed)}")
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the hardware multiplies it (CUDA >= 8.0, avx512_bf16, AMX), else fp32."""
    if precision == "auto":
        if device.type == "cuda":
            fast = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if fast else "fp32"
    if precision not in ("bf16", "fp32"):
        raise ValueError(f"precision={precision!r}; allowed: auto, bf16, fp32")
    return precision  # type: ignore[return-value]


def train_step(
    wrapped: nn.Module,
    method: Method,
    optimizer: torch.optim.Optimizer,
    views: Views,
    step: Step,
    precision: Precision = "fp32",
    *,
    accumulate: int = 1,
    fabric: "Fabric | None" = None,
) -> StepOutput:
    """One optimizer step; `wrapped` is the method, or the method as `fabric` shares it among ranks.

    The views pass in `accumulate` micro-batches, whose loss and metrics are averaged.
    """
    config: OptimConfig = method.config.optim
    set_schedule(optimizer, config, step.index, step.total)
    outputs: list[StepOutput] = []
    for part in micro_batches(views, accumulate):
        more = len(outputs) + 1 < accumulate  # gradients are summed here before ranks exchange them
        with fabric.no_backward_sync(wrapped, enabled=more) if fabric else nullcontext():  # type: ignore[arg-type]
            with torch.autocast(views.key.device.type, torch.bfloat16, enabled=precision == "bf16"):
                output: StepOutput = wrapped(part, step)
            (output.loss / accumulate).backward()  # type: ignore[no-untyped-call]
        outputs.append(output._replace(loss=output.loss.detach()))
    method.on_grads_ready(step)
    clip_gradients(method.parameters(), config)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        method.on_step_end(outputs, step)
    return averaged(outputs)


def fit(
    method: Method,
    dataset: Dataset | Split,
    *,
    budget: Budget | dict[str, Any],
    batch_size: int = 256,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
    log_every: int = 20,
    checkpoint_seconds: float = 60.0,
    workers: int | None = None,
    compile_backbones: bool = False,
    accumulate: int = 1,
    curve: Callable[[nn.Module], dict[str, float]] | None = None,
    curve_steps: Collection[int] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train a method on images, never labels; with `out`, log to and resume bit-exactly from that folder.

    `dataset` is a split, or a data set whose `pretrain` split is taken; `workers` processes decode photos
    (None: one per core, up to 8). Checkpoints come every `checkpoint_seconds`, more rarely where they would
    cost more than a percent; 0: after each step. `compile_backbones` in place within training steps, on one
    GPU as CUDA graphs, which pays there only. `curve` scores the encoder after each of `curve_steps` steps,
    outside of the training's seconds; `on_log` receives each logged record.
    Started by torchrun, ranks share each batch of `batch_size` images, which pass on each rank in
    `accumulate` parts; then the first alone writes and scores; stops and checkpoints come at logged steps.
    Raises ValueError for a budget below one step, or in FLOPs or seconds, a batch that cannot be shared, or a
    checkpoint of another run, FloatingPointError once loss, metrics or weights are not finite,
    TrainingStopped when `should_stop()` turned true.
    """
    split = dataset.split("pretrain") if isinstance(dataset, Dataset) else dataset
    budget = Budget(**budget) if isinstance(budget, dict) else budget
    total = budget.steps_for(len(split), batch_size)
    place = resolve_device(device)
    fabric = ranks.join(place)
    if fabric is not None:
        place = fabric.device
        join_batch_norms(method, place)
    alone = ranks.count() == 1
    number = resolve_precision(precision, place)
    sampler = Sampler(len(split), batch_size, seed, ranks.index(), ranks.count())
    collate = MultiCropCollate(method.config.views, seed)

    method.to(place).to(memory_format=torch.channels_last).train()
    compiled = CompiledBackbones(method) if compile_backbones else nullcontext()
    optimizer = create_optimizer(method.param_groups(), method.config.optim)
    wrapped = ranks.share(fabric, method)
    run = {
        "seed": seed,
        "total": total,
        "batch_size": batch_size,
        **({"accumulate": accumulate} if accumulate > 1 else {}),
        "images": split.fingerprint,
        "precision": number,
        "method": method.name,
        "config": hashlib.sha256(method.config.model_dump_json().encode()).hexdigest()[:16],
    }
    checkpoint = Checkpoint(Path(out) if out is not None else None, run)
    start, spent = checkpoint.load(method, optimizer)
    clock, watch = Clock(*spent), Watch(place)
    before, saved = clock.seconds, time.perf_counter()
    kept, pause = start, checkpoint_seconds
    record: dict[str, float] = {}

    steps = range(start, total)
    loaded = train_views(split, sampler, collate, steps, device=place, workers=workers)

    def save(step: int) -> None:
        require_finite(method, step - 1)
        checkpoint.save(method, optimizer, step, Spent(clock.seconds, clock.data_seconds))

    for index in steps:
        with clock.waiting():
            views = next(loaded)
        if (alone or index % log_every == 0) and ranks.anywhere(should_stop(), place):
            if index > kept:
                watch.read()
                save(index)
            raise TrainingStopped(index)
        step = Step(index, total)
        if accumulate > 1 and index == start:
            warn_if_coupled(method, views, step, accumulate)
        torch.manual_seed(seed_from(seed, index, ranks.index()))
        with compiled:
            output = train_step(
                wrapped, method, optimizer, views, step, number, accumulate=accumulate, fabric=fabric
            )
        watch.see(output, index)

        done, last = index + 1, index + 1 == total
        scored = curve is not None and done in curve_steps
        log = index == 0 or done % log_every == 0 or scored or last
        overdue = time.perf_counter() - saved > pause
        due = last or ((alone or log) and ranks.anywhere(overdue, place))
        if not (log or due):
            continue  # the device goes on without waiting for Python
        values, now, seconds = watch.read(), time.perf_counter(), clock.seconds
        if log:
            record = {
                "step": done,
                "images_seen": done * batch_size,
                "loss": values.pop("loss"),
                "lr": optimizer.param_groups[0]["lr"],
                **values,
                "seconds": seconds,
                "data_seconds": clock.data_seconds,
                "images_per_second": (done - start) * batch_size / (seconds - before),
            }
            if curve is not None and scored and ranks.index() == 0:
                with clock.paused(), ranks.alone():
                    record |= curve(method.encoder)
            checkpoint.log(record)
            if on_log is not None:
                on_log(record)
        if due:
            save(done)
            kept = done
            saved = time.perf_counter()
            pause = max(checkpoint_seconds, _PAUSE * (saved - now)) if checkpoint_seconds else 0.0
    if not record and out is not None:
        record = logged_records(Path(out))[-1]
    return FitResult.after(method, batch_size, record)
