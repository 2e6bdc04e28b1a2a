"""What networks share: backbone types, the branch of backbone and head, batch norm by groups and ranks."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_zoo import ranks

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


@contextmanager
def batch_statistics_only(module: nn.Module) -> Iterator[None]:
    """Within it, batch norms in train mode use the batch's statistics and do not write running ones."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


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


def groups_of_two_or_more(batch: int, groups: int) -> int:
    """How many of `groups` a batch can fill with two images each, at least one: batch norm needs two."""
    return max(1, min(groups, batch // 2))


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over each of `groups` consecutive parts of the batch, as if they lay on several devices.

    Running statistics are the mean of the groups' (MoCo's SplitBatchNorm, colab-notebook branch). Groups are
    those of the whole batch: ranks that share it may hold several of them or a part of one.
    """

    groups: int = 1

    def forward(self, input: Tensor) -> Tensor:
        groups = groups_of_two_or_more(input.shape[0] * ranks.count(), self.groups)
        if not self.training or (groups == 1 and ranks.count() == 1):
            return super().forward(input)
        if ranks.count() > 1 or input.shape[0] % groups:
            return _across_ranks(self, input, groups)
        # the channels of all groups side by side: one call, and channels_last stays as it is
        channels, height, width = input.shape[1:]
        x = input.permute(0, 2, 3, 1).reshape(groups, -1, height, width, channels)
        stats = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        means, variances, weight, bias = (
            None if values is None else values.repeat(groups) for values in (*stats, self.weight, self.bias)
        )
        x = F.batch_norm(
            x.permute(1, 2, 3, 0, 4).flatten(3).permute(0, 3, 1, 2),
            means,
            variances,
            weight,
            bias,
            training=True,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )
        if means is not None and variances is not None:
            with torch.no_grad():
                self.running_mean.copy_(means.view(groups, -1).mean(0))  # type: ignore[union-attr]
                self.running_var.copy_(variances.view(groups, -1).mean(0))  # type: ignore[union-attr]
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        x = x.permute(0, 2, 3, 1).reshape(-1, height, width, groups, channels)
        return x.permute(3, 0, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)


def group_batch_norms(module: nn.Module, groups: int) -> None:
    """Turn every BatchNorm2d of `module` into a GroupedBatchNorm2d in place; parameters and names stay.

    Raises ValueError for another batch norm, which several groups would leave as it is.
    """
    for norm in module.modules():
        if type(norm) in (nn.BatchNorm2d, GroupedBatchNorm2d):
            norm.__class__ = GroupedBatchNorm2d
            norm.groups = groups  # type: ignore[assignment]
        elif isinstance(norm, _BatchNorm) and groups > 1:
            raise ValueError(
                f"{type(norm).__name__} cannot be split into {groups} groups; take a backbone with torch's "
                "BatchNorm2d or without batch norm, or set the groups to 1"
            )


class _AcrossRanks(_BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        alone = not self.training or ranks.count() == 1
        return super().forward(input) if alone else _across_ranks(self, input, 1)


class BatchNorm1dAcrossRanks(_AcrossRanks, nn.BatchNorm1d):
    """Batch norm of [B, C] or [B, C, L] with the statistics of all ranks' batches together."""


class BatchNorm2dAcrossRanks(_AcrossRanks, nn.BatchNorm2d):
    """Batch norm of [B, C, H, W] with the statistics of all ranks' batches together."""


class SyncBatchNorm(nn.SyncBatchNorm):
    """torch's, but that of one rank alone while it evaluates by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if ranks.count() > 1 else _BatchNorm.forward(self, input)


_ACROSS_RANKS: dict[type[_BatchNorm], type[_AcrossRanks]] = {
    nn.BatchNorm1d: BatchNorm1dAcrossRanks,
    nn.BatchNorm2d: BatchNorm2dAcrossRanks,
}


def join_batch_norms(module: nn.Module, device: torch.device) -> None:
    """Make batch norms use the statistics of all ranks, in place; parameters and names stay.

    torch's SyncBatchNorm on a GPU; it takes no tensor on a CPU, where torch's own sums over ranks serve.
    Raises ValueError for a batch norm that is neither torch's BatchNorm1d or 2d nor grouped.
    """
    for parent in list(module.modules()):
        for name, norm in parent.named_children():
            joined = isinstance(norm, GroupedBatchNorm2d | _AcrossRanks | nn.SyncBatchNorm)
            if joined or not isinstance(norm, _BatchNorm):
                continue
            if type(norm) not in _ACROSS_RANKS:
                raise ValueError(
                    f"{type(norm).__name__} normalises each rank's part of the batch by itself; train on one "
                    "device, or take a backbone with torch's BatchNorm2d or without batch norm"
                )
            if device.type == "cuda":
                synced = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
                synced.__class__ = SyncBatchNorm
                setattr(parent, name, synced)
            else:
                norm.__class__ = _ACROSS_RANKS[type(norm)]


def _across_ranks(norm: _BatchNorm, input: Tensor, groups: int) -> Tensor:
    """Normalise [B, C, ...], this rank's part, by each of `groups` consecutive parts of all ranks' batch."""
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    x = x.flatten(2) if x.ndim > 2 else x.unsqueeze(-1)
    parts = torch.arange(len(x) * ranks.count(), device=x.device).tensor_split(groups)
    sizes = x.new_tensor([[len(part) * x.shape[2]] for part in parts])
    group = ranks.own(torch.cat([torch.full_like(part, i) for i, part in enumerate(parts)]))

    def averaged(values: Tensor) -> Tensor:
        sums = values.new_zeros(groups, values.shape[1]).index_add(0, group, values.sum(2))
        return ranks.total(sums) / sizes

    means = averaged(x)
    x = x - means[group].unsqueeze(-1)
    variances = averaged(x.square())
    x = x * (variances + norm.eps).rsqrt()[group].unsqueeze(-1)
    if norm.affine:
        x = x * norm.weight.unsqueeze(-1) + norm.bias.unsqueeze(-1)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            unbiased = variances * (sizes / (sizes - 1))
            norm.running_mean.lerp_(means.mean(0), norm.momentum or 0.0)
            norm.running_var.lerp_(unbiased.mean(0), norm.momentum or 0.0)
            norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    return x.view(input.shape).to(input.dtype)
