"""What networks share: backbone types, the branch of backbone and head, views that pass through them."""

import math
from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_zoo import ranks
from ssl_zoo.batch_norm import batch_statistics_only

Head = TypeVar("Head", bound=nn.Module)


class Backbone(nn.Module, ABC):
    """Maps images [B, C, H, W] to features [B, out_dim]; states its width, so that nobody has to probe.

    `net` does the work; files hold its weights under its own names, which are timm's or torchvision's.
    """

    out_dim: int
    net: nn.Module

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class CompiledBackbones:
    """Within it, a training step, the backbones of `method` are compiled in place; elsewhere they are not.

    An encoder is evaluated on batches of other sizes, each of which would be compiled. On a GPU that trains
    alone passes are CUDA graphs, whose outputs stay until the next step.
    """

    def __init__(self, method: nn.Module) -> None:
        self._backbones = [part for part in method.modules() if isinstance(part, Backbone)]
        for part in self._backbones:
            part.compile(mode="reduce-overhead" if ranks.count() == 1 else None)
        self._calls = [part._compiled_call_impl for part in self._backbones]
        self.__exit__()

    def __enter__(self) -> None:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        for part, call in zip(self._backbones, self._calls, strict=True):
            part._compiled_call_impl = call

    def __exit__(self, *_: object) -> None:
        for part in self._backbones:
            part._compiled_call_impl = None


class Tokens(NamedTuple):
    """Tokens of a transformer: `prefix` [B, P, D] (class, registers), `patches` [B, N, D], `grid` (h, w)."""

    prefix: Tensor
    patches: Tensor
    grid: tuple[int, int]


class TokenBackbone(Backbone):
    """A backbone that can also return its tokens; `patch_size` in pixels tells their number beforehand."""

    patch_size: int

    @abstractmethod
    def tokens(self, x: Tensor, *, mask: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
        """Tokens of images [B, C, H, W].

        `mask` [B, N] bool: patches whose embedding is replaced by a mask token; `keep` [B, M] int64: the only
        patches that enter the transformer (MAE), and `patches` is [B, M, D].
        """


class Branch(nn.Module, Generic[Head]):
    """Backbone and head as one network: student, teacher, online, target or key encoder."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: Head = head

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] -> the head's output [B, D]."""
        out: Tensor = self.head(self.backbone(x))
        return out

    def by_resolution(self, global_crops: Tensor, local_crops: Tensor | None = None) -> Tensor:
        """One backbone pass per resolution, one head pass: [G, B, ...], [L, B, ...] -> [G + L, B, D].

        As official DINO's MultiCropWrapper; local crops do not write running statistics.
        """
        return self.project(self.features_by_resolution(global_crops, local_crops))

    def features_by_resolution(self, global_crops: Tensor, local_crops: Tensor | None = None) -> Tensor:
        """The backbone's part of `by_resolution`: features [G + L, B, out_dim]."""
        features = [self.backbone(global_crops.flatten(0, 1))]
        if local_crops is not None:
            with batch_statistics_only(self.backbone):
                features.append(self.backbone(local_crops.flatten(0, 1)))
        out = torch.cat(features)
        return out.view(-1, global_crops.shape[1], out.shape[-1])

    def project(self, features: Tensor) -> Tensor:
        """The head over all views in one pass: features [V, B, out_dim] -> [V, B, D]."""
        out: Tensor = self.head(features.flatten(0, 1))
        return out.view(*features.shape[:2], -1)


def each_view(network: nn.Module, global_crops: Tensor, local_crops: Tensor | None = None) -> Tensor:
    """Each view as its own batch: [G, B, ...], [L, B, ...] -> [G + L, B, D]; batch norm never mixes views.

    Local crops do not write running statistics.
    """
    out = [network(view) for view in global_crops]
    if local_crops is not None:
        with batch_statistics_only(network):
            out += [network(view) for view in local_crops]
    return torch.stack(out)


def cross_view_pairs(targets: int, students: int) -> list[tuple[int, int]]:
    """Pairs (target i, student j), i != j: the first `targets` student views are the target views.

    Raises ValueError for a single view, which has no other to be compared with.
    """
    pairs = [(i, j) for i in range(targets) for j in range(students) if i != j]
    if not pairs:
        raise ValueError("one view of an image cannot be compared with another; give two global_views")
    return pairs


def feature_std(x: Tensor) -> Tensor:
    """Mean deviation of L2-normalised features `x` [N, D], times sqrt(D): 0 if constant, 1 if isotropic.

    From Chen & He 2021 (SimSiam), figure 2. Features with a common offset, as after a ReLU, lie below 1.
    `x` is this rank's part of a batch.
    """
    x = F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
    variance = ranks.mean((x - ranks.mean(x.mean(0))).square().mean(0))
    return variance.sqrt().mean() * math.sqrt(x.shape[1])
