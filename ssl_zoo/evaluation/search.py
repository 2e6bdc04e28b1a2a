"""Exact nearest neighbours by inner product: faiss where installed, torch elsewhere, with equal results."""

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

_BANK_BYTES = 2**26  # of the bank searched at once, so that a memory-mapped one need not fit into memory
_CHUNK_SCORES = 2**24  # scores that torch holds at once: 64 MiB
_FINITE_ROWS = 2**16
_BLAS, _KERNELS = "OPENBLAS_CORETYPE", {"AVX512": "SKYLAKEX", "AVX2": "HASWELL"}
_FAISS_ROWS = 4096  # faiss holds a block of scores only, and is six times slower below some 400 queries


def search(
    queries: Tensor, bank: Tensor, k: int, *, backend: str = "auto", cosine: bool = False
) -> tuple[Tensor, Tensor]:
    """The `k` rows of `bank` [N, D] with the largest inner product with each of `queries` [M, D].

    `cosine` normalises both first. Memory is bounded: 64 MiB of the bank are worked on at a time.
    Returns scores [M, k] float32, largest first, and indices [M, k] int64; equal scores come in the order of
    their index, also across the border at k. `backend`: "faiss" (CPU), "torch" or "auto". The backends
    agree up to float32 rounding: two rows whose true scores differ by less than that may swap places.
    Raises ValueError for k outside 1..N, features of other shapes or an unknown backend, FloatingPointError
    for features that are not finite.
    """
    if backend not in ("auto", "faiss", "torch"):
        raise ValueError(f"unknown search backend {backend!r}; allowed: auto, faiss, torch")
    check_features(queries, bank)
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(
            f"queries are {queries.shape[1]} numbers wide, the bank {bank.shape[1]}; use one encoder"
        )
    if not 1 <= k <= len(bank):
        raise ValueError(f"k={k} neighbours from a bank of {len(bank)} rows; give a k from 1 to {len(bank)}")
    use_faiss = backend == "faiss" or (backend == "auto" and queries.device.type == "cpu" and has_faiss())
    rows = max(k, _BANK_BYTES // (4 * max(1, bank.shape[1])))
    queries, best = _prepared(queries, cosine), None
    for start in range(0, len(bank), rows):
        part = _prepared(bank[start : start + rows], cosine)
        nearest = _faiss(part) if use_faiss else _torch(part)
        chunks = torch.split(queries, _FAISS_ROWS if use_faiss else _torch_rows(part))
        found = [_ordered(chunk, part, min(k, len(part)), nearest) for chunk in chunks]
        scores, indices = (torch.cat(values) for values in zip(*found, strict=True))
        best = _best((scores, indices + start), best, k)
    assert best is not None
    return best


def _prepared(x: Tensor, cosine: bool) -> Tensor:
    x = x.detach().float()
    return F.normalize(x) if cosine else x


def _best(
    found: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor] | None, k: int
) -> tuple[Tensor, Tensor]:
    if before is None:
        return found
    scores, indices = (torch.cat(pair, 1) for pair in zip(before, found, strict=True))
    first = _rank(scores, indices).topk(k).indices
    return scores.gather(1, first), indices.gather(1, first)


def check_features(*features: Tensor) -> None:
    """Raise ValueError unless each of `features` is [N, D], FloatingPointError unless it is finite."""
    for x in features:
        if x.ndim != 2:
            raise ValueError(f"features are {list(x.shape)}; give one row per image, [N, D]")
        broken = sum(int((~part.isfinite().all(1)).sum()) for part in torch.split(x, _FINITE_ROWS))
        if broken:
            raise FloatingPointError(
                f"{broken} of {len(x)} features hold NaN or infinity: the encoder diverged; lower optim.lr"
            )


_Nearest = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def has_faiss() -> bool:
    """Whether faiss may be used here."""
    # on macOS the OpenMP runtimes of faiss and torch clash and crash the process
    return sys.platform != "darwin" and find_spec("faiss") is not None


@cache
def load_faiss() -> ModuleType:
    """Import faiss; its OpenBLAS gives CPUs younger than itself kernels of 2004 unless it is told theirs."""
    given = os.environ.get(_BLAS)
    kernels = given or _KERNELS.get(torch.backends.cpu.get_cpu_capability())
    if kernels:
        os.environ[_BLAS] = kernels
    try:
        import faiss
    finally:
        if given is None:  # a job that inherits it may run on another CPU
            os.environ.pop(_BLAS, None)
    module: ModuleType = faiss
    return module


def _faiss(bank: Tensor) -> _Nearest:
    index = load_faiss().IndexFlatIP(bank.shape[1])
    index.add(bank.contiguous().numpy())

    def nearest(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, indices = index.search(queries.contiguous().numpy(), k)
        return torch.from_numpy(scores), torch.from_numpy(indices)

    return nearest


def _torch(bank: Tensor) -> _Nearest:
    def nearest(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, indices = (queries @ bank.T).topk(k)
        return scores, indices

    return nearest


def _torch_rows(bank: Tensor) -> int:
    return max(32, _CHUNK_SCORES // len(bank))


def _ordered(queries: Tensor, bank: Tensor, k: int, nearest: _Nearest) -> tuple[Tensor, Tensor]:
    # libraries return ties in any order; one neighbour more than asked for shows a tie across the border
    scores, indices = nearest(queries, min(k + 1, len(bank)))
    order = _rank(scores, indices).argsort(dim=1, descending=True)
    scores, indices = scores.gather(1, order), indices.gather(1, order)
    if k < len(bank):
        tied = scores[:, k - 1] == scores[:, k]
        scores, indices = scores[:, :k], indices[:, :k]
        for rows in torch.split(tied.nonzero().squeeze(1), _torch_rows(bank)):
            every = queries[rows] @ bank.T
            first = _rank(every, torch.arange(len(bank), device=bank.device)).topk(k).indices
            scores[rows], indices[rows] = every.gather(1, first), first
    return scores, indices


def _rank(scores: Tensor, indices: Tensor) -> Tensor:
    """Unique int64 keys that sort as (score, -index): float32 bits are ordered once negatives are flipped."""
    bits = (scores + 0.0).view(torch.int32)  # adding zero turns -0 into 0
    return ((bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32) - indices
