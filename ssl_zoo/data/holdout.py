"""The test part of images that come without one: chosen by content, whatever their order and names."""

import hashlib
from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHARE = 0.2


def held_out(content: Tensor, labels: Tensor | None = None, groups: Tensor | None = None) -> Tensor:
    """Mark about 20 % of each class (of all without labels) as test: those of lowest content hash, [N] bool.

    `content`, `labels` and `groups` are [N] int64. Exact duplicates and images of one group stay together, so
    a share can differ from 20 %. A class keeps an image outside and, if it has two distinct images or groups
    that can be parted, gets one in the test.
    """
    classes = [0] * len(content) if labels is None else labels.tolist()
    units = [(members, Counter(classes[image] for image in members)) for members in together(content, groups)]
    total = Counter(classes)
    wanted = {name: round(SHARE * count) for name, count in total.items()}
    taken: Counter[int] = Counter()
    is_test = torch.zeros(len(content), dtype=torch.bool)

    def take(members: list[int], counts: Counter[int]) -> None:
        taken.update(counts)
        is_test[members] = True

    def leaves_some(counts: Counter[int]) -> bool:
        return all(total[name] - taken[name] > count for name, count in counts.items())

    for members, counts in units:
        off = {name: wanted[name] - taken[name] for name in counts}
        gain = sum(abs(off[name]) - abs(off[name] - count) for name, count in counts.items())
        if gain > 0 and leaves_some(counts):
            take(members, counts)
    for members, counts in units:
        if any(not taken[name] for name in counts) and leaves_some(counts):
            take(members, counts)
    return is_test


def together(content: Tensor, groups: Tensor | None) -> list[list[int]]:
    """Lists of images that must not be parted, in an order that depends on their content alone."""
    unit = tied(content, groups)
    hashes = content.numpy()
    members = np.split(np.argsort(unit, kind="stable"), np.cumsum(np.bincount(unit))[:-1])
    return [images.tolist() for images in sorted(members, key=lambda images: _order(hashes[images]))]


def tied(content: Tensor, groups: Tensor | None) -> NDArray[np.int64]:
    """Number of the set that each image belongs to, [N]: exact duplicates and groups stay together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    copies = np.unique(content.numpy(), return_inverse=True)[1]
    if groups is None:
        return copies
    group = np.unique(groups.numpy(), return_inverse=True)[1] + copies.max(initial=-1) + 1
    size = int(group.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(copies), np.int8), (copies, group)), shape=(size, size))
    return np.asarray(connected_components(edges, directed=False)[1][copies], np.int64)


def _order(hashes: NDArray[np.int64]) -> int:
    distinct = hashes if len(hashes) == 1 else np.unique(hashes)
    if len(distinct) == 1:
        return int(distinct[0])
    # not the lowest of its hashes, or large groups would always come first
    digest = hashlib.blake2b(distinct.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
