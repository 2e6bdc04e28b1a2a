"""Checkpoint files of other programs, read without running anything that they contain."""

import argparse
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

_SCALAR = np.float64(0).__reduce__()[0]  # numpy's constructor of scalars, which moved with numpy 2
# Plain values that training scripts leave beside tensors. DINO: its arguments, whose output folder is a path
# under submitit, and the optimizer's learning rate and weight decay, which come from a numpy array.
_ALLOWED: list[Any] = [
    argparse.Namespace,
    (PurePosixPath, "pathlib.PosixPath"),
    (PurePosixPath, "pathlib._local.PosixPath"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")),
]


def read_checkpoint(file: Path) -> Any:
    """What torch.save wrote to `file`, on the CPU: tensors, containers and the plain values allowed here.

    Raises FileNotFoundError, ValueError for anything else, which is not run.
    """
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make torch raise anything
        lines = [line.strip() for line in str(error).splitlines()]
        reason = next((line for line in lines if line.startswith("WeightsUnpickler")), (*lines, "")[0])
        raise ValueError(
            f"{file} cannot be read as tensors, and anything else could run code; write the weights with "
            f"torch.save(model.state_dict(), FILE): {reason.partition(' Please use')[0]}"
        ) from error
