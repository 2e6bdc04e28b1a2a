"""Features on a plane, for the eye: principal components and t-SNE."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_zoo.draws import sample

MOST_POINTS = 1000
_DENOISED = 50  # principal components that t-SNE starts from, as its authors do
_PERPLEXITY = 30
_ITERATIONS = 500
_FLAT = 1e-6  # largest deviation of unit vectors that are one point but for rounding


class Projection(NamedTuple):
    """Coordinates float32 [N, 2]; `tsne` is all zero for fewer than five points, both for a single one."""

    pca: Tensor
    tsne: Tensor


def map_index(images: int) -> Tensor:
    """Which of `images` stand on a map: int64 positions in order, the same for every encoder."""
    return sample(torch.arange(images), MOST_POINTS).sort().values


def project(x: Tensor) -> Projection:
    """Features [N, D] by direction, as k-NN compares them, on a plane; the same numbers for the same input.

    t-SNE (van der Maaten & Hinton 2008; scikit-learn) starts from the principal components and takes 500
    iterations: about 5 s for 1,000 points on two cores. Features that are one point stay one.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = F.normalize(x.float())
    nowhere = torch.zeros(len(x), 2)
    if len(x) < 2 or float((x - x.mean(0)).abs().max()) < _FLAT:
        return Projection(nowhere, nowhere)
    count = min(_DENOISED, *x.shape)
    components = PCA(count, svd_solver="covariance_eigh").fit_transform(x.double().numpy())
    pca = nowhere.clone()
    pca[:, :count] = torch.from_numpy(components[:, :2]).float()
    if len(x) < 5:
        return Projection(pca, nowhere)
    start = 1e-4 * pca / pca[:, 0].std()
    method = TSNE(
        perplexity=min(_PERPLEXITY, (len(x) - 1) / 3),
        init=start.numpy(),
        max_iter=_ITERATIONS,
        random_state=0,
    )
    return Projection(pca, torch.from_numpy(method.fit_transform(components.astype("float32"))))
