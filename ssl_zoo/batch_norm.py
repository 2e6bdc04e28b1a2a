"""Batch norm by groups of a batch, and with the statistics of all ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_zoo import ranks

Stats = Tensor | None  # running mean and variance [2, ..., C], where they are tracked


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
        if ranks.count() > 1:
            return _across_ranks(self, input, groups)
        stats: Stats = None
        if self.running_mean is not None and self.running_var is not None and self.track_running_stats:
            stats = torch.stack([self.running_mean, self.running_var]).unsqueeze(1).repeat(1, groups, 1)
        # a CPU takes longer to bring groups side by side, a GPU to begin so many operations
        apart = input.device.type == "cpu" or input.shape[0] % groups
        x = self._part_by_part(input, groups, stats) if apart else self._side_by_side(input, groups, stats)
        if stats is not None:
            with torch.no_grad():
                self.running_mean.copy_(stats[0].mean(0))  # type: ignore[union-attr]
                self.running_var.copy_(stats[1].mean(0))  # type: ignore[union-attr]
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        return x

    def _part_by_part(self, input: Tensor, groups: int, stats: Stats) -> Tensor:
        # not tensor_split of the input: its parts send back a gradient of the whole batch each
        sizes = [len(part) for part in torch.arange(len(input)).tensor_split(groups)]
        each = [None] * groups if stats is None else stats.unbind(1)
        parts = zip(torch.split(input, sizes), each, strict=True)
        return torch.cat([self._normalize(part, own, self.weight, self.bias) for part, own in parts])

    def _side_by_side(self, input: Tensor, groups: int, stats: Stats) -> Tensor:
        """The channels of all groups side by side: one call, and channels_last stays as it is."""
        channels, height, width = input.shape[1:]
        own = None if stats is None else stats.flatten(1)
        weight, bias = (None if x is None else x.repeat(groups) for x in (self.weight, self.bias))
        x = input.permute(0, 2, 3, 1).reshape(groups, -1, height, width, channels)
        x = x.permute(1, 2, 3, 0, 4).flatten(3).permute(0, 3, 1, 2)
        x = self._normalize(x, own, weight, bias).permute(0, 2, 3, 1)
        x = x.reshape(-1, height, width, groups, channels)
        return x.permute(3, 0, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)

    def _normalize(self, x: Tensor, stats: Stats, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        mean, variance = (None, None) if stats is None else stats
        momentum = self.momentum or 0.0
        return F.batch_norm(x, mean, variance, weight, bias, True, momentum, self.eps)


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
