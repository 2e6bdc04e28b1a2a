"""Photos: images that stay encoded in their files and are decoded when they are needed."""

import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_zoo.data.decode import BadImage, Window, read_rgb, shown


class Photos:
    """Images of any sizes, read from their files on demand; picklable, so that workers can have them.

    Each image is one of `files`, or, with `spans` [N, 3] int64 (file, first byte, bytes), a part of one.
    `content` [N] int64 hashes the shape and pixels of each decoded image, `sides` [N, 2] int64 are its
    height and width, `grey` says that no image has colour (a selection keeps it), `window` is read_rgb's.
    """

    def __init__(
        self,
        files: Sequence[str | Path] | NDArray[np.bytes_],
        content: Tensor,
        sides: Tensor,
        *,
        grey: bool,
        spans: Tensor | None = None,
        window: Window = "dtype",
    ) -> None:
        # one array: workers count references to what they read, which would copy strings into each of them
        if not isinstance(files, np.ndarray):
            files = np.array([os.fsencode(file) for file in files], np.bytes_)
        self.files = files
        self.content = content
        self.sides = sides
        self.grey = grey
        self.spans = spans
        self.window = window

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: Tensor) -> "Photos":
        """The photos at `index` [K] int64, in that order."""
        spans = None if self.spans is None else self.spans[index]
        files = self.files[index.numpy()] if spans is None else self.files
        content, sides = self.content[index], self.sides[index]
        return Photos(files, content, sides, grey=self.grey, spans=spans, window=self.window)

    def decode(self, position: int, at_least: int = 0) -> Tensor:
        """One photo as RGB uint8 [3, H, W]; `at_least` > 0 allows a smaller JPEG with no side below it.

        Raises BadImage, a ValueError that names the file and what is wrong, and OSError for missing packs.
        """
        if self.spans is None:
            return read_rgb(Path(self._name(position)), self.window, at_least)
        file, start, size = self.spans[position].tolist()
        with open(self._name(file), "rb") as pack:
            pack.seek(start)
            data = pack.read(size)
        try:
            return read_rgb(data, self.window, at_least)
        except BadImage as error:
            name = f"{shown(self._name(file))}, bytes {start} to {start + size}"
            raise BadImage(error.reason, error.advice, name) from error

    def _name(self, file: int) -> str:
        return os.fsdecode(self.files[file])


def write_pack(path: Path, images: Iterable[bytes]) -> Tensor:
    """Write encoded images into one file, which appears only when it is whole; returns `spans` of Photos."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            sizes = torch.tensor([file.write(image) for image in images], dtype=torch.int64)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return torch.stack([torch.zeros_like(sizes), sizes.cumsum(0) - sizes, sizes], 1)
