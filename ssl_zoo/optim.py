"""Optimizers, their schedules and gradient clipping."""

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ssl_zoo.schedules import cosine, warmup_cosine

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(BaseModel):
    """Optimizer of a run; `lr` is used as written, never rescaled by the batch size.

    `warmup_fraction` is a share of the budget; `weight_decay` moves to `weight_decay_end` by cosine (None:
    constant); `clip` is a norm, of each parameter by itself as in the official DINO code or of all together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: NonNegative = 1e-3
    min_lr: NonNegative = 1e-6
    warmup_fraction: Fraction = 0.1
    weight_decay: NonNegative = 0.04
    weight_decay_end: NonNegative | None = None
    momentum: Momentum = 0.9
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    clip: Annotated[float, Field(gt=0)] | None = None
    clip_mode: Literal["parameter", "global"] = "parameter"

    @model_validator(mode="after")
    def _lars_decays(self) -> "OptimConfig":
        if self.name == "lars" and 0.0 in (self.weight_decay, self.weight_decay_end):
            raise ValueError("lars scales only what decays; give a weight_decay above 0, such as 1e-6")
        return self


class ParamGroup(NamedTuple):
    """Parameters treated alike; `fixed_lr` exempts them from the schedule, `lr_scale` multiplies it."""

    params: list[nn.Parameter]
    decay: bool
    lr_scale: float = 1.0
    fixed_lr: bool = False


def split_by_decay(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[ParamGroup]:
    """Trainable parameters in two groups: decayed, and bias or one-dimensional (official DINO code)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in parameters:
        if parameter.requires_grad:
            (plain if parameter.ndim <= 1 or name.endswith("bias") else decayed).append(parameter)
    return [ParamGroup(decayed, decay=True), ParamGroup(plain, decay=False)]


def create_optimizer(groups: list[ParamGroup], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer over a method's parameter groups; empty groups are dropped."""
    params = [{**group._asdict(), "params": group.params} for group in groups if group.params]
    match config.name:
        case "adamw":
            return torch.optim.AdamW(params, lr=config.lr, betas=config.betas, weight_decay=0.0, fused=True)
        case "sgd":
            # not fused: that fails once a parameter gets its first gradient later than others (frozen layers)
            return torch.optim.SGD(params, lr=config.lr, momentum=config.momentum, foreach=True)
        case "lars":
            from lightly.utils.lars import LARS

            optimizer: torch.optim.Optimizer = LARS(params, lr=config.lr, momentum=config.momentum)
            return optimizer


def schedule(config: OptimConfig, index: int, total: int) -> dict[str, float]:
    """Learning rate and weight decay of step `index` of `total`."""
    end = config.weight_decay if config.weight_decay_end is None else config.weight_decay_end
    return {
        "lr": warmup_cosine(index, total, config.lr, config.min_lr, config.warmup_fraction),
        "weight_decay": cosine(index / total, config.weight_decay, end),
    }


def set_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, index: int, total: int) -> None:
    """Write the learning rate and weight decay of step `index` of `total` into the optimizer."""
    now = schedule(config, index, total)
    for group in optimizer.param_groups:
        group["lr"] = (config.lr if group["fixed_lr"] else now["lr"]) * group["lr_scale"]
        group["weight_decay"] = now["weight_decay"] if group["decay"] else 0.0


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], config: OptimConfig) -> None:
    """Clip gradients in place to norm `config.clip`, g * min(1, clip / (norm + 1e-6)); None: no clipping."""
    if config.clip is None:
        return
    grads: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    norms = torch.stack(torch._foreach_norm(grads))
    if config.clip_mode == "global":
        norms = norms.norm().expand(len(grads))
    factors = (config.clip / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(grads, list(factors.unbind()))
