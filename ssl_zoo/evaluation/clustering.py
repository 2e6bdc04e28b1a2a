"""Clustering: how well k-means finds the classes without labels."""

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional as F

from ssl_zoo.draws import sample
from ssl_zoo.evaluation.search import has_faiss, load_faiss

MOST_IMAGES = 10_000
_RESTARTS = 10
_ITERATIONS = 100


def cluster(x: Tensor, count: int) -> Tensor:
    """The cluster, 0..count-1, of each of up to 10,000 features `x` [M, D], L2-normalised: int64 [M].

    Of more features a fixed random subset. k-means by faiss with a fixed seed, the best of ten starts; by
    scikit-learn where faiss is absent, which starts elsewhere and may end in other clusters. The same on
    every run with as many threads.
    Raises ValueError for more clusters than features or than 10,000.
    """
    if not 1 <= count <= (most := min(len(x), MOST_IMAGES)):
        raise ValueError(f"{count} clusters of {len(x)} features; give 1 to {most}")
    points = F.normalize(sample(x, MOST_IMAGES).float()).contiguous().numpy()
    if has_faiss():
        means = load_faiss().Kmeans(
            points.shape[1],
            count,
            niter=_ITERATIONS,
            nredo=_RESTARTS,
            seed=0,
            min_points_per_centroid=1,  # it would warn
            max_points_per_centroid=len(points),  # it would take a sample of its own
        )
        means.train(points)
        return torch.from_numpy(means.assign(points)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        fitted = KMeans(count, n_init=_RESTARTS, max_iter=_ITERATIONS, random_state=0).fit(points)
    return torch.from_numpy(fitted.labels_).long()


def mutual_information(clusters: Tensor, labels: Tensor) -> dict[str, float]:
    """Agreement of `cluster`'s result with labels [M]: `cluster_ami` about 0 by chance, 1 if equal.

    AMI is adjusted for chance, NMI is not and grows with the number of clusters (scikit-learn, both
    normalised by the arithmetic mean of the entropies).
    """
    truth = sample(labels, MOST_IMAGES).numpy()
    return {
        "cluster_ami": float(adjusted_mutual_info_score(truth, clusters.numpy())),
        "cluster_nmi": float(normalized_mutual_info_score(truth, clusters.numpy())),
    }
