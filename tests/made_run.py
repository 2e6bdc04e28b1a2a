"""A small finished bench, and small data, for the tests of what is done with one."""

import pytest
from made_data import write_idx

import ssl_zoo
from ssl_zoo.cli import main

SMALL = {"name": "resnet8", "width": 8}
TRAIN, TEST = 100, 40


def small_data(folder, train=slice(0, TRAIN), test=slice(TRAIN, TRAIN + TEST)):
    """Some of the digits as a Fashion-MNIST."""
    digits = ssl_zoo.create_dataset("digits").split("train")
    for prefix, part in (("train", train), ("t10k", test)):
        write_idx(folder / "fashion-mnist" / f"{prefix}-images-idx3-ubyte", digits.images[part, 0].numpy())
        write_idx(folder / "fashion-mnist" / f"{prefix}-labels-idx1-ubyte", digits.labels[part].numpy())
    return folder


def small_bench(folder, data_dir, **fields):
    """Three steps of BYOL and DINO on `small_data`; returns the results."""
    run = {"executor": "inline", "threads": 1, "device": "cpu"}
    fields = {
        "methods": ["byol", "dino"],
        "dataset": "fashion-mnist",
        "data": {"dir": str(data_dir)},
        "budget": {"steps": 3},
        "batch_size": 25,
        "backbone": SMALL,
        "run": run,
    } | fields
    return ssl_zoo.bench(fields.pop("methods"), fields.pop("dataset"), out=folder, quiet=True, **fields)


def command(*arguments):
    """Run `ssl-zoo` here; returns its exit code."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    return left.value.code


def on(data_dir):
    """The flags that name `small_data`."""
    return "--data", "fashion-mnist", "--data-dir", data_dir, "--device", "cpu"
