"""The contract between self-supervised methods and everything that feeds, trains and evaluates them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ssl_zoo.nets import Backbone
from ssl_zoo.optim import OptimConfig, ParamGroup, split_by_decay

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Hue = Annotated[float, Field(ge=0, le=0.5)]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("write [low, high] with low <= high")
    return bounds


@dataclass(frozen=True, config=_STRICT)
class Augment:
    """How one crop is drawn: random resized crop, flip, colour jitter, grey, blur, solarize, in this order.

    `size` in pixels; `scale` share of the image's area; `jitter` strength of brightness, contrast, saturation
    and hue (torchvision's ColorJitter); `blur_sigma` in pixels of the crop; `*_p` and `flip` probabilities.
    """

    size: Annotated[int, Field(ge=1, le=4096)]
    scale: Annotated[tuple[Share, Share], AfterValidator(_ordered)]
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(_ordered)] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    flip: Probability = 0.5
    jitter: tuple[NonNegative, NonNegative, NonNegative, Hue] = (0.4, 0.4, 0.2, 0.1)
    jitter_p: Probability = 0.8
    gray_p: Probability = 0.2
    blur_p: Probability = 0.0
    blur_sigma: Annotated[tuple[Positive, Positive], AfterValidator(_ordered)] = (0.1, 2.0)
    solarize_p: Probability = 0.0


@dataclass(frozen=True, config=_STRICT)
class ViewSpec:
    """The views of one image: global crops, all of one size, and `local_count` crops drawn as `local`."""

    global_views: tuple[Augment, ...]
    local: Augment | None = None
    local_count: int = 0

    def __post_init__(self) -> None:
        if not self.global_views:
            raise ValueError("a ViewSpec needs at least one global view")
        if len({view.size for view in self.global_views}) != 1:
            sizes = [view.size for view in self.global_views]
            raise ValueError(f"global views have sizes {sizes}; give all of them one size")
        if (self.local is None) != (self.local_count == 0):
            raise ValueError(f"local_count={self.local_count} with local={self.local}; give both or neither")

    @property
    def views(self) -> tuple[Augment, ...]:
        """Each view of an image, the global ones first."""
        return (*self.global_views, *([self.local] * self.local_count if self.local else ()))


class Views(NamedTuple):
    """Augmented crops of a batch; crops of one size are one tensor, crop-major.

    `global_crops` [G, B, C, H, W]; `local_crops` [L, B, C, h, w] or None; `index` [B] data set index (-1:
    unknown); `key` [B] hash(seed, epoch, index), the only source of per-image randomness.
    """

    global_crops: Tensor
    local_crops: Tensor | None
    index: Tensor  # type: ignore[assignment]  # tuple.index: nobody searches Views
    key: Tensor

    @classmethod
    def from_list(cls, crops: Sequence[Tensor], index: Tensor | None = None) -> Self:
        """Views made by any other loader: tensors [B, C, H, W] of one or two sizes, the larger ones global.

        Keys come from torch's generator. Raises ValueError for more than two sizes.
        """
        by_size: dict[int, list[Tensor]] = {}
        for crop in crops:
            by_size.setdefault(crop.shape[-1], []).append(crop)
        if not 1 <= len(by_size) <= 2:
            raise ValueError(f"crops have widths {sorted(by_size)}; give one or two sizes (global, local)")
        largest = max(by_size)
        local = [torch.stack(group) for size, group in by_size.items() if size != largest]
        batch, device = crops[0].shape[0], crops[0].device
        key = torch.randint(2**62, (batch,)).to(device)
        index = torch.full((batch,), -1) if index is None else index
        return cls(torch.stack(by_size[largest]), local[0] if local else None, index.to(device), key)


class Step(NamedTuple):
    """The optimizer step `index` of `total`; schedules are functions of `progress` in [0, 1)."""

    index: int  # type: ignore[assignment]
    total: int

    @property
    def progress(self) -> float:
        return self.index / self.total


class StepOutput(NamedTuple):
    """What `forward` returns: scalar `loss`, and detached: scalar `metrics`, `carry` for `on_step_end`."""

    loss: Tensor
    metrics: dict[str, Tensor]
    carry: Any = None


class MethodConfig(BaseModel):
    """Base of every method's configuration: frozen, unknown keys are errors, every field has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optim: OptimConfig = OptimConfig()
    views: ViewSpec

    @field_validator("optim", mode="before")
    @classmethod
    def _rest_of_optim(cls, given: Any) -> Any:
        """Fields of `optim` that are not given are the method's own, not those of any optimizer."""
        own = cls.model_fields["optim"].default
        return {**own.model_dump(), **given} if isinstance(given, Mapping) else given

    def space(self) -> dict[str, list[Any]]:
        """The values that tuning draws from, per field (`optim.lr`): around the configuration's own."""
        return {
            "optim.lr": [self.optim.lr * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0)],
            "optim.weight_decay": [self.optim.weight_decay * factor for factor in (0.25, 1.0, 4.0)],
        }

    def for_data(self, images: int) -> Self:
        """The configuration that suits a training set of so many images; the default needs no change."""
        return self


class Method(nn.Module, ABC):
    """A self-supervised objective over a backbone; all of its state lives in parameters and buffers."""

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    backbone_type: ClassVar[type[Backbone]] = Backbone  # type: ignore[type-abstract]
    projected: ClassVar[frozenset[str]] = frozenset()  # trained parameters that on_step_end may move

    def __init__(self, backbone: Backbone, config: MethodConfig) -> None:
        super().__init__()
        self.config = config

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """The backbone that is evaluated, or a copy: images [B, C, H, W] -> features [B, out_dim]."""

    @abstractmethod
    def forward(self, views: Views, step: Step) -> StepOutput:
        """The training step; changes no state but batch-norm statistics."""

    def on_grads_ready(self, step: Step) -> None:
        """Called after the backward pass, before clipping and the optimizer."""

    def on_step_end(self, outputs: Sequence[StepOutput], step: Step) -> None:
        """Called after the optimizer, with an output per micro-batch: only here untrained state moves."""

    def param_groups(self) -> list[ParamGroup]:
        """Trained parameters for the optimizer; by default biases and 1-d parameters are not decayed."""
        return split_by_decay(self.named_parameters())
