"""Retrieval of images of the same class."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_zoo.draws import sample
from ssl_zoo.evaluation.search import has_faiss, load_faiss, search

_CHUNK_NEIGHBOURS = 2**22  # neighbours rated at once; the calculator holds some 80 bytes for each


def map_at_r(test_x: Tensor, test_y: Tensor, *, max_queries: int = 10_000) -> float:
    """Mean average precision at R of `test_x` [M, D] with labels `test_y` [M], by cosine similarity.

    Each query is searched among all other test images; R is the number of those of its class (Musgrave et
    al. 2020, by pytorch-metric-learning). Above `max_queries`, a fixed random subset asks. Images alone in
    their class do not.
    Raises ValueError if every image is alone in its class.
    """
    if has_faiss():
        load_faiss()  # before the calculator, which imports it as it is
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    asks = (torch.bincount(test_y)[test_y] > 1).nonzero().squeeze(1)
    if not len(asks):
        raise ValueError(
            f"none of {len(test_y)} test images shares its class with another; map_at_r needs pairs"
        )
    asks = sample(asks, max_queries)
    others = torch.ones(len(test_y), dtype=torch.bool).index_fill(0, asks, False).nonzero().squeeze(1)
    order = torch.cat([asks, others])
    x, y = F.normalize(test_x[order].float()), test_y[order]

    name = "mean_average_precision_at_r"
    calculator = AccuracyCalculator(
        include=(name,), k="max_bin_count", knn_func=_neighbours, device=torch.device("cpu")
    )
    rows = max(1, _CHUNK_NEIGHBOURS // int(torch.bincount(y).max()))
    total = 0.0
    for start in range(0, len(asks), rows):
        count = min(rows, len(asks) - start)
        bank, labels = x.roll(-start, 0), y.roll(-start, 0)  # the calculator wants the queries first
        found = calculator.get_accuracy(bank[:count], labels[:count], bank, labels, ref_includes_query=True)
        total += found[name] * count
    return total / len(asks)


def _neighbours(queries: Tensor, k: int, bank: Tensor, bank_includes_queries: bool) -> tuple[Tensor, Tensor]:
    """`search` for queries that are the first rows of the bank, without themselves."""
    scores, index = search(queries, bank, k + 1)
    itself = index == torch.arange(len(queries)).unsqueeze(1)
    itself[:, -1] |= ~itself.any(1)  # crowded out by equal images: drop the last neighbour instead
    keep = ~itself
    return scores[keep].view(-1, k), index[keep].view(-1, k)
