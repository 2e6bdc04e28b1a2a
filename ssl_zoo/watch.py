"""What a training costs, and whether it is still finite, without waiting for the device at each step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssl_zoo import ranks
from ssl_zoo.method import StepOutput

_NEVER = 2**62  # no step comes later


class Clock:
    """Seconds of a training, going on from those spent before, without what is `paused`."""

    def __init__(self, seconds: float, data_seconds: float) -> None:
        self._began = time.perf_counter() - seconds
        self.data_seconds = data_seconds

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what passes as waiting for data."""
        began = time.perf_counter()
        yield
        self.data_seconds += time.perf_counter() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began


class Watch:
    """Loss and metrics as they pass, kept on `device`: nothing waits for it until they are read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: tuple[str, ...] = ()
        self._latest = torch.empty(0)
        self._first: dict[tuple[str, ...], Tensor] = {}  # names -> the first step at which each was broken

    def see(self, output: StepOutput, index: int) -> None:
        """Note what step `index` gave."""
        values = {"loss": output.loss, **output.metrics}
        self._names = tuple(values)
        moved = [value.to(self._device, torch.float32, non_blocking=True) for value in values.values()]
        self._latest = torch.stack(moved)
        broken = torch.where(self._latest.isfinite(), _NEVER, index)
        self._first[self._names] = torch.minimum(broken, self._first.get(self._names, broken))

    def read(self) -> dict[str, float]:
        """Wait for the device and return the latest values, their means over ranks, which read together.

        Raises FloatingPointError if any value seen was not finite, and names those of the earliest such step.
        """
        first = [
            (step, name)
            for names, steps in self._first.items()
            for step, name in zip(ranks.least(steps).tolist(), names, strict=True)
        ]
        earliest = min(first)[0]
        if earliest != _NEVER:
            broken = ", ".join(name for step, name in first if step == earliest)
            raise FloatingPointError(f"{broken} not finite at step {earliest}; lower optim.lr")
        return dict(zip(self._names, ranks.mean(self._latest).tolist(), strict=True))


def require_finite(module: nn.Module, index: int) -> None:
    """Raise FloatingPointError if step `index` broke weights, which the loss would show a step later."""
    for name, parameter in module.named_parameters():
        if not parameter.isfinite().all():
            raise FloatingPointError(f"{name} not finite after step {index}; lower optim.lr")
