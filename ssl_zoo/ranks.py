"""The processes that share one training: which of them this is, and what they tell each other."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PATIENCE = timedelta(hours=6)  # the first rank evaluates, while others wait for its next word
_BACKENDS = {"cuda": "cpu:gloo,cuda:nccl"}  # features are gathered where they are kept, in memory

_shared = [True]  # the last: whether what runs here is shared with other ranks


def count() -> int:
    """How many ranks share this training; 1 for a process by itself."""
    return dist.get_world_size() if _shared[-1] and dist.is_available() and dist.is_initialized() else 1


def index() -> int:
    """The number of this rank, from 0; the first one writes files."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if launched() > 1 else 0


@contextmanager
def alone(so: bool = True) -> Iterator[None]:
    """Within, this rank works by itself, as when it evaluates; within `alone(False)` with the others."""
    _shared.append(not so)
    try:
        yield
    finally:
        _shared.pop()


def launched() -> int:
    """How many ranks torchrun started, this process being one of them; 1 without it."""
    return max(count(), int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1)


def launched_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", launched()))


def join(device: torch.device) -> "Fabric | None":
    """Connect with the ranks that torchrun started: Fabric over NCCL or gloo; None for a process by itself.

    Called again, it returns another view on the same group. Batch norm's buffers are not broadcast: every
    rank computes the same.
    """
    if launched() == 1:
        return None
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    fabric = Fabric(
        accelerator=device.type,
        devices=launched_here(),
        num_nodes=launched() // launched_here(),
        strategy=DDPStrategy(
            process_group_backend=_BACKENDS.get(device.type, "gloo"),
            timeout=_PATIENCE,
            broadcast_buffers=False,
        ),
    )
    fabric.launch()
    return fabric


def share(fabric: "Fabric | None", module: nn.Module) -> nn.Module:
    """The module whose call makes ranks average their gradients; `module` itself without a `fabric`."""
    if fabric is None:
        return module
    with warnings.catch_warnings():  # its successor's name is not known to every torch that is supported
        warnings.filterwarnings("ignore", ".*broadcast_buffers.* is deprecated", FutureWarning)
        return fabric.setup_module(module)


def total(x: Tensor) -> Tensor:
    """The sum of `x` over ranks, with the gradient of every rank's loss."""
    return x if count() == 1 else _Total.apply(x)


def mean(x: Tensor) -> Tensor:
    """The mean of `x` over ranks, with its gradient."""
    return x if count() == 1 else total(x) / count()


def least(x: Tensor) -> Tensor:
    """The smallest value of each element of `x` over ranks."""
    if count() > 1:
        dist.all_reduce(x := x.clone(), dist.ReduceOp.MIN)
    return x


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """The ranks' `x`, all of one shape, one after the other along `dim`; gradients flow back to each rank."""
    return x if count() == 1 else _Gather.apply(x.transpose(0, dim)).transpose(0, dim)


def own(x: Tensor, dim: int = 0) -> Tensor:
    """This rank's part of what lies along `dim` as `gather` returns it."""
    return x if count() == 1 else x.chunk(count(), dim)[index()]


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on any rank; all of them must ask."""
    return flag if count() == 1 else bool(total(torch.tensor(float(flag), device=device)))


def first_of(value: Any) -> Any:
    """What the first rank holds; all of them must ask."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def collect(part: Tensor, whole: Tensor, rows: Sequence[range]) -> None:
    """Write each rank's `part` into its `rows` of `whole`, which lies on the first rank."""
    if index():
        if len(part):
            dist.send(part.contiguous(), 0)
        return
    whole[: len(part)] = part
    for rank, theirs in enumerate(rows[1:], 1):
        if theirs:
            dist.recv(whole[theirs.start : theirs.stop], rank)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _summed(grad)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(count())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return own(_summed(grad))


def _summed(x: Tensor) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x
