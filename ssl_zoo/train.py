"""The training loop, one for all methods, and its checkpoint."""

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from ssl_zoo.checkpoint import Checkpoint, logged_records
from ssl_zoo.data.collate import MultiCropCollate
from ssl_zoo.data.datasets import Dataset, Split
from ssl_zoo.data.loading import train_views
from ssl_zoo.data.sampler import Sampler
from ssl_zoo.draws import seed_from
from ssl_zoo.method import Method, Step, StepOutput, Views
from ssl_zoo.nets import Backbone
from ssl_zoo.optim import OptimConfig, clip_gradients, create_optimizer, set_schedule
from ssl_zoo.watch import Watch, require_finite

Precision = Literal["fp32", "bf16"]
Positive = Annotated[float, Field(gt=0)]

_PAUSE = 100  # times what a checkpoint took: they cost below one percent


class Budget(BaseModel):
    """How long to train, in exactly one unit: passes over the images, images, or optimizer steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Positive | None = None
    images: Annotated[int, Field(gt=0)] | None = None
    steps: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(f"a budget is exactly one of epochs, images, steps; given: {given or 'none'}")
        return self

    def steps_for(self, images: int, batch_size: int) -> int:
        """Whole optimizer steps on a set of `images`; raises ValueError if that is less than one."""
        if self.steps is not None:
            return self.steps
        wanted = self.images if self.images is not None else round((self.epochs or 0) * images)
        if wanted < batch_size:
            raise ValueError(
                f"a budget of {wanted} images is less than one batch of {batch_size}; "
                "raise the budget or lower batch_size"
            )
        return wanted // batch_size


class FitResult(NamedTuple):
    """A finished training: the `method` and what it cost; `seconds` add up over resumed parts."""

    method: Method
    steps: int
    images_seen: int
    views_seen: int
    seconds: float
    metrics: dict[str, float]

    @classmethod
    def after(
        cls, method: Method, steps: int, batch_size: int, seconds: float, metrics: dict[str, float]
    ) -> Self:
        """The result of so many steps."""
        images, spec = steps * batch_size, method.config.views
        views = images * (len(spec.global_views) + spec.local_count)
        return cls(method, steps, images, views, seconds, metrics)


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
) -> StepOutput:
    """One optimizer step; `wrapped` is the method, or the method in a distributed wrapper."""
    config: OptimConfig = method.config.optim
    set_schedule(optimizer, config, step.index, step.total)
    autocast = torch.autocast(views.key.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with autocast:
        output: StepOutput = wrapped(views, step)
    output.loss.backward()  # type: ignore[no-untyped-call]
    method.on_grads_ready(step)
    clip_gradients(method.parameters(), config)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    output = output._replace(loss=output.loss.detach())
    with torch.no_grad():
        method.on_step_end([output], step)
    return output


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
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train a method on images, never labels; with `out`, log to and resume bit-exactly from that folder.

    `dataset` is a split, or a data set whose `pretrain` split is taken; `workers` processes decode photos
    (None: one per core, up to 8). Checkpoints come every `checkpoint_seconds`, more rarely where they would
    cost more than a percent; 0: after each step. `compile_backbones` by torch.compile, in place, which pays
    on GPUs only; `on_log` receives each logged record.
    Raises ValueError for a budget below one step or a checkpoint of another run, FloatingPointError once
    loss, metrics or weights are not finite, TrainingStopped when `should_stop()` turned true.
    """
    split = dataset.split("pretrain") if isinstance(dataset, Dataset) else dataset
    budget = Budget(**budget) if isinstance(budget, dict) else budget
    total = budget.steps_for(len(split), batch_size)
    place = resolve_device(device)
    number = resolve_precision(precision, place)
    sampler = Sampler(len(split), batch_size, seed)
    collate = MultiCropCollate(method.config.views, seed)

    method.to(place).to(memory_format=torch.channels_last).train()
    for part in method.modules() if compile_backbones else ():
        if isinstance(part, Backbone):
            part.compile()
    optimizer = create_optimizer(method.param_groups(), method.config.optim)
    run = {
        "seed": seed,
        "total": total,
        "batch_size": batch_size,
        "images": split.fingerprint,
        "precision": number,
        "method": method.name,
        "config": hashlib.sha256(method.config.model_dump_json().encode()).hexdigest()[:16],
    }
    checkpoint = Checkpoint(Path(out) if out is not None else None, run)
    start, spent = checkpoint.load(method, optimizer)
    began = saved = time.perf_counter()
    kept, pause = start, checkpoint_seconds
    watch = Watch(place)
    record: dict[str, float] = {}

    steps = range(start, total)
    loaded = train_views(split, sampler, collate, steps, device=place, workers=workers)

    def save(step: int) -> None:
        require_finite(method, step - 1)
        checkpoint.save(method, optimizer, step, spent + time.perf_counter() - began)

    for index, views in zip(steps, loaded, strict=True):
        if should_stop():
            if index > kept:
                watch.read()
                save(index)
            raise TrainingStopped(index)
        step = Step(index, total)
        torch.manual_seed(seed_from(seed, index, 0))
        output = train_step(method, method, optimizer, views, step, number)
        watch.see(output, index)

        done, last = index + 1, index + 1 == total
        log = index == 0 or done % log_every == 0 or last
        due = last or time.perf_counter() - saved > pause
        if not (log or due):
            continue  # the device goes on without waiting for Python
        values, now = watch.read(), time.perf_counter()
        if log:
            record = {
                "step": done,
                "images_seen": done * batch_size,
                "loss": values.pop("loss"),
                "lr": optimizer.param_groups[0]["lr"],
                **values,
                "seconds": spent + now - began,
                "images_per_second": (done - start) * batch_size / (now - began),
            }
            checkpoint.log(record)
            if on_log is not None:
                on_log(record)
        if due:
            save(done)
            kept = done
            saved = time.perf_counter()
            pause = max(checkpoint_seconds, _PAUSE * (saved - now)) if checkpoint_seconds else 0.0
    seconds = spent + time.perf_counter() - began
    if not record and out is not None:
        record = logged_records(Path(out))[-1]
    return FitResult.after(method, total, batch_size, seconds, record)
