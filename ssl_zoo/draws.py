"""Counter-based randomness: a draw is a pure function of its counters, so there is no generator to save."""

import torch
from torch import Tensor


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GAMMA, _MIX1, _MIX2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical: torch shifts int64 arithmetically


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX1
    x = (x ^ _shift_right(x, 27)) * _MIX2
    return x ^ _shift_right(x, 31)


def hash64(*parts: Tensor | int) -> Tensor:
    """Hash integers to int64, broadcasting tensors; SplitMix64 (Steele et al. 2014) folded over `parts`."""
    state = torch.zeros((), dtype=torch.int64)
    for part in parts:
        part = torch.as_tensor(part, dtype=torch.int64)
        state = _mix((state.to(part.device) ^ part) + _GAMMA)
    return state


def seed_from(*parts: int) -> int:
    """Seed for `torch.manual_seed` from integers such as (seed, step, rank)."""
    return int(hash64(*parts))


def uniform(key: Tensor, count: int, stream: int = 0) -> Tensor:
    """Numbers in [0, 1): keys [B] int64 -> [B, count] float32; another `stream` gives independent draws."""
    counters = torch.arange(count, device=key.device)
    bits = hash64(key.unsqueeze(-1), stream, counters)
    return _shift_right(bits, 40).float() * 2.0**-24


def permutation(size: int, *parts: int) -> Tensor:
    """Permutation of `range(size)` named by integers such as (seed, epoch): [size] int64."""
    return hash64(*parts, torch.arange(size)).argsort(stable=True)


def sample(x: Tensor, most: int) -> Tensor:
    """Up to `most` rows of `x` [N, ...]: all as they are, or of more a random subset, always the same."""
    return x if len(x) <= most else x[permutation(len(x), 0)[:most]]
