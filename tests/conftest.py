"""Settings of all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded

import pytest
import torch

from ssl_zoo import registry
from ssl_zoo.evaluation import projection

torch.set_num_threads(1)  # tensors are small: more threads would wait for each other
projection._ITERATIONS = 250  # as few as scikit-learn takes: most cells draw a map, and few tests look at it


_LONGEST = (
    "bench",
    "ranks",
    "ray",
    "slurm",
    "spare",
    "faults",
    "resume",
    "docs",
    "config_fuzz",
    "disk_full",
    "one_writer",
    "no_surprise",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that the workers end together."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in _LONGEST)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder; the cache lies beside it and SSL_ZOO_DATA is not set."""
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _own_registrations() -> Iterator[None]:
    """Methods that a test registers, and the modules it loads them from, are gone after it."""
    registered, loaded = set(registry._REGISTERED), set(sys.modules)
    yield
    for name in set(registry._REGISTERED) - registered:
        module = registry._REGISTERED[name].__module__
        if not module.startswith("ssl_zoo."):  # what is in-tree stays imported, so stays registered
            del registry._REGISTERED[name]
            package = module.partition(".")[0]
            for fresh in set(sys.modules) - loaded:
                if fresh.partition(".")[0] == package:
                    del sys.modules[fresh]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path for packages installed by a test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The image cache of a module's tests lies in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
