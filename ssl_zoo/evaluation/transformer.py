"""A trained encoder as a scikit-learn transformer: from images to the numbers that any estimator takes."""

import copy
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor

from ssl_zoo.data.decode import read_rgb
from ssl_zoo.evaluation.encoder import Encoder, load_encoder


class SSLTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Features of images by the encoder of `run`, a cell folder or a .safetensors file.

    Stateless: `fit` only loads the encoder. A pickle holds the weights, so it works where `run` does not
    exist. `device` "auto" is the GPU if there is one; `batch_size` images are decoded at once.
    """

    def __init__(self, run: str | Path, *, device: str = "auto", batch_size: int = 256) -> None:
        self.run = run
        self.device = device
        self.batch_size = batch_size

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the encoder; images and labels are not looked at. Raises as `load_encoder` does."""
        self.encoder_ = load_encoder(self.run)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features [N, out_dim] of a list of PIL images, paths or uint8 [C, H, W] or [H, W, C] of any sizes,
        or of one uint8 array or tensor [N, C, H, W] or [N, H, W, C]; C is 1 or 3.

        Raises ValueError for anything else, and for no images.
        """
        encoder = self._encoder()
        if not len(X):
            raise ValueError("no images to transform; give at least one")
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        encoder.to(auto if self.device == "auto" else self.device)
        batches = [encoder.embed(batch) for batch in _batches(X, self.batch_size, encoder)]
        features: NDArray[np.float32] = torch.cat(batches).numpy()
        return features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """`ssl0`, `ssl1`, ...: a name per feature, whatever the input's names."""
        return np.array([f"ssl{i}" for i in range(self._encoder().out_dim)], dtype=object)

    def _encoder(self) -> Encoder:
        if "encoder_" not in vars(self):
            self.fit()
        return self.encoder_

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {**super().__getstate__()}
        if "encoder_" in state:
            state["encoder_"] = copy.deepcopy(state["encoder_"]).cpu()  # may be loaded where no GPU is
        return state


def _batches(images: Any, size: int, encoder: Encoder) -> Iterator[Tensor | list[Image.Image | Tensor]]:
    whole = _as_pixels(images) if isinstance(images, np.ndarray | Tensor) and images.ndim > 1 else None
    for start in range(0, len(images), size):
        if whole is not None:
            yield whole[start : start + size]
        else:
            chunk: Sequence[Any] = list(images)[start : start + size]
            yield [_image(image, encoder) for image in chunk]


def _image(image: Any, encoder: Encoder) -> Image.Image | Tensor:
    if isinstance(image, str | PathLike):
        return read_rgb(Path(image), encoder.window, encoder.image_size)  # as a folder's images are read
    if isinstance(image, np.ndarray | Tensor):
        return _as_pixels(image[None])[0]
    if not isinstance(image, Image.Image):
        given = type(image).__name__
        raise ValueError(
            f"an image is a {given}; give PIL images, paths or uint8 arrays [C, H, W], [H, W, C]"
        )
    return image


def _as_pixels(images: "NDArray[Any] | Tensor") -> Tensor:
    """Images with channels first, of an array or tensor [N, C, H, W] or [N, H, W, C]."""
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    if images.dtype != torch.uint8 or images.ndim != 4:
        given = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images are {given}; give uint8 [N, C, H, W] or [N, H, W, C], 0 to 255")
    channels_last = images.shape[1] not in (1, 3) and images.shape[3] in (1, 3)
    return images.permute(0, 3, 1, 2) if channels_last else images
